//! Layers on each other, and indexes that are damaged.

use super::*;

#[test]
fn layers_are_put_on_each_other_as_extracting_would() {
    let base: &[&str] = &[
        "etc/",
        "etc/a=1",
        "etc/b=2",
        "usr/lib/",
        "usr/lib/x=1",
        "lib->usr/lib",
        "f=1",
        "d/",
        "d/1=x",
    ];
    for (upper, expected) in [
        (&[".wh.f="][..], vec!["-f Regular"]),
        (&["etc/.wh.a="], vec!["-etc/a Regular"]),
        (
            &["etc/", "etc/.wh..wh..opq=", "etc/c=3"],
            vec!["-etc/a Regular", "-etc/b Regular", "+etc/c Regular"],
        ),
        (
            &[".wh.etc=", "etc/", "etc/n=1"],
            vec!["-etc/a Regular", "-etc/b Regular", "+etc/n Regular"],
        ),
        (&["d=file"], vec!["-d dir", "-d/1 Regular", "+d Regular"]),
        // As umoci writes it, and in the other order.
        (&["d=file", "d/.wh.1="], vec!["-d dir", "-d/1 Regular", "+d Regular"]),
        (&["d/.wh.1=", "d=file"], vec!["-d dir", "-d/1 Regular", "+d Regular"]),
        (&["f/", "f/in=1"], vec!["-f Regular", "+f dir", "+f/in Regular"]),
        // The directory is not named: its file goes where the link of the lower layer leads.
        (&["lib/y=1"], vec!["+usr/lib/y Regular"]),
        // It is named: it takes the place of the link.
        (&["lib/", "lib/y=1"], vec!["-lib Symlink", "+lib dir", "+lib/y Regular"]),
        (&["hard=>etc/a"], vec!["+hard Regular"]),
        // Gone with what it led to, and made anew.
        (&[".wh.lib=", "lib/y=1"], vec!["-lib Symlink", "+lib dir", "+lib/y Regular"]),
        (&[".wh.etc=", "etc/n=1"], vec!["-etc/a Regular", "-etc/b Regular", "+etc/n Regular"]),
        (&[".wh.nothing="], vec![]),
    ] {
        let before = names(&[base]);
        let after = names(&[base, upper]);
        let gone =
            before.iter().filter(|line| !after.contains(line)).map(|line| format!("-{line}"));
        let new = after.iter().filter(|line| !before.contains(line)).map(|line| format!("+{line}"));
        let mut changes: Vec<_> = gone.chain(new).collect();
        let mut expected: Vec<_> = expected.into_iter().map(str::to_owned).collect();
        changes.sort();
        expected.sort();
        assert_eq!(changes, expected, "{upper:?}");
    }
}

#[test]
fn a_directory_that_a_layer_does_not_name_keeps_its_attributes() {
    let mut writer = TarWriter::new(Vec::new());
    let private = TarMeta { mode: 0o700, uid: 7, gid: 8, ..meta("d", Kind::Directory) };
    writer.entry(&private).unwrap();
    let base = writer.finish().unwrap();
    let (_, lines) = merged(&[base, tar_of(&["d/x=1"])]).unwrap();
    assert_eq!(lines, [". dir 755 0:0 implicit", "d dir 700 7:8", "d/x Regular 644 0:0 1 x1"]);
}

#[test]
fn names_are_counted_over_all_layers() {
    let base = tar_of(&["a=text", "b=>a", "c=>a"]);
    let (chain, lines) = merged(&[base, tar_of(&[".wh.b=", "d=>c"])]).unwrap();
    let expected = ["a Regular", "c Regular", "d Regular"];
    assert_eq!(lines[1..], expected.map(|name| format!("{name} 644 0:0 4 x3")));
    let inode = chain.lookup(ROOT, "d".as_ref()).unwrap().unwrap();
    let mut names: Vec<_> = chain.names(inode).unwrap();
    names.sort();
    assert_eq!(names, [(ROOT, "a".as_ref()), (ROOT, "c".as_ref()), (ROOT, "d".as_ref())]);
}

