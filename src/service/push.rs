//! Pushing: from the store to a registry.
//!
//! What the registry has is not sent; what another of its repositories has is mounted from there;
//! what another registry has is copied across. Only a layer that no registry is known to have is
//! compressed, and what came of it is remembered.

use std::io::{self, Read, Write};

use crate::digest::{DiffId, HashingWriter};
use crate::image::{
    Compression, Descriptor, Manifest, OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST, Reference,
    layer_compression, oci_layer,
};
use crate::layer::Gzip;
use crate::registry::Mounted;
use crate::service::error::{Error, Result, io_error};
use crate::service::resolve::FoundBy;
use crate::service::{Event, LayerState, Strata};
use crate::store::{Image, Ref, RefName, Source, in_parallel};

/// How many layers are pushed at once.
const LAYERS_AT_ONCE: usize = 3;
const CHUNK: usize = 128 * 1024;

/// An image that was pushed.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// The name.
    pub reference: Reference,
    /// The manifest that is in the registry.
    pub digest: crate::digest::Digest,
    /// Its size in bytes.
    pub size: u64,
}

impl Strata {
    /// Pushes all tags of a repository.
    pub fn push_all(&self, repository: &Reference) -> Result<Vec<Pushed>> {
        let mut pushed = Vec::new();
        for (name, _) in self.store.references()? {
            if let RefName::Named(reference) = name
                && reference.repository() == repository.repository()
                && reference.tag().is_some()
            {
                pushed.push(self.push(&reference)?);
            }
        }
        if pushed.is_empty() {
            return Err(Error::NothingToPush(repository.familiar_name()));
        }
        Ok(pushed)
    }

    /// Pushes an image under the name that it has.
    pub fn push(&self, reference: &Reference) -> Result<Pushed> {
        let reference = reference.tag_or_latest();
        let text = reference.familiar();
        let (image, by, _lease) =
            self.lease_image(&text).map_err(|error| self.nothing_to_push(error, &reference))?;
        if by == FoundBy::Id {
            return Err(Error::NothingToPush(reference.familiar_name()));
        }
        // Of a registry that does not answer, nothing else is to be said.
        self.registry()?.reach(&reference)?;
        let layers: Vec<_> = image.manifest.layers.iter().zip(image.layers().to_vec()).collect();
        for (_, layer) in &layers {
            self.pushing(*layer, LayerState::Preparing);
        }
        let used = in_parallel(&layers, LAYERS_AT_ONCE, |(wanted, layer)| {
            self.push_layer(&reference, wanted, *layer)
        })?;
        self.push_config(&reference, &image)?;
        let (media_type, bytes) = manifest_to_push(&image, used);
        let digest = self.registry()?.push_manifest(&reference, &media_type, &bytes)?;
        self.remember_push(&reference, &image, digest)?;
        let tag = reference.tag().map_or_else(|| digest.to_string(), str::to_owned);
        let size = bytes.len() as u64;
        self.tell(Event::Pushed { tag, digest, size });
        Ok(Pushed { reference, digest, size })
    }

    /// Sees to it that the repository has a layer; returns the form that it has.
    fn push_layer(
        &self,
        reference: &Reference,
        wanted: &Descriptor,
        layer: DiffId,
    ) -> Result<Descriptor> {
        let sources = self.forms(wanted, layer)?;
        for source in &sources {
            if self.registry()?.has_blob(reference, source.digest)? {
                self.pushing(layer, LayerState::AlreadyPushed);
                return self.pushed(reference, layer, source);
            }
        }
        for source in &sources {
            if let Some(from) = self.mount_from(reference, source)? {
                self.pushing(layer, LayerState::MountedFrom(from));
                return self.pushed(reference, layer, source);
            }
        }
        for source in &sources {
            if self.copy_across(reference, layer, source)? {
                self.pushing(layer, LayerState::Pushed);
                return self.pushed(reference, layer, source);
            }
        }
        let source = self.compress_and_push(reference, layer)?;
        self.pushing(layer, LayerState::Pushed);
        self.pushed(reference, layer, &source)
    }

