//! Commands that change the store, killed at every call: the next one finds a store in which
//! everything is whole, and finishes what was begun when it is asked again.

use std::fs;

use crate::common::{Crafted, Packing, Registry, Session, Who, noise};
use crate::torture::checked::State;
use crate::torture::sample::Sample;
use crate::torture::trace::{Act, Tracing};
use crate::torture::walk::{Again, Trial, Walk, fill, never, with_container, with_images};

/// Kills a command of a session at some of its calls.
fn kill(session: &Session, arguments: &[&str], again: Again) {
    kill_with(session, arguments, again, &never);
}

fn kill_with(
    session: &Session,
    arguments: &[&str],
    again: Again,
    between: &dyn Fn(&State) -> bool,
) {
    let walk = Walk { session, arguments, again, between };
    let killed = walk.kill(Sample::each(31));
    assert!(killed > 0, "{arguments:?} was never killed");
    eprintln!("{arguments:?}: killed at {killed} calls");
}

/// Returns a session with a store that is empty.
fn session() -> Session {
    let session = Session::in_memory(Who::Root);
    session.run(&["images"]);
    session
}

/// Returns a session with two images that share a layer.
fn session_with_images() -> Session {
    let session = Session::in_memory(Who::Root);
    with_images(&Trial::at(&session, session.path("store")));
    session
}

/// Returns such a session, with a container that has changes and a snapshot.
fn session_with_container() -> Session {
    let session = Session::in_memory(Who::Root);
    with_container(&Trial::at(&session, session.path("store")));
    session
}

#[test]
fn a_store_that_is_being_made_is_made_on() {
    let session = Session::in_memory(Who::Root);
    fill(&session.path(""), "image");
    kill(&session, &["images"], Again::Succeeds);
}

#[test]
fn an_import_that_is_killed_leaves_all_or_nothing() {
    let session = session();
    fill(&session.path(""), "image");
    kill(&session, &["import", "image", "base:1"], Again::Succeeds);
}

#[test]
fn a_pull_that_is_killed_leaves_all_or_nothing() {
    let registry = Registry::start();
    let large = noise(5 << 20);
    let layers = [
        Crafted::new(Packing::Gzip, &[("a", b"small\n"), ("b", &large[..70_000]), ("c", b"c")]),
        Crafted::new(Packing::Zstd, &[("b", &large[1..9000]), ("d/e", &large)]),
    ];
    registry.put_image("team/app:1", "linux/amd64", &layers);
    let session = session();
    let image = registry.image("team/app:1");
    kill(&session, &["pull", "-q", &image], Again::Succeeds);
    // It was there before, under another name.
    registry.put_image("team/app:2", "linux/amd64", &layers[..1]);
    session.run(&["pull", "-q", &registry.image("team/app:2")]);
    kill(&session, &["pull", "-q", &image], Again::Succeeds);
}

#[test]
fn a_load_that_is_killed_leaves_all_or_nothing() {
    let from = session_with_images();
    let session = session();
    fs::copy(from.path("saved.tar"), session.path("saved.tar")).unwrap();
    // Names are set one after the other.
    let between =
        |state: &State| state.keys().collect::<Vec<_>>() == ["image docker.io/library/base:1"];
    kill_with(&session, &["load", "-q", "-i", "saved.tar"], Again::Succeeds, &between);
}

#[test]
fn a_commit_that_is_killed_leaves_all_or_nothing() {
    let session = session_with_container();
    kill(&session, &["commit", "box", "made:1"], Again::Succeeds);
    kill(&session, &["commit", "box", "other:1"], Again::Succeeds);
}

#[test]
fn a_removal_of_an_image_that_is_killed_leaves_all_or_nothing() {
    let session = session_with_images();
    kill(&session, &["rmi", "other:1"], Again::Refuses("No such image: other:1"));
    session.run(&["create", "--name", "box", "other:1"]);
    kill(&session, &["rmi", "-f", "other:1"], Again::Refuses("No such image: other:1"));
}

