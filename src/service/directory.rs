//! A directory of the host as a tar.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::layer::{Kind, TarMeta, TarWriter, components, join_path};
use crate::service::browse::Last;
use crate::service::error::{Error, Result, io_error};
use crate::service::pack::check_for_layer;
use crate::service::{Event, Strata};
use crate::sys::{self, Time, XattrTarget, mode};

/// Tells whether there is a directory at a path of the image that the tar will lie on.
pub(crate) type IsDirectory<'a> = &'a (dyn Fn(&[u8], Last) -> Result<bool> + Sync);

/// Writes a directory of the host to a tar.
pub(crate) struct DirectoryPacker<'a, W: Write> {
    tar: TarWriter<W>,
    /// First names of files with several, by device and inode.
    first_names: HashMap<(u64, u64), Vec<u8>>,
    latest: Option<Time>,
    skipped: &'a mut dyn FnMut(String),
    is_directory: IsDirectory<'a>,
}

impl Strata {
    /// Packs what is below `top` as what is below `to`, without the store if that is there.
    pub(crate) fn pack_directory<W: Write>(
        &self,
        mut packer: DirectoryPacker<'_, W>,
        top: &Path,
        to: &[u8],
    ) -> Result<()> {
        let store = self.root();
        let store = fs::metadata(store).map_err(io_error("open", store.display().to_string()))?;
        let to = components(to).into_iter().fold(Vec::new(), |path, name| join_path(&path, name));
        packer.pack(top, to, &store, &|text| self.tell(Event::Warning(text)))?;
        packer.tar.finish().map(drop).map_err(io_error("write", "the tar"))
    }
}

impl<'a, W: Write> DirectoryPacker<'a, W> {
    /// Returns a packer. `skipped` is told of files that a tar cannot hold and nobody misses; what
    /// `is_directory` says is one is not written again.
    pub(crate) fn new(
        out: W,
        latest: Option<Time>,
        skipped: &'a mut dyn FnMut(String),
        is_directory: IsDirectory<'a>,
    ) -> Self {
        let tar = TarWriter::new(out);
        Self { tar, first_names: HashMap::new(), latest, skipped, is_directory }
    }

    fn pack(
        &mut self,
        top: &Path,
        to: Vec<u8>,
        store: &fs::Metadata,
        warn: &dyn Fn(String),
    ) -> Result<()> {
        let mut pending = vec![(top.to_owned(), to)];
        let mut is_top = true;
        while let Some((host, path)) = pending.pop() {
            let shown = host.display().to_string();
            let metadata = if is_top { fs::metadata(&host) } else { fs::symlink_metadata(&host) };
            is_top = false;
            let metadata = metadata.map_err(io_error("read", &shown))?;
            if (metadata.dev(), metadata.ino()) == (store.dev(), store.ino()) {
                warn(format!("{shown} is the store of strata: left out"));
                continue;
            }
            if !metadata.is_dir() || !(self.is_directory)(&path, Last::Followed)? {
                self.file(&host, path.clone(), &metadata)?;
            }
            if metadata.is_dir() {
                let mut names = Vec::new();
                for entry in fs::read_dir(&host).map_err(io_error("read", &shown))? {
                    names.push(entry.map_err(io_error("read", &shown))?.file_name());
                }
                names.sort();
                for name in names.into_iter().rev() {
                    pending.push((host.join(&name), join_path(&path, name.as_bytes())));
                }
            }
        }
        Ok(())
    }
    fn file(&mut self, host: &Path, path: Vec<u8>, metadata: &fs::Metadata) -> Result<()> {
        let shown = host.display().to_string();
        let kind = Kind::of(metadata.mode());
        if kind == Kind::Socket {
            (self.skipped)(shown);
            return Ok(());
        }
        check_for_layer(&path, &shown)?;
        if kind != Kind::Directory && (self.is_directory)(&path, Last::Itself)? {
            let reason = "the image has a directory in its place, which it would hide; rename it";
            return Err(Error::CannotPack { path: shown, reason });
        }
        let mtime = Time {
            secs: metadata.mtime(),
            nanos: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
        };
        let mut meta = TarMeta {
            uid: metadata.uid(),
            gid: metadata.gid(),
            mtime: self.latest.map_or(mtime, |latest| mtime.min(latest)),
            device: metadata.rdev(),
            size: if kind == Kind::Regular { metadata.size() } else { 0 },
            ..TarMeta::new(path, kind, metadata.mode() & mode::PERMISSIONS)
        };
        if kind != Kind::Directory && metadata.nlink() > 1 {
            let inode = (metadata.dev(), metadata.ino());
            if let Some(first) = self.first_names.get(&inode) {
                return self.tar.hard_link(&meta, first).map_err(io_error("write", shown));
            }
            self.first_names.insert(inode, meta.path.clone());
        }
        meta.xattrs = host_xattrs(host)?;
        let written = match kind {
            Kind::Regular => {
                let mut file = File::open(host).map_err(io_error("open", &shown))?;
                self.tar.file(&meta, &mut file)
            }
            Kind::Symlink => {
                let target = fs::read_link(host).map_err(io_error("read", &shown))?;
                meta.target = target.into_os_string().as_bytes().to_vec();
                self.tar.entry(&meta)
            }
            _ => self.tar.entry(&meta),
        };
        written.map_err(io_error("pack", shown))
    }
}

/// Returns the extended attributes that belong to a file and not to the machine.
fn host_xattrs(host: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let parent = host.parent().filter(|parent| !parent.as_os_str().is_empty());
    let dir = sys::open_dir_path(parent.unwrap_or(Path::new(".")))?;
    let Some(name) = host.file_name() else { return Ok(BTreeMap::new()) };
    let target = XattrTarget::At(dir.as_fd(), name);
    let mut xattrs = BTreeMap::new();
    for name in sys::list_xattr(target)? {
        let ours = name.as_bytes().starts_with(b"user.") || name == "security.capability";
        if ours && let Some(value) = sys::xattr_if_set(target, &name)? {
            xattrs.insert(name.as_bytes().to_vec(), value);
        }
    }
    Ok(xattrs)
}
