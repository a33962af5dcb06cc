//! Pulling: from a registry to the store.
//!
//! Resolve the reference → fetch the manifest and the configuration → for each layer, several at
//! once: fetch → hash while decompressing → unpack into staging → make durable → publish → merge the
//! chain → set the reference. Nothing is visible by name before all of it is there.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::digest::{DiffId, Digest, HashingReader};
use crate::image::{
    CONFIG_LIMIT_BYTES, Descriptor, ImageConfig, Manifest, Parsed, Platform, Reference, select,
};
use crate::layer::{Excess, Unpacked, decompress, unpack};
use crate::registry::RawManifest;
use crate::service::error::{Error, Result};
use crate::service::pipeline::{Counted, ReadAhead};
use crate::service::{Event, LayerState, Strata};
use crate::store::{Claim, Download, NewImage, Ref, RefName, Stage, in_parallel, read_limited};

/// How many layers are fetched at once.
const LAYERS_AT_ONCE: usize = 3;

/// What to pull.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// The image: with a tag, a digest, or neither.
    pub reference: Reference,
    /// For which platform; this machine's if it is not said.
    pub platform: Option<Platform>,
}

/// An image that was pulled.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The name, with a tag or digest.
    pub reference: Reference,
    /// What the registry has under the name.
    pub digest: Digest,
    /// Whether the name leads to another image than before.
    pub newer: bool,
}

/// The documents of an image, checked against their digests.
struct Documents {
    target: RawManifest,
    manifest_digest: Digest,
    manifest_bytes: Vec<u8>,
    manifest: Manifest,
    config_bytes: Vec<u8>,
    config: ImageConfig,
}

impl Strata {
    /// Pulls all tags of a repository, one after the other.
    pub fn pull_all(&self, request: &PullRequest) -> Result<Vec<Pulled>> {
        let tags = self.registry()?.tags(&request.reference)?;
        let mut pulled = Vec::new();
        for tag in tags {
            let reference = request.reference.with_tag(&tag)?;
            pulled.push(self.pull(&PullRequest { reference, ..request.clone() })?);
        }
        Ok(pulled)
    }

    /// Pulls an image.
    pub fn pull(&self, request: &PullRequest) -> Result<Pulled> {
        let reference = request.reference.tag_or_latest();
        let target = self.registry()?.resolve(&reference)?;
        self.tell(Event::PullingFrom {
            tag: tag_text(&reference),
            repository: reference.path().to_owned(),
        });
        let documents = self.fetch_documents(&reference, target, request.platform.as_ref())?;
        let digest = documents.target.digest;
        let left_bytes = AtomicU64::new(0);
        let newer = self.pull_image(&reference, &documents, &left_bytes).map_err(|error| {
            let left_bytes = left_bytes.load(Ordering::Relaxed);
            self.telling_room_for(error, (left_bytes > 0).then_some(left_bytes))
        })?;
        self.tell(Event::Pulled(digest));
        Ok(Pulled { reference, digest, newer })
    }

    /// Brings what is missing of an image into the store, then the name. Tells whether the name led
    /// elsewhere. `left_bytes` is kept at what is still to be fetched, compressed as it is.
    fn pull_image(
        &self,
        reference: &Reference,
        documents: &Documents,
        left_bytes: &AtomicU64,
    ) -> Result<bool> {
        let mut stage = self.store.stage()?;
        stage.set_limits(self.limits);
        stage.claim(Claim::Image(documents.manifest_digest))?;
        self.fetch_layers(reference, documents, &mut stage, left_bytes)?;
        self.publish(reference, documents, &mut stage)
    }

    fn fetch_documents(
        &self,
        reference: &Reference,
        target: RawManifest,
        platform: Option<&Platform>,
    ) -> Result<Documents> {
        // An index knows the platforms of its images better than they do themselves.
        let mut unchecked = platform;
        let (manifest_digest, manifest_bytes, manifest) =
            match Parsed::parse(&target.bytes, target.media_type.as_deref())? {
                Parsed::Manifest(manifest) => (target.digest, target.bytes.clone(), manifest),
                Parsed::Index(index) => {
                    let wanted = platform.cloned().unwrap_or_else(Platform::host);
                    let chosen = select(&index, &wanted)
                        .ok_or_else(|| Error::NoPlatform(wanted.to_string()))?;
                    unchecked = platform.filter(|_| chosen.platform.is_none());
                    let raw = self.registry()?.manifest(reference, chosen.digest)?;
                    match Parsed::parse(&raw.bytes, raw.media_type.as_deref())? {
                        Parsed::Manifest(manifest) => (raw.digest, raw.bytes, manifest),
                        Parsed::Index(_) => {
                            return Err(Error::NestedIndex(chosen.digest.to_string()));
                        }
                    }
                }
            };
        manifest.check_is_image()?;
        let config_bytes = self.fetch_config(reference, &manifest.config)?;
        let config = ImageConfig::parse(&config_bytes)?;
        config.check_layers(&manifest)?;
        if let Some(wanted) = unchecked
            && !wanted.runs(&config.platform())
        {
            return Err(Error::OtherPlatform {
                reference: reference.familiar(),
                wanted: wanted.to_string(),
                actual: config.platform().to_string(),
            });
        }
        Ok(Documents { target, manifest_digest, manifest_bytes, manifest, config_bytes, config })
    }

