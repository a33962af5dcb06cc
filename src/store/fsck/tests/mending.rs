//! What is damaged is mended with what the store has, or set apart.

use super::*;
use crate::store::fsck::Part;

/// Damages a file, mends the store, and returns what became of it.
fn mended(rich: &Rich, path: &Path, bytes: &[u8]) -> Vec<(Fault, Outcome)> {
    overwrite(path, bytes);
    rich.mend()
}

#[test]
fn a_single_wrong_bit_is_turned_back_wherever_there_is_a_sum() {
    let rich = Rich::new();
    let mut random = Random::new();
    let seed = random.0;
    let huge = rich.store.layout().object(rich.huge);
    for file in rich.files() {
        let path = rich.path(&file);
        // What nobody needs is removed, what is large is not looked through, what runs is not written to.
        let is_left = path == huge || !path.exists() || file.starts_with("leases");
        if is_left || file.ends_with("checked") {
            continue;
        }
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        if bad.is_empty() {
            bad.push(1);
        } else {
            let bit = random.below(bad.len() * 8);
            bad[bit / 8] ^= 1 << (bit % 8);
        }
        let outcomes = mended(&rich, &path, &bad);
        let all = outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Mended(_)));
        let is_unmended = file.ends_with("upper/dir/file");
        assert!(all != is_unmended, "seed {seed}: {}: {outcomes:?}", file.display());
        if is_unmended {
            overwrite(&path, &good);
        }
        assert_eq!(rich.faults(), [], "seed {seed}: {}", file.display());
        let is_same = file.ends_with("sums")
            || file.ends_with("twins.json")
            || fs::read(&path).map_or(true, |now| now == good);
        assert!(is_same, "seed {seed}: {}", file.display());
    }
    assert_eq!(rich.store.image(rich.image).unwrap().digest, rich.image);
}

#[test]
fn what_is_damaged_for_good_is_set_apart_and_comes_back_with_its_layer() {
    let rich = Rich::new();
    let layer = rich.store.image(rich.image).unwrap().layers()[0];
    let huge = rich.store.layout().object(rich.huge);
    let good = fs::read(&huge).unwrap();
    let outcomes = mended(&rich, &huge, &[b'x'; 40_000]);
    let (_, outcome) =
        outcomes.iter().find(|(fault, _)| fault.part == Part::Object(rich.huge)).unwrap();
    let Outcome::Left(what) = outcome else { panic!("{outcome:?}") };
    assert!(what.contains("set apart") && what.contains("'strata pull pulled:1'"), "{what}");
    assert!(!huge.exists() && huge.with_extension("bad").exists());
    let error = rich.store.chain(&[layer]).unwrap_err().to_string();
    assert!(error.contains(&layer.to_string()) && error.contains("set apart"), "{error}");
    assert!(error.contains("'strata pull pulled:1'"), "{error}");
    assert!(!rich.store.has_layer(layer));
    // It is told again, and what is left of it is not collected.
    let found = rich.faults();
    assert!(matches!(&found[..], [Fault { part: Part::Apart(_), .. }]), "{found:?}");
    rich.store.collect().unwrap();
    assert!(rich.store.layout().object(Digest::of(LARGE)).exists());
    // Whoever has the layer brings it back.
    let files: [(&str, &[u8]); 3] = [("small", b"text"), ("large", LARGE), ("huge", &good)];
    assert_eq!(add_layer(&mut rich.store.stage().unwrap(), &tar(&files)), layer);
    assert!(rich.store.has_layer(layer));
    assert_eq!(rich.faults(), []);
    assert!(!huge.with_extension("bad").exists());
    assert!(rich.files().iter().all(|path| path.extension().is_none_or(|end| end != "bad")));
}

#[test]
fn a_layer_comes_back_when_what_it_lacked_is_there_again() {
    let rich = Rich::new();
    let huge = rich.store.layout().object(rich.huge);
    let good = fs::read(&huge).unwrap();
    mended(&rich, &huge, b"damaged");
    fs::write(&huge, &good).unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&huge, fs::Permissions::from_mode(0o444)).unwrap();
    rich.mends_one();
}

#[test]
fn an_index_is_made_again_of_what_makes_the_tar() {
    let rich = Rich::new();
    let layer = rich.store.image(rich.image).unwrap().layers()[0];
    let path = rich.store.layout().layer_index(layer);
    let good = fs::read(&path).unwrap();
    let name = good.windows(4).position(|bytes| bytes == b"huge").expect("it has the name");
    let mut bad = good.clone();
    bad[name..name + 4].copy_from_slice(b"HUGE");
    let outcomes = mended(&rich, &path, &bad);
    let how = Outcome::mended("it was made again of its recipe and contents");
    assert_eq!(outcomes[0].1, how, "{outcomes:?}");
    assert_eq!(fs::read(&path).unwrap(), good);
    // The small contents are in it alone.
    let heap = good.windows(4).position(|bytes| bytes == b"text").unwrap();
    let mut bad = good.clone();
    bad[heap..heap + 4].copy_from_slice(b"TEXT");
    let outcomes = mended(&rich, &path, &bad);
    assert!(matches!(outcomes[0].1, Outcome::Left(_)), "{outcomes:?}");
}

