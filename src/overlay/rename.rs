//! Renaming: one step on the disk, whatever lies where.
//!
//! A directory of the lower is not copied: it moves with a mark that says where the lower has it
//! (`redirect`). What the lower has under a name that is left behind gets a whiteout in the same
//! step; what it has under the new name is hidden by what comes there, a directory being marked
//! opaque if it is nothing to the lower.
//!
//! An attempt notes the inode that is about to move. Asked for again, the inode under the new name
//! means that it has moved; what is left to do is what follows from that.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use crate::layer::Kind;
use crate::overlay::attempt::Attempt;
use crate::overlay::copy_up::Need;
use crate::overlay::create::{Caller, check_name};
use crate::overlay::error::{Error, Result, if_there};
use crate::overlay::node::Node;
use crate::overlay::place::Place;
use crate::overlay::upper::{Child, Mark, Meta, New, Upper};
use crate::overlay::{Ino, Overlay, Redirects};
use crate::sys::{self, Errno, RenameFlags, Stat, XattrTarget};

/// Longest path that a mark can hold on every file system.
const REDIRECT_MAX: usize = 3000;
/// Where an attempt notes the inode that moves. What is replaced is noted in the places before.
const MOVED: usize = 2;

/// What becomes of a file that has the new name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rename {
    /// It is replaced.
    Replace,
    /// It stays, and the rename is an error.
    NoReplace,
    /// It gets the old name.
    Exchange,
    /// It is replaced, and the old name gets a device 0/0 that belongs to this caller: what an
    /// overlay that has this mount as its upper takes for a whiteout.
    Whiteout(Caller),
}

/// One side of a rename: a name in a directory that is in the upper.
struct Side<'a> {
    dir: Arc<Node>,
    /// The directory, open in the upper.
    fd: Arc<OwnedFd>,
    name: &'a OsStr,
    /// The lower has something under the name.
    lower: bool,
}

impl Overlay {
    /// Renames.
    pub fn rename(
        &self,
        (dir, name): (Ino, &OsStr),
        (new_dir, new_name): (Ino, &OsStr),
        how: Rename,
        attempt: Attempt<'_>,
    ) -> Result<()> {
        check_name(new_name)?;
        self.changeable()?;
        let (dir, new_dir) = (self.dir_place(dir)?, self.dir_place(new_dir)?);
        if let Some(inode) = attempt.noted(MOVED)
            && self.has_moved(inode, (&dir, name), (&new_dir, new_name))?
        {
            let (from, to) = (self.side(&dir, name)?, self.side(&new_dir, new_name)?);
            return self.settle_move(&from, &to, how, attempt);
        }
        let child = self.child(&dir, name)?.ok_or(Error::NotFound)?;
        self.know(&child);
        let node = self.node(&child)?;
        let target = match self.child(&new_dir, new_name)? {
            Some(_) if how == Rename::NoReplace => return Err(Error::Exists),
            Some(target) => {
                self.know(&target);
                Some(self.node(&target)?)
            }
            None if how == Rename::Exchange => return Err(Error::NotFound),
            None => None,
        };
        if target.as_ref().is_some_and(|target| target.ino == node.ino) {
            return Ok(());
        }
        if let (Some(target), Rename::Replace | Rename::Whiteout(_)) = (&target, how) {
            self.check_replaceable(&node, target)?;
        }
        self.copy_up(&node, Need::Metadata)?;
        let from = self.side(&dir, name)?;
        let to = self.side(&new_dir, new_name)?;
        self.name_in_upper(&node, &from.dir, name, attempt)?;
        if let Some(target) = &target {
            self.copy_up_to_count(target)?;
            // So it goes in one step with what is counted.
            self.name_in_upper(target, &to.dir, new_name, Attempt::Only)?;
        }
        match (target, how) {
            (Some(target), Rename::Exchange) => {
                self.copy_up(&target, Need::Metadata)?;
                with_both(&node, Some(&target), || {
                    self.exchange_locked((&node, &from), (&target, &to), attempt)
                })?;
            }
            (target, _) => with_both(&node, target.as_ref(), || {
                self.move_locked((&node, &from), (target.as_ref(), &to), attempt)
            })?,
        }
        self.leave_whiteout(&from, how, Attempt::Only)
    }

