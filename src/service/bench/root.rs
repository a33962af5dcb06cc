//! A root file system that is made: packages, each with its documentation, libraries, programs and lists.
//!
//! Two of three files have up to 4 KiB, one in a hundred more than 256 KiB, as in images of Debian. A
//! package is in one layer, as if one package after another was installed; some of its files are
//! changed by the next layer, and some files of the layer below are removed by it. Everything follows
//! from the numbers of the packages, so every machine makes the same tree.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::bench::{Numbers, Size};
use crate::layer::{Kind, TarMeta, whiteout};
use crate::service::bench::fixtures::Origin;
use crate::service::bench::made::{directory, file, meta};
use crate::service::bench::part::split;
use crate::service::copy::source::{Content, Empty, Visit};
use crate::service::error::{Result, io_error};

/// One layer of the tree.
pub(crate) struct RootLayer<'a> {
    pub(crate) size: &'a Size,
    pub(crate) number: usize,
    /// In the lowest layer: what can be started.
    pub(crate) program: Option<&'a HostProgram>,
}

/// Entries that a package has, about.
const PACKAGE_ENTRIES: u64 = 16;
/// Of so many files one is changed by the next layer, and one is removed.
const CHANGED: u64 = 40;
const REMOVED: u64 = 80;

impl Origin for RootLayer<'_> {
    fn show(&self, visit: &mut dyn Visit) -> Result<()> {
        let mut shown = Shown { visit, directories: HashSet::new() };
        let layers = self.size.layers as u64;
        let number = self.number as u64;
        if let Some(program) = self.program {
            program.show(&mut shown)?;
        }
        for package in 0..self.size.tree_entries / PACKAGE_ENTRIES {
            let from = package % layers;
            if from == number || (from + 1 == number) {
                shown.package(package, from + 1 == number)?;
            }
        }
        Ok(())
    }
}

/// Shows files, and before each the directories that lead to it.
struct Shown<'a> {
    visit: &'a mut dyn Visit,
    directories: HashSet<Vec<u8>>,
}

impl Shown<'_> {
    /// Shows what the layer of a package has of it, or the one above.
    fn package(&mut self, package: u64, is_above: bool) -> Result<()> {
        let name = format!("package-{package:04}");
        let mut numbers = Numbers::new(package);
        for (at, path) in paths(package, &name).iter().enumerate() {
            let size = size_of_file(&mut numbers);
            let number = package * PACKAGE_ENTRIES + at as u64;
            let mode = if path.contains("bin/") { 0o755 } else { 0o644 };
            if !is_above {
                // What the next layer has for this one too would be another content.
                self.file(path, mode, size, path.as_bytes())?;
            } else if number.is_multiple_of(CHANGED) {
                self.file(path, mode, size, format!("{path}, changed").as_bytes())?;
            } else if number % REMOVED == 1 {
                let (dir, name) = split(path.as_bytes());
                let marker = [dir, b"/", whiteout::PREFIX, name].concat();
                self.file(&String::from_utf8_lossy(&marker), 0o644, 0, b"")?;
            }
        }
        if is_above {
            return Ok(());
        }
        let library = format!("usr/lib/{name}");
        self.link(&format!("{library}/lib{package}.so"), &format!("lib{package}.so.1"))?;
        self.link(&format!("usr/share/doc/{name}/LICENSE"), "copyright")
    }

    fn file(&mut self, path: &str, mode: u32, size: u64, seed: &[u8]) -> Result<()> {
        self.lead_to(path)?;
        file(path, mode, size, seed, self.visit)
    }

    fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.lead_to(path)?;
        let meta = TarMeta { target: target.into(), ..meta(path, Kind::Symlink, 0o777) };
        self.visit.file(&meta, None, &mut Empty)
    }

    fn lead_to(&mut self, path: &str) -> Result<()> {
        for (at, _) in path.match_indices('/') {
            if self.directories.insert(path.as_bytes()[..at].to_vec()) {
                directory(&path[..at], self.visit)?;
            }
        }
        Ok(())
    }
}

/// Returns the regular files of a package.
fn paths(package: u64, name: &str) -> Vec<String> {
    let doc = format!("usr/share/doc/{name}");
    let library = format!("usr/lib/{name}");
    let info = format!("var/lib/packages/info/{name}");
    let mut paths = vec![
        format!("{doc}/copyright"),
        format!("{doc}/changelog.gz"),
        format!("{library}/lib{package}.so.1"),
        format!("{library}/module/init.py"),
        format!("{library}/module/main.py"),
        format!("{info}.list"),
        format!("{info}.md5sums"),
        format!("usr/bin/{name}"),
        format!("usr/share/man/man{}/{name}.1.gz", 1 + package % 8),
    ];
    if package.is_multiple_of(2) {
        paths.push(format!("etc/{name}.conf"));
        paths.push(format!("usr/share/locale/l{}/LC_MESSAGES/{name}.mo", package % 20));
    }
    paths
}

