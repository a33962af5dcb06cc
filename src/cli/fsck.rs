//! `strata fsck`.

use std::io::{self, IsTerminal};
use std::sync::Arc;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::format::size;
use crate::cli::output::line;
use crate::cli::rows::{List, Row, TEMPLATE_ERROR};
use crate::service::{
    Event, FindingState, FsckFinding, FsckRequest, FsckSummary, Progress, hold_interrupts,
};

/// Check the store, and mend it
///
/// Everything in the store but what containers have written is read and held against its sums, what was
/// checked longest ago first; a check that was interrupted goes on where it was. The code is 0 if all
/// is sound, 1 if what was wrong was mended, 4 if something is left, 8 if it could not be checked.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  strata fsck\n  strata fsck --repair debian:12\n  strata fsck \
                        --format '{{.Path}} {{.Images}}'"
)]
pub(crate) struct Arguments {
    /// Mend what is wrong: with what the store has, or fetched again from where it came; what nobody
    /// has is set apart
    #[arg(long)]
    repair: bool,

    /// Also make the tar of every layer, which must be the one that it is named by
    #[arg(long)]
    deep: bool,

    /// Begin anew, also if an earlier check was interrupted
    #[arg(long)]
    restart: bool,

    /// How to print what is found: table, table TEMPLATE, json, or a template of Go
    #[arg(long)]
    format: Option<String>,

    /// Only what this image needs
    #[arg(value_name = "IMAGE")]
    image: Option<String>,
}

const MENDED: u8 = 1;
const LEFT: u8 = 4;

const TABLE: &str =
    "{{.Path}}\t{{.Problem}}\t{{.State}}\t{{.Images}}\t{{.Containers}}\t{{.Outcome}}";
const TITLES: [(&str, &str); 6] = [
    ("Path", "PATH"),
    ("Problem", "PROBLEM"),
    ("State", "STATE"),
    ("Images", "IMAGES"),
    ("Containers", "CONTAINERS"),
    ("Outcome", "OUTCOME"),
];

/// A bar on the terminal while something is read; nothing in a pipe.
#[derive(Debug)]
struct Shown(Mutex<Option<ProgressBar>>);

impl Shown {
    /// Prints a line above the bar.
    fn print(&self, text: &str) -> Result<(), Failure> {
        match &*self.0.lock() {
            Some(bar) => bar.suspend(|| line(text)),
            None => line(text),
        }
    }
}

impl Progress for Shown {
    fn event(&self, event: Event) {
        let mut shown = self.0.lock();
        match event {
            Event::Checking { done, total } if io::stderr().is_terminal() => {
                let bar = shown.get_or_insert_with(|| {
                    let target = ProgressDrawTarget::stderr();
                    ProgressBar::with_draw_target(Some(total), target).with_style(style())
                });
                bar.set_position(done);
            }
            Event::Checked => {
                if let Some(bar) = shown.take() {
                    bar.finish_and_clear();
                }
            }
            // What is fetched again is told when it was.
            _ => {}
        }
    }
}

fn style() -> ProgressStyle {
    let template = "Checking [{bar:50}] {decimal_bytes}/{decimal_total_bytes} {eta}";
    ProgressStyle::with_template(template)
        .map_or_else(|_| ProgressStyle::default_bar(), |style| style.progress_chars("=> "))
}

pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<(), Failure> {
    let Arguments { repair, deep, restart, format, image } = arguments;
    hold_interrupts()?;
    let shown = Arc::new(Shown(Mutex::new(None)));
    let strata = context.strata_to_check(Arc::clone(&shown) as Arc<dyn Progress>);
    let strata = strata.map_err(Failure::Check)?;
    strata.abandon_on_interrupt()?;
    let request = FsckRequest { image, repair, deep, anew: restart };
    let mut rows = Vec::new();
    let mut printed = Ok(());
    let summary = strata.fsck(&request, &mut |finding| {
        if format.is_some() {
            rows.push(row(finding));
        } else if printed.is_ok() {
            printed = shown.print(&told(finding));
        }
    });
    let summary = summary.map_err(Failure::Check)?;
    printed?;
    match format.as_deref() {
        Some(format) => {
            let (kind, table) = ("fsckContext", TABLE);
            let list = List { kind, failure: TEMPLATE_ERROR, titles: &TITLES, table };
            list.print(Some(format), rows)?;
        }
        None => line(&in_all(&summary))?,
    }
    match summary {
        FsckSummary { faults: 0, .. } => Ok(()),
        FsckSummary { faults, mended, .. } if faults == mended => Err(Failure::Told(MENDED)),
        _ => Err(Failure::Told(LEFT)),
    }
}

