//! The rules of the code that no compiler checks, held against the code.
//!
//! The table of rooms is the one of `ARCHITECTURE.md`. This reads text, so a macro or a re-export can
//! fool it: it is a guard rail, not a proof.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room, and the rooms that it may name.
const ROOMS: [(&str, &[&str]); 14] = [
    ("cli", &["service", "image", "digest"]),
    (
        "service",
        &[
            "registry", "archive", "store", "bench", "fuse", "overlay", "layer", "image", "digest",
            "sys",
        ],
    ),
    ("bench", &["sys"]),
    ("registry", &["image", "digest"]),
    ("archive", &["image", "layer", "digest"]),
    ("store", &["image", "layer", "digest", "sys"]),
    ("fuse", &["overlay", "sys"]),
    ("overlay", &["layer", "sys"]),
    ("layer", &["digest", "sys"]),
    ("image", &["digest"]),
    ("digest", &[]),
    ("sys", &[]),
    (
        "fuzz",
        &["archive", "cli", "fuse", "image", "layer", "overlay", "registry", "service", "sys"],
    ),
    ("tidy", &[]),
];

/// Outside crates that have a home, and the rooms that they may be used in.
const HOMES: [(&str, &[&str]); 24] = [
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("gotmpl", &["cli"]),
    ("indicatif", &["cli"]),
    ("ratatui", &["cli"]),
    ("similar", &["cli"]),
    ("tracing_subscriber", &["cli"]),
    ("zerocopy", &["fuse"]),
    ("tar", &["layer"]),
    ("flate2", &["layer"]),
    ("zstd", &["layer"]),
    ("bzip2", &["layer"]),
    ("liblzma", &["layer"]),
    ("memmap2", &["layer", "sys"]),
    ("hashbrown", &["layer", "overlay"]),
    ("lru", &["fuse", "overlay"]),
    ("io_uring", &["sys"]),
    ("libc", &["sys"]),
    ("nix", &["sys"]),
    ("sha2", &["digest"]),
    ("reqwest", &["registry"]),
    ("tokio", &["registry"]),
    ("docker_credential", &["registry"]),
];

/// Most lines of a file.
const MAX_LINES: usize = 600;

struct Source {
    path: PathBuf,
    /// The room that it is in.
    room: String,
    text: String,
    /// The text without comments and tests.
    code: String,
}

impl Source {
    fn shown(&self) -> String {
        self.path.display().to_string()
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(dir).expect("the folder can be read");
    for entry in entries.map(|entry| entry.expect("the folder can be read").path()) {
        if entry.is_dir() {
            files_below(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    files_below(&root().join("src"), &mut paths);
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("the file can be read");
            let below = path.strip_prefix(root().join("src")).expect("it is below src");
            let first = below.components().next().expect("it has a name");
            let room = first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
            let code = without_comments_and_tests(&path, &text);
            Source { path: below.to_owned(), room, text, code }
        })
        .collect()
}

fn without_comments_and_tests(path: &Path, text: &str) -> String {
    let names: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    if names
        .iter()
        .any(|name| ["tests", "tests.rs", "testserver.rs", "lies.rs", "tidy.rs"].contains(&&**name))
    {
        return String::new();
    }
    let before_tests = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    before_tests.lines().filter(is_code).map(|line| format!("{line}\n")).collect()
}

/// Returns the names that follow `prefix` in a text: `crate::store::Store` gives `store`.
fn named_after(text: &str, prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices(prefix) {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
            continue;
        }
        let rest = &text[at + prefix.len()..];
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        names.insert(rest[..end].to_owned());
    }
    names
}

#[test]
fn rooms_name_only_those_below_them() {
    for source in sources() {
        let Some((_, allowed)) = ROOMS.iter().find(|(room, _)| *room == source.room) else {
            continue;
        };
        for named in named_after(&source.code, "crate::") {
            assert!(
                named == source.room || allowed.contains(&named.as_str()),
                "{} names the room {named}; {} may name {allowed:?}",
                source.shown(),
                source.room
            );
        }
    }
}

#[test]
fn every_room_is_in_the_table() {
    let rooms: BTreeSet<_> = ROOMS.iter().map(|(room, _)| *room).collect();
    for source in sources().iter().filter(|source| !["lib", "main"].contains(&&*source.room)) {
        assert!(rooms.contains(source.room.as_str()), "{} is in no known room", source.shown());
    }
}

#[test]
fn outside_crates_stay_at_home() {
    for source in sources() {
        for (name, homes) in HOMES {
            let used = source.code.contains(&format!("use {name}::"))
                || !named_after(&source.code, &format!("{name}::")).is_empty();
            assert!(
                !used || homes.contains(&source.room.as_str()),
                "{} uses {name}, whose home is {homes:?}",
                source.shown()
            );
        }
    }
}

#[test]
fn files_open_with_what_they_are_and_stay_short() {
    let mut paths = Vec::new();
    files_below(&root().join("mount-tests"), &mut paths);
    let outside = paths.into_iter().map(|path| {
        let text = fs::read_to_string(&path).expect("the file can be read");
        (path.display().to_string(), text)
    });
    let inside = sources().into_iter().map(|source| (source.shown(), source.text));
    for (shown, text) in inside.chain(outside) {
        assert!(text.starts_with("//!"), "{shown} does not open with a //! header");
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "{shown} has {lines} lines, {MAX_LINES} are the most");
    }
}

