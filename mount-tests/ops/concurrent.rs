//! Several programs at once.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::errno::Errno;

use crate::common::{Place, everywhere, large, refused};

const THREADS: usize = 6;

/// Calls `work` in several threads, which begin at the same moment. They are who the caller is.
fn at_once<R: Send>(work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        let (barrier, work) = (&barrier, &work);
        let start = |number| {
            scope.spawn(move || {
                barrier.wait();
                work(number)
            })
        };
        let threads: Vec<_> = (0..THREADS).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn open_both(place: &Place, name: &str) -> File {
    File::options().read(true).write(true).open(place.path(name)).unwrap()
}

#[test]
fn the_first_writes_to_a_file_all_arrive() {
    everywhere(|place| {
        let mut expected = large();
        at_once(|number| {
            let file = open_both(place, "large");
            for step in 0..20 {
                file.write_all_at(&[letter(number); 100], offset(number, step)).unwrap();
            }
        });
        for number in 0..THREADS {
            for step in 0..20 {
                let at = usize::try_from(offset(number, step)).unwrap();
                expected[at..at + 100].fill(letter(number));
            }
        }
        assert!(fs::read(place.path("large")).unwrap() == expected);
        at_once(|number| {
            let name = if number % 2 == 0 { "file" } else { "hard" };
            open_both(place, name).write_all_at(b"!", 8 + number as u64).unwrap();
        });
        assert_eq!(place.text("file"), "content\n!!!!!!");
        assert_eq!(place.text("hard"), "content\n!!!!!!");
        assert_eq!(place.stat("file").nlink(), 2);
    });
}

fn letter(number: usize) -> u8 {
    b'A' + u8::try_from(number).unwrap()
}

fn offset(number: usize, step: usize) -> u64 {
    (step * 50_000 + number * 1_000) as u64
}

#[test]
fn readers_never_see_anything_but_the_old_or_the_new() {
    everywhere(|place| {
        let content = large();
        at_once(|number| {
            let file = open_both(place, "large");
            for step in 0..30 {
                let at = offset(step, 0) % 1_000_000;
                if number == 0 {
                    file.write_all_at(b"W", at).unwrap();
                    continue;
                }
                let mut bytes = [0; 64];
                let from = usize::try_from(at).unwrap();
                file.read_exact_at(&mut bytes, at).unwrap();
                assert!(bytes[0] == b'W' || bytes[0] == content[from]);
                assert_eq!(bytes[1..], content[from + 1..from + 64]);
            }
        });
    });
}

#[test]
fn of_those_who_take_one_name_one_gets_it() {
    everywhere(|place| {
        for round in 0..10 {
            let name = format!("dir/new-{round}");
            let made = at_once(|_| File::create_new(place.path(&name)).is_ok());
            assert_eq!(made.into_iter().filter(|made| *made).count(), 1);
            let made = at_once(|_| fs::create_dir(place.path(&format!("empty/{round}"))).is_ok());
            assert_eq!(made.into_iter().filter(|made| *made).count(), 1);
            let removed = at_once(|_| fs::remove_file(place.path(&name)));
            let (removed, late): (Vec<_>, Vec<_>) = removed.into_iter().partition(Result::is_ok);
            assert_eq!(removed.len(), 1);
            for late in late {
                assert_eq!(refused(late), Errno::ENOENT);
            }
        }
        let removed = at_once(|_| fs::remove_file(place.path("large")).is_ok());
        assert_eq!(removed.into_iter().filter(|removed| *removed).count(), 1);
        let moved = at_once(|number| {
            fs::rename(place.path("file"), place.path(&format!("file-{number}"))).is_ok()
        });
        assert_eq!(moved.into_iter().filter(|moved| *moved).count(), 1);
        assert_eq!(place.names("dir"), ["child", "sub"]);
        assert_eq!(place.names("").len(), 5);
    });
}

#[test]
fn regression_a_directory_that_is_looked_at_while_it_grows_counts_right() {
    const MADE: usize = 20;
    everywhere(|place| {
        let making = AtomicUsize::new(THREADS - 2);
        at_once(|number| {
            if number < 2 {
                while making.load(Ordering::Relaxed) > 0 {
                    place.stat("empty");
                }
                return;
            }
            for step in 0..MADE {
                fs::create_dir(place.path(&format!("empty/{step}-{number}"))).unwrap();
            }
            making.fetch_sub(1, Ordering::Relaxed);
        });
        assert_eq!(place.stat("empty").nlink(), 2 + (MADE * (THREADS - 2)) as u64);
    });
}

#[test]
fn many_hands_in_one_directory_leave_what_they_should() {
    everywhere(|place| {
        at_once(|number| {
            for step in 0..20 {
                let name = |what: &str| place.path(&format!("dir/{what}-{number}-{step}"));
                fs::write(name("new"), format!("{number} {step}\n")).unwrap();
                fs::rename(name("new"), name("moved")).unwrap();
                if step % 2 == 0 {
                    fs::hard_link(name("moved"), name("linked")).unwrap();
                    fs::remove_file(name("moved")).unwrap();
                }
            }
        });
        let mut expected = BTreeSet::from(["child".to_owned(), "sub".to_owned()]);
        for number in 0..THREADS {
            for step in 0..20 {
                let what = if step % 2 == 0 { "linked" } else { "moved" };
                let name = format!("{what}-{number}-{step}");
                assert_eq!(place.text(&format!("dir/{name}")), format!("{number} {step}\n"));
                assert_eq!(place.stat(&format!("dir/{name}")).nlink(), 1);
                expected.insert(name);
            }
        }
        assert_eq!(BTreeSet::from_iter(place.names("dir")), expected);
    });
}

#[test]
fn a_file_is_renamed_linked_and_written_at_once_and_stays_one() {
    everywhere(|place| {
        let ino = place.stat("file").ino();
        at_once(|number| {
            let file = open_both(place, "hard");
            for step in 0..20 {
                match number {
                    0 => fs::rename(place.path("file"), place.path("dir/file")).unwrap(),
                    1 => fs::hard_link(place.path("hard"), place.path(&format!("empty/{step}")))
                        .unwrap(),
                    2 => xattr::set(place.path("hard"), "user.note", b"x").unwrap(),
                    _ => file.write_all_at(b"X", 8 + (step * THREADS + number) as u64).unwrap(),
                }
                if number == 0 {
                    fs::rename(place.path("dir/file"), place.path("file")).unwrap();
                }
            }
        });
        let names = ["file".to_owned(), "hard".to_owned()];
        for name in names.into_iter().chain((0..20).map(|step| format!("empty/{step}"))) {
            let stat = place.stat(&name);
            assert_eq!((stat.ino(), stat.nlink()), (ino, 22), "{name}");
        }
        let content = fs::read(place.path("file")).unwrap();
        assert!(content.starts_with(b"content\n"));
        assert_eq!(content.iter().filter(|byte| **byte == b'X').count(), 60);
    });
}

#[test]
fn directories_are_moved_while_others_work_below_them() {
    everywhere(|place| {
        at_once(|number| {
            for step in 0..15 {
                if number == 0 {
                    let (from, to) =
                        if step % 2 == 0 { ("dir", "moved") } else { ("moved", "dir") };
                    fs::rename(place.path(from), place.path(to)).unwrap();
                    continue;
                }
                // The name may have moved away; it then is at the other.
                for above in ["dir", "moved"] {
                    match fs::write(place.path(&format!("{above}/sub/{number}-{step}")), "x") {
                        Ok(()) => {}
                        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOENT)),
                    }
                }
            }
        });
        assert_eq!(place.names(""), ["empty", "file", "hard", "large", "link", "moved"]);
        assert_eq!(place.names("moved"), ["child", "sub"]);
        assert_eq!(place.text("moved/sub/grandchild"), "grandchild\n");
        for name in place.names("moved/sub") {
            assert_eq!(place.stat(&format!("moved/sub/{name}")).nlink(), 1);
        }
    });
}
