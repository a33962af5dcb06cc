//! Drives libFuzzer against one of the functions that `src/fuzz.rs` lists; `scripts/fuzz` builds and
//! starts it.
//!
//! `STRATA_FUZZ_TARGET` names the function, `STRATA_FUZZ_FOLDER` the folder that may be written to,
//! `STRATA_FUZZ_KEEP` those where libFuzzer keeps what it finds, separated by colons. The arguments are
//! libFuzzer's. More than 200 MB of memory at once end the program, as a panic and a slow input do.
#![no_main]

#[cfg(not(fuzzing))]
compile_error!("scripts/fuzz builds this, together with what of strata is there for it alone");

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use libfuzzer_sys::fuzz_target;
use strata::fuzz::{TARGETS, Target, confine};

/// Most memory that one input may have taken at once, in bytes.
const MEMORY_MAX: usize = 200_000_000;

/// The system's memory, counted.
struct Counted;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed to the system's allocator as it came; what is added counts only.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let taken = TAKEN.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        if taken > MEMORY_MAX {
            // An error message would take memory.
            std::process::abort();
        }
        // SAFETY: the caller keeps to the rules of this call, which are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) };
    }
}

#[global_allocator]
static MEMORY: Counted = Counted;

static TARGET: OnceLock<Target> = OnceLock::new();

fuzz_target!(
    init: {
        let said = |name| std::env::var(name).unwrap_or_default();
        let name = said("STRATA_FUZZ_TARGET");
        let found = TARGETS.iter().find(|(known, _)| *known == name);
        let (_, target) = found.unwrap_or_else(|| panic!("STRATA_FUZZ_TARGET={name} is no target"));
        TARGET.get_or_init(|| *target);
        let keep = said("STRATA_FUZZ_KEEP");
        let keep: Vec<&Path> = keep.split(':').filter(|dir| !dir.is_empty()).map(Path::new).collect();
        if let Err(error) = confine(Path::new(&said("STRATA_FUZZ_FOLDER")), &keep) {
            panic!("this process cannot be kept from writing elsewhere: {error}");
        }
    },
    |data: &[u8]| {
        if let Some(target) = TARGET.get() {
            target(data);
        }
    }
);
