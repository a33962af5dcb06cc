//! Measuring strata and other drivers with the same layers.
//!
//! Here the layers are made: of an image, a directory or nothing, each as a layer of a store that is
//! thrown away and as a directory. What is done with them, and how it is measured, is the room `bench`.

mod fixtures;
mod made;
mod part;
mod planter;
mod root;
mod sources;

use std::fs;
use std::path::{Path, PathBuf};

use crate::bench::{self, MachineFacts, Measurement, Plan, Report, Step, Workspace};
use crate::service::bench::fixtures::Layers;
use crate::service::doctor::file_system_of;
use crate::service::error::{Error, Result, io_error};
use crate::service::machine::{Machine, text};
use crate::service::{Strata, runs_as_root};

/// What to measure, and how.
#[derive(Debug)]
pub struct BenchRequest {
    /// What the tree is of.
    pub source: BenchSource,
    /// What is to be measured.
    pub measurement: Measurement,
}

/// What the tree is of.
pub enum BenchSource {
    /// Nothing: it is made.
    Made,
    /// An image of a store.
    Image(Box<Strata>, String),
    /// A directory.
    Directory(PathBuf),
}

impl std::fmt::Debug for BenchSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}

impl BenchSource {
    fn shown(&self) -> String {
        match self {
            Self::Made => "made for the purpose".to_owned(),
            Self::Image(_, name) => format!("the image {name}"),
            Self::Directory(path) => format!("the directory {}", path.display()),
        }
    }
}

/// Measures in a workspace.
pub fn run_bench(
    request: &BenchRequest,
    workspace: &Workspace,
    tell: &dyn Fn(Step<'_>),
) -> Result<Report> {
    match &request.source {
        BenchSource::Made => {}
        BenchSource::Image(strata, name) => drop(strata.lease_image(name)?),
        BenchSource::Directory(path) => {
            let shown = path.display().to_string();
            if !fs::metadata(path).map_err(io_error("open", &shown))?.is_dir() {
                return Err(Error::NotADirectory(shown));
            }
        }
    }
    let strata = std::env::current_exe().map_err(io_error("find", "this program"))?;
    let plan = Plan {
        measurement: &request.measurement,
        strata,
        machine: machine(workspace.path()),
        tree: request.source.shown(),
        started: jiff::Timestamp::now().to_string(),
    };
    let layers = Layers { source: &request.source };
    Ok(bench::run(&plan, &layers, workspace, tell)?)
}

fn machine(dir: &Path) -> MachineFacts {
    let machine = Machine::here();
    let cpus = text("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned());
    MachineFacts {
        kernel: machine.kernel,
        system: machine.system,
        architecture: machine.architecture.to_owned(),
        processor: model.unwrap_or_default(),
        processors: machine.processors,
        memory_bytes: machine.memory,
        file_system: file_system_of(dir, &text("/proc/self/mountinfo")),
        is_root: runs_as_root(),
    }
}
