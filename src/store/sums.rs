//! Sums of a snapshot: what each of its files was when it was taken.
//!
//! `sums` has a line for each file below `upper/`, sorted by path: the sha256 of its content, or `-`
//! where it has none, the sha256 of its attributes, and its path, in which all but printable ASCII is
//! escaped. The last line is the sum of the others, as in every record. Files of a snapshot are never
//! written, so that what differs later is damage.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use parking_lot::Mutex;

use crate::digest::{Digest, Hasher, HashingReader};
use crate::store::error::{Error, Result};
use crate::store::files::read_if_exists;
use crate::store::record;
use crate::store::snapshots::UPPER;
use crate::store::walk::walk_at;
use crate::sys::{self, Stat, XattrTarget, mode, open_flags};

/// The name of the list in the directory of a snapshot.
pub(crate) const SUMS: &str = "sums";

/// Bytes read at once.
const CHUNK: usize = 256 * 1024;

/// What is known of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    /// Of a regular file.
    pub(crate) content: Option<Digest>,
    pub(crate) attributes: Digest,
}

/// The files of a snapshot, by their escaped paths.
pub(crate) type Sums = BTreeMap<String, Sum>;

/// What a file was found to be, and what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Its content is another one.
    Content {
        /// What it was.
        expected: Digest,
    },
    /// Its attributes, or what a link leads to, are others.
    Attributes,
    /// It is not there.
    Missing,
    /// It was not there.
    New,
    /// It cannot be read.
    Unreadable,
}

/// Returns the list of a tree. The contents of files are read, but for those whose inodes are known.
pub(crate) fn of_tree(upper: &Path, known: &HashMap<u64, Digest>) -> Result<Vec<u8>> {
    let read = |stat: &Stat, dir: BorrowedFd<'_>, name: &OsStr| match known.get(&stat.ino) {
        Some(content) => Ok(*content),
        None => hash_content(dir, name),
    };
    let sums = collect(upper, &read)?;
    let lines = sums.iter().map(|(path, sum)| {
        let content = sum.content.map_or_else(|| "-".to_owned(), |content| content.hex());
        format!("{content} {} {path}\n", sum.attributes.hex())
    });
    let mut text = lines.collect::<String>().into_bytes();
    // The record ends its text with a line of its own.
    text.pop();
    Ok(record::with_sum(text))
}

