//! The holder: a small process that has the connection of a mount and starts its servers, one after the
//! other.
//!
//! It has everything open that a server needs to begin before it forks the first, and opens nothing later.
//! So what happens to the store meanwhile does not keep the next server from going on. Every server is a
//! fork, with the tree as it was found when it was mounted and one table of open files with the
//! holder: what a server has left open for those after it stays so. The holder has one thread, asks the
//! mount nothing, and gives up when servers die over and over without having answered anything.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::fuse::{self, Shared};
use crate::overlay::Overlay;
use crate::service::Strata;
use crate::service::error::{Error, Result, io_error};
use crate::service::handover::{self, Ends, Handing, Listener};
use crate::service::umount::detach;
use crate::store::{Container, ContainerLock, MountState};
use crate::sys::{self, Ended, Errno, Forked, Looker, Process, SharedMemory, Woken};

/// So many servers one after the other may die without having answered anything.
const IN_VAIN: u32 = 12;
/// How long the holder waits before it starts a server after one that has answered nothing; twice as long
/// after each more.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long a server may take to make ready what can go wrong, and how often is looked whether it has.
const READY_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// How long a new mount may take to answer, and how often is looked whether its server still lives.
const ANSWERS_WITHIN: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long a server may take to end that is not wanted any more.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// How long the holder waits for something to happen.
const LONG: Duration = Duration::from_secs(3600);
/// The code of a server that ends in a panic, as that of a program does.
const PANICKED: i32 = 101;

/// What says of a container that it is mounted.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) strata: Strata,
    pub(crate) container: Container,
    pub(crate) lock: Arc<ContainerLock>,
    pub(crate) state: MountState,
    /// Connections to those who wait for the end of the mount, for as long as there is one.
    pub(crate) waiting: Vec<Arc<OwnedFd>>,
}

impl Record {
    /// Records the mount.
    pub(crate) fn set(&self) -> Result<()> {
        Ok(self.strata.store.set_mounted(&self.container.id, &self.state, &self.lock)?)
    }

    /// Records that the mount has ended.
    pub(crate) fn clear(&self) -> Result<()> {
        let (store, id) = (&self.strata.store, &self.container.id);
        match self.container.ephemeral {
            true => store.remove_container(id, &self.lock)?,
            false => {
                handover::stop_listening(&store.container_dir(id));
                store.clear_mounted(id, &self.lock)?;
            }
        }
        Ok(())
    }

    /// Tells when this process ends if another one goes on.
    pub(crate) const fn ends(&self) -> Ends {
        // One that has taken over from another was not started by who waits.
        match self.state.foreground && self.waiting.is_empty() {
            true => Ends::WithMount,
            false => Ends::Now,
        }
    }

    /// Listens for who wants to go on in the place of the server. A mount without that is one all the same.
    pub(crate) fn listen(&self) -> Option<Arc<Listener>> {
        let listener = self.listener().map(Arc::new);
        if let Some(listener) = &listener {
            listener.publish();
        }
        listener
    }

    /// Makes what listens; nobody can find it yet.
    fn listener(&self) -> Option<Listener> {
        match Listener::new(&self.strata.store.container_dir(&self.container.id)) {
            Ok(listener) => Some(listener),
            Err(error) => {
                tracing::warn!("{}; the server cannot be replaced", error.told());
                None
            }
        }
    }
}

/// A process that holds a mount.
#[derive(Debug)]
pub(crate) struct Holder {
    /// What a server gets; a fork takes its copy.
    tree: Option<(Shared, Overlay)>,
    record: Option<Record>,
    /// Where servers are asked to be replaced.
    listener: Option<Arc<Listener>>,
    /// What was open before the first server.
    own: BTreeSet<i32>,
    /// The process that serves; 0 before the first.
    server: i32,
    /// It has died of itself.
    has_failed: bool,
    /// How many requests were answered when it began.
    answered: u64,
    in_vain: u32,
    /// How far the first server is, in memory that it shares.
    stage: SharedMemory,
    /// How far a server is that is being replaced.
    handing: Arc<Handing>,
}

