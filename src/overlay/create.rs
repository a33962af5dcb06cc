//! Making files, and giving files more names.
//!
//! Asked for again, a name that is there is the one that an earlier attempt has made. That may lack
//! something; but nobody has seen it, so another one takes its place.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::layer::Kind;
use crate::overlay::attempt::Attempt;
use crate::overlay::copy_up::Need;
use crate::overlay::error::{Error, Result};
use crate::overlay::node::{Heritage, Node, Numbered, State};
use crate::overlay::notes::Fact;
use crate::overlay::place::Place;
use crate::overlay::upper::{Child, Mark, Mask, Meta, New};
use crate::overlay::{Attr, Ino, Overlay, Owners};
use crate::sys::{self, Errno, Stat, XattrTarget, mode};

/// Longest name of a file (`NAME_MAX`).
const NAME_MAX: usize = 255;

/// Who makes a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permissions that the file does not get.
    pub umask: u32,
}

/// What is made.
#[derive(Clone, Copy, Debug)]
pub enum NewFile<'a> {
    /// A directory.
    Directory,
    /// A symbolic link that holds this.
    Symlink(&'a OsStr),
    /// An empty regular file, a FIFO, a socket, or a device with this number.
    Node(Kind, u64),
}

impl Overlay {
    /// Makes a file and returns its attributes. The kernel now knows the inode.
    pub fn make(
        &self,
        dir: Ino,
        name: &OsStr,
        new: NewFile<'_>,
        mode: u32,
        caller: Caller,
        attempt: Attempt<'_>,
    ) -> Result<Attr> {
        let new = match new {
            NewFile::Directory => New::Directory,
            NewFile::Symlink(target) => New::Symlink(target),
            // Who makes one writes to it, as a rule, and may say no more when it is opened.
            NewFile::Node(Kind::Regular, _) => {
                return self.create(dir, name, mode, caller, attempt);
            }
            NewFile::Node(kind, device) => New::Node(kind, device),
        };
        let made = self.make_node(dir, name, new, mode, caller, attempt)?;
        self.told_made(made.node, made.attr)
    }

    /// Makes a regular file that will be written to, and returns its attributes. The kernel now knows
    /// the inode.
    pub fn create(
        &self,
        dir: Ino,
        name: &OsStr,
        mode: u32,
        caller: Caller,
        attempt: Attempt<'_>,
    ) -> Result<Attr> {
        let made = self.make_node(dir, name, New::File, mode, caller, attempt)?;
        self.told_open(made.node, made.fd, made.attr)
    }

    fn told_open(&self, node: Arc<Node>, fd: OwnedFd, attr: Option<Attr>) -> Result<Attr> {
        let ino = node.ino;
        self.keep_new(&node, File::from(fd));
        self.told_made(node, attr).inspect_err(|_| self.close_kept(ino))
    }

    /// Makes a regular file without a name (`O_TMPFILE`) and returns its attributes. The kernel now
    /// knows the inode.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if the file system of the upper cannot.
    pub fn create_nameless(&self, dir: Ino, mode: u32, caller: Caller) -> Result<Attr> {
        let upper = self.changeable()?;
        let caller = self.stored_caller(caller)?;
        let dir = self.upper_dir(&self.dir_place(dir)?)?;
        let heritage = self.heritage(&dir)?;
        let meta = new_meta(heritage, false, mode, caller, self.owners());
        let mask = mask(heritage, caller.umask);
        let fd = upper.make_nameless(self.dir_fd(&dir)?.as_fd(), meta, mask)?;
        let stat = sys::fstat(fd.as_fd())?;
        let own = self.upper_ino(stat.ino);
        // A file that is gone may still be known by the number of its inode.
        let ino = if self.nodes.get(own).is_some() { self.spare_ino() } else { own };
        let pin = self.new_pin((ino, Kind::Regular, None), stat.ino, sys::dup(fd.as_fd())?)?;
        let generation = self.generation(ino, &stat);
        let state = State { upper: Some(stat.ino), pin: Some(pin), generation, ..State::default() };
        let node = self.nodes.get_or_make(ino, || Node::new(ino, Kind::Regular, None, state));
        if ino != own {
            self.number_otherwise(&node, stat.ino)?;
        }
        self.told_open(node, fd, None)
    }

