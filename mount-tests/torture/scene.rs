//! A mount in which a process works while its server is traced.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::common::deadline::{Connection, Deadline, PATIENCE, in_time, kill_now};
use crate::common::{Session, Tree, Who, differences};
use crate::torture::trace::{Act, Ended, Point, Tracing};
use crate::torture::work::{How, Worker, fill, seen, states};

/// What is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum World {
    /// A container of an image.
    Container,
    /// Plain directories.
    Directories,
}

/// A mount to be killed.
pub(crate) struct Scene {
    pub(crate) session: Session,
    world: World,
    begun: i64,
}

impl Scene {
    /// Begins in the folder and the store of a session.
    pub(crate) fn new(session: Session, world: World) -> Self {
        fill(&session.dir("lower"));
        let begun = now();
        if world == World::Container {
            session.run(&["import", "lower", "base:1"]);
        }
        Self { session, world, begun }
    }

    /// Makes an upper that is empty, and returns the words that mount it.
    pub(crate) fn begin(&self, name: &str) -> Vec<String> {
        self.session.dir("mount");
        match self.world {
            World::Container => {
                self.session.run(&["create", "--name", name, "base:1"]);
                vec!["mount".to_owned(), name.to_owned(), "mount".to_owned()]
            }
            World::Directories => {
                for kind in ["", "upper", "work"] {
                    self.session.dir(&format!("{name}/{kind}"));
                }
                let dirs = format!("lowerdir=lower,upperdir={name}/upper,workdir={name}/work");
                let options = format!("{dirs},metacopy=on,redirect_dir=on");
                ["overlay", "-o", &options, "mount"].map(str::to_owned).to_vec()
            }
        }
    }

    /// Returns where the upper and its work directory are.
    pub(crate) fn watched(&self, name: &str) -> PathBuf {
        match self.world {
            World::Directories => self.session.path(name),
            World::Container => {
                let id = self.session.run(&["inspect", "-f", "{{.Id}}", name]);
                self.session.path("store/containers").join(id.trim())
            }
        }
    }

    pub(crate) fn mount(&self, words: &[String]) {
        self.session.run(words);
    }

    pub(crate) fn unmount(&self, lazily: bool) {
        let words: &[&str] =
            if lazily { &["umount", "--lazy", "mount"] } else { &["umount", "mount"] };
        self.session.run(words);
    }

    /// Returns what is seen before the work and after each step of it.
    pub(crate) fn states(&self) -> Vec<Tree> {
        let words = self.begin("undisturbed");
        self.mount(&words);
        let (mount, who) = (self.session.path("mount"), self.session.who);
        let done = || who.act(|| states(&mount, self.begun, who));
        let states = in_time("the work in the mount", &mount, done);
        self.unmount(false);
        states
    }

