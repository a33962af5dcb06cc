//! A command that is killed at one of its calls after the other, and what must hold after each.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Output, Session, run, script, succeed};
use crate::torture::checked::{State, faults, files, leftovers, state};
use crate::torture::sample::Sample;
use crate::torture::trace::{Act, Ended, Point, Tracing};

/// What a command is that has been interrupted and is given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// It succeeds.
    Succeeds,
    /// It succeeds, or refuses with this text because it was done already.
    Refuses(&'static str),
}

/// A command that is to be interrupted.
pub(crate) struct Walk<'a> {
    /// Has the store in which the command begins, and the files that it is given.
    pub(crate) session: &'a Session,
    pub(crate) arguments: &'a [&'a str],
    pub(crate) again: Again,
    /// Tells of what a store holds that is neither as before nor as after whether it may be so.
    pub(crate) between: &'a dyn Fn(&State) -> bool,
}

/// A store on which the command is tried.
pub(crate) struct Trial<'a> {
    session: &'a Session,
    root: PathBuf,
    /// Holds it, if it is a copy.
    _folder: Option<tempfile::TempDir>,
}

impl<'a> Trial<'a> {
    /// Copies the store of a session.
    pub(crate) fn new(session: &'a Session) -> Self {
        let folder = tempfile::tempdir_in(session.path("")).unwrap();
        let (store, root) = (session.path("store"), folder.path().join("store"));
        if store.exists() {
            succeed(Command::new("cp").arg("-a").arg(store).arg(&root));
        }
        Self { session, root, _folder: Some(folder) }
    }

    /// Takes a store that is somewhere else than the session's.
    pub(crate) fn at(session: &'a Session, root: PathBuf) -> Self {
        Self { session, root, _folder: None }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.root.clone()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.session.command(arguments);
        // The same work gives the same ids.
        command.env("STRATA_ROOT", &self.root).env("SOURCE_DATE_EPOCH", "1700000000");
        command
    }

    pub(crate) fn try_run(&self, arguments: &[&str]) -> Output {
        run(&mut self.command(arguments))
    }

    /// Runs a command, which must succeed.
    pub(crate) fn run(&self, arguments: &[&str]) {
        let output = self.try_run(arguments);
        assert_eq!(output.code, 0, "{arguments:?}: {}", output.stderr);
    }

    /// Runs a command; `decide` says what is done at each of its calls.
    pub(crate) fn trace(
        &self,
        arguments: &[&str],
        decide: &mut (dyn FnMut(&Point) -> Act + Send),
    ) -> Ended {
        let folder = self.root.parent().expect("it is in a folder");
        Tracing::of(folder).run(&mut self.command(arguments), decide)
    }
}

/// What a store holds when nobody has interrupted anything.
pub(crate) struct Undisturbed {
    pub(crate) state: State,
    files: BTreeSet<PathBuf>,
}

impl Undisturbed {
    pub(crate) fn of(root: &Path) -> Self {
        Self { state: state(root), files: files(root) }
    }
}

