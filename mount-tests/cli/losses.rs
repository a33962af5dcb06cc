//! A disk that fails below a mount that syncs nothing.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use nix::unistd::{fdatasync, fsync};

use crate::common::{Session, Who, run, succeed};

/// A file system on a disk that has less room than it says: `disk/file`, mounted at `disk/mounted`.
struct Disk {
    session: Session,
    filler: PathBuf,
}

impl Disk {
    fn new() -> Self {
        let session = Session::new(Who::Root);
        for name in ["low", "merged", "disk"] {
            session.dir(name);
        }
        let disk = session.path("disk");
        let mount = |arguments: &[&str], target: &str| {
            fs::create_dir_all(session.path(target)).unwrap();
            succeed(Command::new("mount").args(arguments).arg(session.path(target)));
        };
        mount(&["-t", "tmpfs", "-o", "size=16m", "none"], "disk");
        File::create(disk.join("file")).unwrap().set_len(128 << 20).unwrap();
        let mut format = Command::new("mkfs.ext4");
        succeed(format.args(["-q", "-O", "^has_journal"]).arg(disk.join("file")));
        let file = disk.join("file").display().to_string();
        mount(&["-o", "loop,errors=continue", &file], "disk/mounted");
        for name in ["upper", "work"] {
            session.dir(&format!("disk/mounted/{name}"));
        }
        Self { filler: disk.join("filler"), session }
    }

    fn options(&self, sync: &str) -> String {
        format!("lowerdir=low,upperdir=disk/mounted/upper,workdir=disk/mounted/work,{sync}")
    }

    fn mount(&self, sync: &str) -> PathBuf {
        self.session.run(&["overlay", "-o", &self.options(sync), "merged"]);
        self.session.path("merged")
    }

    /// Lets the disk fail from now on.
    fn fail(&self) {
        // It has what it has; there is no room for more.
        let everything = vec![1; 32 << 20];
        let error = fs::write(&self.filler, everything).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    }

    /// Lets it work again.
    fn mend(&self) {
        fs::remove_file(&self.filler).unwrap();
    }

    /// Has everything written back, as the kernel does in its own time.
    fn write_back(&self) {
        run(Command::new("sync").arg("-f").arg(self.session.path("disk/mounted")));
    }

    fn unmount(&self) {
        self.session.detach(&self.session.path("merged"));
    }
}

/// What a program is told that wants a file or directory synced.
fn sync(path: PathBuf) -> Result<(), nix::Error> {
    let file = File::open(path).unwrap();
    fdatasync(&file).and(fsync(&file))
}

#[test]
fn once_changes_are_lost_nothing_in_a_volatile_mount_can_be_synced() {
    let disk = Disk::new();
    let merged = disk.mount("volatile");
    fs::write(merged.join("before"), "before\n").unwrap();
    let open = File::options().create_new(true).write(true).open(merged.join("open")).unwrap();
    assert_eq!((sync(merged.join("before")), fsync(&open)), (Ok(()), Ok(())));
    disk.write_back();
    disk.fail();
    std::os::unix::fs::FileExt::write_all_at(&open, &vec![7; 1 << 20], 0).unwrap();
    disk.write_back();
    disk.mend();
    // Another file than the one whose content is lost, and so it stays.
    let lost = Err(nix::Error::EIO);
    assert_eq!(sync(merged.join("before")), lost);
    assert_eq!((fsync(&open), fdatasync(&open)), (lost, lost));
    drop(open);
    fs::write(merged.join("after"), "after\n").unwrap();
    assert_eq!((sync(merged.join("after")), sync(merged.clone())), (lost, lost));
    assert_eq!(fs::read_to_string(merged.join("after")).unwrap(), "after\n");
    disk.unmount();
    // The mark stays: who wants the upper again is told.
    let said = disk.session.refused(&["overlay", "-o", &disk.options("volatile"), "merged"]);
    assert!(said.contains("work/incompat/volatile"), "{said}");
}

#[test]
fn what_is_lost_after_it_was_closed_is_known_at_the_next_sync_and_at_the_end() {
    let disk = Disk::new();
    let merged = disk.mount("volatile");
    fs::write(merged.join("closed"), "").unwrap();
    disk.write_back();
    disk.fail();
    fs::write(merged.join("closed"), vec![7; 1 << 20]).unwrap();
    fs::write(merged.join("never"), vec![7; 1 << 20]).unwrap();
    disk.write_back();
    disk.mend();
    // The server still has it open.
    assert_eq!(sync(merged.clone()), Err(nix::Error::EIO));
    assert_eq!(sync(merged.join("closed")), Err(nix::Error::EIO));
    disk.unmount();
    let said = disk.session.refused(&["overlay", "-o", &disk.options("volatile"), "merged"]);
    assert!(said.contains("work/incompat/volatile"), "{said}");
}

#[test]
fn who_turns_syncing_off_is_not_told_of_losses() {
    let disk = Disk::new();
    let merged = disk.mount("fsync=0");
    disk.fail();
    fs::write(merged.join("file"), vec![7; 1 << 20]).unwrap();
    disk.write_back();
    assert_eq!(sync(merged.join("file")), Ok(()));
    disk.mend();
    disk.unmount();
    disk.mount("fsync=0");
    disk.unmount();
}
