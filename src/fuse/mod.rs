//! Kernel requests to overlay calls, and back.
//!
//! `ops` decodes a request, calls the overlay and answers; it decides nothing. `abi` has the kernel's
//! structures, `request` reads them, `answer` writes them, `device` carries them, `backing` knows which
//! files the kernel reads and writes itself. `session` mounts and serves, `options` reads what follows
//! `-o`. This room alone knows the protocol; it knows no digests,
//! no images and no store.
//!
//! What the kernel is told to cache it may cache for ever: a lower never changes, and the upper
//! changes only through the mount. What the kernel changes it also forgets itself; `told` sees to the
//! one case where it takes an older answer afterwards.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a crash leaves a dead mount under somebody's program"
)]

mod abi;
mod answer;
mod backing;
mod convert;
mod desk;
mod device;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod gate;
mod handover;
mod ops;
mod options;
mod request;
mod ring;
mod rings;
mod serve;
mod session;
mod survive;
mod told;
mod xattr;

pub use error::{Error, Result};
pub use handover::{Agreement, Server, TakenOver, take_over};
pub use options::{Data, MountOptions, Transport};
pub use rings::Giver;
pub use session::{Mount, Prepared, mount, mount_shared, prepare};
pub use survive::Shared;
