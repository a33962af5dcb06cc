//! The commands, as a person types them.

mod archives;
mod auth;
mod browse;
mod containers;
mod crash;
mod losses;
mod memory;
mod overlay;
mod overlay_forms;
mod overlay_options;
mod programs;
mod pull;
mod pull_errors;
mod push;
mod refusal;
mod resume;
mod same;
mod words;
