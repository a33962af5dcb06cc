//! Copy-up: making a file of the lower one of the upper, so that it can be changed.
//!
//! A change of attributes copies attributes; the content follows at the first write, and no more of
//! it than is kept. The copy is made in the work directory and durable before it gets a name. Only
//! the file itself is locked meanwhile, so nobody else waits.
//!
//! A lower file with several names keeps them: the copy gets every one that the union shows. Until it
//! has them all it has another one in the work directory, by which the next mount finishes what a
//! crash has interrupted.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::layer::{self, Kind, WriteBack};
use crate::overlay::Overlay;
use crate::overlay::error::{Error, Result};
use crate::overlay::lower::{Lower, LowerAttr, LowerFile, LowerId};
use crate::overlay::node::{Name, Node};
use crate::overlay::open::Content;
use crate::overlay::place::Place;
use crate::overlay::upper::{KeptLinks, Mark, Meta, New, Temporary, Upper};
use crate::sys::{self, Errno, SetTime, SetXattr, XattrTarget, mode, open_flags};

/// What of a file has to be in the upper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Its attributes.
    Metadata,
    /// Its content too, of which this many bytes are kept.
    Content(u64),
}

/// Whether a copy says itself what it was copied from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Marked,
    Unmarked,
}

/// The whole content.
pub(crate) const WHOLE: Need = Need::Content(u64::MAX);

/// Prefix of the name that a copy has in the work directory until it has all its names; the number
/// of the lower file follows.
const UNFINISHED: &str = "links-";

impl From<&LowerAttr> for Meta {
    fn from(attr: &LowerAttr) -> Self {
        Self { uid: attr.uid, gid: attr.gid, mode: attr.mode & mode::PERMISSIONS }
    }
}

impl Overlay {
    /// Brings what is needed of a file into the upper.
    pub(crate) fn copy_up(&self, node: &Arc<Node>, need: Need) -> Result<()> {
        if node.kind == Kind::Directory {
            let gone = node.state.lock().gone;
            return match gone {
                true => self.copy_up_removed_dir(node),
                false => self.upper_dir(&Place::Node(Arc::clone(node))).map(drop),
            };
        }
        if need == Need::Metadata && node.is_in_upper() {
            return Ok(());
        }
        let _change = node.change.lock();
        let (in_upper, content_in_lower) = {
            let state = node.state.lock();
            (state.upper.is_some(), state.content_in_lower)
        };
        match need {
            _ if !in_upper => self.copy_up_file(node, need).inspect_err(|_| {
                let noted = std::mem::take(&mut node.state.lock().number);
                drop(noted);
            })?,
            Need::Content(keep) if content_in_lower => self.copy_up_content(node, keep)?,
            Need::Metadata | Need::Content(_) => {}
        }
        match need {
            Need::Metadata => Ok(()),
            Need::Content(_) => self.switch_to_upper(node),
        }
    }

    /// Returns the node of a directory, which is in the upper then, as are those above it.
    pub(crate) fn upper_dir(&self, place: &Place) -> Result<Arc<Node>> {
        self.changeable()?;
        let mut missing = Vec::new();
        let mut at = self.node(place)?;
        while !at.is_in_upper() {
            let id = at.lower.ok_or(Error::Stale(at.ino.0))?;
            let above = self.lower.names(id)?.into_iter().next();
            let (above, name) = above.ok_or(Error::Stale(at.ino.0))?;
            let above = self.dir_of_lower(above)?.ok_or(Error::NotFound)?;
            missing.push((at, name));
            at = self.node(&above)?;
        }
        for (dir, name) in missing.into_iter().rev() {
            self.copy_up_dir(&dir, &at, &name)?;
            at = dir;
        }
        if at.state.lock().gone {
            return Err(Error::NotFound);
        }
        Ok(at)
    }

    fn copy_up_dir(&self, node: &Arc<Node>, above: &Arc<Node>, name: &OsStr) -> Result<()> {
        let _change = node.change.lock();
        let (in_upper, gone) = {
            let state = node.state.lock();
            (state.upper.is_some(), state.gone)
        };
        if in_upper {
            return Ok(());
        }
        if gone {
            return Err(Error::NotFound);
        }
        let upper = self.changeable()?;
        let (copy, inode) = self.make_dir_copy(upper, node)?;
        let dir = self.dir_fd(above)?;
        keeping_times(dir.as_fd(), || upper.place_new(&copy, dir.as_fd(), name))?;
        let mut state = node.state.lock();
        state.upper = Some(inode);
        state.names = vec![Name { dir: Arc::clone(above), name: name.to_owned() }];
        Ok(())
    }

