//! Tests on real mounts: the program as a person runs it, and programs in what it mounts.
//!
//! `ops` has one file for each operation of a file system, `cli` one for each way through the
//! commands, `oracle` random operations beside the kernel's overlayfs, `torture` crashes and failing disks, `survive`
//! mounts whose servers are killed and replaced, `common` what they stand on. They run as root, for device nodes and
//! for becoming an ordinary user; `scripts/check` sees to that, and to the fixtures in `target/fixtures`.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "a test says what it left out")]

mod cli;
mod common;
mod ops;
mod oracle;
mod survive;
mod torture;

// The operations and lower trees of the model, which are done here on mounts.
#[path = "model/layers.rs"]
#[allow(dead_code, reason = "tars are for the model")]
mod layers;
#[path = "model/op.rs"]
#[allow(dead_code, reason = "the model says more of a file in less")]
mod op;
#[path = "model/reference.rs"]
#[allow(dead_code, reason = "only what it makes of layers is needed here")]
mod reference;
