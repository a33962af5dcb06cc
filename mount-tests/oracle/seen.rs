//! What a program sees of a file and of a tree, field by field, and how two of them differ.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, FileExt, FileTypeExt, MetadataExt};
use std::path::Path;

use strata::digest::Digest;
use xattr::FileExt as _;

use crate::op::LATEST;

/// What is seen of a file: fields by name.
pub(crate) type Seen = BTreeMap<String, String>;

/// Every path of a tree, and what is seen there.
pub(crate) type Tree = BTreeMap<String, Seen>;

fn kind(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    match () {
        () if kind.is_dir() => "directory",
        () if kind.is_file() => "file",
        () if kind.is_symlink() => "link",
        () if kind.is_fifo() => "fifo",
        () if kind.is_socket() => "socket",
        () if kind.is_block_device() => "block",
        () => "character",
    }
}

fn attributes(metadata: &Metadata) -> Seen {
    let mtime = match u32::try_from(metadata.mtime()) {
        Ok(secs) if secs < LATEST => format!("{secs}.{:09}", metadata.mtime_nsec()),
        _ => "now".to_owned(),
    };
    let field = |name: &str, value: String| (name.to_owned(), value);
    Seen::from([
        field("kind", kind(metadata).to_owned()),
        field("mode", format!("{:o}", metadata.mode() & 0o7777)),
        field("owner", format!("{}:{}", metadata.uid(), metadata.gid())),
        field("size", metadata.len().to_string()),
        field("nlink", metadata.nlink().to_string()),
        field("rdev", format!("{:x}", metadata.rdev())),
        field("mtime", mtime),
    ])
}

fn add_content(seen: &mut Seen, content: &[u8]) {
    let digest = format!("{} bytes {}", content.len(), Digest::of(content).short());
    seen.insert("content".to_owned(), digest);
}

fn add_xattr(seen: &mut Seen, name: &std::ffi::OsStr, value: Option<Vec<u8>>) {
    let value =
        value.map_or("listed, not there".to_owned(), |value| value.escape_ascii().to_string());
    seen.insert(format!("xattr {}", name.to_string_lossy()), value);
}

/// Returns what is seen at a path.
pub(crate) fn seen_at(path: &Path) -> io::Result<Seen> {
    let metadata = fs::symlink_metadata(path)?;
    let mut seen = attributes(&metadata);
    if metadata.is_file() {
        add_content(&mut seen, &fs::read(path)?);
    } else if metadata.is_symlink() {
        let target = fs::read_link(path)?.as_os_str().as_bytes().escape_ascii().to_string();
        seen.insert("target".to_owned(), target);
    }
    for name in xattr::list(path)? {
        add_xattr(&mut seen, &name, xattr::get(path, &name)?);
    }
    Ok(seen)
}

/// Returns what is seen through a handle; the content if it may be read.
pub(crate) fn seen_through(file: &File) -> io::Result<Seen> {
    let metadata = file.metadata()?;
    let mut seen = attributes(&metadata);
    let mut content = vec![0; usize::try_from(metadata.len()).unwrap_or(0)];
    if metadata.is_file() && file.read_exact_at(&mut content, 0).is_ok() {
        add_content(&mut seen, &content);
    }
    for name in file.list_xattr()? {
        add_xattr(&mut seen, &name, file.get_xattr(&name)?);
    }
    Ok(seen)
}

/// Returns the names in a directory, sorted.
pub(crate) fn names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Returns everything below a directory, with the names that are one file.
pub(crate) fn tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut same: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    walk(root, &mut |shown, path, metadata| {
        let seen = seen_at(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        tree.insert(shown.to_owned(), seen);
        if !metadata.is_dir() {
            same.entry(metadata.ino()).or_default().push(shown.to_owned());
        }
    });
    for names in same.values_mut().filter(|names| names.len() > 1) {
        names.sort();
        for name in names.iter() {
            tree.entry(name.clone()).or_default().insert("names".to_owned(), names.join(" "));
        }
    }
    tree
}

/// Returns the number of every inode; each is the one that a listing tells, and no two files have one.
pub(crate) fn numbers(root: &Path) -> BTreeMap<String, u64> {
    let mut numbers = BTreeMap::new();
    let mut links: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    walk(root, &mut |shown, _, metadata| {
        numbers.insert(shown.to_owned(), metadata.ino());
        let (count, nlink) = links.entry(metadata.ino()).or_insert((0, metadata.nlink()));
        *count += 1;
        assert_eq!(*nlink, metadata.nlink(), "{shown}: links of one file");
        assert!(!metadata.is_dir() || *count == 1, "{shown}: a directory's number is taken");
    });
    numbers
}

/// Visits everything below a directory, and the directory.
fn walk(root: &Path, visit: &mut dyn FnMut(&str, &Path, &Metadata)) {
    let mut pending = vec![(String::from("/"), root.to_owned(), None)];
    while let Some((shown, path, listed)) = pending.pop() {
        let metadata =
            fs::symlink_metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(
            listed.is_none_or(|ino| ino == metadata.ino()),
            "{shown}: another number is listed"
        );
        visit(&shown, &path, &metadata);
        if metadata.is_dir() {
            for entry in fs::read_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())) {
                let entry = entry.expect("an entry");
                let slash = if shown == "/" { "" } else { "/" };
                let below = format!("{shown}{slash}{}", entry.file_name().to_string_lossy());
                pending.push((below, entry.path(), Some(entry.ino())));
            }
        }
    }
}

/// A field that strata shows otherwise than the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The path, or what was done.
    pub(crate) at: String,
    /// What kind of file it is.
    pub(crate) kind: String,
    pub(crate) field: String,
    pub(crate) strata: String,
    pub(crate) kernel: String,
}

/// Returns the fields that differ.
pub(crate) fn compare_seen(at: &str, strata: &Seen, kernel: &Seen) -> Vec<Difference> {
    let none = String::from("-");
    let kind = strata.get("kind").unwrap_or(&none);
    let mut fields: Vec<_> = strata.keys().chain(kernel.keys()).collect();
    fields.sort();
    fields.dedup();
    fields
        .into_iter()
        .map(|field| Difference {
            at: at.to_owned(),
            kind: kind.clone(),
            field: field.clone(),
            strata: strata.get(field).unwrap_or(&none).clone(),
            kernel: kernel.get(field).unwrap_or(&none).clone(),
        })
        .filter(|difference| difference.strata != difference.kernel)
        .collect()
}

/// Returns what differs in two trees.
pub(crate) fn compare_trees(strata: &Tree, kernel: &Tree) -> Vec<Difference> {
    let mut paths: Vec<_> = strata.keys().chain(kernel.keys()).collect();
    paths.sort();
    paths.dedup();
    paths
        .into_iter()
        .flat_map(|path| match (strata.get(path), kernel.get(path)) {
            (Some(strata), Some(kernel)) => compare_seen(path, strata, kernel),
            (strata, kernel) => vec![only_one(path, strata, kernel)],
        })
        .collect()
}

fn only_one(path: &str, strata: Option<&Seen>, kernel: Option<&Seen>) -> Difference {
    let shown = |seen: Option<&Seen>| seen.map_or("-".to_owned(), |seen| format!("{seen:?}"));
    let kind = strata.or(kernel).and_then(|seen| seen.get("kind").cloned());
    Difference {
        at: path.to_owned(),
        kind: kind.unwrap_or_default(),
        field: "what is there".to_owned(),
        strata: shown(strata),
        kernel: shown(kernel),
    }
}
