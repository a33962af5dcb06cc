//! Tars that are made to do harm: those that would fill the memory or the disk, or never end.

use super::*;
use crate::layer::limits::{EXTENSION_MAX, LINK_TARGET_MAX, PATH_BYTES_MAX};

/// A tar by hand, without an end.
#[derive(Default)]
struct Entries(Vec<u8>);

impl Entries {
    /// Adds a header, whatever comes behind it.
    fn header(mut self, name: &str, kind: tar::EntryType, size: u64) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(size);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self
    }

    /// Adds content, to the end of its block.
    fn content(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// Adds records about the next entry.
    fn records(self, records: &[u8]) -> Self {
        self.header("x", tar::EntryType::XHeader, records.len() as u64).content(records)
    }

    fn bytes(self) -> Vec<u8> {
        self.0
    }
}

fn unpack_within(limits: Limits, tar: impl Read) -> Result<Unpacked> {
    let files =
        LayerFiles { index: tempfile::tempfile().unwrap(), recipe: tempfile::tempfile().unwrap() };
    unpack(tar, files, &mut Memory::within(limits))
}

fn size(size_bytes: u64) -> Limits {
    Limits { size_bytes, ..Limits::NONE }
}

fn entries(entries: u64) -> Limits {
    Limits { entries, ..Limits::NONE }
}

/// Unpacks a tar that must be too large, and returns of what it has too much.
#[track_caller]
fn excess(limits: Limits, tar: impl Read) -> (Excess, u64) {
    match unpack_within(limits, tar).unwrap_err() {
        Error::Limit { what, found, most } => {
            assert!(found > most, "{found} {most}");
            (what, found)
        }
        error => panic!("{error}"),
    }
}

#[test]
fn a_file_that_is_said_to_be_large_is_not_begun() {
    // There is nothing behind the header.
    let tar = Entries::default().header("bomb", tar::EntryType::Regular, 8 << 40).bytes();
    assert_eq!(excess(size(1 << 30), &tar[..]), (Excess::Size, 512 + (8 << 40)));
    let records = record(b"size", b"18446744073709551615");
    let tar =
        Entries::default().records(&records).header("bomb", tar::EntryType::Regular, 0).bytes();
    assert_eq!(excess(size(1 << 30), &tar[..]), (Excess::Size, u64::MAX));
}

#[test]
fn holes_and_what_is_no_file_count_too() {
    let records =
        [record(b"GNU.sparse.major", b"1"), record(b"GNU.sparse.realsize", b"1000000000000")];
    let tar = Entries::default()
        .records(&records.concat())
        .header("sparse", tar::EntryType::Regular, 512)
        .content(b"0\n")
        .bytes();
    assert_eq!(excess(size(1 << 30), &tar[..]).0, Excess::Size);
    // Behind the end of an archive anything may follow.
    let tar = io::repeat(0).take(1 << 40);
    assert!(excess(size(1 << 20), tar).1 < 2 << 20);
    // A directory of the oldest form with a size.
    let tar = Entries::default().header("d/", tar::EntryType::Regular, 1 << 40).bytes();
    let tar = Cursor::new(tar).chain(io::repeat(7));
    assert_eq!(excess(size(1 << 20), tar).0, Excess::Size);
}

#[test]
fn a_layer_of_just_the_size_that_is_allowed_is_taken() {
    let tar = tar_of(&["a=text", "b="]);
    let len = tar.len() as u64;
    unpack_within(size(len), &tar[..]).unwrap();
    assert_eq!(excess(size(len - 1), &tar[..]), (Excess::Size, len));
    unpack_within(entries(2), &tar[..]).unwrap();
    assert_eq!(excess(entries(1), &tar[..]), (Excess::Entries, 2));
}

#[test]
fn directories_that_nobody_names_and_names_that_go_again_count_too() {
    let deep = format!("{}x=", "d/".repeat(1000));
    assert_eq!(excess(entries(500), &tar_of(&[&deep])[..]), (Excess::Entries, 501));
    let again: Vec<_> = std::iter::repeat_n("same=", 1000).collect();
    assert_eq!(excess(entries(500), &tar_of(&again)[..]), (Excess::Entries, 501));
    let gone: Vec<String> = (0..1000).map(|number| format!(".wh.{number}=")).collect();
    let gone: Vec<_> = gone.iter().map(String::as_str).collect();
    assert_eq!(excess(entries(500), &tar_of(&gone)[..]), (Excess::Entries, 501));
}

