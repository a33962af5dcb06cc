//! What is copied, one file after the other: of a tree, of the host, of a tar.
//!
//! A directory comes before what is in it. Paths are relative to the top, which has the empty one.
//! Nothing here follows a symbolic link.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use crate::layer::{
    EntryKind, Kind, RawSink, Segment, TarEntry, TarMeta, TarReader, components, join_path,
};
use crate::overlay::{Ino, Item, ItemReader};
use crate::service::error::{Error, Result, if_there};
use crate::sys::{self, DirStream, Stat, XattrTarget, mode, open_flags};

/// Gives a content piece by piece, without its holes.
pub(crate) trait Content {
    /// Reads the next bytes that are stored; tells where they are and how many. None at the end.
    fn next(&mut self, buffer: &mut [u8]) -> Result<Option<(u64, usize)>>;
}

/// Bytes moved at once.
const CHUNK: usize = 128 * 1024;

/// Hands a content to `write`, piece by piece, and returns where it ends; what is only zeros becomes
/// a hole.
pub(crate) fn each_piece(
    content: &mut dyn Content,
    write: &mut dyn FnMut(&[u8], u64) -> Result<()>,
) -> Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut end = 0;
    while let Some((offset, len)) = content.next(&mut buffer)? {
        let bytes = &buffer[..len];
        if bytes.iter().any(|byte| *byte != 0) {
            write(bytes, offset)?;
        }
        end = offset + len as u64;
    }
    Ok(end)
}

/// The content of what has none.
pub(crate) struct Empty;

impl Content for Empty {
    fn next(&mut self, _: &mut [u8]) -> Result<Option<(u64, usize)>> {
        Ok(None)
    }
}

/// Takes what is copied.
pub(crate) trait Visit {
    /// Takes a file, or another name for the one that has come as `link`.
    fn file(
        &mut self,
        meta: &TarMeta,
        link: Option<&[u8]>,
        content: &mut dyn Content,
    ) -> Result<()>;

    /// Is told that a file cannot be copied.
    fn left_out(&mut self, path: &[u8], why: &str);
}

const SOCKET: &str = "is a socket, which cannot be copied";

/// Shows a file of a tree and all below it.
pub(crate) fn walk_tree(top: Item<'_>, visit: &mut dyn Visit) -> Result<()> {
    let mut first_names: HashMap<Ino, Vec<u8>> = HashMap::new();
    let mut pending = vec![(Vec::new(), top)];
    while let Some((path, item)) = pending.pop() {
        let Some(attr) = if_there(item.attr())? else { continue };
        let kind = attr.kind();
        if kind == Kind::Socket {
            visit.left_out(&path, SOCKET);
            continue;
        }
        let mut meta = TarMeta {
            uid: attr.uid,
            gid: attr.gid,
            mtime: attr.mtime,
            device: attr.rdev,
            size: if kind == Kind::Regular { attr.size } else { 0 },
            ..TarMeta::new(path.clone(), kind, attr.mode & mode::PERMISSIONS)
        };
        if kind != Kind::Directory
            && attr.nlink > 1
            && let Some(first) = first_names.get(&attr.ino)
        {
            visit.file(&meta, Some(first), &mut Empty)?;
            continue;
        }
        let Some(xattrs) = if_there(item.xattrs())? else { continue };
        let xattrs = xattrs.into_iter();
        meta.xattrs = xattrs.map(|(name, value)| (name.as_bytes().to_vec(), value)).collect();
        match kind {
            Kind::Regular => {
                let Some(mut content) = if_there(item.open())? else { continue };
                visit.file(&meta, None, &mut content)?;
            }
            Kind::Symlink => {
                let Some(target) = if_there(item.read_link())? else { continue };
                meta.target = target.as_bytes().to_vec();
                visit.file(&meta, None, &mut Empty)?;
            }
            _ => visit.file(&meta, None, &mut Empty)?,
        }
        if kind == Kind::Directory {
            let children = if_there(item.children())?.unwrap_or_default();
            for (name, child) in children.into_iter().rev() {
                pending.push((join_path(&path, name.as_bytes()), child));
            }
        } else if attr.nlink > 1 {
            first_names.insert(attr.ino, path);
        }
    }
    Ok(())
}

impl Content for ItemReader {
    fn next(&mut self, buffer: &mut [u8]) -> Result<Option<(u64, usize)>> {
        Ok(self.next_data(buffer)?)
    }
}

/// A file of the host, found by its directory.
pub(crate) struct HostTop {
    pub(crate) fd: OwnedFd,
    pub(crate) stat: Stat,
    /// What it is called.
    pub(crate) shown: String,
}

