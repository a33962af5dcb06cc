//! Where a name is: in the upper, in the lower, in both, or hidden.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use crate::layer::Kind;
use crate::overlay::error::{Error, Result};
use crate::overlay::lower::{LowerFound, LowerId};
use crate::overlay::node::{DirState, Node, State};
use crate::overlay::place::Place;
use crate::overlay::upper::{Child, Marks, Upper};
use crate::overlay::{Attr, Ino, Overlay, Redirects};
use crate::sys::Stat;

impl Overlay {
    /// Returns the attributes of `name` in a directory. The kernel now knows the inode, until
    /// [`Overlay::forget`].
    ///
    /// `.` is what has the number itself, a directory or not, and `..` the directory above: so the
    /// kernel asks for what it has a handle of and has forgotten.
    pub fn lookup(&self, dir: Ino, name: &OsStr) -> Result<Attr> {
        let place = match name.as_bytes() {
            b"." => self.place_by_number(dir)?,
            b".." => self.place_above(dir)?,
            _ => {
                let seen = self.child_seen(&self.dir_place(dir)?, name, |_| true)?;
                let (place, shown) = seen.ok_or(Error::NotFound)?;
                let attr = self.attr_seen(&place, shown)?;
                self.remember(&place);
                return Ok(attr);
            }
        };
        let attr = self.attr_of(&place)?;
        self.remember(&place);
        Ok(attr)
    }

    /// Notes that the kernel was told of a file.
    pub(crate) fn remember(&self, place: &Place) {
        if !self.counts_lookups() {
            return;
        }
        let (is_new, lower) = match place {
            Place::Lower(LowerFound { id, .. }) => {
                (self.nodes.remember(self.ino_of(*id), None), Some(*id))
            }
            Place::Node(node) => (self.nodes.remember(node.ino, Some(node)), node.lower),
        };
        if let Some(id) = lower.filter(|_| is_new) {
            self.lower.keep(id);
        }
    }

    /// Returns the place of a directory.
    pub(crate) fn dir_place(&self, ino: Ino) -> Result<Place> {
        let place = self.place(ino)?;
        match self.kind(&place)? {
            Kind::Directory => Ok(place),
            _ => Err(Error::NotDirectory),
        }
    }

    /// Returns what has this name in a directory; none if nothing has, or it is hidden.
    pub(crate) fn child(&self, dir: &Place, name: &OsStr) -> Result<Option<Place>> {
        self.child_if(dir, name, |_| true)
    }

    /// Returns what has this name in a directory if it is in the lower or `wanted`, by what it is in
    /// the upper.
    fn child_if(
        &self,
        dir: &Place,
        name: &OsStr,
        wanted: impl FnOnce(&Stat) -> bool,
    ) -> Result<Option<Place>> {
        Ok(self.child_seen(dir, name, wanted)?.map(|(place, _)| place))
    }

    /// Does the same, and returns the attributes that it shows, if it is in the upper: they were read.
    pub(crate) fn child_seen(
        &self,
        dir: &Place,
        name: &OsStr,
        wanted: impl FnOnce(&Stat) -> bool,
    ) -> Result<Option<(Place, Option<Stat>)>> {
        let in_lower = |below| Ok(self.lower_child(below, name)?.map(|place| (place, None)));
        let node = match dir {
            Place::Lower(found) => return in_lower(Some(found.id)),
            Place::Node(node) => node,
        };
        match self.upper_child(node, name)? {
            Child::There(stat) if wanted(&stat) => {
                let (node, shown) = self.node_seen(node, name, stat)?;
                Ok(Some((Place::Node(node), Some(shown))))
            }
            Child::There(_) | Child::Whiteout => Ok(None),
            Child::Nothing => in_lower(node.lower),
        }
    }

    /// Returns what the lower has under a name.
    pub(crate) fn lower_child(&self, dir: Option<LowerId>, name: &OsStr) -> Result<Option<Place>> {
        let Some(found) = self.lower_lookup(dir, name)? else { return Ok(None) };
        match self.place_of(found) {
            Place::Lower(found)
                if self.upper.is_some() && self.lower.has_unknown_names(found.id)? =>
            {
                let indexed = self.node_in_index(&found)?;
                Ok(Some(indexed.map_or(Place::Lower(found), Place::Node)))
            }
            place => Ok(Some(place)),
        }
    }

