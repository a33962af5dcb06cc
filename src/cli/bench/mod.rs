//! `strata bench`.

mod charts;
#[cfg(test)]
mod example;
mod html;
mod numbers;
mod text;

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::output::print;
use crate::service::{
    BenchRequest, BenchSource, Driver, Error, FixtureKind, Measurement, Peer, Report, Size, Step,
    Watch, Workload, Workspace, merged, run_bench, workload, workloads,
};

/// Measure strata, the kernel's overlayfs, fuse-overlayfs and a plain directory with the same layers
///
/// Everything is made in a directory of its own and is gone afterwards, also when it is interrupted. As
/// root the kernel's overlayfs and cold caches are measured too.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  strata bench --workloads walk,small-read,create\n  strata bench --image \
                  debian:12 --runs 9 --html report.html\n  strata bench --peer fo2=/opt/fuse-overlayfs \
                  --drivers strata:volatile,overlay:volatile\n\nDrivers: strata (an image, mounted by this \
                  program), strata-dev (the same over /dev/fuse), strata-overlay (directories, mounted by \
                  this program), overlay (the kernel's), fuse-overlayfs, native (a plain directory), each \
                  with options of its mount behind colons."
)]
pub(crate) struct Arguments {
    /// The image whose tree is measured; without it, and without --tree, one is made
    #[arg(long, conflicts_with = "tree", value_name = "IMAGE")]
    image: Option<String>,

    /// A directory whose files are the tree
    #[arg(long, value_name = "DIR")]
    tree: Option<PathBuf>,

    /// What to measure: names, separated by commas, each with options behind colons
    #[arg(
        long,
        value_name = "DRIVER,...",
        value_delimiter = ',',
        default_value = "strata,strata-dev,overlay,fuse-overlayfs,native"
    )]
    drivers: Vec<String>,

    /// What to do: names, separated by commas; everything if it is not said
    #[arg(long, value_name = "WORKLOAD,...", value_delimiter = ',')]
    workloads: Vec<String>,

    /// Another program to measure, called as fuse-overlayfs is (repeatable)
    #[arg(long = "peer", value_name = "NAME=PATH", value_parser = Peer::parse)]
    peers: Vec<Peer>,

    /// How often each workload is run with each driver
    #[arg(long, value_name = "NUMBER", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,

    /// The driver that the others are held against; overlay, or the first where that is not there
    #[arg(long, value_name = "DRIVER")]
    base: Option<String>,

    /// How much is made and done: small, full, or a part of full as a number
    #[arg(long, value_name = "SIZE", default_value = "small", value_parser = Size::parse)]
    size: Size,

    /// Where everything is made: a directory on the disk that is measured
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    dir: PathBuf,

    /// The time that one run may take
    #[arg(long, value_name = "SECONDS", default_value_t = 120,
          value_parser = clap::value_parser!(u32).range(1..))]
    time_limit: u32,

    /// Write every value to a file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write a report with charts to a file, as one page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Measure nothing: show what earlier runs have written with --json, several as one (repeatable)
    #[arg(long, value_name = "FILE")]
    from: Vec<PathBuf>,

    /// List the workloads
    #[arg(long)]
    list: bool,
}

/// The driver that the others are held against if nobody says another.
const BASE: &str = "overlay";

pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<(), Failure> {
    if arguments.list {
        return print(text::workloads(workloads()).as_bytes());
    }
    check_folder(arguments.json.as_deref())?;
    check_folder(arguments.html.as_deref())?;
    if !arguments.from.is_empty() {
        let reports = arguments.from.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
        let report = merged(reports, arguments.base.as_deref()).map_err(Error::from)?;
        return write(&report, arguments.json.as_deref(), arguments.html.as_deref());
    }
    let (json, html) = (arguments.json.clone(), arguments.html.clone());
    let dir = arguments.dir.clone();
    let request = request(arguments, context)?;
    let workspace = Workspace::new(&dir, &request.measurement.size).map_err(Error::from)?;
    let workspace = match Watch::begin(workspace).map_err(Error::from)? {
        Watch::Working(workspace) => workspace,
        Watch::Over(0) => return Ok(()),
        Watch::Over(code) => {
            clear_line();
            return Err(Failure::Told(code));
        }
    };
    let shown = Shown::new();
    let report = run_bench(&request, &workspace, &|step| shown.step(step));
    shown.bar.finish_and_clear();
    write(&report?, json.as_deref(), html.as_deref())
}

