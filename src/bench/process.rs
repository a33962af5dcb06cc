//! Processes that serve mounts, found by the path of the mount, and what they take.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::bench::error::io_error;
use crate::bench::{Error, Result};

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// What belongs to it alone and cannot be dropped: written pages.
    pub(crate) written: u64,
    /// That, and pages of files that nobody else has mapped, which the kernel may drop.
    pub(crate) private: u64,
}

impl std::ops::AddAssign for Memory {
    fn add_assign(&mut self, other: Self) {
        self.written += other.written;
        self.private += other.private;
    }
}

/// Returns the processes, but for this one and those above it, that were started with a path at or
/// below a directory as a word.
pub(crate) fn serving_below(dir: &Path) -> Vec<i32> {
    let own = [std::process::id(), std::os::unix::process::parent_id()];
    let entries = fs::read_dir("/proc").map(|entries| entries.flatten().collect::<Vec<_>>());
    let pids = entries.unwrap_or_default().into_iter();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let serves = |pid: &u32| {
        // A process that is gone, or that has none, has no words.
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| is_below(word, dir.as_os_str().as_bytes()))
    };
    let others = pids.filter(|pid| !own.contains(pid)).filter(serves);
    others.filter_map(|pid| i32::try_from(pid).ok()).collect()
}

fn is_below(word: &[u8], dir: &[u8]) -> bool {
    word.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// Tells whether a process works: it is there, and has not ended without anybody asking for its code.
pub(crate) fn is_running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // proc_pid_stat(5): the state follows the name, which is in parentheses.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    match state {
        None => false,
        // Its first thread has ended; others may be about to, and have its files open.
        Some('Z' | 'X') => {
            fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() > 1)
        }
        Some(_) => true,
    }
}

/// Returns the memory that some processes take together.
pub(crate) fn memory_of(pids: &[i32]) -> Result<Memory> {
    let mut sum = Memory::default();
    for pid in pids {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).map_err(io_error("read", &path))?;
        sum += parse(&text).ok_or_else(|| Error::Wrong {
            what: path,
            expected: "Private_Clean and Private_Dirty".to_owned(),
            found: text,
        })?;
    }
    Ok(sum)
}

fn parse(text: &str) -> Option<Memory> {
    let clean = kilobytes(text, "Private_Clean:")? * 1024;
    let written = kilobytes(text, "Private_Dirty:")? * 1024;
    Some(Memory { written, private: clean + written })
}

/// Returns the number of a line of /proc: `Cached:   12 kB`.
pub(crate) fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_no_other_process_has() {
        let text = "55e0-7ffd ---p 00000000 00:00 0 [rollup]\nRss: 9000 kB\nShared_Clean: 10 kB\n\
                    Private_Clean:       100 kB\nPrivate_Dirty:        28 kB\n";
        assert_eq!(parse(text), Some(Memory { written: 28 * 1024, private: 128 * 1024 }));
        assert_eq!(parse("Rss: 1 kB\n"), None);
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(memory_of(&[own]).unwrap().written > 0);
        assert!(is_running(own) && !is_running(i32::MAX));
    }

    #[test]
    fn a_process_serves_what_it_was_started_with() {
        assert!(is_below(b"/a/b", b"/a/b") && is_below(b"/a/b/c", b"/a/b"));
        assert!(!is_below(b"/a/bc", b"/a/b") && !is_below(b"x/a/b", b"/a/b"));
    }
}