    /// Returns what the upper says of a name.
    pub(crate) fn upper_child(&self, dir: &Arc<Node>, name: &OsStr) -> Result<Child> {
        let (in_upper, gone, state) = {
            let state = dir.state.lock();
            (state.upper.is_some(), state.gone, state.dir)
        };
        if gone {
            return Ok(Child::Whiteout);
        }
        if !in_upper {
            return Ok(Child::Nothing);
        }
        let fd = self.dir_fd(dir)?;
        self.writable_or_seen()?.child(fd.as_fd(), name, state.xattr_whiteouts)
    }

    /// Tells whether the lower has something under a name, whatever the upper says.
    pub(crate) fn lower_has(&self, dir: Option<LowerId>, name: &OsStr) -> Result<bool> {
        match self.lower_lookup(dir, name) {
            Ok(found) => Ok(found.is_some()),
            // It is there, though nobody may have it.
            Err(error) => error.refused_kind().map(|_| true).ok_or(error),
        }
    }

    /// Returns what the lower has under a name in a directory that it may have, whatever the upper says.
    pub(crate) fn lower_lookup(
        &self,
        dir: Option<LowerId>,
        name: &OsStr,
    ) -> Result<Option<LowerFound>> {
        dir.map_or(Ok(None), |dir| self.lower.lookup(dir, name))
    }

    /// Returns the node of what the upper has under a name.
    pub(crate) fn node_in_upper(
        &self,
        dir: &Arc<Node>,
        name: &OsStr,
        stat: Stat,
    ) -> Result<Arc<Node>> {
        Ok(self.node_seen(dir, name, stat)?.0)
    }

    /// Does the same, and returns the attributes that the file shows, of those that it has.
    fn node_seen(&self, dir: &Arc<Node>, name: &OsStr, stat: Stat) -> Result<(Arc<Node>, Stat)> {
        let upper = self.writable_or_seen()?;
        let marks = if may_have_marks(upper, dir, &stat) || upper.shows_marks(&stat) {
            let fd = self.dir_fd(dir)?;
            upper.marks(fd.as_fd(), name)?
        } else {
            Marks::default()
        };
        let shown = upper.shown(stat, &marks);
        let kind = Kind::of(shown.mode);
        let numbered =
            |found: Option<LowerFound>| (found.as_ref().map(|it| self.ino_of(it.id)), found);
        let (number, lower) = match kind {
            Kind::Directory => numbered(self.merged_below(dir, name, &marks)?),
            _ if self.lower.knows_all_names() => {
                numbered(self.origin(dir, name, &marks)?.map(LowerFound::known))
            }
            _ => self.origin_by_name(dir, name, &marks)?,
        };
        let has_lower = lower.is_some();
        if kind == Kind::Regular && marks.metacopy && !has_lower && stat.size > 0 {
            // The file itself is a hole.
            return Err(Error::NoContent);
        }
        let links = marks.links.filter(|_| upper.has_index());
        let state = State {
            content_in_lower: marks.metacopy && has_lower,
            more_links: links.map(|kept| kept.more_than(stat.nlink)),
            dir: DirState {
                xattr_whiteouts: marks.xattr_whiteouts,
                impure: marks.impure,
                ..DirState::default()
            },
            ..State::default()
        };
        let node = self.node_with(number, (kind, &stat), lower, &state, (dir, name))?;
        // The place will say something else when what has the number now is gone.
        let is_put_off = kind != Kind::Directory && marks.origin.is_some() && number.is_none();
        if is_put_off && !node.state.lock().number.is_noted() {
            self.number_otherwise(&node, stat.ino)?;
        }
        Ok((node, shown))
    }

