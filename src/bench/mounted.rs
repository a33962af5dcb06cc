//! A mount of one driver, made for one run and gone after it.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::driver::DriverKind;
use crate::bench::error::io_error;
use crate::bench::limit::Limit;
use crate::bench::native::copy_tree;
use crate::bench::process::{Memory, memory_of, serving_below};
use crate::bench::workspace::{end, release, remove_tree};
use crate::bench::{Driver, Error, Fixture, Result};
use crate::sys::{self, Errno, MountContext, Unmount};

/// What a run does with a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It reads.
    Read,
    /// It changes what the layers hold, all of it or what is at and below some paths: where nothing is
    /// mounted, a fresh copy of that.
    Change(&'static [&'static str]),
    /// It makes what was not there: where nothing is mounted, in an empty directory.
    MakeNew,
}

/// How something is to be mounted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) driver: &'a Driver,
    pub(crate) fixture: &'a Fixture,
    /// How many of the lowest layers; all if it is not said.
    pub(crate) layers: Option<usize>,
    pub(crate) access: Access,
    /// An empty directory for the mount and what belongs to it.
    pub(crate) dir: &'a Path,
    /// The program strata.
    pub(crate) strata: &'a Path,
}

/// A mount that answers.
#[derive(Debug)]
pub(crate) struct Mounted {
    /// Where to work.
    pub(crate) root: PathBuf,
    /// How long it took from the call until the mount has answered.
    pub(crate) took: Duration,
    servers: Vec<i32>,
    is_mount: bool,
    /// What removes the container, where the mount has made one.
    removal: Option<Command>,
    dir: PathBuf,
}

/// Most bytes of options that mount(2) takes: a page, with a zero at its end.
const PAGE: usize = 4095;
/// How long a mount may take to be there when its program has said that it is.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// How long a server may take to end when its mount is gone.
const ENDS_WITHIN: Duration = Duration::from_secs(30);
/// How long somebody may have a mount open that nobody uses: whoever looks at all mounts of a machine.
const BUSY_WITHIN: Duration = Duration::from_secs(2);

impl Mounted {
    /// Mounts, and returns when the mount answers.
    pub(crate) fn new(request: &Request<'_>, limit: &Limit) -> Result<Self> {
        let dir = request.dir.to_owned();
        let target = dir.join("mnt");
        for name in ["mnt", "upper", "work"] {
            let path = dir.join(name);
            fs::create_dir(&path).map_err(io_error("make", path))?;
        }
        if request.driver.is_native() {
            let root = plain_root(request, target)?;
            let (took, servers) = (Duration::ZERO, Vec::new());
            return Ok(Self { root, took, servers, is_mount: false, removal: None, dir });
        }
        let device = device_of(&target)?;
        let start = Instant::now();
        let mounted = mount(request, &target, limit)
            .and_then(|()| wait_for_answer(&target, device, &request.driver.name, limit));
        let took = start.elapsed();
        if let Err(error) = mounted {
            release(&dir);
            return Err(error);
        }
        let servers = match request.driver.has_server() {
            true => serving_below(&target),
            false => Vec::new(),
        };
        let makes_container =
            request.driver.kind == DriverKind::Image && request.access != Access::Read;
        let removal = makes_container.then(|| {
            let mut command = strata(request);
            command.arg("rm").arg(container_name(request));
            command
        });
        Ok(Self { root: target, took, servers, is_mount: true, removal, dir })
    }

    /// Returns the memory that the server of the mount takes.
    pub(crate) fn server_memory(&self) -> Result<Memory> {
        memory_of(&self.servers)
    }

    /// Unmounts, waits until the server has ended, and removes what was written.
    pub(crate) fn end(mut self, limit: &Limit) -> Result<()> {
        self.unmount()?;
        if let Some(mut command) = self.removal.take() {
            limit.run(&mut command)?;
        }
        remove_tree(&self.dir)
    }

    fn unmount(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.is_mount) {
            return Ok(());
        }
        let start = Instant::now();
        loop {
            match sys::unmount(&self.root, Unmount::IfUnused) {
                Err(error) if error.errno() == Errno::EBUSY && start.elapsed() < BUSY_WITHIN => {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => {
                    tracing::debug!("{error}");
                    sys::unmount(&self.root, Unmount::Detach)?;
                    break;
                }
                Ok(()) => break,
            }
        }
        end(&self.servers, ENDS_WITHIN);
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            tracing::warn!("{error}");
        }
    }
}

/// Returns the directory that stands for a mount where there is none.
fn plain_root(request: &Request<'_>, empty: PathBuf) -> Result<PathBuf> {
    let plain = request.fixture.plain.as_ref();
    let plain = plain.ok_or_else(|| Error::NotHere("there is no plain copy of these".to_owned()));
    match request.access {
        Access::Read => plain.cloned(),
        Access::MakeNew => Ok(empty),
        Access::Change(only) => copy_tree(plain?, &empty, only).map(|()| empty),
    }
}

