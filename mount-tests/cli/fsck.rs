//! A store is checked, and mended: from itself, from registries, or not.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{
    Crafted, Packing, Registry, Session, Tree, Who, damage, noise, object_of, overwrite, run,
    spawn, stored, tree_of,
};

const HERE: &str = "linux/amd64";
const SOUND: i32 = 0;
const MENDED: i32 = 1;
const LEFT: i32 = 4;
const UNCHECKED: i32 = 8;

/// Whatever a test waits for has come by then.
const PATIENCE: Duration = Duration::from_secs(300);

/// Contents that are too large to have a wrong bit looked for in them.
fn large(number: u8) -> Vec<u8> {
    let mut content = noise(30_000);
    content[0] = number;
    content
}

/// Puts an image with two layers into a registry.
fn put(registry: &Registry, name: &str) {
    let [first, second, third] = [1, 2, 3].map(large);
    let lower = Crafted::new(Packing::Gzip, &[("first", &first), ("small", b"content\n")]);
    let upper = Crafted::new(Packing::Zstd, &[("second", &second), ("third", &third)]);
    registry.put_image(name, HERE, &[lower, upper]);
}

/// Checks the store, and returns the lines that name something; the code must be this one.
#[track_caller]
fn fsck(session: &Session, options: &[&str], code: i32) -> Vec<String> {
    let output = session.try_run(&[&["fsck"], options].concat());
    assert_eq!(output.code, code, "{options:?}: {}{}", output.stdout, output.stderr);
    output.stdout.lines().map(str::to_owned).collect()
}

/// Returns what a mount of an image shows.
fn shown(session: &Session, image: &str) -> Tree {
    let target = session.dir("look");
    let at = target.to_str().unwrap();
    session.run(&["mount", "--verify=open", image, at]);
    let tree = session.who.act(|| tree_of(&target));
    session.unmount(at);
    tree
}

#[test]
fn what_is_damaged_is_fetched_again_from_where_it_came() {
    let registry = Registry::start();
    put(&registry, "team/app:1");
    for who in [Who::Root, Who::User] {
        let session = Session::new(who);
        let name = registry.image("team/app:1");
        session.run(&["pull", "-q", &name]);
        session.run(&["create", "--name", "work", &name]);
        assert_eq!(fsck(&session, &[], SOUND).len(), 1);
        let before = shown(&session, &name);
        let mut damaged = Vec::new();
        for dir in ["blobs", "objects", "layers", "chains"] {
            let files = stored(&session, dir);
            assert!(!files.is_empty(), "{dir}");
            damaged.extend(files);
        }
        for (number, file) in damaged.iter().enumerate() {
            let path = session.path("store").join(file);
            match number % 3 {
                0 => damage(&path),
                1 => overwrite(&path, b"short"),
                _ => fs::remove_file(&path).unwrap(),
            }
        }
        let is_source = |file: &&PathBuf| file.extension().is_some_and(|end| end == "src");
        let lines = fsck(&session, &[], LEFT);
        for file in damaged.iter().filter(|file| !is_source(file)) {
            // What an image needs is known only from its documents.
            if file.starts_with("blobs") || session.path("store").join(file).exists() {
                let named = lines.iter().any(|line| line.starts_with(file.to_str().unwrap()));
                assert!(named, "{}: {lines:#?}", file.display());
            }
        }
        let lines = fsck(&session, &["--repair"], MENDED);
        let again = format!("it was fetched again from {}/team/app", registry.host());
        assert!(lines.iter().any(|line| line.ends_with(&again)), "{lines:#?}");
        let last = lines.last().unwrap();
        assert!(last.ends_with("all mended"), "{last}");
        assert_eq!(fsck(&session, &["--deep"], SOUND).len(), 1);
        assert!(shown(&session, &name) == before);
        session.run(&["save", "-o", "saved.tar", &name]);
    }
}

