//! Commands that are interrupted, and what they print where nobody can read colours.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::common::{Fault, Faults, Registry, Session, Who, no_beginning, spawn, succeed};

/// Returns how many files a folder of the store has.
fn count(session: &Session, folder: &str) -> usize {
    let path = session.path("store").join(folder);
    fs::read_dir(path).map_or(0, |entries| {
        entries.filter(|entry| !is_hidden(&entry.as_ref().unwrap().path())).count()
    })
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Interrupts a process as the keyboard does, and returns its exit code.
fn interrupt(mut child: Child) -> Option<i32> {
    succeed(Command::new("kill").args(["-INT", &child.id().to_string()]));
    child.wait().unwrap().code()
}

/// Checks that nothing is left of what was being made.
fn nothing_is_left(session: &Session) {
    assert_eq!((count(session, "staging"), count(session, "leases")), (0, 0));
    assert_eq!(session.run(&["images", "-q"]), "");
}

#[test]
fn an_interrupted_import_leaves_nothing() {
    for who in [Who::Root, Who::User] {
        let session = Session::new(who);
        // Making the store uses the folder that is watched below.
        session.run(&["images"]);
        let mut command = session.command(&["import", "-", "base:1"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = spawn(&mut command);
        // The beginning of a tar: the rest never comes.
        child.stdin.as_mut().unwrap().write_all(&[0; 100]).unwrap();
        while count(&session, "staging") == 0 {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it worked");
            std::thread::yield_now();
        }
        assert_eq!(interrupt(child), Some(130));
        nothing_is_left(&session);
        session.import("base:1");
    }
}

#[test]
fn an_interrupted_pull_leaves_no_image() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    let name = registry.image("demo:1");
    session.import(&name);
    session.run(&["push", "-q", &name]);
    session.run(&["rmi", &name]);
    let faults = Faults::before(registry.host(), |request| match request.is_blob() {
        true => Fault::Stall(1),
        false => Fault::None,
    });
    let slow = format!("{}/demo:1", faults.host());
    let mut command = session.command(&["pull", &slow]);
    let child = spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
    faults.stalled();
    assert_eq!(interrupt(child), Some(130));
    nothing_is_left(&session);
    session.run(&["pull", "-q", &name]);
}

#[test]
fn an_interrupted_commit_leaves_no_image() {
    let session = Session::new(Who::User);
    session.import("base:1");
    session.run(&["create", "--name", "box", "base:1"]);
    let mut command = session.command(&["commit", "box", "made:1"]);
    let child = spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
    let code = interrupt(child);
    // It may have been faster than the signal.
    let made = session.run(&["images", "-q", "made:1"]);
    assert!(matches!((code, made.is_empty()), (Some(130), _) | (None, true) | (Some(0), false)));
    assert_eq!((count(&session, "staging"), count(&session, "leases")), (0, 0));
    session.run(&["commit", "box", "made:2"]);
}

#[test]
fn what_is_piped_has_no_control_code() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    let name = registry.image("demo:1");
    session.import(&name);
    for words in [
        &["push", &name][..],
        &["rmi", &name],
        &["pull", &name],
        &["images"],
        &["images", "--tree"],
        &["history", &name],
        &["inspect", &name],
        &["info"],
        &["version"],
        &["--help"],
        &["help", "pull"],
        &["images", "--none"],
        &["none"],
    ] {
        let output = session.try_run(words);
        let said = format!("{}{}", output.stdout, output.stderr);
        let control = |letter: char| letter.is_control() && !['\n', '\t'].contains(&letter);
        assert!(!said.contains(control), "{words:?}: {said:?}");
        assert!(!said.is_empty(), "{words:?}");
    }
}

#[test]
fn nobody_who_listens_is_no_error() {
    let session = Session::new(Who::User);
    session.import("base:1");
    for words in [&["images"][..], &["inspect", "base:1"], &["completions", "bash"], &["--help"]] {
        let mut command = session.command(words);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let _guard = no_beginning();
        let output = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let output = output.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.as_str()), (Some(0), ""), "{words:?}");
    }
}