fn mount(request: &Request<'_>, target: &Path, limit: &Limit) -> Result<()> {
    let log = request.dir.join("log");
    match &request.driver.kind {
        // It was answered before.
        DriverKind::Native => Ok(()),
        DriverKind::Overlay => mount_overlay(request, target),
        DriverKind::Image => limit.run_server(&mut image_command(request, target)?, &log),
        DriverKind::Stack => {
            let mut command = Command::new(request.strata);
            command.arg("overlay").arg("-o").arg(options(request)).arg(target);
            limit.run_server(&mut command, &log)
        }
        DriverKind::Program(path) => {
            let mut command = Command::new(path);
            command.arg("-o").arg(options(request)).arg(target);
            limit.run_server(&mut command, &log)
        }
    }
}

fn image_command(request: &Request<'_>, target: &Path) -> Result<Command> {
    let images = &request.fixture.images;
    let count = request.layers.unwrap_or(request.fixture.layers.len());
    let image = images.get(&count);
    let image =
        image.ok_or_else(|| Error::NotHere(format!("there is no image of {count} layers")))?;
    let mut command = strata(request);
    command.arg("mount");
    if !request.driver.options.is_empty() {
        command.arg("-o").arg(request.driver.options.join(","));
    }
    if request.access != Access::Read {
        command.arg("--rw").arg("--name").arg(container_name(request));
    }
    command.arg(image).arg(target);
    Ok(command)
}

/// Returns strata on the store of the fixture.
fn strata(request: &Request<'_>) -> Command {
    let mut command = Command::new(request.strata);
    command.arg("--root").arg(&request.fixture.store);
    command
}

/// Returns a name that no other mount of the run has.
fn container_name(request: &Request<'_>) -> String {
    let name = request.dir.file_name().unwrap_or_default();
    format!("run-{}", name.to_string_lossy())
}

/// Returns the directories of the layers, the top first.
fn lower(request: &Request<'_>) -> Vec<PathBuf> {
    let layers = &request.fixture.layers;
    let count = request.layers.unwrap_or(layers.len()).min(layers.len());
    let mut lower: Vec<_> = layers[..count].iter().rev().cloned().collect();
    // The kernel's overlayfs shows no single directory: an empty one is put below it.
    if request.driver.kind == DriverKind::Overlay && count == 1 && request.access == Access::Read {
        lower.push(request.dir.join("upper"));
    }
    lower
}

/// Returns the options that fuse-overlayfs and the kernel have alike.
fn options(request: &Request<'_>) -> String {
    let lower: Vec<_> = lower(request).iter().map(|path| path.display().to_string()).collect();
    let mut options = format!("lowerdir={}", lower.join(":"));
    if request.access != Access::Read {
        let (upper, work) = (request.dir.join("upper"), request.dir.join("work"));
        options.push_str(&format!(",upperdir={},workdir={}", upper.display(), work.display()));
    }
    for option in &request.driver.options {
        options.push_str(&format!(",{option}"));
    }
    options
}

/// Mounts the kernel's overlayfs: by mount(2), or where its options do not fit, step by step.
fn mount_overlay(request: &Request<'_>, target: &Path) -> Result<()> {
    let options = options(request);
    if options.len() <= PAGE {
        return Ok(sys::mount_overlay(target, options.as_bytes())?);
    }
    let context = MountContext::new(c"overlay")?;
    for path in lower(request) {
        context.set(c"lowerdir+", path.as_os_str().as_bytes()).map_err(|error| {
            match error.errno() {
                Errno::EINVAL => Error::NotHere(
                    "so many layers do not fit mount(2), and one at a time needs Linux 6.5"
                        .to_owned(),
                ),
                _ => error.into(),
            }
        })?;
    }
    if request.access != Access::Read {
        context.set(c"upperdir", request.dir.join("upper").as_os_str().as_bytes())?;
        context.set(c"workdir", request.dir.join("work").as_os_str().as_bytes())?;
    }
    for option in &request.driver.options {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        let key = std::ffi::CString::new(key)
            .map_err(|_| Error::NotHere(format!("{option:?} is no option")))?;
        context.set(&key, value.as_bytes())?;
    }
    context.create()?;
    Ok(context.mount()?.place(target)?)
}

fn device_of(path: &Path) -> Result<u64> {
    fs::metadata(path).map(|metadata| metadata.dev()).map_err(io_error("look at", path))
}

/// Waits until another file system is at a path. Some programs end well before it is.
fn wait_for_answer(target: &Path, before: u64, driver: &str, limit: &Limit) -> Result<()> {
    let start = Instant::now();
    while device_of(target)? == before {
        limit.go_on()?;
        if start.elapsed() > ANSWERS_WITHIN {
            return Err(Error::NothingMounted(driver.to_owned()));
        }
        thread::sleep(Duration::from_micros(100));
    }
    // A mount that can be listed is one that can be worked in.
    let root = sys::open_dir_path(target)?;
    sys::DirStream::new(root.as_fd())?.names().map(drop)?;
    Ok(())
}
