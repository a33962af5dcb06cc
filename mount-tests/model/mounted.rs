//! The overlay, driven as the kernel drives it: lookups are counted and forgotten, what is open stays
//! known.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use strata::digest::{Digest, HashingReader};
use strata::layer::{Index, Kind, LayerFiles, Limits, merge, unpack};
use strata::overlay::{
    Attempt, Attr, Caller, ChangeKind, Error, Ino, Item, NewFile, Overlay, Owners, ReadDir, Rename,
    SetAttr, SetXattr, Sync, UpperDirs, Writes,
};
use strata::sys::{SetTime, Time};

use crate::layers::{Objects, extract, tar_of};
use crate::op::{Answer, LATEST, LowerFile, Op, Tree, describe, name_of, text, xattr_name};
use crate::stack::Stack;

const CALLER: Caller = Caller { uid: 0, gid: 0, umask: 0 };

/// A file that a program has open: the kernel knows it for so long.
struct Handle {
    ino: Ino,
    known: Vec<Ino>,
}

pub(crate) struct Mounted {
    folder: tempfile::TempDir,
    owners: Owners,
    pub(crate) stack: Stack,
    pub(crate) layers: Vec<File>,
    pub(crate) chain: File,
    overlay: Option<Overlay>,
    handles: [Option<Handle>; 4],
    known: Vec<Ino>,
}

fn errno(error: &Error) -> &'static str {
    match error.errno().to_string().split(':').next().unwrap_or_default() {
        "ENOENT" => "ENOENT",
        "EEXIST" => "EEXIST",
        "ENOTDIR" => "ENOTDIR",
        "EISDIR" => "EISDIR",
        "ENOTEMPTY" => "ENOTEMPTY",
        "EPERM" => "EPERM",
        "EINVAL" => "EINVAL",
        "ENODATA" => "ENODATA",
        other => panic!("{other}: {error}"),
    }
}

impl Mounted {
    pub(crate) fn new(lower: &[Vec<LowerFile>], stack: Stack, owners: Owners) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for dir in ["upper", "work", "objects"] {
            fs::create_dir(folder.path().join(dir)).expect("a folder");
        }
        let mut objects = Objects(folder.path().join("objects"));
        let file = || tempfile::tempfile().expect("a file");
        let layers: Vec<File> = lower
            .iter()
            .map(|layer| {
                let files = LayerFiles { index: file(), recipe: file() };
                unpack(&tar_of(layer)[..], files, &mut objects).expect("a layer").files.index
            })
            .collect();
        let indexes: Vec<_> =
            layers.iter().map(|file| Index::open(file).expect("an index")).collect();
        let chain = merge(&indexes, Limits::NONE, file()).expect("a chain");
        for (number, layer) in lower.iter().enumerate().filter(|_| stack == Stack::Dirs) {
            extract(layer, &folder.path().join(format!("layer-{number}")), number);
        }
        let mut this = Self {
            folder,
            owners,
            stack,
            layers,
            chain,
            overlay: None,
            handles: [const { None }; 4],
            known: Vec::new(),
        };
        // The root of the upper is made as `strata create` makes it: like the lower's.
        fs::set_permissions(this.dir("upper"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("permissions");
        File::open(this.dir("upper"))
            .and_then(|dir| dir.set_modified(std::time::UNIX_EPOCH))
            .expect("times");
        this.remount();
        this
    }

    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn remount(&mut self) {
        let before = self.overlay.is_some().then(|| self.numbers());
        self.handles = [const { None }; 4];
        self.known.clear();
        self.overlay = None;
        let (upper, work) = (self.dir("upper"), self.dir("work"));
        let dirs = UpperDirs {
            upper: &upper,
            work: &work,
            sync: Sync::Volatile,
            owners: Some(self.owners),
            writes: Writes::ALL,
        };
        self.overlay = Some(Overlay::writable(self.lower(), dirs).expect("an overlay"));
        if let Some(before) = before {
            assert_eq!(self.numbers(), before, "inode numbers after a remount");
        }
    }

    fn overlay(&self) -> &Overlay {
        self.overlay.as_ref().expect("it is mounted")
    }

    fn lookup(&mut self, dir: Ino, name: u8) -> Result<Attr, &'static str> {
        let attr = self.overlay().lookup(dir, OsStr::new(name_of(name)));
        let attr = attr.map_err(|error| errno(&error))?;
        self.known.push(attr.ino);
        Ok(attr)
    }

