//! Attributes: reading them, and changing owner, mode, times and size.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::layer::Kind;
use crate::overlay::copy_up::{Need, keeping_times};
use crate::overlay::error::{Error, Result};
use crate::overlay::lower::LowerId;
use crate::overlay::node::{Name, Node};
use crate::overlay::place::Place;
use crate::overlay::upper::{Child, Meta, New, Owners};
use crate::overlay::{Attr, Ino, Overlay};
use crate::sys::{self, SetTime, Stat, StatFs};

/// Preferred size of an access.
const BLOCK_SIZE: u32 = 4096;

/// What is to change about a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// New permissions.
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New size in bytes.
    pub size: Option<u64>,
    /// New time of last access.
    pub atime: Option<SetTime>,
    /// New time of last change.
    pub mtime: Option<SetTime>,
}

impl Overlay {
    /// Returns the attributes of an inode.
    pub fn getattr(&self, ino: Ino) -> Result<Attr> {
        self.attr_of(&self.place(ino)?)
    }

    /// Changes attributes and returns them as they are then.
    pub fn setattr(&self, ino: Ino, set: SetAttr) -> Result<Attr> {
        self.changeable()?;
        let set = self.stored_owner(set)?;
        let node = self.node(&self.place(ino)?)?;
        if let Some(size) = set.size {
            self.set_size(&node, size)?;
        }
        if (SetAttr { size: None, ..set }) != SetAttr::default() {
            self.copy_up(&node, Need::Metadata)?;
            self.set_upper(&node, set)?;
        }
        self.attr_of(&Place::Node(node))
    }

    /// Returns the change with the owner as it is stored. Where all files show one owner, there is
    /// nothing to change about it.
    fn stored_owner(&self, set: SetAttr) -> Result<SetAttr> {
        let (users, groups) = (&self.ids.users, &self.ids.groups);
        let uid = set.uid.filter(|_| !users.is_squashed());
        let gid = set.gid.filter(|_| !groups.is_squashed());
        Ok(SetAttr {
            uid: uid.map(|id| users.stored(id)).transpose()?,
            gid: gid.map(|id| groups.stored(id)).transpose()?,
            ..set
        })
    }

    fn set_upper(&self, node: &Arc<Node>, set: SetAttr) -> Result<()> {
        let done = self.set_located(node, set);
        node.attributes_change();
        done
    }

    fn set_located(&self, node: &Arc<Node>, set: SetAttr) -> Result<()> {
        let (fd, stat) = self.open_node(node)?;
        if set.mode.is_some() || set.uid.is_some() || set.gid.is_some() {
            match self.owners() {
                Some(Owners::Mapped | Owners::Guarded) => {
                    self.set_mapped(node, fd.as_fd(), &stat, set)?;
                }
                Some(Owners::Native) | None => set_native(fd.as_fd(), set)?,
            }
        }
        if set.atime.is_some() || set.mtime.is_some() {
            let keep = SetTime::Keep;
            // A link may have become a file with a mark.
            let (fd, _) = self.open_node(node)?;
            sys::set_times(fd.as_fd(), set.atime.unwrap_or(keep), set.mtime.unwrap_or(keep))?;
        }
        Ok(())
    }

    /// Changes owner and mode where a mark keeps them.
    fn set_mapped(
        &self,
        node: &Arc<Node>,
        fd: BorrowedFd<'_>,
        stat: &Stat,
        set: SetAttr,
    ) -> Result<()> {
        let upper = self.changeable()?;
        let marks = upper.marks_of_fd(fd)?;
        let shown = upper.shown(*stat, &marks);
        let mut kept = shown.mode & sys::mode::PERMISSIONS;
        if (set.uid.is_some() || set.gid.is_some()) && node.kind != Kind::Directory {
            // chown(2): a program that changes hands is not set-uid any more.
            kept &= !sys::mode::SET_UID;
            if kept & 0o010 != 0 {
                kept &= !sys::mode::SET_GID;
            }
        }
        let meta = Meta {
            uid: set.uid.unwrap_or(shown.uid),
            gid: set.gid.unwrap_or(shown.gid),
            mode: set.mode.map_or(kept, |mode| mode & sys::mode::PERMISSIONS),
        };
        if Kind::of(stat.mode) == Kind::Symlink && (meta.uid != 0 || meta.gid != 0) {
            return self.mark_symlink(node, meta);
        }
        upper.set_meta(fd, stat, (node.kind, shown.rdev), meta).map(drop)
    }

