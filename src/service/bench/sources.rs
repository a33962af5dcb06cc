//! Sources of a program that is made, in a directory, with a history of git.

use std::ffi::OsStr;
use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::bench::{ARCHIVE, Numbers, SOURCE, Size};
use crate::service::bench::fixtures::HostTree;
use crate::service::bench::fixtures::Origin;
use crate::service::bench::part::{Part, PartWriter};
use crate::service::error::{Error, Result, io_error};

/// Files of a directory, and of so many one is a header.
const IN_EACH: u64 = 40;
const HEADERS: u64 = 10;

/// What was made.
pub(crate) struct Sources {
    /// The directory with the directory of the sources, for a layer.
    pub(crate) top: PathBuf,
    /// The sources as a tar, without their history.
    pub(crate) archive: PathBuf,
    /// Why there is no history.
    pub(crate) no_history: Option<String>,
}

/// Makes sources in an empty directory.
pub(crate) fn make(dir: &Path, size: &Size) -> Result<Sources> {
    let top = dir.join("top");
    write_sources(&top.join(SOURCE), size)?;
    let archive = dir.join(ARCHIVE);
    let shown = archive.display().to_string();
    let file = File::create(&archive).map_err(io_error("make", &shown))?;
    let mut tar = PartWriter::new(file, Part::WHOLE);
    HostTree { top: &top, skip: &[] }.show(&mut tar)?;
    tar.finish()?;
    let no_history = match commit(&top.join(SOURCE)) {
        Err(Error::Io { action: "start", source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            Some("there is no program git".to_owned())
        }
        other => other.map(|()| None)?,
    };
    Ok(Sources { top, archive, no_history })
}

fn write_sources(dir: &Path, size: &Size) -> Result<()> {
    let write = |path: &Path, text: &str| {
        let parent = path.parent().unwrap_or(dir);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(path, text))
            .map_err(io_error("write", path.display().to_string()))
    };
    let headers = (size.sources / HEADERS).max(1);
    for number in 0..headers {
        write(&dir.join(format!("include/header{number:03}.h")), &header(number))?;
    }
    for number in headers..size.sources {
        let module = number / IN_EACH;
        let path = dir.join(format!("lib/module{module:03}/file{number:04}.c"));
        write(&path, &source(number, headers))?;
    }
    write(&dir.join("README"), "Sources that were made to measure file systems with.\n")
}

fn header(number: u64) -> String {
    let mut text = format!("#ifndef HEADER{number:03}_H\n#define HEADER{number:03}_H\n\n");
    text.push_str("#include <stddef.h>\n#include <stdint.h>\n\n");
    let mut line = |item: u64| {
        writeln!(text, "struct record{number}_{item} {{ uint64_t key; char name[{}]; }};", item + 8)
    };
    (0..40).try_for_each(&mut line).expect("a string can be written to");
    text.push_str("\n#endif\n");
    text
}

/// Returns a file of some functions that use a few headers.
fn source(number: u64, headers: u64) -> String {
    let mut numbers = Numbers::new(number);
    let mut text = String::new();
    let mut used: Vec<u64> = (0..6).map(|_| numbers.below(headers)).collect();
    used.sort_unstable();
    used.dedup();
    for header in &used {
        text.push_str(&format!("#include \"header{header:03}.h\"\n"));
    }
    for function in 0..20 {
        let record = format!("record{}_{}", used[0], numbers.below(40));
        let factor = 1 + numbers.below(1000);
        text.push_str(&format!(
            "\n/* Adds the keys of records up, each {factor} times. */\n\
             uint64_t sum{number}_{function}(const struct {record} *records, size_t count)\n{{\n\
             \tuint64_t sum = 0;\n\tfor (size_t at = 0; at < count; at++)\n\
             \t\tsum += records[at].key * {factor} + (uint64_t)records[at].name[{}];\n\
             \treturn sum;\n}}\n",
            numbers.below(8)
        ));
    }
    text
}

/// Puts everything below a directory into a repository there.
fn commit(dir: &Path) -> Result<()> {
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(dir);
        command.args(["-c", "user.name=bench", "-c", "user.email=bench@localhost"]);
        command.args(["-c", "safe.directory=*", "-c", "gc.auto=0"]).args(words);
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", OsStr::new("/nonexistent"));
        command.stdin(Stdio::null());
        let output = command.output().map_err(io_error("start", "git"))?;
        match output.status.success() {
            true => Ok(()),
            false => {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                Err(Error::Git { words: words.join(" "), said })
            }
        }
    };
    git(&["init", "-q", "."])?;
    git(&["add", "."])?;
    git(&["commit", "-q", "-m", "sources"])
}
