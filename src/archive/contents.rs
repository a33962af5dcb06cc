//! The files of an archive by name, and what links make of them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};

use crate::archive::error::{Error, Result};
use crate::archive::name::{normal, target_of};
use crate::layer::{TarFileKind, TarFiles};

/// Most files of an archive. One of docker has three for each layer.
const MAX_FILES: usize = 100_000;
/// Most bytes of their names, and of where links lead.
const MAX_TEXT: usize = 16 << 20;
/// Longest way over links, that of the kernel.
const MAX_LINKS: usize = 40;
/// Bytes read from the archive at once.
const READ_BYTES: usize = 128 * 1024;

/// What an archive has under which name.
#[derive(Debug)]
pub struct Contents<F> {
    entries: HashMap<String, Entry<F>>,
    /// Bytes of names and of where links lead.
    text_bytes: usize,
}

#[derive(Debug)]
enum Entry<F> {
    File(F),
    Link(String),
}

/// Where a file is in a tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Where it begins.
    pub offset: u64,
    /// Its length in bytes.
    pub size: u64,
}

impl<F> Contents<F> {
    fn new() -> Self {
        Self { entries: HashMap::new(), text_bytes: 0 }
    }

    /// Tells whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns what is under a name, over links; none when there is nothing.
    ///
    /// # Errors
    /// [`Error::Link`] for links that go in a circle.
    pub fn find(&self, name: &str) -> Result<Option<&F>> {
        let mut at = name;
        for _ in 0..MAX_LINKS {
            match self.entries.get(at) {
                None => return Ok(None),
                Some(Entry::File(file)) => return Ok(Some(file)),
                Some(Entry::Link(target)) => at = target,
            }
        }
        let (name, target) = (name.to_owned(), at.to_owned());
        Err(Error::Link { name, target, reason: "the links go in a circle" })
    }

    /// Adds an entry of a tar; a later one of the same name replaces an earlier one.
    fn add(&mut self, path: &[u8], entry: Entry<F>) -> Result<()> {
        if self.entries.len() >= MAX_FILES {
            return Err(Error::TooMany { what: "files", limit: MAX_FILES });
        }
        let target = if let Entry::Link(target) = &entry { target.len() } else { 0 };
        self.text_bytes += path.len() + target;
        if self.text_bytes > MAX_TEXT {
            return Err(Error::TooMany { what: "bytes of names", limit: MAX_TEXT });
        }
        self.entries.insert(normal(path)?, entry);
        Ok(())
    }
}

/// Takes a file of a stream: its name, its length in bytes, its content.
pub type Keep<'a, F, E> =
    dyn FnMut(&str, u64, &mut (dyn Read + Send)) -> std::result::Result<F, E> + 'a;

/// Reads a tar once, from its beginning to its end. `keep` gets each regular file as it comes; what
/// it returns is what is found under the name.
///
/// # Errors
/// Those of `keep`, but that the tar was cut off is told before what `keep` made of it.
pub fn scan<F, E: From<Error>>(
    tar: impl Read + Send,
    keep: &mut Keep<'_, F, E>,
) -> std::result::Result<Contents<F>, E> {
    let mut files = TarFiles::new(BufReader::with_capacity(READ_BYTES, tar));
    let mut contents = Contents::new();
    while let Some(file) = files.next_file().map_err(Error::from)? {
        let name = normal(&file.path)?;
        let entry = match file.kind {
            TarFileKind::Regular => match keep(&name, file.size, &mut files) {
                Ok(kept) => Entry::File(kept),
                Err(error) => {
                    drain(&mut files)?;
                    return Err(error);
                }
            },
            TarFileKind::Symlink(target) => Entry::Link(target_of(&name, &target)?),
            TarFileKind::HardLink(target) => Entry::Link(normal(&target)?),
            TarFileKind::Other => continue,
        };
        contents.add(&file.path, entry)?;
    }
    Ok(contents)
}

/// Looks for all files of a tar without reading them.
pub fn scan_seekable(tar: &File) -> Result<Contents<Range>> {
    let end = tar.metadata()?.len();
    let mut files = TarFiles::new(BufReader::new(tar));
    let mut contents = Contents::new();
    while let Some(file) = files.next_file()? {
        let name = normal(&file.path)?;
        let entry = match file.kind {
            TarFileKind::Regular => Entry::File(Range { offset: file.offset, size: file.size }),
            TarFileKind::Symlink(target) => Entry::Link(target_of(&name, &target)?),
            TarFileKind::HardLink(target) => Entry::Link(normal(&target)?),
            TarFileKind::Other => continue,
        };
        files.skip_content(end)?;
        contents.add(&file.path, entry)?;
    }
    Ok(contents)
}

/// Reads the rest of a file. What breaks here has broken the reading before.
fn drain(reader: &mut dyn Read) -> Result<()> {
    match io::copy(reader, &mut io::sink()) {
        Ok(_) => Ok(()),
        Err(error) => match error.downcast::<crate::layer::Error>() {
            Ok(error) => Err(Error::Tar(error)),
            Err(error) => Err(Error::Io(error)),
        },
    }
}
