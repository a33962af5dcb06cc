//! A mount that checks what it hands out gives an error, and never other bytes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::common::{Session, Who, damage, noise, object_of, overwrite, stored};

fn content() -> Vec<u8> {
    noise(50_000)
}

/// Makes an image of a large file, another one, and a small one.
fn import(session: &Session) {
    let tree = session.dir("tree");
    fs::write(tree.join("file"), content()).unwrap();
    fs::write(tree.join("other"), noise(70_000)).unwrap();
    fs::write(tree.join("small"), "content\n").unwrap();
    session.run(&["import", "tree", "demo:1"]);
}

fn read(session: &Session, path: &Path) -> Result<Vec<u8>, Option<i32>> {
    session.who.act(|| fs::read(path).map_err(|error: io::Error| error.raw_os_error()))
}

/// Returns what the server of the only mount had to say.
fn log(session: &Session) -> String {
    let logs = stored(session, "containers").into_iter().filter(|path| path.ends_with("log"));
    logs.map(|path| fs::read_to_string(session.path("store").join(path)).unwrap()).collect()
}

#[test]
fn what_is_damaged_is_an_error_and_a_line_in_the_log() {
    for who in [Who::Root, Who::User] {
        for how in [
            &["--verify=open", "demo:1"][..],
            &["--verify=always", "demo:1"],
            &["-o", "verify=open", "--rw", "demo:1"],
            &["--verify", "always", "--rw", "--transport=dev-fuse", "demo:1"],
        ] {
            let session = Session::new(who);
            import(&session);
            let object = object_of(&session, &content());
            damage(&object);
            let target = session.dir("mnt");
            let at = target.to_str().unwrap();
            session.run(&[&["mount"], how, &[at]].concat());
            for _ in 0..2 {
                assert_eq!(read(&session, &target.join("file")), Err(Some(libc::EIO)), "{how:?}");
            }
            assert_eq!(read(&session, &target.join("other")), Ok(noise(70_000)));
            assert_eq!(read(&session, &target.join("small")), Ok(b"content\n".to_vec()));
            let log = log(&session);
            let line = log.lines().find(|line| line.contains("it is part of demo:1"));
            let line = line.unwrap_or_else(|| panic!("{how:?}: {log}"));
            assert!(line.contains(object.file_name().unwrap().to_str().unwrap()), "{line}");
            session.unmount(at);
        }
    }
}

#[test]
fn a_damaged_file_is_not_copied_up() {
    let session = Session::new(Who::Root);
    import(&session);
    damage(&object_of(&session, &content()));
    let target = session.dir("mnt");
    let at = target.to_str().unwrap();
    session.run(&["mount", "--verify=open", "--rw", "--name", "work", "demo:1", at]);
    let file = target.join("file");
    let error = File::options().write(true).open(&file).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    // What needs no content is done, and a part of a content is one.
    fs::rename(&file, target.join("moved")).unwrap();
    let cut = |len: u64| {
        use std::os::unix::ffi::OsStrExt;
        let path = std::ffi::CString::new(target.join("moved").as_os_str().as_bytes()).unwrap();
        truncate(&path, len).map_err(|error| error.raw_os_error())
    };
    assert_eq!(cut(10), Err(Some(libc::EIO)));
    assert_eq!(cut(0), Ok(()));
    session.unmount(at);
}

#[allow(unsafe_code, reason = "the standard library cuts only what is open")]
fn truncate(path: &std::ffi::CStr, len: u64) -> io::Result<()> {
    // SAFETY: the path is a string that ends with a zero.
    match unsafe { libc::truncate(path.as_ptr(), libc::off_t::try_from(len).unwrap()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[test]
fn what_changes_while_it_is_mounted_is_noticed_by_the_next_who_opens_it() {
    for verify in ["open", "always"] {
        for rw in [&[][..], &["--rw"]] {
            let session = Session::new(Who::User);
            import(&session);
            let target = session.dir("mnt");
            let at = target.to_str().unwrap();
            let option = format!("--verify={verify}");
            session.run(&[&["mount", &option], rw, &["demo:1", at]].concat());
            let file = target.join("file");
            assert_eq!(read(&session, &file), Ok(content()));
            assert_eq!(read(&session, &file), Ok(content()));
            // Who has it open already has what was checked then; the next is told what is there now.
            let held = session.who.act(|| File::open(&file).unwrap());
            let object = object_of(&session, &content());
            damage(&object);
            assert_eq!(read(&session, &file), Err(Some(libc::EIO)), "{verify} {rw:?}");
            drop(held);
            // Mended, it is handed out again.
            overwrite(&object, &content());
            assert_eq!(read(&session, &file), Ok(content()));
            session.unmount(at);
        }
    }
}

#[test]
fn what_is_in_an_index_is_checked_when_it_is_mounted() {
    let session = Session::new(Who::User);
    import(&session);
    let target = session.dir("mnt");
    let at = target.to_str().unwrap();
    for file in stored(&session, "layers").iter().filter(|path| path.extension().unwrap() == "idx")
    {
        let path = session.path("store").join(file);
        let good = fs::read(&path).unwrap();
        // The small content is in its heap.
        let mut bad = good.clone();
        let heap = bad.windows(8).position(|bytes| bytes == b"content\n").unwrap();
        bad[heap] = b'C';
        overwrite(&path, &bad);
        let said = session.refused(&["mount", "--verify=open", "demo:1", at]);
        assert!(said.contains(file.to_str().unwrap()) && said.contains("checksum"), "{said}");
        session.run(&["mount", "demo:1", at]);
        assert_eq!(read(&session, &target.join("small")), Ok(b"Content\n".to_vec()));
        session.unmount(at);
        overwrite(&path, &good);
    }
    // A chain is made again.
    damage(&session.path("store").join(&stored(&session, "chains")[0]));
    session.run(&["mount", "--verify=open", "demo:1", at]);
    assert_eq!(read(&session, &target.join("file")), Ok(content()));
    session.unmount(at);
    assert_eq!(session.try_run(&["fsck"]).code, 0);
}

#[test]
fn many_who_open_a_file_at_once_are_all_told_the_same() {
    const READERS: usize = 16;
    let session = Session::new(Who::Root);
    import(&session);
    let target = session.dir("mnt");
    let at = target.to_str().unwrap();
    session.run(&["mount", "--verify=open", "demo:1", at]);
    damage(&object_of(&session, &content()));
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                for _ in 0..20 {
                    let opened = File::open(target.join("file"));
                    let error = opened.and_then(|file| file.read_at(&mut [0; 10], 0)).unwrap_err();
                    assert_eq!(error.raw_os_error(), Some(libc::EIO));
                    assert_eq!(fs::read(target.join("other")).unwrap(), noise(70_000));
                }
            });
        }
    });
    session.unmount(at);
}

#[test]
fn a_wrong_word_is_refused() {
    let session = Session::new(Who::User);
    import(&session);
    let target = session.dir("mnt");
    for option in ["--verify=often", "-overify=often"] {
        let said = session.refused(&["mount", option, "demo:1", target.to_str().unwrap()]);
        assert!(said.contains("expected verify=open, always or off"), "{said}");
    }
}
