//! The commands, as a person types them.

mod archives;
mod auth;
mod containers;
mod crash;
mod formats;
mod login;
mod machine;
mod manifest;
mod memory;
mod overlay;
mod programs;
mod pull;
mod pull_errors;
mod push;
mod refusal;
mod removal;
mod resume;
mod same;
mod signals;
mod words;
