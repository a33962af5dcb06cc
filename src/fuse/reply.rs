//! Answering: a result becomes a reply, and what is a fault is logged.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fuser::{Errno, ReplyAttr, ReplyEmpty, ReplyEntry, ReplyWrite, ReplyXattr};

use crate::fuse::convert::{FOREVER, GENERATION, errno, file_attr};
use crate::overlay::{Attr, Error, Result};

/// Gives the answer of an operation to `ok`, or its error number to `fail`.
pub(crate) fn answer<T, R>(
    operation: &str,
    result: Result<T>,
    reply: R,
    ok: impl FnOnce(R, T),
    fail: impl FnOnce(R, Errno),
) {
    match result {
        Ok(value) => ok(reply, value),
        Err(error) => {
            log(operation, &error);
            fail(reply, errno(&error));
        }
    }
}

/// Answers with a file that the kernel knows from now on.
pub(crate) fn answer_entry(operation: &str, result: Result<Attr>, reply: ReplyEntry) {
    let ok = |reply: ReplyEntry, attr: Attr| reply.entry(&FOREVER, &file_attr(&attr), GENERATION);
    answer(operation, result, reply, ok, ReplyEntry::error);
}

/// Answers with attributes.
pub(crate) fn answer_attr(operation: &str, result: Result<Attr>, reply: ReplyAttr) {
    let ok = |reply: ReplyAttr, attr: Attr| reply.attr(&FOREVER, &file_attr(&attr));
    answer(operation, result, reply, ok, ReplyAttr::error);
}

/// Answers that it is done.
pub(crate) fn answer_empty(operation: &str, result: Result<()>, reply: ReplyEmpty) {
    answer(operation, result, reply, |reply, ()| reply.ok(), ReplyEmpty::error);
}

/// Answers with how much was written.
pub(crate) fn answer_written(operation: &str, result: Result<usize>, reply: ReplyWrite) {
    let ok = |reply: ReplyWrite, len| reply.written(u32::try_from(len).unwrap_or(u32::MAX));
    answer(operation, result, reply, ok, ReplyWrite::error);
}

/// Answers with bytes, or with how many there are when the kernel asks for that.
pub(crate) fn answer_sized(operation: &str, result: Result<Vec<u8>>, size: u32, reply: ReplyXattr) {
    let ok = |reply: ReplyXattr, bytes: Vec<u8>| match size {
        0 => reply.size(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
        size if bytes.len() <= size as usize => reply.data(&bytes),
        _ => reply.error(Errno::ERANGE),
    };
    answer(operation, result, reply, ok, ReplyXattr::error);
}

/// Logs an error: a fault of the file system loudly, an answer to a question quietly.
pub(crate) fn log(operation: &str, error: &Error) {
    if error.is_fault() {
        tracing::error!("{operation}: {error}");
    } else {
        tracing::debug!("{operation}: {error}");
    }
}

/// Does the work of one request. A panic in it costs the one request, whose reply answers EIO when
/// it is dropped, and leaves the mount alive.
pub(crate) fn guarded(operation: &str, work: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        tracing::error!("{operation}: the request was given up after a panic");
    }
}
