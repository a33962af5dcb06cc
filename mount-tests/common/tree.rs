//! A tree as a program sees it, and how two of them differ.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use strata::digest::HashingReader;

/// Each path below a folder, as bytes with what is not text escaped, and what is seen there.
pub(crate) type Tree = BTreeMap<String, String>;

/// Describes every entry below a folder: kind, mode, owner, size, times, links, device, target,
/// attributes and content. The number of links is replaced by the names that share the file, so that
/// trees with different inode numbers can be compared.
pub(crate) fn tree_of(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut links = BTreeMap::new();
    walk(root, root, &mut tree, &mut links);
    for names in links.values().filter(|names: &&Vec<String>| names.len() > 1) {
        for name in names {
            let line = tree.get_mut(name).expect("it was just inserted");
            line.push_str(&format!(" with {}", names.join(" ")));
        }
    }
    tree
}

/// Replaces a time by `now` where `is_now` says so of the mode, in octal digits, and the time in seconds.
pub(crate) fn forget_times(tree: &mut Tree, is_now: impl Fn(&str, i64) -> bool) {
    for line in tree.values_mut() {
        // As `describe` has them: mode, owner, time.
        let mut words: Vec<_> = line.split(' ').collect();
        let seconds = words[2].split('.').next().and_then(|text| text.parse().ok());
        if is_now(words[0], seconds.expect("a time is a number of seconds")) {
            words[2] = "now";
        }
        *line = words.join(" ");
    }
}

fn walk(root: &Path, path: &Path, tree: &mut Tree, links: &mut BTreeMap<(u64, u64), Vec<String>>) {
    let metadata = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let below = path.strip_prefix(root).expect("it is below");
    let name = format!("/{}", below.as_os_str().as_bytes().escape_ascii());
    tree.insert(name.clone(), describe(path, &metadata));
    if metadata.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            .map(|entry| entry.expect("an entry"))
            .collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            walk(root, &entry.path(), tree, links);
        }
    } else {
        links.entry((metadata.dev(), metadata.ino())).or_default().push(name);
    }
}

fn describe(path: &Path, metadata: &Metadata) -> String {
    let kind = metadata.file_type();
    let mut line = format!("{:o} {}:{}", metadata.mode(), metadata.uid(), metadata.gid());
    line.push_str(&format!(" {}.{:09}", metadata.mtime(), metadata.mtime_nsec()));
    if kind.is_file() {
        let file = fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut reader = HashingReader::new(file);
        std::io::copy(&mut reader, &mut std::io::sink())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let digest = reader.finish().0;
        line.push_str(&format!(" {} bytes {}", metadata.len(), digest.short()));
    } else if kind.is_symlink() {
        let target = fs::read_link(path).expect("a target");
        line.push_str(&format!(" -> {}", target.as_os_str().as_bytes().escape_ascii()));
    } else if kind.is_block_device() || kind.is_char_device() {
        line.push_str(&format!(" device {:x}", metadata.rdev()));
    }
    line.push_str(&format!(" links {}", metadata.nlink()));
    for (name, value) in xattrs(path) {
        line.push_str(&format!(" {name}={}", value.escape_ascii()));
    }
    line
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = xattr::list(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    names
        .map(|name| {
            let value = xattr::get(path, &name).expect("it can be read").expect("it was listed");
            (name.to_string_lossy().into_owned(), value)
        })
        .collect()
}

/// Returns the lines that two trees do not share, the first's with `-` and the second's with `+`.
pub(crate) fn differences(first: &Tree, second: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, line) in first {
        if second.get(name) != Some(line) {
            lines.push(format!("- {name} {line}"));
        }
    }
    for (name, line) in second {
        if first.get(name) != Some(line) {
            lines.push(format!("+ {name} {line}"));
        }
    }
    lines.sort_by(|a, b| a[2..].cmp(&b[2..]));
    lines
}
