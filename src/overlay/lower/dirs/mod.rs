//! A stack of plain directories as a lower tree, merged as the kernel's overlayfs does, one name at a
//! time and only when it is asked for.
//!
//! A file has the number of its inode, so that it keeps it from mount to mount; that of another file
//! system than the first carries its place in the list of file systems in the upper bits. What is
//! known of a file is where it was found; it is dropped when the kernel has forgotten the file and
//! everything below it.
//!
//! Invariant: the layers do not change while they are mounted. They are held by descriptor from the
//! start, so they may be moved or unmounted from where they were.

mod layer;
mod listing;
mod merge;
mod name;
mod table;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use crate::layer::Kind;
use crate::overlay::error::{Error, Result};
use crate::overlay::lower::dirs::layer::{Layer, join};
use crate::overlay::lower::dirs::listing::Listing;
use crate::overlay::lower::dirs::merge::{Found, Part};
use crate::overlay::lower::dirs::table::{At, Table};
use crate::overlay::lower::{Held, Lower, LowerAttr, LowerEntry, LowerFile, LowerFound, LowerId};
use crate::overlay::upper::{Namespace, Owners};
use crate::sys::{self, Stat, open_flags};

/// How many listings are kept for those who read on.
const LISTINGS: NonZeroUsize = NonZeroUsize::new(32).unwrap();
/// Bits of a number that are the inode's own; above them is the file system's place in the list.
const INODE_BITS: u32 = 56;
/// Bits that the number of a name has and no other: numbers of file systems are below, as are those
/// that the union gives where one is taken.
const BROKEN_LINK: u64 = 3 << 62;

/// The directories of a stack.
#[derive(Clone, Debug)]
pub struct LowerDirs {
    /// The layers, first on top.
    pub dirs: Vec<PathBuf>,
    /// Layers that only give contents to files above that say so (`::` in the kernel's option).
    pub data_only: Vec<PathBuf>,
    /// The directory that keeps changes, if there is one: numbers of its files do not clash.
    pub upper: Option<PathBuf>,
    /// Marks are below `user.overlay.`, not `trusted.overlay.`.
    pub user_marks: bool,
    /// Where owners and modes are; those of a file that no mark says them of are its own.
    pub owners: Owners,
    /// Directories have one link, whatever is in them: nothing is read to count.
    pub static_links: bool,
    /// What has a mark that leads to another path of the layers below can be had.
    pub follow_redirects: bool,
    /// What the names of a file with several are.
    pub links: Links,
}

/// What the names of a file with several are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Links {
    /// Names of one file: a copy has to be found by all of them.
    #[default]
    Kept,
    /// Files of their own: a copy is that of one name.
    Broken,
}

/// A stack of plain directories.
#[derive(Debug)]
pub struct DirsLower {
    layers: Vec<Layer>,
    namespace: Namespace,
    owners: Owners,
    static_links: bool,
    follow_redirects: bool,
    links: Links,
    /// File systems by device number; the first one is that of the upper.
    devices: Vec<u64>,
    /// The roots of the layers, first on top, but for those that only give contents.
    roots: Vec<Part>,
    root: LowerId,
    known: Arc<Known>,
}

/// What is known of files, and of directories that were listed.
#[derive(Debug)]
struct Known {
    table: Table,
    listings: Mutex<LruCache<LowerId, Arc<Listing>>>,
}

impl Known {
    /// Undoes that a file was kept once.
    fn forget(&self, id: LowerId) {
        if self.table.forget(id) {
            self.listings.lock().pop(&id);
        }
    }
}

/// Keeps a file known that was found.
#[derive(Debug)]
struct KeptFile {
    known: Arc<Known>,
    id: LowerId,
}

impl Held for KeptFile {}

impl Drop for KeptFile {
    fn drop(&mut self) {
        self.known.forget(self.id);
    }
}

