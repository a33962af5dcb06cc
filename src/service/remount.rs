//! Going on with a mount that another program serves: the other side of `handover`.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::fuse::{self, MountOptions, TakenOver};
use crate::overlay::Overlay;
use crate::service::Strata;
use crate::service::error::{Error, Result, io_error};
use crate::service::handover::Taking;
use crate::service::holder::{Holder, Record};
use crate::service::mount::{Mounting, Served, absolute};
use crate::store::{Container, Lease, MountState, Mounted};
use crate::sys;

/// A mount whose server is being replaced by this process.
#[derive(Debug)]
pub struct Replacing {
    mounting: Mounting,
    taking: Taking,
}

impl Strata {
    /// Returns the container that is mounted at a path or has a name, and where.
    pub fn mounted_container(&self, what: &str) -> Result<(String, PathBuf)> {
        let at = absolute(Path::new(what)).ok();
        let mut rows = self.mounts()?.into_iter();
        if let Some(row) = rows.find(|row| Some(&row.state.target) == at.as_ref()) {
            return Ok((row.container, row.state.target));
        }
        let container = self.find_container(what).map_err(|error| match error {
            Error::NoContainer(_) => Error::NotMounted(what.to_owned()),
            other => other,
        })?;
        match self.store.mounted(&container.id)? {
            Mounted::Alive(state) => Ok((container.id, state.target)),
            Mounted::No | Mounted::Dead(_) => Err(Error::NotMounted(what.to_owned())),
        }
    }

    /// Goes on with the mount of a container in the place of the process that serves it. When this returns
    /// this process does; it serves by [`Replacing::serve`].
    ///
    /// # Errors
    /// Whatever is wrong, the other process goes on.
    pub fn replace_server(&self, id: &str) -> Result<Replacing> {
        sys::block_end_signals()?;
        sys::keep_little_memory()?;
        sys::set_umask(0);
        if let Err(error) = sys::raise_open_files_limit() {
            tracing::debug!("{error}");
        }
        let container =
            self.store.container(id)?.ok_or_else(|| Error::NoContainer(id.to_owned()))?;
        let taking = Taking::ask(&self.store.container_dir(id))?;
        self.take_over(container, taking)
    }

    fn take_over(&self, container: Container, mut taking: Taking) -> Result<Replacing> {
        let options = MountOptions::parse(&taking.state.options)?;
        let made = self.make_ready(container, &options, &mut taking);
        let ready = made.inspect_err(|error| taking.fail(error))?;
        let gone_on = if options.survives() { ready.hold(&taking) } else { ready.serve(&taking) };
        let mut mounting = gone_on.inspect_err(|error| taking.fail(error))?;
        // The other process has ended: this one serves whatever else is wrong.
        if let Err(error) = mounting.record().and_then(|()| mounting.listen()) {
            tracing::warn!("{}", error.told());
        }
        Ok(Replacing { mounting, taking })
    }

    /// Makes ready all that can go wrong, while the other process serves.
    fn make_ready(
        &self,
        container: Container,
        options: &MountOptions,
        taking: &mut Taking,
    ) -> Result<Ready> {
        let (image, lease) = self.lease_base(&container)?;
        let lock = Arc::new(self.store.adopt_lock(&container.id, taking.take_lock()?)?);
        let overlay = match (container.ephemeral, taking.take_upper()) {
            (false, upper @ Some(_)) => self.writable(&container, &image, options, upper)?,
            (true, _) | (false, None) => {
                self.inspect_verified(&container, &image, options.verify())?
            }
        };
        let descriptors = taking.take_descriptors();
        let taken = fuse::take_over(&taking.agreement, descriptors, self.statfs_fd()?)?;
        let pid = i32::try_from(std::process::id()).unwrap_or(0);
        let state = MountState { pid, ..taking.state.clone() };
        let waiting = taking.take_waiting()?;
        let record = Record { strata: self.clone(), container, lock, state, waiting };
        Ok(Ready { overlay, taken, record, lease })
    }
}

/// All that a process needs to go on with a mount.
struct Ready {
    overlay: Overlay,
    taken: TakenOver,
    record: Record,
    lease: Lease,
}

