//! Which images an archive has: their names, their documents, and the files that their layers are in.

use std::cell::Cell;

use crate::archive::document::{
    DockerImage, INDEX, MANIFEST, REPOSITORIES, digest_in, parse_manifest,
};
use crate::archive::error::{Error, Result};
use crate::archive::name::normal;
use crate::archive::oci::{self, Layout, MAX_IMAGES};
use crate::archive::{DOCUMENT_LIMIT_BYTES, DOCUMENTS_LIMIT_BYTES};
use crate::digest::{DiffId, Digest};
use crate::image::{ImageConfig, Manifest, Platform, Reference, document_memory};

/// Answers for the files of an archive, by their names.
pub trait Source {
    /// Returns a file of up to [`DOCUMENT_LIMIT_BYTES`]; none when there is none of this name.
    ///
    /// # Errors
    /// [`Error::DocumentSize`] when it is longer.
    fn document(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// Tells whether there is a file of this name.
    fn has(&self, name: &str) -> Result<bool>;
}

/// Answers as another one does, and counts the memory that its documents take: those of all images
/// are there at once.
struct Metered<'a> {
    source: &'a dyn Source,
    memory_bytes: Cell<u64>,
}

impl Source for Metered<'_> {
    fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let found = self.source.document(name)?;
        let memory_bytes = found.as_deref().map_or(0, document_memory) + self.memory_bytes.get();
        self.memory_bytes.set(memory_bytes);
        match memory_bytes {
            0..=DOCUMENTS_LIMIT_BYTES => Ok(found),
            _ => Err(Error::Documents { limit_bytes: DOCUMENTS_LIMIT_BYTES }),
        }
    }

    fn has(&self, name: &str) -> Result<bool> {
        self.source.has(name)
    }
}

/// What an archive has.
#[derive(Debug)]
pub struct Archived {
    /// The images, each once.
    pub images: Vec<ArchivedImage>,
    /// What was passed over.
    pub warnings: Vec<String>,
}

/// An image of an archive. Its documents were checked against their digests.
#[derive(Debug)]
pub struct ArchivedImage {
    /// The digest of the configuration.
    pub id: Digest,
    /// Its names, all with tags.
    pub names: Vec<Reference>,
    /// The configuration as the archive has it.
    pub config_bytes: Vec<u8>,
    /// What the configuration says.
    pub config: ImageConfig,
    /// The manifest and its bytes; docker's own archives have none, or a wrong one.
    pub manifest: Option<(Manifest, Vec<u8>)>,
    /// The layers, bottom first.
    pub layers: Vec<ArchivedLayer>,
}

/// A layer of an archive. That its file is there was checked, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ArchivedLayer {
    /// The file.
    pub file: String,
    /// What it unpacks to.
    pub diff_id: DiffId,
    /// Digest and length in bytes that the file must have, where they are known.
    pub blob: Option<(Digest, u64)>,
}

impl ArchivedImage {
    /// Gives the image more names; each is there once.
    pub(crate) fn add_names(&mut self, names: Vec<Reference>) {
        for name in names {
            if !self.names.contains(&name) {
                self.names.push(name);
            }
        }
    }

    /// Checks that the image is for the platform that was asked for, if one was.
    pub(crate) fn check_platform(&self, platform: Option<&Platform>) -> Result<()> {
        let actual = self.config.platform();
        match platform.filter(|wanted| !wanted.runs(&actual)) {
            None => Ok(()),
            Some(wanted) => Err(Error::OtherPlatform {
                image: self.names.first().map_or(self.id.to_string(), Reference::familiar),
                wanted: wanted.to_string(),
                actual: actual.to_string(),
            }),
        }
    }
}

