//! Root, and an ordinary user.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// The user and group `nobody` of Debian: it has a name, which fusermount3 asks for.
const NOBODY: u32 = 65534;

/// Who runs the program and works in the mount.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Who {
    Root,
    User,
}

impl Who {
    pub(crate) fn id(self) -> u32 {
        match self {
            Self::Root => 0,
            Self::User => NOBODY,
        }
    }

    /// Makes a command run as them.
    pub(crate) fn run(self, command: &mut Command) -> &mut Command {
        match self {
            Self::Root => command,
            // With a user id that std sets, it drops the groups too.
            Self::User => command.uid(NOBODY).gid(NOBODY),
        }
    }

    /// Calls `act` as them, in a thread of its own.
    pub(crate) fn act<R: Send>(self, act: impl FnOnce() -> R + Send) -> R {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                if self == Self::User {
                    become_nobody();
                }
                act()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// Makes this thread, and no other, run as nobody.
fn become_nobody() {
    for call in [libc::SYS_setgroups, libc::SYS_setresgid, libc::SYS_setresuid] {
        let id = if call == libc::SYS_setgroups { 0 } else { libc::c_long::from(NOBODY) };
        let done = set_credential(call, id);
        assert!(done, "mount tests run as root, which scripts/check sees to");
    }
}

/// Makes one of the calls that set credentials; those of the C library change all threads.
#[allow(unsafe_code, reason = "nothing safe changes the credentials of one thread")]
fn set_credential(call: libc::c_long, id: libc::c_long) -> bool {
    // SAFETY: the calls take numbers; setgroups with 0 of them does not read its list, which is null
    // or, for a list that is not read, any number.
    unsafe { libc::syscall(call, id, id, id) == 0 }
}
