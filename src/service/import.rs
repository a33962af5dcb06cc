//! Importing: a tar or a directory as an image of one layer.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::image::{History, ImageConfig, Platform, Reference, apply_changes};
use crate::layer::{Kind, TarMeta, TarWriter, Unpacked, decompress, join_path, unpack};
use crate::service::commit::{NewLayer, created, source_date_epoch};
use crate::service::error::{Error, Result, io_error};
use crate::service::pack::check_for_layer;
use crate::service::{Event, Strata};
use crate::store::Stage;
use crate::sys::{self, Time, XattrTarget, mode};

/// What to import.
#[derive(Clone, Debug)]
pub struct ImportRequest {
    /// Where it comes from.
    pub source: ImportSource,
    /// The name of the image; none leaves it without one.
    pub reference: Option<Reference>,
    /// What the history says; that it was imported if it is not said.
    pub message: Option<String>,
    /// Instructions that change the configuration.
    pub changes: Vec<String>,
    /// What the image runs on; this machine's if it is not said.
    pub platform: Option<Platform>,
}

/// Where an import comes from.
#[derive(Clone, Debug)]
pub enum ImportSource {
    /// Standard input, a tar.
    Stdin,
    /// A tar or a directory.
    Path(PathBuf),
}

impl Strata {
    /// Makes an image of a tar, compressed or not, or of a directory, and returns its id.
    pub fn import(&self, request: &ImportRequest) -> Result<crate::digest::Digest> {
        let mut config = ImageConfig::default();
        apply_changes(&request.changes, &mut config.config)?;
        let platform = request.platform.clone().unwrap_or_else(Platform::host);
        config.architecture = platform.architecture;
        config.os = platform.os;
        config.variant = platform.variant;
        let epoch = source_date_epoch()?;
        let mut stage = self.store.stage()?;
        let (unpacked, from) = match &request.source {
            ImportSource::Stdin => {
                (unpack_tar(io::stdin(), &mut stage, "standard input")?, "-".to_owned())
            }
            ImportSource::Path(path) => {
                (self.import_path(path, &mut stage, epoch)?, path.display().to_string())
            }
        };
        stage.publish_layer(&unpacked)?;
        let created = created(epoch);
        config.created = Some(created.clone());
        let comment = request.message.clone().unwrap_or_else(|| format!("Imported from {from}"));
        config.history.push(History {
            created: Some(created),
            comment: Some(comment),
            ..History::default()
        });
        let layer =
            NewLayer { diff_id: unpacked.diff_id, tar_len: unpacked.tar_len, is_empty: false };
        self.add_image(&mut stage, Vec::new(), config, Some(layer), request.reference.as_ref())
    }

    fn import_path(&self, path: &Path, stage: &mut Stage, epoch: Option<Time>) -> Result<Unpacked> {
        let shown = path.display().to_string();
        let metadata = fs::metadata(path).map_err(io_error("open", &shown))?;
        if !metadata.is_dir() {
            let file = File::open(path).map_err(io_error("open", &shown))?;
            return unpack_tar(file, stage, &shown);
        }
        let store = self.root();
        let store = fs::metadata(store).map_err(io_error("open", store.display().to_string()))?;
        self.pack_into(stage, |out, skipped| {
            let mut packer = DirectoryPacker {
                tar: TarWriter::new(out),
                first_names: HashMap::new(),
                latest: epoch,
                skipped,
            };
            packer.pack(path, &store, &|text| self.tell(Event::Warning(text)))?;
            packer.tar.finish().map(drop).map_err(io_error("write", "the tar"))
        })
    }
}

fn unpack_tar(reader: impl Read + Send, stage: &mut Stage, name: &str) -> Result<Unpacked> {
    let tar = decompress(reader).map_err(io_error("read", name))?;
    unpack(tar, stage.layer_files()?, stage)
        .map_err(|error| Error::unpacking(name.to_owned(), error))
}

/// Writes a directory of the host to a tar.
struct DirectoryPacker<'a, W: Write> {
    tar: TarWriter<W>,
    /// First names of files with several, by device and inode.
    first_names: HashMap<(u64, u64), Vec<u8>>,
    latest: Option<Time>,
    skipped: &'a mut dyn FnMut(String),
}

impl<W: Write> DirectoryPacker<'_, W> {
    /// Packs what is below `top`, without the store if that is there.
    fn pack(&mut self, top: &Path, store: &fs::Metadata, warn: &dyn Fn(String)) -> Result<()> {
        let mut pending = vec![(top.to_owned(), Vec::new())];
        while let Some((host, path)) = pending.pop() {
            let shown = host.display().to_string();
            let metadata =
                if path.is_empty() { fs::metadata(&host) } else { fs::symlink_metadata(&host) };
            let metadata = metadata.map_err(io_error("read", &shown))?;
            if (metadata.dev(), metadata.ino()) == (store.dev(), store.ino()) {
                warn(format!("{shown} is the store of strata: left out"));
                continue;
            }
            self.file(&host, path.clone(), &metadata)?;
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
fn host_xattrs(host: &Path) -> Result<std::collections::BTreeMap<Vec<u8>, Vec<u8>>> {
    let parent = host.parent().filter(|parent| !parent.as_os_str().is_empty());
    let dir = sys::open_dir_path(parent.unwrap_or(Path::new(".")))?;
    let Some(name) = host.file_name() else { return Ok(std::collections::BTreeMap::new()) };
    let target = XattrTarget::At(dir.as_fd(), name);
    let mut xattrs = std::collections::BTreeMap::new();
    for name in sys::list_xattr(target)? {
        let ours = name.as_bytes().starts_with(b"user.") || name == "security.capability";
        if ours && let Some(value) = sys::xattr_if_set(target, &name)? {
            xattrs.insert(name.as_bytes().to_vec(), value);
        }
    }
    Ok(xattrs)
}