/// How far the first server is that takes the place of one of another process.
mod stage {
    /// It may begin at once.
    pub(super) const BEGINS: u64 = 0;
    /// It makes ready what can go wrong.
    pub(super) const WAITS_FOR_ORDER: u64 = 1;
    /// It waits for the word.
    pub(super) const READY: u64 = 2;
    /// It is not to begin.
    pub(super) const GIVES_UP: u64 = 3;
}

impl Holder {
    /// Starts the first server; when this returns the mount answers. This process has one thread.
    pub(crate) fn start(
        mut shared: Shared,
        overlay: Overlay,
        record: Option<Record>,
    ) -> Result<Self> {
        let looker = shared.take_looker();
        let mut holder = Self::new(shared, overlay, record)?;
        let started = holder.fork().and_then(|()| holder.look(looker)).and_then(|()| {
            // Who finds the mount recorded finds the socket, too.
            holder.publish();
            holder.record()
        });
        match started {
            Ok(()) => Ok(holder),
            Err(error) => {
                holder.unmount();
                holder.give_up();
                Err(error)
            }
        }
    }

    /// Starts a server in the place of one of another process, which has stopped. `begin` is called when
    /// the new one can begin; on an error it does not.
    pub(crate) fn start_after(
        shared: Shared,
        overlay: Overlay,
        record: Record,
        begin: impl FnOnce() -> Result<()>,
    ) -> Result<Self> {
        let mut holder = Self::new(shared, overlay, Some(record))?;
        holder.set_stage(stage::WAITS_FOR_ORDER);
        let begun = holder.fork().and_then(|()| holder.wait_until_ready()).and_then(|()| begin());
        holder.set_stage(if begun.is_ok() { stage::BEGINS } else { stage::GIVES_UP });
        match begun {
            Ok(()) => {
                holder.publish();
                if let Err(error) = holder.record() {
                    tracing::warn!("{}", error.told());
                }
                Ok(holder)
            }
            Err(error) => {
                holder.give_up();
                Err(error)
            }
        }
    }

    fn new(shared: Shared, overlay: Overlay, record: Option<Record>) -> Result<Self> {
        sys::block_child_signal()?;
        let listener = record.as_ref().and_then(Record::listener).map(Arc::new);
        let mut holder = Self {
            tree: Some((shared, overlay)),
            record,
            listener,
            own: BTreeSet::new(),
            server: 0,
            has_failed: false,
            answered: 0,
            in_vain: 0,
            stage: SharedMemory::new(size_of::<u64>())?,
            handing: Arc::new(Handing::new()?),
        };
        holder.own = sys::open_descriptors()?;
        if let Some((shared, _)) = &holder.tree {
            // What another process has handed over for the servers is theirs.
            for left in shared.left_open() {
                holder.own.remove(&left);
            }
        }
        Ok(holder)
    }

    fn publish(&self) {
        if let Some(listener) = &self.listener {
            listener.publish();
        }
    }

    /// Waits for a moment until the server has ended: it has the container's lock.
    fn give_up(self) {
        if let Some(listener) = &self.listener {
            listener.withdraw();
        }
        let start = Instant::now();
        while start.elapsed() < ENDS_WITHIN {
            match self.next_end(Duration::from_millis(10)) {
                Ok(None) => {}
                Ok(Some(_)) | Err(_) => break,
            }
        }
        std::mem::forget(self.tree);
    }

    /// Records by whom the mount is held and served.
    fn record(&mut self) -> Result<()> {
        if let Some(record) = &mut self.record {
            record.state.server = Some(self.server);
            record.set()?;
        }
        Ok(())
    }

    fn set_stage(&self, stage: u64) {
        if let Some(word) = self.stage.words().first() {
            word.store(stage, Ordering::Release);
        }
    }

    fn stage(&self) -> u64 {
        self.stage.words().first().map_or(stage::BEGINS, |word| word.load(Ordering::Acquire))
    }

