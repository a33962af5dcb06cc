//! How contents get to programs: kept by the kernel, or read and written by it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use memmap2::MmapMut;

use crate::common::{Session, Who, mounts_below};

const WAYS: [&str; 2] = ["data=cache", "data=passthrough"];

/// Mounts a new container of `image:1`, and returns where.
fn mounted(session: &Session, name: &str, options: &str) -> PathBuf {
    let target = session.dir(name);
    session.run(&["mount", "--rw", "--name", name, "-o", options, "image:1", name]);
    target
}

/// Returns the process that serves the mount of a container.
fn server(session: &Session, name: &str) -> u32 {
    let list = session.run(&["mount"]);
    let line = list.lines().find(|line| line.contains(&format!("/{name} "))).unwrap();
    let pid = line.split("served by ").nth(1).unwrap().split(' ').next().unwrap();
    pid.parse().unwrap()
}

#[test]
fn a_mount_has_its_contents_in_the_way_that_is_asked_for() {
    let session = Session::new(Who::Root);
    session.import("image:1");
    for (option, told) in [("auto", "cache"), ("cache", "cache"), ("passthrough", "passthrough")] {
        for access in ["ro", "rw"] {
            let target = session.dir("mount");
            let option = format!("data={option}");
            let kind = if access == "rw" { &["--rw"][..] } else { &[] };
            session.run(&[&["mount"], kind, &["-o", &option, "image:1", "mount"]].concat());
            assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "content\n");
            let status = session.run(&["ps", "--format", "{{.Status}}"]);
            assert!(status.lines().any(|line| line.ends_with(&format!(", {told})"))), "{status}");
            session.unmount("mount");
        }
    }
}

#[test]
fn a_way_of_contents_that_is_not_there_is_refused() {
    let session = Session::new(Who::User);
    session.import("image:1");
    session.dir("mount");
    let said = session.refused(&["mount", "-o", "data=magic", "image:1", "mount"]);
    assert!(said.contains("expected data=auto, cache or passthrough"), "{said}");
    let said = session.refused(&["mount", "-o", "data=passthrough", "image:1", "mount"]);
    let reason = "FUSE passthrough cannot be used (it takes the privilege of root, CAP_SYS_ADMIN)";
    assert!(said.contains(reason), "{said}");
    assert!(mounts_below(&session.path("")).is_empty());
    assert_eq!(session.run(&["ps", "-aq"]), "");
}

/// Appends to a file and compares what it is said to have with what was written.
fn append(path: &Path, rounds: usize) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    let start = file.metadata().unwrap().len();
    for round in 1..=rounds {
        file.write_all(&[b'x'; 100]).unwrap();
        let wanted = start + round as u64 * 100;
        assert_eq!(file.metadata().unwrap().len(), wanted, "{}: fstat", path.display());
        assert_eq!(fs::metadata(path).unwrap().len(), wanted, "{}: stat", path.display());
    }
}

#[test]
fn sizes_are_right_while_many_write_and_look() {
    for way in WAYS {
        let session = Session::new(Who::Root);
        session.import("image:1");
        let mount = mounted(&session, "mount", way);
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Somebody lists all of them all the time, with attributes.
            let listing = scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    for entry in fs::read_dir(&mount).unwrap() {
                        assert!(entry.unwrap().metadata().unwrap().len() <= 40_000);
                    }
                }
            });
            let writers: Vec<_> = (0..4)
                .map(|number| {
                    let path = mount.join(format!("log{number}"));
                    scope.spawn(move || {
                        // Opened again and again, by several at once.
                        let reader = File::create(&path).unwrap();
                        for _ in 0..20 {
                            append(&path, 20);
                        }
                        assert_eq!(reader.metadata().unwrap().len(), 40_000);
                    })
                })
                .collect();
            let results: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
            ended.store(true, Ordering::Relaxed);
            listing.join().unwrap();
            for result in results {
                result.unwrap();
            }
        });
        session.unmount("mount");
    }
}

