//! What is to be measured.

use std::path::PathBuf;
use std::time::Duration;

use crate::bench::{Driver, MachineFacts, Size, Workload};

/// What is to be measured, and how.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// With what.
    pub drivers: Vec<Driver>,
    /// What is done.
    pub workloads: Vec<&'static Workload>,
    /// How often.
    pub runs: u32,
    /// The driver that the others are held against.
    pub base: String,
    /// How much is made and done.
    pub size: Size,
    /// The time that one run may take.
    pub time_limit: Duration,
}

/// A measurement on a machine.
#[derive(Debug)]
pub struct Plan<'a> {
    /// What is to be measured.
    pub measurement: &'a Measurement,
    /// The program strata.
    pub strata: PathBuf,
    /// The machine, as the report shows it.
    pub machine: MachineFacts,
    /// What the tree is of, as the report shows it.
    pub tree: String,
    /// When it began, as the report shows it.
    pub started: String,
}
