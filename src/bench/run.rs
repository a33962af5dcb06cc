//! The rounds: every workload with every driver, again and again.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crate::bench::error::io_error;
use crate::bench::limit::Limit;
use crate::bench::mounted::{Access, Mounted, Request};
use crate::bench::report::VERSION;
use crate::bench::workload::Values;
use crate::bench::workspace::{release, remove_tree};
use crate::bench::{
    Driver, DriverFacts, Error, FigureReport, Fixture, FixtureKind, Fixtures, Measured, Parameters,
    Plan, Report, Result, Size, Workload, WorkloadReport, Workspace,
};
use crate::sys;

/// What happens now.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// Layers are being made.
    Preparing(FixtureKind),
    /// A workload runs.
    Running {
        /// Which.
        workload: &'static Workload,
        /// How many runs are over.
        done: u32,
        /// How many there are.
        of: u32,
        /// The driver.
        driver: &'a str,
    },
    /// A workload could not be measured with a driver.
    NotRun {
        /// Which.
        workload: &'static Workload,
        /// The driver.
        driver: &'a str,
        /// Why not.
        reason: &'a str,
    },
}

/// One run of a workload with a driver.
#[derive(Debug)]
pub(crate) struct Sample<'a> {
    pub(crate) driver: &'a Driver,
    pub(crate) fixture: &'a Fixture,
    pub(crate) size: &'a Size,
    pub(crate) limit: &'a Limit,
    strata: &'a Path,
    dir: &'a Path,
    /// How many mounts were made.
    mounts: AtomicU32,
}

impl<'a> Sample<'a> {
    /// Mounts all layers.
    pub(crate) fn mount(&self, access: Access) -> Result<Mounted> {
        self.mount_some(access, None)
    }

    /// Mounts the lowest layers.
    pub(crate) fn mount_lowest(&self, access: Access, layers: usize) -> Result<Mounted> {
        self.mount_some(access, Some(layers))
    }

    fn mount_some(&self, access: Access, layers: Option<usize>) -> Result<Mounted> {
        let number = self.mounts.fetch_add(1, Ordering::Relaxed);
        let run = self.dir.file_name().unwrap_or_default().to_string_lossy();
        let dir = self.dir.join(format!("{run}-{number}"));
        fs::create_dir(&dir).map_err(io_error("make", &dir))?;
        let Self { driver, fixture, strata, .. } = *self;
        let request = Request { driver, fixture, layers, access, dir: &dir, strata };
        Mounted::new(&request, self.limit)
    }

    /// Unmounts.
    pub(crate) fn end(&self, mounted: Mounted) -> Result<()> {
        mounted.end(self.limit)
    }

    /// Does something in a mount of its own, so that what the driver reads is in memory, and nothing of
    /// the mount that comes after.
    pub(crate) fn warm_up(&self, work: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let mounted = self.mount(Access::Read)?;
        work(&mounted.root)?;
        self.end(mounted)
    }

    /// Has the kernel forget every name, every attribute and every content that is on a disk.
    pub(crate) fn drop_caches(&self) -> Result<()> {
        const PATH: &str = "/proc/sys/vm/drop_caches";
        sys::sync_fs(sys::open_dir_path(self.dir)?.as_fd())?;
        fs::write(PATH, "3").map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                Error::NotHere(
                    "only root can empty the kernel's caches, so it is not cold".to_owned(),
                )
            }
            _ => io_error("write", PATH)(error),
        })
    }
}

/// Measures.
pub fn run(
    plan: &Plan<'_>,
    fixtures: &dyn Fixtures,
    workspace: &Workspace,
    tell: &dyn Fn(Step<'_>),
) -> Result<Report> {
    let start = Instant::now();
    let drivers: Vec<_> =
        plan.measurement.drivers.iter().map(|driver| driver.facts(&plan.strata)).collect();
    let mut bench = Bench {
        plan,
        drivers: &drivers,
        workspace,
        tell,
        done: 0,
        samples: 0,
        prepared: None,
        notes: Vec::new(),
    };
    // Layers are made when they are needed first, and removed when something else needs others: so
    // there is one set of them on the disk.
    let mut order = plan.measurement.workloads.clone();
    order.sort_by_key(|workload| workload.fixture);
    let mut reports = BTreeMap::new();
    for workload in order {
        reports.insert(workload.id, bench.measure(workload, fixtures)?);
    }
    bench.clear_fixture()?;
    let notes = bench.notes;
    let in_order =
        plan.measurement.workloads.iter().filter_map(|workload| reports.remove(workload.id));
    Ok(Report {
        version: VERSION,
        program: format!("strata {}", env!("CARGO_PKG_VERSION")),
        started: plan.started.clone(),
        seconds: start.elapsed().as_secs_f64(),
        machine: plan.machine.clone(),
        parameters: Parameters {
            runs: plan.measurement.runs,
            base: plan.measurement.base.clone(),
            tree: plan.tree.clone(),
            size: plan.measurement.size.clone(),
            time_limit_seconds: plan.measurement.time_limit.as_secs(),
        },
        workloads: in_order.collect(),
        drivers,
        notes,
    })
}

/// Layers that are on the disk.
struct Prepared {
    kind: FixtureKind,
    /// Why there are none, if so.
    fixture: std::result::Result<Fixture, String>,
    dir: PathBuf,
}

struct Bench<'a> {
    plan: &'a Plan<'a>,
    drivers: &'a [DriverFacts],
    workspace: &'a Workspace,
    tell: &'a dyn Fn(Step<'_>),
    /// How many runs are over.
    done: u32,
    /// How many directories for runs were made.
    samples: u32,
    prepared: Option<Prepared>,
    notes: Vec<String>,
}

