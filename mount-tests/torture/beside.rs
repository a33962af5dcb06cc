//! A command is stopped at a call, as long as another one does all of its work beside it: who mounts waits
//! for nobody, and what is taken into use while it is being collected is there.

use std::fs;
use std::path::Path;

use nix::fcntl::FlockArg;

use crate::common::{Crafted, Packing, Registry, Session, Who, run_alone};
use crate::torture::calls::Which;
use crate::torture::checked::{faults, files, leftovers};
use crate::torture::sample::{Sample, is_long};
use crate::torture::trace::{Act, Ended, Tracing};
use crate::torture::walk::{Trial, fill, with_container};

/// How many calls of one run are stopped at, of which each takes its time.
const AT_ONCE: usize = 30;

/// A registry, and a store that all trials begin with.
struct Scene {
    registry: Registry,
    session: Session,
}

impl Scene {
    /// Makes a store with the images `base:1`, `other:1` and one that was pulled, and two containers of
    /// `base:1`, of which `box` has a file of `other:1`.
    fn new() -> Self {
        let registry = Registry::start();
        for (tag, first) in [("1", 1), ("2", 7)] {
            let numbers: String = (first..9000).map(|number| format!("{number}\n")).collect();
            let layers = [
                Crafted::new(Packing::Gzip, &[("a", b"small\n"), ("numbers", numbers.as_bytes())]),
                Crafted::new(Packing::Zstd, &[("d/e", &numbers.as_bytes()[100..])]),
            ];
            registry.put_image(&format!("team/app:{tag}"), "linux/amd64", &layers);
        }
        let session = Session::in_memory(Who::Root);
        let scene = Self { registry, session };
        let trial = Trial::at(&scene.session, scene.session.path("store"));
        with_container(&trial);
        fill(&scene.session.path(""), "third");
        trial.run(&["create", "--name", "chest", "base:1"]);
        trial.run(&["cp", "other/bin/tool-3", "box:/same"]);
        trial.run(&["pull", "-q", &scene.image("1")]);
        scene
    }

    fn image(&self, tag: &str) -> String {
        self.registry.image(&format!("team/app:{tag}"))
    }

    /// Returns how often a command can be stopped.
    fn points(&self, arguments: &[&str], which: Which) -> usize {
        let mut points = 0;
        let trial = Trial::new(&self.session);
        let ended = stop(&trial, arguments, which, &mut |number| points = number);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
        points
    }
}

/// Runs a command; `at` is called at each of its calls, while it is stopped there.
fn stop(
    trial: &Trial<'_>,
    arguments: &[&str],
    which: Which,
    at: &mut (dyn FnMut(usize) + Send),
) -> Ended {
    let tracing = Tracing { which, ..Tracing::of(&trial.root()) };
    tracing.run(&mut trial.command(arguments), &mut |point| {
        at(point.number);
        Act::Go
    })
}

fn unmount(trial: &Trial<'_>) {
    let output = run_alone(&mut trial.command(&["umount", "mount"]));
    assert_eq!(output.code, 0, "{}", output.stderr);
}

/// Mounts an image or a container, reads in it, and unmounts it.
fn mount_and_read(session: &Session, trial: &Trial<'_>, what: &str) {
    trial.run(&["mount", what, "mount"]);
    for file in ["bin/large", "etc/hostname"] {
        let [found, expected] = [session.path("mount"), session.path("image")]
            .map(|folder| fs::read(folder.join(file)).unwrap());
        assert!(found == expected, "{what}: {file}");
    }
    unmount(trial);
}

