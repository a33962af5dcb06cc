//! A container is looked at, committed and kept while programs change it: what comes and goes meanwhile
//! is no error, and what is committed is a state that there was.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::common::deadline::in_time;
use crate::common::{Output, Session, Who, script};
use crate::torture::walk::fill;

/// How often each command is run.
const ROUNDS: usize = 12;

/// Makes a container that is mounted at `mount`.
fn mounted() -> Session {
    let session = Session::new(Who::Root);
    fill(&session.path(""), "image");
    session.run(&["import", "image", "base:1"]);
    session.dir("mount");
    session.run(&["create", "--name", "box", "base:1"]);
    session.run(&["mount", "box", "mount"]);
    session
}

/// Does the same again and again in a mount while something else is done.
fn meanwhile<T>(
    mount: &Path,
    work: impl Fn(usize) + Sync,
    act: impl FnOnce(&AtomicUsize) -> T,
) -> T {
    let (is_over, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let both = || {
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    work(rounds.load(Ordering::Acquire));
                    rounds.fetch_add(1, Ordering::AcqRel);
                }
            });
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(&rounds)));
            is_over.store(true, Ordering::Release);
            worker.join().unwrap();
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    };
    in_time("the work in the mount, and what is done beside it,", mount, both)
}

/// Makes, renames and removes files and directories, also of the image.
fn come_and_go(mount: &Path, round: usize) {
    let dir = mount.join(format!("dir-{}", round % 3));
    let other = mount.join("other");
    fs::create_dir_all(dir.join("deep/deeper")).unwrap();
    for name in ["one", "two", "deep/three", "deep/deeper/four"] {
        fs::write(dir.join(name), "x".repeat(6000)).unwrap();
    }
    fs::rename(dir.join("one"), dir.join("deep/five")).unwrap();
    fs::rename(dir.join("deep"), dir.join("moved")).unwrap();
    fs::rename(&dir, &other).unwrap();
    fs::remove_dir_all(&other).unwrap();
    fs::rename(mount.join("bin"), mount.join("bin-2")).unwrap();
    fs::rename(mount.join("bin-2"), mount.join("bin")).unwrap();
}

/// Tells whether a command says that something is wrong. A snapshot says that it is not of one moment.
fn complains(output: &Output) -> bool {
    let may_be = "was changed while it was kept";
    output.code != 0 || !output.stderr.lines().all(|line| line.contains(may_be))
}

#[test]
fn who_looks_at_a_container_that_is_being_changed_meets_no_error() {
    let session = mounted();
    let mount = session.path("mount");
    let commands: &[&[&str]] = &[
        &["diff", "box"],
        &["export", "-o", "out.tar", "box"],
        &["ls", "box:/"],
        &["ls", "-l", "box:/etc"],
        &["find", "box", "-type", "f"],
        &["tree", "box"],
        &["cp", "box:/", "copied"],
        &["diff", "base:1", "box"],
        &["ps", "-s"],
        &["system", "df", "-v"],
        &["snapshot", "box"],
    ];
    let complaints = meanwhile(
        &mount,
        |round| come_and_go(&mount, round),
        |_| {
            let mut complaints = Vec::new();
            for command in commands {
                for _ in 0..ROUNDS {
                    let output = session.try_run(command);
                    if complains(&output) {
                        complaints.push(format!("{command:?}: {}", output.stderr));
                    }
                    script("rm -rf copied", &session.path(""));
                }
            }
            complaints
        },
    );
    session.unmount("mount");
    assert!(complaints.is_empty(), "{}", complaints.join(""));
}

/// Two files that always have the same number, but for the moment in which they are changed: `first` is
/// never behind, and never more than one ahead.
fn count_on(mount: &Path, round: usize) {
    for name in ["first", "second"] {
        let file =
            fs::File::options().write(true).create(true).truncate(false).open(mount.join(name));
        file.unwrap().write_all_at(format!("{round:08}").as_bytes(), 0).unwrap();
    }
}

#[test]
fn a_commit_of_a_container_that_is_being_changed_is_a_state_or_refused() {
    let session = mounted();
    let mount = session.path("mount");
    in_time("the first count", &mount, || count_on(&mount, 0));
    let outcomes = meanwhile(
        &mount,
        |round| count_on(&mount, round),
        |rounds| {
            let mut outcomes = Vec::new();
            for number in 0..ROUNDS {
                let begun = rounds.load(Ordering::Acquire);
                let name = format!("made:{number}");
                outcomes.push((name.clone(), begun, session.try_run(&["commit", "box", &name])));
            }
            outcomes
        },
    );
    session.unmount("mount");
    for (name, begun, output) in outcomes {
        if output.code != 0 {
            assert!(output.stderr.contains("is being changed"), "{name}: {}", output.stderr);
            continue;
        }
        let number = |file: &str| -> usize {
            session.run(&["cat", &format!("{name}:{file}")]).parse().expect("a number")
        };
        let (first, second) = (number("/first"), number("/second"));
        assert!(first == second || first == second + 1, "{name}: {first} and {second}");
        assert!(first + 1 >= begun, "{name}: {first}, when {begun} were done");
    }
    // When nothing changes any more, it is committed.
    session.run(&["commit", "box", "calm:1"]);
}
