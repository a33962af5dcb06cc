//! Replacing the server of a mount by another program while programs work in it.
//!
//! The server listens at a socket in the container's directory, which only its user can reach. Who wants
//! to go on in its place is told what was agreed on, makes ready, and says so; the server stops and
//! carries over what it knows; then the other one goes on and this one ends. Until the last moment the
//! server goes on as before if anything is wrong with the other one.
//!
//! Messages are JSON behind a length; descriptors follow the message that says how many there are.

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::fuse::{Agreement, Data, Server};
use crate::overlay::{Carried, HeldUpper};
use crate::service::error::{Error, Result, io_error};
use crate::service::holder::Record;
use crate::store::MountState;
use crate::sys::{self, SharedMemory};

/// The form of the messages.
const VERSION: u32 = 1;
/// The name of the socket in the container's directory.
const SOCKET: &str = "control";
/// How its name begins as long as nobody is to find it.
const UNPUBLISHED: &str = "control-";
/// How long one side waits for the other; it may have to open a large image on a slow disk.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// How long the old server waits for requests to come into the slots that it still has.
const LEAVES_WITHIN: Duration = Duration::from_secs(60);
/// No message is longer.
const LONGEST_BYTES: u32 = 64 << 20;
/// What comes in the place of the number of a slot when there are no more.
const NO_MORE: u32 = u32::MAX;

/// Who wants to go on.
#[derive(Debug, Serialize, Deserialize)]
struct Ask {
    version: u32,
    /// The version of the program.
    program: String,
}

/// What the server has.
#[derive(Debug, Serialize, Deserialize)]
enum Offer {
    /// It says no.
    Refused(String),
    /// It agrees.
    Agreed(Box<Terms>),
}

/// What is gone on with. Descriptors follow: those of the agreement, the container's lock, of a tree that can
/// be changed two more, and connections to those who wait for the end of the mount.
#[derive(Debug, Serialize, Deserialize)]
struct Terms {
    version: u32,
    agreement: Agreement,
    state: MountState,
    is_writable: bool,
    waiting: usize,
}

/// Whether the new one is ready.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// It is not, and goes away.
    Failed(String),
    /// It is.
    Ready,
    /// It goes on, when it is told that this was heard.
    Taken,
}

/// That the other one was heard: this one does not go on any more.
#[derive(Debug, Serialize, Deserialize)]
struct Heard;

/// How far a server is in handing over, in memory that its holder shares: should it be killed then, the holder
/// knows who goes on.
#[derive(Debug)]
pub(crate) struct Handing(SharedMemory);

impl Handing {
    /// Makes it, for a process that is forked from now on.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(SharedMemory::new(size_of::<u64>())?))
    }

    /// Notes how far the server is with the other one, who is talked to through a descriptor.
    fn note(&self, stage: u64, socket: BorrowedFd<'_>) {
        self.set(stage | u64::try_from(socket.as_raw_fd()).unwrap_or(0));
    }

    fn set(&self, noted: u64) {
        if let Some(word) = self.0.words().first() {
            word.store(noted, Ordering::Release);
        }
    }

    fn noted(&self) -> u64 {
        self.0.words().first().map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Tells whether the server is as far as this.
    fn is_at(&self, stage: u64) -> bool {
        self.noted() & STAGES == stage
    }

    /// Takes the socket of a server that has died: it had one table of open files with this process.
    fn take_socket(&self) -> Option<UnixStream> {
        let number = RawFd::try_from(self.noted() & !STAGES).ok()?;
        sys::inherit(number).map(UnixStream::from)
    }

    /// Tells whether another program goes on; it is told once more, in the place of a server that has died.
    pub(crate) fn is_over(&self) -> bool {
        let is_over = self.is_at(OVER);
        if is_over
            && let Some(socket) = self.take_socket()
            && let Err(error) = send(&socket, &Heard)
        {
            tracing::debug!("{error}");
        }
        is_over
    }

    /// Waits until another program has given up that a server which has died told what it knew: it may be
    /// putting the upper in order, which only one process may. It hears no more that it goes on.
    pub(crate) fn wait_until_alone(&self) {
        if self.is_at(TELLS)
            && let Some(socket) = self.take_socket()
            && let Err(error) = wait_until_gone(&socket)
        {
            tracing::warn!("who wanted to go on with the mount: {error}");
        }
        self.set(0);
    }
}

/// How far a server is: it tells the other one what it knows, who may begin to make ready; the other one
/// goes on.
const TELLS: u64 = 1 << 32;
const OVER: u64 = 2 << 32;
const STAGES: u64 = TELLS | OVER;