impl DirsLower {
    /// Opens the directories.
    ///
    /// # Errors
    /// [`Error::Setup`] names the directory that cannot be used.
    pub fn open(dirs: &LowerDirs) -> Result<Self> {
        let mut layers = Vec::new();
        for (path, is_data_only) in (dirs.dirs.iter().map(|path| (path, false)))
            .chain(dirs.data_only.iter().map(|path| (path, true)))
        {
            layers.push(Layer::open(path, is_data_only)?);
        }
        let mut devices = Vec::new();
        if let Some(upper) = &dirs.upper {
            devices.push(Layer::open(upper, false)?.device());
        }
        for layer in &layers {
            if !devices.contains(&layer.device()) {
                devices.push(layer.device());
            }
        }
        let namespace = if dirs.user_marks { Namespace::User } else { Namespace::Trusted };
        let mut lower = Self {
            layers,
            namespace,
            owners: dirs.owners,
            static_links: dirs.static_links,
            follow_redirects: dirs.follow_redirects,
            links: dirs.links,
            devices,
            roots: Vec::new(),
            root: LowerId(0),
            known: Arc::new(Known {
                table: Table::new(),
                listings: Mutex::new(LruCache::new(LISTINGS)),
            }),
        };
        lower.roots = lower.find_roots()?;
        lower.add_root()?;
        Ok(lower)
    }

    /// Returns the roots of the layers that show files.
    fn find_roots(&self) -> Result<Vec<Part>> {
        let mut roots = Vec::new();
        for (number, layer) in self.layers.iter().enumerate() {
            if layer.is_data_only() {
                break;
            }
            let number = u16::try_from(number)
                .map_err(|_| Error::Setup("there are more than 65,535 layers".to_owned()))?;
            let path = OsStr::new("");
            roots.push(self.part(number, path, &layer.stat(path)?)?);
        }
        Ok(roots)
    }

    /// Merges the roots, down to the first that is opaque.
    fn add_root(&mut self) -> Result<()> {
        let Some(top) = self.roots.first() else {
            return Err(Error::Setup("there is no lower directory".to_owned()));
        };
        self.root = self.number_of(top.device, top.inode);
        let opaque = self.roots.iter().position(|part| part.is_opaque);
        let last = opaque.unwrap_or(self.roots.len());
        self.known.table.add_root(self.root, self.roots.iter().take(last + 1).cloned().collect());
        Ok(())
    }

    fn layer(&self, number: u16) -> Result<&Layer> {
        self.layers.get(usize::from(number)).ok_or(Error::Invalid("there is no such layer"))
    }

    /// Returns the number of a file.
    fn number(&self, stat: &Stat) -> LowerId {
        self.number_of(stat.dev, stat.ino)
    }

    fn number_of(&self, device: u64, inode: u64) -> LowerId {
        let place = self.devices.iter().position(|known| *known == device);
        // A file system that is mounted in a layer is none of those in the list: its device tells it
        // from the others for as long as it is mounted.
        let place = match place {
            Some(place) => place as u64,
            None => 0x40 | device & 0x3f,
        };
        LowerId((place << INODE_BITS).wrapping_add(inode))
    }

    /// Returns the number of a file that has a name: that of the name if it is a file of its own.
    fn number_of_name(&self, stat: &Stat, dir: LowerId, name: &OsStr) -> LowerId {
        if !self.is_broken_link(stat) {
            return self.number(stat);
        }
        // FNV-1a, the same in every mount.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let numbers = [self.number(stat).0, dir.0].map(u64::to_le_bytes);
        for byte in numbers.as_flattened().iter().chain(name.as_bytes()) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        LowerId(hash >> 3 | BROKEN_LINK)
    }

    fn is_broken_link(&self, stat: &Stat) -> bool {
        self.links == Links::Broken && stat.nlink > 1 && !stat.is_dir()
    }

    /// Returns where a file is: the layer, and the path in it.
    fn location(&self, id: LowerId) -> Result<(u16, OsString)> {
        match self.known.table.at(id)? {
            At::Dir(parts) => match parts.first() {
                Some(part) => Ok((part.layer, part.path.to_os_string())),
                None => Err(Error::Stale(id.0)),
            },
            At::File { layer, data: Some(data), .. } if self.layer(layer)?.is_data_only() => {
                Ok((data.0, data.1.clone()))
            }
            At::File { layer, .. } => {
                let (dir, name) = self.known.table.name(id)?;
                let At::Dir(parts) = self.known.table.at(dir)? else {
                    return Err(Error::Stale(id.0));
                };
                let part = parts.iter().find(|part| part.layer == layer);
                let part = part.ok_or(Error::Stale(id.0))?;
                Ok((layer, join(&part.path, &name)))
            }
        }
    }