    fn fetch_config(&self, reference: &Reference, descriptor: &Descriptor) -> Result<Vec<u8>> {
        // Pulled again, most images are the same.
        if let Ok(bytes) = self.store.blob(descriptor.digest) {
            return Ok(bytes);
        }
        let reader = self.registry()?.blob(reference, descriptor, 0)?;
        let bytes = read_limited(reader, CONFIG_LIMIT_BYTES)?;
        check_digest("image configuration", descriptor.digest, Digest::of(&bytes))?;
        Ok(bytes)
    }

    fn fetch_layers(
        &self,
        reference: &Reference,
        documents: &Documents,
        stage: &mut Stage,
        left_bytes: &AtomicU64,
    ) -> Result<()> {
        let Documents { manifest, config, .. } = documents;
        let mut here = HashMap::new();
        let mut present = Vec::new();
        for layer in &config.rootfs.diff_ids {
            // An image may have a layer many times, and looking for it reads it.
            let is_here = match here.get(layer) {
                Some(is_here) => *is_here,
                None => {
                    stage.claim(Claim::Layer(layer.0))?;
                    self.store.has_layer(*layer)
                }
            };
            here.insert(layer, is_here);
            present.push((layer, is_here));
        }
        if present.iter().any(|(_, is_here)| *is_here) {
            stage.settle_layers()?;
        }
        // Of an image that is here already, under whatever name, nothing is told.
        let is_known = self.store.blob(manifest.config.digest).is_ok()
            && present.iter().all(|(_, is_here)| *is_here);
        let mut missing: Vec<(&Descriptor, DiffId)> = Vec::new();
        let mut wanted = HashSet::new();
        let repository = reference.repository();
        for (blob, (layer, is_here)) in manifest.layers.iter().zip(present) {
            if is_here {
                if !is_known {
                    self.layer(blob, LayerState::AlreadyExists);
                }
                let form = (blob.digest, blob.size, blob.media_type.as_str());
                self.store.add_source(*layer, form, &repository)?;
            } else if wanted.insert(*layer) {
                self.check_size(&blob.digest.to_string(), Excess::Blob, blob.size)?;
                self.layer(blob, LayerState::Queued);
                missing.push((blob, *layer));
            }
        }
        left_bytes.store(missing.iter().map(|(blob, _)| blob.size).sum(), Ordering::Relaxed);
        in_parallel(&missing, LAYERS_AT_ONCE, |(blob, layer)| {
            self.fetch_missing(reference, blob, *layer)?;
            left_bytes.fetch_sub(blob.size, Ordering::Relaxed);
            let form = (blob.digest, blob.size, blob.media_type.as_str());
            self.store.add_source(*layer, form, &repository)?;
            self.layer(blob, LayerState::Pulled);
            Ok::<_, Error>(())
        })?;
        Ok(())
    }

    /// Fetches one layer, or waits for whoever fetches it.
    fn fetch_missing(&self, reference: &Reference, blob: &Descriptor, layer: DiffId) -> Result<()> {
        let mut download = self.download(blob)?;
        if self.store.has_layer(layer) {
            // Another pull has brought it since this one looked.
            return Ok(download.clear()?);
        }
        self.fetch_into(reference, blob, layer, &mut download)
    }

    /// Fetches one layer, also if it is there.
    pub(crate) fn fetch_layer(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        layer: DiffId,
    ) -> Result<()> {
        self.fetch_into(reference, blob, layer, &mut self.download(blob)?)
    }

    fn download(&self, blob: &Descriptor) -> Result<Download> {
        let tell_wait = || self.layer(blob, LayerState::Waiting);
        Ok(self.store.download(blob.digest, blob.size, tell_wait)?)
    }

    /// What an interrupted pull has left of a layer is used; if that turns out to be damaged, once more
    /// from the beginning.
    fn fetch_into(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        layer: DiffId,
        download: &mut Download,
    ) -> Result<()> {
        let resumed = download.len_bytes() > 0;
        match self.unpack_layer(reference, blob, layer, download) {
            // The download has been cleared by then.
            Err(Error::WrongDigest { .. } | Error::Unpack { .. }) if resumed => {
                self.unpack_layer(reference, blob, layer, download)
            }
            result => result,
        }
    }

