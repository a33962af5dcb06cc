//! What fuzzing does with this room: uppers that somebody else has written.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a crash is what this looks for, and it is in no program"
)]

use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::layer::fuzz::Merged;
use crate::layer::{TarMeta, TarWriter};
use crate::overlay::upper::marks::OverrideStat;
use crate::overlay::*;
use crate::sys::{self, XattrTarget};

/// Returns a small tree of every kind of file.
pub(crate) fn base() -> Box<dyn Lower> {
    static BASE: OnceLock<Merged> = OnceLock::new();
    let base = BASE.get_or_init(|| Merged::of(&tar().expect("memory")).expect("a layer"));
    Box::new(ChainLower::new(base.open().expect("it is whole")))
}

fn tar() -> std::io::Result<Vec<u8>> {
    let mut tar = TarWriter::new(Vec::new());
    let xattrs = [(b"user.name".to_vec(), b"value".to_vec())].into();
    tar.entry(&TarMeta { xattrs, ..TarMeta::new("", Kind::Directory, 0o755) })?;
    tar.entry(&TarMeta::new("a", Kind::Directory, 0o1777))?;
    let small = TarMeta { size: 3, ..TarMeta::new("a/b", Kind::Regular, 0o4644) };
    tar.file(&small, &mut &b"abc"[..])?;
    tar.hard_link(&TarMeta::new("c", Kind::Regular, 0o644), b"a/b")?;
    let large = TarMeta { size: 9000, ..TarMeta::new("d", Kind::Regular, 0o600) };
    tar.file(&large, &mut &[7; 9000][..])?;
    let target = b"a/b".to_vec();
    tar.entry(&TarMeta { target, ..TarMeta::new("e", Kind::Symlink, 0o777) })?;
    tar.entry(&TarMeta { device: 0x103, ..TarMeta::new("f", Kind::Character, 0o666) })?;
    tar.entry(&TarMeta::new("a/g", Kind::Fifo, 0o600))?;
    tar.finish()
}

/// Directories for changes; they go away with the value.
pub(crate) struct Kept {
    upper: PathBuf,
    work: PathBuf,
}

impl Kept {
    /// Makes them, empty.
    pub(crate) fn new(folder: &Path) -> Self {
        let folder = folder.canonicalize().expect("it is there");
        let kept = Self { upper: folder.join("upper"), work: folder.join("work") };
        kept.clear();
        for dir in [&kept.upper, &kept.work] {
            fs::create_dir_all(dir).expect("the folder can be written to");
        }
        kept
    }

    /// Returns the tree with changes in them. Devices are marks of regular files, so that none is
    /// opened.
    pub(crate) fn overlay(&self) -> Result<Overlay> {
        let (upper, work, owners) = (self.upper.as_path(), self.work.as_path(), Owners::Mapped);
        let (sync, owners) = (Sync::Never, Some(owners));
        let dirs = UpperDirs { upper, work, sync, owners, writes: Writes::ALL };
        Overlay::writable(base(), dirs)
    }

