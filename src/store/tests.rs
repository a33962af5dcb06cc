//! Tests of the store as a whole.

use std::fs;
use std::io::Read;
use std::path::Path;

use jiff::Timestamp;

use crate::digest::{DiffId, Digest};
use crate::image::{
    Descriptor, ImageConfig, Manifest, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, RootFs,
};
use crate::layer::{Content, Kind, ObjectSink, ROOT, TarMeta, TarWriter, unpack};
use crate::store::*;

pub(crate) fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    (folder, store)
}

/// A tar of files with these contents.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    for (path, content) in files {
        let size = content.len() as u64;
        let meta = TarMeta { size, ..TarMeta::new(*path, Kind::Regular, 0o644) };
        writer.file(&meta, &mut &**content).unwrap();
    }
    writer.finish().unwrap()
}

pub(crate) fn add_layer(stage: &mut Stage, tar: &[u8]) -> DiffId {
    let unpacked = unpack(tar, stage.layer_files().unwrap(), stage).unwrap();
    stage.publish_layer(&unpacked).unwrap();
    unpacked.diff_id
}

/// Makes an image of one layer; nothing names it yet but the stage.
pub(crate) fn add_image(stage: &mut Stage, tar: &[u8]) -> Digest {
    let layer = add_layer(stage, tar);
    stage.publish_chain(&[layer]).unwrap();
    let config = ImageConfig { rootfs: RootFs::new(vec![layer]), ..ImageConfig::default() };
    let bytes = config.to_bytes();
    let config = stage.publish_blob(&bytes).unwrap();
    let config = Descriptor::new(OCI_CONFIG, config, bytes.len() as u64);
    let layer = Descriptor::new(OCI_LAYER, layer.0, tar.len() as u64);
    let manifest = Manifest::new(OCI_MANIFEST, config, vec![layer]);
    stage.publish_blob(&manifest.to_bytes()).unwrap()
}

pub(crate) fn tag(store: &Store, name: &str, manifest: Digest) {
    let to = Ref { manifest, target: None, updated: Timestamp::UNIX_EPOCH };
    store.set_reference(&RefName::Named(name.parse().unwrap()), &to).unwrap();
}

fn names(store: &Store) -> Vec<String> {
    let name = |name: RefName| match name {
        RefName::Named(reference) => reference.to_string(),
        RefName::Untagged(manifest) => format!("untagged {manifest}"),
    };
    store.references().unwrap().into_iter().map(|(found, _)| name(found)).collect()
}

pub(crate) fn container(name: &str, manifest: Digest) -> Container {
    Container {
        id: Digest::of(name.as_bytes()).hex(),
        name: name.to_owned(),
        image: "image".to_owned(),
        manifest,
        created: Timestamp::UNIX_EPOCH,
        command: None,
        ephemeral: false,
    }
}

/// Counts the regular files below a directory.
fn files_below(path: &Path) -> usize {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    entries
        .map(
            |entry| {
                if entry.file_type().unwrap().is_dir() { files_below(&entry.path()) } else { 1 }
            },
        )
        .sum()
}

pub(crate) const LARGE: &[u8] = &[7; 20_000];

#[test]
fn a_store_is_made_once_and_opened_again() {
    let (folder, store) = store();
    let manifest = add_image(&mut store.stage().unwrap(), &tar(&[("f", b"text")]));
    let again = Store::open(&folder.path().join("store")).unwrap();
    assert_eq!(again.image(manifest).unwrap().digest, manifest);
}

#[test]
fn what_is_not_a_store_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("letter.txt"), "dear").unwrap();
    let error = Store::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("is not a strata store: it holds \"letter.txt\""), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_newer_format_is_refused() {
    let (folder, store) = store();
    let path = folder.path().join("store/FORMAT");
    let bytes = fs::read(&path).unwrap();
    let format = String::from_utf8(record::checked(&bytes).unwrap().to_vec()).unwrap();
    for (old, new) in
        [("\"version\": 2", "\"version\": 3"), ("\"incompat\": []", "\"incompat\": [\"x\"]")]
    {
        let newer = format.trim_end().replace(old, new);
        fs::write(&path, record::with_sum(newer.into_bytes())).unwrap();
        let error = Store::open(store.root()).unwrap_err();
        assert!(matches!(error, Error::UnknownFormat { .. }), "{error}");
    }
    for damaged in ["{".to_owned(), format.replace("\"version\": 2", "\"version\": 3")] {
        fs::write(&path, damaged).unwrap();
        let error = Store::open(store.root()).unwrap_err();
        assert!(matches!(error, Error::NotAStore { .. }), "{error}");
        assert!(error.to_string().contains("strata fsck --repair"), "{error}");
    }
}