    /// Leaves the device behind that a caller wants who asks for it.
    fn leave_whiteout(&self, from: &Side<'_>, how: Rename, attempt: Attempt<'_>) -> Result<()> {
        if let Rename::Whiteout(caller) = how {
            let whiteout = New::Node(Kind::Character, 0);
            self.make_node(from.dir.ino, from.name, whiteout, 0, caller, attempt)?;
        }
        Ok(())
    }

    /// Tells whether an inode has moved from one name to another.
    fn has_moved(
        &self,
        inode: u64,
        (dir, name): (&Place, &OsStr),
        (new_dir, new_name): (&Place, &OsStr),
    ) -> Result<bool> {
        let is_at = |dir: &Place, name: &OsStr| match dir {
            Place::Node(dir) => Ok::<_, Error>(match self.upper_child(dir, name)? {
                Child::There(stat) => stat.ino == inode,
                Child::Nothing | Child::Whiteout => false,
            }),
            Place::Lower(_) => Ok(false),
        };
        Ok(is_at(new_dir, new_name)? && !is_at(dir, name)?)
    }

    /// Does what is left to do after a move in an earlier attempt.
    fn settle_move(
        &self,
        from: &Side<'_>,
        to: &Side<'_>,
        how: Rename,
        attempt: Attempt<'_>,
    ) -> Result<()> {
        let upper = self.changeable()?;
        if how != Rename::Exchange {
            match self.upper_child(&from.dir, from.name)? {
                Child::Nothing if from.lower => upper.make_whiteout(from.fd.as_fd(), from.name)?,
                // It has changed places, and hides nothing here.
                Child::Whiteout if !from.lower => sys::unlink(from.fd.as_fd(), from.name)?,
                Child::Nothing | Child::Whiteout | Child::There(_) => {}
            }
            self.settle_loss(&to.dir, to.name, attempt)?;
        }
        for side in [from, to] {
            side.dir.note_whiteouts(from.lower && !upper.whiteouts_are_devices());
            side.dir.changed(0);
            if let Some(child) = self.child(&Place::Node(Arc::clone(&side.dir)), side.name)? {
                self.know(&child);
            }
        }
        self.leave_whiteout(from, how, attempt)
    }