    fn clear(&self) {
        for dir in [&self.upper, &self.work] {
            match fs::remove_dir_all(dir) {
                Ok(()) => {}
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}"),
            }
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The names that files of an upper get here: those of the lower, and some that mean something.
const NAMES: [&str; 10] = ["a", "a/b", "c", "d", "e", "f", "x", "a/x", "x/y", ".wh.a"];
/// The attributes.
const XATTRS: [&str; 12] = [
    "user.overlay.opaque",
    "user.overlay.redirect",
    "user.overlay.metacopy",
    "user.overlay.impure",
    "user.overlay.whiteout",
    "user.overlay.strata.origin",
    "user.overlay.strata.redirects",
    "user.overlay.strata.device",
    "user.overlay.strata.links",
    "user.containers.override_stat",
    "user.containers.override_user.x",
    "user.overlay.overlay.opaque",
];

/// Makes an upper below `folder` as the bytes say, and looks at the tree that it makes, then changes
/// it. A step is what to do, with which name, a length, and that many bytes.
pub(crate) fn upper(data: &[u8], folder: &Path) {
    let kept = Kept::new(folder);
    let mut rest = data;
    while let Some(([what, name, len], more)) = rest.split_first_chunk::<3>() {
        let (value, more) = more.split_at(more.len().min(usize::from(*len)));
        rest = more;
        let path = kept.upper.join(NAMES[usize::from(*name) % NAMES.len()]);
        // A link in the place of a directory would lead this writer out; the overlay is to see it.
        let dir = path.parent().and_then(|dir| dir.canonicalize().ok());
        if dir.is_none_or(|dir| !dir.starts_with(&kept.upper)) {
            continue;
        }
        let what = usize::from(*what);
        let done = match what {
            0 => fs::create_dir(&path),
            1 => make_file(&path, value),
            2 => std::os::unix::fs::symlink(OsStr::from_bytes(value), &path),
            3 => sys::fuzz::make_fifo(&path),
            4 => fs::hard_link(kept.upper.join("x"), &path),
            5 => fs::create_dir_all(kept.work.join("work"))
                .and_then(|()| fs::write(kept.work.join("work/links-2"), value)),
            number => set_xattr(&kept.upper, &path, XATTRS[number % XATTRS.len()], value),
        };
        // A name that is taken, a directory that is not there.
        drop(done);
    }
    let Ok(overlay) = kept.overlay() else { return };
    drop(walk(&overlay.root()));
    drop(overlay.changes::<Error>(&mut |_| Ok(())));
    drop(overlay.root_has_changed());
    for name in NAMES {
        let Ok(attr) = overlay.lookup(Ino::ROOT, OsStr::new(name)) else { continue };
        let size = Some(1);
        drop(overlay.setattr(attr.ino, SetAttr { size, ..SetAttr::default() }));
        drop(overlay.unlink(Ino::ROOT, OsStr::new(name), Attempt::Only));
    }
}

/// Makes a file where nothing is: what is a link or waits for a reader stays what it is.
fn make_file(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = fs::File::create_new(path)?;
    std::io::Write::write_all(&mut file, content)
}

fn set_xattr(root: &Path, path: &Path, name: &str, value: &[u8]) -> std::io::Result<()> {
    let path = if path.ends_with(".wh.a") { root } else { path };
    // Of what would wait for a writer, and of links, nothing is said.
    let kind = path.symlink_metadata()?.file_type();
    if !kind.is_file() && !kind.is_dir() {
        return Ok(());
    }
    let file = fs::File::open(path)?;
    let target = XattrTarget::Fd(file.as_fd());
    sys::set_xattr(target, name.as_ref(), value, sys::SetXattr::Any).map_err(std::io::Error::other)
}

/// Looks at everything below.
fn walk(item: &Item<'_>) -> Result<()> {
    drop((item.attr(), item.xattrs(), item.content_digest()));
    match item.kind()? {
        Kind::Directory => {
            for (name, child) in item.children()? {
                assert!(!matches!(name.as_bytes(), b"" | b"." | b".."));
                drop(walk(&child));
            }
        }
        Kind::Symlink => drop(item.read_link()),
        Kind::Regular => {
            if let Ok(mut reader) = item.open() {
                let copied = std::io::copy(
                    &mut std::io::Read::take(&mut reader, 1 << 20),
                    &mut std::io::sink(),
                );
                drop(copied);
            }
        }
        _ => {}
    }
    Ok(())
}

/// Reads a mark that says owner, mode and type. What can be read is written the same.
pub(crate) fn mark(data: &[u8]) {
    let Some(stat) = OverrideStat::parse(data) else { return };
    let again = OverrideStat::parse(stat.to_string().as_bytes());
    assert_eq!(again, Some(stat));
}
