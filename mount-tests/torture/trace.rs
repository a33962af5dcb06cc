//! A program that is stopped at every call that changes files, and what is then done with it: it goes
//! on, is killed, or gets another answer than the kernel's.
//!
//! The thread that runs a program is its tracer, so each run has a thread of its own; it waits for
//! nothing but what it traces. All threads and children of the program are stopped too. When the
//! tracer ends, the kernel kills what it traces.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::common::deadline::{Connection, Deadline, PATIENCE, kill_now};
use crate::common::spawn;
use crate::torture::calls::{Call, Kind, Which, install};
use crate::torture::target::{Stop, targets};

/// A call that changes something in a folder that is watched.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    /// How many came before, and one.
    pub(crate) number: usize,
    /// The name of the call.
    pub(crate) call: &'static str,
    pub(crate) kind: Kind,
    /// It may need room: it does not just open what is there.
    pub(crate) changes: bool,
    /// What it changes, from the folder that is watched.
    pub(crate) files: Vec<PathBuf>,
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let files: Vec<_> = self.files.iter().map(|path| path.display().to_string()).collect();
        write!(f, "call {}, {}({})", self.number, self.call, files.join(", "))
    }
}

/// What is done at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Go,
    /// The process is killed, and has not made the call.
    Kill,
    /// The process is killed when it has made the call, before it knows what came of it.
    KillAfter,
    /// The call is not made, and this is what it says: a result, or an error number below 0.
    Answer(i64),
}

impl Act {
    /// Tells whether the process is dead then.
    pub(crate) const fn kills(self) -> bool {
        matches!(self, Self::Kill | Self::KillAfter)
    }

    /// The call fails.
    pub(crate) fn fail(errno: Errno) -> Self {
        Self::Answer(-i64::from(errno as i32))
    }
}

/// What a run has come to.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code; none if it was killed.
    pub(crate) code: Option<i32>,
    pub(crate) stderr: String,
}

/// How a program is run.
#[derive(Debug)]
pub(crate) struct Tracing {
    /// Only what is changed below this counts.
    pub(crate) watched: PathBuf,
    pub(crate) which: Which,
}

impl Tracing {
    /// Watches the changes below a folder.
    pub(crate) fn of(watched: &Path) -> Self {
        Self { watched: watched.canonicalize().unwrap(), which: Which::Changes }
    }

