//! Containers: made, mounted, looked at, changed, lost and cleaned up.

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use strata::store::{MountState, Mounted, Store};

use crate::common::deadline::in_time;
use crate::common::{Session, Who, children_of, mounts_below, run, spawn, succeed};

/// Returns a session with the image `base:1` of three files, and the container `box` made of it.
fn with_container(who: Who) -> Session {
    let session = Session::new(who);
    let image = session.dir("image");
    for name in ["kept", "changed", "deleted"] {
        fs::write(image.join(name), format!("{name}\n")).unwrap();
    }
    fs::create_dir(image.join("dir")).unwrap();
    fs::write(image.join("dir/inside"), "inside\n").unwrap();
    session.run(&["import", "-c", "CMD [\"/bin/true\"]", "image", "base:1"]);
    session.run(&["create", "--name", "box", "base:1"]);
    session.dir("mount");
    session
}

/// Returns the process that serves the only container.
fn server(session: &Session) -> String {
    let containers: Vec<_> = fs::read_dir(session.path("store/containers")).unwrap().collect();
    let state = containers[0].as_ref().unwrap().path().join("state");
    let record = fs::read(state).unwrap();
    // Behind what it says is its sum.
    let mut values = serde_json::Deserializer::from_slice(&record).into_iter::<Value>();
    values.next().unwrap().unwrap()["pid"].to_string()
}

#[test]
fn a_container_keeps_its_changes_from_mount_to_mount() {
    for who in [Who::Root, Who::User] {
        let session = with_container(who);
        let mount = session.path("mount");
        session.run(&["mount", "box", "mount"]);
        who.act(|| {
            fs::write(mount.join("changed"), "otherwise\n").unwrap();
            fs::remove_file(mount.join("deleted")).unwrap();
            fs::write(mount.join("dir/new"), "new\n").unwrap();
        });
        assert_eq!(session.run(&["diff", "box"]), "C /changed\nD /deleted\nC /dir\nA /dir/new\n");
        session.unmount("box");
        assert_eq!(fs::read_dir(&mount).unwrap().count(), 0);
        assert_eq!(session.run(&["diff", "box"]), "C /changed\nD /deleted\nC /dir\nA /dir/new\n");
        session.run(&["mount", "box", "mount"]);
        who.act(|| {
            assert_eq!(fs::read_to_string(mount.join("changed")).unwrap(), "otherwise\n");
            assert!(!mount.join("deleted").exists());
            assert_eq!(fs::read_to_string(mount.join("dir/new")).unwrap(), "new\n");
        });
        session.unmount("mount");
        session.run(&["rm", "box"]);
        assert_eq!(session.run(&["ps", "-aq"]), "");
    }
}

#[test]
fn regression_a_volatile_mount_that_was_unmounted_can_be_made_again() {
    for options in ["volatile", "volatile,survive"] {
        let session = with_container(Who::User);
        for content in ["first", "second"] {
            session.run(&["mount", "-o", options, "box", "mount"]);
            session.who.act(|| fs::write(session.path("mount/kept"), content).unwrap());
            session.run(&["umount", "mount"]);
        }
        assert_eq!(session.run(&["cat", "box:/kept"]), "second", "{options}");
    }
}

#[test]
fn a_mounted_image_can_only_be_read() {
    for who in [Who::Root, Who::User] {
        let session = with_container(who);
        let mount = session.path("mount");
        session.run(&["mount", "base:1", "mount"]);
        who.act(|| {
            let error = fs::write(mount.join("new"), "").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EROFS));
            let error = fs::remove_file(mount.join("kept")).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EROFS));
            assert_eq!(fs::read_to_string(mount.join("kept")).unwrap(), "kept\n");
        });
        session.unmount("mount");
        assert_eq!(session.run(&["ps", "-aq"]).lines().count(), 1, "only box is left");
    }
}

