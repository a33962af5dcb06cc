//! References: the names of images, one small file each.
//!
//! A tag is `refs/<domain>/<path>/_tags/<tag>`, a pulled digest `…/_digests/<hex>`. No component of
//! a repository begins with an underscore, so these two cannot be one. An image that lost its last
//! name keeps a nameless reference under `_untagged`, until it is pruned.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::image::Reference;
use crate::store::error::{Error, Result, io_error};
use crate::store::files::{ensure_dir, list_if_there, remove_if_exists, replace, sync_name};
use crate::store::gc::{disk_bytes, own_bytes};
use crate::store::{Store, record};

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
pub(crate) const UNTAGGED: &str = "_untagged";

impl Store {
    /// Returns where a reference leads; none when it is not set.
    pub fn reference(&self, name: &RefName) -> Result<Option<Ref>> {
        read_ref(&self.ref_path(name))
    }

    /// Returns where a reference leads; a damaged one is told and not set.
    pub fn readable_reference(&self, name: &RefName) -> Result<Option<Ref>> {
        Ok(readable(self.reference(name))?.flatten())
    }

    /// Sets a reference. An image that loses its last name by this becomes untagged.
    pub fn set_reference(&self, name: &RefName, to: &Ref) -> Result<()> {
        self.set_reference_as(name, to, |path| {
            replace(&self.layout().staging(), path, &record::encode(to))
        })
    }

    /// Sets a reference; its file is put in its place by `put`.
    pub(crate) fn set_reference_as(
        &self,
        name: &RefName,
        to: &Ref,
        put: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let old = self.readable_reference(name)?;
        if let Some(old) = old.filter(|old| old.manifest != to.manifest) {
            self.keep_untagged(name, &old)?;
        }
        put(&self.ref_path(name))?;
        if matches!(name, RefName::Named(_)) {
            remove_if_exists(&self.ref_path(&RefName::Untagged(to.manifest)))?;
        }
        Ok(())
    }

    /// Removes a reference, and tells whether it was set. The image is not kept by this.
    pub fn remove_reference(&self, name: &RefName) -> Result<bool> {
        Ok(self.take_reference(name)?.is_some())
    }

    /// Does the same, and returns the bytes that the disk gets back.
    pub(crate) fn take_reference(&self, name: &RefName) -> Result<Option<u64>> {
        let path = self.ref_path(name);
        let bytes = own_bytes(&path);
        if !remove_if_exists(&path)? {
            return Ok(None);
        }
        sync_name(&path)?;
        Ok(Some(bytes + self.prune_empty(&path)))
    }

    /// Returns all references, sorted by name; those without one come last. A damaged one is told, and
    /// does not hide the others.
    pub fn references(&self) -> Result<Vec<(RefName, Ref)>> {
        self.collect_references(|read| readable(read).map(Option::flatten))
    }

    /// Returns all references, for who must not miss any.
    ///
    /// # Errors
    /// [`Error::Record`] when one is damaged.
    pub(crate) fn every_reference(&self) -> Result<Vec<(RefName, Ref)>> {
        self.collect_references(|read| read)
    }

    fn collect_references(
        &self,
        take: impl Fn(Result<Option<Ref>>) -> Result<Option<Ref>>,
    ) -> Result<Vec<(RefName, Ref)>> {
        let mut found = Vec::new();
        for (path, name) in self.ref_files()? {
            let Some(name) = name else {
                tracing::warn!("{} is no reference", path.display());
                continue;
            };
            found.extend(take(read_ref(&path))?.map(|to| (name, to)));
        }
        found.sort_by_key(|(name, _)| match name {
            RefName::Named(reference) => (false, reference.to_string()),
            RefName::Untagged(manifest) => (true, manifest.hex()),
        });
        Ok(found)
    }

    /// Returns every file of references, with the name that its path is; none for what is none.
    pub(crate) fn ref_files(&self) -> Result<Vec<(PathBuf, Option<RefName>)>> {
        let mut found = Vec::new();
        let mut pending = vec![(self.layout().refs(), String::new())];
        while let Some((dir, repository)) = pending.pop() {
            for name in list_if_there(&dir)? {
                let path = dir.join(&name);
                let parse = |file: &str| match name.as_str() {
                    TAGS => format!("{repository}:{file}").parse().map(RefName::Named).ok(),
                    DIGESTS => {
                        format!("{repository}@sha256:{file}").parse().map(RefName::Named).ok()
                    }
                    _ => Digest::from_hex(file).map(RefName::Untagged).ok(),
                };
                let is_leaf = [TAGS, DIGESTS, UNTAGGED].contains(&name.as_str());
                if !path.is_dir() {
                    found.push((path, None));
                } else if is_leaf {
                    let files = list_if_there(&path)?.into_iter();
                    found.extend(files.map(|file| (path.join(&file), parse(&file))));
                } else {
                    let slash = if repository.is_empty() { "" } else { "/" };
                    pending.push((path, format!("{repository}{slash}{name}")));
                }
            }
        }
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
        self.keep_nameless(name, old)
    }

    /// Keeps the image that a name leads to as one without a name, beside that name. It may lose it then.
    pub fn keep_nameless(&self, name: &RefName, to: &Ref) -> Result<()> {
        let path = self.ref_path(&RefName::Untagged(to.manifest));
        let bytes = record::encode(to);
        match replace(&self.layout().staging(), &path, &bytes) {
            // Another name of a file that is there takes no room.
            Err(error) if error.is_no_room() => {
                self.link_nameless(name, to, &path).map_err(|_| error)
            }
            other => other,
        }
    }

    fn link_nameless(&self, name: &RefName, to: &Ref, path: &Path) -> Result<()> {
        let dir = path.parent().unwrap_or(path);
        ensure_dir(dir)?;
        match fs::hard_link(self.ref_path(name), path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.map_err(io_error("write", path))?,
        }
        if read_ref(path)?.is_none_or(|found| found.manifest != to.manifest) {
            // The name has got another image in this moment.
            remove_if_exists(path)?;
        }
        sync_name(path)
    }

    pub(crate) fn ref_path(&self, name: &RefName) -> PathBuf {
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

    /// Removes the directories that a removed reference leaves empty. Returns their bytes.
    fn prune_empty(&self, path: &Path) -> u64 {
        let mut bytes = 0;
        for dir in self.own_dirs(path) {
            let found = disk_bytes(dir);
            // A directory that is not empty, or that somebody fills right now, stays.
            if let Err(error) = fs::remove_dir(dir) {
                tracing::debug!("{}: {error}", dir.display());
                break;
            }
            bytes += found;
        }
        bytes
    }

    /// Returns the directories above a reference that are there for such alone. That of those without a
    /// name stays: a full disk may have no room for another one.
    pub(crate) fn own_dirs<'a>(&self, path: &'a Path) -> impl Iterator<Item = &'a Path> {
        let root = self.layout().refs();
        let stays = [root.join(UNTAGGED), root];
        path.ancestors().skip(1).take_while(move |dir| stays.iter().all(|other| dir != other))
    }
}

/// Returns what was read; what is damaged is told, and none.
pub(crate) fn readable<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Err(error @ Error::Record { .. }) => {
            tracing::warn!("{error}");
            Ok(None)
        }
        other => other.map(Some),
    }
}

pub(crate) fn read_ref(path: &Path) -> Result<Option<Ref>> {
    match record::read(path) {
        // `a` is a repository and `a/_tags` a directory: no reference can be one.
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotADirectory => Ok(None),
        other => other,
    }
}