    /// Returns the attributes that a file shows.
    fn shown(&self, layer: u16, path: &OsStr) -> Result<Stat> {
        let stat = self.layer(layer)?.stat(path)?;
        self.marked(layer, path, stat)
    }

    /// Returns what a file shows that has itself these attributes.
    fn marked(&self, layer: u16, path: &OsStr, stat: Stat) -> Result<Stat> {
        let Some(namespace) = self.owners.namespace() else { return Ok(stat) };
        if !stat.is_dir() && !stat.is_regular() {
            return Ok(stat);
        }
        let marks = self.layer(layer)?.marks(path, namespace)?;
        Ok(marks.stat.map_or(stat, |over| over.apply(stat)))
    }

    fn parts(&self, dir: LowerId) -> Result<Arc<[Part]>> {
        match self.known.table.at(dir)? {
            At::Dir(parts) => Ok(parts),
            At::File { .. } => Err(Error::NotDirectory),
        }
    }

    fn listing(&self, dir: LowerId) -> Result<Arc<Listing>> {
        if let Some(listing) = self.known.listings.lock().get(&dir) {
            return Ok(Arc::clone(listing));
        }
        let listing = Arc::new(self.list(&self.parts(dir)?)?);
        drop(self.known.listings.lock().push(dir, Arc::clone(&listing)));
        Ok(listing)
    }

    fn dir_links(&self, id: LowerId, own: u64) -> Result<u32> {
        if self.static_links {
            return Ok(1);
        }
        let parts = self.parts(id)?;
        let has_markers = || parts.iter().any(|part| self.has_dot_whiteouts(part).unwrap_or(true));
        if parts.len() == 1 && own > 1 && !has_markers() {
            return Ok(u32::try_from(own).unwrap_or(u32::MAX));
        }
        let listing = self.listing(id)?;
        Ok(u32::try_from(listing.subdirs()).unwrap_or(u32::MAX).saturating_add(2))
    }
}

impl Lower for DirsLower {
    fn root(&self) -> LowerId {
        self.root
    }

    fn contains(&self, id: LowerId) -> bool {
        self.known.table.at(id).is_ok()
    }

    fn number_of_upper(&self, inode: u64) -> u64 {
        inode
    }

    fn knows_all_names(&self) -> bool {
        false
    }

    fn needs_index(&self) -> bool {
        self.links == Links::Kept
    }

    fn kind(&self, id: LowerId) -> Result<Kind> {
        match self.known.table.at(id)? {
            At::Dir(_) => Ok(Kind::Directory),
            // A mark may say that it stands for something else.
            At::File { kind: Kind::Regular, .. } if self.owners.are_marks() => {
                Ok(Kind::of(self.attr(id)?.mode))
            }
            At::File { kind, .. } => Ok(kind),
        }
    }

    fn attr(&self, id: LowerId) -> Result<LowerAttr> {
        let (layer, path) = self.location(id)?;
        let stat = self.shown(layer, &path)?;
        let nlink = match Kind::of(stat.mode) {
            Kind::Directory => self.dir_links(id, stat.nlink)?,
            _ => u32::try_from(stat.nlink).unwrap_or(u32::MAX),
        };
        Ok(LowerAttr {
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            nlink,
            rdev: stat.rdev,
            size: stat.size,
            blocks: stat.blocks,
            atime: stat.atime,
            mtime: stat.mtime,
            ctime: stat.ctime,
        })
    }

    fn lookup(&self, dir: LowerId, name: &OsStr) -> Result<Option<LowerFound>> {
        let parts = self.parts(dir)?;
        match self.find(&parts, name)? {
            Found::Nothing => Ok(None),
            Found::File { layer, stat, data, .. } => {
                let (kind, has_links) = (Kind::of(stat.mode), stat.nlink > 1);
                let mut id = self.number_of_name(&stat, dir, name);
                if self.is_broken_link(&stat) {
                    // Two names with one hash: the later one gets the next number.
                    while !self.known.table.is_free_for(id, dir, name) {
                        id = LowerId(id.0.wrapping_add(1) | BROKEN_LINK);
                    }
                }
                let at = At::File { layer, kind, has_links, data };
                Ok(Some(self.found(id, dir, name, at)))
            }
            Found::Dir(parts) => {
                let Some(top) = parts.first() else { return Ok(None) };
                let id = self.number_of(top.device, top.inode);
                Ok(Some(self.found(id, dir, name, At::Dir(parts.into()))))
            }
        }
    }