    /// Returns the node of a file that the upper has under a name.
    pub(crate) fn node_with(
        &self,
        number: Option<Ino>,
        (kind, stat): (Kind, &Stat),
        lower: Option<LowerFound>,
        rest: &State,
        (dir, name): (&Arc<Node>, &OsStr),
    ) -> Result<Arc<Node>> {
        let own = self.upper_ino(stat.ino);
        let by_place = number.unwrap_or(own);
        let given = self.again.as_ref().and_then(|again| again.number(stat.ino));
        let mut ino = given.unwrap_or(by_place);
        let state = |ino| State {
            upper: Some(stat.ino),
            generation: self.generation(ino, stat),
            content_in_lower: rest.content_in_lower,
            more_links: rest.more_links,
            has_no_capability: rest.has_no_capability,
            dir: rest.dir,
            ..State::default()
        };
        let node = loop {
            let make = || Node::new(ino, kind, lower.clone(), state(ino));
            let node = self.nodes.get_or_make(ino, make);
            if is_incarnation(&node, kind, stat.ino, rest.content_in_lower) {
                break node;
            }
            // Another file has the number that this one should have.
            ino = if ino == own { self.spare_ino() } else { own };
        };
        if ino != by_place && !node.state.lock().number.is_noted() {
            self.number_otherwise(&node, stat.ino)?;
        }
        node.add_name(dir, name);
        Ok(node)
    }

    /// Returns the lower directory that is merged below a directory of the upper.
    fn merged_below(&self, dir: &Node, name: &OsStr, marks: &Marks) -> Result<Option<LowerFound>> {
        if marks.opaque {
            return Ok(None);
        }
        if marks.redirect.is_some() && self.refuses_redirects()? {
            // The kernel finds out only where it has to look into the lower.
            return match dir.lower {
                Some(_) => Err(Error::Refused(Kind::Directory)),
                None => Ok(None),
            };
        }
        let Some(found) = self.lower_part(dir, name, marks)? else { return Ok(None) };
        let is_dir = self.lower.kind(found.id)? == Kind::Directory;
        Ok(is_dir.then_some(found))
    }

    /// Tells whether marks that lead elsewhere are not to be followed.
    fn refuses_redirects(&self) -> Result<bool> {
        Ok(self.writable_or_seen()?.writes().redirects == Redirects::Refused)
    }

    /// Returns what the lower has of a file of the upper: where a mark says, else under the same name.
    fn lower_part(&self, dir: &Node, name: &OsStr, marks: &Marks) -> Result<Option<LowerFound>> {
        match &marks.redirect {
            Some(path) => self.lower_at(dir.lower, path),
            None => self.lower_lookup(dir.lower, name),
        }
    }

