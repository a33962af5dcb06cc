//! Extended attributes of what an open descriptor stands for, or of a name in a directory.
//!
//! The calls go through `/proc/self/fd`, because those that take a descriptor refuse `O_PATH`.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::sys::error::{Error, check, check_raw};
use crate::sys::{Errno, Result};

/// Whose attributes are meant. A symbolic link is meant itself.
#[derive(Clone, Copy, Debug)]
pub enum XattrTarget<'a> {
    /// What the descriptor stands for; it may be `O_PATH`.
    Fd(BorrowedFd<'a>),
    /// The file with this name in this directory.
    At(BorrowedFd<'a>, &'a OsStr),
}

/// When an attribute may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetXattr {
    /// Always.
    Any,
    /// Only if it does not exist (`XATTR_CREATE`).
    Create,
    /// Only if it exists (`XATTR_REPLACE`).
    Replace,
}

impl SetXattr {
    /// Returns what the flags of setxattr(2) say.
    pub const fn from_flags(flags: i32) -> Self {
        match flags {
            libc::XATTR_CREATE => Self::Create,
            libc::XATTR_REPLACE => Self::Replace,
            _ => Self::Any,
        }
    }
}

impl XattrTarget<'_> {
    fn path(&self) -> nix::Result<CString> {
        let path = match self {
            // The trailing slash-free magic link leads to the file itself, also to a symlink.
            Self::Fd(fd) => format!("/proc/self/fd/{}", fd.as_raw_fd()).into_bytes(),
            Self::At(dir, name) => {
                let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
                path.extend_from_slice(name.as_bytes());
                path
            }
        };
        CString::new(path).map_err(|_| Errno::EINVAL)
    }
}

/// Tries growing buffers until the value fits.
fn read_growing(
    mut read: impl FnMut(*mut libc::c_void, usize) -> libc::ssize_t,
) -> nix::Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match Errno::result(read(buffer.as_mut_ptr().cast(), buffer.len())) {
            Ok(len) => {
                buffer.truncate(usize::try_from(len).unwrap_or(0));
                return Ok(buffer);
            }
            Err(Errno::ERANGE) if buffer.len() < 1 << 20 => {
                buffer.resize(buffer.len() * 16, 0);
            }
            Err(errno) => return Err(errno),
        }
    }
}

fn c_name(name: &OsStr) -> nix::Result<CString> {
    CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL)
}

/// Returns the value of an attribute.
///
/// # Errors
/// `ENODATA` when it is not set.
pub fn get_xattr(target: XattrTarget<'_>, name: &OsStr) -> Result<Vec<u8>> {
    check(read_xattr(&target, name), || told_get(&target, name))
}

fn told_get(target: &XattrTarget<'_>, name: &OsStr) -> String {
    format!("getxattr({target:?}, {name:?})")
}

fn read_xattr(target: &XattrTarget<'_>, name: &OsStr) -> nix::Result<Vec<u8>> {
    let (path, key) = (target.path()?, c_name(name)?);
    read_growing(|buffer, len| get(target, &path, &key, buffer, len))
}

fn get(
    target: &XattrTarget<'_>,
    path: &CStr,
    key: &CStr,
    buffer: *mut libc::c_void,
    len: usize,
) -> libc::ssize_t {
    match target {
        // SAFETY: both strings end with NUL; `buffer` has room for `len` bytes.
        XattrTarget::Fd(_) => unsafe { libc::getxattr(path.as_ptr(), key.as_ptr(), buffer, len) },
        XattrTarget::At(..) => {
            // SAFETY: as above.
            unsafe { libc::lgetxattr(path.as_ptr(), key.as_ptr(), buffer, len) }
        }
    }
}

/// Returns the value of an attribute; none where it is not set or the file system has no such
/// attributes.
pub fn xattr_if_set(target: XattrTarget<'_>, name: &OsStr) -> Result<Option<Vec<u8>>> {
    match read_xattr(&target, name) {
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(None),
        read => check(read.map(Some), || told_get(&target, name)),
    }
}

/// Returns the names of all attributes.
pub fn list_xattr(target: XattrTarget<'_>) -> Result<Vec<OsString>> {
    let read = || {
        let path = target.path()?;
        read_growing(|buffer, len| match target {
            // SAFETY: the path ends with NUL; `buffer` has room for `len` bytes.
            XattrTarget::Fd(_) => unsafe { libc::listxattr(path.as_ptr(), buffer.cast(), len) },
            XattrTarget::At(..) => {
                // SAFETY: as above.
                unsafe { libc::llistxattr(path.as_ptr(), buffer.cast(), len) }
            }
        })
    };
    let list = match read() {
        Err(Errno::EOPNOTSUPP) => Vec::new(),
        other => check(other, || format!("listxattr({target:?})"))?,
    };
    let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| OsString::from_vec(name.to_vec())).collect())
}

/// Sets an attribute.
pub fn set_xattr(
    target: XattrTarget<'_>,
    name: &OsStr,
    value: &[u8],
    when: SetXattr,
) -> Result<()> {
    let call = || format!("setxattr({target:?}, {name:?}, {} bytes, {when:?})", value.len());
    let strings = || Ok((target.path()?, c_name(name)?));
    let (path, key) = check(strings(), call)?;
    let flags = match when {
        SetXattr::Any => 0,
        SetXattr::Create => libc::XATTR_CREATE,
        SetXattr::Replace => libc::XATTR_REPLACE,
    };
    let (path, key) = (path.as_ptr(), key.as_ptr());
    let (bytes, len) = (value.as_ptr().cast(), value.len());
    let result = match target {
        // SAFETY: both strings end with NUL; `bytes` and `len` are those of `value`.
        XattrTarget::Fd(_) => unsafe { libc::setxattr(path, key, bytes, len, flags) },
        // SAFETY: as above.
        XattrTarget::At(..) => unsafe { libc::lsetxattr(path, key, bytes, len, flags) },
    };
    check_raw(result, call).map(drop)
}

/// Removes an attribute.
///
/// # Errors
/// `ENODATA` when it is not set.
pub fn remove_xattr(target: XattrTarget<'_>, name: &OsStr) -> Result<()> {
    let call = || format!("removexattr({target:?}, {name:?})");
    let strings = || -> std::result::Result<_, Errno> { Ok((target.path()?, c_name(name)?)) };
    let (path, key) = strings().map_err(|errno| Error::new(call(), errno))?;
    let result = match target {
        // SAFETY: both strings end with NUL.
        XattrTarget::Fd(_) => unsafe { libc::removexattr(path.as_ptr(), key.as_ptr()) },
        // SAFETY: as above.
        XattrTarget::At(..) => unsafe { libc::lremovexattr(path.as_ptr(), key.as_ptr()) },
    };
    check_raw(result, call).map(drop)
}