#[test]
fn a_layer_that_was_published_comes_back() {
    let (_folder, store) = store();
    let tar = tar(&[("small", b"text"), ("large", LARGE)]);
    let layer = add_layer(&mut store.stage().unwrap(), &tar);
    assert!(store.has_layer(layer));
    let mut again = Vec::new();
    store.layer_tar(layer).unwrap().read_to_end(&mut again).unwrap();
    assert_eq!(again, tar);
    let chain = store.chain(&[layer]).unwrap();
    let large = chain.lookup(ROOT, "large".as_ref()).unwrap().unwrap();
    let Content::Object(object) = chain.content(large).unwrap() else { panic!("not an object") };
    let mut content = Vec::new();
    chain.open_object(object).unwrap().read_to_end(&mut content).unwrap();
    assert_eq!(content, LARGE);
    assert_eq!(files_below(&store.root().join("staging")), 0);
    assert_eq!(files_below(&store.root().join("leases")), 0);
}

#[test]
fn a_stage_that_is_given_up_leaves_nothing() {
    let (_folder, store) = store();
    let mut stage = store.stage().unwrap();
    unpack(&tar(&[("large", LARGE)])[..], stage.layer_files().unwrap(), &mut stage).unwrap();
    drop(stage);
    for dir in ["staging", "leases", "objects", "layers"] {
        assert_eq!(files_below(&store.root().join(dir)), 0, "{dir}");
    }
}

#[test]
fn contents_are_kept_once() {
    let (_folder, store) = store();
    let mut stage = store.stage().unwrap();
    add_layer(&mut stage, &tar(&[("a", LARGE), ("b", LARGE)]));
    drop(stage);
    add_layer(&mut store.stage().unwrap(), &tar(&[("c", LARGE)]));
    assert_eq!(files_below(&store.root().join("objects")), 1);
}

#[test]
fn a_damaged_object_that_is_met_again_is_replaced() {
    let (_folder, store) = store();
    let streamed = vec![9; 3 << 20];
    for content in [LARGE, &streamed] {
        let layer = add_layer(&mut store.stage().unwrap(), &tar(&[("f", content)]));
        let object = store.layout().object(Digest::of(content));
        fs::remove_file(&object).unwrap();
        fs::write(&object, "damaged").unwrap();
        add_layer(&mut store.stage().unwrap(), &tar(&[("f", content)]));
        assert_eq!(fs::read(&object).unwrap(), content);
        assert!(store.has_layer(layer));
    }
}

#[test]
fn a_damaged_index_is_a_missing_layer() {
    let (_folder, store) = store();
    let layer = add_layer(&mut store.stage().unwrap(), &tar(&[("f", b"x")]));
    let path = store.layout().layer_index(layer);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    assert!(!store.has_layer(layer));
    fs::write(&path, "damaged").unwrap();
    assert!(!store.has_layer(layer));
    assert!(matches!(store.layer(layer).unwrap_err(), Error::Layer { .. }));
}

#[test]
fn a_damaged_blob_is_told_and_replaced() {
    let (_folder, store) = store();
    let digest = store.stage().unwrap().publish_blob(b"{}").unwrap();
    fs::write(store.layout().blob(digest), "{ }").unwrap();
    assert!(matches!(store.blob(digest).unwrap_err(), Error::Damaged { .. }));
    store.stage().unwrap().publish_blob(b"{}").unwrap();
    assert_eq!(store.blob(digest).unwrap(), b"{}");
}

