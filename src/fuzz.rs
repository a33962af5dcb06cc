//! The doors through which fuzzing comes in, only there where it is built: functions that take any
//! bytes and must come back.
//!
//! Each room has its own in its `fuzz.rs`; here they are listed by name, and those that need a place
//! on a disk get it. `fuzz/` drives them, `fuzz/corpus` has for each what runs have found worth
//! keeping, and the test here goes through all of that.

use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::archive;
use crate::cli;
use crate::fuse;
use crate::image;
use crate::layer;
use crate::overlay;
use crate::registry;
use crate::service;
use crate::sys;

/// A function that takes any bytes.
pub type Target = fn(&[u8]);

/// The functions, by name.
pub const TARGETS: [(&str, Target); 18] = [
    ("answer", registry::fuzz::answer),
    ("archive", archived),
    ("chain", layer::fuzz::chain),
    ("changes", image::fuzz::changes),
    ("compressed", layer::fuzz::compressed),
    ("config", image::fuzz::config),
    ("index", layer::fuzz::index),
    ("load", load),
    ("logins", registry::fuzz::logins),
    ("manifest", image::fuzz::manifest),
    ("names", names),
    ("options", options),
    ("recipe", layer::fuzz::recipe),
    ("reference", image::fuzz::reference),
    ("requests", requests),
    ("tar", layer::fuzz::tar),
    ("template", cli::fuzz::template),
    ("upper", upper),
];

/// The folder that may be written to.
static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Sees to it that this process writes below `folder` only, and starts no program. `others` are folders
/// that its driver needs. Says what could not be done of it.
///
/// # Errors
/// The kernel cannot confine a process.
pub fn confine(folder: &Path, others: &[&Path]) -> std::io::Result<()> {
    let folder = std::fs::canonicalize(folder)?;
    let places: Vec<&Path> =
        others.iter().copied().chain([folder.as_path(), Path::new("/dev/null")]).collect();
    FOLDER.get_or_init(|| folder.clone());
    sys::fuzz::write_only_below(&places)
}

/// Returns a folder of this thread's own.
fn folder(name: &str) -> PathBuf {
    let folder = FOLDER.get_or_init(|| {
        let name = format!("strata-fuzz-{}", std::process::id());
        std::env::temp_dir().join(name)
    });
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder).expect("the folder can be written to");
    folder
}

fn archived(data: &[u8]) {
    let mut tar = sys::fuzz::memory_file().expect("memory");
    tar.write_all(data).expect("memory");
    tar.rewind().expect("memory");
    archive::fuzz::archive(tar);
    layer::fuzz::files(data);
}

fn load(data: &[u8]) {
    service::fuzz::load(data, &folder("load"));
}

fn names(data: &[u8]) {
    layer::fuzz::names(data);
    archive::fuzz::names(data);
    overlay::fuzz::mark(data);
}

fn options(data: &[u8]) {
    service::fuzz::words(data);
    if let Ok(text) = str::from_utf8(data) {
        fuse::fuzz::options(text);
        cli::fuzz::options(text);
    }
}

fn requests(data: &[u8]) {
    fuse::fuzz::requests(data, &folder("requests"));
}

fn upper(data: &[u8]) {
    overlay::fuzz::upper(data, &folder("upper"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fuzzing_has_kept_is_gone_through() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, target) in TARGETS {
            let inputs = std::fs::read_dir(corpus.join(name)).expect("each target has kept some");
            let mut count = 0;
            for input in inputs {
                let path = input.expect("an entry").path();
                let data = std::fs::read(&path).expect("a file");
                let run = std::panic::catch_unwind(|| target(&data));
                assert!(run.is_ok(), "{} is not gone through", path.display());
                count += 1;
            }
            assert!(count > 0, "{name} has kept nothing");
        }
        let folder = FOLDER.get().expect("some need one");
        std::fs::remove_dir_all(folder).expect("it is ours");
    }
}
