//! Whatever is damaged is found, and named.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::store::fsck::Part;

/// Files that nobody misses: what they say is gone with them, or they are made again when needed.
fn may_be_gone(path: &Path) -> bool {
    let text = path.to_str().unwrap();
    ["checked", "leases/", "pins/", "used/", "refs/"].iter().any(|part| text.starts_with(part))
        || ["src", "lock"].iter().any(|end| text.ends_with(end) && !text.ends_with("/lock"))
        || text.ends_with("state")
        || text.ends_with("twins.json")
}

#[test]
fn a_flipped_bit_anywhere_is_found_and_named() {
    // More of them: STRATA_FSCK_FLIPS.
    let flips = std::env::var("STRATA_FSCK_FLIPS").map_or(1, |flips| flips.parse().unwrap());
    let rich = Rich::new();
    let mut random = Random::new();
    let seed = random.0;
    let files = rich.files();
    // One of each kind at least, or this test tests less than it says.
    for part in [
        "FORMAT",
        "blobs/",
        "objects/",
        ".idx",
        ".tar",
        ".src",
        "chains/",
        "_tags/",
        "_untagged/",
        "config.json",
        "state",
        "snapshot.json",
        "twins.json",
        "sums",
        "dir/file",
        "leases/",
        "checked",
    ] {
        assert!(files.iter().any(|path| path.to_str().unwrap().contains(part)), "{part}");
    }
    for file in files {
        let path = rich.path(&file);
        let good = fs::read(&path).unwrap();
        for _ in 0..flips {
            let mut bad = good.clone();
            if bad.is_empty() {
                bad.push(1);
            } else {
                let bit = random.below(bad.len() * 8);
                bad[bit / 8] ^= 1 << (bit % 8);
            }
            overwrite(&path, &bad);
            let found = rich.faults();
            let named = found.iter().any(|fault| fault.path == file);
            assert!(named, "seed {seed}: {}: {found:?}", file.display());
            // A check writes this one anew.
            if !file.ends_with("checked") {
                overwrite(&path, &good);
            }
        }
    }
    assert_eq!(rich.faults(), []);
}

#[test]
fn a_file_that_is_cut_off_gone_or_something_else_is_found() {
    let rich = Rich::new();
    for file in rich.files() {
        let path = rich.path(&file);
        let good = fs::read(&path).unwrap();
        let permissions = fs::metadata(&path).unwrap().permissions();
        let must_be_there = !may_be_gone(&file) && rich.is_needed(&file);
        let named = |what: &str| {
            let found = rich.faults();
            let named = found.iter().any(|fault| fault.path == file);
            assert!(named, "{}: {what}: {found:?}", file.display());
        };
        if !good.is_empty() {
            overwrite(&path, &good[..good.len() - 1]);
            // The last record of these may be one that is being written.
            if !file.ends_with("checked") && !file.starts_with("leases") {
                named("cut off");
            }
            overwrite(&path, &good);
        }
        // A check has this one open, and locks that one.
        if file.starts_with("leases") || file.ends_with("fsck.lock") || file.ends_with("checked") {
            continue;
        }
        let dir = path.parent().unwrap();
        let times = fs::metadata(dir).unwrap().modified().unwrap();
        let aside = rich.store.root().join("staging/test-aside");
        fs::rename(&path, &aside).unwrap();
        if must_be_there {
            named("gone");
        }
        if !file.starts_with("FORMAT") {
            fs::create_dir(&path).unwrap();
            named("a directory");
            fs::remove_dir(&path).unwrap();
            symlink("/etc/hostname", &path).unwrap();
            named("a link");
            fs::remove_file(&path).unwrap();
        }
        fs::rename(&aside, &path).unwrap();
        fs::set_permissions(&path, permissions).unwrap();
        File::open(dir).unwrap().set_modified(times).unwrap();
        assert_eq!(rich.faults(), [], "{}", file.display());
    }
}

impl Rich {
    /// Tells whether the image or the container needs a file.
    fn is_needed(&self, file: &Path) -> bool {
        let image = self.store.image(self.image).unwrap();
        let layer = image.layers()[0].0.hex();
        let name = file.to_str().unwrap();
        let objects = [LARGE, &[3; 40_000], &[5; 17_000]].map(|bytes| Digest::of(bytes).hex());
        let unneeded = Digest::of(b"what a registry has").hex();
        match name.split('/').next().unwrap() {
            "layers" => name.contains(&layer),
            "objects" => objects.iter().any(|object| name.contains(object)),
            "blobs" => !name.contains(&unneeded),
            _ => true,
        }
    }
}

