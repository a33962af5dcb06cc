//! Tests on real mounts: the program as a person runs it, and programs in what it mounts.
//!
//! `ops` has one file for each operation of a file system, `cli` one for each way through the
//! commands, `common` what they stand on. They run as root, for device nodes and for becoming an
//! ordinary user; `scripts/check` sees to that, and to the fixtures in `target/fixtures`.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "a test says what it left out")]

mod cli;
mod common;
mod ops;