    fn side<'a>(&self, dir: &Place, name: &'a OsStr) -> Result<Side<'a>> {
        let dir = self.upper_dir(dir)?;
        let (fd, lower) = (self.dir_fd(&dir)?, self.lower_has(dir.lower, name)?);
        Ok(Side { dir, fd, name, lower })
    }

    fn check_replaceable(&self, node: &Node, target: &Arc<Node>) -> Result<()> {
        match (node.kind, target.kind) {
            (Kind::Directory, Kind::Directory) => {
                if self.is_empty(&Place::Node(Arc::clone(target)))? {
                    Ok(())
                } else {
                    Err(Error::NotEmpty)
                }
            }
            (Kind::Directory, _) => Err(Error::NotDirectory),
            (_, Kind::Directory) => Err(Error::IsDirectory),
            _ => Ok(()),
        }
    }

    /// Moves a file to a name, over what has it; both files are locked.
    fn move_locked(
        &self,
        (node, from): (&Arc<Node>, &Side<'_>),
        (target, to): (Option<&Arc<Node>>, &Side<'_>),
        attempt: Attempt<'_>,
    ) -> Result<()> {
        let upper = self.changeable()?;
        self.prepare_move(node, to)?;
        if let Some(target) = target {
            if target.kind == Kind::Directory && !self.is_empty(&Place::Node(Arc::clone(target)))? {
                return Err(Error::NotEmpty);
            }
            self.hold_before_losing(target)?;
        }
        let at_target = self.upper_child(&to.dir, to.name)?;
        if let Some(target) = target {
            self.note_loss(target, attempt);
        }
        self.note_move(node, attempt);
        match at_target {
            Child::Whiteout if node.kind == Kind::Directory => {
                swap_with_whiteout(upper, from, to)?;
            }
            Child::There(stat) if stat.is_dir() => {
                empty_upper_dir(upper, to, stat)?;
                if let Some(target) = target {
                    self.dirs.remove(target.ino);
                }
                move_one(upper, from, to)?;
            }
            Child::There(_) | Child::Nothing | Child::Whiteout => move_one(upper, from, to)?,
        }
        from.dir.note_whiteouts(from.lower && !upper.whiteouts_are_devices());
        from.dir.changed(-node.counts());
        to.dir.changed(node.counts() - target.map_or(0, |target| target.counts()));
        node.add_name(&to.dir, to.name);
        node.remove_name(&from.dir, from.name);
        match target {
            Some(target) => self.lost_name(&to.dir, to.name, target),
            None => Ok(()),
        }
    }

    /// Exchanges two files; both are locked.
    fn exchange_locked(
        &self,
        (node, from): (&Arc<Node>, &Side<'_>),
        (other, to): (&Arc<Node>, &Side<'_>),
        attempt: Attempt<'_>,
    ) -> Result<()> {
        self.prepare_move(node, to)?;
        self.prepare_move(other, from)?;
        self.note_move(node, attempt);
        rename_side(from, to, RenameFlags::RENAME_EXCHANGE)?;
        for (moved, old, new) in [(node, from, to), (other, to, from)] {
            moved.add_name(&new.dir, new.name);
            moved.remove_name(&old.dir, old.name);
            new.dir.changed(moved.counts());
            old.dir.changed(-moved.counts());
        }
        Ok(())
    }

    /// Notes which inode is about to move.
    fn note_move(&self, node: &Node, attempt: Attempt<'_>) {
        let inode = node.state.lock().upper;
        attempt.note(MOVED, inode.unwrap_or(0));
    }

    /// Marks a file for the place that it moves to. The marks do no harm where it is now.
    fn prepare_move(&self, node: &Arc<Node>, to: &Side<'_>) -> Result<()> {
        let upper = self.changeable()?;
        if node.kind != Kind::Directory {
            self.mark_content(node)?;
            return self.mark_impure(&to.dir, node);
        }
        let fd = self.dir_fd(node)?;
        let target = XattrTarget::Fd(fd.as_fd());
        match node.lower {
            Some(id) => {
                let path = self.lower_path(id)?;
                if path.len() > REDIRECT_MAX || upper.writes().redirects != Redirects::Made {
                    return Err(Error::Sys(sys::Error::new("redirect", Errno::EXDEV)));
                }
                self.keep_redirected(node)?;
                upper.namespace().set(target, Mark::Redirect, path.as_bytes())
            }
            None if to.lower => upper.namespace().set(target, Mark::Opaque, b"y"),
            None => Ok(()),
        }
    }

    /// Marks a file whose content is still in the lower with where that is, for a lower that does not
    /// find it by its number.
    pub(crate) fn mark_content(&self, node: &Arc<Node>) -> Result<()> {
        let Some(id) = node.lower.filter(|_| !self.lower.knows_all_names()) else { return Ok(()) };
        if !node.state.lock().content_in_lower {
            return Ok(());
        }
        let (path, (file, _)) = (self.lower_path(id)?, self.open_node(node)?);
        let target = XattrTarget::Fd(file.as_fd());
        self.changeable()?.namespace().set(target, Mark::Redirect, path.as_bytes())
    }

    /// Remembers a directory that is not where the lower has it, for this mount and for later ones.
    fn keep_redirected(&self, node: &Arc<Node>) -> Result<()> {
        if self.note_redirected(node) == 1 {
            let upper = self.changeable()?;
            let root = upper.root();
            upper.namespace().set(XattrTarget::Fd(root.as_fd()), Mark::Redirects, b"y")?;
        }
        Ok(())
    }

    /// Remembers such a directory for this mount; tells how many there are.
    fn note_redirected(&self, node: &Arc<Node>) -> usize {
        let mut redirected = self.redirected.lock();
        if redirected.insert(node.ino, Arc::clone(node)).is_none()
            && let Some(id) = node.lower
        {
            self.lower.keep(id);
        }
        redirected.len()
    }

    /// Finds the directories that earlier mounts have moved.
    pub(crate) fn find_redirected(&self) -> Result<()> {
        let mut pending = vec![Arc::clone(&self.root)];
        while let Some(dir) = pending.pop() {
            for name in if_there(self.sorted_upper_names(&dir))?.unwrap_or_default() {
                let child = if_there(self.upper_child(&dir, &name))?;
                let Some(Child::There(stat)) = child.filter(Child::is_dir) else { continue };
                let Some(node) = if_there(self.node_in_upper(&dir, &name, stat))? else { continue };
                let beside = self.lower_lookup(dir.lower, &name)?.map(|found| found.id);
                if node.lower.is_some() && node.lower != beside {
                    self.note_redirected(&node);
                }
                pending.push(node);
            }
        }
        Ok(())
    }
}

fn rename_side(from: &Side<'_>, to: &Side<'_>, flags: RenameFlags) -> sys::Result<()> {
    sys::rename(from.fd.as_fd(), from.name, to.fd.as_fd(), to.name, flags)
}

/// Moves a directory to a name that is a whiteout: the two change places.
fn swap_with_whiteout(upper: &Upper, from: &Side<'_>, to: &Side<'_>) -> Result<()> {
    if from.lower && !upper.whiteouts_are_devices() {
        upper.expect_xattr_whiteouts(from.fd.as_fd())?;
    }
    rename_side(from, to, RenameFlags::RENAME_EXCHANGE)?;
    if from.lower {
        return Ok(());
    }
    Ok(sys::unlink(from.fd.as_fd(), from.name)?)
}

/// Puts an empty directory, which hides the lower's, in the place of one that holds nothing but
/// whiteouts. To the union nothing changes by it.
fn empty_upper_dir(upper: &Upper, at: &Side<'_>, stat: Stat) -> Result<()> {
    let shown = upper.shown(stat, &upper.marks(at.fd.as_fd(), at.name)?);
    let empty = upper.make_copy(New::Directory, Meta::from(&shown))?;
    upper.namespace().set(XattrTarget::Fd(empty.fd.as_fd()), Mark::Opaque, b"y")?;
    upper.exchange(&empty, at.fd.as_fd(), at.name)
}

/// Moves one file, and leaves a whiteout where the lower has something.
fn move_one(upper: &Upper, from: &Side<'_>, to: &Side<'_>) -> Result<()> {
    if !from.lower {
        return Ok(rename_side(from, to, RenameFlags::empty())?);
    }
    let (dir, new_dir) = (from.fd.as_fd(), to.fd.as_fd());
    if upper.rename_leaves_whiteout(dir, from.name, new_dir, to.name)? {
        return Ok(());
    }
    // A file system that cannot do both in one step: a crash here shows the lower file again.
    rename_side(from, to, RenameFlags::empty())?;
    upper.make_whiteout(dir, from.name)
}

/// Does something while two files cannot be copied up or lose a name.
fn with_both<T>(
    node: &Arc<Node>,
    other: Option<&Arc<Node>>,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let (first, second) = match other {
        Some(other) if other.ino < node.ino => (other, Some(node)),
        other => (node, other),
    };
    let _first = first.change.lock();
    let _second = second.map(|second| second.change.lock());
    work()
}