#[test]
fn a_fault_is_told_with_the_images_and_containers_that_it_touches() {
    let session = Session::new(Who::User);
    fs::write(session.dir("tree").join("file"), large(1)).unwrap();
    session.run(&["import", "tree", "demo:1"]);
    session.run(&["tag", "demo:1", "team/demo:2"]);
    session.run(&["create", "--name", "work", "demo:1"]);
    let object = object_of(&session, &large(1));
    damage(&object);
    let below = object.strip_prefix(session.path("store")).unwrap().display().to_string();
    let lines = fsck(&session, &[], LEFT);
    let [line, last] = &lines[..] else { panic!("{lines:#?}") };
    let begins = format!("{below}: it hashes to sha256:");
    assert!(line.starts_with(&begins), "{line}");
    assert!(line.ends_with("; images demo:1, team/demo:2; container work"), "{line}");
    assert!(last.starts_with("Checked ") && last.ends_with(": 1 fault"), "{last}");
    let rows = fsck(&session, &["--format", "json"], LEFT);
    let row: Value = serde_json::from_str(&rows[0]).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((&row["Path"], &row["State"]), (&Value::from(below), &Value::from("found")));
    assert_eq!(row["Images"], "demo:1,team/demo:2");
    let fields = fsck(&session, &["--format", "{{.Containers}}"], LEFT);
    assert_eq!(fields, ["work"]);
    // Of another image nothing is wrong.
    session.import("other:1");
    assert_eq!(fsck(&session, &["other:1"], SOUND).len(), 1);
    assert_eq!(fsck(&session, &["demo:1"], LEFT).len(), 2);
}

#[test]
fn what_nobody_has_is_set_apart_and_an_archive_brings_it_back() {
    for who in [Who::Root, Who::User] {
        let session = Session::new(who);
        fs::write(session.dir("tree").join("file"), large(1)).unwrap();
        session.run(&["import", "tree", "demo:1"]);
        session.run(&["save", "-o", "saved.tar", "demo:1"]);
        damage(&object_of(&session, &large(1)));
        let lines = fsck(&session, &["--repair"], LEFT);
        assert!(
            lines[0].contains("; not mended: its layer is set apart; 'strata load'"),
            "{lines:#?}"
        );
        let layer = stored(&session, "layers").into_iter().find_map(|path| {
            let name = path.file_name()?.to_str()?.strip_suffix(".idx.bad")?;
            Some(format!("sha256:{name}"))
        });
        let layer = layer.expect("its index is set apart");
        let target = session.dir("mnt");
        let said = session.refused(&["mount", "demo:1", target.to_str().unwrap()]);
        assert!(said.contains(&layer) && said.contains("set apart"), "{said}");
        assert!(said.contains("'strata load'"), "{said}");
        assert!(session.run(&["images"]).contains("demo"));
        let lines = fsck(&session, &["--repair"], LEFT);
        assert!(
            lines[0].contains("the layer was damaged and is set apart; image demo:1"),
            "{lines:#?}"
        );
        session.run(&["load", "-q", "-i", "saved.tar"]);
        fsck(&session, &["--deep"], SOUND);
        let object = fs::read(object_of(&session, &large(1))).unwrap();
        assert!(object == large(1));
        session.run(&["rmi", "demo:1"]);
        assert!(stored(&session, "layers").is_empty() && stored(&session, "objects").is_empty());
    }
}

#[test]
fn an_object_is_brought_back_by_another_image_that_has_it() {
    let registry = Registry::start();
    put(&registry, "team/app:1");
    let session = Session::new(Who::User);
    fs::write(session.dir("tree").join("mine"), large(3)).unwrap();
    session.run(&["import", "tree", "mine:1"]);
    session.run(&["pull", "-q", &registry.image("team/app:1")]);
    damage(&object_of(&session, &large(3)));
    let again = format!("mended: it was fetched again from {}/team/app", registry.host());
    let lines = fsck(&session, &["--repair", "mine:1"], MENDED);
    assert!(lines[0].ends_with(&again), "{lines:#?}");
    fsck(&session, &["--deep"], SOUND);
    assert!(session.run(&["cat", "mine:1:/mine"]).len() > 1000);
}

