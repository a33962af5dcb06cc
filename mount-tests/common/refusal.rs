//! What a call was refused with.

use std::io;

use nix::errno::Errno;

/// Returns the error number of a call that must be refused.
#[track_caller]
pub(crate) fn refused<T, E: Into<io::Error>>(result: Result<T, E>) -> Errno {
    match result {
        Ok(_) => panic!("the call was not refused"),
        Err(error) => {
            let error = error.into();
            let number = error.raw_os_error();
            Errno::from_raw(number.unwrap_or_else(|| panic!("{error} has no number")))
        }
    }
}
