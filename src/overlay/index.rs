//! Hard links of a lower that does not know all names of its files.
//!
//! When such a file is copied up, the copy gets a name in the index, too, by the number of the lower
//! file: whoever comes to it by another name of the lower finds the copy there. How many names the
//! union shows is kept with the copy, as what it has more than links in the upper.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::layer::Kind;
use crate::overlay::Overlay;
use crate::overlay::copy_up::{Need, keeping_times};
use crate::overlay::error::{Error, Result};
use crate::overlay::lower::LowerId;
use crate::overlay::node::{Name, Node};
use crate::overlay::upper::{Child, KeptLinks, Mark, Temporary};
use crate::sys::{self, Errno, XattrTarget};

impl Overlay {
    /// Tells whether a file has names in the lower that are not known.
    fn has_unknown_names(&self, node: &Node) -> Result<bool> {
        match node.lower {
            Some(id) if node.kind != Kind::Directory && !node.is_in_upper() => {
                self.lower.has_unknown_names(id)
            }
            _ => Ok(false),
        }
    }

    /// Copies a file up that is about to lose a name and may have others: how many it has left can
    /// be kept only with a copy. Its content is not copied.
    pub(crate) fn copy_up_to_count(&self, node: &Arc<Node>) -> Result<()> {
        if self.has_unknown_names(node)? { self.copy_up(node, Need::Metadata) } else { Ok(()) }
    }

    /// Puts a copy into the index, if it is one of a file with unknown names. `names` are those that
    /// the copy is about to get. Returns how many more names the union shows, which is to be noted
    /// ([`Self::note_links`]) when it has them.
    pub(crate) fn add_to_index(
        &self,
        copy: &Temporary,
        id: LowerId,
        names: &[Name],
    ) -> Result<Option<i64>> {
        if names.is_empty() || !self.lower.has_unknown_names(id)? {
            return Ok(None);
        }
        let upper = self.changeable()?;
        let all = i64::from(self.lower.attr(id)?.nlink);
        let known = i64::try_from(names.len()).unwrap_or(i64::MAX);
        let more = all - known - 1;
        let (fd, (index, name)) = (copy.fd.as_fd(), upper.in_index(id.0)?);
        self.note_links(fd, KeptLinks::All(all))?;
        match sys::link_fd(fd, index.as_fd(), &name) {
            // A crash came before the copy that is there got a name.
            Err(error) if error.errno() == Errno::EEXIST => {
                sys::unlink(index.as_fd(), &name)?;
                sys::link_fd(fd, index.as_fd(), &name)?;
            }
            other => other?,
        }
        Ok(Some(more))
    }

    /// Gives a file of the index a name in the upper that so far only the lower has.
    pub(crate) fn name_in_upper(
        &self,
        node: &Arc<Node>,
        dir: &Arc<Node>,
        name: &OsStr,
    ) -> Result<()> {
        let Some(more) = node.state.lock().more_links else { return Ok(()) };
        if !matches!(self.upper_child(dir, name)?, Child::Nothing) {
            return Ok(());
        }
        let (file, _) = self.open_node(node)?;
        let dir_fd = self.dir_fd(dir)?;
        let all = i64::try_from(sys::fstat(file.as_fd())?.nlink).unwrap_or(i64::MAX) + more;
        // The name is shown already, and a crash may come before the next note.
        self.note_links(file.as_fd(), KeptLinks::All(all))?;
        let link = || Ok(sys::link_fd(file.as_fd(), dir_fd.as_fd(), name)?);
        if let Err(error) = keeping_times(dir_fd.as_fd(), link) {
            self.note_links(file.as_fd(), KeptLinks::More(more))?;
            return Err(error);
        }
        node.add_name(dir, name);
        self.shows_one_less(node)
    }

    /// Notes that the union shows one name less of a file of the index, for the links that it has.
    pub(crate) fn shows_one_less(&self, node: &Arc<Node>) -> Result<()> {
        let more = {
            let mut state = node.state.lock();
            let Some(more) = &mut state.more_links else { return Ok(()) };
            *more -= 1;
            *more
        };
        let (file, _) = self.open_node(node)?;
        self.note_links(file.as_fd(), KeptLinks::More(more))
    }

    /// Notes how many names the union shows of a file of the index.
    pub(crate) fn note_links(&self, file: BorrowedFd<'_>, links: KeptLinks) -> Result<()> {
        let namespace = self.changeable()?.namespace();
        namespace.set(XattrTarget::Fd(file), Mark::Links, links.text().as_bytes())
    }

    /// Takes a file out of the index when the union shows no name of it any more; tells whether.
    pub(crate) fn leave_index(&self, node: &Arc<Node>) -> Result<bool> {
        let Some(more) = node.state.lock().more_links else { return Ok(false) };
        let (stat, _) = self.raw_stat(node)?;
        if i64::try_from(stat.nlink).unwrap_or(i64::MAX) + more > 0 {
            return Ok(false);
        }
        self.pin(node)?;
        let id = node.lower.ok_or(Error::Stale(node.ino.0))?;
        let (index, name) = self.changeable()?.in_index(id.0)?;
        sys::unlink(index.as_fd(), &name)?;
        node.state.lock().more_links = None;
        Ok(true)
    }
}
