//! The files of a level as a tree: which directories are open, which names are looked for, and the
//! rows that this makes.
//!
//! A directory is read when it is opened, and all of them when names are looked for. What is open stays
//! open on another level.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use crate::cli::explore::scroll::{Motion, Scroll};
use crate::service::{Explorer, Kind, LevelFile, Result, glob};

/// Which files are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All that the level has.
    #[default]
    All,
    /// What the level changes.
    Changes,
}

/// A line of the tree.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) file: Rc<LevelFile>,
    /// How many directories it is in.
    pub(crate) depth: usize,
    pub(crate) is_open: bool,
}

impl Row {
    pub(crate) fn path(&self) -> &[u8] {
        &self.file.file.path
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.file.file.kind == Kind::Directory
    }
}

/// Names that are looked for.
#[derive(Debug, Default)]
struct Filter {
    pattern: String,
    /// The level and the scope that were looked through; none if nobody has looked yet.
    looked_through: Option<(usize, Scope)>,
    /// Paths with such a name.
    found: HashSet<Vec<u8>>,
    /// The directories that these are in.
    above: HashSet<Vec<u8>>,
}

/// The tree.
#[derive(Debug, Default)]
pub(crate) struct Files {
    level: usize,
    scope: Scope,
    opened: HashSet<Vec<u8>>,
    filter: Option<Filter>,
    /// What was read of this level.
    known: HashMap<Vec<u8>, Rc<[Rc<LevelFile>]>>,
    rows: Vec<Row>,
    scroll: Scroll,
}

const ROOT: &[u8] = b"/";

impl Files {
    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(crate) fn scroll(&self) -> Scroll {
        self.scroll
    }

    pub(crate) const fn scope(&self) -> Scope {
        self.scope
    }

    /// Returns the names that are looked for.
    pub(crate) fn pattern(&self) -> Option<&str> {
        self.filter.as_ref().map(|filter| filter.pattern.as_str())
    }

    /// Returns the row with the cursor.
    pub(crate) fn selected(&self) -> Option<&Row> {
        self.rows.get(self.scroll.cursor)
    }

    pub(crate) fn step(&mut self, motion: Motion) {
        self.scroll.step(motion, self.rows.len());
    }

    /// Shows so many rows.
    pub(crate) fn fit(&mut self, height: usize) {
        self.scroll.fit(height, self.rows.len());
    }

    /// Shows all files or only changes, whichever it is not now.
    pub(crate) fn turn_scope(&mut self) {
        self.scope = match self.scope {
            Scope::All => Scope::Changes,
            Scope::Changes => Scope::All,
        };
    }

    /// Looks for names; an empty pattern for none.
    pub(crate) fn look_for(&mut self, pattern: String) {
        let filter = |pattern| Filter { pattern, ..Filter::default() };
        self.filter = Some(pattern).filter(|pattern| !pattern.is_empty()).map(filter);
    }

    /// Opens the directory with the cursor, or goes to the first file in it.
    pub(crate) fn enter(&mut self) {
        match self.selected() {
            Some(row) if row.is_open => self.step(Motion::Down),
            Some(row) if row.is_directory() => drop(self.opened.insert(row.path().to_vec())),
            _ => {}
        }
    }

    /// Closes the directory with the cursor, or goes to the one that the file is in.
    pub(crate) fn leave(&mut self) {
        let Some(row) = self.selected() else { return };
        if row.is_open {
            let path = row.path().to_vec();
            self.opened.remove(&path);
        } else if let Some(parent) = parent(row.path()).map(<[u8]>::to_vec) {
            self.go_to(&parent);
        }
    }

    /// Opens or closes the directory with the cursor.
    pub(crate) fn turn(&mut self) {
        match self.selected() {
            Some(row) if row.is_open => self.leave(),
            _ => self.enter(),
        }
    }

    /// Makes the rows anew, after a level was chosen or something was opened. The cursor goes to the
    /// first name that was looked for; else it stays on its file, or goes to the nearest directory above.
    pub(crate) fn refresh(&mut self, explorer: &mut Explorer, level: usize) -> Result<()> {
        if self.level != level {
            self.known.clear();
            self.level = level;
        }
        let selected = self.selected().map(|row| row.path().to_vec());
        self.rows.clear();
        let is_new = self.filter.as_ref().is_some_and(|filter| filter.looked_through.is_none());
        self.search(explorer)?;
        let mut rows = Vec::new();
        let mut pending = self.below(explorer, ROOT, 0, false)?;
        while let Some((depth, file, is_inside)) = pending.pop() {
            let path = &file.file.path;
            let is_open = file.file.kind == Kind::Directory && self.opened.contains(path);
            if is_open {
                let is_found = self.filter.as_ref().is_some_and(|it| it.found.contains(path));
                pending.extend(self.below(explorer, path, depth + 1, is_inside || is_found)?);
            }
            rows.push(Row { file, depth, is_open });
        }
        self.rows = rows;
        let is_found = |row: &Row| {
            self.filter.as_ref().is_some_and(|filter| filter.found.contains(row.path()))
        };
        match (self.rows.iter().position(is_found), selected) {
            (Some(first), _) if is_new => self.scroll.cursor = first,
            (_, Some(path)) => self.go_to(&path),
            (_, None) => {}
        }
        Ok(())
    }