fn size_of_file(numbers: &mut Numbers) -> u64 {
    match numbers.below(100) {
        0..66 => numbers.below(4096),
        66..92 => 4096 + numbers.below(28 << 10),
        92..99 => (32 << 10) + numbers.below(224 << 10),
        _ => (256 << 10) + numbers.below(3 << 20),
    }
}

/// The shell of this machine and what it needs, so that it can be started in a tree that is made.
pub(crate) struct HostProgram {
    /// What to start, from the root of the tree.
    pub(crate) words: Vec<OsString>,
    files: Vec<PathBuf>,
}

impl HostProgram {
    /// Looks what the shell has in memory when it runs; none if that cannot be found out.
    pub(crate) fn shell() -> Option<Self> {
        const TELL: &str = "while read -r line; do echo \"$line\"; done < /proc/$$/maps";
        let mut command = Command::new("/bin/sh");
        let output = command.args(["-c", TELL]).stdin(Stdio::null()).output();
        match output {
            Ok(output) if output.status.success() => {
                Self::of_maps(&String::from_utf8_lossy(&output.stdout))
            }
            other => {
                tracing::debug!("the shell: {other:?}");
                None
            }
        }
    }

    /// Returns what a list of mappings says: the program first, then its libraries and their loader.
    fn of_maps(maps: &str) -> Option<Self> {
        let mut files: Vec<PathBuf> = Vec::new();
        for line in maps.lines() {
            // proc_pid_maps(5): the path is the sixth field.
            let path = line.split_ascii_whitespace().nth(5).filter(|path| path.starts_with('/'));
            let path = path.map(PathBuf::from);
            files.extend(path.filter(|path| !files.contains(path)));
        }
        let is_loader = |path: &&PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("ld-") || name.starts_with("ld.")
        };
        let program = files.first()?.clone();
        let mut words = Vec::new();
        if let Some(loader) = files.iter().find(is_loader) {
            // Where the program looks for its loader is a link that a tree of ours does not have.
            let dirs: HashSet<_> = files.iter().filter_map(|path| path.parent()).collect();
            let dirs: Vec<_> = dirs.into_iter().map(|dir| dir.as_os_str().to_owned()).collect();
            let path = dirs.join(OsString::from(":").as_os_str());
            words.extend([loader.clone().into_os_string(), "--library-path".into(), path]);
        }
        words.extend([program.into_os_string(), "-c".into(), ":".into()]);
        Some(Self { words, files })
    }

    fn show(&self, shown: &mut Shown<'_>) -> Result<()> {
        for path in &self.files {
            let name = path.display().to_string();
            let opened = File::open(path).map_err(io_error("open", &name))?;
            let size = opened.metadata().map_err(io_error("open", &name))?.len();
            let inner = name.trim_start_matches('/');
            shown.lead_to(inner)?;
            let meta = TarMeta { size, ..meta(inner, Kind::Regular, 0o755) };
            shown.visit.file(&meta, None, &mut HostFile { file: opened, at: 0 })?;
        }
        Ok(())
    }
}

/// A file of this machine.
struct HostFile {
    file: File,
    at: u64,
}

impl Content for HostFile {
    fn next(&mut self, buffer: &mut [u8]) -> Result<Option<(u64, usize)>> {
        let len = self.file.read_at(buffer, self.at).map_err(io_error("read", "a program"))?;
        let at = self.at;
        self.at += len as u64;
        Ok((len > 0).then_some((at, len)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::bench::part::{Part, PartWriter};

    #[test]
    fn a_shell_is_started_by_its_loader() {
        let maps = "55d0-55d4 r--p 00000000 fe:00 12 /usr/bin/dash\n\
                    55d4-55d8 rw-p 00000000 00:00 0 [heap]\n\
                    7f00-7f04 r--p 00000000 fe:00 13 /usr/lib/libc.so.6\n\
                    7f04-7f08 r-xp 00001000 fe:00 13 /usr/lib/libc.so.6\n\
                    7f08-7f10 r--p 00000000 fe:00 14 /usr/lib/ld-linux-x86-64.so.2\n";
        let program = HostProgram::of_maps(maps).unwrap();
        assert_eq!(program.files.len(), 3);
        assert_eq!(program.words[0], "/usr/lib/ld-linux-x86-64.so.2");
        assert_eq!(program.words.last().unwrap(), ":");
        assert!(program.words.contains(&"/usr/bin/dash".into()));
        let alone = HostProgram::of_maps("1-2 r--p 0 fe:00 1 /bin/busybox\n").unwrap();
        assert_eq!(alone.words, ["/bin/busybox", "-c", ":"]);
        assert!(HostProgram::of_maps("1-2 r--p 0 00:00 0\n").is_none());
    }

    #[test]
    fn a_tree_is_the_same_every_time() {
        let size = Size::parse("0.03").unwrap();
        let tar = |number| {
            let mut part = PartWriter::new(Vec::new(), Part::WHOLE);
            RootLayer { size: &size, number, program: None }.show(&mut part).unwrap();
            part.finish().unwrap()
        };
        let (first, second) = (tar(0), tar(1));
        assert!(first == tar(0) && first != second && second.len() > 10_000);
    }
}