#[test]
fn a_recipe_that_is_lost_leaves_an_image_that_can_be_mounted() {
    let rich = Rich::new();
    let layer = rich.store.image(rich.image).unwrap().layers()[0];
    fs::remove_file(rich.store.layout().layer_recipe(layer)).unwrap();
    let outcomes = rich.mend();
    assert!(matches!(&outcomes[..], [(_, Outcome::Left(_))]), "{outcomes:?}");
    assert!(rich.store.chain(&[layer]).is_ok());
    assert!(!rich.store.has_layer(layer));
}

#[test]
fn a_lost_name_leaves_its_image_without_one() {
    let rich = Rich::new();
    let (pulled, other) = ("pulled:1", "other:1");
    let path = |name: &str| rich.store.ref_path(&RefName::Named(name.parse().unwrap()));
    // It still says which image, and the store has that: no doubt is left.
    let good = fs::read(path(pulled)).unwrap();
    let cut = good.len() - 30;
    let outcomes = mended(&rich, &path(pulled), &good[..cut]);
    assert!(matches!(&outcomes[..], [(_, Outcome::Mended(_))]), "{outcomes:?}");
    let to = rich.store.reference(&RefName::Named(pulled.parse().unwrap())).unwrap().unwrap();
    assert_eq!(to.manifest, rich.image);
    // The container goes, and the name that is left says nothing any more.
    let lock = rich.store.lock_container(&rich.container.id).unwrap();
    rich.store.remove_container(&rich.container.id, &lock).unwrap();
    rich.store.remove_reference(&RefName::Named(pulled.parse().unwrap())).unwrap();
    let outcomes = mended(&rich, &path(other), b"nothing");
    let [(_, Outcome::Left(what))] = &outcomes[..] else { panic!("{outcomes:?}") };
    let id = rich.store.image(rich.image).unwrap().id().short();
    assert!(what.contains("the name is lost") && what.ends_with(&id), "{what}");
    let untagged = rich.store.reference(&RefName::Untagged(rich.image)).unwrap();
    assert_eq!(untagged.unwrap().manifest, rich.image);
    assert_eq!(rich.faults(), []);
}

#[test]
fn records_are_written_anew_by_what_is_known_elsewhere() {
    let rich = Rich::new();
    let store = &rich.store;
    let id = &rich.container.id;
    let untagged = store.references().unwrap().into_iter().find_map(|(name, to)| match name {
        RefName::Untagged(_) => Some((name, to.manifest)),
        RefName::Named(_) => None,
    });
    let (untagged, manifest) = untagged.unwrap();
    let snapshot = store.snapshot(id, "1");
    let config = store.root().join("containers").join(id).join("config.json");
    let text =
        fs::read_to_string(&config).unwrap().replace("\"image\": \"image\"", "\"image\": \"x\"");
    for (path, bytes) in [
        (store.layout().format(), &b"?"[..]),
        (store.ref_path(&untagged), b"?"),
        (snapshot.join("snapshot.json"), b"?"),
        (snapshot.join("twins.json"), b"?"),
        (snapshot.join("sums"), b"?"),
        (store.layout().layer_sources(store.image(rich.image).unwrap().layers()[0]), b"?"),
        (config, text.as_bytes()),
        (store.root().join("containers").join(id).join("state"), b"?"),
    ] {
        let outcomes = mended(&rich, &path, bytes);
        assert!(matches!(&outcomes[..], [(_, Outcome::Mended(_))]), "{outcomes:?}");
        assert_eq!(rich.faults(), []);
    }
    assert_eq!(store.reference(&untagged).unwrap().unwrap().manifest, manifest);
    assert_eq!(store.snapshots(id).unwrap().len(), 2);
    let container = store.container(id).unwrap().unwrap();
    assert_eq!((container.image.as_str(), container.name.as_str()), ("x", "box"));
}

#[test]
fn a_container_whose_record_is_lost_keeps_what_it_had_changed() {
    let rich = Rich::new();
    let id = &rich.container.id;
    let config = rich.store.root().join("containers").join(id).join("config.json");
    let outcomes = mended(&rich, &config, b"?");
    let [(_, Outcome::Left(what))] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert!(what.contains(rich.store.upper(id).to_str().unwrap()), "{what}");
    assert_eq!(fs::read(rich.store.upper(id).join("dir/file")).unwrap(), b"changed again");
    assert_eq!(rich.store.containers().unwrap(), []);
    assert_eq!(rich.faults(), []);
    rich.store.collect().unwrap();
}

#[test]
fn a_file_of_a_snapshot_is_taken_from_where_its_content_is() {
    let rich = Rich::new();
    let file = rich.snapshot_file("1", "copied");
    let taken = |from: &str| {
        let outcomes = mended(&rich, &file, &[b'x'; 10_000]);
        // The other snapshot has the same file.
        let [(_, Outcome::Mended(how)), (_, Outcome::Mended(_))] = &outcomes[..] else {
            panic!("{outcomes:?}")
        };
        assert!(how.contains(from), "{how}");
        assert_eq!(fs::read(&file).unwrap(), LARGE);
        assert_eq!(rich.faults(), []);
    };
    taken("objects/");
    // The image has it, too; without that the container still has.
    fs::rename(rich.store.layout().object(Digest::of(LARGE)), rich.path("away".as_ref())).unwrap();
    overwrite(&file, &[b'x'; 10_000]);
    let outcomes = rich.mend();
    let is_upper = |outcome: &Outcome| matches!(outcome, Outcome::Mended(how) if how.contains("/upper/copied"));
    assert!(outcomes.iter().any(|(_, outcome)| is_upper(outcome)), "{outcomes:?}");
    assert_eq!(fs::read(&file).unwrap(), LARGE);
}
