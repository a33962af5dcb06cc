//! From a tar to a layer and back.

use super::*;

#[test]
fn tars_of_gnu_tar_come_back_bit_for_bit_in_every_format() {
    let dir = odd_tree();
    for args in [
        &["--format=gnu", "-c", "."][..],
        &["--format=gnu", "-S", "-c", "."],
        &["--format=oldgnu", "-S", "-c", "."],
        &["--format=posix", "-c", "."],
        &["--format=posix", "-S", "--sparse-version=0.0", "-c", "."],
        &["--format=posix", "-S", "--sparse-version=0.1", "-c", "."],
        &["--format=posix", "-S", "--sparse-version=1.0", "-c", "."],
        &["--format=posix", "--blocking-factor=1", "-c", "."],
        &["--format=ustar", "-c", "empty", "s1", "s4097", "hard", "fifo", "large"],
        &["--format=v7", "-c", "empty", "s1", "s4097", "hard", "large"],
        &["-P", "-c", "--transform=s,^,/abs/../x//,", "s1", "large"],
    ] {
        let tar = run_tar(dir.path(), args);
        let layer = round_trip(&tar);
        let files = list(&layer.index);
        for (name, size) in [("s1", 1), ("s4097", 4097), ("large", 3 << 20)] {
            let listed = files.iter().any(|line| {
                line.contains(&format!("{name} Regular")) && { line.contains(&format!(" {size} ")) }
            });
            assert!(listed || (name == "s4097" && args.contains(&"-P")), "{args:?}: {files:?}");
        }
    }
}

#[test]
fn sparse_files_have_the_content_that_gnu_tar_would_extract() {
    let dir = odd_tree();
    let expected = std::fs::read(dir.path().join("sparse")).unwrap();
    for args in [
        &["--format=gnu", "-S", "-c", "sparse", "hole"][..],
        &["--format=posix", "-S", "--sparse-version=0.0", "-c", "sparse", "hole"],
        &["--format=posix", "-S", "--sparse-version=0.1", "-c", "sparse", "hole"],
        &["--format=posix", "-S", "--sparse-version=1.0", "-c", "sparse", "hole"],
    ] {
        let tar = run_tar(dir.path(), args);
        assert!(tar.len() < 400_000, "{args:?} did not make a sparse archive");
        let layer = round_trip(&tar);
        let objects = layer.objects.objects();
        assert!(objects.contains_key(&Digest::of(&expected)), "{args:?}");
        assert!(objects.contains_key(&Digest::of(&vec![0; 2 << 20])), "{args:?}");
    }
}

#[test]
fn odd_paths_lead_to_the_same_tree_and_come_back() {
    let tar =
        tar_of(&["./", "./a/", "../b=up", "/c/d=abs", "e//f=2", "a/../g=lexical", "h/./i=dot"]);
    let layer = round_trip(&tar);
    assert_eq!(
        list(&layer.index),
        [
            ". dir 755 0:0",
            "a dir 755 0:0",
            "b Regular 644 0:0 2 x1",
            "c dir 755 0:0 implicit",
            "c/d Regular 644 0:0 3 x1",
            "e dir 755 0:0 implicit",
            "e/f Regular 644 0:0 1 x1",
            "g Regular 644 0:0 7 x1",
            "h dir 755 0:0 implicit",
            "h/i Regular 644 0:0 3 x1",
        ]
    );
}

#[test]
fn later_entries_of_a_layer_replace_earlier_ones() {
    let tar = tar_of(&[
        "dup=first",
        "dup=second!",
        "d/",
        "d/kept=1",
        "d/",
        "gone/",
        "gone/x=1",
        "gone=file",
        "f=1",
        "f/",
        "l->d",
        "l/through=1",
    ]);
    assert_eq!(
        list(&round_trip(&tar).index),
        [
            ". dir 755 0:0 implicit",
            "d dir 755 0:0",
            "d/kept Regular 644 0:0 1 x1",
            "d/through Regular 644 0:0 1 x1",
            "dup Regular 644 0:0 7 x1",
            "f dir 755 0:0 opaque",
            "gone Regular 644 0:0 4 x1",
            "l Symlink 777 0:0 1 x1",
        ]
    );
}