    /// Makes a file with a mark of a symbolic link, which can have none. It has one name: a link is
    /// marked before it gets a second.
    fn mark_symlink(&self, node: &Arc<Node>, meta: Meta) -> Result<()> {
        let upper = self.changeable()?;
        let _change = node.change.lock();
        let (_, stat) = self.open_node(node)?;
        let target = self.read_link(node.ino)?;
        let marked = upper.make_copy(New::MarkedSymlink(&target), meta)?;
        let (atime, mtime) = (SetTime::To(stat.atime), SetTime::To(stat.mtime));
        sys::set_times(marked.fd.as_fd(), atime, mtime)?;
        let inode = sys::fstat(marked.fd.as_fd())?.ino;
        self.number_otherwise(node, inode)?;
        let name = node.state.lock().names.first().cloned();
        if let Some(Name { dir, name }) = name {
            let dir = self.dir_fd(&dir)?;
            keeping_times(dir.as_fd(), || upper.exchange(&marked, dir.as_fd(), &name))?;
        }
        node.state.lock().upper = Some(inode);
        Ok(())
    }

    /// Marks a symbolic link that is about to get a second name.
    pub(crate) fn mark_before_linking(&self, node: &Arc<Node>) -> Result<()> {
        if node.kind != Kind::Symlink || !self.owners().is_some_and(Owners::are_marks) {
            return Ok(());
        }
        let (_, stat) = self.open_node(node)?;
        if Kind::of(stat.mode) != Kind::Symlink {
            return Ok(());
        }
        let shown = self.shown_stat(node)?;
        self.mark_symlink(node, Meta::from(&shown))
    }

    /// Returns the attributes of the file at a place.
    pub(crate) fn attr_of(&self, place: &Place) -> Result<Attr> {
        Ok(self.mapped(self.stored_attr_of(place)?))
    }

    /// Returns the attributes of a file of the upper that has these and nothing else to count.
    pub(crate) fn attr_as_made(&self, node: &Node, shown: &Stat) -> Attr {
        let generation = node.state.lock().generation;
        self.mapped(Attr { generation, ..attr_from(node.ino, shown) })
    }

    /// Returns attributes with the owner that is shown.
    fn mapped(&self, attr: Attr) -> Attr {
        let (uid, gid) = (self.ids.users.shown(attr.uid), self.ids.groups.shown(attr.gid));
        Attr { uid, gid, ..attr }
    }

    /// Returns the attributes of the file at a place, with the owner on the disk.
    fn stored_attr_of(&self, place: &Place) -> Result<Attr> {
        let node = match place {
            Place::Lower(found) => return self.lower_attr(found.id, None),
            Place::Node(node) => node,
        };
        if !node.is_in_upper() {
            let id = node.lower.ok_or(Error::Stale(node.ino.0))?;
            return self.lower_attr(id, Some(node));
        }
        let shown = self.shown_stat(node)?;
        self.upper_attr(node, &shown)
    }

    /// Returns the attributes of the file at a place, of which those that the upper has may have been
    /// read.
    pub(crate) fn attr_seen(&self, place: &Place, shown: Option<Stat>) -> Result<Attr> {
        match (place, shown) {
            (Place::Node(node), Some(shown)) => Ok(self.mapped(self.upper_attr(node, &shown)?)),
            _ => self.attr_of(place),
        }
    }

    /// Returns the attributes of a file of the upper that shows these.
    fn upper_attr(&self, node: &Arc<Node>, shown: &Stat) -> Result<Attr> {
        let mut attr = attr_from(node.ino, shown);
        let more = {
            let state = node.state.lock();
            attr.generation = state.generation;
            state.more_links
        };
        if node.kind == Kind::Directory {
            attr.nlink = self.dir_links(node, shown)?;
        } else if let Some(more) = more {
            attr.nlink = u32::try_from(i64::from(attr.nlink) + more).unwrap_or(0);
        }
        Ok(attr)
    }

    fn lower_attr(&self, id: LowerId, node: Option<&Arc<Node>>) -> Result<Attr> {
        let attr = self.lower.attr(id)?;
        let nlink = match Kind::of(attr.mode) {
            Kind::Directory if node.is_some_and(|node| node.state.lock().gone) => 0,
            Kind::Directory => attr.nlink,
            _ if self.upper.is_none() => attr.nlink,
            _ => self.lower_links(id, attr.nlink, node)?,
        };
        Ok(Attr {
            ino: self.ino_of(id),
            mode: attr.mode,
            nlink,
            uid: attr.uid,
            gid: attr.gid,
            rdev: attr.rdev,
            size: attr.size,
            blocks: attr.blocks,
            block_size: BLOCK_SIZE,
            atime: attr.atime,
            mtime: attr.mtime,
            ctime: attr.ctime,
            generation: 0,
        })
    }

