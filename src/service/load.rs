//! Loading: the images of an archive into the store.
//!
//! Find out which images there are → each layer, once: hash → inflate → unpack into staging → check
//! against its image → publish all layers behind one barrier → merge the chains → set the names. A
//! stream is read before it is known what is in it; there the second step comes first. Nothing is
//! published before everything was read and checked.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::archive::{self, Archived, ArchivedImage, ArchivedLayer, DOCUMENT_LIMIT_BYTES};
use crate::digest::{DiffId, Digest, HashingReader};
use crate::image::{Platform, Reference};
use crate::layer::{Compressed, Excess, begins_as_tar, decompress, unpack};
use crate::service::error::{Error, Result, io_error};
use crate::service::opened::{Documents, Kept, KeptLayer, Opened, Place};
use crate::service::pipeline::{Counted, ReadAhead};
use crate::service::room::file_len;
use crate::service::save::plain_manifest;
use crate::service::{Event, LayerState, Strata};
use crate::store::{Claim, Ref, RefName, Stage};
use crate::sys;

/// What to load.
#[derive(Clone, Debug)]
pub struct LoadRequest {
    /// Where it comes from.
    pub source: LoadSource,
    /// Which image to take where there are several for one name; this machine's if it is not said.
    pub platform: Option<Platform>,
}

/// Where an archive comes from.
#[derive(Clone, Debug)]
pub enum LoadSource {
    /// Standard input, a tar.
    Stdin,
    /// A tar, or a directory.
    Path(PathBuf),
}

/// A name that was loaded, or an image without one.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The name.
    pub name: Option<Reference>,
    /// The id of the image.
    pub id: Digest,
    /// The image that had the name before.
    pub replaced: Option<Replaced>,
}

/// An image that has lost a name to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// Its id.
    pub id: Digest,
    /// It has no other name.
    pub is_nameless: bool,
}

/// The layers that were read: their lengths in bytes by id, and which of them wait in staging.
#[derive(Debug, Default)]
struct Layers {
    /// Those that were read and checked. Images share them, and each is read once.
    read: HashSet<ArchivedLayer>,
    len_bytes: HashMap<DiffId, u64>,
    staged: BTreeSet<DiffId>,
}

impl Strata {
    /// Loads all images of an archive, and returns their names.
    pub fn load(&self, request: &LoadRequest) -> Result<Vec<Loaded>> {
        let mut missing_bytes = None;
        let loaded = self.load_images(request, &mut missing_bytes);
        loaded.map_err(|error| {
            // Before it is known what is in it, at least how long it is.
            let whole = || match &request.source {
                LoadSource::Path(path) => file_len(path),
                LoadSource::Stdin => None,
            };
            self.telling_room_for(error, missing_bytes.or_else(whole))
        })
    }

    /// Does so; if it fails, `missing_bytes` are to be written, as far as it is known.
    fn load_images(
        &self,
        request: &LoadRequest,
        missing_bytes: &mut Option<u64>,
    ) -> Result<Vec<Loaded>> {
        let mut stage = self.store.stage()?;
        stage.set_limits(self.limits);
        let shown = match &request.source {
            LoadSource::Stdin => "standard input".to_owned(),
            LoadSource::Path(path) => path.display().to_string(),
        };
        let (images, layers) = self
            .read_archive(request, &shown, (&mut stage, missing_bytes))
            .map_err(|error| match error {
                Error::Archive(source) => Error::InvalidArchive { path: shown.clone(), source },
                other => other,
            })?;
        stage.publish_layers(&layers.staged.iter().copied().collect::<Vec<_>>())?;
        for image in &images {
            stage
                .publish_chain(&image.config.rootfs.diff_ids)
                .map_err(|error| Error::merging(&image.id.to_string(), error))?;
        }
        self.publish_images(&images, &layers, &mut stage)
    }

