//! Copying files between the host, images and containers, as docker's `cp` does it.
//!
//! `path` says what the words mean, `source` shows what is copied, `write` writes it by one set of
//! rules into a `folder` (the host, a live mount) or a `layer` (a container that is not mounted).
//! A source in a container is read as its layer is at the moment; a mounted container is written
//! to through its mount, any other under its lock.

pub(crate) mod folder;
mod layer;
mod path;
pub(crate) mod source;
pub(crate) mod write;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::fuse::MountOptions;
use crate::layer::{Kind, components, decompress};
use crate::overlay::Item;
use crate::service::browse::{Last, Tree};
use crate::service::copy::folder::{Folder, Owners};
use crate::service::copy::layer::Layer;
use crate::service::copy::path::{CleanPath, From, Goal, Word, goal};
use crate::service::copy::source::{HostTop, Skip, Visit, walk_host, walk_tar, walk_tree};
use crate::service::copy::write::{Owner, Place, Writer, open_below};
use crate::service::error::{Error, Result, io_error};
use crate::service::pack::{Packer, Target};
use crate::service::umount::is_ours;
use crate::service::{Event, Strata};
use crate::store::{Container, ContainerLock, MountState, Mounted};
use crate::sys;

/// What to copy, and where.
#[derive(Clone, Debug)]
pub struct CopyRequest {
    /// A path of the host, `IMAGE|CONTAINER:PATH`, or `-`.
    pub source: OsString,
    /// A path of the host, `CONTAINER:PATH`, or `-`.
    pub destination: OsString,
    /// Keep owner and group.
    pub archive: bool,
    /// Follow the source if it is a symbolic link.
    pub follow: bool,
}

/// What was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Bytes that a tar of it would have.
    pub bytes: u64,
    /// Where it went, as a person is told; none when it was written to a stream.
    pub to: Option<String>,
}

/// A tree that is copied from.
struct Source {
    tree: Tree,
    /// The container, if it is one.
    container: Option<Container>,
    path: CleanPath,
    /// Where the path leads.
    names: Vec<Vec<u8>>,
}

impl Source {
    fn item(&self) -> Result<Item<'_>> {
        self.tree.find(&[b"/", self.names.join(&b'/').as_slice()].concat(), Last::Itself)
    }
}

/// What goes into a destination.
enum Input<'a> {
    Tree(&'a Source),
    Host { path: CleanPath, top: HostTop },
    Tar(&'a mut (dyn Read + Send)),
}

impl Input<'_> {
    /// Returns what decides where a copy goes; none for a tar, which goes into a directory.
    fn from(&self) -> Result<Option<From<'_>>> {
        Ok(match self {
            Self::Tree(source) => {
                let is_directory = source.item()?.kind()? == Kind::Directory;
                Some(From { path: &source.path, is_directory })
            }
            Self::Host { path, top } => Some(From { path, is_directory: top.stat.is_dir() }),
            Self::Tar(_) => None,
        })
    }

    fn walk(self, skip: &Skip, visit: &mut dyn Visit) -> Result<()> {
        match self {
            Self::Tree(source) => walk_tree(source.item()?, visit),
            Self::Host { path, top } => match skip.get(&(top.stat.dev, top.stat.ino)) {
                Some(_) => Err(Error::IntoItself { path: path.to_string() }),
                None => walk_host(top, skip, visit),
            },
            Self::Tar(tar) => {
                let tar = decompress(tar).map_err(io_error("read", "standard input"))?;
                walk_tar(tar, visit)
            }
        }
    }
}

impl Strata {
    /// Copies files. `-` is read from `input` or written to `output`.
    pub fn copy(
        &self,
        request: &CopyRequest,
        input: &mut (dyn Read + Send),
        output: &mut dyn Write,
    ) -> Result<Copied> {
        for (word, what) in [(&request.source, "source"), (&request.destination, "destination")] {
            if word.is_empty() {
                return Err(Error::EmptyPath(what));
            }
        }
        let (from, to) = (Word::parse(&request.source), Word::parse(&request.destination));
        match (from, to) {
            (Word::Tree(from), Word::Stream) => {
                self.copy_out(&self.source(&from, request)?, output)
            }
            (Word::Tree(from), Word::Host(to)) => {
                self.copy_to_host(&self.source(&from, request)?, &to, request.archive)
            }
            (Word::Tree(from), Word::Tree(to)) => {
                let source = self.source(&from, request)?;
                self.copy_in(Input::Tree(&source), &to, request)
            }
            (Word::Host(from), Word::Tree(to)) => {
                self.copy_in(host_source(&from, request)?, &to, request)
            }
            (Word::Stream, Word::Tree(to)) => self.copy_in(Input::Tar(input), &to, request),
            (Word::Host(_) | Word::Stream, Word::Host(_) | Word::Stream) => {
                Err(Error::NothingToCopy)
            }
        }
    }

