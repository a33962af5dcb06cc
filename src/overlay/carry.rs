//! What a server that is replaced hands to the one that goes on: what it would have noted, and where
//! files are, so that nothing has to be walked for them.
//!
//! In bytes, all numbers little-endian: the version, then how many facts there are and each as it is
//! noted, with its place in the row of descriptors that go with it for the descriptor; then how many
//! names there are, each with the number of the file, that of its directory, a length and the name.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use crate::overlay::again::Names;
use crate::overlay::error::{Error, Result};
use crate::overlay::node::{Node, Numbered};
use crate::overlay::notes::{Fact, FactWords, Notes};
use crate::overlay::upper::Upper;
use crate::overlay::{Ino, Overlay};
use crate::sys;

/// The form of what is carried.
const VERSION: u64 = 1;

/// What is carried from one server to the next.
#[derive(Debug)]
pub struct Carried {
    /// Facts and names.
    pub bytes: Vec<u8>,
    /// Descriptors that facts have.
    pub descriptors: Vec<OwnedFd>,
}

/// Puts together what is carried.
#[derive(Debug, Default)]
struct Packer {
    facts: Vec<FactWords>,
    descriptors: Vec<OwnedFd>,
    names: Vec<(Ino, Ino, Box<OsStr>)>,
}

impl Packer {
    fn fact(&mut self, fact: Fact, file: Option<BorrowedFd<'_>>) -> Result<()> {
        let at = i32::try_from(self.descriptors.len()).unwrap_or(i32::MAX);
        self.facts.push(fact.with_fd(at).encode());
        self.descriptors.extend(file.map(sys::dup).transpose()?);
        Ok(())
    }

    fn node(&mut self, node: &Arc<Node>) -> Result<()> {
        let (ino, kind, lower) = (node.ino, node.kind, node.lower);
        let state = node.state.lock();
        let pin = state.pin.as_ref().map(|pin| pin.fd());
        match (&pin, state.upper) {
            (Some(pin), Some(inode)) => {
                let fact = Fact::Pinned { ino, kind, inode, lower, fd: 0 };
                self.fact(fact, Some(pin.as_fd()))?;
            }
            (_, None) if state.gone => self.fact(Fact::Gone { ino, kind }, None)?,
            _ => {}
        }
        if let (Numbered::Otherwise(_), Some(inode)) = (&state.number, state.upper) {
            self.fact(Fact::Number { ino, inode }, None)?;
        }
        if state.upper.is_some() {
            let names = state.names.iter();
            let names = names.map(|name| (ino, name.dir.ino, Box::<OsStr>::from(&*name.name)));
            self.names.extend(names);
        }
        Ok(())
    }

    fn finish(self) -> Carried {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        bytes.extend((self.facts.len() as u64).to_le_bytes());
        for word in self.facts.iter().flatten() {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend((self.names.len() as u64).to_le_bytes());
        for (ino, dir, name) in &self.names {
            for number in [ino.0, dir.0, name.len() as u64] {
                bytes.extend(number.to_le_bytes());
            }
            bytes.extend(name.as_bytes());
        }
        Carried { bytes, descriptors: self.descriptors }
    }
}

impl Carried {
    /// Notes all facts, as if a server had that this process has forked; returns the names.
    pub(crate) fn unpack(self, notes: &Arc<Notes>) -> Result<Names<Ino>> {
        let mut bytes = self.bytes.as_slice();
        if number(&mut bytes)? != VERSION {
            return Err(Error::Invalid("what is carried has a form that is not known here"));
        }
        let mut descriptors: Vec<_> = self.descriptors.into_iter().map(Some).collect();
        for _ in 0..number(&mut bytes)? {
            let mut words = FactWords::default();
            for word in &mut words {
                *word = number(&mut bytes)?;
            }
            let fact = Fact::decode(words).ok_or(UNKNOWN)?;
            let file = match fact.fd().map(usize::try_from) {
                Some(Ok(at)) => {
                    Some(descriptors.get_mut(at).and_then(Option::take).ok_or(UNKNOWN)?)
                }
                Some(Err(_)) => return Err(UNKNOWN),
                None => None,
            };
            notes.leave(fact, file)?;
        }
        let mut names = Names::new();
        for _ in 0..number(&mut bytes)? {
            let (ino, dir) = (Ino(number(&mut bytes)?), Ino(number(&mut bytes)?));
            let len = usize::try_from(number(&mut bytes)?).map_err(|_| UNKNOWN)?;
            let (name, rest) = bytes.split_at_checked(len).ok_or(UNKNOWN)?;
            names.entry(ino).or_default().push((dir, OsStr::from_bytes(name).into()));
            bytes = rest;
        }
        Ok(names)
    }
}

const UNKNOWN: Error = Error::Invalid("what is carried is not understood here");

fn number(bytes: &mut &[u8]) -> Result<u64> {
    let (number, rest) = bytes.split_first_chunk().ok_or(UNKNOWN)?;
    *bytes = rest;
    Ok(u64::from_le_bytes(*number))
}

impl Overlay {
    /// Returns what the process that goes on must have. Nothing may be asked of this one any more.
    pub fn carried(&self) -> Result<Carried> {
        let mut packer = Packer::default();
        for node in self.nodes.all() {
            packer.node(&node)?;
        }
        self.open_dirs
            .each(|fh, file| packer.fact(Fact::Listing { fh, fd: 0 }, Some(file.as_fd())))?;
        if self.upper.as_ref().is_some_and(Upper::has_lost) {
            packer.fact(Fact::Lost, None)?;
        }
        if let Some(again) = &self.again {
            again.each_left(|fact, file| packer.fact(fact, file))?;
        }
        Ok(packer.finish())
    }

    /// Returns how many servers there were before this one.
    pub const fn servers(&self) -> u64 {
        self.servers
    }

    /// Takes over what the server before this one has carried over, to begin then: what it has noted is
    /// noted for this one.
    pub fn take_over(&mut self, carried: Carried, servers: u64) -> Result<()> {
        if self.notes.is_none() {
            self.keep_notes(Arc::new(Notes::new()?));
        }
        if let Some(notes) = &self.notes {
            notes.begin_after(servers);
            self.found = Some(carried.unpack(notes)?);
        }
        Ok(())
    }

    /// Notes nothing from now on: nobody goes on after this process unless it is told to carry over.
    pub fn stop_noting(&mut self) {
        self.notes = None;
    }
}
