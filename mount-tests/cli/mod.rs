//! The commands, as a person types them.

mod archive_errors;
mod archive_load;
mod archive_save;
mod archives;
mod auth;
mod browse;
mod containers;
mod crash;
mod formats;
mod login;
mod losses;
mod manifest;
mod memory;
mod overlay;
mod overlay_forms;
mod overlay_options;
mod programs;
mod pull;
mod pull_errors;
mod push;
mod refusal;
mod removal;
mod resume;
mod same;
mod words;