    /// Returns the compressed forms of a layer that are known, the one of the manifest first.
    fn forms(&self, wanted: &Descriptor, layer: DiffId) -> Result<Vec<Source>> {
        let mut forms = self.store.sources(layer)?;
        if layer_compression(&wanted.media_type)? != Compression::None {
            match forms.iter().position(|form| form.digest == wanted.digest) {
                Some(at) => forms.swap(0, at),
                None => forms.insert(
                    0,
                    Source {
                        digest: wanted.digest,
                        size: wanted.size,
                        media_type: wanted.media_type.clone(),
                        repositories: Vec::new(),
                    },
                ),
            }
        }
        Ok(forms)
    }

    fn mount_from(&self, reference: &Reference, source: &Source) -> Result<Option<String>> {
        for repository in &source.repositories {
            let Ok(from) = repository.parse::<Reference>() else { continue };
            let other = from.domain() == reference.domain() && from.path() != reference.path();
            if other
                && self.registry()?.mount_blob(reference, &from, source.digest)? == Mounted::Yes
            {
                return Ok(Some(from.path().to_owned()));
            }
        }
        Ok(None)
    }

    /// Copies a blob from a repository that is known to have it, of whatever registry: of this one too
    /// if it mounts nothing. One that has it no longer, or cannot be reached, is no error: the layer
    /// can be compressed again.
    fn copy_across(&self, reference: &Reference, layer: DiffId, source: &Source) -> Result<bool> {
        for repository in &source.repositories {
            let Ok(from) = repository.parse::<Reference>() else { continue };
            if from.domain() == reference.domain() && from.path() == reference.path() {
                continue;
            }
            let blob = Descriptor::new(&source.media_type, source.digest, source.size);
            let registry = self.registry()?.clone();
            let open = || -> io::Result<Box<dyn Read + Send>> {
                Ok(Box::new(registry.blob(&from, &blob, 0).map_err(io::Error::other)?))
            };
            let progress = |done| {
                self.pushing(layer, LayerState::Pushing { done, total: source.size });
            };
            let pushed =
                self.registry()?.push_blob(reference, source.digest, source.size, &open, &progress);
            match pushed {
                Ok(()) => return Ok(true),
                Err(crate::registry::Error::Source { source, .. }) => {
                    let text = format!("layer {layer} is not copied from {repository}: {source}");
                    self.tell(Event::Warning(text));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    fn compress_and_push(&self, reference: &Reference, layer: DiffId) -> Result<Source> {
        let stage = self.store.stage()?;
        let mut tar = self.store.layer_tar(layer)?;
        let total = tar.len_bytes();
        let what = format!("layer {layer}");
        let file = stage.scratch("gzip")?;
        let writer = HashingWriter::new(io::BufWriter::with_capacity(CHUNK, file));
        let mut gzip = Gzip::new(writer);
        let mut buffer = vec![0; CHUNK];
        let mut done = 0;
        loop {
            let len = tar.read(&mut buffer).map_err(Error::from)?;
            if len == 0 {
                break;
            }
            gzip.write_all(&buffer[..len]).map_err(io_error("compress", &what))?;
            done += len as u64;
            self.pushing(layer, LayerState::Compressing { done, total });
        }
        let writer = gzip.finish().map_err(io_error("compress", &what))?;
        let size = writer.len_bytes();
        let (digest, buffered) = writer.finish();
        let file = buffered.into_inner().map_err(|error| error.into_error());
        let file = file.map_err(io_error("compress", &what))?;
        let source = Source {
            digest,
            size,
            media_type: OCI_LAYER_GZIP.to_owned(),
            repositories: Vec::new(),
        };
        if self.registry()?.has_blob(reference, digest)? {
            return Ok(source);
        }
        let open = || -> io::Result<Box<dyn Read + Send>> {
            Ok(Box::new(ReadFrom { file: file.try_clone()?, at: 0 }))
        };
        let progress = |done| self.pushing(layer, LayerState::Pushing { done, total: size });
        self.registry()?.push_blob(reference, digest, size, &open, &progress)?;
        Ok(source)
    }

    fn pushed(&self, reference: &Reference, layer: DiffId, source: &Source) -> Result<Descriptor> {
        let form = (source.digest, source.size, source.media_type.as_str());
        self.store.add_source(layer, form, &reference.repository())?;
        Ok(Descriptor::new(&source.media_type, source.digest, source.size))
    }

    fn push_config(&self, reference: &Reference, image: &Image) -> Result<()> {
        let digest = image.id();
        if self.registry()?.has_blob(reference, digest)?
            || self.mount_config(reference, image)? == Mounted::Yes
        {
            return Ok(());
        }
        let bytes = image.config_bytes.clone();
        let open =
            || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(io::Cursor::new(bytes.clone()))) };
        let size = image.config_bytes.len() as u64;
        Ok(self.registry()?.push_blob(reference, digest, size, &open, &|_| {})?)
    }

    /// Takes the configuration over from a repository of the same registry that has the image.
    fn mount_config(&self, reference: &Reference, image: &Image) -> Result<Mounted> {
        for name in self.store.names_of(image.digest)? {
            let RefName::Named(from) = &name else { continue };
            let is_there = self.store.reference(&name)?.is_some_and(|found| found.target.is_some());
            let other = from.domain() == reference.domain() && from.path() != reference.path();
            if is_there
                && other
                && self.registry()?.mount_blob(reference, from, image.id())? == Mounted::Yes
            {
                return Ok(Mounted::Yes);
            }
        }
        Ok(Mounted::No)
    }

    /// Remembers under which digest the registry has the image.
    fn remember_push(
        &self,
        reference: &Reference,
        image: &Image,
        digest: crate::digest::Digest,
    ) -> Result<()> {
        let name = RefName::Named(reference.clone());
        let Some(found) = self.store.reference(&name)? else { return Ok(()) };
        if found.manifest == image.digest && found.target.is_none() {
            let to = Ref { target: Some(digest), ..found };
            self.store.set_reference(&name, &to)?;
        }
        Ok(())
    }

    /// Says what is missing: the tag, or all of the repository.
    fn nothing_to_push(&self, error: Error, reference: &Reference) -> Error {
        let of_repository = |(name, _): &(RefName, Ref)| match name {
            RefName::Named(other) => other.repository() == reference.repository(),
            _ => false,
        };
        match (error, self.store.references()) {
            (Error::NoImage(_), Ok(names)) if names.iter().any(of_repository) => {
                Error::NoTag(reference.familiar())
            }
            (Error::NoImage(_), _) => Error::NothingToPush(reference.familiar_name()),
            (other, _) => other,
        }
    }

    fn pushing(&self, layer: DiffId, state: LayerState) {
        self.tell(Event::Layer { id: layer.0, state });
    }
}

/// Returns the manifest for the forms that the registry has: the image's own if they are its own.
fn manifest_to_push(image: &Image, used: Vec<Descriptor>) -> (String, Vec<u8>) {
    let own = image.manifest.layers.iter().map(|layer| layer.digest);
    if own.eq(used.iter().map(|layer| layer.digest)) {
        let media_type = image.manifest.media_type.clone();
        let media_type = media_type.unwrap_or_else(|| OCI_MANIFEST.to_owned());
        return (media_type, image.manifest_bytes.clone());
    }
    let layers = used
        .into_iter()
        .map(|layer| {
            let media_type = oci_layer(&layer.media_type).unwrap_or(OCI_LAYER_GZIP);
            Descriptor { media_type: media_type.to_owned(), ..layer }
        })
        .collect();
    let config = Descriptor::new(OCI_CONFIG, image.id(), image.config_bytes.len() as u64);
    let mut manifest = Manifest::new(OCI_MANIFEST, config, layers);
    manifest.annotations = image.manifest.annotations.clone();
    (OCI_MANIFEST.to_owned(), manifest.to_bytes())
}

/// Reads a file from its beginning, whoever else reads it.
struct ReadFrom {
    file: std::fs::File,
    at: u64,
}

impl Read for ReadFrom {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let len = self.file.read_at(buffer, self.at)?;
        self.at += len as u64;
        Ok(len)
    }
}