    /// Returns what is shown of a directory, the last name first, with how deep it is and whether it is
    /// in a directory that was looked for.
    fn below(
        &mut self,
        explorer: &mut Explorer,
        dir: &[u8],
        depth: usize,
        is_inside: bool,
    ) -> Result<Vec<(usize, Rc<LevelFile>, bool)>> {
        let files = self.list(explorer, dir)?;
        let is_shown = |file: &&Rc<LevelFile>| {
            let path = &file.file.path;
            self.is_in_scope(file)
                && self.filter.as_ref().is_none_or(|filter| {
                    is_inside || filter.found.contains(path) || filter.above.contains(path)
                })
        };
        let shown = files.iter().rev().filter(is_shown);
        Ok(shown.map(|file| (depth, Rc::clone(file), is_inside)).collect())
    }

    fn is_in_scope(&self, file: &LevelFile) -> bool {
        self.scope == Scope::All || file.change.is_some()
    }

    fn list(&mut self, explorer: &mut Explorer, dir: &[u8]) -> Result<Rc<[Rc<LevelFile>]>> {
        if let Some(known) = self.known.get(dir) {
            return Ok(Rc::clone(known));
        }
        let files: Rc<[_]> = explorer.list(self.level, dir)?.into_iter().map(Rc::new).collect();
        self.known.insert(dir.to_vec(), Rc::clone(&files));
        Ok(files)
    }

    /// Finds the names that are looked for, and opens the directories that they are in.
    fn search(&mut self, explorer: &mut Explorer) -> Result<()> {
        let place = Some((self.level, self.scope));
        let Some(filter) = self.filter.as_ref().filter(|filter| filter.looked_through != place)
        else {
            return Ok(());
        };
        let pattern = filter.pattern.clone();
        let is_new = filter.looked_through.is_none();
        let (mut found, mut above) = (HashSet::new(), HashSet::new());
        let mut pending = vec![ROOT.to_vec()];
        while let Some(dir) = pending.pop() {
            let files = self.list(explorer, &dir)?;
            for file in files.iter().filter(|file| self.is_in_scope(file)) {
                let path = &file.file.path;
                if fits(&pattern, path, file.file.name()) {
                    found.insert(path.clone());
                    above.extend(directories_above(path).map(<[u8]>::to_vec));
                }
                if file.file.kind == Kind::Directory {
                    pending.push(path.clone());
                }
            }
        }
        if is_new {
            self.opened.extend(above.iter().cloned());
        }
        self.filter = Some(Filter { pattern, looked_through: place, found, above });
        Ok(())
    }

    /// Puts the cursor on a path, or on the nearest directory above it that has a row.
    fn go_to(&mut self, path: &[u8]) {
        let row_of = |path: &[u8]| self.rows.iter().position(|row| row.path() == path);
        let mut places = std::iter::once(path).chain(directories_above(path));
        if let Some(row) = places.find_map(row_of) {
            self.scroll.cursor = row;
        }
    }
}

/// Returns the directory that a path is in; none where that is the root.
fn parent(path: &[u8]) -> Option<&[u8]> {
    let end = path.iter().rposition(|byte| *byte == b'/')?;
    path.get(..end).filter(|parent| !parent.is_empty())
}

/// Returns the directories that a path is in, the nearest first, without the root.
fn directories_above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(parent(path), |path| parent(path))
}

/// Tells whether a file is looked for: a pattern with `*`, `?` or `[` is one of the shell, any other a
/// part of the name; one with a slash is about the path. Upper and lower case are alike.
fn fits(pattern: &str, path: &[u8], name: &[u8]) -> bool {
    let pattern = pattern.to_ascii_lowercase().into_bytes();
    let text = if pattern.contains(&b'/') { path } else { name }.to_ascii_lowercase();
    if pattern.iter().any(|byte| b"*?[".contains(byte)) {
        return glob(&pattern, &text);
    }
    text.windows(pattern.len()).any(|part| part == pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_a_part_or_a_pattern() {
        for (pattern, path, expected) in [
            ("conf", "/etc/nginx.CONF", true),
            ("CONF", "/etc/conf.d", true),
            ("conf", "/conf/x", false),
            ("f/x", "/conf/x", true),
            ("*.conf", "/etc/a.conf", true),
            ("*.conf", "/etc/a.conf2", false),
            ("?", "/etc/a", true),
            ("/etc/*", "/etc/a/b", true),
            ("a", "/", false),
        ] {
            let name = path.rsplit('/').next().unwrap();
            assert_eq!(
                fits(pattern, path.as_bytes(), name.as_bytes()),
                expected,
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn directories_above_end_below_the_root() {
        let above: Vec<_> = directories_above(b"/a/b/c").collect();
        assert_eq!(above, [&b"/a/b"[..], b"/a"]);
        assert_eq!(directories_above(b"/a").count(), 0);
        assert_eq!(directories_above(b"").count(), 0);
    }
}