fn collect(
    upper: &Path,
    content: &dyn Fn(&Stat, BorrowedFd<'_>, &OsStr) -> sys::Result<Digest>,
) -> Result<Sums> {
    let mut sums = Sums::new();
    let mut failed = Ok(());
    walk_at(upper, &mut |path, stat, dir, name| {
        let sum = || {
            let content = stat.is_regular().then(|| content(stat, dir, name)).transpose()?;
            Ok(Sum { content, attributes: attributes(stat, dir, name)? })
        };
        match sum() {
            Ok(sum) => drop(sums.insert(escaped(path), sum)),
            Err(error) => {
                failed = Err(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    failed.map(|()| sums).map_err(Error::Sys)
}

/// Reads the list of a snapshot; none if it has none.
///
/// # Errors
/// [`Error::Record`] when it is damaged.
pub(crate) fn read(snapshot: &Path) -> Result<Option<Sums>> {
    let path = snapshot.join(SUMS);
    let Some(bytes) = read_if_exists(&path)? else { return Ok(None) };
    let damaged = |reason: String| Error::Record { path: path.clone(), reason };
    let text = record::checked(&bytes).map_err(damaged)?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let sums = lines.map(parse).collect::<Option<_>>();
    sums.map(Some).ok_or_else(|| damaged("a line of it is not understood".to_owned()))
}

fn parse(line: &[u8]) -> Option<(String, Sum)> {
    let mut words = std::str::from_utf8(line).ok()?.splitn(3, ' ');
    let content = match words.next()? {
        "-" => None,
        hex => Some(Digest::from_hex(hex).ok()?),
    };
    let attributes = Digest::from_hex(words.next()?).ok()?;
    Some((words.next()?.to_owned(), Sum { content, attributes }))
}

/// Returns what is known of the contents of a snapshot, by inode; nothing if its list is damaged.
pub(crate) fn known(snapshot: &Path) -> Result<HashMap<u64, Digest>> {
    let sums = match read(snapshot) {
        Err(error @ Error::Record { .. }) => {
            tracing::warn!("{error}");
            None
        }
        other => other?,
    };
    let Some(sums) = sums else { return Ok(HashMap::new()) };
    let mut known = HashMap::new();
    walk_at(&snapshot.join(UPPER), &mut |path, stat, _, _| {
        if let Some(content) = sums.get(&escaped(path)).and_then(|sum| sum.content) {
            known.insert(stat.ino, content);
        }
        ControlFlow::Continue(())
    })?;
    Ok(known)
}

/// Shows every file of a tree that is not what its list says to `report`, by its escaped path. Inodes
/// that were hashed before are in `hashed`, and not read again; `progress` is told the bytes of each.
pub(crate) fn differences(
    upper: &Path,
    mut sums: Sums,
    hashed: &Mutex<HashMap<u64, Digest>>,
    progress: &dyn Fn(u64),
    report: &mut dyn FnMut(String, Difference),
) -> Result<()> {
    walk_at(upper, &mut |path, stat, dir, name| {
        let path = escaped(path);
        let Some(sum) = sums.remove(&path) else {
            report(path, Difference::New);
            return ControlFlow::Continue(());
        };
        let content = || match hashed.lock().get(&stat.ino).copied() {
            Some(known) => Ok(known),
            None => hash_content(dir, name),
        };
        let found = stat.is_regular().then(content).transpose();
        match (found, attributes(stat, dir, name)) {
            (Ok(found), Ok(attributes)) => {
                if let Some(found) = found {
                    hashed.lock().insert(stat.ino, found);
                }
                match sum.content {
                    // What can be mended comes first.
                    Some(expected) if found.is_some_and(|found| found != expected) => {
                        report(path, Difference::Content { expected });
                    }
                    _ if attributes != sum.attributes => report(path, Difference::Attributes),
                    _ => {}
                }
            }
            (Err(error), _) | (_, Err(error)) => {
                tracing::debug!("{path}: {error}");
                report(path, Difference::Unreadable);
            }
        }
        progress(if stat.is_regular() { stat.size } else { 0 });
        ControlFlow::Continue(())
    })?;
    sums.into_keys().for_each(|path| report(path, Difference::Missing));
    Ok(())
}

fn hash_content(dir: BorrowedFd<'_>, name: &OsStr) -> sys::Result<Digest> {
    let fd = sys::open(dir, name, open_flags::READ, 0)?;
    hash(File::from(fd)).map_err(|error| sys::Error::from_io(format!("read {name:?}"), &error))
}

fn hash(file: File) -> io::Result<Digest> {
    let mut reader = HashingReader::new(file);
    let mut buffer = vec![0; CHUNK];
    while reader.read(&mut buffer)? > 0 {}
    Ok(reader.finish().0)
}

/// Returns the sum of what a file is besides its content. The time of last access and the number of
/// names are not part of it, nor are labels that the system gives.
fn attributes(stat: &Stat, dir: BorrowedFd<'_>, name: &OsStr) -> sys::Result<Digest> {
    let mut hasher = Hasher::default();
    hasher.update(&stat.mode.to_le_bytes());
    hasher.update(&stat.uid.to_le_bytes());
    hasher.update(&stat.gid.to_le_bytes());
    hasher.update(&stat.mtime.secs.to_le_bytes());
    hasher.update(&stat.mtime.nanos.to_le_bytes());
    match stat.mode & mode::TYPE {
        mode::REGULAR => hasher.update(&stat.size.to_le_bytes()),
        mode::CHARACTER | mode::BLOCK => hasher.update(&stat.rdev.to_le_bytes()),
        mode::SYMLINK => add(&mut hasher, sys::read_link(dir, name)?.as_bytes()),
        _ => {}
    }
    let target = XattrTarget::At(dir, name);
    let mut names = sys::list_xattr(target)?;
    names.retain(|name| {
        let name = name.as_bytes();
        name == b"security.capability" || !name.starts_with(b"security.")
    });
    names.sort();
    for name in names {
        add(&mut hasher, name.as_bytes());
        add(&mut hasher, &sys::xattr_if_set(target, &name)?.unwrap_or_default());
    }
    Ok(hasher.finish())
}

fn add(hasher: &mut Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

/// Returns a path, from the root with a leading slash, with all but printable ASCII escaped.
pub(crate) fn escaped(path: &Path) -> String {
    let mut text = String::from("/");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'\\' | 0..=b' ' | 0x7f.. => text.push_str(&format!("\\x{byte:02x}")),
            _ => text.push(char::from(*byte)),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A snapshot with one of each.
    fn snapshot() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let upper = folder.path().join(UPPER);
        fs::create_dir_all(upper.join("dir")).unwrap();
        fs::write(upper.join("dir/file"), "content").unwrap();
        fs::write(upper.join(OsStr::from_bytes(b"odd \xff\\name")), "x").unwrap();
        symlink("there", upper.join("link")).unwrap();
        let list = of_tree(&upper, &HashMap::new()).unwrap();
        fs::write(folder.path().join(SUMS), list).unwrap();
        folder
    }

    fn found(snapshot: &Path) -> Vec<(String, Difference)> {
        let mut found = Vec::new();
        let sums = read(snapshot).unwrap().unwrap();
        let hashed = Mutex::default();
        let mut report = |path, difference| found.push((path, difference));
        differences(&snapshot.join(UPPER), sums, &hashed, &|_| {}, &mut report).unwrap();
        found
    }

    #[test]
    fn a_tree_is_what_its_list_says_until_something_changes() {
        let folder = snapshot();
        let upper = folder.path().join(UPPER);
        let file = upper.join("dir/file");
        assert_eq!(found(folder.path()), []);
        let mtime = fs::metadata(&file).unwrap().modified().unwrap();
        fs::write(&file, "cOntent").unwrap();
        File::options().write(true).open(&file).unwrap().set_modified(mtime).unwrap();
        let expected = Digest::of(b"content");
        let path = "/dir/file".to_owned();
        assert_eq!(found(folder.path()), [(path.clone(), Difference::Content { expected })]);
        fs::write(&file, "content").unwrap();
        assert_eq!(found(folder.path()), [(path, Difference::Attributes)]);
        File::options().write(true).open(&file).unwrap().set_modified(mtime).unwrap();
        assert_eq!(found(folder.path()), []);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(found(folder.path()).len(), 1);
    }

    #[test]
    fn what_is_gone_and_what_is_new_is_found() {
        let folder = snapshot();
        let upper = folder.path().join(UPPER);
        let modified = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        let before = modified(&upper);
        fs::rename(upper.join(OsStr::from_bytes(b"odd \xff\\name")), upper.join("new")).unwrap();
        fs::remove_file(upper.join("link")).unwrap();
        symlink("Where", upper.join("link")).unwrap();
        File::open(&upper).unwrap().set_modified(before).unwrap();
        let mut found = found(folder.path());
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let expected = [
            ("/link", Difference::Attributes),
            ("/new", Difference::New),
            ("/odd\\x20\\xff\\x5cname", Difference::Missing),
        ];
        assert_eq!(found, expected.map(|(path, difference)| (path.to_owned(), difference)));
    }

    #[test]
    fn what_is_known_of_an_inode_is_not_read_again() {
        let folder = snapshot();
        let list = fs::read(folder.path().join(SUMS)).unwrap();
        let upper = folder.path().join(UPPER);
        let mtime = fs::metadata(upper.join("dir/file")).unwrap().modified().unwrap();
        let known = known(folder.path()).unwrap();
        fs::write(upper.join("dir/file"), "cOntent").unwrap();
        let file = File::options().write(true).open(upper.join("dir/file")).unwrap();
        file.set_modified(mtime).unwrap();
        // What was known when it was taken stays, whatever the disk has made of it since.
        assert_eq!(of_tree(&upper, &known).unwrap(), list);
    }

    #[test]
    fn a_damaged_list_is_an_error_and_a_missing_one_is_none() {
        let folder = snapshot();
        let path = folder.path().join(SUMS);
        let mut bytes = fs::read(&path).unwrap();
        bytes[5] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(read(folder.path()), Err(Error::Record { .. })));
        assert!(known(folder.path()).unwrap().is_empty());
        fs::remove_file(&path).unwrap();
        assert!(read(folder.path()).unwrap().is_none());
    }
}
