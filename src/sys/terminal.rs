//! The terminal that a person types at.

use std::os::fd::BorrowedFd;

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use crate::sys::Result;
use crate::sys::error::check;

/// A terminal that does not show what is typed, until this is dropped.
#[derive(Debug)]
pub struct Hidden<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

/// Keeps a terminal from showing what is typed.
pub fn hide_typing(terminal: BorrowedFd<'_>) -> Result<Hidden<'_>> {
    let before = check(tcgetattr(terminal), || "tcgetattr()")?;
    let mut hidden = before.clone();
    hidden.local_flags.remove(LocalFlags::ECHO);
    check(tcsetattr(terminal, SetArg::TCSAFLUSH, &hidden), || "tcsetattr(TCSAFLUSH)")?;
    Ok(Hidden { terminal, before })
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(self.terminal, SetArg::TCSANOW, &self.before) {
            tracing::warn!("the terminal may not show what is typed ({error}); type: stty echo");
        }
    }
}

/// Makes a terminal show what is typed.
pub fn show_typing(terminal: BorrowedFd<'_>) -> Result<()> {
    let mut state = check(tcgetattr(terminal), || "tcgetattr()")?;
    state.local_flags.insert(LocalFlags::ECHO);
    check(tcsetattr(terminal, SetArg::TCSANOW, &state), || "tcsetattr(TCSANOW)")
}
