//! Replacing the server of a mount by a new process: what is shown then, and what happens when the new one
//! cannot go on.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::deadline::kill_now;
use crate::common::{Lower, Session, Who, mounts_below};
use crate::survive::held::How;
use crate::survive::{Held, Watch};

fn fill(dir: &Path) {
    fs::write(dir.join("file"), "content\n").unwrap();
    fs::write(dir.join("large"), vec![7; 100_000]).unwrap();
}

/// Returns what the list of mounts says of the only one: who serves it, and the words after.
fn served_by(session: &Session) -> (i32, String) {
    let list = session.run(&["mount"]);
    let (_, by) = list.split_once("served by ").expect("it is mounted");
    let (pid, rest) = by.split_once(' ').unwrap();
    (pid.parse().unwrap(), rest.to_owned())
}

#[test]
fn an_upgraded_mount_is_served_by_another_process_and_otherwise_as_before() {
    for who in [Who::Root, Who::User] {
        for how in How::upgrades() {
            let mut held = Held::with(who, Lower::Image, how, fill);
            let session = &held.session;
            who.act(|| fs::write(held.path("new"), "new\n").unwrap());
            let mut last = 0;
            for _ in 0..3 {
                held.upgrade();
                let (server, rest) = served_by(session);
                assert_ne!(server, last);
                last = server;
                let transport = if how == How::UpgradedRings {
                    "(io-uring, cache)"
                } else {
                    "(dev-fuse, cache)"
                };
                assert!(rest.contains(transport), "{rest}");
                assert_eq!(rest.contains("held by"), how == How::UpgradedHeld, "{rest}");
                let text = who.act(|| fs::read_to_string(held.path("new")).unwrap());
                assert_eq!(text, "new\n");
            }
            let said = session.refused(&["rm", "box"]);
            assert!(said.contains("mounted"), "{said}");
            // Who serves it in the foreground has waited through all of them.
            assert_eq!(held.unmount(), 0, "{who:?}, {how:?}");
            assert_eq!(held.session.run(&["ps", "-q"]), "");
            held.session.run(&["mount", "box", "mount"]);
            let text = who.act(|| fs::read_to_string(held.path("new")).unwrap());
            assert_eq!(text, "new\n");
            held.session.unmount("mount");
        }
    }
}

#[test]
fn an_image_and_a_mount_in_the_background_are_upgraded() {
    let session = Session::new(Who::Root);
    fill(&session.dir("made"));
    session.run(&["import", "made", "image:1"]);
    let target = session.dir("mount");
    for options in [&["--survive"][..], &["--transport", "dev-fuse"], &[]] {
        for what in [&["image:1"][..], &["--rw", "--name", "box", "image:1"]] {
            session.run(&[&["mount"], options, what, &["mount"]].concat());
            let mut file = File::open(target.join("large")).unwrap();
            let mut bytes = vec![0; 1000];
            file.read_exact(&mut bytes).unwrap();
            let before = served_by(&session).0;
            session.run(&["remount", "--upgrade", "mount"]);
            assert_ne!(served_by(&session).0, before);
            file.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, vec![7; 100_000]);
            drop(file);
            session.unmount("mount");
            assert!(mounts_below(&target).is_empty());
        }
        session.run(&["rm", "box"]);
        assert_eq!(session.run(&["ps", "-aq"]), "");
    }
}

#[test]
fn a_server_goes_on_when_the_new_one_cannot() {
    for how in How::upgrades() {
        let mut held = Held::with(Who::Root, Lower::Image, how, fill);
        let before = served_by(&held.session).0;
        // What the new process needs to know the image is away for a moment.
        let (chains, away) = (held.session.path("store/chains"), held.session.path("away"));
        let (layers, also_away) = (held.session.path("store/layers"), held.session.path("also"));
        fs::rename(&chains, &away).unwrap();
        fs::rename(&layers, &also_away).unwrap();
        let said = held.session.refused(&["remount", "--upgrade", "mount"]);
        assert!(!said.is_empty());
        fs::rename(&away, &chains).unwrap();
        fs::rename(&also_away, &layers).unwrap();
        assert_eq!(served_by(&held.session).0, before);
        assert_eq!(fs::read_to_string(held.path("file")).unwrap(), "content\n");
        fs::write(held.path("new"), "new\n").unwrap();
        // It still listens.
        held.upgrade();
        assert_ne!(served_by(&held.session).0, before);
        assert_eq!(fs::read_to_string(held.path("new")).unwrap(), "new\n");
        assert_eq!(held.unmount(), 0);
    }
}