    /// Reads and checks all of an archive that its images need; the layers are in staging then.
    fn read_archive(
        &self,
        request: &LoadRequest,
        shown: &str,
        (stage, missing_bytes): (&mut Stage, &mut Option<u64>),
    ) -> Result<(Vec<ArchivedImage>, Layers)> {
        let opened = match &request.source {
            LoadSource::Stdin => self.read_stream(io::stdin(), shown, stage)?,
            LoadSource::Path(path) => self.open_archive(path, shown, stage)?,
        };
        let Archived { images, warnings } = archive::images(&opened, request.platform.as_ref())?;
        for warning in warnings {
            self.tell(Event::Warning(warning));
        }
        let mut layers = Layers::default();
        for layer in images.iter().flat_map(|image| &image.layers) {
            if !layers.read.contains(layer) {
                if let Err(error) = self.read_layer(&opened, layer, &mut layers, stage) {
                    *missing_bytes = self.missing_bytes(&opened, &images);
                    return Err(error);
                }
                layers.read.insert(layer.clone());
            }
        }
        Ok((images, layers))
    }

    /// Returns how many bytes the layers of an archive have that the store has not; none if that is not
    /// known.
    fn missing_bytes(&self, opened: &Opened, images: &[ArchivedImage]) -> Option<u64> {
        let layers: HashSet<_> = images.iter().flat_map(|image| &image.layers).collect();
        let missing = layers.iter().filter(|layer| !self.store.has_layer(layer.diff_id));
        missing
            .map(|layer| match opened.place(&layer.file) {
                Ok(Some(Place::Readable(_, size))) => Some(size),
                _ => None,
            })
            .sum()
    }

    fn open_archive(&self, path: &Path, shown: &str, stage: &mut Stage) -> Result<Opened> {
        let metadata = fs::metadata(path).map_err(io_error("open", shown))?;
        if metadata.is_dir() {
            return Ok(Opened::Folder(sys::open_dir_path(path)?));
        }
        let file = File::open(path).map_err(io_error("open", shown))?;
        if !metadata.is_file() {
            return self.read_stream(file, shown, stage);
        }
        let mut first = [0; 6];
        let len = std::os::unix::fs::FileExt::read_at(&file, &mut first, 0);
        let len = len.map_err(io_error("read", shown))?;
        if Compressed::of_first_bytes(&first[..len]) != Compressed::Not {
            return self.read_stream(file, shown, stage);
        }
        let contents = archive::scan_seekable(&file)?;
        if contents.is_empty() {
            return Err(archive::Error::Empty.into());
        }
        Ok(Opened::Tar(file, contents))
    }

    /// Reads a stream once, and keeps what may be needed of it.
    fn read_stream(
        &self,
        stream: impl Read + Send,
        shown: &str,
        stage: &mut Stage,
    ) -> Result<Opened> {
        let tar = decompress(stream).map_err(io_error("read", shown))?;
        let mut documents = Documents::new(stage.scratch("documents")?);
        let contents = archive::scan(tar, &mut |name, size, content| {
            self.keep(name, (content, size), stage, Some(&mut documents))
        })?;
        if contents.is_empty() {
            return Err(archive::Error::Empty.into());
        }
        Ok(Opened::Stream(documents.into_file(), contents))
    }

    /// Reads a file of the archive to its end: a layer goes into staging, what is small to the
    /// documents.
    fn keep(
        &self,
        name: &str,
        (content, size): (&mut (dyn Read + Send), u64),
        stage: &mut Stage,
        documents: Option<&mut Documents>,
    ) -> Result<Kept> {
        let id = shown_id(name);
        let tell = |done| self.loading(id, LayerState::Loading { done, total: size });
        if let Some(kept) = self.keep_known(name, (&mut *content, size), stage)? {
            return Ok(kept);
        }
        self.check_size(name, Excess::File, size)?;
        let mut hashing = HashingReader::new(Counted::new(content, &tell));
        let mut first = Vec::new();
        (&mut hashing).take(512).read_to_end(&mut first)?;
        let compressed = Compressed::of_first_bytes(&first);
        if compressed == Compressed::Not && !begins_as_tar(&first) {
            return match documents.filter(|_| size <= DOCUMENT_LIMIT_BYTES) {
                Some(documents) => {
                    hashing.read_to_end(&mut first)?;
                    Ok(Kept::Document(documents.add(&first)?))
                }
                None => other(hashing),
            };
        }
        let rest = io::BufReader::with_capacity(128 * 1024, &mut hashing);
        let mut tar = compressed.decoder(io::Cursor::new(first).chain(rest))?;
        let mut begin = Vec::new();
        // Whatever is compressed wrongly is no tar.
        let inflated = (&mut tar).take(512).read_to_end(&mut begin);
        if inflated.is_err() || !begins_as_tar(&begin) {
            drop(tar);
            return other(hashing);
        }
        let files = stage.layer_files()?;
        let unpacked = std::thread::scope(|scope| {
            let tar = ReadAhead::new(scope, io::Cursor::new(begin).chain(tar));
            unpack(tar, files, stage)
        });
        let unpacked = unpacked.map_err(|error| Error::unpacking(name.to_owned(), error))?;
        io::copy(&mut hashing, &mut io::sink())?;
        let (blob, blob_len) = finished(hashing);
        let (diff_id, tar_len) = (unpacked.diff_id, unpacked.tar_len);
        stage.claim(Claim::Layer(diff_id.0))?;
        let is_staged = !self.store.has_layer(diff_id);
        if is_staged {
            stage.keep_layer(&unpacked)?;
        } else {
            stage.discard_layer()?;
        }
        self.loading(id, LayerState::Loaded);
        Ok(Kept::Layer(KeptLayer { blob, blob_len, diff_id, tar_len, is_staged }))
    }