    /// Brings a directory into the upper that somebody has open and that has no name any more.
    fn copy_up_removed_dir(&self, node: &Arc<Node>) -> Result<()> {
        let _change = node.change.lock();
        if node.is_in_upper() {
            return Ok(());
        }
        let upper = self.changeable()?;
        let (copy, inode) = self.make_dir_copy(upper, node)?;
        upper.forget_name(&copy)?;
        let pin = self.new_pin((node.ino, node.kind, node.lower), inode, copy.fd)?;
        let mut state = node.state.lock();
        state.upper = Some(inode);
        state.pin = Some(pin);
        let note = state.gone_note.take();
        drop((state, note));
        Ok(())
    }

    /// Makes a copy of a lower directory, which has no place yet; tells its inode.
    fn make_dir_copy(&self, upper: &Upper, node: &Node) -> Result<(Temporary, u64)> {
        let id = node.lower.ok_or(Error::Stale(node.ino.0))?;
        let attr = self.lower.attr(id)?;
        let copy = upper.make_copy(New::Directory, Meta::from(&attr))?;
        copy_xattrs(&*self.lower, upper, id, copy.fd.as_fd())?;
        let time = SetTime::To(attr.mtime);
        sys::set_times(copy.fd.as_fd(), time, time)?;
        let inode = sys::fstat(copy.fd.as_fd())?.ino;
        Ok((copy, inode))
    }

    fn copy_up_file(&self, node: &Arc<Node>, need: Need) -> Result<()> {
        let upper = self.changeable()?;
        let id = node.lower.ok_or(Error::Stale(node.ino.0))?;
        let gone = node.state.lock().gone;
        let names = if gone { Vec::new() } else { self.names_in_upper(id)? };
        if names.is_empty() && !gone {
            // Something else has its name, and a copy without one would be lost with the mount.
            return Err(Error::Stale(node.ino.0));
        }
        let attr = self.lower.attr(id)?;
        let copy = self.make_copy(upper, id, &attr)?;
        let stays = self.fill_copy(upper, &copy, (node, id), &attr, need)?;
        let inode = sys::fstat(copy.fd.as_fd())?.ino;
        let more_links = self.add_to_index(&copy, id, &names)?;
        self.place_copy(upper, &copy, id, &names)?;
        if let Some(more) = more_links
            && let Err(error) = self.note_links(copy.fd.as_fd(), KeptLinks::More(more))
        {
            // As a crash would leave it.
            tracing::warn!("{error}; the next mount counts the names of the file");
        }
        let pin = if names.is_empty() {
            upper.forget_name(&copy)?;
            let fd = sys::dup(copy.fd.as_fd())?;
            Some(self.new_pin((node.ino, node.kind, node.lower), inode, fd)?)
        } else {
            None
        };
        let mut state = node.state.lock();
        state.upper = Some(inode);
        state.names = names;
        state.pin = pin;
        state.more_links = more_links;
        state.content_in_lower = stays;
        let note = state.gone_note.take();
        drop((state, note));
        Ok(())
    }

    /// Returns the names that the union shows of a lower file; their directories are in the upper.
    fn names_in_upper(&self, id: LowerId) -> Result<Vec<Name>> {
        let mut names = Vec::new();
        for (dir, name) in self.shown_names(id)? {
            let dir = self.dir_of_lower(dir)?.ok_or(Error::NotFound)?;
            names.push(Name { dir: self.upper_dir(&dir)?, name });
        }
        Ok(names)
    }

    fn make_copy(&self, upper: &Upper, id: LowerId, attr: &LowerAttr) -> Result<Temporary> {
        let meta = Meta::from(attr);
        match Kind::of(attr.mode) {
            Kind::Regular => upper.make_copy(New::File, meta),
            Kind::Symlink => upper.make_copy(New::MarkedSymlink(&self.lower.read_link(id)?), meta),
            kind => upper.make_copy(New::Node(kind, attr.rdev), meta),
        }
    }

