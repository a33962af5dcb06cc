//! Handles: finding a file by nothing but its number.
//!
//! The kernel makes handles of files (`name_to_handle_at`) from numbers that it was told, and may ask
//! for one long after it has forgotten the file. What an image has is found by its number; for what is
//! only in the upper, or in plain directories, these are walked until it is met.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::layer::Kind;
use crate::overlay::error::{Error, Result};
use crate::overlay::place::Place;
use crate::overlay::upper::Child;
use crate::overlay::{Ino, LowerId, Overlay};
use crate::sys::Stat;

/// What is walked to find a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Directories in the upper, and what it has in them.
    Upper,
    /// All that the union shows.
    Union,
}

/// Returns what tells a file of the upper from one that had its inode before: when it was made.
fn generation_of(stat: &Stat) -> u32 {
    let Some(born) = stat.born else { return 0 };
    let seconds = born.secs.to_le_bytes();
    let low = u32::from_le_bytes([seconds[0], seconds[1], seconds[2], seconds[3]]);
    // Nanoseconds need 30 bits: two files of one inode are hardly made 2^30 seconds apart.
    (low << 30 ^ low >> 2 ^ born.nanos) | 1
}

impl Overlay {
    /// Returns what tells a file that the upper has from earlier ones with its number; 0 for one that
    /// has the number of a lower file.
    pub(crate) fn generation(&self, ino: Ino, stat: &Stat) -> u32 {
        if ino == self.upper_ino(stat.ino) { generation_of(stat) } else { 0 }
    }

    /// Returns where the union shows what has a number, whether the kernel knows it or not.
    ///
    /// # Errors
    /// [`Error::Stale`] when nothing has it, or not any more.
    pub(crate) fn place_by_number(&self, ino: Ino) -> Result<Place> {
        if ino == Ino::ROOT || self.upper.is_none() && self.lower.knows_all_names() {
            return self.place(ino);
        }
        if let Some(node) = self.nodes.get(ino) {
            let gone = node.state.lock().gone;
            return if gone { Err(Error::Stale(ino.0)) } else { Ok(Place::Node(node)) };
        }
        if let Some(place) = self.by_lower_names(ino)? {
            return Ok(place);
        }
        let extents: &[Extent] = match (&self.upper, self.lower.knows_all_names()) {
            (_, true) => &[Extent::Upper],
            (Some(_), false) => &[Extent::Upper, Extent::Union],
            (None, false) => &[Extent::Union],
        };
        for extent in extents {
            if let Some(place) = self.search(ino, *extent)? {
                return Ok(place);
            }
        }
        Err(Error::Stale(ino.0))
    }

    /// Returns the place of the directory above a directory.
    pub(crate) fn place_above(&self, ino: Ino) -> Result<Place> {
        let place = self.place_by_number(ino)?;
        let lower = match &place {
            Place::Node(node) if node.ino == Ino::ROOT => return Ok(place),
            Place::Node(node) => {
                if let Some(name) = node.state.lock().names.first() {
                    return Ok(Place::Node(Arc::clone(&name.dir)));
                }
                node.lower.ok_or(Error::Stale(ino.0))?
            }
            Place::Lower(found) => found.id,
        };
        let above = self.lower.names(lower)?.into_iter().next();
        let (above, _) = above.ok_or(Error::Stale(ino.0))?;
        self.dir_of_lower(above)?.ok_or(Error::Stale(ino.0))
    }

    /// Looks under the names that the lower has of a file with this number.
    pub(crate) fn by_lower_names(&self, ino: Ino) -> Result<Option<Place>> {
        let id = ino.0.checked_sub(1).map(LowerId);
        let Some(id) = id.filter(|id| self.lower.contains(*id)) else { return Ok(None) };
        for (dir, name) in self.lower.names(id)? {
            let Some(dir) = self.dir_of_lower(dir)? else { continue };
            if let Some(child) = self.child_if_any(&dir, &name)?
                && self.ino(&child) == ino
            {
                return Ok(Some(child));
            }
        }
        Ok(None)
    }

    /// Walks until something with this number is met.
    fn search(&self, ino: Ino, extent: Extent) -> Result<Option<Place>> {
        let mut pending = vec![Place::Node(Arc::clone(&self.root))];
        let mut found = Ok(None);
        while let Some(dir) = pending.pop() {
            if let Ok(None) = found {
                found = self.search_dir(&dir, ino, extent, &mut pending);
            }
        }
        found
    }

    /// Looks through one directory, and notes those in it.
    fn search_dir(
        &self,
        dir: &Place,
        ino: Ino,
        extent: Extent,
        pending: &mut Vec<Place>,
    ) -> Result<Option<Place>> {
        for name in self.names_to_search(dir, extent)? {
            let Some(child) = self.child_if_any(dir, &name)? else { continue };
            if self.ino(&child) == ino {
                return Ok(Some(child));
            }
            if self.kind(&child)? == Kind::Directory {
                pending.push(child);
            }
        }
        Ok(None)
    }

    pub(crate) fn names_to_search(&self, dir: &Place, extent: Extent) -> Result<HashSet<OsString>> {
        let mut names = HashSet::new();
        if let Place::Node(node) = dir
            && node.is_in_upper()
        {
            for name in self.sorted_upper_names(node)? {
                if matches!(self.upper_child(node, &name)?, Child::There(_)) {
                    names.insert(name);
                }
            }
        }
        let lower = match dir {
            Place::Lower(found) => Some(found.id),
            Place::Node(node) => node.lower,
        };
        if let (Some(lower), Extent::Union) = (lower, extent) {
            self.lower.entries(lower, 0, &mut |entry| {
                names.insert(entry.name.to_owned());
                ControlFlow::Continue(())
            })?;
        }
        Ok(names)
    }