#[test]
fn without_the_registry_the_reason_is_told_and_later_it_is_mended() {
    let registry = Registry::start();
    put(&registry, "team/app:1");
    let session = Session::new(Who::User);
    let name = registry.image("team/app:1");
    session.run(&["pull", "-q", &name]);
    // The registry has lost the layers.
    let is_source = |path: &PathBuf| path.extension().is_some_and(|end| end == "src");
    let blobs = stored(&session, "layers").into_iter().filter(is_source).map(|source| {
        let text = fs::read_to_string(session.path("store").join(source)).unwrap();
        registry.blob(text.split("\"digest\":\"").nth(1).unwrap().split('"').next().unwrap())
    });
    let blobs: Vec<_> = blobs.map(|blob| (blob.with_extension("aside"), blob)).collect();
    assert_eq!(blobs.len(), 2);
    blobs.iter().for_each(|(aside, blob)| fs::rename(blob, aside).unwrap());
    damage(&object_of(&session, &large(1)));
    let lines = fsck(&session, &["--repair"], LEFT);
    let expected = format!("'strata pull {name}'");
    let line = lines.first().unwrap();
    assert!(line.contains("it was not fetched again (") && line.contains(&expected), "{line}");
    blobs.iter().for_each(|(aside, blob)| fs::rename(aside, blob).unwrap());
    let lines = fsck(&session, &["--repair"], MENDED);
    assert!(lines.iter().any(|line| line.contains("fetched again")), "{lines:#?}");
    fsck(&session, &["--deep"], SOUND);
}

#[test]
fn a_pull_of_a_damaged_image_heals_it() {
    let registry = Registry::start();
    put(&registry, "team/app:1");
    let name = registry.image("team/app:1");
    let session = Session::new(Who::User);
    session.run(&["pull", "-q", &name]);
    let all: Vec<_> = ["blobs", "layers", "objects", "chains", "refs"]
        .iter()
        .flat_map(|dir| stored(&session, dir))
        .collect();
    for file in all {
        let path = session.path("store").join(&file);
        let good = fs::read(&path).unwrap();
        // What a content holds is for the check; that it is cut off a pull sees, too.
        overwrite(&path, &good[..good.len() / 2]);
        session.run(&["pull", "-q", &name]);
        let is_source = path.extension().is_some_and(|end| end == "src");
        let is_same = is_source || file.starts_with("refs") || fs::read(&path).unwrap() == good;
        assert!(is_same, "{}", file.display());
        fsck(&session, &["--deep"], SOUND);
    }
}

#[test]
fn damage_stops_no_other_command_from_telling_what_it_knows() {
    let session = Session::new(Who::User);
    for name in ["demo:1", "other:1"] {
        fs::write(session.dir("tree").join("file"), large(name.as_bytes()[0])).unwrap();
        session.run(&["import", "tree", name]);
        session.run(&["create", "--name", &name.replace(':', "-"), name]);
    }
    session.run(&["snapshot", "demo-1"]);
    session.run(&["snapshot", "other-1"]);
    let kinds = ["blobs", "layers", "objects", "chains", "refs", "containers"];
    for file in kinds.iter().flat_map(|dir| stored(&session, dir)) {
        let path = session.path("store").join(&file);
        let good = fs::read(&path).unwrap();
        if good.is_empty() {
            continue;
        }
        damage(&path);
        for arguments in [
            &["images"][..],
            &["ps", "-a"],
            &["inspect", "demo:1", "other:1"],
            &["history", "demo:1"],
            &["layers", "other:1"],
            &["snapshots"],
            &["system", "df"],
            &["image", "prune", "-f"],
            &["diff", "demo-1"],
        ] {
            let output = session.try_run(arguments);
            let text = format!("{}{}", output.stdout, output.stderr);
            // One of two is damaged at most.
            let is_list = ["images", "ps"].contains(&arguments[0]);
            assert!(!is_list || output.code == 0, "{}: {arguments:?}: {text}", file.display());
            assert!(!is_list || text.contains("demo") || text.contains("other"), "{text}");
            assert!(output.code != 101 && !text.contains("panicked"), "{arguments:?}: {text}");
        }
        overwrite(&path, &good);
        fsck(&session, &[], SOUND);
    }
    for name in ["demo", "other"] {
        session.run(&["rm", &format!("{name}-1")]);
        session.run(&["rmi", &format!("{name}:1")]);
    }
    assert!(stored(&session, "objects").is_empty());
}

#[test]
fn a_damaged_image_can_be_removed() {
    for damaged in ["blobs", "layers"] {
        let session = Session::new(Who::User);
        session.import("demo:1");
        for file in stored(&session, damaged) {
            damage(&session.path("store").join(file));
        }
        session.run(&["rmi", "demo:1"]);
        assert!(stored(&session, "refs").is_empty());
        assert!(stored(&session, "layers").is_empty() && stored(&session, "blobs").is_empty());
        fsck(&session, &[], SOUND);
    }
}

/// Waits until something is so; the child must not have ended before.
fn wait_until(child: &mut std::process::Child, is_so: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !is_so() {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it took longer than {PATIENCE:?}");
        }
        std::thread::yield_now();
    }
    true
}