impl Walk<'_> {
    /// Kills the command at one of the calls that are chosen after the other, until it ends unharmed;
    /// tells at how many.
    pub(crate) fn kill(&self, sample: Sample) -> usize {
        let before = state(&self.session.path("store"));
        let (after, points) = self.undisturbed();
        let sample = sample.within(points);
        let mut killed = 0;
        let mut next = sample.from(1);
        loop {
            let trial = Trial::new(self.session);
            let mut at = None;
            // Of the two moments at a call each has its turn.
            let act = if killed % 2 == 0 { Act::Kill } else { Act::KillAfter };
            let ended = trial.trace(self.arguments, &mut |point| {
                if at.is_some() || point.number < next {
                    return Act::Go;
                }
                at = Some(point.clone());
                act
            });
            let Some(at) = at else {
                assert_eq!(ended.code, Some(0), "{:?}: {}", self.arguments, ended.stderr);
                return killed;
            };
            let what = format!("{:?}, {act:?} at {at}", self.arguments);
            assert_eq!(ended.code, None, "{what} was not killed");
            self.check(&trial, &before, &after, &what);
            killed += 1;
            next = sample.from(next + 1);
        }
    }

    /// Runs the command as it is meant to be; tells too at how many calls it can be killed.
    pub(crate) fn undisturbed(&self) -> (Undisturbed, usize) {
        let trial = Trial::new(self.session);
        let mut points = 0;
        let ended = trial.trace(self.arguments, &mut |point| {
            points = point.number;
            Act::Go
        });
        assert_eq!(ended.code, Some(0), "{:?}: {}", self.arguments, ended.stderr);
        assert_eq!(faults(&trial.root()), Vec::<String>::new());
        assert_eq!(leftovers(&trial.root()), Vec::<PathBuf>::new());
        (Undisturbed::of(&trial.root()), points)
    }

    /// Checks what an interrupted command has left, and that it does its work when it is run again.
    pub(crate) fn check(&self, trial: &Trial<'_>, before: &State, after: &Undisturbed, what: &str) {
        let root = trial.root();
        assert_eq!(faults(&root), Vec::<String>::new(), "{what}");
        let found = state(&root);
        assert!(
            found == *before || found == after.state || (self.between)(&found),
            "{what}: neither as before nor as after:\n{}",
            shown(before, &found)
        );
        let listed = trial.try_run(&["images"]);
        assert_eq!((listed.code, listed.stderr.as_str()), (0, ""), "{what}");
        let again = trial.try_run(self.arguments);
        match self.again {
            Again::Refuses(text) if again.code != 0 => {
                assert!(again.stderr.contains(text), "{what}, again: {}", again.stderr);
            }
            _ => assert_eq!(again.code, 0, "{what}, again: {}", again.stderr),
        }
        assert_eq!(faults(&root), Vec::<String>::new(), "{what}, again");
        let found = state(&root);
        assert!(found == after.state, "{what}, again:\n{}", shown(&after.state, &found));
        let mut left = leftovers(&root);
        if !self.arguments.iter().any(|word| ["rmi", "prune"].contains(word)) {
            // What an earlier collection has moved aside goes with the next one.
            left.retain(|path| !is_collected(path));
        }
        assert_eq!(left, Vec::<PathBuf>::new(), "{what}, again");
        assert_eq!(files(&root), after.files, "{what}, again");
    }
}

/// Tells whether something that is left behind is of a collector.
fn is_collected(path: &Path) -> bool {
    ["blob", "chain", "layer", "object"]
        .iter()
        .any(|sort| path.to_string_lossy().starts_with(&format!("trash/{sort}-")))
}

/// Returns the lines in which a state differs from the one that is expected.
fn shown(expected: &State, found: &State) -> String {
    crate::common::differences(expected, found).join("\n")
}

/// Makes two images that share a layer.
pub(crate) fn with_images(trial: &Trial<'_>) {
    let folder = trial.session.path("");
    fill(&folder, "image");
    fill(&folder, "other");
    trial.run(&["import", "image", "base:1"]);
    trial.run(&["append", "-t", "other:1", "base:1", "other"]);
    trial.run(&["save", "-o", "saved.tar", "base:1", "other:1"]);
}

/// Makes such images, and a container of the first with changes and a snapshot.
pub(crate) fn with_container(trial: &Trial<'_>) {
    with_images(trial);
    let mount = trial.session.dir("mount");
    trial.run(&["create", "--name", "box", "base:1"]);
    trial.run(&["mount", "box", "mount"]);
    script(
        "echo one > etc/new && rm etc/same && chmod 600 bin/tool-1 && mv bin bin2 && mkdir bin
         seq 9000 > bin2/added",
        &mount,
    );
    trial.run(&["umount", "mount"]);
    trial.run(&["snapshot", "box", "first"]);
    trial.run(&["mount", "box", "mount"]);
    script("echo two > etc/new && rm bin2/added && seq 8000 > etc/more", &mount);
    trial.run(&["umount", "mount"]);
}

/// Nothing but as before or as after will do.
pub(crate) fn never(_: &State) -> bool {
    false
}

/// Makes a folder `name` with what a small image has: small files, large ones, links.
pub(crate) fn fill(folder: &Path, name: &str) {
    script(
        &format!(
            "mkdir -p {name}/etc {name}/bin && cd {name}
             echo {name} > etc/hostname && ln etc/hostname etc/same && ln -s hostname etc/link
             for n in 1 2 3; do seq $n 3000 > bin/tool-$n; done
             echo {name} >> bin/tool-3 && chmod 4755 bin/tool-3
             seq 400000 > bin/large
             find . -exec touch -h -d @1600000000 {{}} +"
        ),
        folder,
    );
}