    /// Gives a copy its content, attributes and times, and makes content durable. Tells whether content
    /// stays in the lower.
    fn fill_copy(
        &self,
        upper: &Upper,
        copy: &Temporary,
        (node, id): (&Arc<Node>, LowerId),
        attr: &LowerAttr,
        need: Need,
    ) -> Result<bool> {
        let (fd, kind) = (copy.fd.as_fd(), Kind::of(attr.mode));
        let (keep, may_stay) = match need {
            Need::Metadata => (attr.size, upper.writes().metacopy),
            Need::Content(keep) => (attr.size.min(keep), false),
        };
        let is_file = kind == Kind::Regular && keep > 0;
        let (stays, has_content) = (is_file && may_stay, is_file && !may_stay);
        if stays {
            sys::truncate_fd(fd, attr.size)?;
            upper.namespace().set(XattrTarget::Fd(fd), Mark::Metacopy, b"")?;
        }
        if has_content {
            copy_content(upper, &self.lower.open(id)?, fd, keep)?;
        }
        copy_xattrs(&*self.lower, upper, id, fd)?;
        if self.mark_origin(upper, fd, kind, id)? == Origin::Unmarked {
            self.number_otherwise(node, sys::fstat(fd)?.ino)?;
        }
        // Who keeps less of it than there is changes it, and that is its time.
        if keep == attr.size {
            let time = SetTime::To(attr.mtime);
            sys::set_times(fd, time, time)?;
        }
        // Attributes alone are in the journal of the file system before the name is.
        if has_content && !upper.is_volatile() {
            sync(fd)?;
        }
        Ok(stays)
    }

    fn mark_origin(
        &self,
        upper: &Upper,
        fd: BorrowedFd<'_>,
        kind: Kind,
        id: LowerId,
    ) -> Result<Origin> {
        let number = id.0.to_string();
        match upper.namespace().set(XattrTarget::Fd(fd), Mark::Origin, number.as_bytes()) {
            // Without privilege only files and directories have marks: the number is lost when the
            // mount ends.
            Err(Error::Sys(error))
                if matches!(error.errno(), Errno::EPERM | Errno::EOPNOTSUPP)
                    && kind != Kind::Regular
                    && !self.lower.knows_all_names() =>
            {
                Ok(Origin::Unmarked)
            }
            other => other.map(|()| Origin::Marked),
        }
    }

    /// Gives a copy its names: all of them, or none and an error.
    fn place_copy(
        &self,
        upper: &Upper,
        copy: &Temporary,
        id: LowerId,
        names: &[Name],
    ) -> Result<()> {
        let unfinished = OsString::from(format!("{UNFINISHED}{}", id.0));
        let is_marked = names.len() > 1 && self.lower.knows_all_names();
        if is_marked {
            sys::link_fd(copy.fd.as_fd(), upper.work(), &unfinished)?;
        }
        let mut placed = 0;
        let result = names.iter().try_for_each(|Name { dir, name }| {
            let dir = self.dir_fd(dir)?;
            keeping_times(dir.as_fd(), || match placed {
                0 => upper.place_new(copy, dir.as_fd(), name),
                _ => Ok(sys::link_fd(copy.fd.as_fd(), dir.as_fd(), name)?),
            })?;
            placed += 1;
            Ok(())
        });
        if result.is_err() {
            // What is shown is the lower file again, under all its names.
            for Name { dir, name } in names.iter().take(placed) {
                let dir = self.dir_fd(dir)?;
                keeping_times(dir.as_fd(), || Ok(sys::unlink(dir.as_fd(), name)?))?;
            }
        }
        if is_marked {
            upper.let_go(&unfinished);
        }
        result
    }

    /// Gives copies the names that a crash has kept from them, and counts the names of others again.
    pub(crate) fn finish_links(&self) -> Result<()> {
        let upper = self.changeable()?;
        for unfinished in upper.unfinished(UNFINISHED)? {
            let number = unfinished.to_str().and_then(|name| name.strip_prefix(UNFINISHED));
            let number = number.map(str::parse::<u64>);
            if let Some(Ok(id)) = number
                && self.lower.contains(LowerId(id))
            {
                for Name { dir, name } in self.names_in_upper(LowerId(id))? {
                    let dir = self.dir_fd(&dir)?;
                    keeping_times(dir.as_fd(), || {
                        Ok(sys::link(upper.work(), &unfinished, dir.as_fd(), &name)?)
                    })?;
                }
            }
            upper.discard(&unfinished)?;
        }
        upper.settle_links()
    }

