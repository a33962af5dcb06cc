//! What is done in a mount: the operations of the model, and those that it has no words for.

use proptest::prelude::*;

use crate::op::{Op, Path, op, path};
use crate::oracle::data::{Data, data};

/// Handles that a program has in a tree.
pub(crate) const HANDLES: usize = 4;

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct How {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) append: bool,
    pub(crate) truncate: bool,
    pub(crate) create: bool,
    pub(crate) exclusive: bool,
}

impl How {
    pub(crate) fn flags(self) -> i32 {
        let access = match (self.read, self.write) {
            (true, true) => libc::O_RDWR,
            (false, true) => libc::O_WRONLY,
            _ => libc::O_RDONLY,
        };
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        access
            | flag(self.append, libc::O_APPEND)
            | flag(self.truncate && self.write, libc::O_TRUNC)
            | flag(self.create, libc::O_CREAT)
            | flag(self.create && self.exclusive, libc::O_EXCL)
            | libc::O_CLOEXEC
            // A FIFO is opened without waiting for who opens its other end.
            | libc::O_NONBLOCK
    }
}

/// One thing that a program does.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// What the model does, too.
    Op(Op),
    /// Opens a file in the place of a handle.
    Open(u8, Path, How),
    /// Reads or changes what is in an open file.
    Data(u8, Data),
    /// Makes a device or a socket.
    Mknod(Path, Special),
    /// Makes a symbolic link to another path.
    LinkTo(Path, Path),
    /// Changes what an open file is like.
    ChmodHandle(u8, u16),
    ChownHandle(u8, u8, u8),
    UtimesHandle(u8, u32, u32),
    SetXattrHandle(u8, u8, u8),
    /// Gives an open file a name.
    LinkHandle(u8, Path),
    /// Renames with the flag that leaves a whiteout; not done at random, because the kernel refuses it.
    RenameWhiteout(Path, Path),
    /// Sets an attribute that must be there, or must not.
    SetXattrIf(Path, u8, bool),
    /// Reads one attribute.
    GetXattr(Path, u8),
    /// Tells whether a path may be read, written, run.
    Access(Path, u8),
}

impl Act {
    fn paths(&mut self) -> Vec<&mut Path> {
        match self {
            Self::Op(op) => paths_of(op),
            Self::Open(_, path, _)
            | Self::Mknod(path, _)
            | Self::LinkHandle(_, path)
            | Self::SetXattrIf(path, ..)
            | Self::GetXattr(path, _)
            | Self::Access(path, _) => vec![path],
            Self::LinkTo(from, to) | Self::RenameWhiteout(from, to) => vec![from, to],
            _ => Vec::new(),
        }
    }

    /// Returns the handle through which it changes attributes.
    pub(crate) fn changes_through(&self) -> Option<u8> {
        match self {
            Self::ChmodHandle(handle, _)
            | Self::ChownHandle(handle, ..)
            | Self::UtimesHandle(handle, ..)
            | Self::SetXattrHandle(handle, ..) => Some(*handle),
            _ => None,
        }
    }

    /// Leads its paths through directories that most trees have.
    fn through_ground(mut self) -> Self {
        for path in self.paths() {
            if let Some((_, dirs)) = path.split_last_mut() {
                dirs.iter_mut().for_each(|name| *name %= 2);
            }
        }
        self
    }
}

