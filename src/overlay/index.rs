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
use crate::overlay::attempt::Attempt;
use crate::overlay::copy_up::{Need, keeping_times};
use crate::overlay::error::{Error, Result};
use crate::overlay::lower::LowerId;
use crate::overlay::node::{Name, Node};
use crate::overlay::upper::{Child, KeptLinks, Mark, Temporary};
use crate::sys::{self, Errno, XattrTarget};

/// Where an attempt notes the number of more names that follows from giving a name in the upper, and what
/// is added to it there.
const NAMED: usize = 3;
const SOME: i64 = 1 << 32;

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
        // It is found in the index from now on, and has not got the names.
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
        attempt: Attempt<'_>,
    ) -> Result<()> {
        let Some(more) = node.state.lock().more_links else { return Ok(()) };
        if !matches!(self.upper_child(dir, name)?, Child::Nothing) {
            // An earlier attempt may have come to the name, and not to the number.
            let noted = attempt.noted(NAMED).map(|noted| noted.cast_signed() - SOME);
            return noted.map_or(Ok(()), |more| self.shows_more(node, more));
        }
        attempt.note(NAMED, (more - 1 + SOME).cast_unsigned());
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
        // It is one of its links now.
        self.shows_more(node, more - 1)
    }

    /// Notes how many more names than links the union shows of a file of the index.
    pub(crate) fn shows_more(&self, node: &Arc<Node>, more: i64) -> Result<()> {
        node.state.lock().more_links = Some(more);
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::overlay::tests::mounted;
    use crate::overlay::{Ino, SetAttr};

    fn links(overlay: &Overlay, name: &str) -> u32 {
        overlay.lookup(Ino::ROOT, name.as_ref()).unwrap().nlink
    }

    /// Mounts a folder whose lower has a file with the names `one` and `two`, of which the first is copied up.
    fn copied() -> (tempfile::TempDir, Overlay, Ino) {
        let folder = tempfile::tempdir().unwrap();
        for dir in ["low", "upper", "work"] {
            fs::create_dir(folder.path().join(dir)).unwrap();
        }
        fs::write(folder.path().join("low/one"), "content").unwrap();
        fs::hard_link(folder.path().join("low/one"), folder.path().join("low/two")).unwrap();
        let overlay = mounted(folder.path());
        let ino = overlay.lookup(Ino::ROOT, "one".as_ref()).unwrap().ino;
        let mode = Some(0o600);
        overlay.setattr(ino, SetAttr { mode, ..SetAttr::default() }).unwrap();
        (folder, overlay, ino)
    }

    #[test]
    fn regression_names_half_counted_by_one_server_are_counted_by_the_next() {
        let (_folder, overlay, ino) = copied();
        let node = overlay.nodes.get(ino).unwrap();
        let kept = || {
            let number = node.lower.unwrap().0;
            overlay.changeable().unwrap().indexed(number).unwrap().unwrap().1.links
        };
        let before = kept();
        overlay.note_links(overlay.open_node(&node).unwrap().0.as_fd(), KeptLinks::All(2)).unwrap();
        // What a mount does first, and who goes on with one.
        overlay.finish_links().unwrap();
        assert!(matches!(before, Some(KeptLinks::More(_))), "{before:?}");
        assert_eq!(kept(), before);
    }

    #[test]
    fn regression_a_copy_that_was_cut_short_has_lost_no_names() {
        let (folder, overlay, ino) = copied();
        assert_eq!((links(&overlay, "one"), links(&overlay, "two")), (2, 2));
        // It was in the index, and came to have no name in the upper.
        let copy = overlay.open_node(&overlay.nodes.get(ino).unwrap()).unwrap().0;
        overlay.note_links(copy.as_fd(), KeptLinks::All(2)).unwrap();
        fs::remove_file(folder.path().join("upper/one")).unwrap();
        drop(overlay);
        let overlay = mounted(folder.path());
        assert_eq!((links(&overlay, "one"), links(&overlay, "two")), (2, 2));
        overlay.unlink(Ino::ROOT, "one".as_ref(), Attempt::Only).unwrap();
        assert_eq!(links(&overlay, "two"), 1);
        drop(overlay);
        assert_eq!(links(&mounted(folder.path()), "two"), 1);
    }
}
