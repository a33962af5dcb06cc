//! The server of a mount while a program works in it.
//!
//! Killed at every call that changes the upper: the next mount shows each change done or not, all that the
//! program was told of, and an empty work directory. Refused one call after the other by the disk: the
//! program is told, and can do it again.

use std::path::Path;

use nix::errno::Errno;

use crate::common::{Session, Tree, Who};
use crate::torture::calls::Kind;
use crate::torture::sample::{Sample, in_rounds};
use crate::torture::scene::{Scene, World, either};
use crate::torture::trace::{Act, Point};
use crate::torture::work::{How, steps};

/// Kills the server at one of the calls that are chosen after the other.
fn kill(world: World, who: Who) {
    let sample = Sample::each(45);
    let scene = Scene::new(Session::in_memory(who), world);
    let steps = steps(who);
    let states = scene.states();
    let mut killed = 0;
    let mut next = sample.from(1);
    loop {
        let name = format!("box-{next}");
        let words = scene.begin(&name);
        let mut at = None;
        let act = if killed % 2 == 0 { Act::Kill } else { Act::KillAfter };
        let (ended, worked) = scene.run(&name, &words, How::ToDeath, &mut |point| {
            if at.is_some() || point.number < next {
                return Act::Go;
            }
            at = Some(point.clone());
            act
        });
        let done = worked.done;
        let Some(at) = at else {
            assert_eq!((ended.code, done), (Some(0), steps.len()), "{}", ended.stderr);
            break;
        };
        let doing = steps.get(done).map_or("the end", |step| step.name);
        let what = format!("{act:?} at {at}, after {done} steps, at: {doing}");
        scene.check(&name, &words, &what, &either(&states[done..]));
        scene.forget(&name);
        killed += 1;
        next = sample.from(next + 1);
    }
    assert!(killed > 0, "it was never killed");
    eprintln!("the server of {world:?}, {who:?}: killed at {killed} calls");
}

#[test]
fn a_server_of_a_container_that_is_killed_leaves_each_change_done_or_not() {
    kill(World::Container, Who::Root);
}

#[test]
fn a_server_of_an_ordinary_user_that_is_killed_leaves_each_change_done_or_not() {
    kill(World::Container, Who::User);
}

#[test]
fn a_server_of_directories_that_is_killed_leaves_each_change_done_or_not() {
    kill(World::Directories, Who::Root);
}

/// Has the disk refuse the first call that is chosen; tells which it was. The program is told, and can do
/// again what it was doing.
fn refuse_first(
    scene: &Scene,
    states: &[Tree],
    (name, errno): (&str, Errno),
    choose: &(dyn Fn(&Point) -> bool + Sync),
) -> Option<Point> {
    let words = scene.begin(name);
    let all = states.len() - 1;
    let mut at: Option<Point> = None;
    let (ended, worked) = scene.run(name, &words, How::Again, &mut |point| {
        if at.is_some() || point.kind == Kind::Lock || !choose(point) {
            return Act::Go;
        }
        at = Some(point.clone());
        Act::fail(errno)
    });
    let at = at?;
    let what = format!("{errno:?} for {at}");
    assert!(!ended.stderr.contains("panicked"), "{what}: {}", ended.stderr);
    // Where it cannot be mounted for it, that is said. Who did not wait for that may have begun:
    // a mount is there a moment before it is recorded.
    let is_unrecorded = ended.stderr.contains("/state: ");
    if worked.done == 0 || is_unrecorded {
        assert_eq!(ended.code, Some(1), "{what}");
        assert!(ended.stderr.starts_with("Error: "), "{what}: {}", ended.stderr);
        scene.check(name, &words, &what, &either(&states[worked.done..]));
    } else {
        assert_eq!(worked.done, all, "{what}: {}", ended.stderr);
        let is_told = worked.failed.iter().all(|told| *told == errno as i32);
        assert!(is_told && worked.failed.len() < 2, "{what}: {:?}", worked.failed);
        scene.check(name, &words, &what, &states[all..]);
    }
    scene.forget(name);
    Some(at)
}

/// Has the disk refuse one call after the other, with one of several error numbers.
fn refuse(world: World, who: Who) {
    let sample = Sample::each(61);
    let scene = Scene::new(Session::in_memory(who), world);
    let states = scene.states();
    for errnos in in_rounds(&[Errno::ENOSPC, Errno::EIO, Errno::EDQUOT]) {
        let mut refused = 0;
        let mut next = sample.from(1);
        for errno in errnos.iter().copied().cycle() {
            let name = format!("box-{errno:?}-{next}");
            let chosen = |point: &Point| point.number >= next;
            let Some(at) = refuse_first(&scene, &states, (&name, errno), &chosen) else { break };
            refused += 1;
            next = sample.from(at.number + 1);
        }
        eprintln!("the server of {world:?}, {who:?}: {errnos:?} at {refused} calls");
    }
}

#[test]
fn regression_what_was_copied_up_is_written_to_when_the_times_of_its_directory_stay_new() {
    let scene = Scene::new(Session::in_memory(Who::Root), World::Directories);
    let states = scene.states();
    // Where the first file has been copied.
    let chosen = |point: &Point| point.call == "utimensat" && point.files == [Path::new("upper")];
    let refused = refuse_first(&scene, &states, ("box", Errno::ENOSPC), &chosen);
    eprintln!("refused: {}", refused.expect("something was copied up"));
}

#[test]
fn what_the_disk_refuses_a_server_of_a_container_the_program_is_told_and_does_again() {
    refuse(World::Container, Who::Root);
}

#[test]
fn what_the_disk_refuses_a_server_of_an_ordinary_user_the_program_is_told_and_does_again() {
    refuse(World::Container, Who::User);
}

#[test]
fn what_the_disk_refuses_a_server_of_directories_the_program_is_told_and_does_again() {
    refuse(World::Directories, Who::Root);
}