/// Returns the paths that an operation names.
fn paths_of(op: &mut Op) -> Vec<&mut Path> {
    match op {
        Op::Create(path, _)
        | Op::Mkdir(path, _)
        | Op::Symlink(path, _)
        | Op::Mkfifo(path)
        | Op::Unlink(path)
        | Op::Rmdir(path)
        | Op::Chmod(path, _)
        | Op::Chown(path, ..)
        | Op::Utimes(path, _)
        | Op::Truncate(path, _)
        | Op::SetXattr(path, ..)
        | Op::RemoveXattr(path, _)
        | Op::Open(path, _)
        | Op::List(path)
        | Op::Stat(path) => vec![path],
        Op::Rename(from, to)
        | Op::RenameNoReplace(from, to)
        | Op::Exchange(from, to)
        | Op::Link(from, to) => vec![from, to],
        _ => Vec::new(),
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Special {
    Character,
    Block,
    Socket,
    /// The device that is a whiteout in an upper.
    Whiteout,
}

fn how() -> impl Strategy<Value = How> {
    let flag = prop::bool::weighted;
    (any::<bool>(), any::<bool>(), flag(0.2), flag(0.1), flag(0.2), flag(0.2)).prop_map(
        |(read, write, append, truncate, create, exclusive)| How {
            read: read || !write,
            write,
            append,
            truncate,
            create,
            exclusive,
        },
    )
}

fn handle() -> impl Strategy<Value = u8> {
    0..u8::try_from(HANDLES).unwrap_or(u8::MAX)
}

/// Generates what is done to files and names, most of it where something is.
pub(crate) fn act() -> impl Strategy<Value = Act> {
    prop_oneof![1 => any_act(), 6 => any_act().prop_map(Act::through_ground)]
}

fn any_act() -> impl Strategy<Value = Act> {
    let special =
        prop_oneof![Just(Special::Character), Just(Special::Block), Just(Special::Socket),];
    prop_oneof![
        24 => op().prop_map(Act::Op),
        7 => (handle(), path(3), how()).prop_map(|(h, p, how)| Act::Open(h, p, how)),
        10 => (handle(), data()).prop_map(|(h, data)| Act::Data(h, data)),
        1 => (path(3), special).prop_map(|(p, special)| Act::Mknod(p, special)),
        1 => (path(3), path(3)).prop_map(|(a, b)| Act::LinkTo(a, b)),
        2 => on_handles(),
        1 => (path(3), 0..3_u8, any::<bool>()).prop_map(|(p, n, there)| Act::SetXattrIf(p, n, there)),
        1 => (path(3), 0..3_u8).prop_map(|(p, n)| Act::GetXattr(p, n)),
        1 => (path(3), 0..8_u8).prop_map(|(p, mode)| Act::Access(p, mode)),
    ]
}

fn on_handles() -> impl Strategy<Value = Act> {
    prop_oneof![
        (handle(), 0..0o10000_u16).prop_map(|(h, mode)| Act::ChmodHandle(h, mode)),
        (handle(), 0..3_u8, 0..3_u8).prop_map(|(h, u, g)| Act::ChownHandle(h, u, g)),
        (handle(), any::<u32>(), 0..1_000_000_000_u32)
            .prop_map(|(h, secs, nanos)| Act::UtimesHandle(h, secs, nanos)),
        (handle(), 0..3_u8, any::<u8>()).prop_map(|(h, n, v)| Act::SetXattrHandle(h, n, v)),
        (handle(), path(3)).prop_map(|(h, p)| Act::LinkHandle(h, p)),
    ]
}

/// Remounts of a batch at most; each is of all its trees.
const REMOUNTS: usize = 2;

/// Returns what is done before each remount, and after the last.
pub(crate) fn rounds(acts: &[Act]) -> [Vec<&Act>; REMOUNTS + 1] {
    let mut rounds = [const { Vec::new() }; REMOUNTS + 1];
    let mut round = 0;
    for act in acts {
        if matches!(act, Act::Op(Op::Remount)) {
            round = (round + 1).min(REMOUNTS);
        } else {
            rounds[round].push(act);
        }
    }
    rounds
}

/// Generates what is done to names that are no symbolic links.
pub(crate) fn name_act() -> impl Strategy<Value = Op> {
    let is_of_names = |op: &Op| {
        matches!(
            op,
            Op::Create(..)
                | Op::Mkdir(..)
                | Op::Mkfifo(_)
                | Op::Unlink(_)
                | Op::Rmdir(_)
                | Op::Rename(..)
                | Op::RenameNoReplace(..)
                | Op::Exchange(..)
                | Op::Link(..)
                | Op::List(_)
        )
    };
    op().prop_filter("it is about names", is_of_names)
}

/// Generates what is done to the contents of a few files in one directory.
pub(crate) fn data_act() -> impl Strategy<Value = Act> {
    let open = (handle(), path(1), how()).prop_map(|(h, p, how)| Act::Open(h, p, how));
    let op = prop_oneof![
        handle().prop_map(Op::Close),
        (path(1), path(1)).prop_map(|(a, b)| Op::Rename(a, b)),
        (path(1), path(1)).prop_map(|(a, b)| Op::Link(a, b)),
        path(1).prop_map(Op::Unlink),
        (path(1), 0..0o1000_u16).prop_map(|(p, m)| Op::Chmod(p, m)),
        (path(1), 0..3_u8, any::<u8>()).prop_map(|(p, n, v)| Op::SetXattr(p, n, v)),
        (path(1), any::<u16>()).prop_map(|(p, s)| Op::Truncate(p, s)),
    ];
    prop_oneof![
        4 => open,
        20 => (handle(), data()).prop_map(|(h, data)| Act::Data(h, data)),
        3 => op.prop_map(Act::Op),
        1 => Just(Act::Op(Op::Remount)),
    ]
}
