//! A deadline for all that a test does in a mount.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::common::run;

/// How many seconds a test may take on a machine that is slow and busy, if nobody says otherwise.
const SECONDS: u64 = 600;

fn deadline() -> Duration {
    let seconds = std::env::var("STRATA_SURVIVE_SECONDS");
    Duration::from_secs(seconds.map_or(SECONDS, |seconds| seconds.parse().expect("a number")))
}

/// Ends the connection of a mount when its test does not come to an end: who waits in the kernel for an
/// answer gets an error, and the test fails.
#[derive(Debug)]
pub(crate) struct Watch {
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches over the file system that is mounted at a path.
    pub(crate) fn over(mounted: &Path) -> Self {
        let device = fs::metadata(mounted).unwrap().dev();
        let (done, over) = channel();
        let shown = mounted.display().to_string();
        let thread = std::thread::spawn(move || {
            if over.recv_timeout(deadline()) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{shown}: the test takes too long; its connection is ended");
                abort(libc::minor(device));
            }
        });
        Self { done: Some(done), thread: Some(thread) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.done.take());
        if let Some(thread) = self.thread.take() {
            let watched = thread.join();
            assert!(watched.is_ok() || std::thread::panicking(), "the watch has failed");
        }
    }
}

/// Ends a connection, by its number.
fn abort(connection: u32) {
    let files = "/sys/fs/fuse/connections";
    let script = format!("mount -t fusectl none {files} && echo 1 >{files}/{connection}/abort");
    let output = run(Command::new("unshare").args(["-m", "sh", "-c", &script]));
    assert_eq!(output.code, 0, "connection {connection} stays: {}", output.stderr);
}
