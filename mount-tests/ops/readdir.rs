//! Listing directories.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};

use strata::sys::DirStream;

use crate::common::{Layer, Place, Session, Who, everywhere};

fn stream(place: &Place, dir: &str) -> DirStream {
    DirStream::new(File::open(place.path(dir)).unwrap()).unwrap()
}

/// Reads on to the end; each name with its number and type.
fn rest(stream: &mut DirStream) -> Vec<(String, u64, u8)> {
    let mut entries = Vec::new();
    while let Some(entry) = stream.next_entry().unwrap() {
        entries.push((entry.name.to_str().unwrap().to_owned(), entry.ino, entry.kind));
    }
    entries
}

fn rest_of_names(stream: &mut DirStream) -> BTreeSet<String> {
    let entries = rest(stream);
    let names: BTreeSet<_> = entries.iter().map(|(name, ..)| name.clone()).collect();
    assert_eq!(names.len(), entries.len(), "a name comes twice");
    names
}

#[test]
fn a_listing_tells_the_numbers_and_types_that_stat_tells() {
    everywhere(|place| {
        symlink("nowhere", place.path("dir/dangling")).unwrap();
        nix::unistd::mkfifo(&place.path("dir/fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        for dir in ["", "dir", "dir/sub", "empty"] {
            assert_numbers_agree(place, dir);
        }
        // Copied up, renamed and linked files keep telling the same.
        fs::write(place.path("dir/child"), "changed\n").unwrap();
        fs::rename(place.path("dir/sub"), place.path("dir/moved")).unwrap();
        fs::hard_link(place.path("file"), place.path("dir/linked")).unwrap();
        for dir in ["", "dir", "dir/moved"] {
            assert_numbers_agree(place, dir);
        }
    });
}

fn assert_numbers_agree(place: &Place, dir: &str) {
    let entries = rest(&mut stream(place, dir));
    let listed: BTreeMap<_, _> =
        entries.iter().map(|(name, ino, kind)| (&**name, (*ino, *kind))).collect();
    assert_eq!(listed.len(), entries.len());
    for (name, (ino, kind)) in listed {
        let stat = place.stat(format!("{dir}/{name}").trim_start_matches('/'));
        assert_eq!(ino, stat.ino(), "{dir}/{name}");
        let expected = match stat.file_type() {
            kind if kind.is_dir() => libc::DT_DIR,
            kind if kind.is_symlink() => libc::DT_LNK,
            kind if kind.is_fifo() => libc::DT_FIFO,
            _ => libc::DT_REG,
        };
        assert_eq!(kind, expected, "{dir}/{name}");
    }
}

#[test]
fn a_listing_has_each_name_and_dot_and_dot_dot_once() {
    everywhere(|place| {
        let names: Vec<_> = rest_of_names(&mut stream(place, "dir")).into_iter().collect();
        assert_eq!(names, [".", "..", "child", "sub"]);
        fs::write(place.path("dir/child"), "changed\n").unwrap();
        fs::write(place.path("dir/new"), "").unwrap();
        fs::remove_file(place.path("dir/sub/grandchild")).unwrap();
        fs::remove_dir(place.path("dir/sub")).unwrap();
        assert_eq!(place.names("dir"), ["child", "new"]);
        fs::rename(place.path("dir/new"), place.path("dir/sub")).unwrap();
        assert_eq!(place.names("dir"), ["child", "sub"]);
        assert_eq!(place.names(""), ["dir", "empty", "file", "hard", "large", "link"]);
    });
}

#[test]
fn a_position_leads_back_to_where_it_was_taken() {
    everywhere(|place| {
        for number in 0..50 {
            fs::write(place.path(&format!("dir/file-{number}")), "").unwrap();
        }
        let mut dir = stream(place, "dir");
        let mut positions = vec![0];
        while let Some(entry) = dir.next_entry().unwrap() {
            positions.push(entry.next);
        }
        dir.seek(0).unwrap();
        let all = rest(&mut dir);
        assert_eq!(all.len(), 54);
        for (at, position) in positions.iter().enumerate().rev() {
            dir.seek(*position).unwrap();
            assert_eq!(rest(&mut dir), all[at..], "from entry {at}");
        }
    });
}

#[test]
fn a_rewound_listing_shows_what_has_changed() {
    everywhere(|place| {
        let mut dir = stream(place, "dir");
        assert_eq!(rest_of_names(&mut dir).len(), 4);
        fs::write(place.path("dir/new"), "").unwrap();
        fs::remove_file(place.path("dir/child")).unwrap();
        dir.seek(0).unwrap();
        let names: Vec<_> = rest_of_names(&mut dir).into_iter().collect();
        assert_eq!(names, [".", "..", "new", "sub"]);
    });
}

#[test]
fn three_thousand_entries_are_listed_and_removed() {
    everywhere(|place| {
        if matches!(place.layer, Layer::Upper | Layer::Both) {
            // What this makes is in the upper wherever the rest is.
            return;
        }
        fs::create_dir(place.path("dir/many")).unwrap();
        let name = |number| format!("a-name-of-some-length-{number:04}");
        for number in 0..3_000 {
            fs::hard_link(place.path("large"), place.path(&format!("dir/many/{}", name(number))))
                .unwrap();
        }
        assert_eq!(place.stat("large").nlink(), 3_001);
        let expected: Vec<_> = (0..3_000).map(name).collect();
        assert_eq!(place.names("dir/many"), expected);
        // Removing what was just read, as rm does, leaves nothing out.
        for entry in fs::read_dir(place.path("dir/many")).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        assert_eq!(place.names("dir/many"), [""; 0]);
        assert_eq!(place.stat("large").nlink(), 1);
    });
}

#[test]
fn what_stays_is_listed_once_while_other_names_come_and_go() {
    everywhere(|place| {
        let path =
            |what: &str, number| place.path("dir").join(what.to_owned() + &long_name(number));
        for number in 0..100 {
            File::create(path("stays", number)).unwrap();
            File::create(path("goes", number)).unwrap();
        }
        let mut dir = stream(place, "dir");
        let mut seen = BTreeSet::new();
        while let Some(entry) = dir.next_entry().unwrap() {
            let name = entry.name.to_str().unwrap().to_owned();
            assert!(seen.insert(name.clone()), "{name} comes twice");
            let number = seen.len() - 1;
            if number < 100 {
                fs::remove_file(path("goes", number)).unwrap();
                File::create(path("comes", number)).unwrap();
            }
        }
        assert_eq!(seen.iter().filter(|name| name.starts_with("stays")).count(), 100);
        for name in [".", "..", "child", "sub"] {
            assert!(seen.contains(name), "{name}");
        }
    });
}

/// A name of which few fit into what is read at once.
fn long_name(number: usize) -> String {
    format!("{number:04}-{}", "n".repeat(200))
}

#[test]
fn regression_a_listing_of_one_leaves_nothing_out_for_another() {
    // The kernel kept what one handle had listed, and gave it to another at a position that meant
    // something else there: after a removal `rm -r` left files behind.
    everywhere(|place| {
        for number in 0..500 {
            File::create(place.path("dir").join(long_name(number))).unwrap();
        }
        assert_eq!(place.names("dir").len(), 502);
        let mut dir = stream(place, "dir");
        let mut seen = BTreeSet::new();
        for _ in 0..20 {
            seen.insert(dir.next_entry().unwrap().unwrap().name.to_str().unwrap().to_owned());
        }
        for number in 0..100 {
            fs::remove_file(place.path("dir").join(long_name(number))).unwrap();
        }
        assert_eq!(place.names("dir").len(), 402);
        seen.append(&mut rest_of_names(&mut dir));
        let stayed: Vec<_> =
            (100..500).map(long_name).filter(|name| !seen.contains(name)).collect();
        assert_eq!(stayed, [""; 0]);
    });
}

#[test]
fn regression_a_listing_of_the_image_goes_on_while_it_is_changed() {
    // Names that came into the upper shifted the positions of those of the lower.
    for who in [Who::Root, Who::User] {
        let session = Session::new(who);
        let (image, target) = (session.dir("image"), session.dir("mount"));
        who.act(|| {
            fs::create_dir(image.join("dir")).unwrap();
            for number in 0..500 {
                fs::write(image.join("dir").join(long_name(number)), "").unwrap();
            }
        });
        session.run(&["import", image.to_str().unwrap(), "test/image"]);
        session.run(&["create", "--name", "test", "test/image"]);
        session.run(&["mount", "test", target.to_str().unwrap()]);
        let target = target.join("dir");
        who.act(|| {
            let mut dir = DirStream::new(File::open(&target).unwrap()).unwrap();
            let mut seen =
                vec![dir.next_entry().unwrap().unwrap().name.to_str().unwrap().to_owned()];
            for number in 0..50 {
                fs::write(target.join(long_name(number)), "copied up").unwrap();
                fs::write(target.join(format!("new-{number}")), "").unwrap();
                fs::remove_file(target.join(long_name(499 - number))).unwrap();
            }
            seen.extend(rest(&mut dir).into_iter().map(|(name, ..)| name));
            // Of those that were removed, some were read before.
            seen.retain(|name| name.ends_with("nnn") && *name < long_name(450));
            seen.sort();
            assert!(seen == (0..450).map(long_name).collect::<Vec<_>>(), "{} names", seen.len());
        });
    }
}
