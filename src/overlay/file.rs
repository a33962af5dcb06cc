//! Contents: opening, reading, writing.
//!
//! Data belongs to the inode: all who have a file open share one [`OpenFile`], and when it is copied
//! up all of them read the copy from then on, whenever and however they opened it. A lower file is
//! only ever read. Opening for writing copies nothing; the first write does.

use std::collections::HashMap;
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lru::LruCache;
use parking_lot::{Mutex, RwLock};

use crate::layer::Kind;
use crate::overlay::copy_up::{Need, WHOLE};
use crate::overlay::error::{Error, Result};
use crate::overlay::lower::{LowerFile, LowerId, read_fully};
use crate::overlay::node::Node;
use crate::overlay::place::Place;
use crate::overlay::readdir::OpenDir;
use crate::overlay::upper::Upper;
use crate::overlay::{Ino, Overlay};
use crate::sys::{self, Errno, open_flags};

/// How many lower files are kept open for readers without a handle.
const OPEN_FILES: NonZeroUsize = NonZeroUsize::new(512).unwrap();

/// The number of something open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fh(pub u64);

/// The content of an inode that somebody has open.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) node: Arc<Node>,
    pub(crate) content: RwLock<Content>,
}

/// Where the content of an open file is.
#[derive(Debug)]
pub(crate) enum Content {
    /// In the lower; it has not been written to.
    Lower(LowerFile),
    /// In the upper.
    Upper(Arc<File>),
}

impl Content {
    /// Returns it to those who only read.
    pub(crate) fn for_reading(&self) -> LowerFile {
        match self {
            Self::Lower(lower) => lower.clone(),
            Self::Upper(upper) => LowerFile::File(Arc::clone(upper)),
        }
    }
}

#[derive(Clone, Debug)]
enum Handle {
    File(Arc<OpenFile>),
    /// A file of a tree that cannot be changed.
    Lower(LowerFile),
    Dir(Arc<OpenDir>),
}

/// Everything that is open.
#[derive(Debug)]
pub(crate) struct Handles {
    next: AtomicU64,
    open: RwLock<HashMap<Fh, Handle>>,
}

impl Handles {
    pub(crate) fn new() -> Self {
        Self { next: AtomicU64::new(1), open: RwLock::default() }
    }

    fn add(&self, handle: Handle) -> Fh {
        let fh = Fh(self.next.fetch_add(1, Ordering::Relaxed));
        self.open.write().insert(fh, handle);
        fh
    }

    pub(crate) fn add_dir(&self, dir: OpenDir) -> Fh {
        self.add(Handle::Dir(Arc::new(dir)))
    }

    fn get(&self, fh: Fh) -> Result<Handle> {
        self.open.read().get(&fh).cloned().ok_or(Error::BadHandle)
    }

    pub(crate) fn dir(&self, fh: Fh) -> Result<Arc<OpenDir>> {
        match self.get(fh)? {
            Handle::Dir(dir) => Ok(dir),
            Handle::File(_) | Handle::Lower(_) => Err(Error::BadHandle),
        }
    }

    fn file(&self, fh: Fh) -> Result<Arc<OpenFile>> {
        match self.get(fh)? {
            Handle::File(file) => Ok(file),
            Handle::Dir(_) | Handle::Lower(_) => Err(Error::BadHandle),
        }
    }
}

/// Lower files that are open for those who read without a handle.
#[derive(Debug)]
pub(crate) struct FileCache(Mutex<LruCache<LowerId, LowerFile>>);

impl FileCache {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(LruCache::new(OPEN_FILES)))
    }
}

/// Where to go on in a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// To the next byte that is stored.
    Data,
    /// To the next hole.
    Hole,
}

impl Overlay {
    /// Opens a regular file.
    pub fn open(&self, ino: Ino) -> Result<Fh> {
        let place = self.place(ino)?;
        match self.kind(&place)? {
            Kind::Regular => {}
            Kind::Directory => return Err(Error::IsDirectory),
            _ => return Err(Error::Invalid("only regular files have contents")),
        }
        if let (Place::Lower(id), true) = (&place, self.upper.is_none()) {
            return Ok(self.handles.add(Handle::Lower(self.lower.open(*id)?)));
        }
        let node = self.node(&place)?;
        let file = self.open_file(&node)?;
        Ok(self.handles.add(Handle::File(file)))
    }

    /// Makes a handle of a file that was just made.
    pub(crate) fn open_new(&self, node: &Arc<Node>, file: File) -> Fh {
        let content = RwLock::new(Content::Upper(Arc::new(file)));
        let opened = Arc::new(OpenFile { node: Arc::clone(node), content });
        let mut state = node.state.lock();
        let shared = match state.file.upgrade() {
            Some(earlier) => earlier,
            None => {
                state.file = Arc::downgrade(&opened);
                opened
            }
        };
        drop(state);
        self.handles.add(Handle::File(shared))
    }

