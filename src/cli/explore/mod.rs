//! `strata explore`: the layers and files of an image or a container, on the whole terminal.
//!
//! `model` is what is shown and what a key does to it, `draw` shows it, `terminal` gives the terminal
//! back in whatever way the program ends. Keys that wait are taken before anything is read or drawn,
//! so that a key that is held goes through the layers without reading each.

mod draw;
mod files;
mod input;
mod model;
mod pager;
mod scroll;
mod terminal;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::explore::draw::{Colours, draw};
use crate::cli::explore::model::{Flow, Model};
use crate::cli::explore::terminal::Screen;
use crate::service::{Progress, Strata, hold_interrupts};

/// Go through the layers and files of an image or a container on the terminal
///
/// On the left are the layers, on the right the files up to the chosen one, with what it adds (A),
/// changes (C) and deletes (D). '?' shows the keys.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata explore debian:12")]
pub(crate) struct Arguments {
    /// What to go through
    #[arg(value_name = "IMAGE|CONTAINER")]
    name: String,
}

/// Added to the number of SIGINT, as shells do.
const INTERRUPTED: u8 = 130;

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    terminal::check()?;
    let warnings = Arc::new(model::Warnings::default());
    hold_interrupts()?;
    let strata = context.strata_with(Arc::clone(&warnings) as Arc<dyn Progress>)?;
    let mut model = Model::new(strata.explore(&arguments.name)?, warnings);
    match show(&strata, &mut model)? {
        Flow::Interrupted => Err(Failure::Told(INTERRUPTED)),
        Flow::Quit | Flow::Go => Ok(()),
    }
}

/// Shows the model and takes keys, until one ends it.
fn show(strata: &Strata, model: &mut Model) -> Result<Flow, Failure> {
    let mut screen = Screen::open()?;
    strata.abandon_on_interrupt_after(terminal::give_back_for_good)?;
    let colours = Colours::of_the_environment();
    loop {
        model.prepare();
        screen.draw(|frame| draw(frame, model, colours))?;
        let mut event = event::read()?;
        loop {
            if let Event::Key(key) = event
                && key.kind != KeyEventKind::Release
            {
                let flow = model.press(key);
                if flow != Flow::Go {
                    return Ok(flow);
                }
            }
            if !event::poll(Duration::ZERO)? {
                break;
            }
            event = event::read()?;
        }
    }
}
