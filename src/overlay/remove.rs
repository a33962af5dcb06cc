//! Taking names away.
//!
//! An attempt notes which file it is about to take a name from. Asked for again, a name that is missing
//! means that the file has lost it: what is left to do is what follows from that.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::layer::Kind;
use crate::overlay::attempt::Attempt;
use crate::overlay::error::{Error, Result};
use crate::overlay::lower::LowerId;
use crate::overlay::node::Node;
use crate::overlay::notes::{Fact, Pin};
use crate::overlay::place::Place;
use crate::overlay::upper::{Child, Hide, Upper};
use crate::overlay::{Ino, Overlay};
use crate::sys::{self, Errno};

/// What is noted of a file that is about to lose a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Loss {
    /// It is in the upper.
    in_upper: bool,
    /// How many more names than links the union shows of it afterwards, if it is in the index.
    more: Option<i64>,
}

impl Loss {
    const VALID: u64 = 1;
    const IN_UPPER: u64 = 1 << 1;
    const INDEXED: u64 = 1 << 2;
    /// Where the number is; it has 32 bits and a sign.
    const MORE: u32 = 16;
    const ZERO: i64 = 1 << 32;

    fn encode(self) -> u64 {
        let in_upper = if self.in_upper { Self::IN_UPPER } else { 0 };
        let more = self.more.map_or(0, |more| {
            (more.saturating_add(Self::ZERO)).cast_unsigned() << Self::MORE | Self::INDEXED
        });
        Self::VALID | in_upper | more
    }

    const fn decode(bits: u64) -> Self {
        let more = match bits & Self::INDEXED {
            0 => None,
            _ => Some((bits >> Self::MORE).cast_signed() - Self::ZERO),
        };
        Self { in_upper: bits & Self::IN_UPPER != 0, more }
    }
}

impl Overlay {
    /// Takes a name away from what is not a directory. Nothing is copied for it.
    pub fn unlink(&self, dir: Ino, name: &OsStr, attempt: Attempt<'_>) -> Result<()> {
        self.changeable()?;
        let dir = self.dir_place(dir)?;
        let Some(child) = self.child(&dir, name)? else {
            return self.removed_before(&dir, name, attempt);
        };
        self.know(&child);
        let node = self.node(&child)?;
        if node.kind == Kind::Directory {
            return Err(Error::IsDirectory);
        }
        let dir = self.upper_dir(&dir)?;
        self.copy_up_to_count(&node)?;
        // So it goes in one step with what is counted.
        self.name_in_upper(&node, &dir, name, Attempt::Only)?;
        let _change = node.change.lock();
        self.remove_locked(&dir, name, &node, attempt)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, dir: Ino, name: &OsStr, attempt: Attempt<'_>) -> Result<()> {
        self.changeable()?;
        let dir = self.dir_place(dir)?;
        let Some(child) = self.child(&dir, name)? else {
            return self.removed_before(&dir, name, attempt);
        };
        self.know(&child);
        let node = self.node(&child)?;
        if node.kind != Kind::Directory {
            return Err(Error::NotDirectory);
        }
        let dir = self.upper_dir(&dir)?;
        let _change = node.change.lock();
        if !self.is_empty(&Place::Node(Arc::clone(&node)))? {
            return Err(Error::NotEmpty);
        }
        self.remove_locked(&dir, name, &node, attempt)
    }

    /// Notes which file is about to lose a name, in places 0 and 1 of an attempt, and how many more names
    /// than links the union shows of one of the index: the name is one of its links.
    pub(crate) fn note_loss(&self, node: &Node, attempt: Attempt<'_>) {
        let loss = {
            let state = node.state.lock();
            Loss { in_upper: state.upper.is_some(), more: state.more_links }
        };
        attempt.note(1, loss.encode());
        attempt.note(0, node.ino.0);
    }

    /// Answers who asks again for the removal of a name that is missing.
    fn removed_before(&self, dir: &Place, name: &OsStr, attempt: Attempt<'_>) -> Result<()> {
        if attempt.noted(0).is_none() {
            return Err(Error::NotFound);
        }
        self.settle_loss(&self.upper_dir(dir)?, name, attempt)
    }