#[test]
fn regression_a_store_named_by_a_relative_path_serves_large_files() {
    let session = Session::new(Who::User);
    let content = b"large enough for an object ".repeat(1 << 16);
    fs::write(session.dir("image").join("large"), &content).unwrap();
    session.dir("mount");
    for words in [&["import", "image", "base:1"][..], &["mount", "base:1", "mount"]] {
        let output = run(session.command(words).env("STRATA_ROOT", "kept"));
        assert_eq!(output.code, 0, "strata {words:?}: {}", output.stderr);
    }
    let large = session.path("mount/large");
    assert!(session.who.act(|| fs::read(&large).unwrap()) == content, "it is what was imported");
    session.detach(&session.path("mount"));
}

#[test]
fn a_second_mount_of_a_container_is_refused_and_harms_nothing() {
    let session = with_container(Who::User);
    session.run(&["mount", "box", "mount"]);
    session.dir("second");
    let said = session.refused(&["mount", "box", "second"]);
    let first = session.path("mount");
    assert!(said.contains("in use") && said.contains(first.to_str().unwrap()), "{said}");
    assert_eq!(mounts_below(&session.path("")), [first]);
    let said = session.refused(&["rm", "box"]);
    assert!(said.contains("unmount it"), "{said}");
    let said = session.refused(&["rmi", "base:1"]);
    assert!(said.contains("is using its referenced image"), "{said}");
    session.run(&["rm", "-f", "box"]);
    assert_eq!(mounts_below(&session.path("")), Vec::<std::path::PathBuf>::new());
    let said = session.run(&["rmi", "base:1"]);
    assert!(said.starts_with("Untagged: base:1\nDeleted: sha256:"), "{said}");
}

#[test]
fn a_mount_whose_server_was_killed_is_seen_and_cleared() {
    for who in [Who::Root, Who::User] {
        let session = with_container(who);
        let mount = session.path("mount");
        session.run(&["mount", "box", "mount"]);
        who.act(|| fs::write(mount.join("new"), "kept\n").unwrap());
        let pid = server(&session);
        succeed(Command::new("kill").args(["-9", &pid]));
        // The kernel ends the connection when the process is gone, which the lock tells ps.
        let dead = || session.run(&["ps", "-a"]).contains("Dead (mounted at ");
        while !dead() {
            std::thread::yield_now();
        }
        session.unmount("mount");
        assert_eq!(mounts_below(&session.path("")), Vec::<std::path::PathBuf>::new());
        session.run(&["mount", "box", "mount"]);
        who.act(|| assert_eq!(fs::read_to_string(mount.join("new")).unwrap(), "kept\n"));
    }
}

/// Takes hold of what another process has open under a name.
#[allow(unsafe_code, reason = "no library here has pidfd_getfd(2)")]
fn held_by(pid: &str, name: &str) -> Vec<OwnedFd> {
    let pid: i32 = pid.parse().unwrap();
    // SAFETY: the call takes numbers only.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let process = i32::try_from(process).unwrap();
    // SAFETY: the kernel has just made this descriptor for us.
    let process = unsafe { OwnedFd::from_raw_fd(process) };
    let mut held = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let entry = entry.unwrap();
        if fs::read_link(entry.path()).is_ok_and(|path| path == Path::new(name)) {
            let number: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
            // SAFETY: the call takes numbers only.
            let fd =
                unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) };
            // SAFETY: the kernel has just made this descriptor for us.
            held.push(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) });
        }
    }
    held
}

#[test]
fn regression_a_mount_that_the_kernel_has_not_ended_yet_is_cleared() {
    let session = with_container(Who::Root);
    session.run(&["mount", "box", "mount"]);
    let pid = server(&session);
    // As long as somebody has the device, the mount seems to live, and answers nobody.
    let device = held_by(&pid, "/dev/fuse");
    assert!(!device.is_empty(), "the server has a device");
    succeed(Command::new("kill").args(["-9", &pid]));
    while !session.run(&["ps", "-a"]).contains("Dead (mounted at ") {
        std::thread::yield_now();
    }
    let mut umount = spawn(&mut session.command(&["umount", "mount"]));
    let deadline = Instant::now() + Duration::from_secs(120);
    while umount.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the command waits for the mount");
        std::thread::yield_now();
    }
    assert!(umount.wait().unwrap().success());
    assert_eq!(mounts_below(&session.path("")), Vec::<std::path::PathBuf>::new());
    drop(device);
}

