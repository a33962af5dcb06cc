//! The server is killed while its mount is being made.
//!
//! A mount is looked at before anybody is told that it is there. Killed in that moment, the process that
//! serves it must not be kept by who waits for its answer.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::common::{Session, Who, mounts_below, refused, spawn};

/// Far more than anything here takes on a machine that is slow and busy.
const DEADLINE: Duration = Duration::from_secs(120);
const ROUNDS: u32 = 25;

/// Waits for something; ends the mount, on which it may wait for ever, and fails if it does not come.
fn wait_until(target: &Path, what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is_so() {
        if Instant::now() > end {
            let ended = umount2(target, MntFlags::MNT_FORCE);
            panic!("{what} did not happen; the mount was ended: {ended:?}");
        }
        std::thread::yield_now();
    }
}

/// Kills the server of a mount that has just appeared, after a while.
fn kill_at_birth(target: &Path, mut server: Child, after: Duration) {
    wait_until(target, "mounting", || {
        mounts_below(target).len() == 1 || server.try_wait().unwrap().is_some()
    });
    let end = Instant::now() + after;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
    server.kill().unwrap();
    wait_until(target, "the end of the killed server", || server.try_wait().unwrap().is_some());
}

/// Asks a mount in another thread, because nobody may answer.
fn ask(target: &Path) -> std::io::Result<()> {
    let (tell, told) = channel();
    let at = target.to_owned();
    // A directory may be opened without a word to the server; a name that is new asks it.
    let look = move || fs::symlink_metadata(at.join("nothing")).map(drop);
    let asking = std::thread::spawn(move || tell.send(look()));
    let answer = told.recv_timeout(DEADLINE).unwrap_or_else(|_| {
        let ended = umount2(target, MntFlags::MNT_FORCE);
        panic!("the mount does not answer; it was ended: {ended:?}");
    });
    asking.join().unwrap().unwrap();
    answer
}

/// Returns how a mount refuses who asks it. The kernel closes the device a moment after the process has
/// ended, and those who ask in that moment are told that the connection was aborted, or through io_uring
/// that the request was taken back.
fn refusal(who: Who, target: &Path) -> Errno {
    let end = Instant::now() + DEADLINE;
    loop {
        match refused(who.act(|| ask(target))) {
            Errno::ECONNABORTED | Errno::ECANCELED if Instant::now() < end => {}
            errno => return errno,
        }
    }
}

#[test]
fn a_server_that_is_killed_before_its_mount_answers_is_gone() {
    for (who, transport) in [(Who::Root, "auto"), (Who::Root, "dev-fuse"), (Who::User, "auto")] {
        let session = Session::new(who);
        session.import("image:1");
        let target = session.dir("mount");
        for round in 0..ROUNDS {
            let mut command = session.command(&[
                "mount",
                "--foreground",
                "--transport",
                transport,
                "image:1",
                "mount",
            ]);
            kill_at_birth(&target, spawn(&mut command), Duration::from_micros(120) * round);
            assert_eq!(refusal(who, &target), Errno::ENOTCONN, "round {round}");
            session.run(&["umount", target.to_str().unwrap()]);
            assert!(mounts_below(&target).is_empty());
        }
        session.run(&["mount", "image:1", "mount"]);
        assert_eq!(who.act(|| fs::read_to_string(target.join("file")).unwrap()), "content\n");
        session.unmount("mount");
        // Who was killed before he could say that it was mounted has left the container of his mount.
        session.run(&["container", "prune", "-f"]);
        assert_eq!(session.run(&["ps", "-aq"]), "");
    }
}
