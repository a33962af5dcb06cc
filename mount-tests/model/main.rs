//! Random operations on the overlay, without FUSE, against a plain tree in memory.
//!
//! Each case has a lower of several layers, a sequence of operations, and remounts in between. After
//! every operation the answers must be equal, and at the end and at each remount the whole trees. A
//! failing sequence is shrunk and printed; it becomes a `regression_` test.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod layers;
mod mounted;
mod op;
mod reference;
mod stack;

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use strata::overlay::Owners;

use crate::mounted::Mounted;
use crate::op::{LowerFile, Op, lower, ops, with_links_on_top};
use crate::reference::Reference;
use crate::stack::Stack;

/// Runs operations on both and compares.
fn run(lower: &[Vec<LowerFile>], ops: &[Op], stack: Stack, owners: Owners) {
    let mut reference = Reference::new(lower);
    let mut mounted = Mounted::new(&reference.layers, stack, owners);
    assert_eq!(mounted.tree(), reference.tree(), "the lower, before anything was done");
    for (number, op) in ops.iter().enumerate() {
        let expected = reference.apply(op);
        if expected == Err("skipped") {
            continue;
        }
        let found = mounted.apply(op);
        assert_eq!(found, expected, "operation {number}: {op:?}");
        if matches!(op, Op::Remount) {
            assert_eq!(mounted.tree(), reference.tree(), "after operation {number}: {op:?}");
        }
    }
    assert_eq!(mounted.tree(), reference.tree(), "at the end");
    mounted.check_numbers();
    if stack == Stack::Chain {
        let changes = mounted.changed_tree();
        assert_eq!(changes, reference.tree(), "the lower with the changes applied");
    }
    mounted.remount();
    assert_eq!(mounted.tree(), reference.tree(), "after a remount at the end");
    mounted.check_lower();
    mounted.check_work_dir();
}

fn cases() -> u32 {
    std::env::var("STRATA_MODEL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(400)
}

fn config() -> Config {
    Config {
        cases: cases(),
        max_shrink_iters: 20_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_overlay_does_what_a_plain_tree_does(lower in lower(), ops in ops(60)) {
        run(&lower, &ops, Stack::Chain, Owners::Native);
    }

    #[test]
    fn so_does_one_that_keeps_owners_in_marks(lower in lower(), ops in ops(60)) {
        run(&lower, &ops, Stack::Chain, Owners::Mapped);
    }

    #[test]
    fn so_does_one_over_plain_directories(lower in lower(), ops in ops(60)) {
        run(&with_links_on_top(lower), &ops, Stack::Dirs, Owners::Native);
    }
}
