//! Where commands are run: a folder with the images, a registry, and docker or strata to answer.

use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use crate::cli::docker::images;
use crate::cli::docker::normal::Normal;
use crate::common::{Output, Registry, Session, Who, run, succeed};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Who answers.
#[derive(Debug)]
pub(crate) enum Answers {
    Strata,
    /// The daemon at this address.
    Docker(OsString),
}

/// A folder with a store of its own, or the daemon of docker.
#[derive(Debug)]
pub(crate) struct World {
    session: Session,
    registry: Registry,
    answers: Answers,
    normal: Normal,
}

impl World {
    /// Returns a world with nothing in it but archives to load.
    pub(crate) fn new(answers: Answers) -> Self {
        let session = Session::new(Who::Root);
        let registry = Registry::start();
        let work = session.dir("work");
        let known = images::make(&work);
        let texts = vec![
            (work.display().to_string(), "<DIR>"),
            (session.path("").display().to_string(), "<HOME>/"),
            (registry.host().to_owned(), "<REGISTRY>"),
        ];
        // Strata is called by the other's name, so that the commands are the same.
        let programs = session.dir("programs");
        symlink(env!("CARGO_BIN_EXE_strata"), programs.join("docker")).unwrap();
        Self { session, registry, answers, normal: Normal { known, texts } }
    }

    /// Runs a command of the shell and returns what it said, in words that stay.
    pub(crate) fn run(&self, text: &str) -> Output {
        self.normal.of(run(&mut self.shell(text)))
    }

    fn shell(&self, text: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", text])
            .env_clear()
            .env("HOME", self.session.path(""))
            .env("REGISTRY", self.registry.host())
            .current_dir(self.session.path("work"))
            .stdin(Stdio::null());
        let programs = self.session.path("programs");
        match &self.answers {
            Answers::Strata => command
                .env("PATH", format!("{}:{PATH}", programs.display()))
                .env("STRATA_ROOT", self.session.path("store")),
            Answers::Docker(host) => command.env("PATH", PATH).env("DOCKER_HOST", host),
        };
        command
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Answers::Docker(_) = self.answers {
            succeed(&mut self.shell("docker system prune -a -f --volumes"));
        }
    }
}