/// Returns the line of a finding: the file, what is wrong, whom it touches, what became of it.
fn told(finding: &FsckFinding) -> String {
    let mut text = format!("{}: {}", finding.path.display(), finding.problem);
    for (names, one, several) in
        [(&finding.images, "image", "images"), (&finding.containers, "container", "containers")]
    {
        match names.as_slice() {
            [] => {}
            [name] => text.push_str(&format!("; {one} {name}")),
            names => text.push_str(&format!("; {several} {}", names.join(", "))),
        }
    }
    match &finding.state {
        FindingState::Found => {}
        FindingState::Mended(how) => text.push_str(&format!("; mended: {how}")),
        FindingState::Left(what) => text.push_str(&format!("; not mended: {what}")),
        FindingState::Harmless(None) => text.push_str("; harmless"),
        FindingState::Harmless(Some(what)) => text.push_str(&format!("; harmless: {what}")),
    }
    text
}

fn row(finding: &FsckFinding) -> Row {
    let (state, outcome) = match &finding.state {
        FindingState::Found => ("found", ""),
        FindingState::Mended(how) => ("mended", how.as_str()),
        FindingState::Left(what) => ("left", what.as_str()),
        FindingState::Harmless(what) => ("harmless", what.as_deref().unwrap_or_default()),
    };
    let fields = vec![
        ("Path", finding.path.display().to_string()),
        ("Problem", finding.problem.clone()),
        ("State", state.to_owned()),
        ("Images", finding.images.join(",")),
        ("Containers", finding.containers.join(",")),
        ("Outcome", outcome.to_owned()),
    ];
    Row { fields, labels: None }
}

fn in_all(summary: &FsckSummary) -> String {
    let FsckSummary { files, bytes, passed_over, faults, mended, .. } = *summary;
    let before = match passed_over {
        0 => String::new(),
        number => format!(", {number} by the check before, which was interrupted"),
    };
    let result = match (faults, mended) {
        (0, _) => "no faults".to_owned(),
        (1, 0) => "1 fault".to_owned(),
        (faults, 0) => format!("{faults} faults"),
        (1, _) => "1 fault, mended".to_owned(),
        (faults, mended) if faults == mended => format!("{faults} faults, all mended"),
        (faults, mended) => format!("{faults} faults, {mended} of them mended"),
    };
    let noun = if files == 1 { "file" } else { "files" };
    format!("Checked {files} {noun} ({}){before}: {result}", size(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(state: FindingState, images: &[&str]) -> FsckFinding {
        FsckFinding {
            path: "objects/ab/abc".into(),
            problem: "it is missing".to_owned(),
            images: images.iter().map(|name| (*name).to_owned()).collect(),
            containers: vec!["work".to_owned()],
            state,
        }
    }

    #[test]
    fn a_fault_is_one_line_with_whom_it_touches_and_what_became_of_it() {
        for (state, images, expected) in [
            (FindingState::Found, &["a:1"][..], "; image a:1; container work"),
            (
                FindingState::Mended("so".to_owned()),
                &["a:1", "b:2"],
                "; images a:1, b:2; container work; mended: so",
            ),
            (
                FindingState::Left("do this".to_owned()),
                &[],
                "; container work; not mended: do this",
            ),
            (FindingState::Harmless(None), &[], "; container work; harmless"),
        ] {
            let expected = format!("objects/ab/abc: it is missing{expected}");
            assert_eq!(told(&finding(state, images)), expected);
        }
    }

    #[test]
    fn the_last_line_says_how_much_and_how_well() {
        let summary = |faults, mended| FsckSummary {
            files: 2,
            bytes: 1500,
            faults,
            mended,
            ..FsckSummary::default()
        };
        for (faults, mended, expected) in [
            (0, 0, "no faults"),
            (1, 0, "1 fault"),
            (1, 1, "1 fault, mended"),
            (3, 3, "3 faults, all mended"),
            (3, 1, "3 faults, 1 of them mended"),
        ] {
            let text = in_all(&summary(faults, mended));
            assert_eq!(text, format!("Checked 2 files (1.5kB): {expected}"));
        }
    }
}