fn wait_until_gone(mut socket: &UnixStream) -> io::Result<()> {
    socket.shutdown(Shutdown::Write)?;
    socket.set_read_timeout(Some(ANSWERS_WITHIN))?;
    let mut ignored = [0; 256];
    while socket.read(&mut ignored)? > 0 {}
    Ok(())
}

/// What the server knows: so many bytes and descriptors follow.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    bytes: usize,
    descriptors: usize,
}

/// What came of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The server goes on.
    GoesOn,
    /// Another one does.
    Taken,
}

fn send(mut socket: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    let bytes = serde_json::to_vec(message).map_err(io::Error::other)?;
    let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    socket.write_all(&len.to_le_bytes())?;
    socket.write_all(&bytes)
}

fn receive<T: DeserializeOwned>(mut socket: &UnixStream) -> io::Result<T> {
    let mut len = [0; 4];
    socket.read_exact(&mut len)?;
    let len = u32::from_le_bytes(len);
    if len > LONGEST_BYTES {
        return Err(io::Error::other(format!("a message of {len} bytes")));
    }
    let mut bytes = vec![0; len as usize];
    socket.read_exact(&mut bytes)?;
    serde_json::from_slice(&bytes).map_err(io::Error::other)
}

/// Returns a path by which a socket in a directory can be reached however long the directory's own is.
fn short_path(dir: &OwnedFd, name: &str) -> String {
    format!("/proc/self/fd/{}/{name}", dir.as_raw_fd())
}

/// A socket in a container's directory, which nobody can find before it is published.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: UnixListener,
    dir: OwnedFd,
}

impl Listener {
    /// Makes it.
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let error = || io_error("listen in", dir.display().to_string());
        let open = sys::open_dir_path(dir)?;
        let new = short_path(&open, &unpublished());
        match fs::remove_file(&new) {
            Err(other) if other.kind() != io::ErrorKind::NotFound => return Err(error()(other)),
            _ => {}
        }
        let socket = UnixListener::bind(&new).map_err(error())?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).map_err(error())?;
        Ok(Self { socket, dir: open })
    }

    /// Has it be found, in the place of the one of who has served before.
    pub(crate) fn publish(&self) {
        let (new, name) = (short_path(&self.dir, &unpublished()), short_path(&self.dir, SOCKET));
        if let Err(error) = fs::rename(&new, name) {
            tracing::warn!("{new}: {error}; the server cannot be replaced");
        }
    }

    /// Takes it away, where it was not published.
    pub(crate) fn withdraw(&self) {
        if let Err(error) = fs::remove_file(short_path(&self.dir, &unpublished())) {
            tracing::debug!("{error}");
        }
    }
}

fn unpublished() -> String {
    format!("{UNPUBLISHED}{}", std::process::id())
}

/// Takes the socket away, and what those have left who were killed before theirs was published.
pub(crate) fn stop_listening(dir: &Path) {
    let sockets = fs::read_dir(dir).into_iter().flatten().flatten().filter(|entry| {
        let name = entry.file_name();
        name == SOCKET || name.as_encoded_bytes().starts_with(UNPUBLISHED.as_bytes())
    });
    for socket in sockets {
        if let Err(error) = fs::remove_file(socket.path()) {
            tracing::debug!("{}: {error}", socket.path().display());
        }
    }
}

/// When the process of a server ends that another one goes on for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// At once.
    Now,
    /// With the mount: a person has started it and waits for that.
    WithMount,
}

/// Waits for who wants to go on in the place of a server. It does not return when one does: this process
/// ends.
pub(crate) fn serve_control(
    listener: &Listener,
    server: &Server,
    record: &Record,
    handing: &Handing,
) {
    for socket in listener.socket.incoming() {
        let handed = socket.map_err(io_error("accept", "a connection"));
        let handed =
            handed.and_then(|socket| Ok((hand_over(&socket, server, record, handing)?, socket)));
        match handed {
            Ok((Outcome::GoesOn, _)) => {}
            Ok((Outcome::Taken, socket)) => leave(&socket, server, record.ends()),
            Err(error) => tracing::warn!("the server is not replaced: {error}"),
        }
    }
}

