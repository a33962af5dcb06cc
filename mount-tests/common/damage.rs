//! Damaging files of a store as a disk does: the bytes are others, and everything else is as it was.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::common::Session;

/// Returns the files below a directory of the store, from the root of the store, sorted.
pub(crate) fn stored(session: &Session, dir: &str) -> Vec<PathBuf> {
    let root = session.path("store");
    let mut found = Vec::new();
    let mut pending = vec![root.join(dir)];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(&root).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Writes other bytes over a file, in place.
pub(crate) fn overwrite(path: &Path, bytes: &[u8]) {
    let before = fs::metadata(path).unwrap();
    let mut file = File::options().write(true).truncate(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_permissions(before.permissions()).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
}

/// Damages a file so that no single bit mends it: some bytes behind its middle are others.
pub(crate) fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() / 16 * 15;
    for byte in bytes.iter_mut().skip(at).take(3) {
        *byte ^= 0x55;
    }
    overwrite(path, &bytes);
}

/// Returns where the store keeps a content of more than 4 KiB.
pub(crate) fn object_of(session: &Session, content: &[u8]) -> PathBuf {
    let hex = strata::digest::Digest::of(content).hex();
    session.path("store/objects").join(&hex[..2]).join(&hex)
}
