//! What fuzzing does with this room: the documents of an image, and the texts that a person types.

use std::hint::black_box;

use crate::image::*;

/// Reads a manifest or an index. What can be read comes back the same when it was written.
pub(crate) fn manifest(data: &[u8]) {
    black_box(document_memory(data));
    for content_type in [None, Some(OCI_INDEX), Some("application/json; charset=utf-8")] {
        match Parsed::parse(data, content_type) {
            Ok(Parsed::Manifest(manifest)) => {
                drop(manifest.check_is_image());
                let again = Parsed::parse(&manifest.to_bytes(), content_type);
                assert_eq!(again.ok(), Some(Parsed::Manifest(manifest)));
            }
            Ok(Parsed::Index(index)) => {
                black_box(select(&index, &Platform::host()).map(is_image_entry));
                let again = Parsed::parse(&index.to_bytes(), content_type);
                assert_eq!(again.ok(), Some(Parsed::Index(index)));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// Reads a configuration, and makes an image of it as a commit does.
pub(crate) fn config(data: &[u8]) {
    let Ok(mut config) = ImageConfig::parse(data) else { return };
    assert_eq!(ImageConfig::parse(&config.to_bytes()).ok().as_ref(), Some(&config));
    let platform = config.platform();
    black_box(platform.matches(&Platform::host()));
    drop(platform.to_string());
    let layers = config.rootfs.diff_ids.clone();
    fill_history(&mut config.history, layers.len());
    config.history.push(History::default());
    let layers = [layers, vec![crate::digest::DiffId(crate::digest::Digest::of(b""))]].concat();
    let steps = steps(&config.history, &layers);
    assert_eq!(steps.iter().filter(|step| step.layer.is_some()).count(), layers.len());
    assert_eq!(steps.last().and_then(|step| step.layer), layers.last());
}

/// Reads a reference. What can be read is read again from what is shown of it, and no part of it leads
/// out of a folder.
pub(crate) fn reference(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    drop(Platform::parse(text).map(|platform| platform.normalized().to_string()));
    let Ok(reference) = Reference::parse(text) else { return };
    for shown in [reference.to_string(), reference.familiar()] {
        assert_eq!(Reference::parse(&shown).ok().as_ref(), Some(&reference), "{shown}");
    }
    let parts = reference.domain().split('/').chain(reference.path().split('/'));
    for part in parts.chain(reference.tag()) {
        assert!(!part.starts_with(['.', '_']) || Some(part) == reference.tag(), "{part}");
        assert!(!matches!(part, "" | "." | "..") && !part.contains(['/', '\0']), "{part}");
    }
    drop(reference.tag_or_latest().repository());
}

/// Reads the instructions that `--change` takes, and edits; a line for each.
pub(crate) fn changes(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let mut config = ContainerConfig::default();
    let lines: Vec<_> = text.lines().collect();
    if apply_changes(&lines, &mut config).is_ok() {
        let image = ImageConfig { config, ..ImageConfig::default() };
        assert_eq!(ImageConfig::parse(&image.to_bytes()).ok(), Some(image));
    }
}