    /// Copies the content of a file whose attributes are in the upper already.
    fn copy_up_content(&self, node: &Arc<Node>, keep: u64) -> Result<()> {
        let upper = self.changeable()?;
        let id = node.lower.ok_or(Error::Stale(node.ino.0))?;
        let (path, stat) = self.open_node(node)?;
        let file = sys::reopen(path.as_fd(), open_flags::READ_WRITE)?;
        let fd = file.as_fd();
        let is_cut = keep < stat.size;
        if keep > 0 {
            copy_content(upper, &self.lower.open(id)?, fd, stat.size.min(keep))?;
        }
        if is_cut {
            // Now, while what is left of it is shown from the lower: what was copied is not all that it
            // had.
            sys::truncate_fd(fd, keep)?;
        } else {
            sys::set_times(fd, SetTime::To(stat.atime), SetTime::To(stat.mtime))?;
        }
        if !upper.is_volatile() {
            sync(fd)?;
        }
        upper.namespace().clear(XattrTarget::Fd(fd), Mark::Metacopy)?;
        upper.namespace().clear(XattrTarget::Fd(fd), Mark::Redirect)?;
        node.state.lock().content_in_lower = false;
        Ok(())
    }

    /// Makes whoever has the file open use the upper one from now on.
    fn switch_to_upper(&self, node: &Arc<Node>) -> Result<()> {
        let Some(file) = node.state.lock().file.upgrade() else { return Ok(()) };
        if matches!(*file.content.read(), Content::Upper(_)) {
            return Ok(());
        }
        let opened = self.open_upper(node)?;
        *file.content.write() = Content::Upper(Arc::new(opened));
        Ok(())
    }
}

/// Gives the root of an upper the attributes of the lower's.
pub(crate) fn prepare_root(lower: &dyn Lower, upper: &Upper) -> Result<()> {
    let id = lower.root();
    let attr = lower.attr(id)?;
    let root = upper.root();
    let stat = sys::fstat(root.as_fd())?;
    upper.set_meta(root.as_fd(), &stat, (Kind::Directory, 0), Meta::from(&attr))?;
    copy_xattrs(lower, upper, id, root.as_fd())?;
    let time = SetTime::To(attr.mtime);
    Ok(sys::set_times(root.as_fd(), time, time)?)
}

/// Copies the extended attributes of a lower file. Those that say nothing about the safety of a file
/// are left out where the file system of the upper has no such attributes, as the kernel's overlayfs
/// does.
fn copy_xattrs(lower: &dyn Lower, upper: &Upper, id: LowerId, fd: BorrowedFd<'_>) -> Result<()> {
    for (name, value) in lower.xattrs(id)? {
        let Some(on_disk) = upper.namespace().on_disk(&name) else { continue };
        let set = sys::set_xattr(XattrTarget::Fd(fd), &on_disk, &value, SetXattr::Any);
        match set {
            Err(error) if error.errno() == Errno::EOPNOTSUPP && !must_be_kept(&name) => {
                tracing::warn!("{error}");
            }
            other => other?,
        }
    }
    Ok(())
}

fn must_be_kept(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b"security.") || name.starts_with(b"system.posix_acl_")
}

/// Does something in a directory that no program has asked for, and that its times therefore are not to
/// show. It fails only if nothing was done: a disk that refuses to have the times set back is no reason
/// to say so of what is there.
pub(crate) fn keeping_times(dir: BorrowedFd<'_>, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let stat = sys::fstat(dir)?;
    work()?;
    if let Err(error) = sys::set_times(dir, SetTime::To(stat.atime), SetTime::To(stat.mtime)) {
        tracing::warn!("{error}; a directory looks as if it had been changed now");
    }
    Ok(())
}

fn sync(fd: BorrowedFd<'_>) -> Result<()> {
    Ok(File::from(sys::dup(fd)?).sync_all()?)
}

/// Copies the first `len` bytes of a lower file into one of the upper, which is synced next where that is
/// not volatile.
fn copy_content(upper: &Upper, from: &LowerFile, to: BorrowedFd<'_>, len: u64) -> Result<()> {
    let write_back = if upper.is_volatile() { WriteBack::Late } else { WriteBack::Early };
    match from {
        LowerFile::Bytes(bytes) => {
            let len = usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len());
            let file = File::from(sys::dup(to)?);
            Ok(file.write_all_at(bytes.get(..len).unwrap_or_default(), 0)?)
        }
        LowerFile::File(file) => Ok(layer::copy_content(file.as_fd(), to, len, write_back)?),
    }
}
