//! The error of a refused system call: which call, with which arguments, and the errno.

use std::fmt;
use std::io;

/// The numbers of errors, by name.
pub use nix::errno::Errno;

/// What a wrapper returns.
pub type Result<T> = std::result::Result<T, Error>;

/// A system call that was refused.
#[derive(Debug)]
pub struct Error {
    call: Box<str>,
    errno: Errno,
}

impl Error {
    /// Returns the error of `call`, which is printed as it was made: `mkdirat(7, "a")`.
    pub fn new(call: impl Into<Box<str>>, errno: Errno) -> Self {
        Self { call: call.into(), errno }
    }

    /// Returns the error number.
    pub const fn errno(&self) -> Errno {
        self.errno
    }

    /// Returns the error of `call` from what the standard library reported.
    pub fn from_io(call: impl Into<Box<str>>, error: &io::Error) -> Self {
        let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        Self::new(call, errno)
    }
}

/// Tells whether an error number says that there is no room for what was to be written.
pub const fn is_no_room(errno: Errno) -> bool {
    matches!(errno, Errno::ENOSPC | Errno::EDQUOT)
}

/// Returns the error number that an I/O error was made of, also when it went through [`Error`].
pub fn errno_of(error: &io::Error) -> Option<Errno> {
    let ours = || error.get_ref()?.downcast_ref::<Error>().map(Error::errno);
    error.raw_os_error().map(Errno::from_raw).or_else(ours)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({:?})", self.call, self.errno.desc(), self.errno)
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        // The kind is kept, so that callers who ask for it find it; the text is ours.
        let kind = Self::from_raw_os_error(error.errno as i32).kind();
        Self::new(kind, error)
    }
}

/// Turns the result of a call into ours; `call` is only printed when it was refused.
pub(crate) fn check<T, S: Into<Box<str>>>(
    result: nix::Result<T>,
    call: impl FnOnce() -> S,
) -> Result<T> {
    result.map_err(|errno| Error::new(call(), errno))
}

/// Turns the -1 of a raw call into an error.
pub(crate) fn check_raw<S: Into<Box<str>>>(
    result: libc::c_int,
    call: impl FnOnce() -> S,
) -> Result<libc::c_int> {
    check(Errno::result(result), call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_prints_the_call_and_the_reason() {
        let error = Error::new("mkdirat(7, \"a\")", Errno::EEXIST);
        assert_eq!(error.to_string(), "mkdirat(7, \"a\"): File exists (EEXIST)");
        let carried = io::Error::from(error);
        assert_eq!(carried.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(errno_of(&carried), Some(Errno::EEXIST));
        assert_eq!(errno_of(&io::Error::from_raw_os_error(28)), Some(Errno::ENOSPC));
        assert_eq!(errno_of(&io::Error::other("text")), None);
    }
}
