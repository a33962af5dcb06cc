//! What machine this is.

use std::fs;
use std::path::Path;

/// A machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Release of the kernel: `6.18.0`.
    pub kernel: String,
    /// Name of the distribution.
    pub system: String,
    /// The kernel's name of the architecture: `x86_64`.
    pub architecture: &'static str,
    /// How many processors there are.
    pub processors: usize,
    /// Memory in bytes.
    pub memory: u64,
    /// Name of the machine.
    pub name: String,
}

impl Machine {
    /// Returns the one that this runs on; what is not known is empty.
    pub fn here() -> Self {
        let line = |path: &str| text(path).trim().to_owned();
        Self {
            kernel: line("/proc/sys/kernel/osrelease"),
            system: value_of(&text("/etc/os-release"), "PRETTY_NAME="),
            architecture: std::env::consts::ARCH,
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory(&text("/proc/meminfo")),
            name: line("/proc/sys/kernel/hostname"),
        }
    }

    /// Returns major and minor number of the kernel.
    pub(crate) fn kernel_version(&self) -> (u32, u32) {
        let mut numbers = self.kernel.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }
}

/// Returns a small file, empty where there is none.
pub(crate) fn text(path: impl AsRef<Path>) -> String {
    match fs::read_to_string(path.as_ref()) {
        Ok(text) => text,
        Err(error) => {
            tracing::debug!("{}: {error}", path.as_ref().display());
            String::new()
        }
    }
}

fn value_of(text: &str, key: &str) -> String {
    let value = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    value.trim_matches('"').to_owned()
}

fn memory(meminfo: &str) -> u64 {
    let kilobytes = value_of(meminfo, "MemTotal:");
    kilobytes.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_machine_are_read() {
        assert_eq!(memory("MemTotal:       16291840 kB\nMemFree: 1 kB\n"), 16_291_840 * 1024);
        let release = "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n";
        assert_eq!(value_of(release, "PRETTY_NAME="), "Debian GNU/Linux 12");
        let machine = Machine { kernel: "6.18.0-rc1".to_owned(), ..Machine::here() };
        assert_eq!(machine.kernel_version(), (6, 18));
    }
}
