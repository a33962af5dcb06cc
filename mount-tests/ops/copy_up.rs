//! What is copied from the lower, and who waits for it.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::{Session, Who};

/// A mount of plain directories, whose upper can be looked at.
struct Stack {
    session: Session,
    merged: PathBuf,
}

impl Stack {
    fn new(files: &[&str], size: usize) -> Self {
        let session = Session::new(Who::Root);
        for name in ["upper", "work", "merged"] {
            session.dir(name);
        }
        for name in files {
            fs::write(session.dir("low").join(name), vec![b'x'; size]).unwrap();
        }
        let options = "lowerdir=low,upperdir=upper,workdir=work,metacopy=on";
        session.run(&["overlay", "-o", options, "merged"]);
        let merged = session.path("merged");
        Self { session, merged }
    }

    /// Returns how many bytes a file of the upper takes on the disk.
    fn taken(&self, name: &str) -> u64 {
        let metadata = fs::symlink_metadata(self.session.path("upper").join(name)).unwrap();
        if metadata.is_file() { metadata.blocks() * 512 } else { 0 }
    }
}

#[test]
fn content_that_nobody_will_read_is_not_copied() {
    const SIZE: usize = 4 << 20;
    let names =
        ["removed", "replaced", "opened", "cut", "shortened", "chmod", "times", "from", "xattr"];
    let stack = Stack::new(&names, SIZE);
    let at = |name: &str| stack.merged.join(name);
    fs::remove_file(at("removed")).unwrap();
    fs::rename(at("from"), at("replaced")).unwrap();
    drop(File::create(at("opened")).unwrap());
    nix::unistd::truncate(&at("cut"), 0).unwrap();
    nix::unistd::truncate(&at("shortened"), 8_192).unwrap();
    fs::set_permissions(at("chmod"), fs::Permissions::from_mode(0o600)).unwrap();
    File::open(at("times")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    xattr::set(at("xattr"), "user.note", b"x").unwrap();
    for name in names.into_iter().filter(|name| *name != "from") {
        let taken = stack.taken(name);
        // An attribute may take a block.
        assert!(taken <= 8_192 + 4_096, "{name}: {taken} bytes");
    }
    for name in ["chmod", "times", "xattr", "replaced"] {
        assert_eq!(fs::read(at(name)).unwrap().len(), SIZE, "{name}");
    }
    File::options().write(true).open(at("chmod")).unwrap().write_all_at(b"y", 0).unwrap();
    assert!(stack.taken("chmod") >= SIZE as u64);
}

#[test]
fn nobody_waits_while_another_file_is_copied() {
    let stack = Stack::new(&["large", "small"], 256 << 20);
    let is_copied = AtomicBool::new(false);
    let looked = std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = File::options().write(true).open(stack.merged.join("large")).unwrap();
            file.write_all_at(b"y", 0).unwrap();
            is_copied.store(true, Ordering::SeqCst);
        });
        let mut looked = 0;
        while !is_copied.load(Ordering::SeqCst) {
            // Names that nobody has asked for, so that the server is asked each time.
            let missing = stack.merged.join(format!("missing-{looked}"));
            assert!(fs::symlink_metadata(missing).is_err());
            looked += 1;
        }
        looked
    });
    assert!(looked >= 20, "{looked} lookups were answered while a file was copied");
}
