//! How a mount that is held begins, is shown, and ends.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{Lower, Session, Who, mounts_below};
use crate::survive::Held;
use crate::survive::held::is_alive;

fn fill(dir: &Path) {
    fs::write(dir.join("file"), "content\n").unwrap();
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

fn error_of(path: &Path) -> Option<i32> {
    fs::metadata(path).unwrap_err().raw_os_error()
}

#[test]
fn the_list_says_who_holds_a_mount_and_who_serves_it() {
    let mut held = Held::new(Who::Root, Lower::Image, fill);
    for _ in 0..2 {
        let server = held.server();
        // It is written down when the server begins.
        let shown =
            format!("served by {server} and held by {} (dev-fuse, cache) for ", held.holder());
        while !held.session.run(&["mount"]).contains(&shown) {
            assert_eq!(held.server(), server);
            std::thread::yield_now();
        }
        let status = held.session.run(&["ps", "--format", "{{.Status}}"]);
        assert!(status.trim().ends_with(" (dev-fuse, cache, survives)"), "{status}");
        held.kill();
    }
    let said = held.session.refused(&["rm", "box"]);
    assert!(said.contains("mounted"), "{said}");
    assert_eq!(held.unmount(), 0);
    assert_eq!(held.session.run(&["ps", "-q"]), "");
    held.session.run(&["rm", "box"]);
}

#[test]
fn a_mount_whose_holder_is_killed_lives_as_long_as_its_server() {
    for lower in [Lower::Image, Lower::Dirs] {
        let mut held = Held::new(Who::Root, lower, fill);
        held.kill();
        let (holder, server) = (held.holder(), held.server());
        signal(holder, Signal::SIGKILL);
        assert_eq!(held.wait_for_holder(), -1);
        assert_eq!(fs::read_to_string(held.path("file")).unwrap(), "content\n");
        fs::write(held.path("new"), "new\n").unwrap();
        if lower == Lower::Image {
            let shown = format!("served by {server} (dev-fuse, cache) for ");
            while !held.session.run(&["mount"]).contains(&shown) {
                std::thread::yield_now();
            }
            held.session.unmount("mount");
            held.session.run(&["mount", "box", "mount"]);
            assert_eq!(fs::read_to_string(held.path("new")).unwrap(), "new\n");
            held.session.unmount("mount");
        } else {
            held.session.detach(&held.target);
        }
        held.wait_for_end(server);
    }
}

#[test]
fn a_mount_whose_holder_and_server_are_killed_is_cleared() {
    let mut held = Held::new(Who::Root, Lower::Image, fill);
    let (holder, server) = (held.holder(), held.server());
    fs::write(held.path("new"), "new\n").unwrap();
    signal(holder, Signal::SIGKILL);
    signal(server, Signal::SIGKILL);
    held.wait_for_holder();
    held.wait_for_end(server);
    let mounted = held.session.run(&["ps", "--format", "{{.State}}"]);
    assert_eq!(mounted, "dead\n");
    held.session.unmount("mount");
    held.session.run(&["mount", "box", "mount"]);
    assert_eq!(fs::read_to_string(held.path("new")).unwrap(), "new\n");
    held.session.unmount("mount");
}

#[test]
fn regression_a_server_that_cannot_begin_closes_nothing_of_those_after_it() {
    let mut held = Held::new(Who::Root, Lower::Image, fill);
    let mut gone = File::create_new(held.path("gone")).unwrap();
    gone.write_all(b"one").unwrap();
    fs::remove_file(held.path("gone")).unwrap();
    // What is left in the work directory a server removes when it begins. This it cannot: it is mounted.
    let container = held.session.run(&["ps", "-aq", "--no-trunc"]);
    let work = held.session.path("store/containers").join(container.trim()).join("work/work");
    let left = work.join("#left");
    fs::create_dir(&left).unwrap();
    mount(Some("none"), &left, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    held.kill();
    let mut failed = BTreeSet::new();
    while failed.len() < 4 {
        assert!(is_alive(held.holder()), "after {failed:?}");
        failed.extend(held.server_if_any());
    }
    umount(&left).unwrap();
    gone.write_all(b"two").unwrap();
    assert_eq!(gone.metadata().unwrap().len(), 6);
    assert_eq!(fs::read_to_string(held.path("file")).unwrap(), "content\n");
    fs::write(held.path("new"), "new\n").unwrap();
    held.kill();
    assert_eq!(fs::read_to_string(held.path("new")).unwrap(), "new\n");
    assert!(!left.exists());
    drop(gone);
    assert_eq!(held.unmount(), 0);
}

#[test]
fn servers_that_die_as_soon_as_they_begin_are_given_up() {
    let mut held = Held::new(Who::Root, Lower::Image, fill);
    let holder = held.holder();
    let mut killed = 0;
    // Nobody asks the mount anything meanwhile.
    while is_alive(holder) {
        if let Some(server) = held.server_if_any() {
            signal(server, Signal::SIGKILL);
            held.wait_for_end(server);
            killed += 1;
        }
        assert!(killed < 100, "the holder does not give up");
    }
    assert_eq!(held.wait_for_holder(), 1);
    assert!(killed >= 12, "{killed}");
    assert_eq!(error_of(&held.path("file")), Some(libc::ENOTCONN));
    held.session.unmount("mount");
    assert!(mounts_below(&held.target).is_empty());
    held.session.run(&["mount", "box", "mount"]);
    held.session.unmount("mount");
}

#[test]
fn whoever_of_the_two_is_told_to_end_unmounts() {
    for who in [Who::Root, Who::User] {
        for tell_holder in [true, false] {
            let mut held = Held::new(who, Lower::Image, fill);
            held.kill();
            let told = if tell_holder { held.holder() } else { held.server() };
            signal(told, Signal::SIGTERM);
            assert_eq!(held.wait_for_holder(), 0);
            assert!(mounts_below(&held.target).is_empty());
            assert_eq!(held.session.run(&["ps", "-q"]), "");
        }
    }
}

#[test]
fn a_mount_in_the_background_says_in_its_log_what_has_happened() {
    let session = Session::new(Who::User);
    session.import("image:1");
    let target = session.dir("mount");
    let id = session.run(&["mount", "--survive", "--rw", "--name", "box", "image:1", "mount"]);
    let list = session.run(&["mount"]);
    let number = |after: &str| -> i32 {
        let rest = list.split(after).nth(1).unwrap();
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    let (server, holder) = (number("served by "), number("held by "));
    session.who.act(|| fs::write(target.join("new"), "new\n").unwrap());
    signal(server, Signal::SIGKILL);
    let read = || fs::read_to_string(target.join("new")).unwrap();
    assert_eq!(session.who.act(read), "new\n");
    let log = session.path(&format!("store/containers/{}/log", id.trim()));
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains(&format!("server {server} of ")) && log.contains("SIGKILL"), "{log}");
    // It is mounted again as it was.
    session.run(&["snapshot", "box", "before"]);
    session.run(&["undo", "box", "before"]);
    let list = session.run(&["mount"]);
    assert!(list.contains(" and held by ") && !list.contains(&format!("held by {holder} ")));
    session.unmount("mount");
}

#[test]
fn an_image_that_is_mounted_survives_and_leaves_nothing() {
    let session = Session::new(Who::Root);
    session.import("image:1");
    let target = session.dir("mount");
    session.run(&["mount", "--survive", "image:1", "mount"]);
    for _ in 0..3 {
        let list = session.run(&["mount"]);
        let server = list.split("served by ").nth(1).unwrap().split(' ').next().unwrap();
        signal(server.parse().unwrap(), Signal::SIGKILL);
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "content\n");
        while session.run(&["mount"]) == list {
            std::thread::yield_now();
        }
    }
    session.unmount("mount");
    assert_eq!(session.run(&["ps", "-aq"]), "");
}

#[test]
fn what_keeps_no_request_is_refused() {
    let session = Session::new(Who::Root);
    session.import("image:1");
    session.dir("mount");
    let said =
        session.refused(&["mount", "--survive", "--transport", "io-uring", "image:1", "mount"]);
    assert!(said.contains("exclude each other") && said.contains("would lose"), "{said}");
    let said = session.refused(&[
        "mount",
        "--survive",
        "--rw",
        "-o",
        "data=passthrough",
        "image:1",
        "mount",
    ]);
    assert!(said.contains("data=passthrough and --survive exclude each other"), "{said}");
    assert!(mounts_below(&session.path("")).is_empty());
    assert_eq!(session.run(&["ps", "-aq"]), "");
}
