//! Contents: reading and writing. A lower file is only ever read. Opening for writing copies nothing;
//! the first write does.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::layer::Kind;
use crate::overlay::copy_up::{Need, WHOLE};
use crate::overlay::error::{Error, Result};
use crate::overlay::lower::{LowerFile, read_fully};
use crate::overlay::node::Node;
use crate::overlay::notes::Fact;
use crate::overlay::open::{Content, Opened};
use crate::overlay::place::Place;
use crate::overlay::upper::Upper;
use crate::overlay::{Ino, Overlay};
use crate::sys::{self, Errno, open_flags};

/// Where to go on in a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// To the next byte that is stored.
    Data,
    /// To the next hole.
    Hole,
}

impl Overlay {
    /// Reads at an offset into all of `buffer`, or to the end of the file; tells how much.
    pub fn read(&self, ino: Ino, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.with_content(ino, |content| content.read_at(buffer, offset))
    }

    /// Calls `with` on the content of a file as it is at the moment. It is called again if the file
    /// was copied up and may have been written to meanwhile.
    fn with_content<T>(&self, ino: Ino, mut with: impl FnMut(Seen<'_>) -> Result<T>) -> Result<T> {
        loop {
            match self.opened(ino)? {
                // Nobody is switched to the copy while this is locked.
                Opened::File(file) => match &*file.content.read() {
                    Content::Lower(lower) => return with(Seen::Lower(lower)),
                    Content::Upper(upper) => return with(Seen::Upper(upper)),
                },
                Opened::Lower(lower) => {
                    let answer = with(Seen::Lower(&lower));
                    if self.is_still_lower(ino) {
                        return answer;
                    }
                }
            }
        }
    }

    /// Writes all of `bytes` at an offset.
    pub fn write(&self, ino: Ino, bytes: &[u8], offset: u64) -> Result<()> {
        let file = self.upper_file(ino)?;
        let written = file.write_all_at(bytes, offset);
        if let (Err(error), Some(upper)) = (&written, &self.upper) {
            upper.note_failed_write(error);
            self.note_losses(upper);
        }
        Ok(written?)
    }

    /// Returns the file of the upper that is written to; it is copied up if it must be.
    fn upper_file(&self, ino: Ino) -> Result<Arc<File>> {
        let file = self.opened_to_change(ino)?;
        if let Content::Upper(upper) = &*file.content.read() {
            return Ok(Arc::clone(upper));
        }
        self.copy_up(&file.node, WHOLE)?;
        match &*file.content.read() {
            Content::Upper(upper) => Ok(Arc::clone(upper)),
            Content::Lower(_) => Err(Error::Stale(ino.0)),
        }
    }

    /// Gives a regular file another size.
    pub(crate) fn set_size(&self, node: &Arc<Node>, size: u64) -> Result<()> {
        match node.kind {
            Kind::Regular => {}
            Kind::Directory => return Err(Error::IsDirectory),
            _ => return Err(Error::Invalid("only regular files have a size to change")),
        }
        self.copy_up(node, Need::Content(size))?;
        let file = self.upper_file(node.ino)?;
        Ok(sys::truncate_fd(file.as_fd(), size)?)
    }

    /// Reserves or releases room in a file (`fallocate`).
    pub fn allocate(&self, ino: Ino, mode: i32, offset: u64, len: u64) -> Result<()> {
        let file = self.upper_file(ino)?;
        Ok(sys::allocate(file.as_fd(), mode, offset, len)?)
    }

    /// Copies bytes from one file to another; tells how many.
    pub fn copy_range(
        &self,
        (from, from_offset): (Ino, u64),
        (to, to_offset): (Ino, u64),
        len: usize,
    ) -> Result<usize> {
        let to = self.upper_file(to)?;
        // Nothing is locked while they are copied: that may take long.
        match self.with_content(from, |content| Ok(content.keep()))? {
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
    pub fn seek(&self, ino: Ino, offset: u64, whence: Seek) -> Result<u64> {
        let next = |file: &File| match whence {
            Seek::Data => sys::seek_data(file.as_fd(), offset),
            Seek::Hole => sys::seek_hole(file.as_fd(), offset),
        };
        let found = self.with_content(ino, |content| match content {
            Seen::Upper(file) | Seen::Lower(LowerFile::File(file)) => Ok(next(file)?),
            Seen::Lower(LowerFile::Bytes(bytes)) => {
                let len = bytes.len() as u64;
                let to = if whence == Seek::Data { offset } else { len };
                Ok((offset < len).then_some(to))
            }
        })?;
        found.ok_or_else(|| Error::Sys(sys::Error::new("lseek()", Errno::ENXIO)))
    }

    /// Makes the content of a file durable; what is only in the lower is.
    pub fn sync(&self, ino: Ino, content_only: bool) -> Result<()> {
        let place = self.place(ino)?;
        let node = match (&self.upper, place) {
            (Some(upper), _) if upper.is_volatile() => return self.sync_nothing(upper),
            (Some(_), Place::Node(node)) if node.is_in_upper() => node,
            (_, _) => return Ok(()),
        };
        let content = match self.opened(ino)? {
            Opened::File(file) => match &*file.content.read() {
                Content::Upper(upper) => Some(Arc::clone(upper)),
                Content::Lower(_) => None,
            },
            Opened::Lower(_) => None,
        };
        let upper = match content {
            Some(upper) => upper,
            // Only its attributes have changed.
            None => Arc::new(self.open_upper(&node)?),
        };
        let synced = if content_only { upper.sync_data() } else { upper.sync_all() };
        Ok(synced?)
    }

    /// Answers who wants something synced where nothing is: with an error if changes are known to be
    /// lost.
    fn sync_nothing(&self, upper: &Upper) -> Result<()> {
        if upper.remembers_losses() {
            self.check_all_losses();
        }
        upper.check_losses()
    }

    /// Writes down that changes are lost, when they are.
    pub(crate) fn note_losses(&self, upper: &Upper) {
        if !upper.has_lost() || self.lost_is_noted.swap(true, Ordering::Relaxed) {
            return;
        }
        match self.note(Fact::Lost) {
            // It stays so as long as the mount.
            Ok(note) => std::mem::forget(note),
            Err(error) => tracing::warn!("{error}"),
        }
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
}

/// The content of a file, where it is.
enum Seen<'a> {
    Lower(&'a LowerFile),
    Upper(&'a Arc<File>),
}

impl Seen<'_> {
    fn keep(&self) -> LowerFile {
        match self {
            Self::Lower(lower) => (*lower).clone(),
            Self::Upper(upper) => LowerFile::File(Arc::clone(upper)),
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        match self {
            Self::Lower(lower) => lower.read_at(buffer, offset),
            Self::Upper(upper) => read_fully(upper, buffer, offset),
        }
    }
}
