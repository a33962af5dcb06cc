//! Reading a request: its header, then the structure of the operation, then names or bytes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use zerocopy::{FromBytes, IntoBytes};

use crate::fuse::abi::{InHeader, RESENT, opcode};
use crate::overlay::{Attempt, Caller, Error, Fh, Ino, Result};
use crate::sys;

/// A request of the kernel.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    header: InHeader,
    body: &'a [u8],
    attempt: Attempt<'a>,
}

impl<'a> Request<'a> {
    /// Returns the request that these bytes are; none if they are cut short.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, body) = InHeader::read_from_prefix(bytes).ok()?;
        Self::new(header, body)
    }

    /// Returns the request of a header and what follows it.
    pub(crate) fn new(header: InHeader, body: &'a [u8]) -> Option<Self> {
        // What a version to come adds at the end belongs to nothing that is read here.
        let extensions = usize::from(header.total_extlen) * 8;
        let body = body.get(..body.len().checked_sub(extensions)?)?;
        Some(Self { header, body, attempt: Attempt::Only })
    }

    /// Returns the request as one that may be asked again, or is.
    pub(crate) const fn attempted(self, attempt: Attempt<'a>) -> Self {
        Self { attempt, ..self }
    }

    /// Returns which time it is asked.
    pub(crate) const fn attempt(&self) -> Attempt<'a> {
        self.attempt
    }

    /// Tells whether the kernel asks again what a server has died over.
    pub(crate) const fn is_resent(&self) -> bool {
        self.header.unique & RESENT != 0
    }

    /// Returns what is asked.
    pub(crate) const fn opcode(&self) -> u32 {
        self.header.opcode
    }

    /// Returns the number that its answer must have.
    pub(crate) const fn unique(&self) -> u64 {
        self.header.unique
    }

    /// Tells whether the kernel waits for an answer.
    pub(crate) const fn is_answered(&self) -> bool {
        !self.is_forgetting()
    }

    /// Tells whether the kernel forgets something.
    pub(crate) const fn is_forgetting(&self) -> bool {
        matches!(self.header.opcode, opcode::FORGET | opcode::BATCH_FORGET)
    }

    /// Returns the file that it is about, or the directory of the name that it is about.
    pub(crate) const fn ino(&self) -> Ino {
        Ino(self.header.nodeid)
    }

    /// Returns the thread that asks; none if the process identifiers of this server do not reach it.
    pub(crate) fn thread(&self) -> Option<u32> {
        Some(self.header.pid).filter(|pid| *pid != 0)
    }

    /// Tells whether root asks.
    pub(crate) const fn is_root(&self) -> bool {
        self.header.uid == 0
    }

    /// Tells whether who asks is in a group.
    pub(crate) fn is_in_group(&self, group: u32) -> bool {
        let is_in = |pid| sys::groups_of(pid).is_ok_and(|groups| groups.contains(&group));
        self.header.gid == group || self.thread().is_some_and(is_in)
    }

    /// Returns who asks, with the permissions that files they make do not get.
    pub(crate) const fn caller(&self, umask: u32) -> Caller {
        Caller { uid: self.header.uid, gid: self.header.gid, umask }
    }

    /// Returns what follows the header.
    pub(crate) const fn args(&self) -> Args<'a> {
        Args(self.body)
    }
}

/// What follows the header, read from the front.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Args<'a>(&'a [u8]);

impl<'a> Args<'a> {
    /// Takes a structure.
    pub(crate) fn take<T: FromBytes>(&mut self) -> Result<T> {
        let (value, rest) = T::read_from_prefix(self.0).map_err(|_| CUT)?;
        self.0 = rest;
        Ok(value)
    }

    /// Takes a structure that older kernels send shorter, with zeros for what they leave out.
    pub(crate) fn take_padded<T: FromBytes + IntoBytes + Default>(&mut self) -> T {
        let mut value = T::default();
        let (taken, rest) = self.0.split_at(self.0.len().min(size_of::<T>()));
        for (to, from) in value.as_mut_bytes().iter_mut().zip(taken) {
            *to = *from;
        }
        self.0 = rest;
        value
    }

    /// Takes a name, which ends with a zero.
    pub(crate) fn name(&mut self) -> Result<&'a OsStr> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(CUT)?;
        let (name, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        Ok(OsStr::from_bytes(name))
    }

    /// Takes this many bytes.
    pub(crate) fn bytes(&mut self, len: u32) -> Result<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len as usize).ok_or(CUT)?;
        self.0 = rest;
        Ok(bytes)
    }
}

const CUT: Error = Error::Invalid("the request is cut short");

/// Returns the handle of a number; a tree that cannot be changed has none.
pub(crate) fn handle(fh: u64) -> Option<Fh> {
    (fh != 0).then_some(Fh(fh))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuse::abi::{MkdirIn, SetxattrIn};

    fn header(opcode: u32, extensions: u16) -> InHeader {
        InHeader {
            len: 0,
            opcode,
            unique: 9,
            nodeid: 5,
            uid: 1,
            gid: 2,
            pid: 3,
            total_extlen: extensions,
            padding: 0,
        }
    }

    #[test]
    fn a_request_is_read_to_its_end_and_not_past_it() {
        let mut bytes = header(opcode::MKDIR, 1).as_bytes().to_vec();
        bytes.extend(MkdirIn { mode: 0o755, umask: 0o22 }.as_bytes());
        bytes.extend(b"name\0\xff\xff\xff\xff\xff\xff\xff\xff");
        let request = Request::parse(&bytes).unwrap();
        assert_eq!((request.opcode(), request.unique(), request.ino()), (9, 9, Ino(5)));
        let mut args = request.args();
        assert_eq!(args.take::<MkdirIn>().unwrap().umask, 0o22);
        assert_eq!(args.name().unwrap(), "name");
        assert!(args.name().is_err(), "the extension is no argument");
    }

    #[test]
    fn requests_that_are_cut_short_are_refused() {
        assert!(Request::parse(&[0; 39]).is_none());
        assert!(Request::parse(header(opcode::LOOKUP, 1).as_bytes()).is_none());
        let bytes = header(opcode::LOOKUP, 0);
        let mut args = Request::parse(bytes.as_bytes()).unwrap().args();
        assert!(args.take::<MkdirIn>().is_err());
        assert!(args.name().is_err());
        assert!(args.bytes(1).is_err());
        assert_eq!(Args(&[7, 0]).take_padded::<SetxattrIn>().size, 7);
    }
}
