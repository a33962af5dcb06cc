//! One layer on disk: its index, the tar that it comes from and goes back to, and the merge of
//! layers into the chain that a mount maps.
//!
//! This room knows files and bytes. It does not know where the store keeps them: it writes to files
//! that it is given, and hands the contents of large files to an [`ObjectSink`]. What a mount does
//! with a chain is the overlay's affair.
//!
//! A layer's way in is [`unpack`], its way back out [`TarStream`]; [`merge`] makes a chain of
//! layers, [`Chain`] reads it. No number of a file is trusted: a damaged one is an error, never a
//! crash.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a crash leaves a dead mount under somebody's program"
)]

mod account;
mod chain;
mod compression;
mod content;
mod copy;
mod error;
mod format;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod index;
mod index_write;
mod kind;
mod limits;
mod map;
mod mend;
mod merge;
mod origin;
mod pack;
mod path;
mod path_use;
mod pax;
mod recipe;
mod relocate;
mod sparse;
mod tar_field;
mod tar_files;
mod tar_read;
mod tar_write;
#[cfg(test)]
mod tests;
mod tree;
mod unpack;
pub mod whiteout;

pub use account::{Account, account};
pub use chain::{Attr, Chain, Content, Entry, LayerSource, ObjectSource, ROOT, Verify};
pub use compression::{Compressed, Gzip, decompress};
pub use content::ObjectSink;
pub(crate) use copy::{WriteBack, copy_content};
pub use error::{Error, Result};
pub use format::{INLINE_MAX, IndexKind};
pub use index::Index;
pub use kind::Kind;
pub use limits::{Excess, Limits};
pub use mend::{mend_index, mend_recipe};
pub use merge::{merge, merge_onto};
pub use origin::{Depth, Origin, origins};
pub use pack::TarStream;
pub(crate) use path::components;
pub use path::join_path;
pub use path_use::{PathUse, path_uses};
pub use recipe::verify_recipe;
pub use relocate::relocate;
pub(crate) use sparse::Segment;
pub use tar_files::{TarFile, TarFileKind, TarFiles, begins_as_tar};
pub(crate) use tar_read::{EntryKind, RawSink, TarEntry, TarReader};
pub use tar_write::{TarMeta, TarWriter};
pub use unpack::{LayerFiles, Unpacked, unpack};