    /// Waits until the first server has made ready all that can go wrong.
    fn wait_until_ready(&self) -> Result<()> {
        let start = Instant::now();
        while self.stage() != stage::READY {
            if let Some(end) = self.next_end(LOOK_EVERY)? {
                return Err(Error::NotReplaced(format!("the new server: {end}")));
            }
            if start.elapsed() > READY_WITHIN {
                sys::kill(self.server)?;
                return Err(Error::NotReplaced("the new server takes too long".to_owned()));
            }
        }
        Ok(())
    }

    /// Waits, in the first server, until it may begin; tells whether it may. It may not when the process is
    /// dead that would say so.
    fn wait_for_order(&self, holder: i32) -> bool {
        if self.stage() == stage::WAITS_FOR_ORDER {
            self.set_stage(stage::READY);
        }
        while self.stage() == stage::READY && !is_orphan(holder) {
            std::thread::sleep(LOOK_EVERY);
        }
        self.stage() == stage::BEGINS
    }

    /// Starts servers until the mount has ended, or there is no hope.
    pub(crate) fn hold(mut self) -> Result<()> {
        let held = loop {
            match self.next_end(LONG) {
                Ok(None) => {}
                // Another program goes on, with everything that is open here.
                Ok(Some(_)) if self.handing.is_over() => sys::exit_at_once(0),
                Ok(Some(Ended::Code(0))) => break Ok(()),
                Ok(Some(end)) => {
                    if let Err(error) = self.replace(end) {
                        break Err(error);
                    }
                }
                Err(error) => break Err(error),
            }
        };
        let cleared = match &self.record {
            Some(record) if held.is_ok() => record.clear(),
            Some(_) | None => Ok(()),
        };
        // The tree belongs to the servers; there is nothing in it to put in order.
        std::mem::forget(self.tree);
        held.and(cleared)
    }

    /// Waits until the server has ended, or for a while.
    fn next_end(&self, longest: Duration) -> Result<Option<Ended>> {
        if sys::wait_for_child(longest)? == Woken::End {
            self.unmount();
        }
        Ok(sys::ended(self.server)?)
    }

    /// Starts a server in the place of one that has died.
    fn replace(&mut self, end: Ended) -> Result<()> {
        self.handing.wait_until_alone();
        let answered = self.tree.as_ref().map_or(0, |(shared, _)| shared.answered());
        self.in_vain = if answered > self.answered { 0 } else { self.in_vain + 1 };
        (self.answered, self.has_failed) = (answered, !end.is_killed());
        let target = self.target().to_owned();
        if self.in_vain >= IN_VAIN {
            return Err(Error::Hopeless { target, servers: self.in_vain });
        }
        tracing::warn!(
            "server {} of {}: {end}; another one goes on",
            self.server,
            target.display()
        );
        self.pause()?;
        self.fork()?;
        if let Err(error) = self.record() {
            // The mount goes on without it.
            tracing::warn!("{}", error.told());
        }
        Ok(())
    }

    /// Waits before it starts a server where the last ones have answered nothing.
    fn pause(&self) -> Result<()> {
        let Some(times) = self.in_vain.checked_sub(1) else { return Ok(()) };
        let pause = FIRST_PAUSE.saturating_mul(1 << times.min(16)).min(LONGEST_PAUSE);
        let start = Instant::now();
        while let Some(left) = pause.checked_sub(start.elapsed()) {
            if sys::wait_for_child(left)? == Woken::End {
                self.unmount();
            }
        }
        Ok(())
    }

    /// Forks a server.
    fn fork(&mut self) -> Result<()> {
        if let Some((shared, _)) = &self.tree
            && self.server != 0
        {
            let mut kept = self.own.clone();
            kept.extend(shared.left_open());
            sys::close_all_but(&kept)?;
        }
        let holder = std::process::id();
        match sys::fork_sharing_files()? {
            Forked::Parent(server) => {
                self.server = server;
                Ok(())
            }
            Forked::Child => {
                // Nothing of the holder's is dropped here, and nobody returns.
                let code = catch_unwind(AssertUnwindSafe(|| self.serve(holder)));
                sys::exit_at_once(match code {
                    Ok(Ok(())) => 0,
                    Ok(Err(error)) => {
                        tracing::error!("{}: {}", self.target().display(), error.told());
                        1
                    }
                    Err(_) => PANICKED,
                })
            }
        }
    }

