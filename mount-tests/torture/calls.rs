//! The system calls that can change files, and a filter that stops a traced program at them.
//!
//! The numbers are those of the machine that the tests are built for. What is not in the list is never
//! noticed: a call that is new to the program has to be added here.

use std::io;

use libc::{c_long, sock_filter};

/// Where a call says which file it changes, by the number of the argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// A descriptor.
    Fd(usize),
    /// A path, from the current directory.
    Path(usize),
    /// A directory and a path; without path, the directory is the file.
    At(usize, usize),
    /// Two paths.
    Paths(usize, usize),
    /// A directory and a path, twice.
    Ats([usize; 4]),
    /// Nothing: all files.
    All,
}

/// When a call is one of those that are stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Always,
    /// An argument has one of these bits.
    Bits(usize, u32),
    /// An argument is one of these.
    Is(usize, &'static [u32]),
}

/// What becomes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is opened, and perhaps made.
    Open,
    /// Its content changes.
    Write,
    /// A name, or what is said of a file, changes.
    Name,
    /// It is made durable.
    Sync,
    /// It is locked.
    Lock,
}

/// A system call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) number: c_long,
    pub(crate) kind: Kind,
    pub(crate) names: Names,
    pub(crate) when: When,
}

const fn call(name: &'static str, number: c_long, kind: Kind, names: Names) -> Call {
    Call { name, number, kind, names, when: When::Always }
}

/// O_CREAT, O_TRUNC, and the bit of O_TMPFILE that is not O_DIRECTORY.
#[allow(clippy::cast_sign_loss, reason = "bits")]
const MAKES: u32 = (libc::O_CREAT | libc::O_TRUNC | (libc::O_TMPFILE & !libc::O_DIRECTORY)) as u32;

/// FICLONE and FICLONERANGE.
const CLONES: &[u32] = &[0x4004_9409, 0x4020_940d];

/// F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW.
const LOCKS: &[u32] = &[6, 7, 37, 38];

/// All of them, on every machine.
const CALLS: &[Call] = &[
    Call {
        when: When::Bits(2, MAKES),
        ..call("openat", libc::SYS_openat, Kind::Open, Names::At(0, 1))
    },
    call("openat2", libc::SYS_openat2, Kind::Open, Names::At(0, 1)),
    call("write", libc::SYS_write, Kind::Write, Names::Fd(0)),
    call("pwrite64", libc::SYS_pwrite64, Kind::Write, Names::Fd(0)),
    call("writev", libc::SYS_writev, Kind::Write, Names::Fd(0)),
    call("pwritev", libc::SYS_pwritev, Kind::Write, Names::Fd(0)),
    call("pwritev2", libc::SYS_pwritev2, Kind::Write, Names::Fd(0)),
    call("sendfile", libc::SYS_sendfile, Kind::Write, Names::Fd(0)),
    call("splice", libc::SYS_splice, Kind::Write, Names::Fd(2)),
    call("copy_file_range", libc::SYS_copy_file_range, Kind::Write, Names::Fd(2)),
    call("ftruncate", libc::SYS_ftruncate, Kind::Write, Names::Fd(0)),
    call("truncate", libc::SYS_truncate, Kind::Write, Names::Path(0)),
    call("fallocate", libc::SYS_fallocate, Kind::Write, Names::Fd(0)),
    Call { when: When::Is(1, CLONES), ..call("ioctl", libc::SYS_ioctl, Kind::Write, Names::Fd(0)) },
    call("mkdirat", libc::SYS_mkdirat, Kind::Name, Names::At(0, 1)),
    call("mknodat", libc::SYS_mknodat, Kind::Name, Names::At(0, 1)),
    call("symlinkat", libc::SYS_symlinkat, Kind::Name, Names::At(1, 2)),
    call("linkat", libc::SYS_linkat, Kind::Name, Names::Ats([0, 1, 2, 3])),
    call("unlinkat", libc::SYS_unlinkat, Kind::Name, Names::At(0, 1)),
    call("renameat2", libc::SYS_renameat2, Kind::Name, Names::Ats([0, 1, 2, 3])),
    call("fchmod", libc::SYS_fchmod, Kind::Name, Names::Fd(0)),
    call("fchmodat", libc::SYS_fchmodat, Kind::Name, Names::At(0, 1)),
    call("fchmodat2", libc::SYS_fchmodat2, Kind::Name, Names::At(0, 1)),
    call("fchown", libc::SYS_fchown, Kind::Name, Names::Fd(0)),
    call("fchownat", libc::SYS_fchownat, Kind::Name, Names::At(0, 1)),
    call("utimensat", libc::SYS_utimensat, Kind::Name, Names::At(0, 1)),
    call("setxattr", libc::SYS_setxattr, Kind::Name, Names::Path(0)),
    call("lsetxattr", libc::SYS_lsetxattr, Kind::Name, Names::Path(0)),
    call("fsetxattr", libc::SYS_fsetxattr, Kind::Name, Names::Fd(0)),
    call("removexattr", libc::SYS_removexattr, Kind::Name, Names::Path(0)),
    call("lremovexattr", libc::SYS_lremovexattr, Kind::Name, Names::Path(0)),
    call("fremovexattr", libc::SYS_fremovexattr, Kind::Name, Names::Fd(0)),
    call("fsync", libc::SYS_fsync, Kind::Sync, Names::Fd(0)),
    call("fdatasync", libc::SYS_fdatasync, Kind::Sync, Names::Fd(0)),
    call("syncfs", libc::SYS_syncfs, Kind::Sync, Names::Fd(0)),
    call("sync", libc::SYS_sync, Kind::Sync, Names::All),
    call("sync_file_range", libc::SYS_sync_file_range, Kind::Sync, Names::Fd(0)),
    call("flock", libc::SYS_flock, Kind::Lock, Names::Fd(0)),
    Call { when: When::Is(1, LOCKS), ..call("fcntl", libc::SYS_fcntl, Kind::Lock, Names::Fd(0)) },
];

