//! Two processes: one works, the other waits for its end, however it comes, and takes everything away.
//!
//! So an interrupt, a panic and a crash all end the same way, and no path through the work has to think
//! of it. The one that works leads a group of its own, which is ended with it: programs that it has
//! started are in it, those that serve mounts are found by their mounts.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use crate::bench::workspace::release;
use crate::bench::{Result, Workspace};
use crate::sys::{self, Errno, Forked};

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Watch {
    /// The one that works, in this directory.
    Working(Workspace),
    /// The one that a person has started: the work is over and everything is gone. The exit code.
    Over(u8),
}

/// Added to the number of a signal, as shells do.
const SIGNAL_CODE: i32 = 128;

impl Watch {
    /// Has another process work in a directory; returns in both. There may be no other thread yet.
    pub fn begin(workspace: Workspace) -> Result<Self> {
        sys::block_end_signals()?;
        match sys::fork()? {
            Forked::Child => {
                sys::lead_group(0)?;
                sys::die_with_parent()?;
                sys::unblock_end_signals()?;
                Ok(Self::Working(workspace))
            }
            Forked::Parent(child) => {
                // Whoever of the two comes first does it.
                let done = sys::lead_group(child);
                let is_late =
                    |error: &sys::Error| [Errno::EACCES, Errno::ESRCH].contains(&error.errno());
                match done {
                    Err(error) if !is_late(&error) => Err(error.into()),
                    _ => wait(child, &workspace),
                }
            }
        }
    }
}

fn wait(child: i32, workspace: &Workspace) -> Result<Watch> {
    let interrupted_by = Arc::new(AtomicI32::new(0));
    let (told, path) = (Arc::clone(&interrupted_by), workspace.path().to_owned());
    thread::spawn(move || {
        match sys::wait_for_end_signal() {
            Ok(signal) => told.store(signal, Ordering::SeqCst),
            Err(error) => return tracing::warn!("{error}"),
        }
        if let Err(error) = sys::kill_group(child) {
            tracing::warn!("{error}");
        }
        // It may hang in a mount, and ends when that is gone.
        release(&path);
    });
    let code = sys::wait_for_exit(child)?;
    if let Err(error) = sys::kill_group(child) {
        tracing::debug!("{error}");
    }
    workspace.clear()?;
    let signal = interrupted_by.load(Ordering::SeqCst);
    let signal_code = u8::try_from(SIGNAL_CODE + signal).unwrap_or(u8::MAX);
    Ok(Watch::Over(if signal == 0 { code } else { signal_code }))
}
