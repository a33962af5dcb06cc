//! Indexes and recipes that no program has written: right in form, and absurd.

use super::*;
use crate::layer::fuzz::index_of;
use crate::layer::recipe::{HEADER_BYTES, header_without_sums};

/// An index by hand: inodes, directory entries, and the names that these have.
#[derive(Default)]
struct Crafted {
    inodes: Vec<format::InodeRecord>,
    dirents: Vec<format::DirentRecord>,
    names: Vec<u8>,
}

impl Crafted {
    /// Adds a directory with entries from `first` on.
    fn dir(mut self, (first, count): (u32, u32), place: (u32, u32)) -> Self {
        self.inodes.push(format::InodeRecord {
            data: format::InodeRecord::pack_dirents(first, count),
            parent: place.0,
            dirent: place.1,
            flags: 0,
            ..format::InodeRecord::IMPLICIT_DIRECTORY
        });
        self
    }

    /// Adds a file that says so many names of itself, and this place.
    fn file(mut self, nlink: u32, (parent, dirent): (u32, u32)) -> Self {
        let mode = crate::sys::mode::REGULAR | 0o644;
        let file = format::InodeRecord::IMPLICIT_DIRECTORY;
        self.inodes.push(format::InodeRecord { mode, nlink, parent, dirent, flags: 0, ..file });
        self
    }

    fn entry(mut self, name: &[u8], inode: u32) -> Self {
        let start = u32::try_from(self.names.len()).unwrap();
        self.names.extend_from_slice(name);
        self.dirents.push(format::DirentRecord {
            hash: format::name_hash(name),
            name: start,
            inode,
            name_len: u8::try_from(name.len()).unwrap(),
            file_type: Kind::Directory.dirent_type(),
        });
        self
    }

    fn sections(&self) -> Vec<u8> {
        let dirents: Vec<u8> = self.dirents.iter().flat_map(format::DirentRecord::write).collect();
        let inodes: Vec<u8> = self.inodes.iter().flat_map(format::InodeRecord::write).collect();
        let sections = [&[][..], &dirents, &self.names, &inodes, &[], &[], &[], &[]];
        let lengths = sections.iter().flat_map(|s| u16::try_from(s.len()).unwrap().to_le_bytes());
        [lengths.collect(), sections.concat()].concat()
    }

    /// Merges it as a layer, and walks it as a chain; returns what both say.
    fn told(&self) -> (Result<()>, Result<()>) {
        let sections = self.sections();
        let open = |kind| index_of(&sections, kind, Digest::of(b"x")).unwrap();
        let layer = open(IndexKind::Layer);
        let file = merge(&[layer], Limits::NONE, tempfile::tempfile().unwrap()).map(drop);
        let chain = open(IndexKind::Chain);
        let chain = Chain::new(chain, Vec::new(), Arc::new(Memory::default())).unwrap();
        (file, walk(&chain).map(drop))
    }
}

/// Goes through all directories of a chain, and looks every name up.
fn walk(chain: &Chain) -> Result<usize> {
    let (mut pending, mut count) = (vec![ROOT], 0);
    while let Some(dir) = pending.pop() {
        for position in 0..chain.entry_count(dir)? {
            let entry = chain.entry(dir, position)?.unwrap();
            count += 1;
            assert!(count < 1000, "a chain has no end");
            if entry.kind == Kind::Directory {
                pending.push(entry.inode);
            }
            chain.lookup(dir, entry.name)?;
        }
    }
    Ok(count)
}

#[test]
fn regression_an_index_with_a_circle_is_damaged() {
    for (what, index) in [
        (
            "in itself",
            Crafted::default()
                .dir((0, 1), (0, 0))
                .dir((1, 1), (0, 0))
                .entry(b"a", 1)
                .entry(b"b", 1),
        ),
        ("the root", Crafted::default().dir((0, 1), (0, 0)).entry(b"a", 0)),
        (
            "in two places",
            Crafted::default()
                .dir((0, 2), (0, 0))
                .dir((2, 0), (0, 0))
                .entry(b"a", 1)
                .entry(b"b", 1),
        ),
        (
            "in each other",
            Crafted::default()
                .dir((0, 1), (0, 0))
                .dir((1, 1), (2, 2))
                .dir((2, 1), (1, 1))
                .entry(b"a", 1)
                .entry(b"b", 2)
                .entry(b"c", 1),
        ),
    ] {
        let (merged, walked) = index.told();
        assert!(matches!(merged, Err(Error::Damaged(_))), "{what}: {merged:?}");
        assert!(matches!(walked, Err(Error::Damaged(_))), "{what}: {walked:?}");
    }
    // Circles that no way leads to are nobody's concern.
    let apart = Crafted::default().dir((0, 1), (0, 0)).dir((1, 1), (1, 1)).file(1, (0, 0));
    let (merged, walked) = apart.entry(b"f", 2).entry(b"d", 1).told();
    assert!(merged.is_ok() && walked.is_ok(), "{merged:?} {walked:?}");
}