/// Directories of the host that are not gone into, by device and number, and why.
pub(crate) type Skip = HashMap<(u64, u64), &'static str>;

/// A directory of the host that is being shown.
struct Frame {
    fd: OwnedFd,
    path: Vec<u8>,
    /// The names that are still to come, the last first.
    names: Vec<OsString>,
}

/// Shows a file of the host and all below it.
pub(crate) fn walk_host(top: HostTop, skip: &Skip, visit: &mut dyn Visit) -> Result<()> {
    let mut first_names = HashMap::new();
    let mut frames: Vec<Frame> = Vec::new();
    let HostTop { fd, stat, shown } = top;
    let mut file = HostFile { fd, stat, path: Vec::new() };
    loop {
        match skip.get(&(file.stat.dev, file.stat.ino)) {
            Some(why) => visit.left_out(&file.path, why),
            None if Kind::of(file.stat.mode) == Kind::Socket => {
                visit.left_out(&file.path, SOCKET);
            }
            None => {
                let path = file.path.clone();
                let opened = file.open(&mut first_names).map_err(reading(&shown, &path))?;
                let Opened { meta, link, content, frame } = opened;
                match content {
                    Some(mut content) => visit.file(&meta, None, &mut content)?,
                    None => visit.file(&meta, link.as_deref(), &mut Empty)?,
                }
                frames.extend(frame);
            }
        }
        file = loop {
            let Some(frame) = frames.last_mut() else { return Ok(()) };
            let Some(name) = frame.names.pop() else {
                frames.pop();
                continue;
            };
            let path = join_path(&frame.path, name.as_bytes());
            let found = sys::open_path(frame.fd.as_fd(), &name)
                .and_then(|fd| sys::fstat(fd.as_fd()).map(|stat| (fd, stat)));
            match found {
                Ok((fd, stat)) => break HostFile { fd, stat, path },
                // It is gone since its directory was read.
                Err(error) if error.errno() == sys::Errno::ENOENT => {}
                Err(error) => return Err(reading(&shown, &path)(error)),
            }
        };
    }
}

/// Says which file of the host could not be read.
fn reading(top: &str, path: &[u8]) -> impl FnOnce(sys::Error) -> Error {
    let slash = if path.is_empty() || top.ends_with('/') { "" } else { "/" };
    let path = format!("{top}{slash}{}", String::from_utf8_lossy(path));
    move |error| Error::Io { action: "read", path, source: error.errno().into() }
}

/// A file of the host that comes next.
struct HostFile {
    fd: OwnedFd,
    stat: Stat,
    path: Vec<u8>,
}

/// What is known of it.
struct Opened {
    meta: TarMeta,
    link: Option<Vec<u8>>,
    /// The content of a regular file.
    content: Option<FileContent>,
    /// What is in it, of a directory.
    frame: Option<Frame>,
}

impl HostFile {
    fn open(self, first_names: &mut HashMap<(u64, u64), Vec<u8>>) -> sys::Result<Opened> {
        let Self { fd, stat, path } = self;
        let kind = Kind::of(stat.mode);
        let mut opened = Opened {
            meta: TarMeta {
                uid: stat.uid,
                gid: stat.gid,
                mtime: stat.mtime,
                device: stat.rdev,
                size: if kind == Kind::Regular { stat.size } else { 0 },
                ..TarMeta::new(path.clone(), kind, stat.mode & mode::PERMISSIONS)
            },
            link: None,
            content: None,
            frame: None,
        };
        if kind != Kind::Directory && stat.nlink > 1 {
            opened.link = first_names.get(&(stat.dev, stat.ino)).cloned();
            if opened.link.is_some() {
                return Ok(opened);
            }
            first_names.insert((stat.dev, stat.ino), path.clone());
        }
        opened.meta.xattrs = xattrs(fd.as_fd())?;
        match kind {
            Kind::Regular => {
                let file = File::from(sys::reopen(fd.as_fd(), open_flags::READ)?);
                opened.content = Some(FileContent { file, offset: 0 });
            }
            Kind::Symlink => {
                opened.meta.target = sys::read_link_fd(fd.as_fd())?.as_bytes().to_vec();
            }
            Kind::Directory => {
                let names = names_in(&fd)?;
                opened.frame = Some(Frame { fd, path, names });
            }
            _ => {}
        }
        Ok(opened)
    }
}

