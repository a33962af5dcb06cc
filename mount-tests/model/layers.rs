//! The layers below the overlay: tars in memory, and objects in a folder.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use strata::digest::Digest;
use strata::layer::{Kind, ObjectSink, ObjectSource, TarMeta, TarWriter};
use strata::sys::Time;

use crate::op::{LowerFile, LowerKind, text};

/// Objects as files.
#[derive(Clone)]
pub(crate) struct Objects(pub(crate) PathBuf);

impl ObjectSink for Objects {
    fn put(&mut self, digest: Digest, bytes: &[u8]) -> io::Result<()> {
        fs::write(self.0.join(digest.hex()), bytes)
    }

    fn begin(&mut self) -> io::Result<File> {
        Err(io::Error::other("no file of the model is that large"))
    }

    fn commit(&mut self, _: File, _: Digest) -> io::Result<()> {
        Err(io::Error::other("no file of the model is that large"))
    }
}

impl ObjectSource for Objects {
    fn open(&self, digest: Digest) -> io::Result<File> {
        File::open(self.0.join(digest.hex()))
    }
}

/// Extracts a layer as a directory of its own. Markers are in the kernel's form in layers with even
/// numbers, in the form of files with names in the others.
pub(crate) fn extract(layer: &[LowerFile], root: &Path, number: usize) {
    fs::create_dir(root).unwrap();
    let by_name = number % 2 == 1;
    for LowerFile { path, kind } in layer {
        let (name, dirs) = path.split_last().expect("no path is empty");
        let mut dir = root.to_owned();
        for parent in dirs {
            make_dir(&dir, crate::op::name_of(*parent));
            dir.push(crate::op::name_of(*parent));
        }
        let name = crate::op::name_of(*name);
        let path = dir.join(name);
        match kind {
            LowerKind::Dir => make_dir(&dir, name),
            LowerKind::Whiteout if by_name => put_file(&dir.join(format!(".wh.{name}")), b""),
            LowerKind::Whiteout if fs::symlink_metadata(&path).is_ok() => {}
            LowerKind::Whiteout => mknod(&path, nix::sys::stat::SFlag::S_IFCHR),
            LowerKind::Opaque => {
                make_dir(&dir, name);
                if by_name {
                    fs::write(path.join(".wh..wh..opq"), "").unwrap();
                } else {
                    make_opaque(&path);
                }
            }
            LowerKind::Hard(target) => link(&root.join(text(target)), &path, root),
            _ => {
                clear(&path);
                put(kind, &path);
            }
        }
    }
    for entry in walk(root) {
        // Not by touch(1): a process that is being started holds the locks of mounts of other tests.
        let (epoch, no_follow) = (TimeSpec::new(0, 0), UtimensatFlags::NoFollowSymlink);
        utimensat(AT_FDCWD, &entry, &epoch, &epoch, no_follow).unwrap();
    }
}

fn put_file(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
}

/// Gives a file another name. What has the name may be a directory that the file is in.
fn link(target: &Path, path: &Path, root: &Path) {
    if target == path {
        return;
    }
    let aside = root.join("aside");
    fs::hard_link(target, &aside).unwrap();
    clear(path);
    fs::rename(aside, path).unwrap();
}

fn put(kind: &LowerKind, path: &Path) {
    match kind {
        LowerKind::Bytes(bytes) => put_file(path, bytes),
        LowerKind::Symlink => std::os::unix::fs::symlink("target", path).unwrap(),
        LowerKind::Fifo => mknod(path, nix::sys::stat::SFlag::S_IFIFO),
        other => panic!("{other:?} is not put"),
    }
    if !path.is_symlink() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }
}

/// Makes a directory, which hides what layers below have if a whiteout or file was in its place.
fn make_dir(dir: &Path, name: &str) {
    let path = dir.join(name);
    if path.is_dir() && !path.is_symlink() {
        return;
    }
    let hides = clear(&path);
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    if hides {
        make_opaque(&path);
    }
}

fn make_opaque(path: &Path) {
    xattr::set(path, "trusted.overlay.opaque", b"y").unwrap();
}

fn clear(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Err(_) => return false,
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
    }
    true
}

fn mknod(path: &Path, kind: nix::sys::stat::SFlag) {
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o644);
    nix::sys::stat::mknod(path, kind, mode, 0).unwrap();
}

fn walk(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    let mut at = 0;
    while let Some(path) = found.get(at).cloned() {
        at += 1;
        if path.is_dir() && !path.is_symlink() {
            found.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found.reverse();
    found
}

/// Writes the tar that a layer is.
pub(crate) fn tar_of(layer: &[LowerFile]) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    for LowerFile { path, kind } in layer {
        let text = text(path);
        let (dir, name) =
            text.rsplit_once('/').map_or(("", text.as_str()), |(dir, name)| (dir, name));
        let slash = if dir.is_empty() { "" } else { "/" };
        let meta = |kind, mode| TarMeta::new(text.as_str(), kind, mode);
        match kind {
            LowerKind::Dir => tar.entry(&meta(Kind::Directory, 0o755)),
            LowerKind::Bytes(bytes) => {
                let size = bytes.len() as u64;
                tar.file(&TarMeta { size, ..meta(Kind::Regular, 0o644) }, &mut &bytes[..])
            }
            LowerKind::File(_) => panic!("files have bytes by now"),
            LowerKind::Symlink => {
                let target = b"target".to_vec();
                tar.entry(&TarMeta { target, ..meta(Kind::Symlink, 0o777) })
            }
            LowerKind::Fifo => tar.entry(&meta(Kind::Fifo, 0o644)),
            LowerKind::Hard(target) => {
                let target = crate::op::text(target);
                tar.hard_link(&meta(Kind::Regular, 0o644), target.as_bytes())
            }
            LowerKind::Whiteout => {
                tar.marker(format!("{dir}{slash}.wh.{name}").as_bytes(), Time::default())
            }
            LowerKind::Opaque => {
                tar.marker(format!("{text}/.wh..wh..opq").as_bytes(), Time::default())
            }
        }
        .expect("a tar in memory can be written");
    }
    tar.finish().expect("a tar in memory can be written")
}
