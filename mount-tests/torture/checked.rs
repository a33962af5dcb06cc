//! A store looked at from outside: what is wrong with it, what it holds, what was left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use strata::digest::{DiffId, Digest, HashingReader};
use strata::layer::Index;
use strata::store::{Ref, RefName, Store};

use crate::common::{forget_times, tree_of};

/// Files that tests begin with are older, in seconds since 1970.
const BEFORE_TESTS: i64 = 1_700_000_000;

/// What a store holds, by what a person calls it. Times and ids that are made up are left out.
pub(crate) type State = BTreeMap<String, String>;

/// Returns what is wrong with a store: every file that is there is whole, and whatever is named has all
/// that it needs. It holds at any time, whoever was killed.
pub(crate) fn faults(root: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    if !root.join("FORMAT").exists() {
        // It is being made, so nothing can be in it yet.
        for dir in ["layers", "refs", "refs/_untagged", "containers", "blobs/sha256"] {
            let found = names(&root.join(dir)).into_iter().map(|name| format!("{dir}/{name}"));
            faults.extend(found.filter(|path| path != "refs/_untagged"));
        }
        return faults;
    }
    let store = Store::open(root).unwrap();
    let mut note = |path: &Path, what: String| faults.push(format!("{}: {what}", path.display()));
    hashed_files(&root.join("blobs/sha256"), &mut note);
    for shard in names(&root.join("objects")) {
        hashed_files(&root.join("objects").join(shard), &mut note);
    }
    for name in names(&root.join("layers")) {
        let path = root.join("layers").join(&name);
        if let Some(hex) = name.strip_suffix(".idx") {
            if let Err(error) = whole_layer(&store, root, hex) {
                note(&path, error);
            }
        } else if !name.ends_with(".tar") && !name.ends_with(".src") {
            note(&path, "nothing of ours".to_owned());
        }
    }
    for name in names(&root.join("chains")) {
        let path = root.join("chains").join(&name);
        if let Err(error) = whole_index(&path) {
            note(&path, error);
        }
    }
    match store.references() {
        Err(error) => note(root, error.to_string()),
        Ok(found) => {
            for (name, to) in found {
                if let Err(error) = whole_image(&store, to.manifest) {
                    note(root, format!("{name:?}: {error}"));
                }
                if to.target.is_some_and(|target| store.blob(target).is_err()) {
                    note(root, format!("{name:?} has not what the registry has"));
                }
            }
        }
    }
    for id in names(&root.join("containers")) {
        let path = root.join("containers").join(&id);
        match store.container(&id) {
            Ok(Some(container)) => {
                if let Err(error) = whole_image(&store, container.manifest) {
                    note(&path, error);
                }
                for part in ["upper", "work", "lock"] {
                    if !path.join(part).exists() {
                        note(&path, format!("it has no {part}"));
                    }
                }
                if let Err(error) = store.snapshots(&id) {
                    note(&path, error.to_string());
                }
            }
            // Of one that is there only for its mount a power cut may leave a file without content.
            Ok(None) if path.join("config.json").exists() => {}
            Ok(None) => note(&path, "it has no configuration".to_owned()),
            Err(error) => note(&path, error.to_string()),
        }
    }
    faults
}

/// Checks that files hash to their names.
fn hashed_files(dir: &Path, note: &mut dyn FnMut(&Path, String)) {
    for name in names(dir) {
        let path = dir.join(&name);
        match hash(&path) {
            Ok(digest) if digest.hex() == name => {}
            Ok(digest) => note(&path, format!("hashes to {digest}")),
            Err(error) => note(&path, error.to_string()),
        }
    }
}

fn hash(path: &Path) -> io::Result<Digest> {
    read_through(File::open(path)?)
}

fn read_through(reader: impl Read) -> io::Result<Digest> {
    let mut hashing = HashingReader::new(reader);
    io::copy(&mut hashing, &mut io::sink())?;
    Ok(hashing.finish().0)
}

fn whole_index(path: &Path) -> Result<(), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    Index::open_verified(&file).map(drop).map_err(|error| error.to_string())
}

