//! The commands, as a person types them.

mod refusal;
