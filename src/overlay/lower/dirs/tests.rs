//! Merging directories in every form that whiteouts and marks have.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

struct Stack {
    folder: tempfile::TempDir,
    layers: Vec<&'static str>,
    data_only: Vec<&'static str>,
    owners: Owners,
}

impl Stack {
    /// Makes the files of layers, first on top. A name that ends with a slash is a directory, `->`
    /// makes a link, `!` marks a directory opaque, `x` as one with whiteouts by attributes, `%` is an
    /// attribute whiteout, anything else a file that holds its layer's name.
    fn new(layers: &[(&'static str, &[&str])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (layer, names) in layers {
            fs::create_dir(folder.path().join(layer)).unwrap();
            for name in *names {
                make(&folder.path().join(layer), name, layer);
            }
        }
        let layers = layers.iter().map(|(layer, _)| *layer).collect();
        Self { folder, layers, data_only: vec![], owners: Owners::Native }
    }

    fn open(&self) -> DirsLower {
        let paths =
            |names: &[&str]| names.iter().map(|name| self.folder.path().join(name)).collect();
        DirsLower::open(&LowerDirs {
            dirs: paths(&self.layers),
            data_only: paths(&self.data_only),
            upper: None,
            user_marks: true,
            owners: self.owners,
            static_links: false,
            follow_redirects: true,
            links: Links::Kept,
        })
        .unwrap()
    }

    fn set(&self, path: &str, name: &str, value: &str) {
        xattr::set(self.folder.path().join(path), name, value.as_bytes()).unwrap();
    }
}

fn make(layer: &Path, name: &str, content: &str) {
    if let Some(name) = name.strip_prefix('!') {
        fs::create_dir_all(layer.join(name)).unwrap();
        xattr::set(layer.join(name), "user.overlay.opaque", b"y").unwrap();
    } else if let Some(name) = name.strip_prefix('%') {
        let dir = layer.join(name).parent().unwrap().to_owned();
        fs::create_dir_all(&dir).unwrap();
        xattr::set(&dir, "user.overlay.opaque", b"x").unwrap();
        fs::write(layer.join(name), "").unwrap();
        xattr::set(layer.join(name), "user.overlay.whiteout", b"y").unwrap();
    } else if let Some((name, target)) = name.split_once("->") {
        symlink(target, layer.join(name)).unwrap();
    } else if name.ends_with('/') {
        fs::create_dir_all(layer.join(name)).unwrap();
    } else {
        fs::create_dir_all(layer.join(name).parent().unwrap()).unwrap();
        fs::write(layer.join(name), content).unwrap();
    }
}

fn find(lower: &DirsLower, path: &str) -> Option<LowerFound> {
    let names = path.split('/').filter(|name| !name.is_empty());
    let root = LowerFound::known(lower.root());
    names
        .into_iter()
        .try_fold(root, |dir, name| lower.lookup(dir.id, OsStr::new(name)).ok().flatten())
}

fn text(lower: &DirsLower, path: &str) -> Option<String> {
    let file = lower.open(find(lower, path)?.id).unwrap();
    let mut bytes = vec![0; 100];
    let len = file.read_at(&mut bytes, 0).unwrap();
    bytes.truncate(len);
    Some(String::from_utf8(bytes).unwrap())
}

fn names(lower: &DirsLower, path: &str) -> Vec<String> {
    let mut names = Vec::new();
    lower
        .entries(find(lower, path).unwrap().id, 0, &mut |entry| {
            names.push(entry.name.to_string_lossy().into_owned());
            ControlFlow::Continue(())
        })
        .unwrap();
    names
}

#[test]
fn the_topmost_file_hides_what_is_below_and_directories_are_merged() {
    let stack = Stack::new(&[
        ("top", &["both", "dir/top", "kind/in"]),
        ("mid", &["dir/mid", "kind"]),
        ("low", &["both", "only", "dir/top", "dir/low", "kind/below", "link->only"]),
    ]);
    let lower = stack.open();
    assert_eq!(names(&lower, ""), ["both", "dir", "kind", "link", "only"]);
    assert_eq!(names(&lower, "dir"), ["low", "mid", "top"]);
    // What is no directory ends the merging.
    assert_eq!(names(&lower, "kind"), ["in"]);
    for (path, content) in [
        ("both", Some("top")),
        ("only", Some("low")),
        ("dir/top", Some("top")),
        ("dir/low", Some("low")),
        ("kind/below", None),
        ("absent", None),
        ("both/absent", None),
    ] {
        assert_eq!(text(&lower, path).as_deref(), content, "{path}");
    }
    assert_eq!(lower.read_link(find(&lower, "link").unwrap().id).unwrap(), "only");
    assert_eq!(lower.attr(find(&lower, "dir").unwrap().id).unwrap().nlink, 2);
    assert_eq!(lower.attr(lower.root()).unwrap().nlink, 4);
}

#[test]
fn whiteouts_and_opaque_directories_are_read_in_every_form() {
    for top in [&["d/.wh.gone", "o/.wh..wh..opq", "o/new"][..], &["%d/gone", "!o", "o/new"]] {
        let stack = Stack::new(&[("top", top), ("low", &["d/gone", "d/kept", "o/old"])]);
        let lower = stack.open();
        assert_eq!(names(&lower, "d"), ["kept"], "{top:?}");
        assert_eq!(names(&lower, "o"), ["new"], "{top:?}");
        assert_eq!(text(&lower, "d/gone"), None, "{top:?}");
        assert_eq!(text(&lower, "o/old"), None, "{top:?}");
    }
    for mark in ["user.overlay.opaque", "user.fuseoverlayfs.opaque"] {
        let stack = Stack::new(&[("top", &["o/new"]), ("low", &["o/old"])]);
        stack.set("top/o", mark, "y");
        assert_eq!(names(&stack.open(), "o"), ["new"], "{mark}");
    }
    // By name and by its own layer: what the layer has itself is there.
    let stack = Stack::new(&[("top", &[".wh.d", "d/new"]), ("low", &["d/old"])]);
    assert_eq!(names(&stack.open(), "d"), ["new"]);
}

#[test]
fn redirects_lead_to_where_the_rest_of_a_directory_is() {
    let stack = Stack::new(&[
        ("top", &["moved/top", "a/beside/top"]),
        ("low", &["old/below/low", "a/was/low", "moved/hidden"]),
    ]);
    stack.set("top/moved", "user.overlay.redirect", "/old/below");
    stack.set("top/a/beside", "user.overlay.redirect", "was");
    let lower = stack.open();
    assert_eq!(names(&lower, "moved"), ["low", "top"]);
    assert_eq!(text(&lower, "moved/low").as_deref(), Some("low"));
    assert_eq!(names(&lower, "a/beside"), ["low", "top"]);
    assert_eq!(text(&lower, "a/beside/low").as_deref(), Some("low"));
}

#[test]
fn attributes_may_have_their_content_in_another_layer() {
    let mut stack = Stack::new(&[
        ("top", &["same", "moved", "data"]),
        ("low", &["same", "dir/was"]),
        ("store", &["ab/object"]),
    ]);
    for name in ["top/same", "top/moved", "top/data"] {
        stack.set(name, "user.overlay.metacopy", "");
    }
    stack.set("top/moved", "user.overlay.redirect", "/dir/was");
    stack.set("top/data", "user.overlay.redirect", "/ab/object");
    stack.data_only = vec![stack.layers.pop().unwrap()];
    let lower = stack.open();
    assert_eq!(text(&lower, "same").as_deref(), Some("low"));
    assert_eq!(text(&lower, "moved").as_deref(), Some("low"));
    assert_eq!(text(&lower, "data").as_deref(), Some("store"));
    assert_eq!(names(&lower, ""), ["data", "dir", "moved", "same"]);
    assert!(find(&lower, "ab").is_none());
}

#[test]
fn a_kind_is_that_of_the_attributes_also_when_a_mark_says_it() {
    let mut stack = Stack::new(&[("low", &["dir/", "file", "fifo", "link->file"])]);
    stack.set("low/fifo", "user.containers.override_stat", "0:0:600:pipe");
    for (owners, fifo) in [(Owners::Native, Kind::Regular), (Owners::Mapped, Kind::Fifo)] {
        stack.owners = owners;
        let lower = stack.open();
        for (name, kind) in [
            ("", Kind::Directory),
            ("dir", Kind::Directory),
            ("file", Kind::Regular),
            ("fifo", fifo),
            ("link", Kind::Symlink),
        ] {
            let found = find(&lower, name).unwrap();
            let id = found.id;
            assert_eq!(lower.kind(id).unwrap(), kind, "{name}");
            assert_eq!(Kind::of(lower.attr(id).unwrap().mode), kind, "{name}");
        }
    }
}

#[test]
fn what_is_forgotten_or_only_passed_by_is_dropped() {
    let stack = Stack::new(&[("low", &["a/b/c/file"])]);
    for number in 0..3000 {
        fs::write(stack.folder.path().join(format!("low/a/{number}")), "").unwrap();
    }
    let lower = stack.open();
    let found = find(&lower, "a/b/c/file").unwrap();
    let file = found.id;
    lower.keep(file);
    drop(found);
    for number in 0..3000 {
        lower.lookup(find(&lower, "a").unwrap().id, OsStr::new(&number.to_string())).unwrap();
        assert_eq!(lower.known.table.len(), 4, "the file and what is above it");
    }
    assert_eq!(lower.names(file).unwrap().len(), 1);
    lower.forget(file);
    assert!(lower.names(file).is_err());
    assert!(lower.names(lower.root()).is_ok());
    assert_eq!(lower.known.table.len(), 0);
}

#[test]
fn regression_what_was_found_stays_known_though_the_kernel_forgets_it() {
    let stack = Stack::new(&[("low", &["a/file"])]);
    let lower = stack.open();
    let dir = find(&lower, "a").unwrap();
    lower.keep(dir.id);
    // One thread finds it again while another is told that the kernel has forgotten it.
    let again = lower.lookup(lower.root(), OsStr::new("a")).unwrap().unwrap();
    drop(dir);
    lower.forget(again.id);
    assert!(lower.attr(again.id).is_ok());
    lower.keep(again.id);
    let id = again.id;
    drop(again);
    assert!(lower.attr(id).is_ok(), "the kernel was told of it once more");
    lower.forget(id);
    assert!(lower.attr(id).is_err());
}

#[test]
fn regression_the_directory_of_every_name_of_a_known_file_is_known() {
    let stack = Stack::new(&[("low", &["one/file", "two/"])]);
    let path = |name: &str| stack.folder.path().join("low").join(name);
    fs::hard_link(path("one/file"), path("two/link")).unwrap();
    let lower = stack.open();
    let file = find(&lower, "one/file").unwrap();
    let second = find(&lower, "two/link").unwrap();
    assert_eq!(file.id, second.id);
    drop(second);
    for (dir, name) in lower.names(file.id).unwrap() {
        assert!(lower.lookup(dir, &name).unwrap().is_some(), "{name:?}");
    }
}

#[test]
fn a_path_longer_than_a_system_call_takes_is_walked() {
    let stack = Stack::new(&[("low", &[])]);
    let name = "d".repeat(200);
    let mut at = sys::open_dir_path(&stack.folder.path().join("low")).unwrap();
    for _ in 0..40 {
        sys::make_dir(at.as_fd(), OsStr::new(&name), 0o755).unwrap();
        at = sys::open(at.as_fd(), OsStr::new(&name), open_flags::DIRECTORY, 0).unwrap();
    }
    let lower = stack.open();
    let path = vec![name; 40].join("/");
    let deepest = find(&lower, &path).unwrap();
    assert_eq!(lower.attr(deepest.id).unwrap().nlink, 2);
    assert_eq!(names(&lower, &path), [] as [&str; 0]);
}
