//! Mounts whose servers die, or are replaced, and what programs see of it: nothing.
//!
//! Every test has a [`Watch`]: what waits for a server that nobody starts any more would wait for ever,
//! and with it the test.

mod ends;
mod held;
mod open;
mod points;
mod tracer;
mod under_load;
mod upgrade;
mod watch;

pub(crate) use held::Held;
pub(crate) use watch::Watch;