    /// Returns the reading of a word whose tree exists, and the container if it is one.
    fn read_word<'a>(
        &self,
        readings: &'a [(String, Vec<u8>)],
    ) -> Result<(&'a str, &'a [u8], Option<Container>)> {
        for (tree, path) in readings {
            match self.find_state(tree)? {
                Some((container, None)) => return Ok((tree, path, Some(container))),
                Some((_, Some(_))) => return Ok((tree, path, None)),
                None => {}
            }
            match self.find_image(tree) {
                Ok(_) => return Ok((tree, path, None)),
                Err(Error::NoImage(_) | Error::ImageName(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let name = readings.first().map(|(tree, _)| tree.clone()).unwrap_or_default();
        Err(Error::NoContainer(name))
    }

    /// Opens what is copied from, and finds the file there.
    fn source(&self, word: &[(String, Vec<u8>)], request: &CopyRequest) -> Result<Source> {
        let (name, typed, container) = self.read_word(word)?;
        let tree = self.open_tree(name)?;
        let tree = match &container {
            Some(_) => tree.called(format!("container {name}")),
            None => tree,
        };
        let path = CleanPath::new(typed, b"");
        let follow = request.follow || path.says_directory();
        let last = if follow { Last::Followed } else { Last::Itself };
        let spot = tree.locate(&path.bytes(), last)?;
        let Some(item) = &spot.item else { return Err(tree.missing(&path.bytes())) };
        if path.says_directory() && item.kind()? != Kind::Directory {
            return Err(Error::NotADirectory(format!("{name}:{path}")));
        }
        let names = spot.names;
        Ok(Source { tree, container, path, names })
    }

    /// Writes a tar.
    fn copy_out(&self, source: &Source, output: &mut dyn Write) -> Result<Copied> {
        let mut skipped = |path| {
            self.tell(Event::Warning(format!(
                "{path} is a socket, which cannot be copied: left out"
            )));
        };
        let name = match source.path.name() {
            Some(name) if !source.path.says_contents() => name.to_vec(),
            _ => b".".to_vec(),
        };
        let mut packer = Packer::new(&mut *output, Target::Tree, None, &mut skipped);
        packer.below(name, source.item()?)?;
        packer.finish()?;
        output.flush().map_err(io_error("write", "the tar"))?;
        Ok(Copied { bytes: 0, to: None })
    }

    /// Copies a file of an open tree, with all below it, to a path of the host; a container is the one
    /// that the tree shows.
    pub(crate) fn copy_from_tree(
        &self,
        tree: Tree,
        container: Option<&Container>,
        path: &[u8],
        to: &Path,
    ) -> Result<Copied> {
        let names = components(path).into_iter().map(<[u8]>::to_vec).collect();
        let path = CleanPath::new(path, b"");
        let source = Source { tree, container: container.cloned(), path, names };
        self.copy_to_host(&source, to.as_os_str().as_bytes(), false)
    }

    fn copy_to_host(&self, source: &Source, to: &[u8], archive: bool) -> Result<Copied> {
        let to = CleanPath::new(to, working_directory()?.as_os_str().as_bytes());
        let (place, there) = host_destination(&to)?;
        let input = Input::Tree(source);
        let shown = to.to_string();
        let goal = match input.from()? {
            Some(from) => goal(&from, &to, there, &shown)?,
            None => return Err(Error::NothingToCopy),
        };
        let (dir, name) = split_host(place, goal)?;
        if let Some(container) = &source.container
            && source.item()?.kind()? == Kind::Directory
            && let Mounted::Alive(state) = self.store.mounted(&container.id)?
            && dir.starts_with(&state.target)
        {
            // What is copied would be found again below what is copied.
            return Err(Error::IntoItself { path: dir.display().to_string() });
        }
        let root = sys::open_dir_path(&dir)?;
        let folder = Folder { root, owners: Owners::IfAllowed };
        let owner = if archive { Owner::Source } else { Owner::Caller };
        let shown_dir = dir.display().to_string();
        let bytes = self.run(input, &Skip::new(), folder, Vec::new(), name, owner, shown_dir)?;
        Ok(Copied { bytes, to: Some(shown) })
    }

    /// Copies into a container.
    fn copy_in(
        &self,
        input: Input<'_>,
        word: &[(String, Vec<u8>)],
        request: &CopyRequest,
    ) -> Result<Copied> {
        let (name, typed, container) = self.read_word(word)?;
        let Some(container) = container else {
            return Err(match self.find_state(name)? {
                Some(_) => Error::CopyToSnapshot(name.to_owned()),
                None => Error::CopyToImage(name.to_owned()),
            });
        };
        let shown = format!("{name}:{}", String::from_utf8_lossy(typed));
        let access = self.access(&container)?;
        let (image, lease) = self.lease_base(&container)?;
        let overlay = match &access {
            Access::Layer(_) => {
                self.writable(&container, &image, &MountOptions::parse::<String>(&[])?, None)?
            }
            Access::Mount(_) => self.inspect_container(&container, &image)?,
        };
        let tree = Tree::new(overlay, &format!("container {name}"), lease);
        let to = CleanPath::new(typed, b"");
        let spot = tree.locate(&to.bytes(), Last::Followed).map_err(|error| match error {
            // What is missing is the directory that the copy would be made in.
            Error::NoPath { tree, .. } => {
                Error::NoPath { path: to.parent().display().to_string(), tree }
            }
            other => other,
        })?;
        let there = spot.item.as_ref().map(Item::kind).transpose()?;
        let goal = match input.from()? {
            Some(from) => goal(&from, &to, there, &shown)?,
            None if there == Some(Kind::Directory) => Goal::Into(None),
            None => return Err(Error::OutputNoDirectory(shown)),
        };
        let mut base = spot.names;
        let name_there = match goal {
            Goal::Into(name) => name,
            Goal::Itself => base.pop(),
        };
        check_not_into_itself(&input, &container, &base, name_there.as_deref(), &shown)?;
        let owner = if request.archive { Owner::Source } else { Owner::Root };
        let mut skip = Skip::new();
        let store = std::fs::metadata(self.root());
        let store = store.map_err(io_error("open", self.root().display().to_string()))?;
        skip.insert((store.dev(), store.ino()), "is the store of strata");
        let shown_root = format!("{name}:");
        let bytes = match &access {
            Access::Layer(_lock) => {
                let layer = Layer(&tree.overlay);
                self.run(input, &skip, layer, base, name_there, owner, shown_root)?
            }
            Access::Mount(root) => {
                let folder = Folder { root: sys::dup(root.as_fd())?, owners: Owners::Must };
                for names in [&[][..], &base] {
                    let stat = sys::fstat(open_below(&folder, names)?.as_fd())?;
                    skip.insert((stat.dev, stat.ino), "is where the copy goes");
                }
                self.run(input, &skip, folder, base, name_there, owner, shown_root)?
            }
        };
        Ok(Copied { bytes, to: Some(shown) })
    }

    #[allow(clippy::too_many_arguments, reason = "each is said once, at the call")]
    fn run<P: Place>(
        &self,
        input: Input<'_>,
        skip: &Skip,
        place: P,
        base: Vec<Vec<u8>>,
        name: Option<Vec<u8>>,
        owner: Owner,
        shown: String,
    ) -> Result<u64> {
        let warn = |text| self.tell(Event::Warning(text));
        let mut writer = Writer::new(place, &base, name, owner, shown, &warn)?;
        input.walk(skip, &mut writer)?;
        writer.finish()
    }
}

/// How a container is written to.
enum Access {
    /// In this process, which has its lock.
    Layer(#[allow(dead_code, reason = "it is held")] ContainerLock),
    /// Through the root of its mount.
    Mount(std::os::fd::OwnedFd),
}

impl Strata {
    fn access(&self, container: &Container) -> Result<Access> {
        if let Mounted::Alive(state) = self.store.mounted(&container.id)? {
            return self.live_mount(container, &state).map(Access::Mount);
        }
        let lock = self.lock_unmounted(container)?;
        Ok(Access::Layer(lock))
    }

    /// Opens the root of a container's mount. After a lazy unmount something else is at its place.
    fn live_mount(
        &self,
        container: &Container,
        state: &MountState,
    ) -> Result<std::os::fd::OwnedFd> {
        let (name, target) = (container.name.clone(), state.target.clone());
        if !state.writable || container.ephemeral {
            return Err(Error::ReadOnlyContainer { name, target });
        }
        let same = self.mounts()?.into_iter().filter(|row| row.alive && row.state.target == target);
        if same.count() != 1 || !is_ours(&target) {
            return Err(Error::MountOutOfReach { name, target });
        }
        Ok(sys::open_dir_path(&target)?)
    }
}

/// Finds a file of the host.
fn host_source<'a>(typed: &[u8], request: &CopyRequest) -> Result<Input<'a>> {
    let path = CleanPath::new(typed, working_directory()?.as_os_str().as_bytes());
    let host = path.to_host();
    let lstat = |source| Error::Io { action: "lstat", path: path.to_string(), source };
    let follow = request.follow || path.says_directory();
    let real = if follow { std::fs::canonicalize(&host).map_err(lstat)? } else { host };
    let (parent, name) = match (real.parent(), real.file_name()) {
        (Some(parent), Some(name)) => (parent, name.to_owned()),
        _ => (Path::new("/"), ".".into()),
    };
    // A parent that is missing is told as the file that is.
    std::fs::symlink_metadata(&real).map_err(lstat)?;
    let dir = sys::open_dir_path(parent)?;
    let fd = sys::open_path(dir.as_fd(), &name)?;
    let stat = sys::fstat(fd.as_fd())?;
    if path.says_directory() && !stat.is_dir() {
        return Err(Error::NotADirectory(path.to_string()));
    }
    let top = HostTop { fd, stat, shown: path.to_host().display().to_string() };
    Ok(Input::Host { path, top })
}

/// Follows a destination on the host, and returns where it is and what is there.
fn host_destination(to: &CleanPath) -> Result<(PathBuf, Option<Kind>)> {
    let parent = to.parent();
    if !parent.is_dir() {
        return Err(Error::NoOutputDirectory(parent));
    }
    let mut path = to.to_host();
    for _ in 0..40 {
        let shown = || path.display().to_string();
        let metadata = match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((path, None)),
            other => other.map_err(io_error("lstat", shown()))?,
        };
        if !metadata.is_symlink() {
            return Ok((path, Some(Kind::of(metadata.mode()))));
        }
        let target = std::fs::read_link(&path).map_err(io_error("read", shown()))?;
        path = path.parent().unwrap_or(Path::new("/")).join(target);
    }
    Err(Error::LinkLoop(to.to_string()))
}

/// Returns the directory of the host to write into, without links, and the name there.
fn split_host(path: PathBuf, goal: Goal) -> Result<(PathBuf, Option<Vec<u8>>)> {
    let (dir, name) = match goal {
        Goal::Into(name) => (path, name),
        Goal::Itself => match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => (parent.to_owned(), Some(name.as_bytes().to_vec())),
            _ => return Err(Error::NoSuchDirectory(path.display().to_string())),
        },
    };
    match std::fs::canonicalize(&dir) {
        Ok(dir) => Ok((dir, name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NoOutputDirectory(dir)),
        Err(error) => Err(io_error("find", dir.display().to_string())(error)),
    }
}

fn working_directory() -> Result<PathBuf> {
    std::env::current_dir().map_err(io_error("find", "the working directory"))
}

/// Checks that a directory of a container is not copied to below itself.
fn check_not_into_itself(
    input: &Input<'_>,
    to: &Container,
    base: &[Vec<u8>],
    name: Option<&[u8]>,
    shown: &str,
) -> Result<()> {
    let Input::Tree(source) = input else { return Ok(()) };
    let same = source.container.as_ref().is_some_and(|from| from.id == to.id);
    if !same || source.item()?.kind()? != Kind::Directory {
        return Ok(());
    }
    let goal: Vec<&[u8]> = base.iter().map(Vec::as_slice).chain(name).collect();
    let is_below =
        goal.len() >= source.names.len() && source.names.iter().zip(&goal).all(|(a, b)| a == b);
    match is_below {
        true => Err(Error::IntoItself { path: shown.to_owned() }),
        false => Ok(()),
    }
}
