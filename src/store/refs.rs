//! References: the names of images, one small file each.
//!
//! A tag is `refs/<domain>/<path>/_tags/<tag>`, a pulled digest `…/_digests/<hex>`. No component of
//! a repository begins with an underscore, so these two cannot be one. An image that lost its last
//! name keeps a nameless reference under `_untagged`, until it is pruned.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::image::Reference;
use crate::store::Store;
use crate::store::error::{Error, Result};
use crate::store::files::{list, read_if_exists, remove_if_exists, replace, sync_dir};

/// What a reference leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ref {
    /// The manifest of the image.
    pub manifest: Digest,
    /// What the registry has under the name: the manifest, or the index that it was chosen from.
    /// None for an image that no registry has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Digest>,
    /// When the reference was set, RFC 3339.
    pub updated: jiff::Timestamp,
}

/// The name of a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefName {
    /// A repository with a tag or a digest.
    Named(Reference),
    /// None: the image was untagged.
    Untagged(Digest),
}

const TAGS: &str = "_tags";
const DIGESTS: &str = "_digests";
const UNTAGGED: &str = "_untagged";

impl Store {
    /// Returns where a reference leads; none when it is not set.
    pub fn reference(&self, name: &RefName) -> Result<Option<Ref>> {
        read_ref(&self.ref_path(name))
    }

    /// Sets a reference. An image that loses its last name by this becomes untagged.
    pub fn set_reference(&self, name: &RefName, to: &Ref) -> Result<()> {
        let old = self.reference(name)?;
        if let Some(old) = old.filter(|old| old.manifest != to.manifest) {
            self.keep_untagged(name, &old)?;
        }
        let bytes = serde_json::to_vec(to).expect("a reference has nothing that JSON cannot hold");
        replace(&self.layout().staging(), &self.ref_path(name), &bytes)?;
        if matches!(name, RefName::Named(_)) {
            remove_if_exists(&self.ref_path(&RefName::Untagged(to.manifest)))?;
        }
        Ok(())
    }

    /// Removes a reference, and tells whether it was set. The image is not kept by this.
    pub fn remove_reference(&self, name: &RefName) -> Result<bool> {
        let path = self.ref_path(name);
        let removed = remove_if_exists(&path)?;
        if removed {
            sync_dir(path.parent().unwrap_or(&path))?;
            self.prune_empty(&path);
        }
        Ok(removed)
    }

    /// Returns all references, sorted by name; those without one come last.
    pub fn references(&self) -> Result<Vec<(RefName, Ref)>> {
        let mut found = Vec::new();
        let root = self.layout().refs();
        let mut pending = vec![(root.clone(), String::new())];
        while let Some((dir, repository)) = pending.pop() {
            for name in list(&dir)? {
                let path = dir.join(&name);
                match name.as_str() {
                    TAGS => self.read_refs(&path, &repository, ":", &mut found)?,
                    DIGESTS => self.read_refs(&path, &repository, "@sha256:", &mut found)?,
                    UNTAGGED => read_untagged(&path, &mut found)?,
                    _ if path.is_dir() => {
                        let slash = if repository.is_empty() { "" } else { "/" };
                        pending.push((path, format!("{repository}{slash}{name}")));
                    }
                    _ => {}
                }
            }
        }
        found.sort_by_key(|(name, _)| match name {
            RefName::Named(reference) => (false, reference.to_string()),
            RefName::Untagged(manifest) => (true, manifest.hex()),
        });
        Ok(found)
    }

    /// Returns the names of an image.
    pub fn names_of(&self, manifest: Digest) -> Result<Vec<RefName>> {
        let all = self.references()?.into_iter();
        Ok(all.filter(|(_, to)| to.manifest == manifest).map(|(name, _)| name).collect())
    }

    fn keep_untagged(&self, name: &RefName, old: &Ref) -> Result<()> {
        let path = self.ref_path(name);
        if self.names_of(old.manifest)?.iter().any(|other| self.ref_path(other) != path) {
            return Ok(());
        }
        let untagged = RefName::Untagged(old.manifest);
        let bytes = serde_json::to_vec(old).expect("a reference has nothing that JSON cannot hold");
        replace(&self.layout().staging(), &self.ref_path(&untagged), &bytes)
    }

    fn read_refs(
        &self,
        dir: &Path,
        repository: &str,
        separator: &str,
        found: &mut Vec<(RefName, Ref)>,
    ) -> Result<()> {
        for name in list(dir)? {
            let Ok(reference) = format!("{repository}{separator}{name}").parse() else {
                tracing::warn!("{} is no reference", dir.join(name).display());
                continue;
            };
            if let Some(to) = read_ref(&dir.join(&name))? {
                found.push((RefName::Named(reference), to));
            }
        }
        Ok(())
    }

    fn ref_path(&self, name: &RefName) -> PathBuf {
        let refs = self.layout().refs();
        match name {
            RefName::Untagged(manifest) => refs.join(UNTAGGED).join(manifest.hex()),
            RefName::Named(reference) => {
                let repository = refs.join(reference.domain()).join(reference.path());
                match (reference.tag(), reference.digest()) {
                    (Some(tag), _) => repository.join(TAGS).join(tag),
                    (None, Some(digest)) => repository.join(DIGESTS).join(digest.hex()),
                    (None, None) => repository.join(TAGS).join("latest"),
                }
            }
        }
    }

    /// Removes the directories that a removed reference leaves empty.
    fn prune_empty(&self, path: &Path) {
        let root = self.layout().refs();
        for dir in path.ancestors().skip(1).take_while(|dir| *dir != root) {
            // A directory that is not empty, or that somebody fills right now, stays.
            if let Err(error) = fs::remove_dir(dir) {
                tracing::debug!("{}: {error}", dir.display());
                break;
            }
        }
    }
}

fn read_untagged(dir: &Path, found: &mut Vec<(RefName, Ref)>) -> Result<()> {
    for name in list(dir)? {
        if let (Ok(manifest), Some(to)) = (Digest::from_hex(&name), read_ref(&dir.join(&name))?) {
            found.push((RefName::Untagged(manifest), to));
        }
    }
    Ok(())
}

fn read_ref(path: &Path) -> Result<Option<Ref>> {
    let bytes = match read_if_exists(path) {
        // `a` is a repository and `a/_tags` a directory: no reference can be one.
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotADirectory => None,
        other => other?,
    };
    let Some(bytes) = bytes else { return Ok(None) };
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|source| Error::Record { path: path.to_owned(), source })
}