fn hand_over(
    socket: &UnixStream,
    server: &Server,
    record: &Record,
    handing: &Handing,
) -> Result<Outcome> {
    let talk = || io_error("talk to", "who wants to go on with the mount");
    for set in [
        socket.set_read_timeout(Some(ANSWERS_WITHIN)),
        socket.set_write_timeout(Some(ANSWERS_WITHIN)),
    ] {
        set.map_err(talk())?;
    }
    let (user, own) = (sys::peer_user(socket)?, sys::effective_ids().0);
    let ask: Ask = receive(socket).map_err(talk())?;
    let reason = match user == own {
        false => Some(format!("the mount belongs to user {own}, and user {user} asks")),
        true if ask.version != VERSION => {
            Some(format!("version {} asks in a form that this one does not know", ask.program))
        }
        true if server.data() == Data::Passthrough => Some(
            "the kernel reads and writes its files itself (data=passthrough), and cannot be told that another \
             process goes on with them; unmount it, and mount it again"
                .to_owned(),
        ),
        true => None,
    };
    if let Some(reason) = reason {
        send(socket, &Offer::Refused(reason)).map_err(talk())?;
        return Ok(Outcome::GoesOn);
    }
    let upper = server.overlay().held_upper();
    let terms = Terms {
        version: VERSION,
        agreement: server.agreement(),
        state: record.state.clone(),
        is_writable: upper.is_some(),
        waiting: record.waiting.len(),
    };
    let mut descriptors = server.descriptors();
    descriptors.push(record.lock.as_fd());
    descriptors.extend(upper.into_iter().flatten());
    descriptors.extend(record.waiting.iter().map(|waiting| waiting.as_fd()));
    send(socket, &Offer::Agreed(Box::new(terms))).map_err(talk())?;
    sys::pass_descriptors(socket, &descriptors)?;
    match receive(socket).map_err(talk())? {
        Answer::Ready => {}
        Answer::Failed(reason) => {
            tracing::warn!("the server is not replaced: {reason}");
            return Ok(Outcome::GoesOn);
        }
        Answer::Taken => return Ok(Outcome::GoesOn),
    }
    let carried = server.stop();
    handing.note(TELLS, socket.as_fd());
    let taken = carried.map_err(Error::from).and_then(|carried| carry(socket, &carried, handing));
    if let Ok(Outcome::Taken) = taken {
        server.end();
    } else {
        handing.set(0);
        server.go_on();
    }
    taken
}

