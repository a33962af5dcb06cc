//! What is open: the contents of files that are read and written.
//!
//! Data belongs to the inode: all who read and write a file share one [`OpenFile`], and when it is
//! copied up all of them use the copy from then on. There are no handles of files, because a kernel may
//! open files without asking, and then names them by their number only. The contents that were used
//! last are kept open, until the kernel forgets the file or others are used; one that is needed again is
//! opened again, by its name or by what holds it when it has none.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use lru::LruCache;
use parking_lot::{Mutex, RwLock};

use crate::layer::Kind;
use crate::overlay::error::{Error, Result};
use crate::overlay::lower::LowerFile;
use crate::overlay::node::Node;
use crate::overlay::place::Place;
use crate::overlay::{Ino, Overlay};
use crate::sys::{self, Errno, open_flags};

/// The content of an inode that is open.
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

/// What is open of a file.
#[derive(Clone, Debug)]
pub(crate) enum Opened {
    /// It may be changed, or was.
    File(Arc<OpenFile>),
    /// It was only in the lower when it was opened.
    Lower(LowerFile),
}

const SHARDS: usize = 8;
/// How many contents each part of the table keeps open.
const OPEN_FILES: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// Contents that are kept open.
#[derive(Debug)]
pub(crate) struct FileCache([Mutex<LruCache<Ino, Opened>>; SHARDS]);

impl FileCache {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(LruCache::new(OPEN_FILES))))
    }

    fn get(&self, ino: Ino) -> Option<Opened> {
        self.shard(ino).lock().get(&ino).cloned()
    }

    /// Keeps a content open; returns the one that is closed for it.
    fn keep(&self, ino: Ino, opened: Opened) -> Option<Opened> {
        self.shard(ino).lock().push(ino, opened).map(|(_, closed)| closed)
    }

    fn remove(&self, ino: Ino) -> Option<Opened> {
        self.shard(ino).lock().pop(&ino)
    }

    fn all(&self) -> Vec<Opened> {
        let mut all = Vec::new();
        for shard in &self.0 {
            all.extend(shard.lock().iter().map(|(_, opened)| opened.clone()));
        }
        all
    }

    #[allow(clippy::indexing_slicing, reason = "the remainder is below the number of shards")]
    #[allow(clippy::cast_possible_truncation, reason = "the remainder is below 8")]
    fn shard(&self, ino: Ino) -> &Mutex<LruCache<Ino, Opened>> {
        &self.0[(ino.0 % SHARDS as u64) as usize]
    }
}

impl Overlay {
    /// Opens a regular file: what would keep it from being read is an error now. A lower that checks
    /// what it hands out is asked once more for what is open already: it may have been damaged since.
    pub fn open(&self, ino: Ino) -> Result<()> {
        let Some(opened) = self.files.get(ino).filter(|_| self.lower.verifies()) else {
            return self.opened(ino).map(drop);
        };
        match opened {
            Opened::File(file) => self.shared(file).map(drop),
            Opened::Lower(_) => match self.place(ino)? {
                Place::Lower(found) => self.lower.open(found.id).map(drop),
                Place::Node(node) => self.open_file(&node).map(drop),
            },
        }
    }

    /// Tells whether opening a file checks its content.
    pub fn verifies(&self) -> bool {
        self.lower.verifies()
    }

    /// Returns the file that has the whole content of a file of the mount and will have it for as long as
    /// there is one: who reads or writes it reads or writes the other. None if there is no such file: the
    /// content of one that may be copied up does not stay where it is.
    pub fn backing(&self, ino: Ino) -> Result<Option<Arc<File>>> {
        Ok(match self.opened(ino)? {
            Opened::File(file) => match &*file.content.read() {
                Content::Upper(upper) => Some(Arc::clone(upper)),
                Content::Lower(_) => None,
            },
            Opened::Lower(LowerFile::File(file)) if self.upper.is_none() => Some(file),
            Opened::Lower(_) => None,
        })
    }