    /// Has the work done in a mount whose server is traced. Returns how it ended, and how many steps
    /// were done.
    pub(crate) fn run(
        &self,
        name: &str,
        words: &[String],
        how: How,
        decide: &mut (dyn FnMut(&Point) -> Act + Send),
    ) -> (Ended, Worked) {
        let mut words = words.to_vec();
        words.insert(1, if self.world == World::Container { "--foreground" } else { "-f" }.into());
        let mount = self.session.path("mount");
        let tracing = Tracing::of(&self.watched(name));
        let [has_ended, is_killed] = [const { AtomicBool::new(false) }; 2];
        std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                let mut command = as_themselves(&self.session, &words);
                let ended = tracing.run(&mut command, &mut |point| {
                    let act = decide(point);
                    is_killed.fetch_or(act.kills(), Ordering::AcqRel);
                    act
                });
                has_ended.store(true, Ordering::Release);
                ended
            });
            let mut connection = None;
            while connection.is_none() && !has_ended.load(Ordering::Acquire) {
                connection = Connection::of(&mount);
                std::thread::yield_now();
            }
            let worked = match connection {
                None => Worked::default(),
                Some(connection) => {
                    let done = self.session.path("done");
                    let worked = work(&mount, done, (self.session.who, how), &connection);
                    // Of a container whose server was killed, the next mount clears the dead one.
                    let is_killed = is_killed.load(Ordering::Acquire);
                    if !is_killed || self.world == World::Directories {
                        self.unmount(true);
                    }
                    worked
                }
            };
            let ended = server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (ended, worked)
        })
    }

    /// Returns what is seen in a mount.
    pub(crate) fn seen(&self) -> Tree {
        let mount = self.session.path("mount");
        let look = || self.session.who.act(|| seen(&mount, self.begun));
        in_time("a look at the mount", &mount, look)
    }

    /// Checks what a killed server has left.
    pub(crate) fn check(&self, name: &str, words: &[String], what: &str, expected: &[Tree]) {
        for round in ["first", "second"] {
            self.mount(words);
            let found = self.seen();
            self.unmount(false);
            let shown = |tree: &Tree| differences(tree, &found).join("\n");
            let shown: Vec<_> = expected.iter().map(shown).collect();
            assert!(
                expected.contains(&found),
                "{what}, {round} mount: neither is shown:\n{}",
                shown.join("\nnor\n")
            );
        }
        let work = self.watched(name).join("work/work");
        let left: Vec<_> = fs::read_dir(work).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, Vec::<PathBuf>::new(), "{what}: the work directory");
    }

    pub(crate) fn forget(&self, name: &str) {
        match self.world {
            World::Container => drop(self.session.run(&["rm", name])),
            World::Directories => fs::remove_dir_all(self.session.path(name)).unwrap(),
        }
    }
}

/// Returns the program as a session's user runs it. Who is not root could not have himself traced, so it
/// is root who becomes the user when that is settled.
fn as_themselves(session: &Session, words: &[String]) -> Command {
    let command = session.command(words);
    if session.who == Who::Root {
        return command;
    }
    let id = session.who.id().to_string();
    let mut other = Command::new("setpriv");
    other.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
    other.arg(command.get_program()).args(command.get_args()).env_clear();
    for (name, value) in command.get_envs() {
        other.env(name, value.expect("none is removed"));
    }
    other.current_dir(session.path(""));
    other
}

/// What has become of the work.
#[derive(Debug, Default)]
pub(crate) struct Worked {
    /// How many steps were done.
    pub(crate) done: usize,
    /// The error numbers of those that had to be done again.
    pub(crate) failed: Vec<i32>,
}

/// Has the work done.
fn work(mount: &Path, done: PathBuf, (who, how): (Who, How), connection: &Connection) -> Worked {
    let mut worker = Worker::start(mount, done, who, how);
    let (pid, connection) = (worker.process.id().cast_signed(), connection.clone());
    let deadline = Deadline::new("the work in the mount".to_owned(), PATIENCE, move || {
        connection.abort();
        kill_now(pid);
    });
    let status = worker.process.wait().unwrap();
    assert!(!deadline.has_passed(), "the work has not ended; see above");
    assert!(status.success(), "{status}");
    Worked { done: worker.done(), failed: worker.failed() }
}

/// Returns the time, in seconds since 1970, before which nothing of a test has happened.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    i64::try_from(now.as_secs()).expect("it is not that late") - 1
}

/// Returns what may be seen when the first of these states was reached and the next one perhaps: a file
/// that was being changed may have the time of that already.
pub(crate) fn either(states: &[Tree]) -> Vec<Tree> {
    let mut either: Vec<_> = states.iter().take(2).cloned().collect();
    if let [before, after] = &states[..2.min(states.len())] {
        let changes = |name: &&String| after.get(*name) != before.get(*name);
        let early = before.iter().filter(|(name, _)| changes(name)).map(|(name, line)| {
            let mut words: Vec<_> = line.split(' ').collect();
            words[2] = "now";
            (name.clone(), words.join(" "))
        });
        let early: Vec<_> = early.collect();
        let mut touched = before.clone();
        touched.extend(early);
        either.push(touched);
    }
    either
}