/// Returns the images that an archive has, one for each name, for `platform` or else for this machine
/// where there are several to choose from.
///
/// Both lists count, OCI's and docker's: docker lists images without a name only in its own, and has
/// no images for other platforms there.
pub fn images(source: &dyn Source, platform: Option<&Platform>) -> Result<Archived> {
    let source = &Metered { source, memory_bytes: Cell::new(0) };
    let docker = source.document(MANIFEST)?;
    let index = source.document(INDEX)?;
    let Layout { mut images, mut incomplete, mut warnings } = match &index {
        Some(index) => oci::images(source, index, platform)?,
        None if docker.is_some() => Layout::default(),
        None if source.document(REPOSITORIES)?.is_some() => return Err(Error::BeforeManifests),
        None => return Err(Error::NotImages),
    };
    let entries = docker.as_deref().map(parse_manifest).transpose()?.unwrap_or_default();
    if entries.len() > MAX_IMAGES {
        return Err(Error::TooMany { what: "images", limit: MAX_IMAGES });
    }
    let in_index = match &index {
        Some(index) if !entries.is_empty() => oci::all_ids(source, index)?,
        _ => Vec::new(),
    };
    for entry in &entries {
        let (id, config_bytes) = config(source, entry)?;
        let mut names = docker_names(entry, &mut warnings);
        if let Some(known) = images.iter_mut().find(|image| image.id == id) {
            known.add_names(names);
            continue;
        }
        if let Some(at) = incomplete.iter().position(|(other, ..)| *other == id) {
            let (_, more, _) = incomplete.swap_remove(at);
            names.extend(more.into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>());
        } else if in_index.contains(&id) {
            // It is there for another platform than the one that was chosen.
            continue;
        }
        images.push(docker_image(source, entry, (id, config_bytes), names, platform)?);
    }
    if let Some((_, _, error)) = incomplete.pop() {
        return Err(error);
    }
    if images.is_empty() {
        let document = if index.is_some() { INDEX } else { MANIFEST };
        return Err(Error::NoImages { document });
    }
    Ok(Archived { images, warnings })
}

/// Reads the configuration that docker's list names, and returns its digest with it.
fn config(source: &dyn Source, entry: &DockerImage) -> Result<(Digest, Vec<u8>)> {
    let file = normal(entry.config.as_bytes())?;
    let bytes = document(source, MANIFEST, &file)?;
    let actual = Digest::of(&bytes);
    match digest_in(&file).filter(|expected| *expected != actual) {
        Some(expected) => Err(Error::Digest { file, expected, actual }),
        None => Ok((actual, bytes)),
    }
}

fn docker_names(entry: &DockerImage, warnings: &mut Vec<String>) -> Vec<Reference> {
    let mut names: Vec<Reference> = Vec::new();
    for text in entry.repo_tags.iter().flatten().filter(|text| *text != "<none>:<none>") {
        if let Some(name) = reference(text, warnings).filter(|name| !names.contains(name)) {
            names.push(name);
        }
    }
    names
}

fn docker_image(
    source: &dyn Source,
    entry: &DockerImage,
    (id, config_bytes): (Digest, Vec<u8>),
    names: Vec<Reference>,
    platform: Option<&Platform>,
) -> Result<ArchivedImage> {
    let in_config = |source| Error::Document { file: entry.config.clone(), source };
    let config = ImageConfig::parse(&config_bytes).map_err(in_config)?;
    let files = entry.layers.as_deref().unwrap_or_default();
    let diff_ids = &config.rootfs.diff_ids;
    if files.len() != diff_ids.len() {
        let (config, manifest) = (diff_ids.len(), files.len());
        return Err(in_config(crate::image::Error::LayerCount { config, manifest }));
    }
    let mut layers = Vec::new();
    for (file, diff_id) in files.iter().zip(diff_ids) {
        let file = normal(file.as_bytes())?;
        if !source.has(&file)? {
            return Err(Error::Missing { by: MANIFEST.to_owned(), file });
        }
        layers.push(ArchivedLayer { file, diff_id: *diff_id, blob: None });
    }
    let image = ArchivedImage { id, names, config_bytes, config, manifest: None, layers };
    image.check_platform(platform)?;
    Ok(image)
}

/// Reads a document that another one names.
pub(crate) fn document(source: &dyn Source, by: &str, file: &str) -> Result<Vec<u8>> {
    let missing = || Error::Missing { by: by.to_owned(), file: file.to_owned() };
    let bytes = source.document(file)?.ok_or_else(missing)?;
    debug_assert!(bytes.len() as u64 <= DOCUMENT_LIMIT_BYTES, "a source keeps to the limit");
    Ok(bytes)
}

/// Returns the name that an archive gives an image; none for what is none, with a warning. A digest
/// says what a registry has, which an archive cannot know.
pub(crate) fn reference(text: &str, warnings: &mut Vec<String>) -> Option<Reference> {
    let parsed = text.parse::<Reference>().and_then(|name| match (name.tag(), name.digest()) {
        (Some(tag), Some(_)) => name.with_tag(tag).map(Some),
        (None, Some(_)) => Ok(None),
        (_, None) => Ok(Some(name.tag_or_latest())),
    });
    parsed.unwrap_or_else(|error| {
        warnings.push(format!("an image loses the name {text:?}: {error}"));
        None
    })
}
