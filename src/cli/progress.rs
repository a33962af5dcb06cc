//! What a person sees of long work: bars on a terminal, docker's own lines in a pipe.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

use crate::cli::error::without_controls;
use crate::digest::Digest;
use crate::service::{Event, LayerState, Progress};

/// Shows what the service tells.
#[derive(Debug)]
pub(crate) struct Shown {
    bars: Option<MultiProgress>,
    layers: Mutex<HashMap<Digest, Layer>>,
    quiet: bool,
}

#[derive(Debug, Default)]
struct Layer {
    bar: Option<ProgressBar>,
    /// The line that was printed last.
    said: String,
}

impl Shown {
    /// Returns what shows progress on standard output; a quiet one shows only warnings.
    pub(crate) fn new(quiet: bool) -> Self {
        let terminal = io::stdout().is_terminal() && !quiet;
        let bars = terminal.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stdout()));
        Self { bars, layers: Mutex::default(), quiet }
    }

    fn layer(&self, id: Digest, state: &LayerState) {
        let mut layers = self.layers.lock();
        let layer = layers.entry(id).or_default();
        let text = format!("{}: {}", id.short(), words(state));
        let Some(bars) = &self.bars else {
            // A pipe gets a line for each state and none for each byte; of a load it gets the names.
            let only_shown = matches!(
                state,
                LayerState::Downloading { .. }
                    | LayerState::Pushing { .. }
                    | LayerState::Compressing { .. }
                    | LayerState::Loading { .. }
                    | LayerState::Loaded
            );
            if !only_shown && layer.said != text {
                say(&text);
                layer.said = text;
            }
            return;
        };
        let bar = layer.bar.get_or_insert_with(|| bars.add(ProgressBar::new(0)));
        match state {
            LayerState::Downloading { done, total }
            | LayerState::Pushing { done, total }
            | LayerState::Compressing { done, total }
            | LayerState::Loading { done, total } => {
                bar.set_style(bar_style());
                bar.set_length(*total);
                bar.set_position(*done);
                bar.set_message(text);
            }
            LayerState::Queued
            | LayerState::Waiting
            | LayerState::Preparing
            | LayerState::Downloaded => {
                bar.set_style(line_style());
                bar.set_message(text);
            }
            LayerState::Loaded => bar.finish(),
            LayerState::AlreadyExists
            | LayerState::Pulled
            | LayerState::Pushed
            | LayerState::AlreadyPushed
            | LayerState::MountedFrom(_) => {
                bar.set_style(line_style());
                bar.finish_with_message(text);
            }
        }
    }
}

fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template("{msg} [{bar:50}] {decimal_bytes}/{decimal_total_bytes}")
        .map_or_else(|_| ProgressStyle::default_bar(), |style| style.progress_chars("=> "))
}

fn line_style() -> ProgressStyle {
    ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Returns docker's words for a state.
fn words(state: &LayerState) -> String {
    match state {
        LayerState::Queued => "Pulling fs layer".to_owned(),
        LayerState::Waiting => "Waiting".to_owned(),
        LayerState::AlreadyExists => "Already exists".to_owned(),
        LayerState::Downloading { .. } => "Downloading".to_owned(),
        LayerState::Downloaded => "Download complete".to_owned(),
        LayerState::Pulled => "Pull complete".to_owned(),
        LayerState::Loading { .. } | LayerState::Loaded => "Loading layer".to_owned(),
        LayerState::Preparing => "Preparing".to_owned(),
        LayerState::Compressing { .. } => "Compressing".to_owned(),
        LayerState::Pushing { .. } => "Pushing".to_owned(),
        LayerState::Pushed => "Pushed".to_owned(),
        LayerState::AlreadyPushed => "Layer already exists".to_owned(),
        LayerState::MountedFrom(repository) => format!("Mounted from {repository}"),
    }
}

impl Progress for Shown {
    fn event(&self, event: Event) {
        match event {
            Event::Warning(text) => {
                let text = without_controls(&text);
                let warn = || drop(writeln!(io::stderr(), "WARNING: {text}"));
                match &self.bars {
                    Some(bars) => bars.suspend(warn),
                    None => warn(),
                }
            }
            _ if self.quiet => {}
            Event::PullingFrom { tag, repository } => {
                say(&format!("{tag}: Pulling from {repository}"));
            }
            Event::Pulled(digest) => say(&format!("Digest: {digest}")),
            Event::Pushed { tag, digest, size } => {
                say(&format!("{tag}: digest: {digest} size: {size}"));
            }
            Event::Layer { id, state } => self.layer(id, &state),
            // A check has bars of its own.
            Event::Checking { .. } | Event::Checked => {}
        }
    }
}

/// Prints a line of progress. Whoever does not listen any more will be noticed at the end.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let printed = writeln!(out, "{text}").and_then(|()| out.flush());
    drop(printed);
}