    fn find(&mut self, path: &[u8]) -> Result<Ino, &'static str> {
        let mut at = Ino::ROOT;
        for name in path {
            at = self.lookup(at, *name)?.ino;
        }
        Ok(at)
    }

    fn place(&mut self, path: &[u8]) -> Result<(Ino, &'static OsStr), &'static str> {
        let (name, dir) = path.split_last().expect("no path is empty");
        let dir = self.find(dir)?;
        let attr = self.overlay().getattr(dir).map_err(|error| errno(&error))?;
        if attr.kind() != Kind::Directory {
            return Err("ENOTDIR");
        }
        Ok((dir, OsStr::new(name_of(*name))))
    }

    pub(crate) fn apply(&mut self, op: &Op) -> Answer {
        let answer = self.try_apply(op);
        for ino in std::mem::take(&mut self.known) {
            self.overlay().forget(ino, 1);
        }
        answer
    }

    fn try_apply(&mut self, op: &Op) -> Answer {
        match op {
            Op::Create(path, mode) => {
                let (dir, name) = self.place(path)?;
                let created =
                    self.overlay().create(dir, name, u32::from(*mode), CALLER, Attempt::Only);
                self.known.push(created.map_err(|error| errno(&error))?.ino);
                return Ok(String::new());
            }
            Op::Mkdir(path, mode) => return self.make(path, NewFile::Directory, *mode),
            Op::Symlink(path, target) => {
                let target = "x".repeat(1 + usize::from(*target));
                return self.make(path, NewFile::Symlink(OsStr::new(&target)), 0o777);
            }
            Op::Mkfifo(path) => return self.make(path, NewFile::Node(Kind::Fifo, 0), 0o600),
            Op::Unlink(path) => {
                let (dir, name) = self.place(path)?;
                self.lookup(dir, *path.last().expect("a name"))?;
                self.overlay().unlink(dir, name, Attempt::Only)
            }
            Op::Rmdir(path) => {
                let (dir, name) = self.place(path)?;
                self.lookup(dir, *path.last().expect("a name"))?;
                self.overlay().rmdir(dir, name, Attempt::Only)
            }
            Op::Rename(from, to) => return self.rename(from, to, Rename::Replace),
            Op::RenameNoReplace(from, to) => return self.rename(from, to, Rename::NoReplace),
            Op::Exchange(from, to) => return self.rename(from, to, Rename::Exchange),
            Op::Link(from, to) => {
                let ino = self.find(from)?;
                let attr = self.overlay().getattr(ino).map_err(|error| errno(&error))?;
                if attr.kind() == Kind::Directory {
                    return Err("EPERM");
                }
                let (dir, name) = self.place(to)?;
                let attr = self
                    .overlay()
                    .link(ino, dir, name, Attempt::Only)
                    .map_err(|error| errno(&error))?;
                self.known.push(attr.ino);
                return Ok(String::new());
            }
            Op::Open(path, truncate) => return self.open(path, *truncate),
            Op::List(path) => {
                let ino = self.find(path)?;
                return self.list(ino);
            }
            Op::Stat(path) => {
                let ino = self.find(path)?;
                return self.describe(ino).map_err(|error| errno(&error));
            }
            Op::Remount => {
                self.remount();
                return Ok(String::new());
            }
            Op::Close(_)
            | Op::Read(..)
            | Op::Write(..)
            | Op::FstatHandle(_)
            | Op::TruncateHandle(..) => return self.apply_to_handle(op),
            _ => self.set(op)?,
        }
        .map(|()| String::new())
        .map_err(|error| errno(&error))
    }

    fn set(&mut self, op: &Op) -> Result<strata::overlay::Result<()>, &'static str> {
        let (path, set) = match op {
            Op::Chmod(path, mode) => {
                (path, SetAttr { mode: Some(u32::from(*mode)), ..SetAttr::default() })
            }
            Op::Chown(path, uid, gid) => {
                let (uid, gid) = (Some(u32::from(*uid)), Some(u32::from(*gid)));
                (path, SetAttr { uid, gid, ..SetAttr::default() })
            }
            Op::Utimes(path, time) => {
                let time = SetTime::To(Time { secs: i64::from(*time % LATEST), nanos: 0 });
                (path, SetAttr { mtime: Some(time), ..SetAttr::default() })
            }
            Op::Truncate(path, size) => {
                (path, SetAttr { size: Some(u64::from(*size)), ..SetAttr::default() })
            }
            Op::SetXattr(path, name, value) => {
                let ino = self.find(path)?;
                let bytes = vec![*value; usize::from(*value) % 9];
                let name = OsStr::new(xattr_name(*name));
                return Ok(self.overlay().set_xattr(
                    ino,
                    name,
                    &bytes,
                    SetXattr::Any,
                    Attempt::Only,
                ));
            }
            Op::RemoveXattr(path, name) => {
                let ino = self.find(path)?;
                return Ok(self.overlay().remove_xattr(
                    ino,
                    OsStr::new(xattr_name(*name)),
                    Attempt::Only,
                ));
            }
            other => panic!("not a change of attributes: {other:?}"),
        };
        let ino = self.find(path)?;
        Ok(self.overlay().setattr(ino, set).map(drop))
    }

    fn make(&mut self, path: &[u8], new: NewFile<'_>, mode: u16) -> Answer {
        let (dir, name) = self.place(path)?;
        let attr = self.overlay().make(dir, name, new, u32::from(mode), CALLER, Attempt::Only);
        self.known.push(attr.map_err(|error| errno(&error))?.ino);
        Ok(String::new())
    }

    fn rename(&mut self, from: &[u8], to: &[u8], how: Rename) -> Answer {
        let (dir, name) = self.place(from)?;
        let (new_dir, new_name) = self.place(to)?;
        self.lookup(dir, *from.last().expect("a name"))?;
        // The kernel looks the target up, whether it is there or not.
        if let Err(error) = self.lookup(new_dir, *to.last().expect("a name")) {
            assert!(matches!(error, "ENOENT"), "{error}");
        }
        let renamed = self.overlay().rename((dir, name), (new_dir, new_name), how, Attempt::Only);
        renamed.map(|()| String::new()).map_err(|error| errno(&error))
    }

    fn open(&mut self, path: &[u8], truncate: bool) -> Answer {
        let ino = self.find(path)?;
        self.overlay().open(ino).map_err(|error| errno(&error))?;
        if truncate {
            // As the kernel does it.
            let set = SetAttr { size: Some(0), ..SetAttr::default() };
            self.overlay().setattr(ino, set).map_err(|error| errno(&error))?;
        }
        let Some(free) = self.handles.iter().position(Option::is_none) else {
            return Err("EMFILE");
        };
        self.handles[free] = Some(Handle { ino, known: std::mem::take(&mut self.known) });
        Ok(free.to_string())
    }

    fn apply_to_handle(&mut self, op: &Op) -> Answer {
        let number = match op {
            Op::Close(handle)
            | Op::Read(handle, ..)
            | Op::Write(handle, ..)
            | Op::FstatHandle(handle)
            | Op::TruncateHandle(handle, _) => usize::from(*handle),
            other => panic!("not an operation on a handle: {other:?}"),
        };
        if matches!(op, Op::Close(_)) {
            let handle = self.handles[number].take().ok_or("closed")?;
            self.known.extend(handle.known);
            return Ok(String::new());
        }
        let handle = self.handles[number].as_ref().ok_or("closed")?;
        let ino = handle.ino;
        let overlay = self.overlay();
        let fail = |error: Error| errno(&error);
        match op {
            Op::Read(_, offset, len) => {
                let mut bytes = vec![0; usize::from(*len)];
                let read = overlay.read(ino, &mut bytes, u64::from(*offset));
                Ok(Digest::of(&bytes[..read.map_err(fail)?]).short())
            }
            Op::Write(_, offset, len, byte) => {
                let bytes = vec![*byte; usize::from(*len)];
                overlay.write(ino, &bytes, u64::from(*offset)).map_err(fail)?;
                Ok(String::new())
            }
            Op::FstatHandle(_) => self.describe(ino).map_err(fail),
            Op::TruncateHandle(_, size) => {
                let set = SetAttr { size: Some(u64::from(*size)), ..SetAttr::default() };
                overlay.setattr(ino, set).map_err(fail)?;
                Ok(String::new())
            }
            other => panic!("not an operation on a handle: {other:?}"),
        }
    }

    fn list(&self, ino: Ino) -> Answer {
        let fail = |error: Error| errno(&error);
        let fh = self.overlay().open_dir_handle(ino).map_err(fail)?;
        let (mut names, mut forget, mut position) = (Vec::new(), Vec::new(), 0);
        loop {
            let before = position;
            let mut room = 2;
            let what = ReadDir::Attributes;
            let read = self.overlay().read_dir(ino, Some(fh), position, what, &mut |entry| {
                if room == 0 {
                    return ControlFlow::Break(());
                }
                room -= 1;
                position = entry.next;
                names.push(entry.name.to_string_lossy().into_owned());
                forget.extend(entry.attr.map(|attr| attr.ino));
                ControlFlow::Continue(())
            });
            read.map_err(fail)?;
            if position == before {
                break;
            }
        }
        self.overlay().close_dir(fh);
        for ino in forget {
            self.overlay().forget(ino, 1);
        }
        assert_eq!(names[..2], [".", ".."]);
        let mut names = names.split_off(2);
        names.sort();
        Ok(names.join(" "))
    }

    fn describe(&self, ino: Ino) -> strata::overlay::Result<String> {
        let overlay = self.overlay();
        let attr = overlay.getattr(ino)?;
        let content = match attr.kind() {
            Kind::Symlink => overlay.read_link(ino)?.as_bytes().to_vec(),
            Kind::Regular => {
                let mut bytes = vec![0; 20_000];
                let len = overlay.read(ino, &mut bytes, 0)?;
                bytes.truncate(len);
                assert_eq!(attr.size, len as u64, "size of {ino:?}");
                bytes
            }
            _ => Vec::new(),
        };
        let mut xattrs = Vec::new();
        for name in overlay.list_xattr(ino)? {
            let value = overlay.get_xattr(ino, &name)?;
            xattrs.push((name.to_string_lossy().into_owned(), value));
        }
        Ok(line(&attr, &content, xattrs))
    }

    fn describe_item(item: &Item<'_>) -> String {
        let attr = item.attr().expect("attributes");
        let content = match attr.kind() {
            Kind::Symlink => item.read_link().expect("a link").as_bytes().to_vec(),
            Kind::Regular => {
                let mut bytes = Vec::new();
                item.open().expect("a file").read_to_end(&mut bytes).expect("its content");
                bytes
            }
            _ => Vec::new(),
        };
        let xattrs = item.xattrs().expect("xattrs");
        let text =
            |(name, value): (std::ffi::OsString, _)| (name.to_string_lossy().into_owned(), value);
        line(&attr, &content, xattrs.into_iter().map(text).collect())
    }

    /// Returns the whole tree, read as the kernel would.
    pub(crate) fn tree(&mut self) -> Tree {
        let mut tree = Tree::new();
        let mut pending = vec![(Ino::ROOT, Vec::new())];
        while let Some((ino, path)) = pending.pop() {
            let line = self.describe(ino).expect("a file that is listed can be read");
            tree.insert(format!("/{}", text(&path)), line);
            if self.overlay().getattr(ino).expect("attributes").kind() == Kind::Directory {
                for name in self.list(ino).expect("a listing").split_whitespace() {
                    let name = name.as_bytes()[0] - b'a';
                    let child = self.lookup(ino, name).expect("what is listed is found");
                    pending.push((child.ino, [&path[..], &[name]].concat()));
                }
            }
        }
        for ino in std::mem::take(&mut self.known) {
            self.overlay().forget(ino, 1);
        }
        tree
    }

    /// Returns the tree that the lower with the changes applied is.
    pub(crate) fn changed_tree(&self) -> Tree {
        let lower = Overlay::read_only(self.lower());
        let mut tree = tree_of(&lower);
        let below = |path: &str| format!("{path}/");
        let changed = self.overlay().changes::<Error>(&mut |change| {
            let path = format!("/{}", String::from_utf8_lossy(&change.path));
            let clear = |tree: &mut Tree| tree.retain(|other, _| !other.starts_with(&below(&path)));
            match change.kind {
                ChangeKind::Deleted => {
                    clear(&mut tree);
                    assert!(tree.remove(&path).is_some(), "{path} was not there to be deleted");
                }
                ChangeKind::Added(item) => {
                    assert!(!tree.contains_key(&path), "{path} was there before it was added");
                    tree.insert(path, Self::describe_item(&item));
                }
                ChangeKind::Modified { item, opaque, .. } => {
                    assert!(tree.contains_key(&path), "{path} was not there to be modified");
                    if opaque || item.attr()?.kind() != Kind::Directory {
                        clear(&mut tree);
                    }
                    tree.insert(path, Self::describe_item(&item));
                }
            }
            Ok(())
        });
        changed.expect("the changes");
        tree.insert("/".to_owned(), Self::describe_item(&self.overlay().root()));
        // How many names files have is counted over the whole tree, and changes are of single ones.
        let now = tree_of(self.overlay());
        tree.into_iter()
            .map(|(path, line)| {
                let links = now.get(&path).and_then(|line| links_of(line)).unwrap_or_default();
                let old = links_of(&line).unwrap_or_default();
                let line = line.replacen(&format!(" {old} "), &format!(" {links} "), 1);
                (path, line)
            })
            .collect()
    }

    /// Returns the number of every inode.
    fn numbers(&mut self) -> BTreeMap<String, u64> {
        let mut numbers = BTreeMap::new();
        let mut pending = vec![(self.overlay().root(), String::new())];
        while let Some((item, path)) = pending.pop() {
            let attr = item.attr().expect("attributes");
            if attr.kind() == Kind::Directory {
                for (name, child) in item.children().expect("a listing") {
                    pending.push((child, format!("{path}/{}", name.to_string_lossy())));
                }
            }
            // A link that got a mark when it changed hands is another file since.
            if self.owners == Owners::Native || attr.kind() != Kind::Symlink {
                numbers.insert(path, attr.ino.0);
            }
        }
        numbers
    }

    /// Checks that no two files have one number, and that listings say the same as attributes.
    pub(crate) fn check_numbers(&mut self) {
        let mut files: HashMap<u64, (u32, u32)> = HashMap::new();
        let mut pending = vec![Ino::ROOT];
        while let Some(dir) = pending.pop() {
            let fh = self.overlay().open_dir_handle(dir).expect("a directory");
            let mut listed = Vec::new();
            let read = self.overlay().read_dir(dir, Some(fh), 0, ReadDir::Names, &mut |entry| {
                listed.push((entry.name.to_owned(), entry.ino, entry.kind));
                ControlFlow::Continue(())
            });
            read.expect("a listing");
            self.overlay().close_dir(fh);
            for (name, ino, kind) in
                listed.into_iter().filter(|(name, ..)| name != "." && name != "..")
            {
                let attr = self.lookup(dir, name.as_bytes()[0] - b'a').expect("it is listed");
                assert_eq!((attr.ino, attr.kind()), (ino, kind), "{name:?}");
                let (count, nlink) = files.entry(ino.0).or_insert((0, attr.nlink));
                *count += 1;
                assert_eq!(*nlink, attr.nlink, "{name:?}");
                if kind == Kind::Directory {
                    pending.push(ino);
                    *count = attr.nlink;
                }
            }
        }
        for (ino, (count, nlink)) in files {
            assert_eq!(count, nlink, "names of inode {ino}");
        }
        for ino in std::mem::take(&mut self.known) {
            self.overlay().forget(ino, 1);
        }
    }

    /// Checks that no object has changed.
    pub(crate) fn check_lower(&self) {
        for entry in fs::read_dir(self.dir("objects")).expect("objects") {
            let path = entry.expect("an object").path();
            let mut reader = HashingReader::new(File::open(&path).expect("an object"));
            io::copy(&mut reader, &mut io::sink()).expect("its content");
            let digest = reader.finish().0.hex();
            assert_eq!(path.file_name().expect("a name").to_string_lossy(), digest);
        }
    }

    /// Checks that nothing is left in the work directory.
    pub(crate) fn check_work_dir(&mut self) {
        self.overlay = None;
        let left: Vec<_> = fs::read_dir(self.dir("work/work"))
            .expect("a work directory")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(left, [] as [&str; 0], "left in the work directory");
    }
}

