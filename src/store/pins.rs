//! What is said of images beside their names: that they are to stay, and when they were last used.
//!
//! `pins/<manifest>` is an empty file; of `used/<manifest>` the time of last change counts.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;

use crate::digest::Digest;
use crate::store::Store;
use crate::store::error::{Result, io_error};
use crate::store::files::{ensure_dir, list, remove_if_exists, sync_dir};

impl Store {
    /// Keeps an image from being pruned.
    pub fn pin(&self, manifest: Digest) -> Result<()> {
        let dir = self.layout().pins();
        make(&dir, manifest)?;
        sync_dir(&dir)
    }

    /// Lets an image be pruned again; tells whether it was pinned.
    pub fn unpin(&self, manifest: Digest) -> Result<bool> {
        remove_if_exists(&self.layout().pins().join(manifest.hex()))
    }

    /// Returns the manifests of all images that are pinned.
    pub fn pins(&self) -> Result<HashSet<Digest>> {
        let names = noted(&self.layout().pins())?;
        Ok(names.iter().filter_map(|name| Digest::from_hex(name).ok()).collect())
    }

    /// Notes that an image is used now.
    pub fn note_use(&self, manifest: Digest) -> Result<()> {
        make(&self.layout().used(), manifest)
    }

    /// Returns when an image was last used; none if nobody has noted it.
    pub fn last_use(&self, manifest: Digest) -> Option<jiff::Timestamp> {
        let metadata = fs::metadata(self.layout().used().join(manifest.hex())).ok()?;
        jiff::Timestamp::try_from(metadata.modified().ok()?).ok()
    }

    /// Forgets what was said of images that are gone.
    pub(crate) fn forget_gone(&self) -> Result<()> {
        for dir in [self.layout().pins(), self.layout().used()] {
            for name in noted(&dir)? {
                let is_there =
                    Digest::from_hex(&name).is_ok_and(|digest| self.layout().blob(digest).exists());
                if !is_there {
                    remove_if_exists(&dir.join(&name))?;
                }
            }
        }
        Ok(())
    }
}

/// Returns the names in a directory, which an older store does not have.
fn noted(dir: &Path) -> Result<Vec<String>> {
    if dir.exists() { list(dir) } else { Ok(Vec::new()) }
}

/// Makes an empty file that says something of an image, or makes it anew.
fn make(dir: &Path, manifest: Digest) -> Result<()> {
    ensure_dir(dir)?;
    let path = dir.join(manifest.hex());
    let file = File::create(&path).map_err(io_error("create", &path))?;
    file.set_modified(std::time::SystemTime::now()).map_err(io_error("change", &path))
}
