//! The images that an OCI layout lists.
//!
//! `index.json` lists images; only where several are under one name, or an index stands for an image,
//! is it a choice of platforms. What it lists besides images (attestations, artifacts) is passed over.

use crate::archive::document::{IMAGE_NAME, INDEX, REF_NAME, blob_file};
use crate::archive::error::{Error, Result};
use crate::archive::images::{ArchivedImage, ArchivedLayer, Source, document, reference};
use crate::digest::Digest;
use crate::image::{
    Descriptor, ImageConfig, Index, Manifest, Parsed, Platform, Reference, is_image_entry, select,
};

/// Most images of an archive.
pub(crate) const MAX_IMAGES: usize = 1000;

/// Images under one name: one, or a choice of platforms.
struct Choice {
    name: Option<String>,
    entries: Vec<Descriptor>,
}

/// What a layout has.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    pub(crate) images: Vec<ArchivedImage>,
    /// Images whose manifests do not have all layers, by their ids: docker 25.0 wrote such ones. Its
    /// own document has the layers.
    pub(crate) incomplete: Vec<(Digest, Vec<Reference>, Error)>,
    pub(crate) warnings: Vec<String>,
}

/// Returns the images that `index.json` lists, one for each name.
pub(crate) fn images(
    source: &dyn Source,
    index: &[u8],
    platform: Option<&Platform>,
) -> Result<Layout> {
    let index = match parse(INDEX, index, None)? {
        Parsed::Index(index) => index,
        Parsed::Manifest(_) => return Err(Error::NotImages),
    };
    if index.manifests.len() > MAX_IMAGES {
        return Err(Error::TooMany { what: "images", limit: MAX_IMAGES });
    }
    let mut layout = Layout::default();
    for choice in choices(index) {
        let names = names(&choice.entries[0], &mut layout.warnings);
        let chosen = choose(source, INDEX, choice, platform)?;
        match image(source, &chosen, platform, names)? {
            Found::Image(image) => layout.add(*image),
            Found::Incomplete(id, names, error) => layout.incomplete.push((id, names, error)),
            Found::Artifact(text) => layout.warnings.push(text),
        }
    }
    Ok(layout)
}

/// Returns the ids of all images that `index.json` leads to, for whatever platform.
pub(crate) fn all_ids(source: &dyn Source, index: &[u8]) -> Result<Vec<Digest>> {
    let mut ids = Vec::new();
    let mut pending = match parse(INDEX, index, None)? {
        Parsed::Index(index) => index.manifests,
        Parsed::Manifest(_) => Vec::new(),
    };
    let mut seen = std::collections::HashSet::new();
    while let Some(entry) = pending.pop() {
        if !seen.insert(entry.digest) || seen.len() > MAX_IMAGES {
            continue;
        }
        let file = blob_file(entry.digest);
        let Some(bytes) = source.document(&file)? else { continue };
        // What nobody chooses may be anything.
        match Parsed::parse(&bytes, Some(&entry.media_type)) {
            Ok(Parsed::Manifest(manifest)) => ids.push(manifest.config.digest),
            Ok(Parsed::Index(index)) => pending.extend(index.manifests),
            Err(_) => {}
        }
    }
    Ok(ids)
}

impl Layout {
    /// Adds an image; one that is there already gets more names.
    fn add(&mut self, image: ArchivedImage) {
        match self.images.iter_mut().find(|other| other.id == image.id) {
            Some(known) => known.add_names(image.names),
            None => self.images.push(image),
        }
    }
}

enum Found {
    Image(Box<ArchivedImage>),
    Incomplete(Digest, Vec<Reference>, Error),
    /// What it is instead of an image.
    Artifact(String),
}

fn parse(file: &str, bytes: &[u8], media_type: Option<&str>) -> Result<Parsed> {
    Parsed::parse(bytes, media_type)
        .map_err(|source| Error::Document { file: file.to_owned(), source })
}

/// Sorts the entries of `index.json` by name. Those without one are images of their own, unless each
/// is for another platform.
fn choices(index: Index) -> Vec<Choice> {
    let mut choices: Vec<Choice> = Vec::new();
    let mut nameless = Vec::new();
    for entry in index.manifests.into_iter().filter(is_image_entry) {
        let Some(name) = name_text(&entry).map(str::to_owned) else {
            nameless.push(entry);
            continue;
        };
        match choices.iter_mut().find(|choice| choice.name.as_ref() == Some(&name)) {
            Some(choice) => choice.entries.push(entry),
            None => choices.push(Choice { name: Some(name), entries: vec![entry] }),
        }
    }
    if are_platforms(&nameless) {
        choices.push(Choice { name: None, entries: nameless });
    } else {
        let alone = |entry| Choice { name: None, entries: vec![entry] };
        choices.extend(nameless.into_iter().map(alone));
    }
    choices
}

fn are_platforms(entries: &[Descriptor]) -> bool {
    let platform = |entry: &Descriptor| entry.platform.as_ref().map(ToString::to_string);
    let platforms: Option<std::collections::BTreeSet<_>> = entries.iter().map(platform).collect();
    entries.len() > 1 && platforms.is_some_and(|platforms| platforms.len() == entries.len())
}

fn name_text(entry: &Descriptor) -> Option<&str> {
    let found = entry.annotations.get(IMAGE_NAME).or_else(|| entry.annotations.get(REF_NAME));
    found.map(String::as_str).filter(|name| !name.is_empty())
}