    fn unpack_layer(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        layer: DiffId,
        download: &mut Download,
    ) -> Result<()> {
        let mut stage = self.store.stage()?;
        stage.set_limits(self.limits);
        let result = self.unpack_blob(reference, blob, layer, (&mut *download, &mut stage));
        if matches!(result, Err(Error::WrongDigest { .. } | Error::Unpack { .. })) {
            download.clear()?;
        }
        let unpacked = result?;
        // What was downloaded is in the staged layer now and need not reach the disk.
        download.clear()?;
        if unpacked.diff_id != layer {
            let (expected, actual) = (layer, unpacked.diff_id);
            return Err(Error::WrongLayer { blob: blob.digest.to_string(), expected, actual });
        }
        Ok(stage.publish_layer(&unpacked)?)
    }

    /// Streams a blob through its checks into staging: one thread fetches, hashes and inflates, one
    /// hashes and unpacks. How the blob is compressed is seen in its first bytes, as docker does it:
    /// there are manifests whose media type is wrong about it.
    fn unpack_blob(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        layer: DiffId,
        (download, stage): (&mut Download, &mut Stage),
    ) -> Result<Unpacked> {
        stage.claim(Claim::Layer(layer.0))?;
        let offset = download.len_bytes();
        let network: Box<dyn Read + Send> = if offset < blob.size {
            Box::new(self.registry()?.blob(reference, blob, offset)?)
        } else {
            Box::new(io::empty())
        };
        let tell = |done| self.layer(blob, LayerState::Downloading { done, total: blob.size });
        let counted = Counted::new(download.reader(network)?, tell);
        let mut hashing = HashingReader::new(counted);
        let files = stage.layer_files()?;
        let unpacked = std::thread::scope(|scope| {
            unpack(ReadAhead::new(scope, decompress(&mut hashing)?), files, stage)
        });
        if unpacked.as_ref().is_ok() || unpacked.as_ref().is_err_and(is_garbage) {
            // That the bytes are not the right ones says more than what is wrong with them.
            io::copy(&mut hashing, &mut io::sink())?;
            check_digest(&format!("layer {}", blob.digest), blob.digest, hashing.finish().0)?;
        }
        let unpacked =
            unpacked.map_err(|error| Error::unpacking(blob.digest.to_string(), error))?;
        self.layer(blob, LayerState::Downloaded);
        Ok(unpacked)
    }

    /// Puts the documents into the store, then the name. Tells whether the name led elsewhere.
    fn publish(
        &self,
        reference: &Reference,
        documents: &Documents,
        stage: &mut Stage,
    ) -> Result<bool> {
        let name = RefName::Named(reference.clone());
        let before = self.store.readable_reference(&name)?;
        let to = Ref {
            manifest: documents.manifest_digest,
            target: Some(documents.target.digest),
            updated: jiff::Timestamp::now(),
        };
        let image = NewImage {
            layers: &[],
            chain: &documents.config.rootfs.diff_ids,
            blobs: &[&documents.config_bytes, &documents.manifest_bytes, &documents.target.bytes],
            name: &name,
            to: &to,
        };
        let published = stage.publish_image(&image, || Ok(true));
        published.map_err(|error| Error::merging(&reference.familiar(), error))?;
        Ok(before.is_none_or(|before| before.manifest != to.manifest))
    }

    fn layer(&self, blob: &Descriptor, state: LayerState) {
        self.tell(Event::Layer { id: blob.digest, state });
    }
}

pub(crate) fn check_digest(what: &str, expected: Digest, actual: Digest) -> Result<()> {
    if expected == actual {
        return Ok(());
    }
    Err(Error::WrongDigest {
        what: what.to_owned(),
        expected: expected.to_string(),
        actual: actual.to_string(),
    })
}

fn tag_text(reference: &Reference) -> String {
    match (reference.digest(), reference.tag()) {
        (None, Some(tag)) => tag.to_owned(),
        _ => reference.to_string(),
    }
}

/// Tells whether an error may come from bytes that are not the right ones.
fn is_garbage(error: &crate::layer::Error) -> bool {
    match error {
        crate::layer::Error::Tar { .. } => true,
        crate::layer::Error::Io(error) => error.get_ref().is_none_or(|inner| {
            // Those of a layer are of a form that was well understood.
            !inner.is::<crate::registry::Error>()
                && !inner.is::<crate::store::Error>()
                && !inner.is::<crate::layer::Error>()
        }),
        _ => false,
    }
}