/// A layer gives its tar back, bit for bit.
fn whole_layer(store: &Store, root: &Path, hex: &str) -> Result<(), String> {
    let id = DiffId(Digest::from_hex(hex).map_err(|error| error.to_string())?);
    let index = store.layer(id).map_err(|error| error.to_string())?;
    whole_index(&root.join("layers").join(format!("{hex}.idx")))?;
    for number in 0..index.object_count() as u64 {
        let (digest, _) = index.object(number).map_err(|error| error.to_string())?;
        let object = root.join("objects").join(&digest.hex()[..2]).join(digest.hex());
        // What a collector has moved aside is found there.
        let aside = root.join("trash").join(format!("object-{}", digest.hex()));
        if !object.exists() && !aside.exists() {
            return Err(format!("its object {digest} is not there"));
        }
    }
    let tar = store.layer_tar(id).map_err(|error| error.to_string())?;
    match read_through(tar).map_err(|error| error.to_string())? {
        actual if actual == id.0 => Ok(()),
        actual => Err(format!("its tar hashes to {actual}")),
    }
}

fn whole_image(store: &Store, manifest: Digest) -> Result<(), String> {
    let image = store.image(manifest).map_err(|error| error.to_string())?;
    for layer in image.layers() {
        store.layer(*layer).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Returns what a store holds.
pub(crate) fn state(root: &Path) -> State {
    let mut state = State::new();
    if !root.join("FORMAT").exists() {
        return state;
    }
    let store = Store::open(root).unwrap();
    let references = store.references().unwrap();
    let is_named = |(name, _): &(RefName, Ref)| matches!(name, RefName::Named(_));
    let named: BTreeSet<_> =
        references.iter().filter(|row| is_named(row)).map(|row| row.1.manifest).collect();
    for (name, to) in &references {
        // An image with a name is not listed as one without.
        if matches!(name, RefName::Untagged(manifest) if named.contains(manifest)) {
            continue;
        }
        let name = match name {
            RefName::Named(reference) => format!("image {reference}"),
            RefName::Untagged(manifest) => format!("untagged {manifest}"),
        };
        state.insert(name, format!("{} {:?}", to.manifest, to.target));
    }
    for pin in store.pins().unwrap() {
        state.insert(format!("pin {pin}"), String::new());
    }
    for container in store.containers().unwrap() {
        let name = format!("container {}", container.name);
        let line = format!("{} {} {:?}", container.image, container.manifest, container.command);
        state.insert(name.clone(), line);
        insert_tree(&mut state, &name, &store.upper(&container.id));
        for snapshot in store.snapshots(&container.id).unwrap() {
            let name = format!("{name} at {}", snapshot.name);
            insert_tree(&mut state, &name, &store.snapshot_upper(&container.id, &snapshot.name));
            state.insert(name, format!("{:?} {:?}", snapshot.message, snapshot.before_undo));
        }
    }
    state
}

fn insert_tree(state: &mut State, name: &str, tree: &Path) {
    let mut tree = tree_of(tree);
    // What has happened in the test is all of the same time.
    forget_times(&mut tree, |_, seconds| seconds > BEFORE_TESTS);
    for (path, line) in tree {
        let mut words: Vec<_> = line.split(' ').collect();
        // A file of a snapshot may have another name in one that is being made.
        if let Some(links) = words.iter().position(|word| *word == "links") {
            words.drain(links..links + 2);
        }
        state.insert(format!("{name}: {path}"), words.join(" "));
    }
}

/// Returns what somebody was making or removing and has not finished. What was downloaded is kept on
/// purpose.
pub(crate) fn leftovers(root: &Path) -> Vec<PathBuf> {
    let mut left = Vec::new();
    for dir in ["staging", "leases", "trash"] {
        for name in all_names(&root.join(dir)) {
            if !name.starts_with("download-") {
                left.push(Path::new(dir).join(name));
            }
        }
    }
    left
}

/// Returns the files of a store that are named by what they hold.
pub(crate) fn files(root: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut dirs = vec!["blobs/sha256".to_owned(), "layers".to_owned(), "chains".to_owned()];
    dirs.extend(names(&root.join("objects")).into_iter().map(|shard| format!("objects/{shard}")));
    for dir in dirs {
        for name in all_names(&root.join(&dir)) {
            found.insert(Path::new(&dir).join(name));
        }
    }
    found
}

fn names(dir: &Path) -> Vec<String> {
    let mut names = all_names(dir);
    names.retain(|name| !name.starts_with('.'));
    names
}

fn all_names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = entries.map(name).collect();
    names.sort();
    names
}