#[test]
fn who_mounts_waits_for_no_other_command() {
    let scene = Scene::new();
    let (session, new) = (&scene.session, scene.image("2"));
    session.dir("mount");
    let sample = Sample::each(61);
    for arguments in [
        &["pull", "-q", &new][..],
        &["image", "prune", "-a", "-f"],
        &["system", "prune", "-f"],
        &["commit", "box", "made:1"],
        &["import", "third", "third:1"],
        &["load", "-q", "-i", "saved.tar"],
        &["fsck"],
    ] {
        let points = scene.points(arguments, Which::Changes);
        let sample = sample.within(points);
        let chosen: Vec<_> = (1..=points).filter(|number| sample.has(*number)).collect();
        let mut stopped = 0;
        for chosen in chosen.chunks(AT_ONCE) {
            let trial = Trial::new(session);
            // Neither has to do with the command; a container is written to.
            trial.run(&["create", "--name", "trunk", "base:1"]);
            trial.run(&["pin", "base:1"]);
            // A prune takes only what is not mounted.
            let is_prune = arguments.contains(&"prune");
            let ended = stop(&trial, arguments, Which::Changes, &mut |number| {
                if chosen.contains(&number) {
                    let what = if is_prune || number % 2 == 0 { "base:1" } else { "trunk" };
                    mount_and_read(session, &trial, what);
                    stopped += 1;
                }
            });
            assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
            assert_eq!(faults(&trial.root()), Vec::<String>::new(), "{arguments:?}");
        }
        assert!(stopped > 0, "{arguments:?} was never stopped");
        eprintln!("{arguments:?}: {stopped} mounts beside it");
    }
}

/// A command that takes into use what is being collected.
struct Rival<'a> {
    arguments: Vec<&'a str>,
    /// What it may say if that is gone already.
    refusal: Option<&'a str>,
    /// What must be there when it has succeeded: in an image, or in what it has mounted.
    file: &'a str,
    content: &'a [u8],
}

impl Rival<'_> {
    /// Tells whether the command has succeeded. It may only fail as is foreseen.
    fn has_done(&self, code: Option<i32>, stderr: &str, what: &str) -> bool {
        let is_foreseen = self.refusal.is_some_and(|text| stderr.contains(text));
        assert!(code == Some(0) || is_foreseen, "{what}: {stderr}");
        code == Some(0)
    }

    /// Tells whether the name that leads to the file is there. One that was given before the prune has
    /// listed images is one that it takes, with the image.
    fn is_named(&self, trial: &Trial<'_>) -> bool {
        match self.file.rsplit_once(":/") {
            Some((image, _)) if self.arguments[0] != "create" => {
                !trial.try_run(&["images", "-q", image]).stdout.is_empty()
            }
            _ => true,
        }
    }

    /// Checks that all is whole, and that what it has taken into use is there, if it has; and that the next
    /// prune frees everything. Tells whether something was there.
    fn check(&self, session: &Session, trial: &Trial<'_>, has_done: bool, what: &str) -> bool {
        assert_eq!(faults(&trial.root()), Vec::<String>::new(), "{what}");
        let checked = trial.try_run(&["fsck"]);
        assert_eq!(checked.code, 0, "{what}: {}{}", checked.stdout, checked.stderr);
        let is_there = has_done && self.is_named(trial);
        if is_there {
            let found = match self.file.split_once(":/") {
                Some(_) => trial.try_run(&["cat", self.file]).stdout.into_bytes(),
                None => fs::read(session.path(self.file)).unwrap(),
            };
            assert!(found == self.content, "{what}: {} is not what it was", self.file);
            if self.arguments[0] == "mount" {
                unmount(trial);
            }
        }
        trial.run(&["system", "prune", "-a", "-f"]);
        let root = trial.root();
        assert!(
            files(&root).is_empty() && leftovers(&root).is_empty(),
            "{what}: {:?}",
            files(&root)
        );
        is_there
    }
}

/// What the commands of [`rivals`] take into use.
struct Wanted {
    app: String,
    in_app: String,
    of_app: Vec<u8>,
    of_other: Vec<u8>,
}

impl Wanted {
    fn of(scene: &Scene) -> Self {
        let app = scene.image("1");
        let numbers: String = (1..9000).map(|number| format!("{number}\n")).collect();
        Self {
            in_app: format!("{app}:/d/e"),
            app,
            of_app: numbers.as_bytes()[100..].to_vec(),
            of_other: fs::read(scene.session.path("other/bin/tool-3")).unwrap(),
        }
    }