fn line(attr: &Attr, content: &[u8], mut xattrs: Vec<(String, Vec<u8>)>) -> String {
    xattrs.sort();
    let kind = match attr.kind() {
        Kind::Directory => "dir",
        Kind::Regular => "file",
        Kind::Symlink => "symlink",
        Kind::Fifo => "fifo",
        other => panic!("a {other:?} was never made"),
    };
    let numbers = (attr.mode & 0o7777, attr.uid, attr.gid, attr.nlink);
    let mtime = match u32::try_from(attr.mtime.secs) {
        Ok(secs) if secs < LATEST => secs.to_string(),
        _ => "touched".to_owned(),
    };
    format!("{} {mtime}", describe(kind, numbers, content, &xattrs))
}

fn links_of(line: &str) -> Option<&str> {
    line.split(' ').find(|word| word.starts_with('x'))
}

fn tree_of(overlay: &Overlay) -> Tree {
    let mut tree = Tree::new();
    let mut pending = vec![(overlay.root(), String::new())];
    while let Some((item, path)) = pending.pop() {
        let shown = if path.is_empty() { "/".to_owned() } else { path.clone() };
        tree.insert(shown, Mounted::describe_item(&item));
        if item.attr().expect("attributes").kind() == Kind::Directory {
            for (name, child) in item.children().expect("a listing") {
                pending.push((child, format!("{path}/{}", name.to_string_lossy())));
            }
        }
    }
    tree
}
