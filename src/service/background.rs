//! Going to the background: one process serves, the other one waits until it does.

use std::fs::File;

use crate::service::Result;
use crate::sys::{self, Forked};

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Background {
    /// The one that a person started: what the other one says, and a handle on it.
    Parent(File, Serving),
    /// The one that serves: where to say that it does.
    Child(File),
}

/// The process that serves.
#[derive(Clone, Copy, Debug)]
pub struct Serving(i32);

impl Background {
    /// Makes a process that can serve on when its parent is gone. Nothing may be open yet but
    /// standard input, output and error.
    pub fn fork() -> Result<Self> {
        sys::close_inherited()?;
        Self::fork_now()
    }

    /// Does the same, with a pipe besides: what the parent writes to the file, the child reads from it,
    /// to its end when the parent has closed it or is gone.
    pub fn fork_with_orders() -> Result<(Self, File)> {
        sys::close_inherited()?;
        let (reader, writer) = sys::pipe()?;
        Ok(match Self::fork_now()? {
            parent @ Self::Parent(..) => (parent, writer.into()),
            child @ Self::Child(_) => (child, reader.into()),
        })
    }

    fn fork_now() -> Result<Self> {
        let (reader, writer) = sys::pipe()?;
        match sys::fork()? {
            Forked::Parent(child) => Ok(Self::Parent(reader.into(), Serving(child))),
            Forked::Child => {
                // The keyboard's signals are for the parent.
                sys::become_session_leader()?;
                Ok(Self::Child(writer.into()))
            }
        }
    }
}

impl Serving {
    /// Waits until the process has ended, and returns its exit code.
    pub fn exit_code(self) -> Result<u8> {
        Ok(sys::wait_for_exit(self.0)?)
    }
}

/// Tells whether this process runs with the privilege of root.
pub fn runs_as_root() -> bool {
    sys::effective_ids().0 == 0
}
