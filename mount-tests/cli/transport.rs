//! How requests come from the kernel: what is there is used, and what is asked for is had or refused.

use std::fs;

use crate::common::{Session, Who, mounts_below};

const ENABLE: &str = "/sys/module/fuse/parameters/enable_uring";

/// Counts the threads of a process that have a name.
fn threads(pid: &str, name: &str) -> usize {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let names =
        threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("comm")).unwrap());
    names.filter(|found| found.trim() == name).count()
}

#[test]
fn a_mount_uses_the_transport_that_is_asked_for() {
    for who in [Who::Root, Who::User] {
        let session = Session::new(who);
        session.import("image:1");
        for (transport, name) in [("dev-fuse", "serve"), ("io-uring", "ring"), ("auto", "ring")] {
            let has_rings = fs::read_to_string(ENABLE).is_ok_and(|text| text.trim() == "Y");
            if name == "ring" && !has_rings {
                eprintln!("this kernel has no FUSE over io_uring, or it is off");
                continue;
            }
            let target = session.dir("mount");
            session.run(&["mount", "--transport", transport, "image:1", "mount"]);
            let content = who.act(|| fs::read_to_string(target.join("file")).unwrap());
            assert_eq!(content, "content\n");
            let told = if name == "ring" { "io-uring" } else { "dev-fuse" };
            let status = session.run(&["ps", "--format", "{{.Status}}"]);
            assert!(status.trim().ends_with(&format!(" ({told}, cache)")), "{status}");
            let list = session.run(&["mount"]);
            assert!(list.contains(&format!(" ({told}, cache) for ")), "{list}");
            let pid = list.split("served by ").nth(1).unwrap().split(' ').next().unwrap();
            assert!(threads(pid, name) >= 2, "{transport}");
            session.unmount("mount");
        }
    }
}

#[test]
fn a_transport_that_is_not_there_is_refused() {
    let session = Session::new(Who::Root);
    session.import("image:1");
    session.dir("mount");
    let said = session.refused(&["mount", "--transport", "tcp", "image:1", "mount"]);
    assert!(said.contains("expected transport=auto, dev-fuse or io-uring"), "{said}");
    if !fs::read_to_string(ENABLE).is_ok_and(|text| text.trim() == "Y") {
        let said = session.refused(&["mount", "--transport", "io-uring", "image:1", "mount"]);
        assert!(said.contains("FUSE over io_uring"), "{said}");
    }
    assert!(mounts_below(&session.path("")).is_empty());
    assert_eq!(session.run(&["ps", "-aq"]), "");
}