    /// Reads a file that is called as a layer of the store is, if it is; it is only hashed then.
    fn keep_known(
        &self,
        name: &str,
        (content, size): (&mut (dyn Read + Send), u64),
        stage: &mut Stage,
    ) -> Result<Option<Kept>> {
        let Some(digest) = archive::digest_in(name) else { return Ok(None) };
        let diff_id = DiffId(digest);
        stage.claim(Claim::Layer(digest))?;
        if !self.store.has_layer(diff_id) {
            return Ok(None);
        }
        match other(HashingReader::new(content))? {
            Kept::Other(blob, blob_len) if blob == digest => {
                let tar_len = size;
                let is_staged = false;
                Ok(Some(Kept::Layer(KeptLayer { blob, blob_len, diff_id, tar_len, is_staged })))
            }
            kept => Ok(Some(kept)),
        }
    }

    /// Sees to it that a layer of an image is in the store or in staging, and is the right one.
    fn read_layer(
        &self,
        opened: &Opened,
        layer: &ArchivedLayer,
        layers: &mut Layers,
        stage: &mut Stage,
    ) -> Result<()> {
        let missing =
            || archive::Error::Missing { by: "an image".to_owned(), file: layer.file.clone() };
        let kept = match opened.place(&layer.file)?.ok_or_else(missing)? {
            Place::Read(kept) => *kept,
            Place::Readable(mut content, size) => {
                // Where the name of the blob says no more than the layer, the layer is enough.
                if layer.blob.is_none_or(|(digest, _)| digest == layer.diff_id.0)
                    && self.is_there(layer.diff_id, layers, stage)?
                {
                    return Ok(());
                }
                self.keep(&layer.file, (&mut content, size), stage, None)?
            }
        };
        let file = || layer.file.clone();
        let (blob, len) = match kept {
            Kept::Layer(kept) => (kept.blob, kept.blob_len),
            Kept::Other(blob, len) => (blob, len),
            Kept::Document(_) => return Err(archive::Error::NoTar { file: file() }.into()),
        };
        if let Some((expected, size)) = layer.blob {
            if len != size {
                let error = archive::Error::Size { file: file(), expected: size, actual: len };
                return Err(error.into());
            }
            if blob != expected {
                return Err(archive::Error::Digest { file: file(), expected, actual: blob }.into());
            }
        }
        let Kept::Layer(kept) = kept else {
            return Err(archive::Error::NoTar { file: file() }.into());
        };
        if kept.diff_id != layer.diff_id {
            let (expected, actual) = (layer.diff_id, kept.diff_id);
            return Err(archive::Error::Layer { file: file(), expected, actual }.into());
        }
        layers.len_bytes.insert(kept.diff_id, kept.tar_len);
        if kept.is_staged {
            layers.staged.insert(kept.diff_id);
        }
        Ok(())
    }

    fn is_there(&self, layer: DiffId, layers: &mut Layers, stage: &mut Stage) -> Result<bool> {
        if layers.len_bytes.contains_key(&layer) {
            return Ok(true);
        }
        stage.claim(Claim::Layer(layer.0))?;
        if !self.store.has_layer(layer) {
            return Ok(false);
        }
        layers.len_bytes.insert(layer, self.store.layer(layer)?.tar_len());
        Ok(true)
    }