/// Says what the server knows, and waits until the other one goes on.
fn carry(socket: &UnixStream, carried: &Carried, handing: &Handing) -> Result<Outcome> {
    let talk = || io_error("carry over to", "who wants to go on with the mount");
    let Carried { bytes, descriptors } = carried;
    let state = State { bytes: bytes.len(), descriptors: descriptors.len() };
    send(socket, &state).map_err(talk())?;
    { socket }.write_all(bytes).map_err(talk())?;
    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    sys::pass_descriptors(socket, &descriptors)?;
    let answer = match receive(socket) {
        Err(error) if is_late(&error) => {
            // From now on the other one cannot say any more that it goes on; it may have said so.
            socket.shutdown(Shutdown::Read).map_err(talk())?;
            receive(socket)
        }
        other => other,
    };
    match answer.map_err(talk())? {
        Answer::Taken => {
            handing.note(OVER, socket.as_fd());
            if let Err(error) = send(socket, &Heard) {
                // It is gone, and the mount with it.
                tracing::warn!("{error}");
            }
            Ok(Outcome::Taken)
        }
        Answer::Failed(reason) => {
            tracing::warn!("the server is not replaced: {reason}");
            Ok(Outcome::GoesOn)
        }
        Answer::Ready => Ok(Outcome::GoesOn),
    }
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Leaves the slots of the rings, and ends the process. Nothing is put in order: all that was open is the
/// other one's.
fn leave(mut socket: &UnixStream, server: &Server, ends: Ends) -> ! {
    let mut left = 0;
    while left < server.slots() {
        let Some(slot) = server.next_left(LEAVES_WITHIN) else {
            tracing::warn!("{} slots are left to nobody", server.slots() - left);
            break;
        };
        left += 1;
        let slot = u32::try_from(slot).unwrap_or(NO_MORE);
        if let Err(error) = socket.write_all(&slot.to_le_bytes()) {
            tracing::warn!("{error}");
        }
    }
    if let Err(error) = socket.write_all(&NO_MORE.to_le_bytes()) {
        tracing::debug!("{error}");
    }
    if ends == Ends::WithMount {
        wait_for_end(socket);
    }
    sys::exit_at_once(0)
}

/// Waits until the process that goes on has ended.
fn wait_for_end(mut socket: &UnixStream) {
    let waited = socket.set_read_timeout(None).and_then(|()| {
        let mut nothing = [0; 64];
        while socket.read(&mut nothing)? > 0 {}
        Ok(())
    });
    if let Err(error) = waited {
        tracing::debug!("{error}");
    }
}

/// A connection to the server of a mount, which is to be replaced.
#[derive(Debug)]
pub(crate) struct Taking {
    socket: UnixStream,
    pub(crate) agreement: Agreement,
    pub(crate) state: MountState,
    /// Those of the agreement.
    descriptors: Vec<OwnedFd>,
    /// The container's lock.
    lock: Option<OwnedFd>,
    /// Of a tree that can be changed.
    upper: Option<HeldUpper>,
    /// Connections to those who wait for the end of the mount.
    waiting: Vec<OwnedFd>,
}

impl Taking {
    /// Asks the server of a mount, by the container's directory.
    pub(crate) fn ask(dir: &Path) -> Result<Self> {
        let talk = || io_error("talk to", "the server of the mount");
        let open = sys::open_dir_path(dir)?;
        let socket = UnixStream::connect(short_path(&open, SOCKET)).map_err(talk())?;
        socket.set_read_timeout(Some(ANSWERS_WITHIN)).map_err(talk())?;
        let program = env!("CARGO_PKG_VERSION").to_owned();
        send(&socket, &Ask { version: VERSION, program }).map_err(talk())?;
        let Terms { version, agreement, state, is_writable, waiting } =
            match receive(&socket).map_err(talk())? {
                Offer::Refused(reason) => return Err(Error::NotReplaced(reason)),
                Offer::Agreed(terms) => *terms,
            };
        if version != VERSION {
            return Err(not_understood(&format!("it speaks version {version}")));
        }
        let of_upper = if is_writable { 2 } else { 0 };
        let count = agreement.descriptors() + 1 + of_upper + waiting;
        let mut passed = sys::take_descriptors(&socket, count)?.into_iter();
        let descriptors = passed.by_ref().take(agreement.descriptors()).collect();
        let lock = passed.next();
        let mut upper = passed.by_ref().take(of_upper);
        let upper = upper.next().zip(upper.next());
        let upper = upper.map(|(lock, work)| HeldUpper { lock, work });
        Ok(Self { socket, agreement, state, descriptors, lock, upper, waiting: passed.collect() })
    }

    /// Returns the descriptors that go with the agreement.
    pub(crate) fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.descriptors)
    }

    /// Returns the container's lock.
    pub(crate) fn take_lock(&mut self) -> Result<OwnedFd> {
        self.lock.take().ok_or_else(|| not_understood("there is no lock"))
    }

    /// Returns what belongs to the upper of a tree that can be changed.
    pub(crate) const fn take_upper(&mut self) -> Option<HeldUpper> {
        self.upper.take()
    }

    /// Says that this process cannot go on.
    pub(crate) fn fail(&self, error: &Error) {
        if let Err(also) = send(&self.socket, &Answer::Failed(error.to_string())) {
            tracing::debug!("{also}");
        }
    }

    /// Says that this process is ready, and returns what the server knows: it has stopped.
    pub(crate) fn ready(&self) -> Result<Carried> {
        let talk = || io_error("take over from", "the server of the mount");
        send(&self.socket, &Answer::Ready).map_err(talk())?;
        let state: State = receive(&self.socket).map_err(talk())?;
        let mut bytes = vec![0; state.bytes];
        { &self.socket }.read_exact(&mut bytes).map_err(talk())?;
        let descriptors = sys::take_descriptors(&self.socket, state.descriptors)?;
        Ok(Carried { bytes, descriptors })
    }

    /// Says that this process goes on. When that is an error, it does not.
    pub(crate) fn taken(&self) -> Result<()> {
        let talk = || io_error("take over from", "the server of the mount");
        send(&self.socket, &Answer::Taken).map_err(talk())?;
        // It hears it, goes on itself, or is dead; in between there is nothing.
        self.socket.set_read_timeout(None).map_err(talk())?;
        receive(&self.socket).map(|Heard| ()).map_err(talk())
    }

    /// Gives every slot that the server leaves to `give`, until there are no more; tells whether it has left
    /// all that it will.
    pub(crate) fn each_slot(&self, mut give: impl FnMut(usize)) -> bool {
        let mut each = || -> io::Result<()> {
            self.socket.set_read_timeout(None)?;
            loop {
                let mut number = [0; 4];
                { &self.socket }.read_exact(&mut number)?;
                match u32::from_le_bytes(number) {
                    NO_MORE => return Ok(()),
                    slot => give(slot as usize),
                }
            }
        };
        match each() {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!("the server that was replaced: {error}");
                false
            }
        }
    }

    /// Returns connections to all who wait for the end of the mount: who has served it in the foreground,
    /// and those whom that one has known of.
    pub(crate) fn take_waiting(&mut self) -> Result<Vec<Arc<OwnedFd>>> {
        let mut waiting = std::mem::take(&mut self.waiting);
        if self.state.foreground {
            waiting.push(sys::dup(self.socket.as_fd())?);
        }
        Ok(waiting.into_iter().map(Arc::new).collect())
    }
}

fn not_understood(reason: &str) -> Error {
    Error::NotReplaced(format!("what its server says is not understood: {reason}"))
}