#[test]
fn paths_are_written_in_full() {
    for source in sources() {
        assert!(!source.code.contains("super::"), "{} says super::", source.shown());
        assert!(!source.code.contains("crate::{"), "{} says crate::{{", source.shown());
    }
}

#[test]
fn every_mount_test_is_compiled() {
    let folder = root().join("mount-tests");
    for group in ["ops", "cli", "oracle", "survive", "torture", "common"] {
        let listed = fs::read_to_string(folder.join(group).join("mod.rs")).expect("it lists them");
        for entry in fs::read_dir(folder.join(group)).expect("the folder can be read") {
            let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
            let name = name.trim_end_matches(".rs");
            assert!(
                name == "mod" || listed.contains(&format!("mod {name};")),
                "mount-tests/{group}/{name}.rs is never compiled"
            );
        }
    }
}

#[test]
fn the_table_is_the_one_of_the_architecture_page() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the page is there");
    for (room, allowed) in ROOMS.iter().filter(|(room, _)| *room != "tidy") {
        let row = page.lines().find(|line| line.starts_with(&format!("| {room} |")));
        let row = row.unwrap_or_else(|| panic!("ARCHITECTURE.md has no row for {room}"));
        let cell = row.split('|').nth(2).unwrap_or_default();
        let named: BTreeSet<_> =
            cell.split([',', ' ']).filter(|word| !word.is_empty() && *word != "nothing").collect();
        assert_eq!(named, allowed.iter().copied().collect(), "what {room} may name");
    }
}

#[test]
fn the_tests_that_the_page_on_security_names_are_there() {
    let page = fs::read_to_string(root().join("SECURITY.md")).expect("the page is there");
    let mut paths = Vec::new();
    for folder in ["src", "mount-tests"] {
        files_below(&root().join(folder), &mut paths);
    }
    let read = |path: &PathBuf| fs::read_to_string(path).expect("the file can be read");
    let code: String = paths.iter().map(read).collect();
    // A test has a sentence for a name; nothing else on the page has so many words.
    let is_test = |word: &&str| {
        let is_name = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        is_name && word.matches('_').count() >= 4
    };
    let named: BTreeSet<_> = page.split('`').filter(is_test).collect();
    assert!(named.len() > 30, "{named:?}");
    for name in named {
        assert!(
            code.contains(&format!("fn {name}()")),
            "SECURITY.md names {name}, which is no test"
        );
    }
}

#[test]
fn the_doors_for_fuzzing_are_not_in_the_program() {
    for source in sources() {
        for (at, _) in source.code.match_indices("mod fuzz;") {
            let before = source.code[..at].trim_end_matches("pub(crate) ").trim_end_matches("pub ");
            let is_shut = before.ends_with("#[cfg(any(test, fuzzing))]\n")
                || before.ends_with("#[cfg(any(test, fuzzing))]\n#[doc(hidden)]\n");
            assert!(is_shut, "{} opens the doors for fuzzing to everybody", source.shown());
        }
    }
}