#[test]
fn what_is_written_through_a_map_shows_in_the_times() {
    for way in WAYS {
        let session = Session::new(Who::Root);
        session.import("image:1");
        let mount = mounted(&session, "mount", way);
        let path = mount.join("mapped");
        fs::write(&path, vec![b'-'; 8192]).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        file.set_modified(long_ago).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mtime(), 1_000_000);
        #[allow(unsafe_code, reason = "mapping a file is unsafe")]
        // SAFETY: nobody makes the file shorter.
        let mut map = unsafe { MmapMut::map_mut(&file) }.unwrap();
        drop(file);
        map[5000] = b'+';
        map.flush().unwrap();
        let read = File::open(&path).unwrap();
        let mut byte = [0];
        read.read_exact_at(&mut byte, 5000).unwrap();
        assert_eq!(byte, *b"+", "{way}");
        assert!(fs::metadata(&path).unwrap().mtime() > 1_000_000, "{way}");
        drop((map, read));
        session.unmount("mount");
    }
}

#[test]
fn more_files_are_open_at_once_than_are_kept_open() {
    // The server keeps 512.
    const FILES: usize = 800;
    strata::sys::raise_open_files_limit().unwrap();
    for way in WAYS {
        for who in [Who::Root, Who::User] {
            if who == Who::User && way == "data=passthrough" {
                continue;
            }
            let session = Session::new(who);
            let image = session.dir("image");
            for number in 0..FILES {
                fs::write(image.join(format!("lower{number}")), format!("lower {number}")).unwrap();
            }
            session.run(&["import", "image", "image:1"]);
            let mount = mounted(&session, "mount", way);
            who.act(|| {
                let open = |name: String| {
                    let mut options = OpenOptions::new();
                    options.read(true).write(true).create(true);
                    options.open(mount.join(name)).unwrap()
                };
                let lower: Vec<_> = (0..FILES).map(|n| open(format!("lower{n}"))).collect();
                let upper: Vec<_> = (0..FILES).map(|n| open(format!("upper{n}"))).collect();
                // Some have no name any more, some another one.
                for number in (0..FILES).step_by(3) {
                    fs::remove_file(mount.join(format!("lower{number}"))).unwrap();
                    fs::remove_file(mount.join(format!("upper{number}"))).unwrap();
                }
                for number in (1..FILES).step_by(3) {
                    for layer in ["lower", "upper"] {
                        let name = format!("{layer}{number}");
                        fs::rename(mount.join(&name), mount.join(format!("{name}.moved"))).unwrap();
                    }
                }
                for number in 0..FILES {
                    upper[number].write_all_at(format!("upper {number}").as_bytes(), 0).unwrap();
                    if number % 8 == 0 {
                        lower[number].write_all_at(b"L", 0).unwrap();
                    }
                }
                for number in 0..FILES {
                    let first = if number % 8 == 0 { 'L' } else { 'l' };
                    for (file, wanted) in [
                        (&lower[number], format!("{first}ower {number}")),
                        (&upper[number], format!("upper {number}")),
                    ] {
                        let mut text = vec![0; wanted.len() + 1];
                        let len = file.read_at(&mut text, 0).unwrap();
                        text.truncate(len);
                        assert_eq!(String::from_utf8(text).unwrap(), wanted, "{way}");
                        assert_eq!(file.metadata().unwrap().len(), wanted.len() as u64);
                        if number % 50 == 0 {
                            file.sync_all().unwrap();
                        }
                    }
                }
            });
            let open = fs::read_dir(format!("/proc/{}/fd", server(&session, "mount"))).unwrap();
            assert!(open.count() < 2 * FILES, "{way}");
            session.unmount("mount");
        }
    }
}

#[test]
fn what_is_removed_while_it_is_open_gives_its_room_back() {
    const BYTES: usize = 20 << 20;
    for way in WAYS {
        let session = Session::new(Who::Root);
        session.import("image:1");
        let mount = mounted(&session, "mount", way);
        let path = mount.join("large");
        fs::write(&path, vec![7; BYTES]).unwrap();
        let open = File::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(open.metadata().unwrap().len(), BYTES as u64);
        let mut byte = [0];
        open.read_exact_at(&mut byte, BYTES as u64 - 1).unwrap();
        assert_eq!(byte, [7]);
        drop(open);
        // The kernel forgets it a moment later, and the server closes it.
        let pid = server(&session, "mount");
        let is_open = || {
            let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
            let links = entries.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
            let mut links = links.map(|link| link.to_string_lossy().into_owned());
            links.any(|link| link.ends_with("/large (deleted)"))
        };
        let end = std::time::Instant::now() + std::time::Duration::from_secs(120);
        while is_open() {
            assert!(std::time::Instant::now() < end, "{way}: it is still open");
            std::thread::yield_now();
        }
        session.unmount("mount");
    }
}