/// Tells whether the first thread of a process waits for a time to go by.
fn is_sleeping(pid: i32) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.split(' ').next() == Some(&libc::SYS_clock_nanosleep.to_string())
}

#[test]
fn regression_a_server_that_is_about_to_end_is_waited_for() {
    let session = with_container(Who::Root);
    let store = Store::open(&session.path("store")).unwrap();
    let [container] = &store.containers().unwrap()[..] else { panic!("there is one") };
    for arguments in [&["mount", "box", "mount"][..], &["rm", "box"]] {
        // As that of a mount that umount(8) has ended: it has forgotten the mount, and is there still.
        let server = store.lock_container(&container.id).unwrap();
        let mut command = spawn(session.command(arguments).stdout(Stdio::null()));
        let pid = command.id().cast_signed();
        let waiting = || children_of(pid).into_iter().chain([pid]).any(is_sleeping);
        while !waiting() {
            assert!(command.try_wait().unwrap().is_none(), "{arguments:?} does not wait");
        }
        drop(server);
        assert!(command.wait().unwrap().success(), "{arguments:?}");
        if arguments[0] == "mount" {
            session.unmount("mount");
        }
    }
}

#[test]
fn a_foreground_mount_ends_when_it_is_unmounted_or_asked_to() {
    let session = with_container(Who::User);
    for end in ["umount", "signal"] {
        let mut server = session.command(&["mount", "--foreground", "box", "mount"]);
        let mut server = spawn(&mut server);
        // It is listed once it has answered and its directory is in use no more.
        while session.run(&["ps", "-q"]).is_empty() {
            assert!(server.try_wait().unwrap().is_none(), "it ended before it served");
        }
        if end == "umount" {
            session.unmount("mount");
        } else {
            succeed(Command::new("kill").args(["-TERM", &server.id().to_string()]));
        }
        assert!(server.wait().unwrap().success(), "{end}");
        assert!(mounts_below(&session.path("")).is_empty(), "{end}");
    }
}

#[test]
fn a_mount_that_cannot_be_is_an_error_and_leaves_nothing() {
    let session = with_container(Who::User);
    fs::write(session.path("file"), "").unwrap();
    for (arguments, word) in [
        (&["mount", "box", "nowhere"][..], "nowhere"),
        (&["mount", "box", "file"], "file"),
        (&["mount", "absent:1", "mount"], "absent"),
        (&["mount", "--rw", "--name", "new", "base:1", "nowhere"], "nowhere"),
        (&["mount", "-o", "unheard", "box", "mount"], "unheard"),
    ] {
        let said = session.refused(arguments);
        assert!(said.starts_with("Error: ") && said.contains(word), "{arguments:?}: {said}");
        assert_eq!(mounts_below(&session.path("")), Vec::<std::path::PathBuf>::new());
    }
    let said = session.run(&["ps", "-a"]);
    assert_eq!(said.lines().count(), 2, "{said}");
    session.run(&["mount", "box", "mount"]);
}

#[test]
fn a_writable_mount_of_an_image_makes_a_container() {
    let session = with_container(Who::User);
    session.run(&["mount", "--rw", "--name", "made", "base:1", "mount"]);
    let said = session.run(&["ps"]);
    assert!(said.contains("Mounted rw at ") && said.contains("made"), "{said}");
    session.unmount("made");
    assert_eq!(session.run(&["ps", "-q"]), "");
    assert_eq!(session.run(&["ps", "-aq"]).lines().count(), 2);
}

#[test]
fn a_lazy_unmount_takes_a_busy_mount_out_of_the_tree() {
    let session = with_container(Who::Root);
    session.run(&["mount", "box", "mount"]);
    let held = fs::File::open(session.path("mount/kept")).unwrap();
    let said = session.refused(&["umount", "mount"]);
    assert!(said.contains("is in use") && said.contains("--lazy"), "{said}");
    session.run(&["umount", "--lazy", "mount"]);
    assert!(mounts_below(&session.path("")).is_empty());
    assert_eq!(held.metadata().unwrap().size(), 5);
    let pid = server(&session);
    drop(held);
    while fs::exists(format!("/proc/{pid}")).unwrap() {
        std::thread::yield_now();
    }
    session.run(&["mount", "box", "mount"]);
}