    /// Gives a file another name and returns its attributes. The kernel now knows the inode once
    /// more.
    pub fn link(&self, ino: Ino, dir: Ino, name: &OsStr, attempt: Attempt<'_>) -> Result<Attr> {
        check_name(name)?;
        let upper = self.changeable()?;
        let node = self.node(&self.place(ino)?)?;
        if node.kind == Kind::Directory {
            return Err(Error::NotPermitted("a directory has one name"));
        }
        let dir_place = self.dir_place(dir)?;
        if let Some(child) = self.child(&dir_place, name)? {
            let is_done = attempt.is_again() && self.ino(&child) == ino;
            return if is_done { self.linked(node) } else { Err(Error::Exists) };
        }
        let dir = self.upper_dir(&dir_place)?;
        self.copy_up(&node, Need::Metadata)?;
        self.mark_before_linking(&node)?;
        self.mark_content(&node)?;
        let _change = node.change.lock();
        self.mark_impure(&dir, &node)?;
        let (file, _) = self.open_node(&node)?;
        let dir_fd = self.dir_fd(&dir)?;
        match self.upper_child(&dir, name)? {
            Child::There(_) => return Err(Error::Exists),
            Child::Nothing => sys::link_fd(file.as_fd(), dir_fd.as_fd(), name)?,
            Child::Whiteout => upper.link_over(file.as_fd(), dir_fd.as_fd(), name)?,
        }
        node.add_name(&dir, name);
        dir.changed(0);
        drop(_change);
        self.linked(node)
    }

    /// Returns the attributes of a file that has got a name, and can be found by it if it had none.
    fn linked(&self, node: Arc<Node>) -> Result<Attr> {
        let pin = node.state.lock().pin.take();
        drop(pin);
        self.told_made(node, None)
    }

    /// Notes that the kernel is told of a file; returns its attributes, which may be known.
    fn told_made(&self, node: Arc<Node>, known: Option<Attr>) -> Result<Attr> {
        let place = Place::Node(node);
        let attr = known.map_or_else(|| self.attr_of(&place), Ok)?;
        self.remember(&place);
        Ok(attr)
    }

    /// Returns who makes a file as its owner is stored.
    fn stored_caller(&self, caller: Caller) -> Result<Caller> {
        let (users, groups) = (&self.ids.users, &self.ids.groups);
        Ok(Caller { uid: users.stored(caller.uid)?, gid: groups.stored(caller.gid)?, ..caller })
    }

    pub(crate) fn make_node(
        &self,
        dir: Ino,
        name: &OsStr,
        new: New<'_>,
        mode: u32,
        caller: Caller,
        attempt: Attempt<'_>,
    ) -> Result<Made> {
        check_name(name)?;
        let upper = self.changeable()?;
        let caller = self.stored_caller(caller)?;
        let place = self.dir_place(dir)?;
        let below = match &place {
            Place::Lower(found) => Some(found.id),
            Place::Node(node) => node.lower,
        };
        let in_lower = self.lower_child(below, name)?.is_some();
        let is_anew = (in_lower || attempt.is_again())
            && self.check_is_free(&place, name, new, attempt)? == Free::ButForAttempt;
        let dir = self.upper_dir(&place)?;
        let (is_dir, heritage) = (matches!(new, New::Directory), self.heritage(&dir)?);
        let meta = new_meta(heritage, is_dir, mode, caller, self.owners());
        let fd = self.dir_fd(&dir)?;
        let mask = mask(heritage, caller.umask);
        if !in_lower && !is_anew {
            // As a rule the upper has nothing either: making says if it has.
            match upper.make_in_place(fd.as_fd(), name, new, meta, mask) {
                Err(Error::Sys(error)) if error.errno() == Errno::EEXIST => {}
                made => return self.made_in_place(&dir, name, new, made?),
            }
        }
        match self.upper_child(&dir, name)? {
            Child::There(_) if !is_anew => return Err(Error::Exists),
            Child::Nothing if in_lower => return Err(Error::Exists),
            Child::Nothing => return Err(Error::Stale(dir.ino.0)),
            Child::There(_) | Child::Whiteout => {}
        }
        let aside = upper.make_aside(fd.as_fd(), new, meta, mask)?;
        if is_dir && self.lower_has(dir.lower, name)? {
            // What the lower has under the name stays gone.
            let target = XattrTarget::Fd(aside.fd.as_fd());
            upper.namespace().set(target, Mark::Opaque, b"y")?;
        }
        upper.place_over_whiteout(&aside, is_dir, fd.as_fd(), name)?;
        dir.changed(i64::from(is_dir && !is_anew));
        let node = self.node_in_upper(&dir, name, sys::fstat(aside.fd.as_fd())?)?;
        Ok(Made { node, fd: aside.fd, attr: None })
    }

    /// Notes a file that was made where nothing was. It has no marks that lead to the lower.
    fn made_in_place(
        &self,
        dir: &Arc<Node>,
        name: &OsStr,
        new: New<'_>,
        (fd, shown): (OwnedFd, Stat),
    ) -> Result<Made> {
        dir.changed(i64::from(matches!(new, New::Directory)));
        let kind = Kind::of(shown.mode);
        let state = State { has_no_capability: true, ..State::default() };
        let node = self.node_with(None, (kind, &shown), None, &state, (dir, name))?;
        let attr = Some(self.attr_as_made(&node, &shown));
        Ok(Made { node, fd, attr })
    }

