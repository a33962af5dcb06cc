//! Names: any bytes but `/` and zero, up to 255 of them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use nix::errno::Errno;

use crate::common::{everywhere, refused};

#[test]
fn a_name_has_up_to_255_bytes() {
    everywhere(|place| {
        let (longest, longer) = ("n".repeat(255), "n".repeat(256));
        let below = |dir: &str, name: &str| place.path(dir).join(name);
        fs::write(below("dir", &longest), "long\n").unwrap();
        assert_eq!(fs::read_to_string(below("dir", &longest)).unwrap(), "long\n");
        fs::create_dir(below("empty", &longest)).unwrap();
        fs::rename(below("dir", &longest), below("empty", &longest).join(&longest)).unwrap();
        symlink("x", below("dir", &longest)).unwrap();
        fs::remove_file(below("dir", &longest)).unwrap();

        let too_long = below("dir", &longer);
        assert_eq!(refused(fs::metadata(&too_long)), Errno::ENAMETOOLONG);
        assert_eq!(refused(fs::write(&too_long, "")), Errno::ENAMETOOLONG);
        assert_eq!(refused(fs::create_dir(&too_long)), Errno::ENAMETOOLONG);
        assert_eq!(refused(symlink("x", &too_long)), Errno::ENAMETOOLONG);
        assert_eq!(refused(fs::remove_file(&too_long)), Errno::ENAMETOOLONG);
        assert_eq!(refused(fs::hard_link(place.path("file"), &too_long)), Errno::ENAMETOOLONG);
        assert_eq!(refused(fs::rename(place.path("file"), &too_long)), Errno::ENAMETOOLONG);
        let path = format!("{}file", "./".repeat(2_048));
        assert_eq!(refused(fs::metadata(place.path(&path))), Errno::ENAMETOOLONG);
        assert_eq!(place.names("dir"), ["child", "sub"]);
    });
}

#[test]
fn a_name_is_bytes_and_not_text() {
    everywhere(|place| {
        let names: [&[u8]; 12] = [
            b"\xff\xfe",
            b"\xc3\x28",
            b"line\nbreak",
            b"tab\tand space ",
            b" ",
            b"-rf",
            b"*?[]",
            b"back\\slash",
            b"...",
            b".hidden",
            "e\u{301}".as_bytes(),
            "\u{e9}".as_bytes(),
        ];
        for (number, name) in names.iter().enumerate() {
            let name = OsStr::from_bytes(name);
            let [file, dir] = ["dir", "empty"].map(|above| place.path(above).join(name));
            fs::write(&file, number.to_string()).unwrap();
            fs::create_dir(&dir).unwrap();
            fs::hard_link(&file, dir.join(name)).unwrap();
            assert_eq!(refused(File::create_new(&file)), Errno::EEXIST);
        }
        for (number, name) in names.iter().enumerate() {
            let file = place.path("dir").join(OsStr::from_bytes(name));
            assert_eq!(fs::read_to_string(&file).unwrap(), number.to_string());
        }
        let listed = fs::read_dir(place.path("empty")).unwrap();
        let mut listed: Vec<_> = listed.map(|entry| entry.unwrap().file_name()).collect();
        listed.sort();
        let mut expected = names.map(|name| OsStr::from_bytes(name).to_owned());
        expected.sort();
        assert_eq!(listed, expected);
        for name in &names[..4] {
            fs::remove_file(place.path("dir").join(OsStr::from_bytes(name))).unwrap();
        }
    });
}

#[test]
fn names_that_mean_something_in_an_image_are_names_in_a_mount() {
    everywhere(|place| {
        for name in [".wh.file", ".wh..wh..opq", ".wh.", "#0", "work", "links-1"] {
            fs::write(place.path(name), "ordinary\n").unwrap();
            fs::create_dir(place.path("dir").join(name)).unwrap();
            assert_eq!(place.text(name), "ordinary\n");
        }
        assert_eq!(place.text("file"), "content\n");
        assert_eq!(place.text("dir/child"), "child\n");
        assert!(place.names("").contains(&".wh.file".to_owned()));
        fs::remove_file(place.path(".wh.file")).unwrap();
        assert_eq!(place.text("file"), "content\n");
        fs::remove_file(place.path("file")).unwrap();
        fs::rename(place.path(".wh..wh..opq"), place.path("file")).unwrap();
        assert_eq!(place.text("file"), "ordinary\n");
    });
}

#[test]
fn dots_and_nothing_are_no_new_names() {
    everywhere(|place| {
        assert_eq!(place.text("./dir/./sub/../child"), "child\n");
        assert_eq!(place.text("dir/../empty/.././file"), "content\n");
        assert_eq!(refused(fs::create_dir(place.path("dir/."))), Errno::EEXIST);
        assert_eq!(refused(fs::create_dir(place.path("dir/.."))), Errno::EEXIST);
        assert_eq!(refused(fs::remove_file(place.path("dir/.."))), Errno::EISDIR);
        assert_eq!(refused(fs::rename(place.path("."), place.path("x"))), Errno::EBUSY);
        assert_eq!(refused(fs::metadata("")), Errno::ENOENT);
        assert_eq!(refused(fs::metadata(place.path("dir//child/"))), Errno::ENOTDIR);
        assert_eq!(place.text("dir///child"), "child\n");
    });
}
