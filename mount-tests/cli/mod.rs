//! The commands, as a person types them.

mod archives;
mod containers;
mod refusal;
mod same;