#[test]
fn a_repair_that_is_killed_leaves_a_store_that_can_be_repaired() {
    let registry = Registry::start();
    let contents: Vec<_> = (0..40).map(large).collect();
    let names: Vec<_> = (0..40).map(|number| format!("f{number}")).collect();
    let files: Vec<_> =
        names.iter().zip(&contents).map(|(name, content)| (name.as_str(), &content[..])).collect();
    let layers: Vec<_> = files.chunks(10).map(|part| Crafted::new(Packing::Gzip, part)).collect();
    registry.put_image("team/app:1", HERE, &layers);
    let session = Session::new(Who::User);
    let name = registry.image("team/app:1");
    session.run(&["pull", "-q", &name]);
    session.run(&["create", "--name", "work", &name]);
    let mut all: Vec<_> =
        ["objects", "layers", "refs"].iter().flat_map(|dir| stored(&session, dir)).collect();
    all.retain(|path| path.extension().is_none_or(|end| end != "src"));
    let path = |file: &PathBuf| session.path("store").join(file);
    for round in 1..8 {
        all.iter().filter(|file| path(file).exists()).for_each(|file| damage(&path(file)));
        let bad: Vec<_> = all.iter().map(|file| fs::read(path(file)).ok()).collect();
        let mut child = spawn(
            session
                .command(&["fsck", "--repair"])
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null()),
        );
        let changed = || {
            let now = all.iter().map(|file| fs::read(path(file)).ok());
            now.zip(&bad).filter(|(now, bad)| now != *bad).count()
        };
        wait_until(&mut child, || changed() >= round * 3);
        child.kill().unwrap();
        child.wait().unwrap();
        let output = session.try_run(&["fsck", "--repair"]);
        assert!([SOUND, MENDED].contains(&output.code), "{}{}", output.stdout, output.stderr);
        fsck(&session, &["--deep"], SOUND);
    }
    for (number, content) in contents.iter().enumerate() {
        assert!(session.run(&["cat", &format!("{name}:/f{number}")]).len() > 1000, "{number}");
        assert!(fs::read(object_of(&session, content)).unwrap() == *content);
    }
}

#[test]
fn a_check_that_is_killed_is_gone_on_with() {
    let session = Session::new(Who::User);
    let tree = session.dir("tree");
    // Each takes a while, so that the check has not ended when some are noted, in whatever order.
    for number in 0..200 {
        File::create(tree.join(format!("f{number}"))).unwrap().set_len((3 << 20) + number).unwrap();
    }
    session.run(&["import", "tree", "demo:1"]);
    let noted = || fs::metadata(session.path("store/checked")).map_or(0, |found| found.len());
    let mut child = spawn(session.command(&["fsck"]).stdout(std::process::Stdio::null()));
    let killed = wait_until(&mut child, || noted() > 64 * 50);
    assert!(killed, "it ended before anything was noted");
    child.kill().unwrap();
    child.wait().unwrap();
    let lines = fsck(&session, &[], SOUND);
    let line = lines.last().unwrap();
    assert!(line.contains(" by the check before, which was interrupted: no faults"), "{line}");
    let lines = fsck(&session, &[], SOUND);
    assert!(!lines[0].contains("interrupted"), "{lines:#?}");
}

#[test]
fn what_cannot_be_checked_has_a_code_of_its_own() {
    let session = Session::new(Who::User);
    let output = session.try_run(&["--root", "nowhere", "fsck"]);
    assert_eq!(output.code, UNCHECKED, "{}", output.stderr);
    assert!(output.stderr.contains("is not a strata store"), "{}", output.stderr);
    assert!(!session.path("nowhere").exists());
    session.import("demo:1");
    let output = session.try_run(&["fsck", "gone:1"]);
    assert_eq!((output.code, output.stderr.as_str()), (8, "Error: No such image: gone:1\n"));
    // Somebody else's store is looked at, and not mended.
    let root = session.path("store").display().to_string();
    let stranger = Session::new(Who::Root);
    let check =
        |options: &[&str]| stranger.try_run(&[&["--root", &root, "fsck"], options].concat());
    assert_eq!(check(&[]).code, SOUND);
    let output = check(&["--repair"]);
    assert_eq!(output.code, UNCHECKED);
    assert!(output.stderr.contains("repair it as its owner"), "{}", output.stderr);
}

