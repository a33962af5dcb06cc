//! Which of many points a test looks at: each so manyth, or all.

use std::time::{SystemTime, UNIX_EPOCH};

/// Says to look at all points (`all`).
const HOW_MANY: &str = "STRATA_TORTURE";
/// Says where to begin, and what a power cut leaves: a number, or `random`.
const SEED: &str = "STRATA_TORTURE_SEED";
/// What is taken if nothing is said, so that what fails for one fails for all.
const DEFAULT: u64 = 20;

/// A choice of points.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) seed: u64,
    every: usize,
}

impl Sample {
    /// Chooses each `every`th point, if not all are asked for.
    pub(crate) fn each(every: usize) -> Self {
        Self::each_or(every, 1)
    }

    /// Chooses each `every`th point, or each `of_all`th if all are asked for.
    pub(crate) fn each_or(every: usize, of_all: usize) -> Self {
        let seed = match std::env::var(SEED).as_deref() {
            Ok("random") => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
                u64::from(now.subsec_nanos()) ^ now.as_secs()
            }
            Ok(said) => {
                said.parse().unwrap_or_else(|_| panic!("{SEED}={said}: a number, or random"))
            }
            Err(_) => DEFAULT,
        };
        let every = if is_long() { of_all } else { every };
        eprintln!("{SEED}={seed}, each of {every} points");
        Self { seed, every }
    }

    /// Returns a choice that has one of so many points at least.
    pub(crate) fn within(self, points: usize) -> Self {
        Self { every: self.every.min(points.max(1)), ..self }
    }

    /// Tells whether a point, counted from 1, is chosen.
    pub(crate) fn has(&self, number: usize) -> bool {
        number % self.every == usize::try_from(self.seed % self.every as u64).expect("it is small")
    }

    /// Returns the first point that is chosen and not before `number`.
    pub(crate) fn from(&self, number: usize) -> usize {
        (number..).find(|number| self.has(*number)).expect("one of them is")
    }
}

/// Tells whether a person wants all of it.
pub(crate) fn is_long() -> bool {
    std::env::var(HOW_MANY).is_ok_and(|how| how == "all")
}

/// Returns what is done to a point in how many rounds: one after the other is done to all points, or, in a
/// sample, each to other points.
pub(crate) fn in_rounds<T>(each: &[T]) -> impl Iterator<Item = &[T]> {
    each.chunks(if is_long() { 1 } else { each.len() })
}