    /// Returns what has a name, unless nobody may have it.
    pub(crate) fn child_if_any(&self, dir: &Place, name: &OsStr) -> Result<Option<Place>> {
        match self.child(dir, name) {
            Err(error) if error.refused_kind().is_some() => Ok(None),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::overlay::tests::mounted;
    use crate::overlay::{Attempt, Caller, NewFile, Rename, SetAttr};

    const CALLER: Caller = Caller { uid: 0, gid: 0, umask: 0 };

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["low/d/sub", "upper", "work"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        for name in ["a", "b", "d/in", "d/sub/deep"] {
            fs::write(folder.path().join("low").join(name), name).unwrap();
        }
        folder
    }

    /// Looks a path up, name by name.
    fn number(overlay: &Overlay, path: &str) -> Ino {
        let names = path.split('/').filter(|name| !name.is_empty());
        names.fold(Ino::ROOT, |dir, name| overlay.lookup(dir, name.as_ref()).unwrap().ino)
    }

    fn by_number(overlay: &Overlay, ino: Ino, name: &str) -> Result<Ino> {
        overlay.lookup(ino, name.as_ref()).map(|attr| attr.ino)
    }

    fn change(overlay: &Overlay) {
        let d = number(overlay, "d");
        overlay
            .make(d, "new".as_ref(), NewFile::Node(Kind::Regular, 0), 0o644, CALLER, Attempt::Only)
            .unwrap();
        let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
        overlay.setattr(number(overlay, "a"), set).unwrap();
        let root = Ino::ROOT;
        overlay
            .rename((root, "a".as_ref()), (d, "moved".as_ref()), Rename::Replace, Attempt::Only)
            .unwrap();
        overlay
            .rename((root, "d".as_ref()), (root, "e".as_ref()), Rename::Replace, Attempt::Only)
            .unwrap();
    }

    const SHOWN: [&str; 7] = ["b", "e", "e/in", "e/sub", "e/sub/deep", "e/new", "e/moved"];

    #[test]
    fn a_number_alone_leads_to_the_file_wherever_it_is_now() {
        let folder = folder();
        change(&mounted(folder.path()));
        let overlay = mounted(folder.path());
        let attrs = SHOWN.map(|path| overlay.getattr(number(&overlay, path)).unwrap());
        for (path, attr) in SHOWN.iter().zip(attrs) {
            assert_eq!(by_number(&overlay, attr.ino, ".").unwrap(), attr.ino, "{path}");
        }
        drop(overlay);
        for (path, attr) in SHOWN.iter().zip(attrs) {
            // Nothing is known of it.
            let overlay = mounted(folder.path());
            assert_eq!(overlay.lookup(attr.ino, ".".as_ref()).unwrap(), attr, "{path}");
        }
    }

    #[test]
    fn the_directory_above_is_found_from_a_number_alone() {
        let folder = folder();
        change(&mounted(folder.path()));
        let overlay = mounted(folder.path());
        let numbers = ["", "e", "e/sub"].map(|path| number(&overlay, path));
        drop(overlay);
        for (dir, above) in [(2, 1), (1, 0), (0, 0)] {
            let overlay = mounted(folder.path());
            assert_eq!(by_number(&overlay, numbers[dir], "..").unwrap(), numbers[above]);
        }
    }

    #[test]
    fn what_is_gone_is_not_found_and_what_follows_it_is_another() {
        let folder = folder();
        let overlay = mounted(folder.path());
        change(&overlay);
        let attrs = SHOWN.map(|path| overlay.getattr(number(&overlay, path)).unwrap());
        let e = number(&overlay, "e");
        for name in ["in", "new", "moved"] {
            overlay.unlink(e, name.as_ref(), Attempt::Only).unwrap();
        }
        overlay.unlink(Ino::ROOT, "b".as_ref(), Attempt::Only).unwrap();
        drop(overlay);
        for (path, attr) in SHOWN.iter().zip(attrs) {
            let overlay = mounted(folder.path());
            let found = by_number(&overlay, attr.ino, ".");
            match *path {
                "e" | "e/sub" | "e/sub/deep" => assert_eq!(found.unwrap(), attr.ino),
                _ => assert!(matches!(found, Err(Error::Stale(_))), "{path}: {found:?}"),
            }
        }
        // A file system may give its inode to the next file.
        let overlay = mounted(folder.path());
        let attr = attrs[5];
        assert_ne!(attr.generation, 0);
        for number in 0..100 {
            let name = format!("{number}");
            let file = NewFile::Node(Kind::Regular, 0);
            let only = Attempt::Only;
            let made = overlay.make(Ino::ROOT, name.as_ref(), file, 0o644, CALLER, only).unwrap();
            assert_ne!((made.ino, made.generation), (attr.ino, attr.generation));
        }
    }

    #[test]
    fn a_file_made_without_a_name_is_found_once_it_has_one() {
        let folder = folder();
        let overlay = mounted(folder.path());
        let made = overlay.create_nameless(Ino::ROOT, 0o644, CALLER).unwrap();
        let linked = overlay.link(made.ino, Ino::ROOT, "named".as_ref(), Attempt::Only).unwrap();
        drop(overlay);
        assert_ne!(made.generation, 0);
        let overlay = mounted(folder.path());
        let found = overlay.lookup(made.ino, ".".as_ref()).unwrap();
        for attr in [linked, found] {
            assert_eq!((attr.ino, attr.generation), (made.ino, made.generation));
        }
    }
}
