//! The commands, as a person types them.

mod archives;
mod containers;
mod memory;
mod programs;
mod refusal;
mod same;
