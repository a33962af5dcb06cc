//! A second tree of files like one on the disk: whiteouts, marks of the overlay, hard links, holes.
//!
//! Nothing here knows what the files mean. A file need not be copied when a third tree, the base, has
//! one that is known to be the same and that nobody writes to any more: it gets another name then. The
//! tree that is copied may be changing; a file that changes while it is copied is copied again.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::layer::{WriteBack, copy_content};
use crate::sys::{
    self, DirStream, Errno, SetTime, SetXattr, Stat, Time, XattrTarget, mode, open_flags,
};

/// How often a file is copied that changes meanwhile.
const TRIES: usize = 10;
/// So many names of one file every file system allows: ext4 65,000, btrfs 65,535.
const LINKS: u64 = 60_000;

/// A file as it is at one time: while it has this inode and this time of its last change, it is the
/// same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Version {
    pub(crate) ino: u64,
    pub(crate) changed: Time,
}

impl From<&Stat> for Version {
    fn from(stat: &Stat) -> Self {
        Self { ino: stat.ino, changed: stat.ctime }
    }
}

/// A regular file that was copied, or got another name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    /// The one that there was.
    pub(crate) from: Version,
    /// The inode of the other one.
    pub(crate) to: u64,
}

/// A tree whose files may get other names.
pub(crate) struct Base<'a> {
    /// Its root.
    pub(crate) root: &'a Path,
    /// Tells whether a file that is to be copied and one of the base, in the same place, are the same.
    pub(crate) is_same: &'a dyn Fn(Version, Version) -> bool,
}

/// A directory that is being copied.
struct Open {
    /// From the root.
    path: PathBuf,
    stat: Stat,
    from: OwnedFd,
    base: Option<OwnedFd>,
    to: OwnedFd,
    /// What is still to be copied.
    names: Vec<OsString>,
}

/// What a name has become.
enum Made {
    Directory(Box<Open>),
    /// A regular file with this inode.
    File(u64),
    /// Something else, or another name of what was copied before.
    Other,
}

struct Copier<'a> {
    base: Option<&'a Base<'a>>,
    to: OwnedFd,
    /// Where a file with several names was copied to first.
    firsts: HashMap<Version, PathBuf>,
    pairs: Vec<Pair>,
}

/// Copies what is in a directory, and its attributes, into an empty directory on the same file
/// system. Returns the regular files, each once.
pub(crate) fn copy_tree(from: &Path, to: &Path, base: Option<&Base<'_>>) -> sys::Result<Vec<Pair>> {
    // Each directory on the way to a file takes three.
    sys::raise_open_files_limit()?;
    let from = sys::open_dir_path(from)?;
    let to = sys::open_dir_path(to)?;
    let root = Open {
        path: PathBuf::new(),
        stat: sys::fstat(from.as_fd())?,
        base: base.map(|base| sys::open_dir_path(base.root)).transpose()?,
        names: DirStream::new(&from)?.names()?,
        from,
        to: sys::dup(to.as_fd())?,
    };
    let mut copier = Copier { base, to, firsts: HashMap::new(), pairs: Vec::new() };
    let mut open = vec![root];
    while let Some(dir) = open.last_mut() {
        match dir.names.pop() {
            Some(name) => {
                let below = copier.copy_name(dir, name)?;
                open.extend(below);
            }
            None => {
                let (from, to) = (dir.from.as_fd(), dir.to.as_fd());
                describe(XattrTarget::Fd(from), &dir.stat, &dir.to, XattrTarget::Fd(to))?;
                open.pop();
            }
        }
    }
    Ok(copier.pairs)
}