#[test]
fn whiteouts_hide_lower_layers_and_not_their_own() {
    let tar = tar_of(&[
        ".wh.gone=",
        "same=1",
        ".wh.same=",
        "dir/",
        "dir/new=1",
        ".wh.dir=",
        ".wh.later=",
        "later/",
        "opq/",
        "opq/.wh..wh..opq=",
        ".wh..wh.plnk/",
        ".wh..wh.plnk/1=x",
    ]);
    assert_eq!(
        list(&round_trip(&tar).index),
        [
            ". dir 755 0:0 implicit",
            "dir dir 755 0:0 opaque",
            "dir/new Regular 644 0:0 1 x1",
            "gone whiteout",
            "later dir 755 0:0 opaque",
            "opq dir 755 0:0 opaque",
            "same Regular 644 0:0 1 x1",
        ]
    );
}

#[test]
fn hard_links_share_an_inode_across_the_layer() {
    let layer =
        round_trip(&tar_of(&["a/", "a/x=text", "b/y=>a/x", "z=>./b/y", "z=>z", "s->a/x", "h=>s"]));
    assert_eq!(
        list(&layer.index),
        [
            ". dir 755 0:0 implicit",
            "a dir 755 0:0",
            "a/x Regular 644 0:0 4 x3",
            "b dir 755 0:0 implicit",
            "b/y Regular 644 0:0 4 x3",
            "h Symlink 777 0:0 3 x2",
            "s Symlink 777 0:0 3 x2",
            "z Regular 644 0:0 4 x3",
        ]
    );
}

#[test]
fn entries_that_cannot_be_are_refused_by_name() {
    let long = format!("{}=x", "n".repeat(256));
    for (entries, reason) in [
        (&["file=1", "file/below=2"][..], "\"file/below\" cannot be represented: what should be"),
        (&[".wh.="], "a whiteout without a name"),
        (&["d/.wh..="], "a whiteout of its own directory"),
        (&["/->x"], "its path is that of the root"),
        (&["d/", "l=>d"], "a hard link to a directory"),
        (&["s->"], "a symbolic link without a target"),
        (&[&long], "a name of 256 bytes"),
    ] {
        let error = unpack_bytes(&tar_of(entries)).err().expect(reason).to_string();
        assert!(error.contains(reason), "{entries:?}: {error}");
    }
}

#[test]
fn damaged_tars_are_refused_with_the_place() {
    let tar = tar_of(&["a=text", "b=more"]);
    let mut wrong_sum = tar.clone();
    wrong_sum[0] = b'z';
    let mut lone_zeros = tar[..1024].to_vec();
    lone_zeros.extend([0; 512]);
    lone_zeros.extend(&tar[..1024]);
    for (bytes, reason) in [
        (&tar[..100], "it ends inside a block at byte 100"),
        (&tar[..514], "it ends inside an entry at byte 512"),
        (&wrong_sum, "the checksum of a header is wrong at byte 512"),
        (&lone_zeros, "a single block of zeros lies between its entries"),
    ] {
        let error = unpack_bytes(bytes).err().expect(reason).to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn an_archive_may_end_early_or_late() {
    let tar = tar_of(&["a=text"]);
    round_trip(&[]);
    round_trip(&[0; 512]);
    round_trip(&tar[..1024]);
    // Without the padding behind the content, and with some of it.
    round_trip(&tar[..516]);
    round_trip(&tar[..600]);
    round_trip(&[&tar[..], &[0; 5000], b"garbage behind the end"].concat());
}

#[test]
fn extension_records_are_heeded_in_their_order() {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |entry_type, data: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(entry_type);
        header.set_path("short").unwrap();
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data).unwrap();
    };
    let records = [
        record(b"path", b"long/\xff\xfe"),
        record(b"mtime", b"1350244992.023960108"),
        record(b"uid", b"3000000000"),
        record(b"SCHILY.xattr.user.x", b"a\0b"),
        record(b"SCHILY.xattr.security.capability", b"\x01\0\0\x02"),
    ];
    add(tar::EntryType::XGlobalHeader, &record(b"comment", b"ignored"));
    add(tar::EntryType::XHeader, &records.concat());
    add(tar::EntryType::Regular, b"text");
    let tar = builder.into_inner().unwrap();
    let (chain, _) = merged(&[tar]).unwrap();
    let dir = chain.lookup(ROOT, "long".as_ref()).unwrap().unwrap();
    let name = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff\xfe");
    let file = chain.lookup(dir, name).unwrap().unwrap();
    let attr = chain.attr(file).unwrap();
    assert_eq!((attr.uid, attr.size), (3_000_000_000, 4));
    assert_eq!(attr.mtime, Time { secs: 1_350_244_992, nanos: 23_960_108 });
    let xattrs = chain.xattrs(file).unwrap();
    assert_eq!(xattrs[0], ("security.capability".as_ref(), &b"\x01\0\0\x02"[..]));
    assert_eq!(xattrs[1], ("user.x".as_ref(), &b"a\0b"[..]));
    assert_eq!(chain.content(file).unwrap(), Content::Inline(b"text"));
}