    /// Counts the names of a lower file that the union shows.
    fn lower_links(&self, id: LowerId, links: u32, node: Option<&Arc<Node>>) -> Result<u32> {
        if let Some(node) = node {
            let state = node.state.lock();
            if state.gone {
                return Ok(0);
            }
            if let Some(links) = state.lower_links {
                return Ok(links);
            }
        }
        if links <= 1 || !self.lower.knows_all_names() {
            return Ok(links);
        }
        let shown = u32::try_from(self.shown_names(id)?.len()).unwrap_or(links);
        if let Some(node) = node {
            node.state.lock().lower_links = Some(shown);
        }
        Ok(shown)
    }

    /// Returns the names of a lower file that the union shows.
    pub(crate) fn shown_names(&self, id: LowerId) -> Result<Vec<(LowerId, OsString)>> {
        self.shown_names_but(id, (None, OsStr::new("")))
    }

    /// Returns the same without one name of which it is known that it is not shown.
    pub(crate) fn shown_names_but(
        &self,
        id: LowerId,
        (but_in, but): (Option<LowerId>, &OsStr),
    ) -> Result<Vec<(LowerId, OsString)>> {
        let mut shown = Vec::new();
        for (dir, name) in self.lower.names(id)? {
            let is_hidden = but_in == Some(dir) && but == name;
            if !is_hidden && self.shows_lower(dir, &name)? {
                shown.push((dir, name));
            }
        }
        Ok(shown)
    }

    /// Returns the number of links of a directory in the upper: 2 and its subdirectories.
    fn dir_links(&self, node: &Arc<Node>, stat: &Stat) -> Result<u32> {
        let own = u32::try_from(stat.nlink).unwrap_or(u32::MAX);
        let (gone, dir) = {
            let state = node.state.lock();
            (state.gone, state.dir)
        };
        let Some(lower) = node.lower.filter(|_| !gone) else { return Ok(own) };
        let more = match dir.more_subdirs {
            Some(more) => more,
            None => {
                let more = self.count_subdirs(node, lower)?;
                let now = &mut node.state.lock().dir;
                // Not what was counted while names came and went.
                if now.version == dir.version {
                    now.more_subdirs = Some(more);
                }
                more
            }
        };
        match self.lower.attr(lower)?.nlink {
            // They are not counted.
            1 => Ok(1),
            links => Ok(u32::try_from(i64::from(links) + more).unwrap_or(own)),
        }
    }

    /// Counts the subdirectories that a merged directory has more than the lower one.
    fn count_subdirs(&self, node: &Arc<Node>, lower: LowerId) -> Result<i64> {
        let fd = self.dir_fd(node)?;
        let mut more = 0;
        let mut stream = sys::DirStream::new(&fd)?;
        while let Some(entry) = stream.next_entry()? {
            if entry.name == "." || entry.name == ".." {
                continue;
            }
            let is_dir = match Kind::of_dirent(entry.kind) {
                Some(kind) => kind == Kind::Directory,
                None => match self.upper_child(node, entry.name)? {
                    Child::There(stat) => stat.is_dir(),
                    Child::Nothing | Child::Whiteout => false,
                },
            };
            let below = match self.lower.lookup(lower, entry.name) {
                Ok(Some(found)) => self.lower.kind(found.id)? == Kind::Directory,
                Ok(None) => false,
                Err(error) => error.refused_kind().ok_or(error)? == Kind::Directory,
            };
            more += i64::from(is_dir) - i64::from(below);
        }
        Ok(more)
    }

    /// Returns the state of the file system that changes go to; without an upper, of that which
    /// `otherwise` is on.
    pub fn statfs(&self, otherwise: BorrowedFd<'_>) -> Result<StatFs> {
        match &self.upper {
            Some(upper) => Ok(sys::statfs(upper.root().as_fd())?),
            None => Ok(sys::statfs(otherwise)?),
        }
    }
}

/// Changes owner and mode of a file that has them itself.
fn set_native(fd: BorrowedFd<'_>, set: SetAttr) -> Result<()> {
    if set.uid.is_some() || set.gid.is_some() {
        sys::chown(fd, set.uid, set.gid)?;
    }
    if let Some(mode) = set.mode {
        sys::chmod(fd, mode & sys::mode::PERMISSIONS)?;
    }
    Ok(())
}

/// Returns the attributes of a file of the upper.
pub(crate) fn attr_from(ino: Ino, stat: &Stat) -> Attr {
    Attr {
        ino,
        mode: stat.mode,
        nlink: u32::try_from(stat.nlink).unwrap_or(u32::MAX),
        uid: stat.uid,
        gid: stat.gid,
        rdev: stat.rdev,
        size: stat.size,
        blocks: stat.blocks,
        block_size: stat.blksize,
        atime: stat.atime,
        mtime: stat.mtime,
        ctime: stat.ctime,
        generation: 0,
    }
}