/// Returns the name that an entry gives its image. A tag alone names none: of which repository?
fn names(entry: &Descriptor, warnings: &mut Vec<String>) -> Vec<Reference> {
    let full = entry.annotations.contains_key(IMAGE_NAME);
    let name = name_text(entry).filter(|name| full || name.contains(['/', ':', '@']));
    name.and_then(|name| reference(name, warnings)).into_iter().collect()
}

/// Returns the manifest to take of several, or of an index.
fn choose(
    source: &dyn Source,
    file: &str,
    choice: Choice,
    platform: Option<&Platform>,
) -> Result<Descriptor> {
    let chosen = choose_entry(source, file, choice.entries, platform)?;
    let bytes = blob(source, file, &chosen)?;
    let file = blob_file(chosen.digest);
    let Parsed::Index(index) = parse(&file, &bytes, Some(&chosen.media_type))? else {
        return Ok(chosen);
    };
    let chosen = choose_entry(source, &file, index.manifests, platform)?;
    let bytes = blob(source, &file, &chosen)?;
    match parse(&blob_file(chosen.digest), &bytes, Some(&chosen.media_type))? {
        Parsed::Manifest(_) => Ok(chosen),
        Parsed::Index(_) => Err(Error::NestedIndex(chosen.digest)),
    }
}

/// Returns the entry for a platform, of those that are in the archive: not all of an index need be.
fn choose_entry(
    source: &dyn Source,
    file: &str,
    entries: Vec<Descriptor>,
    platform: Option<&Platform>,
) -> Result<Descriptor> {
    let missing =
        |entry: &Descriptor| Error::Missing { by: file.to_owned(), file: blob_file(entry.digest) };
    let mut images: Vec<_> = entries.into_iter().filter(is_image_entry).collect();
    let first_missing = images.first().map(missing);
    let mut present = Vec::new();
    for entry in images.drain(..) {
        if source.has(&blob_file(entry.digest))? {
            present.push(entry);
        }
    }
    match (present.as_slice(), first_missing) {
        ([], Some(missing)) => return Err(missing),
        // One is no choice. Which platform it is for is checked where it is known for sure.
        ([only], _) => return Ok(only.clone()),
        _ => {}
    }
    let wanted = platform.cloned().unwrap_or_else(Platform::host);
    let found = present.iter().filter_map(|entry| entry.platform.as_ref()).map(ToString::to_string);
    let found = found.collect::<Vec<_>>().join(", ");
    let index = Index::new(present);
    select(&index, &wanted).cloned().ok_or_else(|| Error::NoPlatform {
        file: file.to_owned(),
        wanted: wanted.to_string(),
        found,
    })
}

/// Reads the image that a manifest of the archive is for.
fn image(
    source: &dyn Source,
    entry: &Descriptor,
    platform: Option<&Platform>,
    names: Vec<Reference>,
) -> Result<Found> {
    let file = blob_file(entry.digest);
    let manifest_bytes = blob(source, INDEX, entry)?;
    let Parsed::Manifest(manifest) = parse(&file, &manifest_bytes, Some(&entry.media_type))? else {
        return Err(Error::NestedIndex(entry.digest));
    };
    let in_manifest = |source| Error::Document { file: file.clone(), source };
    match manifest.check_is_image() {
        Err(error @ crate::image::Error::NotAnImage { .. }) if names.is_empty() => {
            return Ok(Found::Artifact(format!("{file} is left out: {error}")));
        }
        checked => checked.map_err(in_manifest)?,
    }
    let config_bytes = blob(source, &file, &manifest.config)?;
    let id = manifest.config.digest;
    let config_file = blob_file(id);
    let config = ImageConfig::parse(&config_bytes)
        .map_err(|source| Error::Document { file: config_file, source })?;
    if let Err(error) = config.check_layers(&manifest) {
        return Ok(Found::Incomplete(id, names, in_manifest(error)));
    }
    let layers = layers(source, &file, &manifest, &config)?;
    let image = ArchivedImage {
        id,
        names,
        config_bytes,
        config,
        manifest: Some((manifest, manifest_bytes)),
        layers,
    };
    image.check_platform(platform)?;
    Ok(Found::Image(Box::new(image)))
}

fn layers(
    source: &dyn Source,
    by: &str,
    manifest: &Manifest,
    config: &ImageConfig,
) -> Result<Vec<ArchivedLayer>> {
    let pairs = manifest.layers.iter().zip(&config.rootfs.diff_ids);
    pairs
        .map(|(blob, diff_id)| {
            let file = blob_file(blob.digest);
            if !source.has(&file)? {
                return Err(Error::Missing { by: by.to_owned(), file });
            }
            Ok(ArchivedLayer { file, diff_id: *diff_id, blob: Some((blob.digest, blob.size)) })
        })
        .collect()
}

/// Reads a blob that is a document, and checks it.
fn blob(source: &dyn Source, by: &str, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let file = blob_file(descriptor.digest);
    let bytes = document(source, by, &file)?;
    let actual = Digest::of(&bytes);
    if actual != descriptor.digest {
        return Err(Error::Digest { file, expected: descriptor.digest, actual });
    }
    let (expected, actual) = (descriptor.size, bytes.len() as u64);
    if actual != expected {
        return Err(Error::Size { file, expected, actual });
    }
    Ok(bytes)
}