#[test]
fn a_damaged_record_hides_no_other_and_nothing_is_collected_meanwhile() {
    let (_folder, store) = store();
    let image = add_image(&mut store.stage().unwrap(), &tar(&[("a", LARGE)]));
    tag(&store, "kept", image);
    let path = store.ref_path(&RefName::Named("kept".parse().unwrap()));
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[20] ^= 1;
    fs::write(&path, bad).unwrap();
    tag(&store, "other", Digest::of(b"other"));
    assert_eq!(names(&store), ["docker.io/library/other:latest"]);
    assert!(matches!(store.collect().unwrap_err(), Error::Record { .. }));
    fs::write(&path, good).unwrap();
    let made = container("c", image);
    store.create_container(&made, |_, _| Ok::<_, Error>(())).unwrap();
    let config = store.root().join("containers").join(&made.id).join("config.json");
    fs::write(&config, "{}").unwrap();
    assert_eq!(store.containers().unwrap(), []);
    assert!(matches!(store.collect().unwrap_err(), Error::Record { .. }));
    fs::remove_file(config).unwrap();
    let manifest = store.layout().blob(image);
    let good = fs::read(&manifest).unwrap();
    fs::write(&manifest, "{}").unwrap();
    assert!(matches!(store.collect().unwrap_err(), Error::Damaged { .. }));
    fs::write(&manifest, good).unwrap();
    assert_eq!(store.collect().unwrap(), Collected::default());
    assert!(store.has_layer(store.image(image).unwrap().layers()[0]));
}

#[test]
fn a_layer_lacks_what_its_recipe_or_an_object_lacks() {
    let (_folder, store) = store();
    let layer = add_layer(&mut store.stage().unwrap(), &tar(&[("f", LARGE)]));
    let again = || add_layer(&mut store.stage().unwrap(), &tar(&[("f", LARGE)]));
    for path in [store.layout().layer_recipe(layer), store.layout().object(Digest::of(LARGE))] {
        let good = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!store.has_layer(layer));
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(!store.has_layer(layer));
        // Something else may be in its place, too.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(!store.has_layer(layer));
        again();
        assert!(store.has_layer(layer));
        assert_eq!(fs::read(&path).unwrap(), good);
    }
}

#[test]
fn references_are_set_listed_and_removed() {
    let (_folder, store) = store();
    let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
    tag(&store, "debian:12", one);
    tag(&store, "127.0.0.1:5000/team/app", one);
    tag(&store, "127.0.0.1:5000/team:v1", two);
    let digested = format!("debian@{two}");
    tag(&store, &digested, two);
    assert_eq!(
        names(&store),
        [
            "127.0.0.1:5000/team/app:latest".to_owned(),
            "127.0.0.1:5000/team:v1".to_owned(),
            "docker.io/library/debian:12".to_owned(),
            format!("docker.io/library/debian@{two}"),
        ]
    );
    let name = RefName::Named("127.0.0.1:5000/team:v1".parse().unwrap());
    assert!(store.remove_reference(&name).unwrap());
    assert!(!store.remove_reference(&name).unwrap());
    assert_eq!(names(&store).len(), 3);
    assert_eq!(store.names_of(one).unwrap().len(), 2);
    let nobody = RefName::Named("debian/12/x:y".parse().unwrap());
    assert_eq!(store.reference(&nobody).unwrap(), None);
}

#[test]
fn an_image_that_loses_its_last_name_becomes_untagged() {
    let (_folder, store) = store();
    let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
    tag(&store, "a", one);
    tag(&store, "b", one);
    tag(&store, "a", two);
    assert_eq!(names(&store), ["docker.io/library/a:latest", "docker.io/library/b:latest"]);
    tag(&store, "b", two);
    let untagged = format!("untagged {one}");
    assert!(names(&store).contains(&untagged));
    tag(&store, "c", one);
    assert!(!names(&store).contains(&untagged));
}

fn make_container(store: &Store, container: &Container) -> Result<()> {
    store.create_container(container, |_, _| Ok(()))
}

#[test]
fn names_of_containers_are_unique() {
    let (_folder, store) = store();
    let first = container("first", Digest::of(b"x"));
    make_container(&store, &first).unwrap();
    let clash = Container { id: "f".repeat(64), ..first.clone() };
    assert!(matches!(make_container(&store, &clash).unwrap_err(), Error::NameTaken { .. }));
    let second = container("second", Digest::of(b"x"));
    make_container(&store, &second).unwrap();
    let mut names: Vec<_> = store.containers().unwrap().into_iter().map(|c| c.name).collect();
    names.sort();
    assert_eq!(names, ["first", "second"]);
}

