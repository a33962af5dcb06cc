//! What happens when a person interrupts a command.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::thread;

use crate::service::Strata;
use crate::service::error::{Result, io_error};
use crate::sys;

/// Added to the number of the signal, as shells do.
const SIGNAL_CODE: i32 = 128;

/// Keeps SIGINT and SIGTERM until [`Strata::abandon_on_interrupt`]. To be called before threads begin.
pub fn hold_interrupts() -> Result<()> {
    Ok(sys::block_interrupts()?)
}

impl Strata {
    /// From now on SIGINT and SIGTERM end the process with what it has not finished: what was being
    /// made is deleted, and a terminal shows again what is typed. [`hold_interrupts`] came before.
    pub fn abandon_on_interrupt(&self) -> Result<()> {
        self.abandon_on_interrupt_after(|| {})
    }

    /// Does the same after what is said.
    pub fn abandon_on_interrupt_after(
        &self,
        tidy_up: impl FnOnce() + Send + 'static,
    ) -> Result<()> {
        let store = self.store.clone();
        let wait = move || {
            let signal = match sys::wait_for_interrupt() {
                Ok(signal) => signal,
                Err(error) => return tracing::warn!("{error}"),
            };
            tidy_up();
            store.abandon();
            let stdin = io::stdin();
            if stdin.is_terminal()
                && let Err(error) = sys::show_typing(stdin.as_fd())
            {
                tracing::debug!("{error}");
            }
            sys::exit_at_once(SIGNAL_CODE + signal)
        };
        let named = thread::Builder::new().name("signals".to_owned());
        named.spawn(wait).map(drop).map_err(io_error("start", "a thread"))
    }
}