    /// Returns an empty file where contents are, which goes away when it is closed; `otherwise` is a
    /// directory for a tree without an upper.
    pub fn sample_file(&self, otherwise: BorrowedFd<'_>) -> Result<OwnedFd> {
        match &self.upper {
            Some(upper) => Ok(sys::open_tmpfile(upper.root().as_fd(), 0o600)?),
            None => Ok(sys::open_tmpfile(otherwise, 0o600)?),
        }
    }

    /// Keeps a file open that was just made.
    pub(crate) fn keep_new(&self, node: &Arc<Node>, file: File) {
        let content = RwLock::new(Content::Upper(Arc::new(file)));
        let opened = Arc::new(OpenFile { node: Arc::clone(node), content });
        let shared = {
            let mut state = node.state.lock();
            match state.file.upgrade() {
                Some(earlier) => earlier,
                None => {
                    state.file = Arc::downgrade(&opened);
                    opened
                }
            }
        };
        self.keep_open(node.ino, Opened::File(shared));
    }

    /// Closes what was kept open of a file.
    pub(crate) fn close_kept(&self, ino: Ino) {
        if let Some(opened) = self.files.remove(ino) {
            self.close(opened);
        }
    }

    fn keep_open(&self, ino: Ino, opened: Opened) {
        if let Some(closed) = self.files.keep(ino, opened) {
            self.close(closed);
        }
    }

    fn close(&self, opened: Opened) {
        self.check_loss(&opened);
        drop(opened);
    }

    /// Finds out whether what was written to a file is lost, if that is to be remembered.
    fn check_loss(&self, opened: &Opened) {
        if let Some(upper) = self.upper.as_ref().filter(|upper| upper.remembers_losses())
            && let Opened::File(file) = opened
            && let Content::Upper(content) = &*file.content.read()
        {
            upper.check_file(content);
            self.note_losses(upper);
        }
    }

    /// Finds out whether anything is lost of what is open.
    pub(crate) fn check_all_losses(&self) {
        for opened in self.files.all() {
            self.check_loss(&opened);
        }
    }

    /// Returns what is open of a file, which is opened if need be.
    pub(crate) fn opened(&self, ino: Ino) -> Result<Opened> {
        if let Some(opened) = self.files.get(ino) {
            return Ok(opened);
        }
        let place = self.place(ino)?;
        match self.kind(&place)? {
            Kind::Regular => {}
            Kind::Directory => return Err(Error::IsDirectory),
            _ => return Err(Error::Invalid("only regular files have contents")),
        }
        let opened = match place {
            Place::Lower(found) => Opened::Lower(self.lower.open(found.id)?),
            Place::Node(node) => Opened::File(self.open_file(&node)?),
        };
        self.keep_open(ino, opened.clone());
        Ok(opened)
    }

    /// Returns what is open of a file that is about to be changed.
    pub(crate) fn opened_to_change(&self, ino: Ino) -> Result<Arc<OpenFile>> {
        self.changeable()?;
        if let Opened::File(file) = self.opened(ino)? {
            return Ok(file);
        }
        let file = self.open_file(&self.node(&self.place(ino)?)?)?;
        self.keep_open(ino, Opened::File(Arc::clone(&file)));
        Ok(file)
    }

    /// Tells whether what was open of a file that was only in the lower is still its content; if it is
    /// not, it is closed.
    pub(crate) fn is_still_lower(&self, ino: Ino) -> bool {
        let has_content = |node: Arc<Node>| {
            let state = node.state.lock();
            state.upper.is_some() && !state.content_in_lower
        };
        let is_lower = self.upper.is_none() || !self.nodes.get(ino).is_some_and(has_content);
        if !is_lower {
            self.close_kept(ino);
        }
        is_lower
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

    /// Returns what others have opened, when a lower that checks what it hands out has done so again.
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
