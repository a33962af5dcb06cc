//! Processors: which there are, and running on one of them.

use std::fs;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::sys::error::check;
use crate::sys::{Error, Result};

/// The processors of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpus {
    /// Those that there can ever be.
    pub possible: Vec<u16>,
    /// Those that run.
    pub online: Vec<u16>,
}

impl Cpus {
    /// Asks the kernel.
    ///
    /// # Errors
    /// `ENOENT` where sysfs is not mounted.
    pub fn read() -> Result<Self> {
        let list = |name: &str| {
            let path = format!("/sys/devices/system/cpu/{name}");
            let text = fs::read_to_string(&path);
            let text = text.map_err(|error| Error::from_io(format!("read({path:?})"), &error))?;
            Ok(numbers(&text))
        };
        Ok(Self { possible: list("possible")?, online: list("online")? })
    }
}

/// Returns the numbers of a list: `0-3,8`.
fn numbers(list: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

/// Checks that the calling thread may run on a processor.
///
/// # Errors
/// `EINVAL` when it is not online, or the process may not use it.
pub fn check_cpu(cpu: u16) -> Result<()> {
    let own = Pid::from_raw(0);
    let before = check(sched_getaffinity(own), || "sched_getaffinity()")?;
    let pinned = pin_to_cpu(cpu);
    check(sched_setaffinity(own, &before), || "sched_setaffinity()")?;
    pinned
}

/// Has the calling thread run on one processor only.
///
/// # Errors
/// `EINVAL` when it is not online, or the process may not use it.
pub fn pin_to_cpu(cpu: u16) -> Result<()> {
    let mut set = CpuSet::new();
    let pinned = set.set(cpu.into()).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    check(pinned, || format!("sched_setaffinity({cpu})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_processors_is_read() {
        assert_eq!(numbers("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(numbers("0\n"), [0]);
        assert!(numbers("\n").is_empty());
        let cpus = Cpus::read().unwrap();
        assert!(!cpus.online.is_empty());
        assert!(cpus.online.iter().all(|cpu| cpus.possible.contains(cpu)));
        check_cpu(*cpus.online.last().unwrap()).unwrap();
        assert!(check_cpu(u16::MAX).is_err());
        pin_to_cpu(*cpus.online.last().unwrap()).unwrap();
        assert!(pin_to_cpu(u16::MAX).is_err());
    }
}