#[test]
fn a_mount_whose_files_the_kernel_reads_itself_stays_with_its_server() {
    let session = Session::new(Who::Root);
    session.import("image:1");
    let target = session.dir("mount");
    let options = ["-o", "data=passthrough", "--rw", "--name", "box"];
    session.run(&[&["mount"], &options[..], &["image:1", "mount"]].concat());
    let mut file = OpenOptions::new().append(true).create(true).open(target.join("new")).unwrap();
    file.write_all(b"one\n").unwrap();
    let before = served_by(&session).0;
    let said = session.refused(&["remount", "--upgrade", "mount"]);
    assert!(said.contains("data=passthrough") && said.contains("unmount it"), "{said}");
    assert_eq!(served_by(&session).0, before);
    file.write_all(b"two\n").unwrap();
    assert_eq!(fs::read_to_string(target.join("new")).unwrap(), "one\ntwo\n");
    drop(file);
    session.unmount("mount");
}

#[test]
fn the_mount_of_another_user_and_what_is_none_are_refused() {
    let mut held = Held::with(Who::User, Lower::Image, How::UpgradedHeld, fill);
    held.upgrade();
    let root = Session::new(Who::Root);
    let store = held.session.path("store");
    let said = root.refused(&["--root", store.to_str().unwrap(), "remount", "--upgrade", "box"]);
    assert!(!said.is_empty());
    let said = held.session.refused(&["remount", "--upgrade", "nothing"]);
    assert!(said.contains("nothing is not a mount of strata"), "{said}");
    let text = Who::User.act(|| fs::read_to_string(held.path("file")).unwrap());
    assert_eq!(text, "content\n");
    assert_eq!(held.unmount(), 0);
}

#[test]
fn a_server_that_was_replaced_is_not_started_again_when_it_is_killed() {
    let mut held = Held::with(Who::Root, Lower::Image, How::UpgradedHeld, fill);
    let first = held.server();
    held.upgrade();
    let server = served_by(&held.session).0;
    // It waits for the end of the mount, since it was started in the foreground.
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    assert_eq!(held.wait_for_holder(), 0);
    assert_eq!(served_by(&held.session).0, server);
    fs::write(held.path("new"), "new\n").unwrap();
    held.session.unmount("mount");
    held.session.run(&["mount", "box", "mount"]);
    assert_eq!(fs::read_to_string(held.path("new")).unwrap(), "new\n");
    held.session.unmount("mount");
}

#[test]
fn a_server_killed_while_it_is_replaced_leaves_one_that_serves() {
    const ROUNDS: usize = 24;
    let session = Session::new(Who::Root);
    session.import("image:1");
    let target = session.dir("mount");
    session.run(&["mount", "--survive", "--rw", "--name", "box", "image:1", "mount"]);
    let watch = Watch::over(&target);
    let mut replaced = 0;
    for round in 0..ROUNDS {
        let server = served_by(&session).0;
        let output = std::thread::scope(|scope| {
            let upgrade = scope.spawn(|| session.try_run(&["remount", "--upgrade", "mount"]));
            // From its beginning on, a little later each time.
            for _ in 0..round * 100 {
                std::thread::yield_now();
            }
            kill_now(server);
            upgrade.join().unwrap()
        });
        replaced += usize::from(output.code == 0);
        let text = format!("{round}\n");
        fs::write(target.join("new"), &text).unwrap();
        assert_eq!(fs::read_to_string(target.join("new")).unwrap(), text);
    }
    eprintln!("{replaced} of {ROUNDS} upgrades came before the kill");
    drop(watch);
    session.unmount("mount");
    assert!(mounts_below(&target).is_empty());
    session.run(&["rm", "box"]);
}
