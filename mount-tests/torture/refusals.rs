//! The disk refuses: one call after the other fails, as on a full or a failing disk. The command says
//! so, nothing is half there, and when the disk works again it does its work.

use nix::errno::Errno;

use crate::common::{Crafted, Packing, Registry, Session, Who, noise};
use crate::torture::calls::{Kind, Which};
use crate::torture::checked::State;
use crate::torture::sample::{Sample, in_rounds};
use crate::torture::trace::{Act, Ended, Point, Tracing};
use crate::torture::walk::{
    Again, Trial, Undisturbed, Walk, fill, never, with_container, with_images,
};

/// What calls are refused with.
const REFUSALS: [Errno; 4] = [Errno::ENOSPC, Errno::EIO, Errno::EDQUOT, Errno::EMFILE];

/// Tells whether a disk, or the kernel, refuses such a call with this.
fn may_be(errno: Errno, point: &Point) -> bool {
    match (errno, point.kind) {
        (Errno::EMFILE, kind) => kind == Kind::Open,
        (_, Kind::Lock) => errno == Errno::EIO,
        (Errno::ENOSPC | Errno::EDQUOT, _) => point.changes,
        _ => true,
    }
}

/// Returns what an error message has for an error number.
fn text(errno: Errno) -> String {
    let said = std::io::Error::from_raw_os_error(errno as i32).to_string().to_lowercase();
    said.split(" (os error").next().expect("it says something").to_owned()
}

/// Refuses one call after the other of a command.
fn refuse(session: &Session, arguments: &[&str], again: Again, between: &dyn Fn(&State) -> bool) {
    let walk = Walk { session, arguments, again, between };
    let before = crate::torture::checked::state(&session.path("store"));
    let (after, _) = walk.undisturbed();
    let sample = Sample::each(41);
    for errnos in in_rounds(&REFUSALS) {
        let mut refused = 0;
        let mut next = sample.from(1);
        for errno in errnos.iter().cycle() {
            let Some(at) = refuse_one(&walk, (&before, &after), *errno, next) else { break };
            refused += 1;
            next = sample.from(at + 1);
        }
        eprintln!("{arguments:?}: {errnos:?} at {refused} calls");
    }
}

/// Refuses the first call from number `from` on that may be refused with this; tells which it was.
fn refuse_one(
    walk: &Walk<'_>,
    (before, after): (&State, &Undisturbed),
    errno: Errno,
    from: usize,
) -> Option<usize> {
    let trial = Trial::new(walk.session);
    let mut at: Option<Point> = None;
    let tracing = Tracing {
        which: Which::ChangesAndOpens,
        ..Tracing::of(trial.root().parent().expect("it is in a folder"))
    };
    let ended = tracing.run(&mut trial.command(walk.arguments), &mut |point| {
        if at.is_some() || point.number < from || !may_be(errno, point) {
            return Act::Go;
        }
        at = Some(point.clone());
        Act::fail(errno)
    });
    let at = at?;
    let what = format!("{:?}, {errno:?} for {at}", walk.arguments);
    check_said(&ended, errno, &what);
    walk.check(&trial, before, after, &what);
    Some(at.number)
}

/// What cannot be done is said in words that a person understands, or is of no consequence.
fn check_said(ended: &Ended, errno: Errno, what: &str) {
    let code = ended.code.unwrap_or_else(|| panic!("{what}: it was killed: {}", ended.stderr));
    let said = &ended.stderr;
    assert!(!said.contains("panicked"), "{what}: {said}");
    if code == 0 {
        return;
    }
    assert_eq!(code, 1, "{what}: {said}");
    // A system call that was refused is shown with the name of the number.
    let name = format!("({errno:?})");
    let is_told = said.to_lowercase().contains(&text(errno)) || said.contains(&name);
    assert!(said.starts_with("Error: ") && is_told, "{what}: {said}");
    if [Errno::ENOSPC, Errno::EDQUOT].contains(&errno) {
        assert!(
            said.contains("where the store is") || said.contains("quota of this user"),
            "{what}: {said}"
        );
    }
}

#[test]
fn what_the_disk_refuses_an_import_or_load_is_told_and_nothing_is_half_there() {
    let session = Session::in_memory(Who::Root);
    with_images(&Trial::at(&session, session.path("store")));
    fill(&session.path(""), "third");
    refuse(&session, &["import", "third", "third:1"], Again::Succeeds, &never);
    session.run(&["rmi", "base:1", "other:1"]);
    refuse(&session, &["load", "-q", "-i", "saved.tar"], Again::Succeeds, &|_| true);
}

#[test]
fn what_the_disk_refuses_a_pull_is_told_and_nothing_is_half_there() {
    let registry = Registry::start();
    let large = noise(5 << 20);
    let layers = [
        Crafted::new(Packing::Gzip, &[("a", b"small\n"), ("b", &large[..70_000])]),
        Crafted::new(Packing::Zstd, &[("b", &large[1..9000]), ("d/e", &large)]),
    ];
    registry.put_image("team/app:1", "linux/amd64", &layers);
    let session = Session::in_memory(Who::Root);
    session.run(&["images"]);
    let image = registry.image("team/app:1");
    refuse(&session, &["pull", "-q", &image], Again::Succeeds, &never);
}

#[test]
fn what_the_disk_refuses_a_container_is_told_and_nothing_is_half_there() {
    let session = Session::in_memory(Who::Root);
    with_container(&Trial::at(&session, session.path("store")));
    refuse(&session, &["commit", "box", "other:1"], Again::Succeeds, &never);
    let taken = Again::Refuses("\"/chest\" is already in use");
    refuse(&session, &["create", "--name", "chest", "base:1"], taken, &never);
    let taken = Again::Refuses("has a snapshot second already");
    refuse(&session, &["snapshot", "box", "second"], taken, &never);
    refuse(&session, &["undo", "--no-keep", "box", "first"], Again::Succeeds, &never);
    refuse(&session, &["rm", "box"], Again::Refuses("No such container: box"), &never);
}

#[test]
fn what_the_disk_refuses_a_removal_is_told_and_nothing_is_half_there() {
    let session = Session::in_memory(Who::Root);
    with_images(&Trial::at(&session, session.path("store")));
    refuse(&session, &["rmi", "other:1"], Again::Refuses("No such image: other:1"), &never);
    session.run(&["tag", "base:1", "other:1"]);
    refuse(&session, &["image", "prune", "-f"], Again::Succeeds, &never);
}