impl Ready {
    /// Has the other process stop, and serves here.
    fn serve(self, taking: &Taking) -> Result<Mounting> {
        let Self { mut overlay, taken, record, lease } = self;
        overlay.take_over(taking.ready()?, taking.agreement.servers())?;
        overlay.begin()?;
        overlay.stop_noting();
        taking.taken()?;
        let mount = taken.serve(overlay)?;
        let listener = record.listen();
        Ok(Mounting::new(Served::Here(mount, listener), record, lease))
    }

    /// Has the other process stop, and holds the mount for servers that this one starts.
    fn hold(self, taking: &Taking) -> Result<Mounting> {
        let Self { mut overlay, taken, record, lease } = self;
        let shared = taken.share(&mut overlay)?;
        overlay.take_over(taking.ready()?, taking.agreement.servers())?;
        let holder = Holder::start_after(shared, overlay, record.clone(), || taking.taken())?;
        Ok(Mounting::new(Served::Held(Box::new(holder)), record, lease))
    }
}

impl Replacing {
    /// Tells whether the kernel has to be asked something on every processor before the other process can
    /// end.
    pub fn wants_nudges(&self) -> bool {
        !self.taking.agreement.processors().is_empty()
    }

    /// Lets go of the terminal and of the directory that this process was started in.
    pub fn detach(&self) -> Result<()> {
        self.mounting.detach()
    }

    /// Serves until the mount is unmounted. `done` is called when the other process has nothing in hand
    /// any more.
    pub fn serve(self, done: impl FnOnce()) -> Result<()> {
        let Self { mut mounting, taking } = self;
        if let Some(mut giver) = mounting.giver() {
            let has_left = taking.each_slot(|slot| giver.give(slot));
            let rest = giver.give_rest();
            if !has_left || rest > 0 {
                tracing::warn!("{rest} slots are made anew");
            }
        }
        done();
        mounting.wait()
    }
}

/// Asks a mount something on every processor, so that a request comes into every slot that its last server
/// still has.
#[derive(Debug)]
pub struct Nudge {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Nudge {
    /// How many threads ask on each processor: more than a server has slots there.
    const THREADS: usize = 8;

    /// Checks that a mount can be asked on every processor.
    ///
    /// # Errors
    /// [`Error::NotReplaced`] says which cannot be used.
    pub fn check(target: &Path) -> Result<()> {
        let look = || io_error("look at", target.display().to_string());
        let cpus = sys::Cpus::read()?;
        for cpu in cpus.online {
            if let Err(error) = sys::check_cpu(cpu) {
                return Err(Error::NotReplaced(format!(
                    "this process may not use processor {cpu}, which has requests of the mount \
                     ({error})"
                )));
            }
        }
        let dir = sys::open_dir_path(target).map_err(io::Error::from).map_err(look())?;
        sys::statfs(dir.as_fd())?;
        Ok(())
    }

    /// Begins to ask.
    pub fn begin(target: &Path) -> Result<Self> {
        let cpus = sys::Cpus::read()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let ask = |cpu| {
            let (target, is_over) = (target.to_owned(), Arc::clone(&is_over));
            std::thread::spawn(move || ask_until(&target, cpu, &is_over))
        };
        let each = |cpu: u16| std::iter::repeat_n(cpu, Self::THREADS);
        let threads = cpus.online.into_iter().flat_map(each).map(ask).collect();
        Ok(Self { is_over, threads })
    }

    /// Ends it.
    pub fn end(self) {
        self.is_over.store(true, Ordering::Release);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::debug!("a thread ended in a panic");
            }
        }
    }
}

fn ask_until(target: &Path, cpu: u16, is_over: &AtomicBool) {
    let asked = sys::pin_to_cpu(cpu).and_then(|()| {
        let dir = sys::open_dir_path(target)?;
        while !is_over.load(Ordering::Acquire) {
            // Every one of these is a request; nothing of it is kept.
            sys::statfs(dir.as_fd())?;
        }
        Ok(())
    });
    if let Err(error) = asked {
        tracing::debug!("{error}");
    }
}
