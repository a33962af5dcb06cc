//! Every path under the root of the store, and nowhere else.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::digest::{ChainId, DiffId, Digest};

/// The paths of a store.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

/// The directories that every store has.
pub(crate) const DIRECTORIES: [&str; 11] = [
    "blobs/sha256",
    "objects",
    "layers",
    "chains",
    "refs",
    "containers",
    "leases",
    "pins",
    "used",
    "staging",
    "trash",
];

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn format(&self) -> PathBuf {
        self.root.join("FORMAT")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(crate) fn blob(&self, digest: Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub(crate) fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    /// Objects are spread over directories named by the first two digits.
    pub(crate) fn object(&self, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        let shard = hex.get(..2).unwrap_or_default();
        self.objects().join(shard).join(&hex)
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(crate) fn layer_index(&self, layer: DiffId) -> PathBuf {
        self.layers().join(format!("{}.idx", layer.0.hex()))
    }

    pub(crate) fn layer_recipe(&self, layer: DiffId) -> PathBuf {
        self.layers().join(format!("{}.tar", layer.0.hex()))
    }

    /// Where the compressed forms of a layer that registries have are remembered.
    pub(crate) fn layer_sources(&self, layer: DiffId) -> PathBuf {
        self.layers().join(format!("{}.src", layer.0.hex()))
    }

    pub(crate) fn chains(&self) -> PathBuf {
        self.root.join("chains")
    }

    pub(crate) fn chain(&self, chain: ChainId) -> PathBuf {
        self.chains().join(format!("{}.idx", chain.0.hex()))
    }

    pub(crate) fn refs(&self) -> PathBuf {
        self.root.join("refs")
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    pub(crate) fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    pub(crate) fn lease(&self, id: &str) -> PathBuf {
        self.leases().join(id)
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    pub(crate) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    pub(crate) fn pins(&self) -> PathBuf {
        self.root.join("pins")
    }

    pub(crate) fn used(&self) -> PathBuf {
        self.root.join("used")
    }

    pub(crate) fn gc_lock(&self) -> PathBuf {
        self.root.join("gc.lock")
    }

    pub(crate) fn names_lock(&self) -> PathBuf {
        self.root.join("names.lock")
    }

    /// Locked by who checks the store.
    pub(crate) fn fsck_lock(&self) -> PathBuf {
        self.root.join("fsck.lock")
    }

    /// What was checked, and when.
    pub(crate) fn checked(&self) -> PathBuf {
        self.root.join("checked")
    }

    /// Where the index of a collected layer waits to be deleted.
    pub(crate) fn trashed_layer(&self, layer: DiffId) -> PathBuf {
        self.trash().join(format!("layer-{}.idx", layer.0.hex()))
    }

    /// Where a collected blob waits to be deleted.
    pub(crate) fn trashed_blob(&self, digest: Digest) -> PathBuf {
        self.trash().join(format!("blob-{}", digest.hex()))
    }

    /// Where a collected object waits to be deleted.
    pub(crate) fn trashed_object(&self, digest: Digest) -> PathBuf {
        self.trash().join(format!("object-{}", digest.hex()))
    }
}

/// Returns where a damaged file is set apart.
pub(crate) fn set_apart(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".bad");
    name.into()
}
