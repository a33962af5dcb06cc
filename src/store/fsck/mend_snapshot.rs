//! Mending files of snapshots: a content that was lost may be elsewhere in the store.
//!
//! A file of a snapshot is written in place, so that all snapshots that share it have it back, and so
//! that its attributes stay.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::digest::{Digest, HashingReader};
use crate::store::error::{Result, io_error};
use crate::store::fsck::Check;
use crate::store::fsck::mend::Outcome;
use crate::store::fsck::records::open_plain;
use crate::store::sums::Difference;
use crate::sys::{self, SetXattr, XattrTarget};

const CAPABILITY: &str = "security.capability";

impl Check {
    pub(crate) fn mend_snapshot_file(
        &self,
        (id, name): (&str, &str),
        escaped: &str,
        difference: Difference,
    ) -> Result<Outcome> {
        let container = self.known.containers.get(id).cloned().unwrap_or_else(|| id.to_owned());
        let left = format!(
            "the container itself is as it was; 'strata container snapshot rm {container} {name}' \
             removes the snapshot"
        );
        let (Difference::Content { expected }, Some(below)) = (difference, unescaped(escaped))
        else {
            return Ok(Outcome::Left(left));
        };
        let damaged = self.store.snapshot_upper(id, name).join(&below);
        for copy in self.copies(id, &below, expected)? {
            if let Some(sound) = sound_copy(&copy, expected) {
                rewrite(sound, &damaged).map_err(io_error("write", &damaged))?;
                self.hashed.lock().clear();
                let from = copy.strip_prefix(self.store.root()).unwrap_or(&copy);
                return Ok(Outcome::mended(format!(
                    "its content was taken from {}",
                    from.display()
                )));
            }
        }
        Ok(Outcome::Left(left))
    }

    /// Returns files that may have the content.
    fn copies(&self, id: &str, below: &Path, content: Digest) -> Result<Vec<PathBuf>> {
        let mut copies = vec![
            self.store.layout().object(content),
            // Whatever is there is hashed, so that it does not matter whether it has changed.
            self.store.upper(id).join(below),
        ];
        for other in self.store.snapshot_names(id)? {
            copies.push(self.store.snapshot_upper(id, &other).join(below));
        }
        Ok(copies)
    }
}

/// Returns a file from its beginning if it hashes to what it should.
fn sound_copy(path: &Path, expected: Digest) -> Option<File> {
    let opened = open_plain(path).ok()??;
    let mut reader = HashingReader::new(opened.file);
    let mut buffer = vec![0; 128 * 1024];
    while reader.read(&mut buffer).ok()? > 0 {}
    let (actual, mut file) = reader.finish();
    (actual == expected && file.rewind().is_ok()).then_some(file)
}

/// Writes a content over another one, whose file keeps its attributes. What is read is what was hashed
/// unless somebody writes to it right now, which the next look tells.
fn rewrite(mut from: File, path: &Path) -> io::Result<()> {
    let before = fs::symlink_metadata(path)?;
    let name = OsStr::new(CAPABILITY);
    let mut to = File::options().write(true).open(path)?;
    let capability =
        sys::xattr_if_set(XattrTarget::Fd(to.as_fd()), name).map_err(io::Error::other)?;
    to.set_len(0)?;
    io::copy(&mut from, &mut to)?;
    to.flush()?;
    // Writing takes set-uid and capabilities away.
    to.set_permissions(before.permissions())?;
    if let Some(value) = capability {
        let target = XattrTarget::Fd(to.as_fd());
        sys::set_xattr(target, name, &value, SetXattr::Any).map_err(io::Error::other)?;
    }
    to.set_modified(before.modified()?)?;
    to.sync_all()
}

/// Returns the path below the root that was escaped.
fn unescaped(text: &str) -> Option<PathBuf> {
    let mut bytes = Vec::new();
    let mut rest = text.strip_prefix('/')?.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let (digits, behind) = behind.strip_prefix(b"x")?.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = behind;
    }
    Some(PathBuf::from(OsStr::from_bytes(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sums::escaped;

    #[test]
    fn an_escaped_path_comes_back() {
        for path in ["", "plain/file", "a b\\c\n\u{e4}", "x\\x41"] {
            assert_eq!(unescaped(&escaped(path.as_ref())).unwrap(), Path::new(path));
        }
        for bad in ["relative", "/\\", "/\\x4", "/\\y41"] {
            assert_eq!(unescaped(bad), None);
        }
    }
}
