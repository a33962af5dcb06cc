//! Tests of what a stage publishes at once.

use std::fs;
use std::path::Path;

use crate::digest::{ChainId, DiffId, Digest};
use crate::layer::unpack;
use crate::store::tests::{LARGE, add_layer, store, tar};
use crate::store::*;

/// Returns the chain of two layers, as it is made where the chain of the first is there or not, and is
/// damaged or not.
fn chain_of_two(has_base: bool, is_damaged: bool) -> Vec<u8> {
    let below = tar(&[("a", b"1"), ("dir/b", b"2"), ("dir/deep/c", b"3"), ("other/d", b"4")]);
    let above = tar(&[("dir/b", b"new"), ("other/.wh.d", b""), ("e", b"5")]);
    let (_folder, store) = store();
    let mut stage = store.stage().unwrap();
    let layers = [&below, &above].map(|tar| add_layer(&mut stage, tar));
    if has_base {
        stage.publish_chain(&layers[..1]).unwrap();
    }
    if is_damaged {
        let base = store.layout().chain(ChainId::of(&layers[..1]));
        fs::remove_file(&base).unwrap();
        fs::write(&base, [0; 5000]).unwrap();
    }
    stage.publish_chain(&layers).unwrap();
    fs::read(store.layout().chain(ChainId::of(&layers))).unwrap()
}

#[test]
fn a_chain_on_one_that_is_there_is_that_of_its_layers_also_when_that_one_is_damaged() {
    let alone = chain_of_two(false, false);
    assert!(alone == chain_of_two(true, false));
    assert!(alone == chain_of_two(true, true));
}

/// Keeps a layer in a stage, and publishes it as an image if there is reason to.
fn publish(stage: &mut Stage, name: &RefName, has_reason: bool) -> (DiffId, bool) {
    let tar = tar(&[("small", b"1"), ("large", LARGE)]);
    let unpacked = unpack(&tar[..], stage.layer_files().unwrap(), stage).unwrap();
    stage.keep_layer(&unpacked).unwrap();
    let layer = unpacked.diff_id;
    let manifest = Digest::of(b"manifest");
    let image = NewImage {
        layers: &[layer],
        chain: &[layer],
        blobs: &[b"manifest", b"configuration"],
        name,
        to: &Ref { manifest, target: None, updated: jiff::Timestamp::UNIX_EPOCH },
    };
    (layer, stage.publish_image(&image, || Ok(has_reason)).unwrap())
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let below = entries.flat_map(|path| match path.is_dir() {
        true => names(&path),
        false => vec![path.display().to_string()],
    });
    below.collect()
}

#[test]
fn an_image_has_no_name_while_there_is_no_reason_for_it_and_is_whole_when_there_is() {
    let (_folder, store) = store();
    let name = RefName::Named("demo:1".parse().unwrap());
    let mut stage = store.stage().unwrap();
    let (_, is_published) = publish(&mut stage, &name, false);
    assert!(!is_published);
    for dir in ["blobs", "chains", "layers", "objects", "refs"] {
        assert!(names(&store.root().join(dir)).is_empty(), "{dir}");
    }
    let (layer, is_published) = publish(&mut stage, &name, true);
    assert!(is_published);
    drop(stage);
    assert!(store.has_layer(layer) && store.verified_chain(ChainId::of(&[layer])).unwrap());
    assert_eq!(store.blob(Digest::of(b"configuration")).unwrap(), b"configuration");
    let to = store.reference(&name).unwrap().unwrap();
    assert_eq!(to.manifest, Digest::of(b"manifest"));
    assert!(names(&store.root().join("staging")).is_empty());
}

#[test]
fn a_store_goes_on_with_the_size_up_to_which_its_contents_are_inline() {
    for (inline_max, objects) in [(INLINE_MAX_WITHOUT, 1), (INLINE_MAX, 0)] {
        let (_folder, made) = store();
        write_format(made.layout(), inline_max).unwrap();
        let store = Store::open(made.root()).unwrap();
        add_layer(&mut store.stage().unwrap(), &tar(&[("f", &[1; 5000])]));
        assert_eq!(names(&store.root().join("objects")).len(), objects);
        // Where nothing says it any more, the layers do.
        fs::remove_file(store.layout().format()).unwrap();
        let lost = Store::open_to_check(store.root()).unwrap();
        assert_eq!(lost.inline_max, inline_max);
    }
}