    /// Closes a file or directory.
    pub fn release(&self, fh: Fh) {
        let closed = self.handles.open.write().remove(&fh);
        if let (Some(Handle::File(file)), Some(upper)) = (&closed, &self.upper)
            && upper.remembers_losses()
            && let Content::Upper(content) = &*file.content.read()
        {
            upper.check_file(content);
        }
        drop(closed);
    }

    /// Reads at an offset into all of `buffer`, or to the end of the file; tells how much. A tree
    /// that cannot be changed is read without a handle, too.
    pub fn read(&self, ino: Ino, fh: Option<Fh>, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let Some(fh) = fh else { return self.lower_file(ino)?.read_at(buffer, offset) };
        match self.handles.get(fh)? {
            Handle::Lower(file) => file.read_at(buffer, offset),
            Handle::Dir(_) => Err(Error::BadHandle),
            Handle::File(file) => match &*file.content.read() {
                Content::Lower(lower) => lower.read_at(buffer, offset),
                Content::Upper(upper) => read_fully(upper, buffer, offset),
            },
        }
    }

    /// Returns the content of a file of a tree that cannot be changed.
    fn lower_file(&self, ino: Ino) -> Result<LowerFile> {
        let (Place::Lower(id), true) = (self.place(ino)?, self.upper.is_none()) else {
            return Err(Error::BadHandle);
        };
        if let Some(file) = self.files.0.lock().get(&id) {
            return Ok(file.clone());
        }
        let file = self.lower.open(id)?;
        drop(self.files.0.lock().push(id, file.clone()));
        Ok(file)
    }

    /// Returns what a handle reads from at the moment.
    fn content_of(&self, fh: Fh) -> Result<LowerFile> {
        match self.handles.get(fh)? {
            Handle::Lower(lower) => Ok(lower),
            Handle::Dir(_) => Err(Error::BadHandle),
            Handle::File(file) => Ok(file.content.read().for_reading()),
        }
    }

    /// Writes all of `bytes` at an offset.
    pub fn write(&self, fh: Fh, bytes: &[u8], offset: u64) -> Result<()> {
        let file = self.upper_file(fh)?;
        let written = file.write_all_at(bytes, offset);
        if let (Err(error), Some(upper)) = (&written, &self.upper) {
            upper.note_failed_write(error);
        }
        Ok(written?)
    }

    /// Returns the file of the upper that a handle writes to; it is copied up if it must be.
    fn upper_file(&self, fh: Fh) -> Result<Arc<File>> {
        let file = self.handles.file(fh)?;
        if let Content::Upper(upper) = &*file.content.read() {
            return Ok(Arc::clone(upper));
        }
        self.copy_up(&file.node, WHOLE)?;
        match &*file.content.read() {
            Content::Upper(upper) => Ok(Arc::clone(upper)),
            Content::Lower(_) => Err(Error::BadHandle),
        }
    }

    /// Gives a regular file another size.
    pub(crate) fn set_size(&self, node: &Arc<Node>, fh: Option<Fh>, size: u64) -> Result<()> {
        match node.kind {
            Kind::Regular => {}
            Kind::Directory => return Err(Error::IsDirectory),
            _ => return Err(Error::Invalid("only regular files have a size to change")),
        }
        self.copy_up(node, Need::Content(size))?;
        let file = match fh {
            Some(fh) => self.upper_file(fh)?,
            None => Arc::new(self.open_upper(node)?),
        };
        Ok(sys::truncate_fd(file.as_fd(), size)?)
    }

    /// Reserves or releases room in a file (`fallocate`).
    pub fn allocate(&self, fh: Fh, mode: i32, offset: u64, len: u64) -> Result<()> {
        let file = self.upper_file(fh)?;
        Ok(sys::allocate(file.as_fd(), mode, offset, len)?)
    }

    /// Copies bytes from one open file to another; tells how many.
    pub fn copy_range(
        &self,
        (from, from_offset): (Fh, u64),
        (to, to_offset): (Fh, u64),
        len: usize,
    ) -> Result<usize> {
        let to = self.upper_file(to)?;
        match self.content_of(from)? {
            LowerFile::File(file) => {
                Ok(sys::copy_range(file.as_fd(), from_offset, to.as_fd(), to_offset, len)?)
            }
            content @ LowerFile::Bytes(_) => {
                let mut buffer = vec![0; len.min(1 << 16)];
                let len = content.read_at(&mut buffer, from_offset)?;
                to.write_all_at(buffer.get(..len).unwrap_or_default(), to_offset)?;
                Ok(len)
            }
        }
    }