impl Copier<'_> {
    /// Copies what has a name; a directory is to be filled then.
    fn copy_name(&mut self, dir: &Open, name: OsString) -> sys::Result<Option<Open>> {
        let mut left = TRIES;
        // What is removed meanwhile is not there.
        while let Some(stat) = sys::stat_if_exists(dir.from.as_fd(), &name)? {
            let made = match self.copy_one(dir, &name, &stat) {
                Ok(Made::Directory(below)) => return Ok(Some(*below)),
                made => made,
            };
            left -= 1;
            let now = sys::stat_if_exists(dir.from.as_fd(), &name)?;
            if left == 0 || now.is_some_and(|now| Version::from(&now) == Version::from(&stat)) {
                self.note(&made?, &stat, dir.path.join(&name));
                return Ok(None);
            }
            unlink_if_exists(dir, &name)?;
        }
        Ok(None)
    }

    fn note(&mut self, made: &Made, stat: &Stat, path: PathBuf) {
        if let Made::File(to) = made {
            self.pairs.push(Pair { from: stat.into(), to: *to });
        }
        if stat.nlink > 1 {
            self.firsts.entry(stat.into()).or_insert(path);
        }
    }

    fn copy_one(&self, dir: &Open, name: &OsStr, stat: &Stat) -> sys::Result<Made> {
        let (from, to) = (dir.from.as_fd(), dir.to.as_fd());
        if stat.is_dir() {
            return copy_dir(dir, name, stat).map(|open| Made::Directory(Box::new(open)));
        }
        if let Some(first) = self.firsts.get(&stat.into()) {
            sys::link(self.to.as_fd(), first.as_os_str(), to, name)?;
            return Ok(Made::Other);
        }
        if let Some(inode) = self.link_base(dir, name, stat)? {
            return Ok(Made::File(inode));
        }
        let copy = match stat.mode & mode::TYPE {
            mode::REGULAR => {
                let file = sys::open(from, name, open_flags::READ_UNSEEN, 0)?;
                let copy = sys::open(to, name, open_flags::CREATE_NEW, 0o600)?;
                copy_content(file.as_fd(), copy.as_fd(), stat.size, WriteBack::Early)?;
                copy
            }
            mode::SYMLINK => {
                sys::symlink(&sys::read_link(from, name)?, to, name)?;
                sys::open_path(to, name)?
            }
            kind => {
                sys::make_node(to, name, kind | 0o600, stat.rdev)?;
                sys::open_path(to, name)?
            }
        };
        describe(XattrTarget::At(from, name), stat, &copy, XattrTarget::At(to, name))?;
        match stat.is_regular() {
            true => Ok(Made::File(sys::fstat(copy.as_fd())?.ino)),
            false => Ok(Made::Other),
        }
    }

    /// Gives a regular file of the base another name, if it is the same; tells its inode.
    fn link_base(&self, dir: &Open, name: &OsStr, stat: &Stat) -> sys::Result<Option<u64>> {
        let (Some(base), Some(base_dir), true) = (self.base, &dir.base, stat.is_regular()) else {
            return Ok(None);
        };
        let known = sys::stat_if_exists(base_dir.as_fd(), name)?;
        let Some(known) = known.filter(Stat::is_regular) else { return Ok(None) };
        // All names of a file have to fit beside those that the base has of it.
        if !(base.is_same)(stat.into(), (&known).into()) || known.nlink + stat.nlink > LINKS {
            return Ok(None);
        }
        match sys::link(base_dir.as_fd(), name, dir.to.as_fd(), name) {
            Ok(()) => Ok(Some(known.ino)),
            // It has as many names as the file system allows.
            Err(error) if error.errno() == Errno::EMLINK => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn copy_dir(dir: &Open, name: &OsStr, stat: &Stat) -> sys::Result<Open> {
    let from = sys::open(dir.from.as_fd(), name, open_flags::DIRECTORY, 0)?;
    let names = DirStream::new(&from)?.names()?;
    let base = match &dir.base {
        Some(base) => sys::stat_if_exists(base.as_fd(), name)?
            .filter(Stat::is_dir)
            .map(|_| sys::open(base.as_fd(), name, open_flags::DIRECTORY, 0))
            .transpose()?,
        None => None,
    };
    sys::make_dir(dir.to.as_fd(), name, 0o700)?;
    let to = sys::open(dir.to.as_fd(), name, open_flags::DIRECTORY, 0)?;
    Ok(Open { path: dir.path.join(name), stat: *stat, from, base, to, names })
}

/// Gives a copy owner, extended attributes, permissions and times.
fn describe(
    from: XattrTarget<'_>,
    stat: &Stat,
    copy: &OwnedFd,
    to: XattrTarget<'_>,
) -> sys::Result<()> {
    // Changing the owner takes capabilities and the set-uid bit away, so it comes first.
    sys::chown(copy.as_fd(), Some(stat.uid), Some(stat.gid))?;
    for name in sys::list_xattr(from)? {
        let Some(value) = sys::xattr_if_set(from, &name)? else { continue };
        match sys::set_xattr(to, &name, &value, SetXattr::Any) {
            // The system gives some to every file, and only it may.
            Err(_) if sys::xattr_if_set(to, &name)?.as_ref() == Some(&value) => {}
            other => other?,
        }
    }
    if stat.mode & mode::TYPE != mode::SYMLINK {
        sys::chmod(copy.as_fd(), stat.mode & mode::PERMISSIONS)?;
    }
    sys::set_times(copy.as_fd(), SetTime::To(stat.atime), SetTime::To(stat.mtime))
}

fn unlink_if_exists(dir: &Open, name: &OsStr) -> sys::Result<()> {
    match sys::unlink(dir.to.as_fd(), name) {
        Err(error) if error.errno() == Errno::ENOENT => Ok(()),
        other => other,
    }
}
