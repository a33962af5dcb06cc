//! Random operations on mounts: compared with the kernel's overlayfs on copies of the same layers, and
//! what is read and written with bytes in memory.

mod act;
mod bytes;
pub(crate) mod crowd;
mod data;
mod deviations;
mod hands;
mod kernel;
mod memory;
mod seen;
mod soak;
mod worlds;

use proptest::test_runner::{Config, FileFailurePersistence};

/// Trees that are changed in one mount: mounting takes longer than working in it.
const BATCH: usize = 16;

/// Returns how often a test is run, with at most [`BATCH`] trees each: `STRATA_MODEL_CASES` trees.
fn config(trees: u32) -> Config {
    let trees = std::env::var("STRATA_MODEL_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(trees);
    Config {
        cases: trees.div_ceil(u32::try_from(BATCH / 2).unwrap_or(1)),
        max_shrink_iters: 300,
        max_shrink_time: 40_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..Config::default()
    }
}
