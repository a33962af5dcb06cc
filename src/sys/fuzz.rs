//! What fuzzing asks of the system besides: files that are nowhere, and a process that can write to
//! one folder only.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// Returns an empty file that has no name and no place on a disk.
pub(crate) fn memory_file() -> io::Result<File> {
    let fd = nix::sys::memfd::memfd_create(c"fuzz", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
    Ok(fd.into())
}

// Linux, include/uapi/linux/landlock.h.
const RULE_PATH_BENEATH: libc::c_int = 1;
const WRITE_FILE: u64 = 1 << 1;
/// Removing and making entries of directories, of whatever kind, moving them, and cutting files off.
const CHANGE_DIRS: u64 = (1 << 15) - (1 << 4);
const TRUNCATE: u64 = 1 << 14;
const WRITING: u64 = WRITE_FILE | CHANGE_DIRS;

#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
}

#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: i32,
}

/// Lets this process, for ever, change nothing but what is below these folders: whatever else it tries
/// is `EACCES`, for root too.
///
/// # Errors
/// `ENOSYS` and `EOPNOTSUPP` when the kernel has no Landlock (Linux 6.2 and later have what is needed).
pub(crate) fn write_only_below(folders: &[&Path]) -> io::Result<()> {
    let attr = RulesetAttr { handled_access_fs: WRITING };
    // SAFETY: the call reads the structure, of the size that it is told, and returns a new descriptor
    // or an error.
    let ruleset = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, size_of_val(&attr), 0)
    };
    let ruleset = i32::try_from(ruleset).map_err(io::Error::other)?;
    if ruleset < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
    let ruleset = unsafe { OwnedFd::from_raw_fd(ruleset) };
    for folder in folders {
        let folder = File::open(folder)?;
        let is_dir = folder.metadata()?.is_dir();
        let allowed_access = if is_dir { WRITING } else { WRITE_FILE | TRUNCATE };
        let rule = PathBeneathAttr { allowed_access, parent_fd: folder.as_raw_fd() };
        // SAFETY: the call reads the structure, and both descriptors are open.
        let added = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                ruleset.as_raw_fd(),
                RULE_PATH_BENEATH,
                &raw const rule,
                0,
            )
        };
        if added != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    nix::sys::prctl::set_no_new_privs()?;
    // SAFETY: the call takes numbers, and the descriptor is open.
    let restricted =
        unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
    if restricted == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a FIFO.
pub(crate) fn make_fifo(path: &Path) -> io::Result<()> {
    Ok(nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU)?)
}
