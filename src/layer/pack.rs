//! From a layer back to its tar, bit for bit.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::digest::DiffId;
use crate::layer::chain::ObjectSource;
use crate::layer::error::{Error, Result};
use crate::layer::index::Index;
use crate::layer::recipe::{RecipeReader, Step};

/// Reads the tar of a layer.
///
/// Whether the bytes are those of the layer's id is for the reader's user to check, who hashes them
/// anyway or has no use for it.
pub struct TarStream {
    index: Index,
    recipe: RecipeReader,
    objects: Arc<dyn ObjectSource>,
    current: Current,
    /// Object that the last step read, kept open for the next piece of the same file.
    open: Option<(u64, File)>,
    /// Bytes of the tar that have not been promised by a step yet.
    left: u64,
}

enum Current {
    Raw { left: u64 },
    Heap { offset: u64, left: u64 },
    Object { offset: u64, left: u64 },
    End,
}

impl std::fmt::Debug for TarStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TarStream").field("diff_id", &self.recipe.diff_id()).finish_non_exhaustive()
    }
}

impl TarStream {
    /// Returns a reader of the tar that a layer's index and recipe make.
    ///
    /// # Errors
    /// [`Error::Recipe`] when the two are not of one layer.
    pub fn new(index: Index, recipe: File, objects: Arc<dyn ObjectSource>) -> Result<Self> {
        let recipe = RecipeReader::open(recipe)?;
        if recipe.diff_id() != DiffId(index.id()) || recipe.tar_len() != index.tar_len() {
            return Err(Error::Recipe("it is that of another layer"));
        }
        let (current, left) = (Current::Raw { left: 0 }, recipe.tar_len());
        Ok(Self { index, recipe, objects, current, open: None, left })
    }

    /// Returns the length of the tar in bytes.
    pub const fn len_bytes(&self) -> u64 {
        self.recipe.tar_len()
    }

    fn advance(&mut self) -> Result<()> {
        self.current = match self.recipe.next_step()? {
            None => Current::End,
            Some(Step::Raw(left)) => Current::Raw { left },
            Some(Step::Heap { offset, len }) => Current::Heap { offset, left: len },
            Some(Step::Object { number, offset, len }) => {
                if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
                    let (digest, _) = self.index.object(number)?;
                    let file = self.objects.open(digest);
                    let file = file.map_err(|source| Error::Object { digest, source })?;
                    self.open = Some((number, file));
                }
                Current::Object { offset, left: len }
            }
        };
        // A recipe that says a few bytes over and over would never end.
        let left = self.left.checked_sub(self.current_left());
        self.left = left.ok_or(Error::Recipe("it gives more than the length of the tar"))?;
        Ok(())
    }

    /// Returns how many bytes the step that is being done gives yet.
    fn current_left(&self) -> u64 {
        match &self.current {
            Current::Raw { left } | Current::Heap { left, .. } | Current::Object { left, .. } => {
                *left
            }
            Current::End => 0,
        }
    }

    fn read_current(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = match &mut self.current {
            Current::Raw { left } => {
                let len = self.recipe.read_raw(buffer)?;
                *left -= len as u64;
                len
            }
            Current::Heap { offset, left } => {
                let bytes = self.index.heap(*offset, buffer.len() as u64);
                buffer.copy_from_slice(bytes.map_err(io::Error::other)?);
                *offset += buffer.len() as u64;
                *left -= buffer.len() as u64;
                buffer.len()
            }
            Current::Object { offset, left } => {
                let Some((_, file)) = &self.open else { return Ok(0) };
                let len = file.read_at(buffer, *offset)?;
                *offset += len as u64;
                *left -= len as u64;
                len
            }
            Current::End => return Ok(0),
        };
        if len == 0 {
            let text = "a piece of the layer is shorter than its recipe says";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        Ok(len)
    }
}

impl Read for TarStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.current_left() == 0 {
            if matches!(self.current, Current::End) {
                return Ok(0);
            }
            self.advance().map_err(io::Error::other)?;
        }
        let len = usize::try_from(self.current_left()).unwrap_or(usize::MAX).min(buffer.len());
        self.read_current(buffer.get_mut(..len).unwrap_or_default())
    }
}
