//! The terminal: taken for the whole screen, and given back however the program ends.
//!
//! What ends it well or with an error drops [`Screen`]; a panic gives the terminal back before it says
//! what happened; of a signal another thread is told, which calls [`give_back_for_good`].

use std::io::{self, IsTerminal};

use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::{DefaultTerminal, Frame};

use crate::cli::error::Failure;

/// The terminal, while the whole of it is ours.
#[derive(Debug)]
pub(crate) struct Screen(DefaultTerminal);

/// Refuses what cannot show a screen.
pub(crate) fn check() -> Result<(), Failure> {
    let other = "; 'strata ls', 'find', 'layers' and 'diff' print the same to a pipe";
    if !io::stdin().is_terminal() {
        return Err(Failure::text(format!("standard input is not a terminal{other}")));
    }
    if !io::stdout().is_terminal() {
        return Err(Failure::text(format!("standard output is not a terminal{other}")));
    }
    match std::env::var("TERM") {
        Ok(name) if !name.is_empty() && name != "dumb" => Ok(()),
        found => Err(Failure::text(format!(
            "TERM is {:?}: this terminal cannot show a whole screen{other}",
            found.unwrap_or_default()
        ))),
    }
}

impl Screen {
    /// Takes the terminal.
    pub(crate) fn open() -> io::Result<Self> {
        ratatui::try_init().map(Self).inspect_err(|_| give_back())
    }

    /// Shows what `draw` makes.
    pub(crate) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.0.draw(draw).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A panic has given it back already; once more would put the cursor over what it has said.
        if !std::thread::panicking() {
            give_back();
        }
    }
}

fn give_back() {
    let shown = execute!(io::stdout(), Show);
    if let Err(error) = ratatui::try_restore().and(shown) {
        tracing::warn!("the terminal may be left as it was used ({error}); type: reset");
    }
}

/// Gives the terminal back, and lets nobody write to it any more: the process is about to end.
pub(crate) fn give_back_for_good() {
    let held = io::stdout().lock();
    give_back();
    std::mem::forget(held);
}