    /// Returns what a redirect leads to: a path from the root of the lower, or a name beside.
    pub(crate) fn lower_at(
        &self,
        dir: Option<LowerId>,
        path: &OsStr,
    ) -> Result<Option<LowerFound>> {
        let bytes = path.as_bytes();
        let start = if bytes.starts_with(b"/") { Some(self.lower.root()) } else { dir };
        let mut at = start.map(LowerFound::known);
        for name in bytes.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let dir = at.as_ref().map(|found| found.id);
            at = self.lower_lookup(dir, OsStr::from_bytes(name))?;
        }
        Ok(at)
    }

    /// Returns the path of a lower directory from the root of the lower.
    pub(crate) fn lower_path(&self, id: LowerId) -> Result<OsString> {
        let mut names = Vec::new();
        let mut at = id;
        while let Some((dir, name)) = self.lower.names(at)?.into_iter().next() {
            names.push(name);
            at = dir;
        }
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name.as_bytes());
        }
        Ok(OsString::from_vec(path))
    }

    /// Returns the lower file that a file of the upper was copied from, and whose number it has.
    fn origin(&self, dir: &Node, name: &OsStr, marks: &Marks) -> Result<Option<LowerId>> {
        let id = marks.origin.map(LowerId).filter(|id| self.lower.contains(*id));
        let Some(id) = id else { return Ok(None) };
        // Two files must not have one number: the lower one has to be hidden. Where the upper one
        // has its name, it is.
        for (lower_dir, lower_name) in self.lower.names(id)? {
            let here = dir.lower == Some(lower_dir) && lower_name == name;
            if !here && self.shows_lower(lower_dir, &lower_name)? {
                return Ok(None);
            }
        }
        Ok(Some(id))
    }

    /// Returns the number of a file of the upper that was copied from a lower that does not know where
    /// its files are, and that lower file if it still has the content.
    fn origin_by_name(
        &self,
        dir: &Node,
        name: &OsStr,
        marks: &Marks,
    ) -> Result<(Option<Ino>, Option<LowerFound>)> {
        if marks.metacopy && marks.redirect.is_some() && self.refuses_redirects()? {
            return Err(Error::Refused(Kind::Regular));
        }
        let beside = match (&marks.redirect, self.lower_part(dir, name, marks)?) {
            (Some(path), None) if marks.metacopy => self.lower.content_at(path)?,
            (_, beside) => beside,
        };
        let number = marks.origin.map(|id| self.ino_of(LowerId(id)));
        let is_of_it = |found: &LowerFound| marks.metacopy || marks.origin == Some(found.id.0);
        Ok((number, beside.filter(is_of_it)))
    }

    /// Returns the node of a lower file that was copied up under another of its names.
    pub(crate) fn node_in_index(&self, found: &LowerFound) -> Result<Option<Arc<Node>>> {
        let id = found.id;
        let upper = self.writable_or_seen()?;
        let Some((stat, marks)) = upper.indexed(id.0)? else { return Ok(None) };
        let state = || State {
            upper: Some(stat.ino),
            content_in_lower: marks.metacopy,
            more_links: Some(marks.links.map_or(0, |kept| kept.more_than(stat.nlink))),
            ..State::default()
        };
        let (ino, kind) = (self.ino_of(id), Kind::of(upper.shown(stat, &marks).mode));
        let node =
            self.nodes.get_or_make(ino, || Node::new(ino, kind, Some(found.clone()), state()));
        Ok(is_incarnation(&node, kind, stat.ino, marks.metacopy).then_some(node))
    }

    /// Tells whether the union shows a name of the lower.
    pub(crate) fn shows_lower(&self, dir: LowerId, name: &OsStr) -> Result<bool> {
        match self.dir_of_lower(dir)? {
            None => Ok(false),
            Some(Place::Lower(_)) => Ok(true),
            Some(Place::Node(node)) => match self.upper_child(&node, name)? {
                Child::Nothing => Ok(node.lower == Some(dir)),
                Child::Whiteout | Child::There(_) => Ok(false),
            },
        }
    }

    /// Returns where the union shows a lower directory; none if it does not.
    pub(crate) fn dir_of_lower(&self, id: LowerId) -> Result<Option<Place>> {
        let mut below = Vec::new();
        let mut at = id;
        let mut place = loop {
            match self.place_of(LowerFound::known(at)) {
                Place::Node(node) if node.state.lock().gone => return Ok(None),
                // A node says where the directory is, wherever that may be.
                Place::Node(node) => break Place::Node(node),
                Place::Lower(_) => {}
            }
            let parent = self.lower.names(at)?.into_iter().next();
            let Some((parent, name)) = parent else { return Ok(None) };
            below.push((at, name));
            at = parent;
        };
        for (id, name) in below.into_iter().rev() {
            // Nothing is asked of what is no directory, whose origin might lead back here.
            let child = self.child_if(&place, &name, Stat::is_dir)?;
            let Some(child) = child else { return Ok(None) };
            let same = match &child {
                Place::Lower(found) => found.id == id,
                Place::Node(node) => node.lower == Some(id) && node.kind == Kind::Directory,
            };
            if !same {
                return Ok(None);
            }
            place = child;
        }
        Ok(Some(place))
    }

    /// Returns the upper, to be read.
    pub(crate) fn writable_or_seen(&self) -> Result<&Upper> {
        self.upper.as_ref().ok_or(Error::ReadOnly)
    }
}

/// Tells whether a node is that of this file of the upper. A node that was only in the lower when it
/// was made becomes it.
fn is_incarnation(node: &Arc<Node>, kind: Kind, inode: u64, metacopy: bool) -> bool {
    match node.state.lock().upper {
        Some(upper) => return upper == inode,
        None if node.kind != kind => return false,
        None => {}
    }
    // It is being copied up this moment, or a crash came between its names.
    let _change = node.change.lock();
    let mut state = node.state.lock();
    if state.upper.is_none() {
        state.upper = Some(inode);
        state.content_in_lower = metacopy;
    }
    state.upper == Some(inode)
}

/// Tells whether a file of the upper can have marks that matter: a directory always, another file
/// only in a directory that has or had to do with the lower, or where a mark says its owner.
fn may_have_marks(upper: &Upper, dir: &Node, stat: &Stat) -> bool {
    stat.is_dir()
        || upper.owners().are_marks()
        || dir.lower.is_some()
        || dir.state.lock().dir.impure
}