/// Those that newer machines do without.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[Call] = &[
    Call { when: When::Bits(1, MAKES), ..call("open", libc::SYS_open, Kind::Open, Names::Path(0)) },
    call("creat", libc::SYS_creat, Kind::Open, Names::Path(0)),
    call("mkdir", libc::SYS_mkdir, Kind::Name, Names::Path(0)),
    call("mknod", libc::SYS_mknod, Kind::Name, Names::Path(0)),
    call("symlink", libc::SYS_symlink, Kind::Name, Names::Path(1)),
    call("link", libc::SYS_link, Kind::Name, Names::Paths(0, 1)),
    call("unlink", libc::SYS_unlink, Kind::Name, Names::Path(0)),
    call("rmdir", libc::SYS_rmdir, Kind::Name, Names::Path(0)),
    call("rename", libc::SYS_rename, Kind::Name, Names::Paths(0, 1)),
    call("renameat", libc::SYS_renameat, Kind::Name, Names::Ats([0, 1, 2, 3])),
    call("chmod", libc::SYS_chmod, Kind::Name, Names::Path(0)),
    call("chown", libc::SYS_chown, Kind::Name, Names::Path(0)),
    call("lchown", libc::SYS_lchown, Kind::Name, Names::Path(0)),
    call("utime", libc::SYS_utime, Kind::Name, Names::Path(0)),
    call("utimes", libc::SYS_utimes, Kind::Name, Names::Path(0)),
    call("futimesat", libc::SYS_futimesat, Kind::Name, Names::At(0, 1)),
];

#[cfg(target_arch = "aarch64")]
const OLD_CALLS: &[Call] =
    &[call("renameat", libc::SYS_renameat, Kind::Name, Names::Ats([0, 1, 2, 3]))];

/// Which of the calls are stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those that can change something.
    Changes,
    /// Those, and every opening of a file.
    ChangesAndOpens,
}

impl Which {
    /// Returns the calls.
    pub(crate) fn calls(self) -> Vec<Call> {
        let mut calls = [CALLS, OLD_CALLS].concat();
        if self == Self::ChangesAndOpens {
            for call in calls.iter_mut().filter(|call| call.kind == Kind::Open) {
                call.when = When::Always;
            }
        }
        calls
    }

    /// Returns a filter for `install`.
    pub(crate) fn filter(self) -> Vec<sock_filter> {
        let mut program =
            vec![load(ARCH_AT), jump(libc::BPF_JEQ, ARCH, 1, 0), give(libc::SECCOMP_RET_ALLOW)];
        program.push(load(NUMBER_AT));
        for call in self.calls() {
            program.extend(call.stop());
        }
        program.push(give(libc::SECCOMP_RET_ALLOW));
        program
    }
}

// Where `struct seccomp_data` has what.
const NUMBER_AT: u32 = 0;
const ARCH_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

/// The machine, as linux/audit.h numbers it.
#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

impl Call {
    /// Tells whether such a call with these arguments can change something.
    pub(crate) fn changes(&self, arguments: &[u64]) -> bool {
        let mut calls = CALLS.iter().chain(OLD_CALLS);
        match calls.find(|call| call.number == self.number).map(|call| call.when) {
            Some(When::Bits(argument, bits)) => arguments[argument] & u64::from(bits) != 0,
            _ => true,
        }
    }

    /// Returns what stops the program at this call; another one goes on behind it.
    fn stop(&self) -> Vec<sock_filter> {
        let [stop, pass] = [libc::SECCOMP_RET_TRACE, libc::SECCOMP_RET_ALLOW].map(give);
        let mut then = Vec::new();
        match self.when {
            When::Always => then.push(stop),
            When::Bits(argument, bits) => {
                then.push(load_argument(argument));
                then.extend([jump(libc::BPF_JSET, bits, 0, 1), stop, pass]);
            }
            When::Is(argument, values) => {
                then.push(load_argument(argument));
                for value in values {
                    then.extend([jump(libc::BPF_JEQ, *value, 0, 1), stop]);
                }
                then.push(pass);
            }
        }
        let number = u32::try_from(self.number).expect("numbers of calls are small");
        let behind = u8::try_from(then.len()).expect("few instructions");
        then.insert(0, jump(libc::BPF_JEQ, number, 0, behind));
        then
    }
}

fn instruction(code: u32, k: u32) -> sock_filter {
    sock_filter { code: u16::try_from(code).expect("codes are small"), jt: 0, jf: 0, k }
}

fn load(at: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at)
}

fn load_argument(number: usize) -> sock_filter {
    load(ARGUMENTS_AT + 8 * u32::try_from(number).expect("there are six"))
}

fn jump(test: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { jt, jf, ..instruction(libc::BPF_JMP | libc::BPF_K | test, k) }
}

fn give(answer: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, answer)
}

/// Has this process stopped at calls, from now on and with all that it begins. Allocates nothing, so
/// that it can be called between fork and exec.
#[allow(unsafe_code, reason = "nothing safe installs a filter")]
pub(crate) fn install(filter: &[sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the program points to as many instructions as it says, which are only read.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
