//! What is done to the content of an open file: done to a file, and to bytes in memory.

use std::fs::File;
use std::os::unix::fs::FileExt;

use memmap2::MmapOptions;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, copy_file_range, fallocate, posix_fadvise};
use nix::unistd::{Whence, lseek};
use proptest::prelude::*;
use strata::digest::Digest;

use crate::op::content;

/// Where, and how much.
pub(crate) type Range = (u32, u32);

/// An operation on an open file.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    Read(Range),
    Write(Range, u8),
    /// Writes with several calls of few bytes.
    WriteBits(Range, u8),
    MapRead(Range),
    /// Maps also where the kernel's overlayfs shows a file from before it was copied, and ends who reads
    /// what that did not have.
    MapAnyway(Range),
    MapWrite(Range, u8),
    Truncate(u32),
    Allocate(Room, Range),
    /// Copies to this place of what another handle has open.
    Copy(Range, u8, u32),
    /// Where data is from here on.
    Next(u32),
    /// Where a hole is from here on.
    Hole(u32),
    Sync,
    /// Lets the kernel drop what it has of the file in memory.
    Drop,
}

/// What `fallocate` does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Room {
    Grow,
    Keep,
    Punch,
    Zero,
    ZeroKeep,
}

impl Room {
    fn flags(self) -> FallocateFlags {
        let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match self {
            Self::Grow => FallocateFlags::empty(),
            Self::Keep => keep,
            Self::Punch => keep | FallocateFlags::FALLOC_FL_PUNCH_HOLE,
            Self::Zero => FallocateFlags::FALLOC_FL_ZERO_RANGE,
            Self::ZeroKeep => keep | FallocateFlags::FALLOC_FL_ZERO_RANGE,
        }
    }
}

/// Largest offset, a good part of it beside the limits of pages.
fn offset() -> impl Strategy<Value = u32> {
    prop_oneof![
        0..9_000_u32,
        0..150_000_u32,
        (0..36_u32, 0..5_u32).prop_map(|(page, near)| (page * 4096 + near).saturating_sub(2)),
    ]
}

fn range() -> impl Strategy<Value = Range> {
    (offset(), prop_oneof![0..600_u32, 0..20_000_u32, Just(4096)])
}

/// Generates an operation on an open file.
pub(crate) fn data() -> impl Strategy<Value = Data> {
    let room = prop_oneof![
        Just(Room::Grow),
        Just(Room::Keep),
        Just(Room::Punch),
        Just(Room::Zero),
        Just(Room::ZeroKeep),
    ];
    prop_oneof![
        6 => range().prop_map(Data::Read),
        6 => (range(), any::<u8>()).prop_map(|(range, seed)| Data::Write(range, seed)),
        1 => (range(), any::<u8>()).prop_map(|(range, seed)| Data::WriteBits(range, seed)),
        4 => range().prop_map(Data::MapRead),
        3 => (range(), any::<u8>()).prop_map(|(range, seed)| Data::MapWrite(range, seed)),
        3 => offset().prop_map(Data::Truncate),
        3 => (room, range()).prop_map(|(room, range)| Data::Allocate(room, range)),
        3 => (range(), 0..4_u8, offset()).prop_map(|(range, to, at)| Data::Copy(range, to, at)),
        1 => offset().prop_map(Data::Next),
        1 => offset().prop_map(Data::Hole),
        1 => Just(Data::Sync),
        2 => Just(Data::Drop),
    ]
}

/// What an operation answers.
pub(crate) type Answer = Result<String, Errno>;

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

fn shown(bytes: &[u8]) -> String {
    format!("{} bytes {}", bytes.len(), Digest::of(bytes).short())
}

fn written(seed: u8, len: u32) -> Vec<u8> {
    content(u64::from(seed), len as usize)
}

/// Does an operation; `to` is what [`Data::Copy`] copies to.
pub(crate) fn on_file(file: &File, to: Option<&File>, data: &Data) -> Answer {
    match data {
        Data::Read((at, len)) => {
            let mut bytes = vec![0; *len as usize];
            let mut read = 0;
            while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
                match file.read_at(rest, u64::from(*at) + read as u64).map_err(|e| errno(&e))? {
                    0 => break,
                    len => read += len,
                }
            }
            Ok(shown(&bytes[..read]))
        }
        Data::Write((at, len), seed) => {
            let bytes = written(*seed, *len);
            file.write_all_at(&bytes, u64::from(*at)).map_err(|error| errno(&error))?;
            Ok(String::new())
        }
        Data::WriteBits((at, len), seed) => {
            for (number, bytes) in written(*seed, *len).chunks(777).enumerate() {
                let at = u64::from(*at) + 777 * number as u64;
                file.write_all_at(bytes, at).map_err(|error| errno(&error))?;
            }
            Ok(String::new())
        }
        Data::MapRead(range) | Data::MapAnyway(range) => map_read(file, *range),
        Data::MapWrite(range, seed) => map_write(file, *range, *seed),
        Data::Truncate(size) => {
            file.set_len(u64::from(*size)).map_err(|error| errno(&error))?;
            Ok(String::new())
        }
        Data::Allocate(room, (at, len)) => {
            fallocate(file, room.flags(), i64::from(*at), i64::from(*len))?;
            Ok(String::new())
        }
        Data::Copy((at, len), _, to_at) => {
            let Some(to) = to else { return Err(Errno::EBADF) };
            let (mut at, mut to_at) = (i64::from(*at), i64::from(*to_at));
            let copied = copy_file_range(file, Some(&mut at), to, Some(&mut to_at), *len as usize)?;
            Ok(copied.to_string())
        }
        Data::Next(at) => Ok(lseek(file, i64::from(*at), Whence::SeekData)?.to_string()),
        Data::Hole(at) => Ok(lseek(file, i64::from(*at), Whence::SeekHole)?.to_string()),
        Data::Sync => {
            file.sync_all().map_err(|error| errno(&error))?;
            Ok(String::new())
        }
        Data::Drop => {
            posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
            Ok(String::new())
        }
    }
}

