//! FIFOs, sockets, devices, and regular files made by mknod(2).

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;

use crate::common::{Who, everywhere, refused};

#[test]
fn a_fifo_joins_who_opens_it() {
    everywhere(|place| {
        fs::remove_file(place.path("dir/child")).unwrap();
        for name in ["fifo", "dir/child"] {
            mkfifo(&place.path(name), Mode::from_bits_truncate(0o600)).unwrap();
            assert!(place.stat(name).file_type().is_fifo());
            let path = place.path(name);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    File::options().write(true).open(&path).unwrap().write_all(b"through\n")
                });
                let mut text = String::new();
                File::open(&path).unwrap().read_to_string(&mut text).unwrap();
                assert_eq!(text, "through\n");
            });
        }
        assert_eq!(place.stat("fifo").len(), 0);
        fs::rename(place.path("fifo"), place.path("empty/fifo")).unwrap();
        fs::set_permissions(place.path("empty/fifo"), fs::Permissions::from_mode(0o622)).unwrap();
        assert_eq!(place.stat("empty/fifo").mode(), 0o010_622);
        assert_eq!(refused(mkfifo(&place.path("empty/fifo"), Mode::S_IRUSR)), Errno::EEXIST);
        if !place.is_theirs() {
            // Else it is the image's root's, and the kernel lets nobody link to another's FIFO
            // (sysctl fs.protected_hardlinks).
            fs::hard_link(place.path("empty/fifo"), place.path("again")).unwrap();
            assert_eq!(place.stat("again").nlink(), 2);
        }
        fs::remove_file(place.path("empty/fifo")).unwrap();
    });
}

#[test]
fn a_socket_takes_connections_by_its_name() {
    everywhere(|place| {
        // A socket's address has 107 bytes at most, so it is reached by way of the directory.
        let dir = File::open(place.path("dir")).unwrap();
        let at = |name: &str| format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
        let listener = UnixListener::bind(at("socket")).unwrap();
        assert!(place.stat("dir/socket").file_type().is_socket());
        assert_eq!(refused(UnixListener::bind(at("socket"))), Errno::EADDRINUSE);
        assert_eq!(refused(UnixListener::bind(at("child"))), Errno::EADDRINUSE);
        let mut client = UnixStream::connect(at("socket")).unwrap();
        client.write_all(b"hello").unwrap();
        let mut greeting = [0; 5];
        listener.accept().unwrap().0.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"hello");
        assert_eq!(refused(File::open(place.path("dir/socket"))), Errno::ENXIO);
        fs::rename(at("socket"), at("moved")).unwrap();
        UnixStream::connect(at("moved")).unwrap();
        // A command that another test is starting may hold the socket until its exec.
        shutdown(listener.as_raw_fd(), Shutdown::Both).unwrap();
        assert_eq!(refused(UnixStream::connect(at("moved"))), Errno::ECONNREFUSED);
        assert_eq!(refused(UnixStream::connect(at("child"))), Errno::ECONNREFUSED);
    });
}

#[test]
fn devices_keep_their_numbers_and_can_change_all_else() {
    everywhere(|place| {
        if place.who == Who::User {
            // The kernel lets nobody else make them, which create.rs shows.
            return;
        }
        let all = Mode::from_bits_truncate(0o666);
        for (name, kind, device) in [
            ("null", SFlag::S_IFCHR, makedev(1, 3)),
            ("block", SFlag::S_IFBLK, makedev(7, 300)),
            ("big", SFlag::S_IFCHR, makedev(511, 70_000)),
        ] {
            mknod(&place.path(name), kind, all, device).unwrap();
            chown(place.path(name), Some(5), Some(6)).unwrap();
            fs::set_permissions(place.path(name), fs::Permissions::from_mode(0o620)).unwrap();
            fs::rename(place.path(name), place.path("dir").join(name)).unwrap();
            let stat = place.stat(&format!("dir/{name}"));
            assert_eq!((stat.rdev(), stat.uid(), stat.gid()), (device, 5, 6), "{name}");
            assert_eq!(stat.mode(), kind.bits() | 0o620, "{name}");
        }
        // What a mount with `dev` opens is the machine's device.
        let mut null = File::options().read(true).write(true).open(place.path("dir/null")).unwrap();
        assert_eq!(null.write(b"into the void").unwrap(), 13);
        assert_eq!(null.read(&mut [0; 9]).unwrap(), 0);
        fs::remove_file(place.path("dir/null")).unwrap();
        assert_eq!(place.names("dir"), ["big", "block", "child", "sub"]);
    });
}

#[test]
fn mknod_makes_a_regular_file_too() {
    everywhere(|place| {
        let make =
            |name: &str, kind| mknod(&place.path(name), kind, Mode::from_bits_truncate(0o640), 0);
        make("new", SFlag::S_IFREG).unwrap();
        let stat = place.stat("new");
        assert_eq!((stat.mode(), stat.len(), stat.nlink()), (0o100_640, 0, 1));
        fs::write(place.path("new"), "content\n").unwrap();
        make("socket", SFlag::S_IFSOCK).unwrap();
        assert!(place.stat("socket").file_type().is_socket());
        assert_eq!(refused(make("file", SFlag::S_IFREG)), Errno::EEXIST);
        assert_eq!(refused(make("dir", SFlag::S_IFREG)), Errno::EEXIST);
        assert_eq!(refused(make("missing/new", SFlag::S_IFREG)), Errno::ENOENT);
        assert_eq!(refused(make("other", SFlag::S_IFDIR)), Errno::EPERM);
        assert_eq!(place.text("file"), "content\n");
    });
}
