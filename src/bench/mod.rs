//! Measuring drivers against each other: what is done in a mount, how long it takes, whether it was done.
//!
//! A driver is a way to show layers as one folder: the kernel's overlayfs, a program that is called, a
//! plain directory. Strata is one of them and is called as a program too, by its commands; this room
//! knows neither images nor the store. Whoever measures hands in [`Fixtures`], the same layers for each
//! driver, and gets a [`Report`].
//!
//! Rules of the measuring:
//!
//! - Each run has a mount of its own, made for it and gone after it.
//! - Runs are interleaved: every driver once, then every driver again, each round in another order.
//! - Every run says what it has found or done, and that is held against what it must be. A driver that
//!   did something else has no figure.
//! - What could not be measured says why, and is compared with nothing.
//!
//! All work is done in one [`Workspace`] by one process, and a second one ([`Watch`]) waits for its end,
//! however it comes, and takes everything away.

mod content;
mod driver;
mod error;
mod fixture;
mod limit;
mod merge;
mod mounted;
mod native;
mod plan;
mod process;
mod report;
mod run;
mod size;
mod walk;
mod watch;
mod workload;
mod workspace;

pub use content::Filler;
pub(crate) use content::{Numbers, hash};
pub use driver::{Driver, Peer};
pub use error::{Error, Result};
pub use fixture::{
    ARCHIVE, BIG, BigNames, Fixture, FixtureKind, Fixtures, SOURCE, WIDE, known_files,
};
pub use merge::merged;
pub use plan::{Measurement, Plan};
pub use report::{
    Better, DriverFacts, FigureReport, Group, MachineFacts, Measured, Parameters, Report, Unit,
    WorkloadReport,
};
pub use run::{Step, run};
pub use size::Size;
pub use walk::Entry;
pub use watch::Watch;
pub use workload::{Figure, LAYER_COUNTS, LAYER_MARKS, Workload, workload, workloads};
pub use workspace::Workspace;