/// Returns the part of a range that lies in a file of this size.
fn inside((at, len): Range, size: u64) -> Option<(u64, usize)> {
    let len = size.saturating_sub(u64::from(at)).min(u64::from(len));
    (len > 0).then_some((u64::from(at), usize::try_from(len).unwrap_or(0)))
}

/// Reads what [`Data::MapRead`] would.
pub(crate) fn read_unmapped(file: &File, range: Range) -> Answer {
    let size = file.metadata().map_err(|error| errno(&error))?.len();
    match inside(range, size) {
        Some((at, len)) => {
            let range = (u32::try_from(at).unwrap(), u32::try_from(len).unwrap());
            on_file(file, None, &Data::Read(range))
        }
        None => Ok("nothing".to_owned()),
    }
}

#[allow(unsafe_code, reason = "another program could cut the file short under the map")]
fn map_read(file: &File, range: Range) -> Answer {
    let size = file.metadata().map_err(|error| errno(&error))?.len();
    let Some((at, len)) = inside(range, size) else { return Ok("nothing".to_owned()) };
    // SAFETY: the file is this test's alone, and keeps its size while it is mapped.
    let map = unsafe { MmapOptions::new().offset(at).len(len).map(file) };
    Ok(shown(&map.map_err(|error| errno(&error))?))
}

#[allow(unsafe_code, reason = "another program could cut the file short under the map")]
fn map_write(file: &File, range: Range, seed: u8) -> Answer {
    let size = file.metadata().map_err(|error| errno(&error))?.len();
    let Some((at, len)) = inside(range, size) else { return Ok("nothing".to_owned()) };
    // SAFETY: the file is this test's alone, and keeps its size while it is mapped.
    let map = unsafe { MmapOptions::new().offset(at).len(len).map_mut(file) };
    let mut map = map.map_err(|error| errno(&error))?;
    map.copy_from_slice(&content(u64::from(seed), len));
    map.flush().map_err(|error| errno(&error))?;
    Ok(String::new())
}

/// What a handle lets an operation do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct May {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) append: bool,
}

/// Does an operation to bytes in memory, but for those that need two files or look for holes.
pub(crate) fn on_bytes(bytes: &mut Vec<u8>, may: May, data: &Data) -> Answer {
    let allowed = |is_allowed: bool, errno| if is_allowed { Ok(()) } else { Err(errno) };
    let put = |bytes: &mut Vec<u8>, at: usize, new: &[u8]| {
        if !new.is_empty() && bytes.len() < at + new.len() {
            bytes.resize(at + new.len(), 0);
        }
        if let Some(place) = bytes.get_mut(at..at + new.len()) {
            place.copy_from_slice(new);
        }
    };
    match data {
        Data::Read((at, len)) => {
            allowed(may.read || *len == 0, Errno::EBADF)?;
            let start = (*at as usize).min(bytes.len());
            let end = (start + *len as usize).min(bytes.len());
            Ok(shown(&bytes[start..end]))
        }
        Data::Write((at, len), seed) | Data::WriteBits((at, len), seed) => {
            allowed(may.write || *len == 0, Errno::EBADF)?;
            let at = if may.append { bytes.len() } else { *at as usize };
            put(bytes, at, &written(*seed, *len));
            Ok(String::new())
        }
        Data::MapRead(range) | Data::MapAnyway(range) => {
            let Some((at, len)) = inside(*range, bytes.len() as u64) else {
                return Ok("nothing".to_owned());
            };
            allowed(may.read, Errno::EACCES)?;
            let at = usize::try_from(at).unwrap();
            Ok(shown(&bytes[at..at + len]))
        }
        Data::MapWrite(range, seed) => {
            let Some((at, len)) = inside(*range, bytes.len() as u64) else {
                return Ok("nothing".to_owned());
            };
            allowed(may.read && may.write, Errno::EACCES)?;
            put(bytes, usize::try_from(at).unwrap(), &content(u64::from(*seed), len));
            Ok(String::new())
        }
        Data::Truncate(size) => {
            allowed(may.write, Errno::EINVAL)?;
            bytes.resize(*size as usize, 0);
            Ok(String::new())
        }
        Data::Allocate(room, (at, len)) => {
            allowed(*len > 0, Errno::EINVAL)?;
            allowed(may.write, Errno::EBADF)?;
            let (at, end) = (*at as usize, (*at + *len) as usize);
            if matches!(room, Room::Grow | Room::Zero) && bytes.len() < end {
                bytes.resize(end, 0);
            }
            if matches!(room, Room::Punch | Room::Zero | Room::ZeroKeep) {
                let end = end.min(bytes.len());
                bytes[at.min(end)..end].fill(0);
            }
            Ok(String::new())
        }
        Data::Sync | Data::Drop => Ok(String::new()),
        other => panic!("{other:?} needs more than the bytes"),
    }
}