    /// Does what is left to do for a file that has lost a name in an earlier attempt.
    pub(crate) fn settle_loss(
        &self,
        dir: &Arc<Node>,
        name: &OsStr,
        attempt: Attempt<'_>,
    ) -> Result<()> {
        let Some(ino) = attempt.noted(0).map(Ino) else { return Ok(()) };
        let loss = attempt.noted(1).map_or(Loss::default(), Loss::decode);
        let id = ino.0.checked_sub(1).map(LowerId);
        let node = match (self.nodes.get(ino), id) {
            (Some(node), _) => Some(node),
            (None, Some(id)) if loss.more.is_some() || !loss.in_upper => {
                match self.find_in_lower(id)? {
                    Some(found) if loss.more.is_some() => self.node_in_index(&found)?,
                    Some(found) if !loss.in_upper => Some(self.node(&Place::Lower(found))?),
                    Some(_) | None => None,
                }
            }
            // It has other names.
            (None, _) => None,
        };
        let Some(node) = node else { return Ok(()) };
        let _change = node.change.lock();
        self.hold_before_losing(&node)?;
        if let Some(more) = loss.more {
            self.shows_more(&node, more)?;
        }
        self.lost_name(dir, name, &node)
    }

    /// Takes a name away; the caller has locked `node.change`, and `dir` is in the upper.
    fn remove_locked(
        &self,
        dir: &Arc<Node>,
        name: &OsStr,
        node: &Arc<Node>,
        attempt: Attempt<'_>,
    ) -> Result<()> {
        let upper = self.changeable()?;
        let fd = self.dir_fd(dir)?;
        if !self.hide_lower(upper, fd.as_fd(), name, (node, attempt))? {
            self.note_loss(node, attempt);
            match self.upper_child(dir, name)? {
                Child::Whiteout => return Err(Error::NotFound),
                Child::Nothing => {
                    self.hold_before_losing(node)?;
                    upper.make_whiteout(fd.as_fd(), name)?;
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
        (node, attempt): (&Arc<Node>, Attempt<'_>),
    ) -> Result<bool> {
        if node.is_in_upper() {
            return Ok(false);
        }
        self.note_loss(node, attempt);
        self.hold_before_losing(node)?;
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
        self.hold_before_losing(node)?;
        let hide = if self.lower_has(dir.lower, name)? { Hide::Yes } else { Hide::No };
        match (node.kind, hide) {
            (Kind::Directory, _) => {
                let taken = upper.take_out(fd, name, hide)?;
                self.dirs.remove(node.ino);
                upper.let_go(&taken);
                Ok(())
            }
            (_, Hide::Yes) => upper.replace_by_whiteout(fd, name),
            (_, Hide::No) => Ok(sys::unlink(fd, name)?),
        }
    }

    /// Keeps hold of a file that is about to lose a name, if it is the last one that is known.
    pub(crate) fn hold_before_losing(&self, node: &Arc<Node>) -> Result<()> {
        let (in_upper, known) = {
            let state = node.state.lock();
            (state.upper.is_some(), state.names.len())
        };
        match (in_upper, known) {
            (true, 0 | 1) => self.pin(node),
            (true, _) => Ok(()),
            (false, _) => {
                // Whether it is the last one, the next server finds out.
                let note = self.note(Fact::Gone { ino: node.ino, kind: node.kind })?;
                let earlier = std::mem::replace(&mut node.state.lock().gone_note, note);
                drop(earlier);
                Ok(())
            }
        }
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
            let note = if left == 0 { None } else { state.gone_note.take() };
            drop((state, note));
            return Ok(());
        }
        let (pin, is_indexed) = {
            let state = node.state.lock();
            (state.pin.as_ref().map(Pin::fd), state.more_links.is_some())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_of_a_loss_is_read_again() {
        for in_upper in [false, true] {
            for more in [None, Some(0), Some(-3), Some(1 << 30)] {
                let loss = Loss { in_upper, more };
                assert_eq!(Loss::decode(loss.encode()), loss);
                assert_ne!(loss.encode(), 0);
            }
        }
    }
}