#[test]
fn a_prune_that_is_killed_leaves_all_or_nothing() {
    let session = session_with_container();
    // Something of each kind that nobody needs.
    session.run(&["mutate", "--env", "A=b", "other:1"]);
    kill(&session, &["image", "prune", "-f"], Again::Succeeds);
    // Names and containers go one after the other.
    let between = |_: &State| true;
    kill_with(&session, &["system", "prune", "-a", "-f"], Again::Succeeds, &between);
}

#[test]
fn a_container_that_is_being_made_or_removed_is_whole_or_not_there() {
    let session = session_with_images();
    let taken = Again::Refuses("\"/box\" is already in use");
    kill(&session, &["create", "--name", "box", "base:1"], taken);
    let session = session_with_container();
    kill(&session, &["rm", "box"], Again::Refuses("No such container: box"));
    kill(&session, &["rename", "box", "chest"], Again::Refuses("No such container: box"));
}

#[test]
fn a_snapshot_or_undo_that_is_killed_leaves_all_or_nothing() {
    let session = session_with_container();
    let taken = Again::Refuses("has a snapshot second already");
    kill(&session, &["snapshot", "box", "second"], taken);
    kill(&session, &["undo", "--no-keep", "box", "first"], Again::Succeeds);
    kill(
        &session,
        &["container", "snapshot", "rm", "box", "first"],
        Again::Refuses("box has no snapshot first"),
    );
}

#[test]
fn a_tag_or_pin_that_is_killed_leaves_all_or_nothing() {
    let session = session_with_images();
    kill(&session, &["tag", "base:1", "team/name:1"], Again::Succeeds);
    kill(&session, &["tag", "base:1", "other:1"], Again::Succeeds);
    kill(&session, &["untag", "base:1"], Again::Refuses("No such image: base:1"));
    kill(&session, &["pin", "base:1"], Again::Succeeds);
}

#[test]
fn an_image_made_of_another_one_is_whole_or_not_there() {
    let session = session_with_images();
    kill(&session, &["append", "-t", "made:1", "base:1", "other"], Again::Succeeds);
    kill(&session, &["squash", "other:1", "made:1"], Again::Succeeds);
    kill(&session, &["mutate", "--env", "A=b", "other:1", "-t", "made:1"], Again::Succeeds);
    let onto =
        ["rebase", "other:1", "--old-base", "base:1", "--new-base", "base:1", "-t", "made:1"];
    kill(&session, &onto, Again::Succeeds);
}

#[test]
fn an_archive_that_is_being_written_is_whole_or_not_there() {
    let session = session_with_container();
    let folder = session.dir("out");
    let file = folder.join("file.tar");
    let sample = Sample::each(7);
    for arguments in [
        &["save", "-o", "out/file.tar", "base:1", "other:1"][..],
        &["export", "-o", "out/file.tar", "box"],
    ] {
        session.run(arguments);
        let expected = fs::read(&file).unwrap();
        let mut killed = 0;
        let mut next = sample.from(1);
        loop {
            fs::remove_file(&file).unwrap();
            let act = if killed % 2 == 0 { Act::Kill } else { Act::KillAfter };
            let mut at = None;
            let tracing = Tracing::of(&folder);
            let ended = tracing.run(&mut session.command(arguments), &mut |point| {
                if at.is_some() || point.number < next {
                    return Act::Go;
                }
                at = Some(point.clone());
                act
            });
            let Some(at) = at else {
                assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
                break;
            };
            let what = format!("{arguments:?}, {act:?} at {at}");
            assert!(!file.exists() || fs::read(&file).unwrap() == expected, "{what}");
            session.run(arguments);
            assert!(fs::read(&file).unwrap() == expected, "{what}, again");
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "{what}, again");
            killed += 1;
            next = sample.from(next + 1);
        }
        assert!(killed > 0, "{arguments:?} was never killed");
        eprintln!("{arguments:?}: killed at {killed} calls");
    }
}