#[test]
fn names_that_no_file_can_have_are_damage() {
    for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0", b"../../etc/passwd"] {
        let index = Crafted::default().dir((0, 1), (0, 0)).file(1, (0, 0)).entry(name, 1);
        let (merged, walked) = index.told();
        assert!(matches!(merged, Err(Error::Damaged(_))), "{name:?}: {merged:?}");
        assert!(matches!(walked, Err(Error::Damaged(_))), "{name:?}: {walked:?}");
    }
}

#[test]
fn directories_that_share_entries_do_not_make_more_of_them() {
    // Of files that are there, and of what is said to be gone.
    for (inode, nlink, walks) in [(101, 1, false), (101, 100, false), (WHITEOUT, 1, false)] {
        let mut index = Crafted::default().dir((0, 100), (0, 0));
        for number in 0..100 {
            let name = format!("d{number}");
            index = index.dir((100, 100), (0, number)).entry(name.as_bytes(), number + 1);
        }
        for number in 0..100 {
            index = index.entry(format!("f{number}").as_bytes(), inode);
        }
        let (merged, walked) = index.file(nlink, (1, 100)).told();
        assert!(matches!(merged, Err(Error::Damaged(_))), "{inode} {nlink}: {merged:?}");
        assert_eq!(walked.is_ok(), walks, "{inode} {nlink}: {walked:?}");
    }
}

#[test]
fn what_is_said_twice_and_counts_that_lie_are_survived() {
    let two = |nlink| Crafted::default().dir((0, 2), (0, 0)).file(nlink, (0, 0));
    // The same name twice, of two files.
    let (merged, walked) = two(1).file(1, (0, 1)).entry(b"a", 1).entry(b"a", 2).told();
    assert!(merged.is_ok() && walked.is_ok(), "{merged:?} {walked:?}");
    // One file twice, which says that it has one name, no name, or so many that there are more.
    for nlink in [0, 1, 2, u32::MAX] {
        let (merged, walked) = two(nlink).entry(b"a", 1).entry(b"b", 1).told();
        assert!(matches!(merged, Err(Error::Damaged(_))), "{nlink}: {merged:?}");
        assert!(matches!(walked, Err(Error::Damaged(_))), "{nlink}: {walked:?}");
    }
    // One that is not there, and a directory of more entries than there are.
    let (merged, walked) = two(1).entry(b"a", 1).entry(b"b", 7).told();
    assert!(merged.is_err() && walked.is_err());
    let beyond = Crafted::default().dir((0, u32::MAX), (0, 0)).entry(b"a", 0);
    let (merged, walked) = beyond.told();
    assert!(merged.is_err() && walked.is_err());
}

#[test]
fn a_recipe_gives_no_more_than_it_is_said_to() {
    let mut objects = Memory::default();
    let tar = tar_of(&["a=text"]);
    let files =
        LayerFiles { index: tempfile::tempfile().unwrap(), recipe: tempfile::tempfile().unwrap() };
    let unpacked = unpack(&tar[..], files, &mut objects).unwrap();
    let mut recipe = unpacked.files.recipe;
    recipe.rewind().unwrap();
    let mut bytes = Vec::new();
    recipe.read_to_end(&mut bytes).unwrap();
    let mut steps = zstd::decode_all(&bytes[HEADER_BYTES..]).unwrap();
    // The first step again, before the end.
    let again = steps[..steps.len() - 1].to_vec();
    steps.splice(0..0, again);
    let mut longer = tempfile::tempfile().unwrap();
    let header = header_without_sums(unpacked.diff_id, unpacked.tar_len);
    longer.write_all(&header).unwrap();
    longer.write_all(&zstd::encode_all(&steps[..], 1).unwrap()).unwrap();
    longer.rewind().unwrap();
    let index = Index::open(&unpacked.files.index).unwrap();
    let mut stream = TarStream::new(index, longer, Arc::new(objects)).unwrap();
    let error = stream.read_to_end(&mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("it gives more than the length of the tar"), "{error}");
}