#[test]
fn a_file_that_the_disk_does_not_give_is_a_fault() {
    let session = Session::new(Who::Root);
    session.import("demo:1");
    let blob = session.path("store").join(&stored(&session, "blobs")[0]);
    // Nothing can be read at the beginning of the memory of a process.
    let check = format!(
        "mount --bind /proc/$$/mem {} && exec {} --root {} fsck",
        blob.display(),
        env!("CARGO_BIN_EXE_strata"),
        session.path("store").display()
    );
    let output = run(std::process::Command::new("unshare").args(["-m", "sh", "-c", &check]));
    assert_eq!(output.code, LEFT, "{}{}", output.stdout, output.stderr);
    let expected = "it cannot be read: i/o error; image demo:1";
    assert!(output.stdout.contains(expected), "{}", output.stdout);
    fsck(&session, &[], SOUND);
}

#[test]
fn a_store_that_says_damaged_things_of_itself_is_mended() {
    let session = Session::new(Who::User);
    session.import("demo:1");
    let format = session.path("store/FORMAT");
    for bytes in [&b"?"[..], b""] {
        overwrite(&format, bytes);
        let said = session.refused(&["images"]);
        assert!(
            said.contains("FORMAT is damaged") && said.contains("strata fsck --repair"),
            "{said}"
        );
        fsck(&session, &["--repair"], MENDED);
        assert!(session.run(&["images"]).contains("demo"));
    }
    fs::remove_file(&format).unwrap();
    fsck(&session, &[], LEFT);
    fsck(&session, &["--repair"], MENDED);
    for dir in ["objects/00", "pins", "trash"] {
        fs::remove_dir(session.path("store").join(dir)).unwrap();
    }
    let lines = fsck(&session, &["--repair"], MENDED);
    assert_eq!(lines.len(), 4, "{lines:#?}");
    fsck(&session, &[], SOUND);
}

#[test]
fn a_file_of_a_snapshot_is_found_and_taken_from_elsewhere() {
    let session = Session::new(Who::User);
    session.import("demo:1");
    let target = session.dir("mnt");
    let at = target.to_str().unwrap();
    session.run(&["mount", "--rw", "--name", "work", "demo:1", at]);
    session.who.act(|| fs::write(target.join("new"), large(1)).unwrap());
    session.run(&["snapshot", "work", "one"]);
    let kept = stored(&session, "containers")
        .into_iter()
        .find(|path| path.ends_with("snapshots/one/upper/new"))
        .expect("the snapshot has it");
    damage(&session.path("store").join(&kept));
    let lines = fsck(&session, &[], LEFT);
    assert!(lines[0].starts_with(kept.to_str().unwrap()), "{lines:#?}");
    assert!(lines[0].ends_with("its content is not what it was; container work"), "{lines:#?}");
    let lines = fsck(&session, &["--repair"], MENDED);
    assert!(lines[0].contains("its content was taken from containers/"), "{lines:#?}");
    // When the container has another content, too, nobody has it.
    session.who.act(|| fs::write(target.join("new"), large(2)).unwrap());
    damage(&session.path("store").join(&kept));
    let lines = fsck(&session, &["--repair"], LEFT);
    assert!(lines[0].contains("'strata container snapshot rm work one'"), "{lines:#?}");
    session.unmount(at);
    session.run(&["container", "snapshot", "rm", "work", "one"]);
    fsck(&session, &[], SOUND);
}

#[test]
fn a_bit_that_is_turned_back_is_seen_by_the_next_who_opens_the_file() {
    let session = Session::new(Who::User);
    let content = vec![b'x'; 20_000];
    fs::write(session.dir("tree").join("file"), &content).unwrap();
    session.run(&["import", "tree", "demo:1"]);
    let target = session.dir("mnt");
    let at = target.to_str().unwrap();
    session.run(&["mount", "--verify=open", "demo:1", at]);
    let object = object_of(&session, &content);
    let mut bad = content.clone();
    bad[100] ^= 4;
    overwrite(&object, &bad);
    let read = |path: &Path| session.who.act(|| fs::read(path).map_err(|e| e.raw_os_error()));
    assert_eq!(read(&target.join("file")), Err(Some(libc::EIO)));
    let lines = fsck(&session, &["--repair"], MENDED);
    assert!(lines[0].ends_with("mended: a single wrong bit was turned back"), "{lines:#?}");
    assert_eq!(read(&target.join("file")), Ok(content));
    session.unmount(at);
}