    /// Returns what new files get from a directory of the upper.
    fn heritage(&self, dir: &Arc<Node>) -> Result<Heritage> {
        let state = dir.state.lock().dir;
        if let Some(known) = state.heritage {
            return Ok(known);
        }
        let Stat { mode, gid, .. } = self.shown_stat(dir)?;
        let acl = self.changeable()?.has_default_acl(self.dir_fd(dir)?.as_fd())?;
        let heritage = Heritage { mode, gid, acl };
        let now = &mut dir.state.lock().dir;
        // Not what was read while it changed.
        if now.version == state.version {
            now.heritage = Some(heritage);
        }
        Ok(heritage)
    }

    /// Checks that a name belongs to nobody: what an earlier attempt has made, complete or not, nobody
    /// has seen.
    fn check_is_free(
        &self,
        dir: &Place,
        name: &OsStr,
        new: New<'_>,
        attempt: Attempt<'_>,
    ) -> Result<Free> {
        let Some(child) = self.child(dir, name)? else { return Ok(Free::Wholly) };
        let Place::Node(node) = child else { return Err(Error::Exists) };
        let is_dir = matches!(new, New::Directory);
        if !attempt.is_again() || !node.is_in_upper() || (node.kind == Kind::Directory) != is_dir {
            return Err(Error::Exists);
        }
        let is_empty = match new {
            New::Directory => self.is_empty(&Place::Node(node))?,
            New::File => self.raw_stat(&node)?.0.size == 0,
            New::Symlink(_) | New::MarkedSymlink(_) | New::Node(..) => true,
        };
        if is_empty { Ok(Free::ButForAttempt) } else { Err(Error::Exists) }
    }

    /// Notes that a file of the upper has another number than its place says.
    pub(crate) fn number_otherwise(&self, node: &Arc<Node>, inode: u64) -> Result<()> {
        if let Some(again) = &self.again {
            again.forget_number(node.ino);
        }
        let note = self.note(Fact::Number { ino: node.ino, inode })?;
        let earlier = std::mem::replace(&mut node.state.lock().number, Numbered::Otherwise(note));
        drop(earlier);
        Ok(())
    }

    /// Returns the attributes that a file of the upper shows, without its number of links.
    pub(crate) fn shown_stat(&self, node: &Arc<Node>) -> Result<Stat> {
        let upper = self.writable_or_seen()?;
        let (stat, located) = self.raw_stat(node)?;
        if upper.shows_marks(&stat) {
            return Ok(upper.shown(stat, &upper.namespace().read(located.target())?));
        }
        Ok(stat)
    }

    /// Notes in a directory without a lower one that a file from the lower is in it, so that its
    /// number is looked for.
    pub(crate) fn mark_impure(&self, dir: &Arc<Node>, file: &Node) -> Result<()> {
        let own = file.state.lock().upper.map(|inode| self.upper_ino(inode));
        let has_own_number = file.lower.is_none() && own == Some(file.ino);
        let needless = has_own_number || dir.lower.is_some() || dir.state.lock().dir.impure;
        if needless || file.kind == Kind::Directory {
            return Ok(());
        }
        let fd = self.dir_fd(dir)?;
        let namespace = self.changeable()?.namespace();
        namespace.set(XattrTarget::Fd(fd.as_fd()), Mark::Impure, b"y")?;
        dir.state.lock().dir.impure = true;
        Ok(())
    }
}

/// Whether anything has a name that nobody has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Free {
    /// Nothing has.
    Wholly,
    /// What an earlier attempt has made does.
    ButForAttempt,
}

/// A file that was made.
pub(crate) struct Made {
    node: Arc<Node>,
    fd: OwnedFd,
    /// Its attributes, where they are known without asking.
    attr: Option<Attr>,
}

/// Returns what takes permissions away from what is made in a directory: a default access control list
/// in place of the umask, which the file system heeds itself.
const fn mask(dir: Heritage, umask: u32) -> Mask {
    if dir.acl { Mask::Acl } else { Mask::Bits(umask) }
}

/// Returns owner and mode of a new file: the caller's, but the group of a set-gid directory.
fn new_meta(
    dir: Heritage,
    is_dir: bool,
    mode: u32,
    caller: Caller,
    owners: Option<Owners>,
) -> Meta {
    let mut meta = Meta { uid: caller.uid, gid: caller.gid, mode: mode & mode::PERMISSIONS };
    if owners.is_some_and(Owners::are_marks) {
        // The user who serves the mount is root in the image.
        let (uid, gid) = sys::effective_ids();
        meta.uid = if caller.uid == uid { 0 } else { caller.uid };
        meta.gid = if caller.gid == gid { 0 } else { caller.gid };
    }
    if dir.mode & mode::SET_GID != 0 {
        meta.gid = dir.gid;
        if is_dir {
            meta.mode |= mode::SET_GID;
        }
    }
    meta
}

/// Checks a name that a program gives to a file.
pub(crate) fn check_name(name: &OsStr) -> Result<()> {
    match name.len() {
        0 => Err(Error::NotFound),
        1..=NAME_MAX => Ok(()),
        _ => Err(Error::NameTooLong),
    }
}