    /// Puts the documents into the store, then the names.
    fn publish_images(
        &self,
        images: &[ArchivedImage],
        layers: &Layers,
        stage: &mut Stage,
    ) -> Result<Vec<Loaded>> {
        let known = self.all_images()?.into_iter().map(|image| (image.id(), image.digest));
        let known: HashMap<_, _> = known.collect();
        let mut manifests = Vec::new();
        for image in images {
            manifests.push(match known.get(&image.id) {
                Some(manifest) if self.is_whole(*manifest, stage)? => *manifest,
                _ => publish_documents(image, layers, stage)?,
            });
        }
        let mut loaded = Vec::new();
        for (image, manifest) in images.iter().zip(manifests) {
            for name in &image.names {
                let replaced = self.set_loaded(name, image.id, manifest)?;
                loaded.push(Loaded { name: Some(name.clone()), id: image.id, replaced });
            }
            if image.names.is_empty() {
                if self.store.names_of(manifest)?.is_empty() {
                    let to = Ref { manifest, target: None, updated: jiff::Timestamp::now() };
                    self.store.set_reference(&RefName::Untagged(manifest), &to)?;
                }
                loaded.push(Loaded { name: None, id: image.id, replaced: None });
            }
        }
        Ok(loaded)
    }

    /// Claims an image of the store, and tells whether it is still there.
    fn is_whole(&self, manifest: Digest, stage: &mut Stage) -> Result<bool> {
        stage.claim(Claim::Image(manifest))?;
        Ok(self.store.image(manifest).is_ok())
    }

    /// Sets a name, and returns the image that had it if that was another one. A name that leads to
    /// the image already keeps what is known of it.
    fn set_loaded(
        &self,
        name: &Reference,
        id: Digest,
        manifest: Digest,
    ) -> Result<Option<Replaced>> {
        let ref_name = RefName::Named(name.clone());
        let mut replaced = None;
        if let Some(before) = self.store.readable_reference(&ref_name)? {
            let image = self.store.image(before.manifest);
            if image.as_ref().is_ok_and(|image| image.id() == id) {
                return Ok(None);
            }
            let names = self.store.names_of(before.manifest)?;
            let is_nameless = names.iter().all(|other| *other == ref_name);
            replaced = image.ok().map(|image| Replaced { id: image.id(), is_nameless });
        }
        let to = Ref { manifest, target: None, updated: jiff::Timestamp::now() };
        self.store.set_reference(&ref_name, &to)?;
        Ok(replaced)
    }

    fn loading(&self, id: Digest, state: LayerState) {
        self.tell(Event::Layer { id, state });
    }
}

/// Publishes configuration and manifest, which is made where the archive has none.
fn publish_documents(image: &ArchivedImage, layers: &Layers, stage: &mut Stage) -> Result<Digest> {
    if let Some((_, bytes)) = &image.manifest {
        stage.publish_blobs(&[&image.config_bytes, bytes])?;
        return Ok(Digest::of(bytes));
    }
    let id = Digest::of(&image.config_bytes);
    let len = |layer: &DiffId| (*layer, layers.len_bytes.get(layer).copied().unwrap_or_default());
    let lens: Vec<_> = image.config.rootfs.diff_ids.iter().map(len).collect();
    let manifest = plain_manifest(id, image.config_bytes.len() as u64, &lens);
    let manifest = manifest.to_bytes();
    stage.publish_blobs(&[&image.config_bytes, &manifest])?;
    Ok(Digest::of(&manifest))
}

/// Reads the rest of what is neither layer nor document.
fn other<R: Read>(mut hashing: HashingReader<R>) -> Result<Kept> {
    io::copy(&mut hashing, &mut io::sink())?;
    let (digest, len) = finished(hashing);
    Ok(Kept::Other(digest, len))
}

fn finished<R: Read>(hashing: HashingReader<R>) -> (Digest, u64) {
    let len = hashing.len_bytes();
    (hashing.finish().0, len)
}

/// Returns what a person sees of a layer while it is loaded: the digits in its name.
fn shown_id(name: &str) -> Digest {
    let in_name = name.split('/').rev().find_map(archive::digest_in);
    in_name.unwrap_or_else(|| Digest::of(name.as_bytes()))
}
