//! The commands, as a person types them.

mod append;
mod archives;
mod auth;
mod browse;
mod containers;
mod crash;
mod diff;
mod layers;
mod memory;
mod mutate;
mod overlay;
mod programs;
mod pull;
mod pull_errors;
mod push;
mod rebase;
mod refusal;
mod resume;
mod same;
mod squash;
mod words;
