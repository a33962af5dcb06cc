//! Writing an archive as docker does since version 25: an OCI layout, with docker's own documents
//! beside it.
//!
//! The same images give the same bytes: all times are 0, all owners root, and the order is that of
//! the images.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read, Write};

use crate::archive::document::{
    BLOBS, DockerImage, IMAGE_NAME, INDEX, LAYOUT, LAYOUT_TEXT, MANIFEST, REF_NAME, REPOSITORIES,
    Repositories, blob_file,
};
use crate::archive::error::{Error, Result};
use crate::digest::{DiffId, Digest, HashingReader};
use crate::image::{Descriptor, Index, Platform, Reference};
use crate::layer::{Kind, TarMeta, TarWriter};

/// An image that is to be written.
#[derive(Clone, Debug)]
pub struct SavedImage {
    /// Its names, all with tags.
    pub names: Vec<Reference>,
    /// The manifest, whose layers are uncompressed.
    pub manifest_bytes: Vec<u8>,
    /// Its media type.
    pub manifest_type: String,
    /// The configuration.
    pub config_bytes: Vec<u8>,
    /// What it runs on.
    pub platform: Platform,
    /// The layers, bottom first, with the lengths of their tars in bytes.
    pub layers: Vec<(DiffId, u64)>,
}

/// Writes images. `layer` returns the tar of a layer, which is checked while it is written.
///
/// # Errors
/// [`Error::Damaged`] for a layer that is not what it should be; what was written is of no use then.
pub fn write<W: Write>(
    images: &[SavedImage],
    out: W,
    layer: &mut dyn FnMut(DiffId) -> io::Result<Box<dyn Read>>,
) -> Result<W> {
    let mut writer = Writer { tar: TarWriter::new(out), written: HashSet::new() };
    // Who reads the archive from its beginning knows from there on what is in it.
    writer.file(LAYOUT, LAYOUT_TEXT.as_bytes())?;
    writer.file(INDEX, &index(images).to_bytes())?;
    writer.file(MANIFEST, &json(&docker_images(images)))?;
    let repositories = repositories(images);
    if !repositories.is_empty() {
        writer.file(REPOSITORIES, &json(&repositories))?;
    }
    for dir in ["blobs", BLOBS] {
        writer.tar.entry(&TarMeta::new(dir.as_bytes(), Kind::Directory, 0o755))?;
    }
    for image in images {
        writer.blob(&image.manifest_bytes)?;
        writer.blob(&image.config_bytes)?;
        for (diff_id, len_bytes) in &image.layers {
            writer.layer(*diff_id, *len_bytes, layer)?;
        }
    }
    Ok(writer.tar.finish()?)
}

struct Writer<W: Write> {
    tar: TarWriter<W>,
    /// Blobs that are in the archive.
    written: HashSet<Digest>,
}

impl<W: Write> Writer<W> {
    fn file(&mut self, name: &str, mut bytes: &[u8]) -> Result<()> {
        let size = bytes.len() as u64;
        let meta = TarMeta { size, ..TarMeta::new(name.as_bytes(), Kind::Regular, 0o644) };
        Ok(self.tar.file(&meta, &mut bytes)?)
    }

    fn blob(&mut self, bytes: &[u8]) -> Result<()> {
        let digest = Digest::of(bytes);
        if !self.written.insert(digest) {
            return Ok(());
        }
        self.file(&blob_file(digest), bytes)
    }

    fn layer(
        &mut self,
        diff_id: DiffId,
        len_bytes: u64,
        open: &mut dyn FnMut(DiffId) -> io::Result<Box<dyn Read>>,
    ) -> Result<()> {
        if !self.written.insert(diff_id.0) {
            return Ok(());
        }
        let mut tar = HashingReader::new(open(diff_id)?);
        let name = blob_file(diff_id.0);
        let size = len_bytes;
        let meta = TarMeta { size, ..TarMeta::new(name.as_bytes(), Kind::Regular, 0o644) };
        self.tar.file(&meta, &mut tar)?;
        let actual = DiffId(tar.finish().0);
        if actual != diff_id {
            return Err(Error::Damaged { expected: diff_id, actual });
        }
        Ok(())
    }
}

/// Returns OCI's list: each image once for each name. One without names gets no platform either, so
/// that nobody takes several for a choice.
fn index(images: &[SavedImage]) -> Index {
    let mut entries = Vec::new();
    for image in images {
        let digest = Digest::of(&image.manifest_bytes);
        let size = image.manifest_bytes.len() as u64;
        let entry = Descriptor::new(&image.manifest_type, digest, size);
        if image.names.is_empty() {
            entries.push(entry.clone());
        }
        entries.extend(image.names.iter().map(|name| {
            let tag = name.tag().unwrap_or_default().to_owned();
            let annotations =
                [(IMAGE_NAME.to_owned(), name.to_string()), (REF_NAME.to_owned(), tag)];
            Descriptor {
                annotations: annotations.into(),
                platform: Some(image.platform.clone()),
                ..entry.clone()
            }
        }));
    }
    Index::new(entries)
}

fn docker_images(images: &[SavedImage]) -> Vec<DockerImage> {
    let entry = |image: &SavedImage| {
        let names: Vec<_> = image.names.iter().map(Reference::familiar).collect();
        let layers = image.layers.iter().map(|(diff_id, _)| blob_file(diff_id.0)).collect();
        DockerImage {
            config: blob_file(Digest::of(&image.config_bytes)),
            repo_tags: (!names.is_empty()).then_some(names),
            layers: Some(layers),
        }
    };
    images.iter().map(entry).collect()
}

fn repositories(images: &[SavedImage]) -> Repositories {
    let mut repositories = BTreeMap::new();
    for image in images {
        let Some((top, _)) = image.layers.last() else { continue };
        for name in &image.names {
            let tags: &mut BTreeMap<_, _> = repositories.entry(name.familiar_name()).or_default();
            tags.insert(name.tag().unwrap_or_default().to_owned(), top.0.hex());
        }
    }
    repositories
}

fn json(document: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(document).expect("names and lists are JSON");
    bytes.push(b'\n');
    bytes
}
