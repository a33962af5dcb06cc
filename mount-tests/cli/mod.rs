//! The commands, as a person types them.

mod archive_errors;
mod archive_load;
mod archive_save;
mod archives;
mod auth;
mod containers;
mod crash;
mod memory;
mod overlay;
mod programs;
mod pull;
mod pull_errors;
mod push;
mod refusal;
mod resume;
mod same;