    /// Returns where data or a hole comes next.
    ///
    /// # Errors
    /// `ENXIO` past the end of the file.
    pub fn seek(&self, ino: Ino, fh: Option<Fh>, offset: u64, whence: Seek) -> Result<u64> {
        let content = match fh {
            Some(fh) => self.content_of(fh)?,
            None => self.lower_file(ino)?,
        };
        let found = match (&content, whence) {
            (LowerFile::File(file), Seek::Data) => sys::seek_data(file.as_fd(), offset)?,
            (LowerFile::File(file), Seek::Hole) => sys::seek_hole(file.as_fd(), offset)?,
            (LowerFile::Bytes(bytes), _) => {
                let len = bytes.len() as u64;
                let to = if whence == Seek::Data { offset } else { len };
                (offset < len).then_some(to)
            }
        };
        found.ok_or_else(|| Error::Sys(sys::Error::new("lseek()", Errno::ENXIO)))
    }

    /// Makes the content of an open file durable; what is only in the lower is.
    pub fn sync(&self, fh: Fh, content_only: bool) -> Result<()> {
        match &self.upper {
            None => return Ok(()),
            Some(upper) if upper.is_volatile() => return self.sync_nothing(upper),
            Some(_) => {}
        }
        let file = self.handles.file(fh)?;
        let upper = match &*file.content.read() {
            Content::Upper(upper) => Arc::clone(upper),
            Content::Lower(_) if !file.node.is_in_upper() => return Ok(()),
            // Only its attributes have changed.
            Content::Lower(_) => Arc::new(self.open_upper(&file.node)?),
        };
        let synced = if content_only { upper.sync_data() } else { upper.sync_all() };
        Ok(synced?)
    }

    /// Answers who wants something synced where nothing is: with an error if changes are known to be
    /// lost.
    fn sync_nothing(&self, upper: &Upper) -> Result<()> {
        if upper.remembers_losses() {
            let open: Vec<_> = self.handles.open.read().values().cloned().collect();
            for handle in open {
                if let Handle::File(file) = handle
                    && let Content::Upper(content) = &*file.content.read()
                {
                    upper.check_file(content);
                }
            }
        }
        upper.check_losses()
    }

    /// Makes the names of a directory durable.
    pub fn sync_dir(&self, ino: Ino) -> Result<()> {
        let place = self.place(ino)?;
        if let Some(upper) = self.upper.as_ref().filter(|upper| upper.is_volatile()) {
            return self.sync_nothing(upper);
        }
        let node = match place {
            Place::Node(node) if node.is_in_upper() => node,
            _ => return Ok(()),
        };
        let dir = sys::reopen(self.dir_fd(&node)?.as_fd(), open_flags::DIRECTORY)?;
        Ok(File::from(dir).sync_all()?)
    }

    /// Returns the shared state of a file that is opened.
    fn open_file(&self, node: &Arc<Node>) -> Result<Arc<OpenFile>> {
        let shared = node.state.lock().file.upgrade();
        if let Some(file) = shared {
            return self.shared(file);
        }
        // While this is held the file is not copied up, so it cannot be opened where it just was.
        let _change = node.change.lock();
        let shared = node.state.lock().file.upgrade();
        if let Some(file) = shared {
            return self.shared(file);
        }
        let content = RwLock::new(self.open_content(node)?);
        let file = Arc::new(OpenFile { node: Arc::clone(node), content });
        node.state.lock().file = Arc::downgrade(&file);
        Ok(file)
    }

    /// Returns what others have opened. A lower that checks what it hands out is asked once more: the
    /// content may have been damaged since.
    fn shared(&self, file: Arc<OpenFile>) -> Result<Arc<OpenFile>> {
        if self.lower.verifies()
            && let (Content::Lower(_), Some(id)) = (&*file.content.read(), file.node.lower)
        {
            self.lower.open(id)?;
        }
        Ok(file)
    }

    /// Opens the content of a file where it is at the moment.
    pub(crate) fn open_content(&self, node: &Arc<Node>) -> Result<Content> {
        let in_upper = {
            let state = node.state.lock();
            state.upper.is_some() && !state.content_in_lower
        };
        if in_upper {
            return Ok(Content::Upper(Arc::new(self.open_upper(node)?)));
        }
        let id = node.lower.ok_or(Error::Stale(node.ino.0))?;
        Ok(Content::Lower(self.lower.open(id)?))
    }

    /// Opens the content of a file in the upper, for writing too where that is allowed.
    pub(crate) fn open_upper(&self, node: &Arc<Node>) -> Result<File> {
        let (path, _) = self.open_node(node)?;
        match sys::reopen(path.as_fd(), open_flags::READ_WRITE) {
            Ok(fd) => Ok(fd.into()),
            // An immutable file, an upper that is only looked at.
            Err(error) if matches!(error.errno(), Errno::EPERM | Errno::EACCES | Errno::EROFS) => {
                Ok(sys::reopen(path.as_fd(), open_flags::READ)?.into())
            }
            Err(error) => Err(error.into()),
        }
    }
}