    fn entries(
        &self,
        dir: LowerId,
        from: u64,
        sink: &mut dyn FnMut(LowerEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let listing = self.listing(dir)?;
        for (position, entry) in listing.from(from) {
            let flow = sink(LowerEntry {
                id: entry.id,
                kind: entry.kind,
                name: &entry.name,
                next: position + 1,
            });
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn read_link(&self, id: LowerId) -> Result<OsString> {
        let (layer, path) = self.location(id)?;
        let layer = self.layer(layer)?;
        if !layer.stat(&path)?.is_regular() {
            return layer.read_link(&path);
        }
        // A file with a mark holds the target.
        let mut target = Vec::new();
        layer.open_file(&path, open_flags::READ)?.read_to_end(&mut target)?;
        Ok(OsString::from_vec(target))
    }

    fn xattrs(&self, id: LowerId) -> Result<Vec<(OsString, Vec<u8>)>> {
        let (layer, path) = self.location(id)?;
        let found = self.layer(layer)?.xattrs(&path)?;
        let mut shown = Vec::new();
        for (name, value) in found {
            let hidden = name.as_encoded_bytes().starts_with(b"user.fuseoverlayfs.");
            if let Some(name) = self.seen(&name).filter(|_| !hidden) {
                shown.push((name, value));
            }
        }
        Ok(shown)
    }

    fn open(&self, id: LowerId) -> Result<LowerFile> {
        let (mut layer, mut path) = self.location(id)?;
        if let At::File { data: Some(data), .. } = self.known.table.at(id)? {
            (layer, path) = (data.0, data.1.clone());
        }
        let file = self.layer(layer)?.open_file(&path, open_flags::READ)?;
        Ok(LowerFile::File(Arc::new(file)))
    }

    fn content_at(&self, path: &OsStr) -> Result<Option<LowerFound>> {
        let Some(data) = self.in_data_only(Some(path))? else { return Ok(None) };
        let stat = self.layer(data.0)?.stat(&data.1)?;
        let id = self.number(&stat);
        // Its name is the path that a mark gives it, from the root.
        let (layer, kind) = (data.0, Kind::Regular);
        let at = At::File { layer, kind, has_links: false, data: Some(Arc::clone(&data)) };
        Ok(Some(self.found(id, self.root, &data.1, at)))
    }

    fn names(&self, id: LowerId) -> Result<Vec<(LowerId, OsString)>> {
        self.known.table.names(id)
    }

    fn has_unknown_names(&self, id: LowerId) -> Result<bool> {
        match self.known.table.at(id)? {
            At::Dir(_) => Ok(false),
            At::File { has_links, .. } => Ok(has_links && self.links == Links::Kept),
        }
    }

    fn hold(&self, id: LowerId) -> LowerFound {
        self.known.table.keep(id);
        self.kept(id)
    }

    fn hold_if_known(&self, id: LowerId) -> Option<LowerFound> {
        match id == self.root {
            true => Some(LowerFound::known(id)),
            false => self.known.table.keep(id).then(|| self.kept(id)),
        }
    }

    fn keep(&self, id: LowerId) {
        self.known.table.keep(id);
    }

    fn forget(&self, id: LowerId) {
        self.known.forget(id);
    }
}

impl DirsLower {
    /// Notes where a file was found, and keeps it known.
    fn found(&self, id: LowerId, dir: LowerId, name: &OsStr, at: At) -> LowerFound {
        self.known.table.add(id, dir, name, at);
        self.kept(id)
    }

    /// Returns what lets go of a file that was kept once.
    fn kept(&self, id: LowerId) -> LowerFound {
        LowerFound::kept_by(Arc::new(KeptFile { known: Arc::clone(&self.known), id }), id)
    }

    /// Returns the name that a program sees of an attribute; none if it is hidden.
    fn seen(&self, on_disk: &OsStr) -> Option<OsString> {
        self.owners.namespace().unwrap_or(self.namespace).seen(on_disk)
    }

    /// Returns a descriptor on the file system of the topmost layer.
    ///
    /// # Errors
    /// Those of dup(2).
    pub fn statfs_fd(&self) -> Result<std::os::fd::OwnedFd> {
        Ok(sys::dup(self.layer(0)?.root().as_fd())?)
    }
}
