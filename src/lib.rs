//! Strata: a container image mounted as an ordinary folder.
//!
//! Its changes are kept in a layer of their own and committed as a new image: no daemon, no root
//! needed, any number of layers. The rooms, in reading order; `ARCHITECTURE.md` says who may know
//! whom, and `tidy` holds the code to it.
//!
//! - [`cli`]: what the user types and sees
//! - [`service`]: one function per verb; the only room that knows all the others
//! - [`registry`]: the OCI distribution protocol
//! - [`archive`]: archives of images, in and out
//! - [`store`]: sha256-addressed bytes and trees on disk
//! - [`mod@bench`]: drivers measured against each other
//! - [`fuse`]: kernel requests to overlay calls, and back
//! - [`overlay`]: the union: what a path means and what changing it does
//! - [`layer`]: one layer on disk: index, tar in, tar out, the merge into a chain
//! - [`image`]: pure formats: reference, manifest, configuration
//! - [`digest`]: sha256 names
//! - [`sys`]: system calls; the only unsafe code

pub mod archive;
pub mod bench;
pub mod cli;
pub mod digest;
pub mod fuse;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
pub mod image;
pub mod layer;
pub mod overlay;
pub mod registry;
pub mod service;
pub mod store;
pub mod sys;
#[cfg(test)]
mod tidy;
