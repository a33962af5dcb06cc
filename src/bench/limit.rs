//! The time that a run may take, and what happens when it takes longer.
//!
//! Work in this process asks now and then whether it may go on. A command that runs is killed. A call
//! that hangs in a mount comes back when the mount's server is gone, which is the last means.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

use crate::bench::process::serving_below;
use crate::bench::workspace::release;
use crate::bench::{Error, Result};
use crate::sys;

/// The time that a run may take.
#[derive(Debug)]
pub(crate) struct Limit {
    within: Duration,
    state: Arc<State>,
    /// Dropped when the run is over.
    over: Option<Sender<()>>,
    watching: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    is_over: AtomicBool,
    /// The command that runs.
    child: Mutex<Option<i32>>,
}

/// How long what hangs may go on hanging before its mount is taken from it.
const GRACE: Duration = Duration::from_secs(5);
/// Most bytes of what a command has said that are told.
const SAID: usize = 300;

impl Limit {
    /// Begins the time of a run whose mounts are below `dir`.
    pub(crate) fn begin(within: Duration, dir: &Path) -> Self {
        let state = Arc::new(State::default());
        let (over, ended) = mpsc::channel();
        let (watched, dir) = (Arc::clone(&state), dir.to_owned());
        let watching = thread::spawn(move || {
            if ended.recv_timeout(within) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            watched.is_over.store(true, Ordering::Relaxed);
            if let Some(child) = *watched.child.lock()
                && let Err(error) = sys::kill(child)
            {
                tracing::warn!("{error}");
            }
            if ended.recv_timeout(GRACE) == Err(RecvTimeoutError::Timeout) {
                for server in serving_below(&dir) {
                    if let Err(error) = sys::kill(server) {
                        tracing::warn!("{error}");
                    }
                }
                release(&dir);
            }
        });
        Self { within, state, over: Some(over), watching: Some(watching) }
    }

    /// Asks whether to go on.
    pub(crate) fn go_on(&self) -> Result<()> {
        match self.state.is_over.load(Ordering::Relaxed) {
            true => Err(Error::TooLong(self.within)),
            false => Ok(()),
        }
    }

    /// Runs a command to its end and returns what it wrote to standard output; it must succeed.
    pub(crate) fn run(&self, command: &mut Command) -> Result<Vec<u8>> {
        self.go_on()?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|error| not_started(command, &error))?;
        *self.state.child.lock() = i32::try_from(child.id()).ok();
        let output = child.wait_with_output();
        *self.state.child.lock() = None;
        self.go_on()?;
        let output = output.map_err(|error| not_started(command, &error))?;
        succeeded(command, &output)?;
        Ok(output.stdout)
    }

    /// Runs a command that leaves a process behind, which may keep its standard output and error open.
    pub(crate) fn run_server(&self, command: &mut Command, log: &Path) -> Result<()> {
        self.go_on()?;
        let said = std::fs::File::create(log).map_err(|error| not_started(command, &error))?;
        let out = said.try_clone().map_err(|error| not_started(command, &error))?;
        command.stdin(Stdio::null()).stdout(out).stderr(said);
        let mut child: Child = command.spawn().map_err(|error| not_started(command, &error))?;
        *self.state.child.lock() = i32::try_from(child.id()).ok();
        let status = child.wait();
        *self.state.child.lock() = None;
        self.go_on()?;
        let status = status.map_err(|error| not_started(command, &error))?;
        if status.success() {
            return Ok(());
        }
        let stderr = std::fs::read(log).unwrap_or_default();
        succeeded(command, &Output { status, stdout: Vec::new(), stderr })
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        drop(self.over.take());
        if let Some(watching) = self.watching.take()
            && watching.join().is_err()
        {
            tracing::warn!("the thread that watches the time has panicked");
        }
    }
}

fn succeeded(command: &Command, output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let said: String = said.trim().chars().take(SAID).collect();
    let code = match output.status.code() {
        Some(code) => format!("code {code}"),
        None => output.status.to_string(),
    };
    let said = if said.is_empty() { said } else { format!(": {said}") };
    Err(Error::Command { command: name_of(command), code, said })
}

fn not_started(command: &Command, error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::NotHere(format!("there is no program {}", command.get_program().display()))
        }
        _ => Error::NotHere(format!("{} cannot be started: {error}", name_of(command))),
    }
}

/// Returns the program and the word after it that says what it does.
fn name_of(command: &Command) -> String {
    let path = Path::new(command.get_program());
    let program = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let verb = command.get_args().find_map(|word| {
        word.to_str().filter(|word| word.len() > 1 && word.chars().all(|c| c.is_ascii_lowercase()))
    });
    verb.map_or_else(|| program.clone(), |verb| format!("{program} {verb}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(text: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", text]);
        command
    }

    #[test]
    fn a_command_says_what_it_wrote_or_why_not() {
        let folder = tempfile::tempdir().unwrap();
        let limit = Limit::begin(Duration::from_secs(600), folder.path());
        assert_eq!(limit.run(&mut sh("echo good")).unwrap(), b"good\n");
        let error = limit.run(&mut sh("echo why >&2; exit 3")).unwrap_err();
        assert_eq!(error.to_string(), "sh ended with code 3: why");
        let error = limit.run(&mut Command::new("/nowhere/program")).unwrap_err();
        assert_eq!(error.to_string(), "there is no program /nowhere/program");
        let log = folder.path().join("log");
        let error = limit.run_server(&mut sh("echo why >&2; exit 1"), &log).unwrap_err();
        assert_eq!(error.to_string(), "sh ended with code 1: why");
        limit.run_server(&mut sh("exec sleep 0"), &log).unwrap();
    }

    #[test]
    fn what_takes_too_long_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let limit = Limit::begin(Duration::from_millis(1), folder.path());
        while limit.go_on().is_ok() {
            thread::yield_now();
        }
        assert!(matches!(limit.run(&mut sh("exit 0")), Err(Error::TooLong(_))));
        let limit = Limit::begin(Duration::from_millis(100), folder.path());
        let error = limit.run(&mut sh("exec sleep 600")).unwrap_err();
        assert!(matches!(error, Error::TooLong(_)), "{error}");
    }
}