    /// Returns a command for each way to take something into use. The mount is the last.
    fn rivals(&self) -> [Rival<'_>; 7] {
        let gone = Some("No such ");
        let rival = |arguments: &[&'static str], refusal, file: &'static str| Rival {
            arguments: arguments.to_vec(),
            refusal,
            file,
            content: &self.of_other,
        };
        let pull = Rival {
            arguments: vec!["pull", "-q", &self.app],
            refusal: None,
            file: &self.in_app,
            content: &self.of_app,
        };
        [
            rival(&["create", "--name", "new", "other:1"], gone, "new:/bin/tool-3"),
            rival(&["commit", "box", "made:1"], None, "made:1:/same"),
            pull,
            rival(&["load", "-q", "-i", "saved.tar"], None, "other:1:/bin/tool-3"),
            rival(&["append", "-t", "made:1", "base:1", "other"], None, "made:1:/bin/tool-3"),
            rival(&["tag", "other:1", "kept:1"], gone, "kept:1:/bin/tool-3"),
            rival(&["mount", "other:1", "mount"], gone, "mount/bin/tool-3"),
        ]
    }
}

/// Takes the images that no container uses.
const PRUNE: [&str; 4] = ["image", "prune", "-a", "-f"];

#[test]
fn what_is_taken_into_use_while_it_is_being_collected_is_there_and_the_rest_goes() {
    let scene = Scene::new();
    let session = &scene.session;
    session.dir("mount");
    let wanted = Wanted::of(&scene);
    let rivals = wanted.rivals();
    let points = scene.points(&PRUNE, Which::ChangesAndOpens);
    let sample = Sample::each(points);
    let (mut stopped, mut succeeded) = (0, 0);
    for (index, rival) in rivals.iter().enumerate() {
        // In a sample each has other points.
        let shift = if is_long() { 0 } else { index * points / rivals.len() };
        for chosen in (1..=points).filter(|number| sample.has(number + shift)) {
            let trial = Trial::new(session);
            let what = format!("{:?} at call {chosen} of a prune", rival.arguments);
            let mut done = None;
            let ended = stop(&trial, &PRUNE, Which::ChangesAndOpens, &mut |number| {
                if number == chosen {
                    let output = trial.try_run(&rival.arguments);
                    done = Some(rival.has_done(Some(output.code), &output.stderr, &what));
                }
            });
            assert_eq!(ended.code, Some(0), "{what}: {}", ended.stderr);
            let has_done = done.unwrap_or(false);
            succeeded += usize::from(rival.check(session, &trial, has_done, &what));
            stopped += usize::from(done.is_some());
        }
    }
    assert!(stopped >= rivals.len() && succeeded > 0, "{stopped}, {succeeded}");
    eprintln!("{stopped} commands beside a prune of {points} calls, {succeeded} in time");
}

/// Tells whether nobody sweeps or collects: who collects waits for that.
fn is_idle(root: &Path) -> bool {
    let file = fs::File::open(root.join("gc.lock")).unwrap();
    nix::fcntl::Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok()
}

#[test]
fn a_prune_beside_a_command_that_is_stopped_takes_nothing_of_what_that_uses() {
    let scene = Scene::new();
    let session = &scene.session;
    let wanted = Wanted::of(&scene);
    let (mut stopped, mut succeeded) = (0, 0);
    // The server of a mount does not end by itself.
    for (index, rival) in wanted.rivals()[..6].iter().enumerate() {
        let points = scene.points(&rival.arguments, Which::ChangesAndOpens);
        let sample = Sample::each(points);
        let shift = if is_long() { 0 } else { index * points / 6 };
        for chosen in (1..=points).filter(|number| sample.has(number + shift)) {
            let trial = Trial::new(session);
            let what = format!("a prune at call {chosen} of {:?}", rival.arguments);
            let mut is_over = false;
            let ended = stop(&trial, &rival.arguments, Which::ChangesAndOpens, &mut |number| {
                if number >= chosen && !is_over && is_idle(&trial.root()) {
                    trial.run(&PRUNE);
                    is_over = true;
                }
            });
            let has_done = rival.has_done(ended.code, &ended.stderr, &what);
            succeeded += usize::from(rival.check(session, &trial, has_done, &what));
            stopped += usize::from(is_over);
        }
    }
    assert!(stopped >= 5 && succeeded > 0, "{stopped}, {succeeded}");
    eprintln!("{stopped} prunes beside commands that were stopped, {succeeded} of which went on");
}
