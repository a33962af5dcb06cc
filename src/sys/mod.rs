//! System calls, and the only unsafe code.
//!
//! A wrapper is one call: it takes borrowed descriptors, returns owned ones, decides nothing, and
//! its error prints the call that was refused. This room knows nothing of Strata: no layer, no
//! store, no mount option of ours.
//!
//! Names of files are bytes (`&OsStr`). Nothing here follows a symbolic link in the last component
//! unless its name says so, and the rooms above walk by directory descriptor, so that a path inside
//! somebody's tree cannot lead out of it.
#![allow(unsafe_code, reason = "this is the room for it")]

mod child;
mod context;
mod cpu;
mod dir;
mod error;
mod extents;
mod fd;
mod fnmatch;
mod fs;
mod fuse;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod lock;
mod looker;
mod map;
mod mount;
mod process;
mod random;
mod ring;
mod shared;
mod socket;
mod terminal;
mod thread;
mod time;
mod verity;
mod watch;
mod xattr;

pub use child::{die_with_parent, kill, kill_group, lead_group, run_in_root};
pub use context::{MountContext, UnplacedMount, mount_overlay};
pub use cpu::{Cpus, check_cpu, pin_to_cpu};
pub use dir::{DirStream, RawEntry};
pub use error::{Errno, Error, Result, errno_of, is_no_room};
pub use extents::{Extent, extents};
pub use fd::{
    allocate, begin_write_back, check_written_back, clone_range, copy_range, dup, open,
    open_beneath, open_dir_path, open_path, open_plain, open_tmpfile, punch_flags, reopen,
    seek_data, seek_hole, sync_fs,
};
pub use fnmatch::fnmatch;
pub use fs::{
    RenameFlags, SetTime, Stat, StatFs, chmod, chown, exists, fstat, link, link_fd, lstat,
    make_dir, make_node, read_link, read_link_fd, remove_dir, rename, set_times, stat,
    stat_if_exists, statfs, symlink, truncate_fd, unlink,
};
pub use fuse::{close_backing, open_backing};
pub use lock::{is_owned, lock_exclusive, try_lock_exclusive, try_own};
pub use looker::Looker;
pub use map::MappedFile;
pub use mount::{MountFlags, Unmount, fusermount, mount_fuse, unmount};
pub use process::{
    Forked, become_session_leader, block_end_signals, block_interrupts, close_inherited,
    effective_ids, exit_at_once, fork, groups_of, keep_little_memory, null_stdio, pipe,
    process_start_ticks, raise_open_files_limit, return_freed_memory, set_umask,
    unblock_end_signals, wait_for_end_signal, wait_for_exit, wait_for_interrupt,
};
pub use random::random_bytes;
pub use ring::{CommandRing, SECOND_PART, SlotMemory};
pub use shared::{SharedMemory, memory_file};
pub use socket::{pass_descriptors, peer_user, take_descriptors};
pub use terminal::{Hidden, hide_typing, show_typing};
pub use thread::{InterruptingSignal, ThreadId};
pub use time::Time;
pub use verity::{VerityDigest, enable_verity, has_verity, measure_verity};
pub use watch::{
    Ended, Process, Woken, block_child_signal, close_all_but, ended, fork_sharing_files, inherit,
    open_descriptors, wait_for_child,
};
pub use xattr::{
    SetXattr, XattrTarget, get_xattr, list_xattr, remove_xattr, set_xattr, xattr_if_set,
};

/// File type bits and types of `st_mode`, and device numbers, as Linux has them.
pub mod mode {
    /// Mask of the file type bits.
    pub const TYPE: u32 = libc::S_IFMT;
    /// A regular file.
    pub const REGULAR: u32 = libc::S_IFREG;
    /// A directory.
    pub const DIRECTORY: u32 = libc::S_IFDIR;
    /// A symbolic link.
    pub const SYMLINK: u32 = libc::S_IFLNK;
    /// A character device.
    pub const CHARACTER: u32 = libc::S_IFCHR;
    /// A block device.
    pub const BLOCK: u32 = libc::S_IFBLK;
    /// A FIFO.
    pub const FIFO: u32 = libc::S_IFIFO;
    /// A socket.
    pub const SOCKET: u32 = libc::S_IFSOCK;
    /// The bits that chmod can change: permissions, set-uid, set-gid and sticky.
    pub const PERMISSIONS: u32 = 0o7777;
    /// Set-uid.
    pub const SET_UID: u32 = libc::S_ISUID;
    /// Set-gid.
    pub const SET_GID: u32 = libc::S_ISGID;
    /// Both.
    pub const SET_IDS: u32 = SET_UID | SET_GID;
}

/// Flags of open(2), as the rooms above need them.
pub mod open_flags {
    /// A directory, to be read.
    pub const DIRECTORY: i32 = libc::O_RDONLY | libc::O_DIRECTORY;
    /// A directory, as a place to start from.
    pub const DIRECTORY_PATH: i32 = libc::O_PATH | libc::O_DIRECTORY;
    /// A file that must not exist yet, open for reading and writing.
    pub const CREATE_NEW: i32 = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
    /// For reading.
    pub const READ: i32 = libc::O_RDONLY;
    /// For reading what is one's own, without a change of its time of access and without waiting.
    pub const READ_UNSEEN: i32 = libc::O_RDONLY | libc::O_NOATIME | libc::O_NONBLOCK;
    /// For reading and writing.
    pub const READ_WRITE: i32 = libc::O_RDWR;

    /// Tells whether flags are those of who reads and writes.
    pub const fn is_read_write(flags: i32) -> bool {
        flags & libc::O_ACCMODE == libc::O_RDWR
    }

    /// Tells whether a `whence` of lseek(2) looks for data, and not for a hole.
    pub const fn seeks_data(whence: i32) -> bool {
        whence == libc::SEEK_DATA
    }
}

/// Returns the device number of `major` and `minor`.
pub fn make_device(major: u32, minor: u32) -> u64 {
    libc::makedev(major, minor)
}

/// Returns the major and minor number of a device number.
pub fn split_device(device: u64) -> (u32, u32) {
    (libc::major(device), libc::minor(device))
}
