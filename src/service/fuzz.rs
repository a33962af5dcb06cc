//! What fuzzing does with this room: archives on their whole way into a store, and what a person asks
//! lists for.

use std::ffi::OsStr;
use std::hint::black_box;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use crate::service::filter::{check_keys, duration, glob, truth, untils};
use crate::service::resolve::split_layer;
use crate::service::*;

/// Little enough for many runs in a second.
const LIMITS: Limits = Limits { size_bytes: 16 << 20, entries: 20_000 };

/// Loads an archive into a store below `folder`, and lists what there is then.
///
/// # Panics
/// When something was written, or tried to be, elsewhere than into the store.
pub(crate) fn load(data: &[u8], folder: &Path) {
    let (root, archive) = (folder.join("store"), folder.join("archive"));
    let write = std::fs::write(&archive, data);
    write.expect("the folder can be written to");
    let strata = Strata::open(&root, RegistryOptions::default(), Arc::new(Quiet));
    let strata = strata.expect("the folder can be written to").with_limits(LIMITS);
    let request = LoadRequest { source: LoadSource::Path(archive.clone()), platform: None };
    match strata.load(&request) {
        Ok(loaded) => {
            for image in loaded {
                let id = image.id.to_string();
                drop(strata.history(&id));
                drop(
                    strata.save(&SaveRequest { images: vec![id], platform: None }, std::io::sink()),
                );
            }
            let gone = std::fs::remove_dir_all(&root);
            gone.expect("the folder can be written to");
        }
        Err(error) => {
            let said = format!("{error:?}");
            let is_barred =
                said.contains("PermissionDenied") || said.contains("ReadOnlyFilesystem");
            assert!(!is_barred, "it tried to write elsewhere: {said}");
        }
    }
    let remove = std::fs::remove_file(&archive);
    remove.expect("the folder can be written to");
    let entries = std::fs::read_dir(folder).expect("the folder can be read");
    let names: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    assert!(names.iter().all(|name| name == "store"), "{names:?} is beside the store");
}

/// Reads filters, patterns, times, and what is after `-o` of `strata overlay`; a line for each.
pub(crate) fn words(data: &[u8]) {
    drop(StackOptions::parse(&[OsStr::from_bytes(data).to_owned()]).map(drop));
    let path = TreePath::parse(OsStr::from_bytes(data));
    assert!(path.path.starts_with(b"/"));
    let Ok(text) = str::from_utf8(data) else { return };
    let filters: Filters = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    drop(check_keys(&filters, &["until", "label"]));
    drop(truth(&filters, "dangling"));
    drop(untils(&filters, jiff::Timestamp::UNIX_EPOCH));
    black_box(duration(text));
    black_box(split_layer(text));
    if let Some((pattern, name)) = text.split_once('\n') {
        let letters = |text: &str| text.chars().collect::<Vec<_>>();
        black_box(glob(&letters(pattern), &letters(name)));
    }
}
