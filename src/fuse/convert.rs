//! Values of the overlay as the kernel has them, and back.

use std::time::Duration;

use crate::fuse::abi::{self, SetattrIn, fattr};
use crate::overlay::{Attr, Caller, Error, Fh, Rename, Result, SetAttr};
use crate::sys::{RenameFlags, SetTime, Time};

/// How long the kernel may believe what it was told: for ever, as far as it can count.
pub(crate) const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Returns attributes as the kernel gets them.
#[allow(clippy::cast_possible_truncation, reason = "the kernel's device numbers have 32 bits")]
fn attr(attr: &Attr) -> abi::Attr {
    abi::Attr {
        ino: attr.ino.0,
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.atime.secs,
        mtime: attr.mtime.secs,
        ctime: attr.ctime.secs,
        atimensec: attr.atime.nanos,
        mtimensec: attr.mtime.nanos,
        ctimensec: attr.ctime.nanos,
        mode: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev as u32,
        blksize: attr.block_size,
        flags: 0,
    }
}

/// Returns attributes that may be believed for a while.
pub(crate) fn attr_out(of: &Attr, valid: Duration) -> abi::AttrOut {
    abi::AttrOut {
        attr_valid: valid.as_secs(),
        attr_valid_nsec: valid.subsec_nanos(),
        dummy: 0,
        attr: attr(of),
    }
}

/// Returns a file that the kernel knows from now on, with how long its name and its attributes may be
/// believed.
pub(crate) fn entry_out(of: &Attr, valid: Duration, attr_valid: Duration) -> abi::EntryOut {
    abi::EntryOut {
        nodeid: of.ino.0,
        generation: of.generation.into(),
        attr_valid: attr_valid.as_secs(),
        attr_valid_nsec: attr_valid.subsec_nanos(),
        attr: attr(of),
        ..nothing(valid)
    }
}

/// Returns what says of a name that nothing has it, which the kernel remembers.
pub(crate) fn nothing(valid: Duration) -> abi::EntryOut {
    abi::EntryOut {
        entry_valid: valid.as_secs(),
        entry_valid_nsec: valid.subsec_nanos(),
        ..abi::EntryOut::default()
    }
}

/// Returns what is open: a directory, or a file, of which there are no handles.
pub(crate) fn open_out(fh: Fh, open_flags: u32) -> abi::OpenOut {
    abi::OpenOut { fh: fh.0, open_flags, backing_id: 0 }
}

/// Returns what is to be changed.
pub(crate) fn set_attr(set: &SetattrIn) -> SetAttr {
    let has = |flag| set.valid & flag != 0;
    let time = |given, now, secs, nanos| match has(given) {
        false => None,
        true if has(now) => Some(SetTime::Now),
        true => Some(SetTime::To(Time { secs, nanos })),
    };
    SetAttr {
        mode: has(fattr::MODE).then_some(set.mode),
        uid: has(fattr::UID).then_some(set.uid),
        gid: has(fattr::GID).then_some(set.gid),
        size: has(fattr::SIZE).then_some(set.size),
        atime: time(fattr::ATIME, fattr::ATIME_NOW, set.atime, set.atimensec),
        mtime: time(fattr::MTIME, fattr::MTIME_NOW, set.mtime, set.mtimensec),
    }
}

/// Returns what a rename is to do.
pub(crate) fn rename_how(flags: u32, caller: Caller) -> Result<Rename> {
    match RenameFlags::from_bits(flags) {
        Some(flags) if flags.is_empty() => Ok(Rename::Replace),
        Some(RenameFlags::RENAME_NOREPLACE) => Ok(Rename::NoReplace),
        Some(RenameFlags::RENAME_EXCHANGE) => Ok(Rename::Exchange),
        Some(RenameFlags::RENAME_WHITEOUT) => Ok(Rename::Whiteout(caller)),
        _ => Err(Error::Invalid("these flags of rename are not known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_taken_as_they_come() {
        let valid = fattr::ATIME | fattr::MTIME | fattr::MTIME_NOW | fattr::SIZE;
        let set = SetattrIn { valid, atime: -1, atimensec: 500_000_000, ..Default::default() };
        let change = set_attr(&set);
        let before_1970 = SetTime::To(Time { secs: -1, nanos: 500_000_000 });
        assert_eq!(change.atime, Some(before_1970));
        assert_eq!(change.mtime, Some(SetTime::Now));
        assert_eq!((change.size, change.mode), (Some(0), None));
    }
}
