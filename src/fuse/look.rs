//! Looking at a mount from inside the process that serves it.
//!
//! If the process is killed while it waits for its own answer, its threads end but for the one that
//! waits: nothing wakes that but the end of the connection, which comes when the device is closed, and
//! the device stays open for as long as a thread shares the table of open files. So the thread that looks
//! has a table of its own, without the device.
//!
//! Over io_uring that is not enough: the rings keep the device while the memory of the process is there, and
//! the thread that waits keeps that. There such a mount ends with `umount -f`.

use std::io;
use std::path::Path;

use crate::fuse::error::{Error, Result};
use crate::sys;

/// Waits until the mount at `target` answers.
pub(crate) fn wait_for_answer(target: &Path) -> Result<()> {
    let at = target.to_owned();
    let look = move || {
        sys::leave_open_files()?;
        std::fs::read_dir(at).map(drop)
    };
    let looking = std::thread::Builder::new().name("look".to_owned()).spawn(look);
    let panicked = |_| Err(io::Error::other("the thread that looks ended in a panic"));
    let seen = looking.map_err(Error::Session)?.join().unwrap_or_else(panicked);
    seen.map_err(|source| Error::Silent { target: target.to_owned(), source })
}
