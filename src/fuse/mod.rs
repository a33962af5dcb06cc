//! Kernel requests to overlay calls, and back.
//!
//! `ops` decodes a request, calls the overlay and replies; it decides nothing. `session` mounts and
//! serves, `options` reads what follows `-o`. This room alone knows the crate `fuser`; it knows no
//! digests, no images and no store.
//!
//! What the kernel is told to cache it may cache for ever: a lower never changes, and the upper
//! changes only through the mount. Only what the kernel changes itself it also forgets itself, so
//! nothing is invalidated from here.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a crash leaves a dead mount under somebody's program"
)]

mod convert;
mod error;
mod ops;
mod options;
mod reply;
mod session;

pub use error::{Error, Result};
pub use options::MountOptions;
pub use session::{Mount, mount};