#[test]
fn a_link_to_what_no_lower_layer_has_is_an_error() {
    let error = merged(&[tar_of(&["a=1"]), tar_of(&["b=>nothing"])]).unwrap_err().to_string();
    assert_eq!(error, "hard link \"b\" leads to \"nothing\", which no layer below has");
}

#[test]
fn every_entry_of_a_large_directory_is_found_and_listed_once() {
    let files: Vec<_> = (0..3000).map(|number| format!("d/file-{number}={number}")).collect();
    let (chain, _) =
        merged(&[tar_of(&files.iter().map(String::as_str).collect::<Vec<_>>())]).unwrap();
    let dir = chain.lookup(ROOT, "d".as_ref()).unwrap().unwrap();
    let mut listed = Vec::new();
    for position in 0..chain.entry_count(dir).unwrap() {
        let entry = chain.entry(dir, position).unwrap().unwrap();
        assert_eq!(chain.lookup(dir, entry.name).unwrap(), Some(entry.inode));
        listed.push(entry.name.to_str().unwrap().to_owned());
    }
    listed.sort();
    let mut expected: Vec<_> = (0..3000).map(|number| format!("file-{number}")).collect();
    expected.sort();
    assert_eq!(listed, expected);
    assert_eq!(chain.lookup(dir, "file-3000".as_ref()).unwrap(), None);
}

#[test]
fn an_index_with_any_byte_changed_is_an_error_and_never_a_crash() {
    let tar = tar_of(&["a/", "a/f=text", "a/l->f", "h=>a/f", ".wh.w="]);
    let mut objects = Memory::default();
    let files =
        LayerFiles { index: tempfile::tempfile().unwrap(), recipe: tempfile::tempfile().unwrap() };
    let mut file = unpack(&tar[..], files, &mut objects).unwrap().files.index;
    let mut good = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut good).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bad).unwrap();
        assert!(Index::open_verified(&file).is_err(), "byte {at} was not covered");
        let Ok(index) = Index::open(&file) else { continue };
        if at < 288 {
            panic!("byte {at} of the header was not covered");
        }
        walk_without_crash(&index);
    }
    for len in [0, 1, 4095, 4096, good.len() - 1] {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&good[..len]).unwrap();
        assert!(Index::open(&file).is_err(), "{len} bytes");
    }
}

/// Reads whatever can be read; the results do not matter.
fn walk_without_crash(index: &Index) {
    for number in 0..index.inode_count() {
        let Ok(inode) = index.inode(number) else { continue };
        drop(index.lookup(number, b"f"));
        drop(index.names(number));
        drop(index.xattrs(inode.xattrs));
        drop(index.heap(inode.data, inode.size));
        let (first, count) = inode.dirents();
        for entry in first..first.saturating_add(count.min(16)) {
            drop(index.dirent(entry));
        }
    }
    let dir = tempfile::tempfile().unwrap();
    drop(merge(std::slice::from_ref(index), Limits::NONE, dir));
}

#[test]
fn names_of_one_hash_are_told_apart() {
    let (one, other, third) = ("costarring", "liquid", "macallums");
    assert_eq!(format::name_hash(one.as_bytes()), format::name_hash(other.as_bytes()));
    let found = |entries: &[&str], name: &str| {
        let (chain, _) = merged(&[tar_of(entries)]).unwrap();
        let inode = chain.lookup(ROOT, name.as_ref()).unwrap()?;
        Some(chain.attr(inode).unwrap().size)
    };
    let both = ["liquid=22", "macallums=333", "costarring=1"];
    assert_eq!([one, other, third].map(|name| found(&both, name)), [Some(1), Some(2), Some(3)]);
    assert_eq!(found(&both, "declinate"), None);
    for (is_there, is_not) in [(one, other), (other, one)] {
        let entries = [&format!("{is_there}=22")[..], "macallums=333"];
        assert_eq!(found(&entries, is_there), Some(2));
        assert_eq!(found(&entries, is_not), None);
    }
}