#[test]
fn a_mount_shows_an_image_in_milliseconds_whatever_its_layers() {
    // The time is not asserted; that no tree is made for the mount is.
    let session = with_container(Who::User);
    let count = || {
        let store = session.path("store");
        let found =
            succeed(Command::new("find").arg(store).args(["-type", "f", "-o", "-type", "d"]));
        found.lines().count()
    };
    let before = count();
    session.run(&["mount", "base:1", "mount"]);
    assert!(count() - before < 12, "{} files for a mount", count() - before);
}

#[test]
fn a_container_gets_another_name() {
    let session = with_container(Who::User);
    session.run(&["create", "--name", "other", "base:1"]);
    session.run(&["mount", "box", "mount"]);
    assert_eq!(session.run(&["rename", "box", "work"]), "");
    assert_eq!(session.run(&["diff", "work"]), "");
    session.unmount("work");
    for (arguments, said) in [
        (["rename", "box", "again"], "No such container: box"),
        (["rename", "work", "other"], "\"/other\" is already in use by container"),
        (["rename", "work", "work"], "has the name work already"),
        (["rename", "work", "no/name"], "no/name"),
    ] {
        let output = session.try_run(&arguments);
        assert_eq!(output.code, 1, "{arguments:?}");
        assert!(output.stderr.contains(said), "{arguments:?}: {}", output.stderr);
    }
    session.run(&["container", "rename", "work", "box"]);
    session.run(&["rm", "box", "other"]);
}

#[test]
fn a_record_of_a_mount_from_an_earlier_boot_is_not_believed() {
    let session = with_container(Who::Root);
    session.dir("elsewhere");
    session.run(&["create", "--name", "chest", "base:1"]);
    session.run(&["mount", "chest", "mount"]);
    let store = Store::open(&session.path("store")).unwrap();
    let id_of = |name: &str| session.run(&["ps", "-aq", "--no-trunc", "--filter", name]);
    let mut id = id_of("name=box").trim().to_owned();
    let Mounted::Alive(of_chest) = store.mounted(id_of("name=chest").trim()).unwrap() else {
        panic!("the chest is mounted");
    };
    // Numbers of processes and devices are given again after a boot, and where a mount was there is another
    // one: of the same device, as it happens.
    let mut stranger = spawn(Command::new("cat").stdin(Stdio::piped()));
    let pid = stranger.id().cast_signed();
    let earlier = Some("9a4b5f0c-0000-4000-8000-000000000000".to_owned());
    for boot in [earlier, of_chest.boot.clone()] {
        let leave = || {
            let lock = store.lock_container(&id).unwrap();
            let left = MountState { pid, boot: boot.clone(), ..of_chest.clone() };
            store.set_mounted(&id, &left, &lock).unwrap();
        };
        let is_untouched = |stranger: &mut Child| {
            let kept = session.path("mount/kept");
            stranger.try_wait().unwrap().is_none()
                && in_time("a look at the chest", &kept, || fs::read(&kept).unwrap() == b"kept\n")
        };
        leave();
        let status = ["ps", "-a", "--filter", "status=dead", "--format", "{{.Names}}"];
        assert_eq!(session.run(&status), "box\n", "{boot:?}");
        session.run(&["mount", "box", "elsewhere"]);
        assert!(is_untouched(&mut stranger), "{boot:?}: mounted");
        session.unmount("elsewhere");
        leave();
        session.run(&["umount", "box"]);
        assert!(is_untouched(&mut stranger), "{boot:?}: unmounted");
        leave();
        assert_eq!(session.run(&["container", "prune", "-f"]).lines().nth(1), Some(&*id));
        assert!(is_untouched(&mut stranger), "{boot:?}: removed");
        id = session.run(&["create", "--name", "box", "base:1"]).trim().to_owned();
    }
    drop(stranger.stdin.take());
    stranger.wait().unwrap();
    session.unmount("mount");
    assert!(!session.path("mount/kept").exists());
}