#[test]
fn what_a_fault_touches_is_named() {
    let rich = Rich::new();
    let path = rich.store.layout().object(rich.huge);
    let good = fs::read(&path).unwrap();
    overwrite(&path, &[b'x'; 40_000]);
    let found = rich.faults();
    let images = ["other:1".to_owned(), "pulled:1".to_owned()];
    // The tar cannot be made either.
    assert_eq!(found.len(), 2);
    for fault in found {
        assert_eq!(
            (&fault.images[..], &fault.containers[..]),
            (&images[..], &["box".to_owned()][..])
        );
    }
    overwrite(&path, &good);
    let file = rich.snapshot_file("1", "dir/file");
    overwrite(&file, b"chAnged");
    let found = rich.faults();
    // Both snapshots have it as one file.
    assert_eq!(found.len(), 2);
    for fault in found {
        assert!(fault.path.ends_with("upper/dir/file"), "{fault:?}");
        assert_eq!((fault.images.len(), &fault.containers[..]), (0, &["box".to_owned()][..]));
    }
}

#[test]
fn one_image_alone_is_checked_with_its_containers() {
    let rich = Rich::new();
    let other = rich.store.layout().object(Digest::of(&[5; 17_000]));
    overwrite(&other, b"damaged");
    assert_eq!(rich.faults_of(Some(rich.image)), []);
    overwrite(&rich.store.layout().object(rich.huge), b"damaged");
    let config = rich.store.root().join("containers").join(&rich.container.id).join("lock");
    fs::write(config, "x").unwrap();
    let found = rich.faults_of(Some(rich.image));
    let parts: Vec<_> = found.iter().map(|fault| &fault.part).collect();
    let object = Part::Object(rich.huge);
    assert!(parts.contains(&&object) && parts.contains(&&Part::Mark), "{parts:?}");
}

#[test]
fn permissions_and_names_that_should_not_be_are_told() {
    let rich = Rich::new();
    let object = rich.store.layout().object(rich.huge);
    fs::set_permissions(&object, fs::Permissions::from_mode(0o644)).unwrap();
    let root = fs::Permissions::from_mode(0o777);
    fs::set_permissions(rich.store.root(), root).unwrap();
    let found = rich.mend();
    let permissions =
        found.iter().filter(|(fault, _)| matches!(fault.part, Part::Permissions(_))).count();
    assert_eq!(permissions, 2, "{found:?}");
    assert_eq!(fs::metadata(&object).unwrap().permissions().mode() & 0o777, 0o444);
    assert_eq!(fs::metadata(rich.store.root()).unwrap().permissions().mode() & 0o777, 0o755);
    for stray in
        ["letter.txt", "layers/letter", "objects/zz", "objects/00/letter", "refs/letter", "blobs/x"]
    {
        fs::write(rich.path(stray.as_ref()), "x").unwrap();
    }
    fs::create_dir(rich.path("containers/nobody".as_ref())).unwrap();
    fs::create_dir(rich.path("staging/0123456789abcdef".as_ref())).unwrap();
    fs::write(object.with_extension("bad"), "what was set apart before").unwrap();
    let mut strays = Vec::new();
    rich.run(None, &mut |_, faults| {
        strays.extend(faults.into_iter().filter(|fault| fault.part.is_harmless()));
    });
    assert_eq!(strays.len(), 9, "{strays:?}");
    assert_eq!(rich.mend(), []);
    assert!(!object.with_extension("bad").exists());
    assert!(!rich.path("staging/0123456789abcdef".as_ref()).exists());
}

#[test]
fn a_directory_that_is_gone_is_found_and_made_again() {
    let rich = Rich::new();
    for dir in crate::store::layout::DIRECTORIES.iter().chain(&["objects/00"]) {
        // A check has made these again by then, or could make nothing.
        if ["staging", "leases"].contains(dir) {
            continue;
        }
        let (path, away) = (rich.path(dir.as_ref()), rich.store.root().with_extension("away"));
        fs::rename(&path, &away).unwrap();
        let found = rich.faults();
        let named = found.iter().any(|fault| fault.part == Part::Directory);
        assert!(named, "{dir}: {found:?}");
        fs::rename(&away, &path).unwrap();
        assert_eq!(rich.faults(), [], "{dir}");
    }
    fs::remove_dir(rich.path("trash".as_ref())).unwrap();
    fs::write(rich.path("trash".as_ref()), "a file").unwrap();
    rich.mends_one();
}

#[test]
fn a_chain_that_is_not_the_merge_of_its_layers_is_found() {
    let rich = Rich::new();
    let image = rich.store.image(rich.image).unwrap();
    let layers = image.layers();
    // A whole chain of the same name, of a layer that has something else in it.
    let other = tempfile::tempdir().unwrap();
    let other = Store::open(&other.path().join("store")).unwrap();
    let mut stage = other.stage().unwrap();
    let layer = add_layer(&mut stage, &tar(&[("else", b"x")]));
    stage.publish_chain(&[layer]).unwrap();
    let chain = |layers| crate::digest::ChainId::of(layers);
    let path = rich.store.layout().chain(chain(layers));
    fs::remove_file(&path).unwrap();
    fs::copy(other.layout().chain(chain(&[layer])), &path).unwrap();
    let found = rich.mend();
    assert!(matches!(&found[..], [(Fault { part: Part::Chain(_), .. }, Outcome::Mended(_))]));
    assert_eq!(rich.faults(), []);
}
