//! What came of measuring: every single value, and what is made of them.
//!
//! It is what `--json` writes and `--from` reads, so a name here is part of that form.

use serde::{Deserialize, Serialize};

use crate::bench::Size;

/// The form of a report; another one is not read.
pub(crate) const VERSION: u32 = 1;

/// What came of measuring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The form of this document.
    pub version: u32,
    /// The program that has measured.
    pub program: String,
    /// When it began.
    pub started: String,
    /// How long all of it took.
    pub seconds: f64,
    /// On which machine.
    pub machine: MachineFacts,
    /// How it was measured.
    pub parameters: Parameters,
    /// What was measured.
    pub drivers: Vec<DriverFacts>,
    /// What was done, and what came of it.
    pub workloads: Vec<WorkloadReport>,
    /// What a reader must know besides.
    pub notes: Vec<String>,
}

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineFacts {
    /// Release of the kernel.
    pub kernel: String,
    /// Name of the distribution.
    pub system: String,
    /// Name of the architecture.
    pub architecture: String,
    /// What the processor is called.
    pub processor: String,
    /// How many there are.
    pub processors: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// The file system that the layers and the store are on.
    pub file_system: String,
    /// Whether root has measured.
    pub is_root: bool,
}

/// How it was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    /// Runs of each workload with each driver.
    pub runs: u32,
    /// The driver that the others are held against.
    pub base: String,
    /// What the tree is of.
    pub tree: String,
    /// How much was made and done.
    pub size: Size,
    /// The time that one run could take.
    pub time_limit_seconds: u64,
}

/// A driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverFacts {
    /// What it is called here.
    pub name: String,
    /// How it is mounted.
    pub command: String,
    /// The options that were asked for.
    pub options: String,
    /// Its version, as it says itself.
    pub version: String,
    /// Why it was left out.
    pub not_run: Option<String>,
}

/// A workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkloadReport {
    /// Its name.
    pub id: String,
    /// What it belongs to.
    pub group: Group,
    /// What it is about.
    pub title: String,
    /// What is done.
    pub what: String,
    /// What was measured of it.
    pub figures: Vec<FigureReport>,
}

/// What workloads are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Names and attributes.
    Names,
    /// What files hold.
    Content,
    /// What is changed.
    Changes,
    /// Programs that people run.
    Programs,
    /// Mounts and their servers.
    Mounts,
}

/// One of the things that are measured of a workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FigureReport {
    /// Its name: the workload's, or that and a word.
    pub id: String,
    /// What it is.
    pub title: String,
    /// What the values are.
    pub unit: Unit,
    /// Which values are the good ones.
    pub better: Better,
    /// What came of it, for each driver in their order.
    pub results: Vec<Measured>,
}

/// What values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Bytes in a second.
    BytesPerSecond,
    /// Operations in a second.
    PerSecond,
}

/// Which values are the good ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// The small ones.
    Lower,
    /// The large ones.
    Higher,
}

/// What came of a figure with one driver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The driver.
    pub driver: String,
    /// Every value, in the order of the rounds; empty if it was not run.
    pub values: Vec<f64>,
    /// The value in the middle.
    pub median: Option<f64>,
    /// The smallest value.
    pub min: Option<f64>,
    /// The largest value.
    pub max: Option<f64>,
    /// The median by that of the base; none if one of them has none.
    pub ratio: Option<f64>,
    /// Why there is no value.
    pub not_run: Option<String>,
}

impl Unit {
    /// Returns which values of this unit are the good ones.
    pub const fn better(self) -> Better {
        match self {
            Self::Seconds | Self::Bytes => Better::Lower,
            Self::BytesPerSecond | Self::PerSecond => Better::Higher,
        }
    }
}

impl Measured {
    /// Returns what came of a driver's values, or why there are none.
    pub(crate) fn new(driver: String, values: Result<Vec<f64>, String>) -> Self {
        let (values, not_run) = match values {
            Ok(values) => (values, None),
            Err(reason) => (Vec::new(), Some(reason)),
        };
        let median = median(&values);
        let min = values.iter().copied().reduce(f64::min);
        let max = values.iter().copied().reduce(f64::max);
        Self { driver, values, median, min, max, ratio: None, not_run }
    }

    /// Returns how far the values are apart, by their median: half of what is between the ends.
    pub fn spread(&self) -> Option<f64> {
        let (median, min, max) = (self.median?, self.min?, self.max?);
        (median > 0.0).then(|| (max - min) / 2.0 / median)
    }
}

impl FigureReport {
    /// Returns what came of a driver.
    pub fn of(&self, driver: &str) -> Option<&Measured> {
        self.results.iter().find(|result| result.driver == driver)
    }

    /// Holds all drivers against one.
    pub(crate) fn compare_with(&mut self, base: &str) {
        let base = self.of(base).and_then(|base| base.median).filter(|median| *median > 0.0);
        for result in &mut self.results {
            result.ratio = base.and_then(|base| result.median.map(|median| median / base));
        }
    }
}

/// Returns the value in the middle, or between the two in the middle.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        len if len % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(driver: &str, values: &[f64]) -> Measured {
        Measured::new(driver.to_owned(), Ok(values.to_vec()))
    }

    #[test]
    fn a_median_is_in_the_middle_and_a_spread_by_it() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        let result = measured("a", &[9.0, 10.0, 12.0]);
        assert_eq!((result.min, result.max), (Some(9.0), Some(12.0)));
        assert_eq!(result.spread(), Some(0.15));
    }

    #[test]
    fn what_did_not_run_is_compared_with_nothing() {
        let gone = Measured::new("gone".to_owned(), Err("no program".to_owned()));
        let mut figure = FigureReport {
            id: "x".to_owned(),
            title: "x".to_owned(),
            unit: Unit::Seconds,
            better: Better::Lower,
            results: vec![measured("base", &[2.0]), measured("fast", &[1.0]), gone],
        };
        figure.compare_with("base");
        let ratios = |figure: &FigureReport| {
            figure.results.iter().map(|result| result.ratio).collect::<Vec<_>>()
        };
        assert_eq!(ratios(&figure), [Some(1.0), Some(0.5), None]);
        figure.compare_with("gone");
        assert_eq!(ratios(&figure), [None, None, None]);
    }
}