/// Returns the names in a directory, sorted, the last first.
fn names_in(dir: &OwnedFd) -> sys::Result<Vec<OsString>> {
    let mut stream = DirStream::new(dir)?;
    let mut names = Vec::new();
    while let Some(entry) = stream.next_entry()? {
        if entry.name != OsStr::new(".") && entry.name != OsStr::new("..") {
            names.push(entry.name.to_owned());
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

/// Returns the extended attributes that belong to a file and not to the machine.
fn xattrs(fd: BorrowedFd<'_>) -> sys::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let target = XattrTarget::Fd(fd);
    let mut xattrs = BTreeMap::new();
    for name in sys::list_xattr(target)? {
        if belongs_to_file(name.as_bytes())
            && let Some(value) = sys::xattr_if_set(target, &name)?
        {
            xattrs.insert(name.as_bytes().to_vec(), value);
        }
    }
    Ok(xattrs)
}

/// Tells whether an attribute means the same on another machine.
pub(crate) fn belongs_to_file(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name == b"security.capability"
}

struct FileContent {
    file: File,
    offset: u64,
}

impl Content for FileContent {
    fn next(&mut self, buffer: &mut [u8]) -> Result<Option<(u64, usize)>> {
        let fd = self.file.as_fd();
        let (start, end) = match sys::seek_data(fd, self.offset) {
            Ok(Some(start)) => (start, sys::seek_hole(fd, start)?.unwrap_or(u64::MAX)),
            // A file of /proc has no size and holds something all the same.
            Ok(None) if self.offset == 0 => (0, u64::MAX),
            Ok(None) => return Ok(None),
            Err(error) if error.errno() == sys::Errno::EINVAL => (self.offset, u64::MAX),
            Err(error) => return Err(error.into()),
        };
        let most = buffer.len().min(usize::try_from(end - start).unwrap_or(usize::MAX));
        let len = self.file.read_at(&mut buffer[..most], start)?;
        self.offset = start + len as u64;
        Ok((len > 0).then_some((start, len)))
    }
}

/// Drops the bytes of a tar that are no content.
struct Nowhere;

impl RawSink for Nowhere {
    fn raw(&mut self, _: &[u8]) -> crate::layer::Result<()> {
        Ok(())
    }
}

/// Shows the entries of a tar.
pub(crate) fn walk_tar(tar: impl Read, visit: &mut dyn Visit) -> Result<()> {
    let mut reader = TarReader::new(tar);
    while let Some(entry) = reader.next_entry(&mut Nowhere)? {
        let kind = match entry.kind {
            EntryKind::File(kind) => kind,
            EntryKind::HardLink => Kind::Regular,
        };
        let meta = TarMeta {
            path: inside(&entry, &entry.path)?,
            kind,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            device: entry.device,
            target: entry.link.clone(),
            xattrs: entry.xattrs.clone(),
            size: if kind == Kind::Regular { entry.size } else { 0 },
        };
        if entry.kind == EntryKind::HardLink {
            visit.file(&meta, Some(&inside(&entry, &entry.link)?), &mut Empty)?;
            continue;
        }
        let whole = vec![Segment { offset: 0, len: meta.size }];
        let segments = entry.segments.unwrap_or(whole);
        let mut content = TarContent { reader: &mut reader, segments: segments.into_iter() };
        visit.file(&meta, None, &mut content)?;
        // What was not wanted stands before the next entry all the same.
        each_piece(&mut content, &mut |_, _| Ok(()))?;
    }
    Ok(())
}

/// Returns a path of a tar without `.` and `..`; it must not lead out.
fn inside(entry: &TarEntry, path: &[u8]) -> Result<Vec<u8>> {
    let mut depth = 0_usize;
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => match depth.checked_sub(1) {
                Some(above) => depth = above,
                None => return Err(entry.refuse("it leads out of the destination").into()),
            },
            _ => depth += 1,
        }
    }
    Ok(components(path).join(&b'/'))
}

struct TarContent<'a, R> {
    reader: &'a mut TarReader<R>,
    segments: std::vec::IntoIter<Segment>,
}

impl<R: Read> Content for TarContent<'_, R> {
    fn next(&mut self, buffer: &mut [u8]) -> Result<Option<(u64, usize)>> {
        while let Some(segment) = self.segments.as_mut_slice().first_mut() {
            let len = buffer.len().min(usize::try_from(segment.len).unwrap_or(usize::MAX));
            if len == 0 {
                self.segments.next();
                continue;
            }
            let offset = segment.offset;
            self.reader.content(&mut buffer[..len])?;
            segment.offset += len as u64;
            segment.len -= len as u64;
            return Ok(Some((offset, len)));
        }
        Ok(None)
    }
}
