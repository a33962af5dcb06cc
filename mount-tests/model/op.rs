//! Operations, and how they are generated.

use proptest::prelude::*;

/// A path: names from a small set, so that operations meet.
pub(crate) type Path = Vec<u8>;

/// What a lower layer has under a path.
#[derive(Clone, Debug)]
pub(crate) struct LowerFile {
    pub(crate) path: Path,
    pub(crate) kind: LowerKind,
}

#[derive(Clone, Debug)]
pub(crate) enum LowerKind {
    Dir,
    /// A file with this many bytes.
    File(u16),
    /// A file with these bytes.
    Bytes(Vec<u8>),
    Symlink,
    Fifo,
    /// Another name for the file at this path, if there is one in the layer.
    Hard(Path),
    Whiteout,
    Opaque,
}

/// An operation.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create(Path, u16),
    Mkdir(Path, u16),
    Symlink(Path, u8),
    Mkfifo(Path),
    Unlink(Path),
    Rmdir(Path),
    Rename(Path, Path),
    RenameNoReplace(Path, Path),
    Exchange(Path, Path),
    Link(Path, Path),
    Chmod(Path, u16),
    Chown(Path, u8, u8),
    Utimes(Path, u32),
    Truncate(Path, u16),
    SetXattr(Path, u8, u8),
    RemoveXattr(Path, u8),
    Open(Path, bool),
    Close(u8),
    Read(u8, u16, u16),
    Write(u8, u16, u16, u8),
    FstatHandle(u8),
    TruncateHandle(u8, u16),
    List(Path),
    Stat(Path),
    Remount,
}

/// Generates a path of at most so many names.
pub(crate) fn path(depth: usize) -> impl Strategy<Value = Path> {
    prop::collection::vec(0..4_u8, 1..=depth)
}

/// Generates the layers of a lower, bottom first.
pub(crate) fn lower() -> impl Strategy<Value = Vec<Vec<LowerFile>>> {
    let kind = prop_oneof![
        4 => Just(LowerKind::Dir),
        4 => (0..20_000_u16).prop_map(LowerKind::File),
        1 => Just(LowerKind::Symlink),
        1 => Just(LowerKind::Fifo),
        2 => path(3).prop_map(LowerKind::Hard),
        1 => Just(LowerKind::Whiteout),
        1 => Just(LowerKind::Opaque),
    ];
    let file = (path(3), kind).prop_map(|(path, kind)| LowerFile { path, kind });
    prop::collection::vec(prop::collection::vec(file, 0..12), 1..4)
}

/// Leaves hard links to the topmost layer: how many names of a file in a directory are hidden by other
/// layers, nobody can know who has not looked at all of them.
pub(crate) fn with_links_on_top(mut lower: Vec<Vec<LowerFile>>) -> Vec<Vec<LowerFile>> {
    if let Some((_, below)) = lower.split_last_mut() {
        for layer in below {
            layer.retain(|file| !matches!(file.kind, LowerKind::Hard(_)));
        }
    }
    lower
}

/// Generates a sequence of operations.
pub(crate) fn ops(most: usize) -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 1..most)
}

/// Generates an operation.
pub(crate) fn op() -> impl Strategy<Value = Op> {
    let names = prop_oneof![
        4 => (path(3), 0..0o1000_u16).prop_map(|(p, m)| Op::Create(p, m)),
        4 => (path(3), 0..0o1000_u16).prop_map(|(p, m)| Op::Mkdir(p, m)),
        1 => (path(3), any::<u8>()).prop_map(|(p, t)| Op::Symlink(p, t)),
        1 => path(3).prop_map(Op::Mkfifo),
        6 => path(3).prop_map(Op::Unlink),
        4 => path(3).prop_map(Op::Rmdir),
        8 => (path(3), path(3)).prop_map(|(a, b)| Op::Rename(a, b)),
        1 => (path(3), path(3)).prop_map(|(a, b)| Op::RenameNoReplace(a, b)),
        3 => (path(3), path(3)).prop_map(|(a, b)| Op::Exchange(a, b)),
        4 => (path(3), path(3)).prop_map(|(a, b)| Op::Link(a, b)),
    ];
    let attributes = prop_oneof![
        (path(3), 0..0o10000_u16).prop_map(|(p, m)| Op::Chmod(p, m)),
        (path(3), 0..3_u8, 0..3_u8).prop_map(|(p, u, g)| Op::Chown(p, u, g)),
        (path(3), any::<u32>()).prop_map(|(p, t)| Op::Utimes(p, t)),
        (path(3), 0..9000_u16).prop_map(|(p, s)| Op::Truncate(p, s)),
        (path(3), 0..3_u8, any::<u8>()).prop_map(|(p, n, v)| Op::SetXattr(p, n, v)),
        (path(3), 0..3_u8).prop_map(|(p, n)| Op::RemoveXattr(p, n)),
    ];
    let handles = prop_oneof![
        4 => (path(3), prop::bool::weighted(0.2)).prop_map(|(p, t)| Op::Open(p, t)),
        1 => (0..4_u8).prop_map(Op::Close),
        2 => (0..4_u8, 0..9000_u16, 0..9000_u16).prop_map(|(h, o, l)| Op::Read(h, o, l)),
        3 => (0..4_u8, 0..9000_u16, 1..6000_u16, any::<u8>())
            .prop_map(|(h, o, l, b)| Op::Write(h, o, l, b)),
        1 => (0..4_u8).prop_map(Op::FstatHandle),
        1 => (0..4_u8, 0..9000_u16).prop_map(|(h, s)| Op::TruncateHandle(h, s)),
    ];
    prop_oneof![
        8 => names,
        3 => attributes,
        4 => handles,
        1 => path(3).prop_map(Op::List),
        1 => path(3).prop_map(Op::Stat),
        1 => Just(Op::Remount),
    ]
}

/// Times that are set are earlier than this; a later one was set by a change.
pub(crate) const LATEST: u32 = 1_000_000_000;

/// Returns the text of a path.
pub(crate) fn text(path: &[u8]) -> String {
    path.iter().map(|name| name_of(*name)).collect::<Vec<_>>().join("/")
}

/// Returns a name of the small set.
pub(crate) fn name_of(name: u8) -> &'static str {
    ["a", "b", "c", "d"][usize::from(name) % 4]
}

/// Returns what a generated file holds.
pub(crate) fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

/// Returns the name of an attribute.
pub(crate) fn xattr_name(number: u8) -> &'static str {
    ["user.one", "trusted.two", "trusted.overlay.opaque"][usize::from(number) % 3]
}

/// What an operation answered: an error number by name, or what it found.
pub(crate) type Answer = Result<String, &'static str>;

/// A tree, a line for each entry.
pub(crate) type Tree = std::collections::BTreeMap<String, String>;

/// Returns the line of a file.
pub(crate) fn describe(
    kind: &str,
    (mode, uid, gid, nlink): (u32, u32, u32, u32),
    content: &[u8],
    xattrs: &[(String, Vec<u8>)],
) -> String {
    let digest = strata::digest::Digest::of(content).short();
    let len = content.len();
    format!("{kind} {mode:o} {uid}:{gid} x{nlink} {len} {digest} {xattrs:?}")
}
