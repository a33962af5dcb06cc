//! Doing the two halves of a job at once: a thread that reads ahead, a thread that takes turns.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

/// Bytes handed over at once.
const CHUNK: usize = 256 * 1024;
/// Chunks that lie between the two.
const AHEAD: usize = 4;

/// Reads what another thread reads ahead.
pub(crate) struct ReadAhead {
    chunks: Receiver<io::Result<Vec<u8>>>,
    current: Vec<u8>,
    at: usize,
}

impl ReadAhead {
    /// Begins to read `reader` in a thread of `scope`. When this is dropped, the thread ends.
    pub(crate) fn new<'scope>(
        scope: &'scope Scope<'scope, '_>,
        mut reader: impl Read + Send + 'scope,
    ) -> Self {
        let (sender, chunks) = sync_channel(AHEAD);
        scope.spawn(move || {
            loop {
                let mut chunk = vec![0; CHUNK];
                let read = fill(&mut reader, &mut chunk).map(|len| {
                    chunk.truncate(len);
                    chunk
                });
                let last = !matches!(&read, Ok(chunk) if !chunk.is_empty());
                // Nobody listens any more when the other half has failed.
                if sender.send(read).is_err() || last {
                    return;
                }
            }
        });
        Self { chunks, current: Vec::new(), at: 0 }
    }
}

fn fill(reader: &mut impl Read, chunk: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < chunk.len() {
        match reader.read(&mut chunk[filled..]) {
            Ok(0) => break,
            Ok(len) => filled += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

impl Read for ReadAhead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.current.len() {
            self.at = 0;
            self.current = match self.chunks.recv() {
                Ok(chunk) => chunk?,
                // The end was handed over before.
                Err(_) => Vec::new(),
            };
        }
        let rest = &self.current[self.at..];
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        self.at += len;
        Ok(len)
    }
}

/// Counts what is read, and tells in steps.
pub(crate) struct Counted<R, F> {
    reader: R,
    done: u64,
    told: u64,
    tell: F,
}

/// Bytes between two tellings.
const TELL_EVERY: u64 = 256 * 1024;

impl<R: Read, F: Fn(u64)> Counted<R, F> {
    /// Returns a reader that tells how many bytes of `reader` have been read.
    pub(crate) const fn new(reader: R, tell: F) -> Self {
        Self { reader, done: 0, told: 0, tell }
    }
}

impl<R: Read, F: Fn(u64)> Read for Counted<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.reader.read(buffer)?;
        self.done += len as u64;
        if self.done - self.told >= TELL_EVERY {
            self.told = self.done;
            (self.tell)(self.done);
        }
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_ahead_is_what_was_read() {
        let bytes: Vec<u8> = (0..=250).cycle().take(3 * CHUNK + 7).collect();
        let mut found = Vec::new();
        std::thread::scope(|scope| {
            ReadAhead::new(scope, &bytes[..]).read_to_end(&mut found).unwrap();
        });
        assert_eq!(found, bytes);
    }

    #[test]
    fn an_error_of_the_reader_arrives_behind_what_it_read() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        std::thread::scope(|scope| {
            let mut text = String::new();
            let mut reader = ReadAhead::new(scope, b"text".chain(Broken));
            assert_eq!(reader.read_to_string(&mut text).unwrap_err().to_string(), "broken");
        });
    }

    #[test]
    fn a_reader_that_is_given_up_does_not_hang() {
        std::thread::scope(|scope| {
            drop(ReadAhead::new(scope, io::repeat(1)));
        });
    }
}