#[test]
fn xattrs_and_devices_survive_writing_and_reading() {
    let mut writer = TarWriter::new(Vec::new());
    let device = crate::sys::make_device(8, 300);
    let xattrs = BTreeMap::from([(b"user.k".to_vec(), b"v\n=".to_vec())]);
    let node = TarMeta { device, xattrs, mode: 0o4660, ..meta("dev", Kind::Block) };
    writer.entry(&node).unwrap();
    writer.entry(&meta("pipe", Kind::Fifo)).unwrap();
    assert!(writer.entry(&meta("sock", Kind::Socket)).is_err());
    let (chain, _) = merged(&[writer.finish().unwrap()]).unwrap();
    let inode = chain.lookup(ROOT, "dev".as_ref()).unwrap().unwrap();
    let attr = chain.attr(inode).unwrap();
    assert_eq!((attr.rdev, attr.mode), (device, 0o064_660));
    assert_eq!(chain.xattrs(inode).unwrap(), [("user.k".as_ref(), &b"v\n="[..])]);
}

#[test]
fn a_reader_of_single_bytes_gives_the_same_layer() {
    struct Dribble(Cursor<Vec<u8>>);
    impl Read for Dribble {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = buffer.len().min(1);
            self.0.read(&mut buffer[..len])
        }
    }
    let tar = tar_of(&["a=text", "b->a"]);
    let files =
        LayerFiles { index: tempfile::tempfile().unwrap(), recipe: tempfile::tempfile().unwrap() };
    let reader = Dribble(Cursor::new(tar.clone()));
    let unpacked = unpack(reader, files, &mut Memory::default()).unwrap();
    assert_eq!(unpacked.diff_id.0, Digest::of(&tar));
}

#[test]
fn regression_a_sparse_map_without_an_end_is_not_read_into_memory() {
    let mut builder = tar::Builder::new(Vec::new());
    let records = [record(b"GNU.sparse.major", b"1"), record(b"GNU.sparse.realsize", b"9")];
    for (entry_type, size, data) in [
        (tar::EntryType::XHeader, records.concat().len() as u64, records.concat()),
        (tar::EntryType::Regular, 1 << 40, Vec::new()),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(entry_type);
        header.set_path("file").unwrap();
        header.set_size(size);
        header.set_cksum();
        builder.append(&header, &data[..]).unwrap();
    }
    let mut head = builder.into_inner().unwrap();
    // Without the blocks of zeros that end an archive.
    head.truncate(head.len() - 1024);
    let tar = Cursor::new(head).chain(io::repeat(b'1').take(1 << 20));
    let files =
        LayerFiles { index: tempfile::tempfile().unwrap(), recipe: tempfile::tempfile().unwrap() };
    match unpack(tar, files, &mut Memory::default()).unwrap_err() {
        Error::Tar { offset, .. } => assert!(offset < 8192, "{offset}"),
        error => panic!("{error}"),
    }
}