#[test]
fn names_and_attributes_count_by_their_bytes() {
    let names: Vec<String> =
        (0..100).map(|number| format!("{}{number:04}=", "n".repeat(250))).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    assert_eq!(excess(entries(100), &tar_of(&names)[..]).0, Excess::Names);
    let mut tar = Entries::default();
    for number in 0..20 {
        let value = format!("{number}{}", "v".repeat(1000));
        tar = tar.records(&record(b"SCHILY.xattr.user.x", value.as_bytes()));
        tar = tar.header("same", tar::EntryType::Regular, 0);
    }
    assert_eq!(excess(entries(100), &tar.bytes()[..]).0, Excess::Xattrs);
    let mut tar = Entries::default();
    for _ in 0..20 {
        // Equal ones are kept once.
        tar = tar.records(&record(b"SCHILY.xattr.user.x", &[b'v'; 5000]));
        tar = tar.header("same", tar::EntryType::Regular, 0);
    }
    unpack_within(entries(100), &tar.bytes()[..]).unwrap();
}

#[test]
fn regression_extension_records_are_limited_together() {
    let mut tar = Entries::default();
    for number in 0..100_u32 {
        let key = format!("comment.{number}");
        tar = tar.records(&record(key.as_bytes(), &[b'x'; 20_000]));
    }
    let tar = tar.header("file", tar::EntryType::Regular, 0).bytes();
    match unpack_bytes(&tar).map(drop).unwrap_err() {
        Error::Tar { reason, offset } => {
            assert_eq!(reason, "the extension records of an entry are longer than 1 MiB");
            assert!(offset < 2 * EXTENSION_MAX, "{offset}");
        }
        error => panic!("{error}"),
    }
}

#[test]
fn paths_and_targets_are_as_long_as_there_are_any() {
    let file = |path: &[u8]| {
        Entries::default()
            .records(&record(b"path", path))
            .header("x", tar::EntryType::Regular, 0)
            .bytes()
    };
    let link = |target: &[u8], kind| {
        Entries::default().records(&record(b"linkpath", target)).header("x", kind, 0).bytes()
    };
    let (symbolic, hard) = (tar::EntryType::Symlink, tar::EntryType::Link);
    // As deep as 4,096 directories, which no program could name at once.
    let deep = [b"d/".repeat(4096), b"file".to_vec()].concat();
    let layer = round_trip(&file(&deep));
    assert_eq!(layer.index.inode_count(), 4096 + 2);
    let longest = b"d/".repeat(PATH_BYTES_MAX / 2);
    round_trip(&file(&longest));
    round_trip(&link(&b"t".repeat(LINK_TARGET_MAX), symbolic));
    for (tar, expected) in [
        (file(&[&longest[..], b"x"].concat()), "a path of 65537 bytes, 65536 is the most"),
        (file(&b"n".repeat(256)), "a name of 256 bytes, 255 is the most"),
        (link(&b"t".repeat(4096), symbolic), "a target of 4096 bytes, 4095 is the most"),
        (link(&b"t".repeat(70_000), hard), "a target of 70000 bytes, 65536 is the most"),
    ] {
        let said = unpack_bytes(&tar).map(drop).unwrap_err().to_string();
        assert!(said.ends_with(expected) && said.len() < 1000, "{said}");
    }
}

#[test]
fn more_attributes_than_a_file_can_list_are_refused() {
    let records = |count: usize| -> Vec<u8> {
        let name = |number| format!("SCHILY.xattr.user.{}{number:04}", "a".repeat(200));
        (0..count).flat_map(|number| record(name(number).as_bytes(), b"v")).collect()
    };
    let tar = |count| {
        let tar = Entries::default().records(&records(count));
        tar.header("file", tar::EntryType::Regular, 0).bytes()
    };
    // Each has 209 bytes and a zero.
    unpack_bytes(&tar(312)).unwrap();
    let said = unpack_bytes(&tar(313)).map(drop).unwrap_err().to_string();
    assert!(said.contains("names of 65730 bytes together, 65536 is the most"), "{said}");
}

#[test]
fn links_in_circles_come_to_an_end() {
    let circles = ["a->b", "b->a", "c->c/c", "up->../../..", "up/up/x=1"];
    let said = unpack_bytes(&tar_of(&[&circles[..], &["a/x="]].concat())).map(drop);
    assert!(said.unwrap_err().to_string().contains("what should be its directory is none"));
    let (chain, _) = merged(&[tar_of(&circles)]).unwrap();
    assert!(chain.lookup(ROOT, "x".as_ref()).unwrap().is_some());
}

#[test]
fn many_links_are_read_back_when_they_are_needed() {
    let mut tar = vec!["to/".to_owned()];
    tar.extend((0..3000).map(|number| format!("l{number}->to")));
    tar.extend((0..3000).rev().map(|number| format!("l{number}/f{number}=")));
    let tar: Vec<_> = tar.iter().map(String::as_str).collect();
    let (chain, _) = merged(&[tar_of(&tar)]).unwrap();
    let dir = chain.lookup(ROOT, "to".as_ref()).unwrap().unwrap();
    assert_eq!(chain.entry_count(dir).unwrap(), 3000);
}
