//! What long work tells while it goes on.
//!
//! The service never prints: it says what happens, and whoever asked for it decides what a person
//! sees.

use crate::digest::Digest;

/// Something that happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// A pull begins: which tag or digest, of which repository, as docker prints them.
    PullingFrom {
        /// The tag, or the whole name with the digest.
        tag: String,
        /// Repository.
        repository: String,
    },
    /// An image was pulled: this is what the registry has under its name.
    Pulled(Digest),
    /// An image was pushed.
    Pushed {
        /// The tag, or the digest where there is no tag.
        tag: String,
        /// The manifest that is in the registry.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// So many bytes of those that are to be checked were.
    Checking {
        /// Bytes so far.
        done: u64,
        /// All that are to be checked next.
        total: u64,
    },
    /// All of them were.
    Checked,
    /// A layer changes its state.
    Layer {
        /// The blob when it is pulled, the layer when it is pushed, its file when it is loaded.
        id: Digest,
        /// What is known of it now.
        state: LayerState,
    },
    /// Something did not go as it was asked for, and went on nevertheless.
    Warning(String),
}

/// What happens to a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerState {
    /// It will be pulled.
    Queued,
    /// Another process fetches it.
    Waiting,
    /// It is here.
    AlreadyExists,
    /// Bytes arrive.
    Downloading {
        /// How many are here.
        done: u64,
        /// How many there are.
        total: u64,
    },
    /// All bytes are here and are the right ones.
    Downloaded,
    /// It is in the store.
    Pulled,
    /// It is being read from an archive.
    Loading {
        /// How many bytes are done.
        done: u64,
        /// How many there are.
        total: u64,
    },
    /// It was read from an archive, whole.
    Loaded,
    /// It will be pushed.
    Preparing,
    /// It is being compressed, because no registry is known to have it.
    Compressing {
        /// How many bytes are done.
        done: u64,
        /// How many there are.
        total: u64,
    },
    /// Bytes go out.
    Pushing {
        /// How many are there.
        done: u64,
        /// How many there are.
        total: u64,
    },
    /// It is in the registry.
    Pushed,
    /// It was in the registry.
    AlreadyPushed,
    /// The registry has taken it from another of its repositories.
    MountedFrom(String),
}

/// Is told what happens, from several threads.
pub trait Progress: Send + Sync {
    /// Takes an event.
    fn event(&self, event: Event);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn event(&self, _: Event) {}
}