fn request(arguments: Arguments, context: &Context) -> Result<BenchRequest, Failure> {
    let drivers = Driver::of(&arguments.drivers, &arguments.peers).map_err(Error::from)?;
    let is_there = |name: &str| drivers.iter().any(|driver| driver.name == name);
    let base = match &arguments.base {
        Some(base) if !is_there(base) => {
            return Err(Failure::text(format!("the base {base} is not among the drivers")));
        }
        Some(base) => base.clone(),
        None if is_there(BASE) => BASE.to_owned(),
        None => drivers.first().map(|driver| driver.name.clone()).unwrap_or_default(),
    };
    let workloads = match arguments.workloads.is_empty() {
        true => workloads().to_vec(),
        false => {
            let mut chosen: Vec<&'static Workload> = Vec::new();
            for name in &arguments.workloads {
                let found = workload(name).map_err(Error::from)?;
                if !chosen.iter().any(|known| known.id == found.id) {
                    chosen.push(found);
                }
            }
            chosen
        }
    };
    let source = match (arguments.image, arguments.tree) {
        (Some(image), _) => BenchSource::Image(Box::new(context.strata()?), image),
        (None, Some(tree)) => BenchSource::Directory(tree),
        (None, None) => BenchSource::Made,
    };
    let measurement = Measurement {
        drivers,
        workloads,
        runs: arguments.runs,
        base,
        size: arguments.size,
        time_limit: Duration::from_secs(arguments.time_limit.into()),
    };
    Ok(BenchRequest { source, measurement })
}

/// Refuses a file that could not be written when everything has been measured.
fn check_folder(file: Option<&Path>) -> Result<(), Failure> {
    let Some(file) = file else { return Ok(()) };
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    match folder.is_dir() && !file.is_dir() {
        true => Ok(()),
        false => Err(Failure::text(format!("{} cannot be a file", file.display()))),
    }
}

fn read(path: &Path) -> Result<Report, Failure> {
    let failed = |why: String| Failure::text(format!("{}: {why}", path.display()));
    let text = fs::read(path).map_err(|error| failed(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| failed(format!("is no report: {error}")))
}

fn write(report: &Report, json: Option<&Path>, html: Option<&Path>) -> Result<(), Failure> {
    let save = |path: &Path, text: &[u8]| {
        let saved = fs::write(path, text);
        saved.map_err(|error| Failure::text(format!("write {}: {error}", path.display())))
    };
    if let Some(path) = json {
        let mut text = serde_json::to_vec_pretty(report).map_err(io::Error::other)?;
        text.push(b'\n');
        save(path, &text)?;
    }
    if let Some(path) = html {
        save(path, html::page(report).as_bytes())?;
    }
    print(text::report(report).as_bytes())
}

/// Takes away what a bar has left on a terminal whose process was ended.
fn clear_line() {
    if io::stderr().is_terminal() {
        let cleared = write!(io::stderr(), "\r\x1b[K");
        drop(cleared);
    }
}

/// Shows what goes on, on a terminal.
struct Shown {
    bar: ProgressBar,
}

impl Shown {
    fn new() -> Self {
        let target = match io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let style = ProgressStyle::with_template("[{elapsed}] {bar:30} {pos}/{len} {wide_msg}");
        bar.set_style(style.expect("the template is right").progress_chars("=> "));
        bar.enable_steady_tick(Duration::from_secs(1));
        Self { bar }
    }

    fn step(&self, step: Step<'_>) {
        match step {
            Step::Preparing(kind) => self.bar.set_message(format!("making {}", words(kind))),
            Step::Running { workload, done, of, driver } => {
                self.bar.set_length(of.into());
                self.bar.set_position(done.into());
                self.bar.set_message(format!("{}: {driver}", workload.title));
            }
            Step::NotRun { workload, driver, reason } => {
                self.bar.suspend(|| tracing::info!("{}, {driver}: {reason}", workload.title));
            }
        }
    }
}

/// Returns what layers of a kind are.
const fn words(kind: FixtureKind) -> &'static str {
    match kind {
        FixtureKind::Tree => "the layers of the tree",
        FixtureKind::Big => "a layer of big files",
        FixtureKind::Wide => "a layer of a large directory",
        FixtureKind::Source => "a layer of sources",
        FixtureKind::Deep => "very many layers",
    }
}