/// What came of the rounds with one driver: the values of each figure, or why there are none.
type Rounds = std::result::Result<Vec<std::result::Result<Vec<f64>, String>>, String>;

impl Bench<'_> {
    fn measure(
        &mut self,
        workload: &'static Workload,
        fixtures: &dyn Fixtures,
    ) -> Result<WorkloadReport> {
        self.prepare(workload.fixture, fixtures)?;
        let drivers = &self.plan.measurement.drivers;
        let mut rounds: Vec<Rounds> = Vec::new();
        for (driver, facts) in drivers.iter().zip(self.drivers) {
            let why = facts.not_run.clone().or_else(|| workload.why_not(driver));
            rounds.push(match why {
                Some(reason) => Err(reason),
                None => Ok(vec![Ok(Vec::new()); workload.figures.len()]),
            });
        }
        for round in 0..self.plan.measurement.runs as usize {
            for turn in 0..drivers.len() {
                let at = (turn + round) % drivers.len();
                self.take(workload, &drivers[at], &mut rounds[at])?;
                self.done += 1;
            }
        }
        Ok(report(workload, self.plan, rounds))
    }

    /// Runs a workload once with a driver, if it could be run so far.
    fn take(
        &mut self,
        workload: &'static Workload,
        driver: &Driver,
        rounds: &mut Rounds,
    ) -> Result<()> {
        let Ok(figures) = rounds else { return Ok(()) };
        let of = self.plan.measurement.workloads.len()
            * self.plan.measurement.drivers.len()
            * self.plan.measurement.runs as usize;
        let of = u32::try_from(of).unwrap_or(u32::MAX);
        (self.tell)(Step::Running { workload, done: self.done, of, driver: &driver.name });
        match self.sample(workload, driver)? {
            Ok(values) => {
                for (figure, value) in figures.iter_mut().zip(values) {
                    match (figure.as_mut(), value) {
                        (Ok(known), Ok(value)) => known.push(value),
                        (Ok(_), Err(reason)) => *figure = Err(reason),
                        (Err(_), _) => {}
                    }
                }
            }
            Err(reason) => {
                (self.tell)(Step::NotRun { workload, driver: &driver.name, reason: &reason });
                *rounds = Err(reason);
            }
        }
        Ok(())
    }

    /// Runs a workload once in a directory of its own, which is gone afterwards.
    fn sample(
        &mut self,
        workload: &Workload,
        driver: &Driver,
    ) -> Result<std::result::Result<Values, String>> {
        let fixture = match &self.prepared {
            Some(Prepared { fixture: Ok(fixture), .. }) => fixture,
            Some(Prepared { fixture: Err(reason), .. }) => return Ok(Err(reason.clone())),
            None => return Ok(Err("there are no layers".to_owned())),
        };
        self.samples += 1;
        let dir = self.workspace.path().join(self.samples.to_string());
        fs::create_dir(&dir).map_err(io_error("make", &dir))?;
        // What an earlier run has written is not written to the disk during this one.
        sys::sync_fs(sys::open_dir_path(&dir)?.as_fd())?;
        let limit = Limit::begin(self.plan.measurement.time_limit, &dir);
        let sample = Sample {
            driver,
            fixture,
            size: &self.plan.measurement.size,
            limit: &limit,
            strata: &self.plan.strata,
            dir: &dir,
            mounts: AtomicU32::new(0),
        };
        let values = (workload.run)(&sample).map_err(|error| match limit.go_on() {
            // What came of taking the mount away is not the reason.
            Err(too_long) => too_long.told(),
            Ok(()) => error.told(),
        });
        drop(limit);
        if values.is_err() {
            release(&dir);
        }
        remove_tree(&dir)?;
        Ok(values)
    }

    fn prepare(&mut self, kind: FixtureKind, fixtures: &dyn Fixtures) -> Result<()> {
        if self.prepared.as_ref().is_some_and(|prepared| prepared.kind == kind) {
            return Ok(());
        }
        self.clear_fixture()?;
        (self.tell)(Step::Preparing(kind));
        let dir = self.workspace.path().join("layers");
        fs::create_dir(&dir).map_err(io_error("make", &dir))?;
        let fixture =
            fixtures.make(kind, &dir, &self.plan.measurement.size).map_err(|error| error.told());
        if let Ok(fixture) = &fixture {
            self.notes.extend(fixture.notes.iter().cloned());
        }
        self.prepared = Some(Prepared { kind, fixture, dir });
        Ok(())
    }

    fn clear_fixture(&mut self) -> Result<()> {
        match self.prepared.take() {
            Some(prepared) => remove_tree(&prepared.dir),
            None => Ok(()),
        }
    }
}

fn report(workload: &Workload, plan: &Plan<'_>, rounds: Vec<Rounds>) -> WorkloadReport {
    let mut figures = Vec::new();
    for (at, figure) in workload.figures.iter().enumerate() {
        let results = plan.measurement.drivers.iter().zip(&rounds).map(|(driver, rounds)| {
            let values = rounds.as_ref().map_err(Clone::clone).and_then(|all| all[at].clone());
            Measured::new(driver.name.clone(), values)
        });
        let mut report = FigureReport {
            id: figure.id.to_owned(),
            title: figure.title.to_owned(),
            unit: figure.unit,
            better: figure.unit.better(),
            results: results.collect(),
        };
        report.compare_with(&plan.measurement.base);
        figures.push(report);
    }
    WorkloadReport {
        id: workload.id.to_owned(),
        group: workload.group,
        title: workload.title.to_owned(),
        what: workload.what.to_owned(),
        figures,
    }
}