#[test]
fn regression_a_container_has_what_belongs_into_it_or_is_not_there() {
    let (_folder, store) = store();
    let made = container("c", Digest::of(b"x"));
    let refused = store.create_container(&made, |_, _| Err(Error::NoBlob(Digest::of(b"x"))));
    assert!(matches!(refused, Err(Error::NoBlob(_))));
    let prepare = |upper: &std::path::Path, work: &std::path::Path| -> Result<()> {
        assert_eq!(store.containers().unwrap(), []);
        fs::write(upper.join("file"), "content").unwrap();
        assert!(work.is_dir());
        Ok(())
    };
    store.create_container(&made, prepare).unwrap();
    assert_eq!(fs::read(store.upper(&made.id).join("file")).unwrap(), b"content");
    for dir in ["staging", "leases"] {
        assert_eq!(files_below(&store.root().join(dir)), 0, "{dir}");
    }
}

#[test]
fn regression_what_the_dead_were_removing_goes_with_the_next_command() {
    let (_folder, store) = store();
    make_container(&store, &container("c", Digest::of(b"x"))).unwrap();
    let root = store.root();
    for dir in ["trash/container-1/upper", "trash/snapshot-2/upper", "containers/3/upper"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::write(root.join("containers/3/config.removed"), "").unwrap();
    // Of this one the directory was to go.
    fs::create_dir(root.join("containers/5")).unwrap();
    // One that has lost its configuration in another way is left to a person.
    fs::create_dir_all(root.join("containers/4/upper")).unwrap();
    fs::write(root.join("leases/0123456789abcdef"), "").unwrap();
    fs::write(root.join("staging/file-0123456789abcdef"), "").unwrap();
    fs::write(root.join("trash/object-4"), "").unwrap();
    store.sweep_removed().unwrap();
    for dir in ["leases", "staging"] {
        assert_eq!(files_below(&root.join(dir)), 0, "{dir}");
    }
    let names = |dir: &str| crate::store::files::list(&root.join(dir)).unwrap();
    assert_eq!(names("trash"), ["object-4"]);
    let mut containers = names("containers");
    containers.sort();
    assert_eq!(containers, [container("c", Digest::of(b"x")).id.as_str(), "4"]);
}

#[test]
fn a_container_has_one_owner_at_a_time() {
    let (_folder, store) = store();
    let made = container("c", Digest::of(b"x"));
    make_container(&store, &made).unwrap();
    let lock = store.lock_container(&made.id).unwrap();
    let state = MountState {
        server: None,
        target: "/mnt".into(),
        pid: 42,
        writable: true,
        device: Some("0:52".to_owned()),
        boot: None,
        transport: None,
        data: None,
        since: Timestamp::UNIX_EPOCH,
        options: Vec::new(),
        foreground: false,
    };
    assert_eq!(store.mounted(&made.id).unwrap(), Mounted::No);
    store.set_mounted(&made.id, &state, &lock).unwrap();
    assert_eq!(store.mounted(&made.id).unwrap(), Mounted::Alive(state.clone()));
    let error = store.lock_container(&made.id).unwrap_err().to_string();
    assert!(error.ends_with("is in use: it is mounted at /mnt by process 42"), "{error}");
    drop(lock);
    assert_eq!(store.mounted(&made.id).unwrap(), Mounted::Dead(state));
    let lock = store.lock_container(&made.id).unwrap();
    store.clear_mounted(&made.id, &lock).unwrap();
    assert_eq!(store.mounted(&made.id).unwrap(), Mounted::No);
    store.remove_container(&made.id, &lock).unwrap();
    assert_eq!(store.containers().unwrap(), []);
    assert_eq!(fs::read_dir(store.root().join("trash")).unwrap().count(), 0);
}

#[test]
fn what_a_crash_of_the_machine_leaves_of_a_mount_is_swept() {
    let (_folder, store) = store();
    let mount = Container { ephemeral: true, ..container("mount", Digest::of(b"x")) };
    let work = container("work", Digest::of(b"x"));
    for made in [&mount, &work] {
        store.create_container(made, |_, _| Ok::<_, Error>(())).unwrap();
        // Of what was not made durable the name may be there and nothing else.
        let record = store.root().join("containers").join(&made.id).join("config.json");
        fs::write(record, [0; 3]).unwrap();
    }
    fs::write(store.upper(&work.id).join("file"), "precious").unwrap();
    assert_eq!(store.containers().unwrap(), []);
    store.sweep().unwrap();
    assert!(!store.upper(&mount.id).exists());
    assert!(store.upper(&work.id).join("file").exists(), "changes are never swept");
    assert!(store.container(&work.id).is_err(), "its record is damaged");
    let left = fs::read_dir(store.root().join("containers")).unwrap().count();
    assert_eq!(left, 1);
}

#[test]
fn collecting_takes_what_nothing_names() {
    let (_folder, store) = store();
    let keep = add_image(&mut store.stage().unwrap(), &tar(&[("a", LARGE), ("b", &[1; 17_000])]));
    let lose = add_image(&mut store.stage().unwrap(), &tar(&[("a", LARGE), ("c", &[2; 17_000])]));
    tag(&store, "keep", keep);
    tag(&store, "lose", lose);
    assert_eq!(store.collect().unwrap(), Collected::default());
    store.remove_reference(&RefName::Named("lose".parse().unwrap())).unwrap();
    let collected = store.collect().unwrap();
    assert_eq!((collected.layers.len(), collected.blobs.len(), collected.objects), (1, 2, 1));
    assert!(collected.bytes > 0);
    assert!(store.image(lose).is_err());
    let image = store.image(keep).unwrap();
    let mut tar = Vec::new();
    store.layer_tar(image.layers()[0]).unwrap().read_to_end(&mut tar).unwrap();
    assert_eq!(DiffId(Digest::of(&tar)), image.layers()[0]);
    store.remove_reference(&RefName::Named("keep".parse().unwrap())).unwrap();
    store.collect().unwrap();
    for dir in ["blobs", "objects", "layers", "chains", "trash"] {
        assert_eq!(files_below(&store.root().join(dir)), 0, "{dir}");
    }
}

#[test]
fn regression_collecting_leaves_an_image_whose_manifest_is_what_the_registry_has() {
    let (_folder, store) = store();
    let manifest = add_image(&mut store.stage().unwrap(), &tar(&[("f", LARGE)]));
    let to = Ref { manifest, target: Some(manifest), updated: Timestamp::UNIX_EPOCH };
    store.set_reference(&RefName::Named("pulled:1".parse().unwrap()), &to).unwrap();
    assert_eq!(store.collect().unwrap(), Collected::default());
    assert_eq!(store.image(manifest).unwrap().digest, manifest);
}

#[test]
fn collecting_leaves_what_a_lease_or_a_container_uses() {
    let (_folder, store) = store();
    let mut stage = store.stage().unwrap();
    let image = add_image(&mut stage, &tar(&[("a", LARGE)]));
    // The stage has made it and lives; then a lease; then a container.
    assert_eq!(store.collect().unwrap(), Collected::default());
    let mut lease = store.lease().unwrap();
    lease.claim(Claim::Image(image)).unwrap();
    drop(stage);
    assert_eq!(store.collect().unwrap(), Collected::default());
    make_container(&store, &container("c", image)).unwrap();
    drop(lease);
    assert_eq!(store.collect().unwrap(), Collected::default());
    let id = container("c", image).id;
    let lock = store.lock_container(&id).unwrap();
    store.remove_container(&id, &lock).unwrap();
    assert_eq!(store.collect().unwrap().layers.len(), 1);
}

#[test]
fn a_dead_lease_keeps_nothing_and_its_stage_is_swept() {
    let (_folder, store) = store();
    let dead = store.root().join("leases/0123456789abcdef");
    fs::write(&dead, "").unwrap();
    let staged = store.root().join("staging/0123456789abcdef/objects");
    fs::create_dir_all(&staged).unwrap();
    store.collect().unwrap();
    assert!(!dead.exists());
    assert!(!staged.exists());
}

#[test]
fn an_object_that_is_being_used_again_survives_collection() {
    let (_folder, store) = store();
    let image = add_image(&mut store.stage().unwrap(), &tar(&[("a", LARGE)]));
    // The image is not named, so its object is about to be collected when a new layer finds it.
    let mut stage = store.stage().unwrap();
    stage.put(Digest::of(LARGE), LARGE).unwrap();
    store.collect().unwrap();
    assert!(store.image(image).is_err());
    assert!(store.layout().object(Digest::of(LARGE)).exists());
    let unpacked =
        unpack(&tar(&[("b", LARGE)])[..], stage.layer_files().unwrap(), &mut stage).unwrap();
    stage.publish_layer(&unpacked).unwrap();
}

#[test]
fn what_a_killed_collector_moved_aside_is_brought_back_when_needed() {
    let (_folder, store) = store();
    let image = add_image(&mut store.stage().unwrap(), &tar(&[("a", LARGE)]));
    tag(&store, "image", image);
    let layer = store.image(image).unwrap().layers()[0];
    let object = Digest::of(LARGE);
    let trash = store.root().join("trash");
    let hex = layer.0.hex();
    fs::rename(store.layout().object(object), trash.join(format!("object-{}", object.hex())))
        .unwrap();
    fs::rename(store.layout().layer_index(layer), trash.join(format!("layer-{hex}.idx"))).unwrap();
    store.collect().unwrap();
    assert!(store.has_layer(layer));
    let mut tar = Vec::new();
    store.layer_tar(layer).unwrap().read_to_end(&mut tar).unwrap();
    assert_eq!(DiffId(Digest::of(&tar)), layer);
}

#[test]
fn regression_what_the_collector_has_for_a_moment_is_read_and_counts_as_missing() {
    let (_folder, store) = store();
    let layer = add_layer(&mut store.stage().unwrap(), &tar(&[("f", b"x")]));
    let blob = store.stage().unwrap().publish_blob(b"{}").unwrap();
    let layout = store.layout();
    fs::create_dir_all(store.root().join("trash")).unwrap();
    fs::rename(layout.layer_index(layer), layout.trashed_layer(layer)).unwrap();
    fs::rename(layout.blob(blob), layout.trashed_blob(blob)).unwrap();
    assert!(store.layer(layer).is_ok());
    assert_eq!(store.blob(blob).unwrap(), b"{}");
    // Who looks whether it has to be made is told that it is gone.
    assert!(!store.has_layer(layer));
    store.stage().unwrap().publish_blob(b"{}").unwrap();
    assert!(layout.blob(blob).exists());
}

#[test]
fn sources_of_a_layer_are_remembered() {
    let (_folder, store) = store();
    let layer = add_layer(&mut store.stage().unwrap(), &tar(&[("f", b"x")]));
    let blob = (Digest::of(b"gz"), 2, "gzip");
    store.add_source(layer, blob, "docker.io/library/a").unwrap();
    store.add_source(layer, blob, "docker.io/library/b").unwrap();
    store.add_source(layer, blob, "docker.io/library/a").unwrap();
    let sources = store.sources(layer).unwrap();
    assert_eq!(sources.len(), 1);
    assert_eq!(sources[0].repositories, ["docker.io/library/b", "docker.io/library/a"]);
}

#[test]
fn layers_that_were_kept_are_published_together_and_without_what_only_others_need() {
    let (_folder, store) = store();
    let shared = vec![1; 20_000];
    let large = vec![2; 2_000_000];
    let first = tar(&[("a", &shared), ("large", &large)]);
    let second = tar(&[("b", &shared), ("large too", &large)]);
    let unneeded = tar(&[("c", &[3; 20_000])]);
    let mut stage = store.stage().unwrap();
    let mut keep = |tar: &[u8]| {
        let unpacked = unpack(tar, stage.layer_files().unwrap(), &mut stage).unwrap();
        stage.keep_layer(&unpacked).unwrap();
        unpacked.diff_id
    };
    let [first_id, second_id, _] = [&first, &second, &unneeded].map(|tar| keep(tar));
    assert_eq!(fs::read_dir(store.root().join("layers")).unwrap().count(), 0);
    stage.publish_layers(&[first_id, second_id]).unwrap();
    drop(stage);
    for (layer, tar) in [(first_id, first), (second_id, second)] {
        let mut found = Vec::new();
        store.layer_tar(layer).unwrap().read_to_end(&mut found).unwrap();
        assert!(found == tar);
    }
    assert_eq!(fs::read_dir(store.root().join("layers")).unwrap().count(), 4);
    assert_eq!(files_below(&store.root().join("objects")), 2);
}

#[test]
fn a_layer_that_was_discarded_makes_room_for_the_next() {
    let (_folder, store) = store();
    let mut stage = store.stage().unwrap();
    let whole = tar(&[("large", &[1; 2_000_000])]);
    let files = stage.layer_files().unwrap();
    unpack(&whole[..1_000_000], files, &mut stage).unwrap_err();
    stage.discard_layer().unwrap();
    let layer = add_layer(&mut stage, &whole);
    assert!(store.has_layer(layer));
}
