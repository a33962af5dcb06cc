//! Where a file can be when an operation meets it.
//!
//! [`everywhere`] runs a test with its files in the lower layer, in the upper one, and in both, as
//! root and as an ordinary user; and in a plain directory, so that a test that asks what no file
//! system does is found out. Afterwards the mount is made again, and must show the same.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use crate::common::{Session, Tree, Who, differences, tree_of};

/// Where the files of a test are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Layer {
    /// In the image.
    Lower,
    /// Made in the mount.
    Upper,
    /// In the image, and changed in the mount.
    Both,
    /// In a directory of the machine: no mount at all.
    Plain,
}

/// What the lower layers of a mount are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lower {
    /// An image in the store: an ordinary user is root to it.
    Image,
    /// Plain directories: everybody is who they are.
    Dirs,
}

/// What a test gets: a folder with these in it.
///
/// ```text
/// file      "content\n", mode 0644
/// large     1 MiB of numbered lines, mode 0644
/// hard      another name of file
/// link      a symbolic link to file
/// dir/      with child ("child\n") and sub/grandchild ("grandchild\n")
/// empty/    nothing
/// ```
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) layer: Layer,
    pub(crate) who: Who,
    lower: Lower,
    root: PathBuf,
}

impl Place {
    /// Returns the path of a name in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Returns the names in a folder, sorted.
    pub(crate) fn names(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(dir)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into()).collect();
        names.sort();
        names
    }

    /// Returns the content of a file, as text.
    #[track_caller]
    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Returns the attributes of a name itself.
    #[track_caller]
    pub(crate) fn stat(&self, name: &str) -> fs::Metadata {
        fs::symlink_metadata(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Calls `act` as an ordinary user, whoever runs the test.
    pub(crate) fn as_user<R: Send>(&self, act: impl FnOnce() -> R + Send) -> R {
        match self.who {
            Who::Root => Who::User.act(act),
            Who::User => act(),
        }
    }

    /// Whether this is an ordinary user's mount of an image, who is root to the files in it.
    pub(crate) fn is_theirs(&self) -> bool {
        self.who == Who::User && self.layer != Layer::Plain && self.lower == Lower::Image
    }

    /// Whether symbolic links of the lower get other numbers when they move: without privilege nothing
    /// can be noted on them.
    pub(crate) fn forgets_links(&self) -> bool {
        self.who == Who::User && self.layer != Layer::Plain && self.lower == Lower::Dirs
    }

    /// Whether the user may change owners: elsewhere root, in a mount its owner. (The kernel lets
    /// nobody but root make devices, in any file system.)
    pub(crate) fn may_chown(&self) -> bool {
        self.who == Who::Root || self.is_theirs()
    }
}

/// Returns what the file `large` holds.
pub(crate) fn large() -> Vec<u8> {
    (0..65_536).flat_map(|number| format!("{number:015}\n").into_bytes()).collect()
}

/// Makes what is in a [`Place`].
fn fill(root: &Path) {
    fs::create_dir_all(root.join("dir/sub")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("file"), "content\n").unwrap();
    fs::write(root.join("large"), large()).unwrap();
    fs::write(root.join("dir/child"), "child\n").unwrap();
    fs::write(root.join("dir/sub/grandchild"), "grandchild\n").unwrap();
    fs::hard_link(root.join("file"), root.join("hard")).unwrap();
    symlink("file", root.join("link")).unwrap();
    for name in ["file", "large", "dir/child", "dir/sub/grandchild"] {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    for name in ["dir", "dir/sub", "empty"] {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// Brings everything up, without changing what is seen but times.
fn touch(root: &Path) {
    for name in ["file", "large", "dir/child", "dir/sub/grandchild"] {
        let content = fs::read(root.join(name)).unwrap();
        fs::write(root.join(name), content).unwrap();
    }
    for name in ["dir", "dir/sub", "empty"] {
        fs::write(root.join(name).join("passing"), "").unwrap();
        fs::remove_file(root.join(name).join("passing")).unwrap();
    }
    fs::hard_link(root.join("link"), root.join("passing")).unwrap();
    fs::remove_file(root.join("passing")).unwrap();
}

/// Runs a test with its files wherever they can be.
pub(crate) fn everywhere(test: impl Fn(&Place) + Sync) {
    for who in [Who::Root, Who::User] {
        let session = Session::sharing(image_of(who));
        let dir = session.dir("plain");
        who.act(|| {
            fill(&dir);
            run_in(Layer::Plain, who, Lower::Dirs, &dir, &test);
        });
        in_mount(&session, &test);
        in_stack(&session, &test);
    }
}

/// Returns a session whose store has the image of all places. The tests that run at the same time
/// share it: importing syncs the file system, which takes longer than most tests.
fn image_of(who: Who) -> Arc<Session> {
    static IMAGES: [Mutex<Weak<Session>>; 2] = [Mutex::new(Weak::new()), Mutex::new(Weak::new())];
    let shared = &IMAGES[usize::from(who == Who::User)];
    let mut shared = shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(session) = shared.upgrade() {
        return session;
    }
    let session = Session::new(who);
    let image = session.dir("image");
    who.act(|| {
        fill(&image.join("lower"));
        fill(&image.join("both"));
        fs::create_dir(image.join("upper")).unwrap();
    });
    session.run(&["import", image.to_str().unwrap(), "test/image"]);
    let session = Arc::new(session);
    *shared = Arc::downgrade(&session);
    session
}

fn run_in(layer: Layer, who: Who, lower: Lower, root: &Path, test: impl Fn(&Place)) {
    eprintln!("as {who:?}, files in {layer:?}, {lower:?}");
    test(&Place { layer, who, lower, root: root.to_owned() });
}

/// Runs a test where all kinds of files are in a mount, and describes what is there afterwards.
fn run_in_all(
    session: &Session,
    lower: Lower,
    dir: &Path,
    test: &(impl Fn(&Place) + Sync),
) -> Tree {
    session.who.act(|| {
        fill(&dir.join("upper"));
        touch(&dir.join("both"));
        run_in(Layer::Lower, session.who, lower, &dir.join("lower"), test);
        run_in(Layer::Upper, session.who, lower, &dir.join("upper"), test);
        run_in(Layer::Both, session.who, lower, &dir.join("both"), test);
        seen(dir)
    })
}

/// Returns how a mount is made first, and how again: every test meets each transport of each kind of
/// user, and each way of contents, and what one has left is seen through the other.
fn ways(who: Who, lower: Lower) -> [String; 2] {
    let both = match (who, lower) {
        (Who::Root, Lower::Image) => ["auto,data=cache", "dev-fuse,data=passthrough"],
        (Who::Root, Lower::Dirs) => ["dev-fuse,data=passthrough", "auto,data=cache"],
        (Who::User, Lower::Image) => ["dev-fuse", "auto"],
        (Who::User, Lower::Dirs) => ["auto", "dev-fuse"],
    };
    both.map(|way| match (who, std::env::var("STRATA_TEST_DATA")) {
        // A person wants all of them in one way.
        (Who::Root, Ok(data)) => {
            let (transport, _) = way.split_once(',').unwrap();
            format!("transport={transport},data={data}")
        }
        _ => format!("transport={way}"),
    })
}

/// Runs a test in a mount of plain directories.
fn in_stack(session: &Session, test: &(impl Fn(&Place) + Sync)) {
    let [top, bottom, upper, work] =
        ["top", "bottom", "upper", "work"].map(|name| session.dir(&format!("stack/{name}")));
    std::os::unix::fs::chown(session.path("stack"), Some(session.who.id()), None).unwrap();
    session.who.act(|| {
        fill(&bottom.join("lower"));
        fill(&bottom.join("both"));
        fs::create_dir(bottom.join("upper")).unwrap();
        fs::create_dir(top.join("lower")).unwrap();
    });
    let dir = session.dir("merged");
    let target = dir.to_str().unwrap();
    let [top, bottom, upper, work] = [&top, &bottom, &upper, &work].map(|path| path.display());
    let options = format!("lowerdir={top}:{bottom},upperdir={upper},workdir={work},metacopy=on");
    let [first, second] = ways(session.who, Lower::Dirs);
    session.run(&["overlay", "-o", &format!("{options},{first}"), target]);
    let before = run_in_all(session, Lower::Dirs, &dir, test);
    session.detach(&dir);
    session.run(&["overlay", "-o", &format!("{options},{second}"), target]);
    let after = session.who.act(|| seen(&dir));
    assert_eq!(differences(&before, &after), Vec::<String>::new(), "after a remount");
    session.detach(&dir);
}

/// Runs a test in a mount, which has a folder for each layer.
fn in_mount(session: &Session, test: &(impl Fn(&Place) + Sync)) {
    let dir = session.dir("mount");
    let target = dir.to_str().unwrap();
    let container = dir.parent().and_then(Path::file_name).unwrap().to_str().unwrap();
    session.run(&["create", "--name", container, "test/image"]);
    let [first, second] = ways(session.who, Lower::Image);
    // Devices are what a mount shows only when it is asked to.
    session.run(&["mount", "-o", &first, "-o", "dev", container, target]);
    let before = run_in_all(session, Lower::Image, &dir, test);
    session.unmount(target);
    session.run(&["mount", "-o", &second, "-o", "dev", container, target]);
    let after = session.who.act(|| seen(&dir));
    assert_eq!(differences(&before, &after), Vec::<String>::new(), "after a remount");
    session.unmount(target);
    session.run(&["rm", container]);
}

/// Describes a tree, inode numbers included.
fn seen(root: &Path) -> Tree {
    let mut tree = tree_of(root);
    for (name, line) in &mut tree {
        if !name.contains('\\') {
            let metadata = fs::symlink_metadata(root.join(&name[1..])).unwrap();
            line.push_str(&format!(" ino {}", metadata.ino()));
        }
    }
    tree
}