    /// Serves, in a process of its own, until the mount has ended.
    fn serve(&mut self, holder: u32) -> Result<()> {
        std::env::set_current_dir("/").map_err(io_error("enter", "/"))?;
        let Some((shared, overlay)) = self.tree.take() else { return Ok(()) };
        let holder = i32::try_from(holder).unwrap_or(0);
        let may_begin = || self.wait_for_order(holder);
        let Some(mut mount) = shared.serve(overlay, self.has_failed, may_begin)? else {
            return Ok(());
        };
        let record = self.record.clone();
        std::thread::Builder::new()
            .name("holder".to_owned())
            .spawn(move || go_on_alone(holder, record))
            .map_err(io_error("start", "a thread"))?;
        if let (Some(listener), Some(record)) = (self.listener.clone(), self.record.clone()) {
            listen_for_next(&mut mount, listener, record, Arc::clone(&self.handing))?;
        }
        let served = mount.wait();
        match &self.record {
            Some(record) if is_orphan(holder) => record.clear()?,
            Some(_) | None => {}
        }
        Ok(served?)
    }

    /// Waits until the mount answers somebody, who may wait for a server that dies.
    fn look(&mut self, looker: Option<Looker>) -> Result<()> {
        let Some(mut looker) = looker else { return Ok(()) };
        let target = self.target().to_owned();
        let (start, descriptors) = (Instant::now(), looker.descriptors());
        while !looker.look_for(LOOK_AGAIN).map_err(|error| silent(&target, error.errno()))? {
            match self.next_end(Duration::ZERO)? {
                None => {}
                Some(end @ Ended::Signal(_)) => self.replace(end)?,
                // It was unmounted already, or the server has said what it lacks.
                Some(Ended::Code(_)) => return Err(silent(&target, Errno::ENODEV)),
            }
            if start.elapsed() > ANSWERS_WITHIN {
                return Err(silent(&target, Errno::ETIMEDOUT));
            }
        }
        // They are closed now, and others get the numbers.
        self.own.retain(|own| !descriptors.contains(own));
        Ok(())
    }

    /// Takes the mount out of the tree; it ends when its last user leaves.
    fn unmount(&self) {
        // The server was told the same.
        if let Err(error) = detach(self.target()) {
            tracing::warn!("{error}");
        }
    }

    fn target(&self) -> &Path {
        self.tree.as_ref().map_or(Path::new("the mount"), |(shared, _)| shared.target())
    }
}

/// Lets another program go on in the place of a server of this process, which ends then.
pub(crate) fn listen_for_next(
    mount: &mut fuse::Mount,
    listener: Arc<Listener>,
    record: Record,
    handing: Arc<Handing>,
) -> Result<()> {
    let server = mount.server();
    let serve = move || handover::serve_control(&listener, &server, &record, &handing);
    let thread = std::thread::Builder::new().name("control".to_owned()).spawn(serve);
    thread.map(drop).map_err(io_error("start", "a thread"))
}

fn silent(target: &Path, errno: Errno) -> Error {
    let source = std::io::Error::from_raw_os_error(errno as i32);
    Error::Mount(fuse::Error::Silent { target: target.to_owned(), source })
}

/// Tells whether this process has another parent than at first, because that is dead.
fn is_orphan(parent: i32) -> bool {
    i32::try_from(std::os::unix::process::parent_id()) != Ok(parent)
}

/// Waits until the holder of this server is dead. Then the mount lives as long as this process.
fn go_on_alone(holder: i32, record: Option<Record>) {
    let waited = match Process::open(holder) {
        Ok(Some(process)) if !is_orphan(holder) => process.wait(),
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = waited {
        return tracing::warn!("{error}");
    }
    tracing::warn!(
        "process {holder}, which held the mount, has died; the mount will not survive this one"
    );
    let Some(mut record) = record else { return };
    record.state.pid = i32::try_from(std::process::id()).unwrap_or(0);
    record.state.server = None;
    if let Err(error) = record.set() {
        tracing::warn!("{}", error.told());
    }
}
