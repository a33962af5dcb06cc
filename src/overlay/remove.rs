//! Taking names away.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::layer::Kind;
use crate::overlay::error::{Error, Result};
use crate::overlay::node::Node;
use crate::overlay::place::Place;
use crate::overlay::upper::{Child, Hide, Upper};
use crate::overlay::{Ino, Overlay};
use crate::sys::{self, Errno};

impl Overlay {
    /// Takes a name away from what is not a directory. Nothing is copied for it.
    pub fn unlink(&self, dir: Ino, name: &OsStr) -> Result<()> {
        self.changeable()?;
        let dir = self.dir_place(dir)?;
        let child = self.child(&dir, name)?.ok_or(Error::NotFound)?;
        let node = self.node(&child)?;
        if node.kind == Kind::Directory {
            return Err(Error::IsDirectory);
        }
        let dir = self.upper_dir(&dir)?;
        self.copy_up_to_count(&node)?;
        // So it goes in one step with what is counted.
        self.name_in_upper(&node, &dir, name)?;
        let _change = node.change.lock();
        self.remove_locked(&dir, name, &node)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, dir: Ino, name: &OsStr) -> Result<()> {
        self.changeable()?;
        let dir = self.dir_place(dir)?;
        let child = self.child(&dir, name)?.ok_or(Error::NotFound)?;
        let node = self.node(&child)?;
        if node.kind != Kind::Directory {
            return Err(Error::NotDirectory);
        }
        let dir = self.upper_dir(&dir)?;
        let _change = node.change.lock();
        if !self.is_empty(&Place::Node(Arc::clone(&node)))? {
            return Err(Error::NotEmpty);
        }
        self.remove_locked(&dir, name, &node)
    }

    /// Takes a name away; the caller has locked `node.change`, and `dir` is in the upper.
    fn remove_locked(&self, dir: &Arc<Node>, name: &OsStr, node: &Arc<Node>) -> Result<()> {
        let upper = self.changeable()?;
        let fd = self.dir_fd(dir)?;
        if !self.hide_lower(upper, fd.as_fd(), name, node)? {
            match self.upper_child(dir, name)? {
                Child::Whiteout => return Err(Error::NotFound),
                Child::Nothing => {
                    upper.make_whiteout(fd.as_fd(), name)?;
                    self.shows_one_less(node)?;
                }
                Child::There(_) => self.take_away(upper, (dir, fd.as_fd()), name, node)?,
            }
        }
        dir.note_whiteouts(!upper.whiteouts_are_devices());
        dir.changed(-node.counts());
        self.lost_name(dir, name, node)
    }

    /// Hides a name of a file that only the lower has; tells whether it did. The upper has nothing under
    /// the name then, or making the whiteout says so.
    fn hide_lower(
        &self,
        upper: &Upper,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        node: &Node,
    ) -> Result<bool> {
        if node.is_in_upper() {
            return Ok(false);
        }
        match upper.make_whiteout(dir, name) {
            Err(Error::Sys(error)) if error.errno() == Errno::EEXIST => Ok(false),
            made => made.map(|()| true),
        }
    }

    /// Takes a name of the upper away.
    fn take_away(
        &self,
        upper: &Upper,
        (dir, fd): (&Node, BorrowedFd<'_>),
        name: &OsStr,
        node: &Arc<Node>,
    ) -> Result<()> {
        self.pin_before_losing(node)?;
        let hide = if self.lower_has(dir.lower, name)? { Hide::Yes } else { Hide::No };
        match (node.kind, hide) {
            (Kind::Directory, _) => {
                let taken = upper.take_out(fd, name, hide)?;
                self.dirs.remove(node.ino);
                upper.discard(&taken)
            }
            (_, Hide::Yes) => upper.replace_by_whiteout(fd, name),
            (_, Hide::No) => Ok(sys::unlink(fd, name)?),
        }
    }

    /// Keeps hold of a file that is about to lose a name, if it is the last one that is known.
    pub(crate) fn pin_before_losing(&self, node: &Arc<Node>) -> Result<()> {
        let known = node.state.lock().names.len();
        if known <= 1 { self.pin(node) } else { Ok(()) }
    }

    /// Notes that a file has lost a name.
    pub(crate) fn lost_name(&self, dir: &Arc<Node>, name: &OsStr, node: &Arc<Node>) -> Result<()> {
        if node.remove_name(dir, name) {
            return Ok(());
        }
        if node.kind == Kind::Directory {
            let moved = self.redirected.lock().remove(&node.ino);
            if let Some(id) = moved.and_then(|moved| moved.lower) {
                self.lower.forget(id);
            }
        }
        if !node.is_in_upper() {
            let left = match node.lower {
                Some(id) if node.kind != Kind::Directory => {
                    self.shown_names_but(id, (dir.lower, name))?.len()
                }
                _ => 0,
            };
            let mut state = node.state.lock();
            state.gone = left == 0;
            state.lower_links = Some(u32::try_from(left).unwrap_or(u32::MAX));
            return Ok(());
        }
        let (pin, is_indexed) = {
            let state = node.state.lock();
            (state.pin.clone(), state.more_links.is_some())
        };
        if is_indexed {
            node.state.lock().gone = self.leave_index(node)?;
            return Ok(());
        }
        let gone = match pin {
            _ if node.kind == Kind::Directory => true,
            Some(pin) => sys::fstat(pin.as_fd())?.nlink == 0,
            None => false,
        };
        node.state.lock().gone = gone;
        Ok(())
    }
}