    /// Runs a program to its end; `decide` is asked at each call.
    pub(crate) fn run(
        &self,
        command: &mut Command,
        decide: &mut (dyn FnMut(&Point) -> Act + Send),
    ) -> Ended {
        std::thread::scope(|scope| {
            let tracer = scope.spawn(|| Tracer::start(self, command).finish(decide));
            tracer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// A thread of the program.
struct Thread {
    process: i32,
    /// It is killed when it comes out of the call that it is in.
    dies_after: bool,
}

/// The processes of a program; none before it has begun.
type Processes = Arc<Mutex<Option<BTreeSet<i32>>>>;

struct Tracer<'a> {
    tracing: &'a Tracing,
    calls: HashMap<i64, Call>,
    root: i32,
    threads: HashMap<i32, Thread>,
    /// The processes, for the deadline.
    processes: Processes,
    deadline: Deadline,
    said: tempfile::TempPath,
    points: usize,
    code: Option<i32>,
}

#[allow(clippy::zombie_processes, reason = "the tracer reaps it")]
impl<'a> Tracer<'a> {
    fn start(tracing: &'a Tracing, command: &mut Command) -> Self {
        let filter = tracing.which.filter();
        let (mut told, tell) = io::pipe().unwrap();
        let said = tempfile::NamedTempFile::new().unwrap();
        let stderr = said.reopen().unwrap();
        command.stdout(Stdio::null()).stderr(stderr);
        #[allow(unsafe_code, reason = "a program is to be traced from its first call")]
        // SAFETY: these are system calls alone.
        unsafe {
            command.pre_exec(move || {
                (&tell).write_all(&std::process::id().to_ne_bytes())?;
                ptrace::traceme().map_err(io::Error::from)?;
                install(&filter)
            });
        }
        let processes: Processes = Arc::default();
        let deadline = {
            let processes = Arc::clone(&processes);
            // Whatever it waits for is mounted around the folder that it runs in.
            let folder = command.get_current_dir().map(Path::to_owned);
            Deadline::new(format!("{command:?}"), PATIENCE, move || {
                let mut pid = [0; 4];
                match &*processes.lock().unwrap() {
                    Some(processes) => processes.iter().for_each(|pid| kill_now(*pid)),
                    // A program that cannot be begun stops too, before its process is known.
                    None if told.read_exact(&mut pid).is_ok() => kill_now(i32::from_ne_bytes(pid)),
                    None => {}
                }
                let around = folder.as_deref().map(Connection::around);
                around.iter().flatten().for_each(Connection::abort);
            })
        };
        let root = spawn(command).id().cast_signed();
        *processes.lock().unwrap() = Some(BTreeSet::from([root]));
        let first = Thread { process: root, dies_after: false };
        let calls = tracing.which.calls().into_iter().map(|call| (call.number, call)).collect();
        Self {
            tracing,
            calls,
            root,
            threads: HashMap::from([(root, first)]),
            processes,
            deadline,
            said: said.into_temp_path(),
            points: 0,
            code: None,
        }
    }

    fn finish(mut self, decide: &mut dyn FnMut(&Point) -> Act) -> Ended {
        let root = Pid::from_raw(self.root);
        // It stops when it has begun the program.
        assert_eq!(waitpid(root, None), Ok(WaitStatus::Stopped(root, Signal::SIGTRAP)));
        let options = Options::PTRACE_O_EXITKILL
            | Options::PTRACE_O_TRACESECCOMP
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEEXEC;
        ptrace::setoptions(root, options).unwrap();
        go_on(root, None);
        // Of this thread's own: other tests wait for others.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            match waitpid(None, Some(flags)) {
                Ok(status) => self.handle(status, decide),
                Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => break,
                Err(error) => panic!("waitpid: {error}"),
            }
        }
        assert!(!self.deadline.has_passed(), "the program has not ended; see above");
        let said = fs::read(&self.said).unwrap();
        Ended { code: self.code, stderr: String::from_utf8_lossy(&said).into_owned() }
    }

    fn handle(&mut self, status: WaitStatus, decide: &mut dyn FnMut(&Point) -> Act) {
        match status {
            WaitStatus::Exited(pid, code) => self.gone(pid, Some(code)),
            WaitStatus::Signaled(pid, ..) => self.gone(pid, None),
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_SECCOMP) => {
                self.at_call(pid, decide);
            }
            WaitStatus::PtraceSyscall(pid) => match self.threads.get(&pid.as_raw()) {
                Some(thread) if thread.dies_after => kill_now(thread.process),
                _ => go_on(pid, None),
            },
            WaitStatus::PtraceEvent(pid, ..) => go_on(pid, None),
            // A thread or process that is new.
            WaitStatus::Stopped(pid, Signal::SIGSTOP)
                if !self.threads.contains_key(&pid.as_raw()) =>
            {
                self.note(pid.as_raw());
                go_on(pid, None);
            }
            WaitStatus::Stopped(pid, signal) => go_on(pid, Some(signal)),
            WaitStatus::Continued(_) | WaitStatus::StillAlive => {}
        }
    }

    fn note(&mut self, tid: i32) {
        let status = fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
        let process = line.and_then(|text| text.trim().parse().ok()).unwrap_or(tid);
        self.threads.insert(tid, Thread { process, dies_after: false });
        self.processes.lock().unwrap().get_or_insert_default().insert(process);
    }

    fn gone(&mut self, pid: Pid, code: Option<i32>) {
        let pid = pid.as_raw();
        self.threads.remove(&pid);
        self.processes.lock().unwrap().get_or_insert_default().remove(&pid);
        if pid == self.root {
            self.code = code;
        }
    }

    fn at_call(&mut self, pid: Pid, decide: &mut dyn FnMut(&Point) -> Act) {
        if !self.threads.contains_key(&pid.as_raw()) {
            self.note(pid.as_raw());
        }
        // Killed in this moment, by another thread's call.
        let Some(stop) = Stop::at(pid) else { return };
        let call = self.calls[&stop.number];
        let files = targets(&stop, &call, &self.tracing.watched);
        if files.is_empty() {
            return go_on(pid, None);
        }
        self.points += 1;
        let (number, changes) = (self.points, call.changes(&stop.arguments));
        let point = Point { number, call: call.name, kind: call.kind, changes, files };
        let thread = self.threads.get_mut(&pid.as_raw()).expect("it was just noted");
        match decide(&point) {
            Act::Go => go_on(pid, None),
            Act::Kill => kill_now(thread.process),
            Act::KillAfter => {
                thread.dies_after = true;
                tolerate(ptrace::syscall(pid, None));
            }
            Act::Answer(value) => {
                stop.answer(value);
                go_on(pid, None);
            }
        }
    }
}

fn go_on(pid: Pid, signal: Option<Signal>) {
    tolerate(ptrace::cont(pid, signal));
}

/// A thread that was killed meanwhile is gone without being asked.
fn tolerate(result: nix::Result<()>) {
    match result {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => panic!("ptrace: {error}"),
    }
}
