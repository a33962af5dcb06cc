//! Images: the blobs that describe them, the layers and the chain that they consist of.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::{ChainId, DiffId, Digest};
use crate::image::{ImageConfig, Manifest, Parsed};
use crate::layer::{Chain, INLINE_MAX, Index, ObjectSource, TarStream, Verify, verify_recipe};
use crate::store::error::{Error, Result, io_error, layer_error};
use crate::store::files::{list, open_if_exists, replace};
use crate::store::layout::set_apart;
use crate::store::objects::open_or_trashed;
use crate::store::refs::readable;
use crate::store::verified::Verified;
use crate::store::{INLINE_MAX_WITHOUT, RefName, Store, record};
use crate::sys;

/// An image of the store.
#[derive(Clone, Debug)]
pub struct Image {
    /// Digest of the manifest.
    pub digest: Digest,
    /// The manifest as it was pulled or made.
    pub manifest_bytes: Vec<u8>,
    /// What the manifest says.
    pub manifest: Manifest,
    /// The configuration as it was pulled or made; its digest is the image's id.
    pub config_bytes: Vec<u8>,
    /// What the configuration says.
    pub config: ImageConfig,
}

impl Image {
    /// Returns the id of the image: the digest of its configuration.
    pub const fn id(&self) -> Digest {
        self.manifest.config.digest
    }

    /// Returns the layers, bottom first.
    pub fn layers(&self) -> &[DiffId] {
        &self.config.rootfs.diff_ids
    }

    /// Returns the id of the stack of layers.
    pub fn chain_id(&self) -> ChainId {
        ChainId::of(self.layers())
    }
}

/// A compressed form of a layer that a registry has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Digest of the compressed blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
    /// Repositories that are known to have it, canonical: `docker.io/library/debian`.
    pub repositories: Vec<String>,
}

/// How much of an index is checked when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Its header.
    Header,
    /// All of it, against its sums.
    Whole,
}

/// Most repositories that are remembered for a blob.
const MAX_REPOSITORIES: usize = 16;

/// From so many layers on a listing of all takes less time than a look at each.
const MANY_LAYERS: usize = 32;

impl Store {
    /// Returns a blob, whose bytes were checked.
    pub fn blob(&self, digest: Digest) -> Result<Vec<u8>> {
        let path = self.layout().blob(digest);
        let mut file = match open_or_trashed(&path, &self.layout().trashed_blob(digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoBlob(digest));
            }
            other => other.map_err(io_error("read", &path))?,
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io_error("read", &path))?;
        let actual = Digest::of(&bytes);
        if actual == digest { Ok(bytes) } else { Err(Error::Damaged { path, actual }) }
    }

    /// Returns the image that has this manifest.
    pub fn image(&self, manifest: Digest) -> Result<Image> {
        let manifest_bytes = self.blob(manifest)?;
        let wrong = |digest| move |source| Error::Image { digest, source };
        let parsed = Parsed::parse(&manifest_bytes, None).map_err(wrong(manifest))?;
        let Parsed::Manifest(document) = parsed else {
            let source = crate::image::Error::NotAnImage { media_type: "an index".to_owned() };
            return Err(Error::Image { digest: manifest, source });
        };
        let config_bytes = self.blob(document.config.digest)?;
        let config = ImageConfig::parse(&config_bytes).map_err(wrong(document.config.digest))?;
        Ok(Image { digest: manifest, manifest_bytes, manifest: document, config_bytes, config })
    }

    /// Tells whether a layer is in the store, whole. Its index and its recipe are read to their ends,
    /// and its objects must be there and have their sizes. What is damaged is missing, and whoever
    /// asked will make it again.
    pub fn has_layer(&self, layer: DiffId) -> bool {
        match self.check_layer(layer) {
            Ok(()) => true,
            Err(Error::NoLayer(_)) => false,
            Err(error) => {
                tracing::warn!("{error}; the layer is taken for missing");
                false
            }
        }
    }

    fn check_layer(&self, layer: DiffId) -> Result<()> {
        let path = self.layout().layer_index(layer);
        let index = self.open_layer(layer, Reading::Whole)?;
        let recipe_path = self.layout().layer_recipe(layer);
        let recipe = open_if_exists(&recipe_path)?.ok_or(Error::NoLayer(layer))?;
        verify_recipe(recipe, layer).map_err(layer_error(&recipe_path))?;
        let objects = self.objects();
        for number in 0..index.object_count() as u64 {
            let (digest, expected) = index.object(number).map_err(layer_error(&path))?;
            objects.check_size(digest, expected)?;
        }
        Ok(())
    }

    /// Opens the index of a layer.
    ///
    /// # Errors
    /// [`Error::NoLayer`], and [`Error::SetApart`] when it was damaged beyond repair.
    pub fn layer(&self, layer: DiffId) -> Result<Index> {
        let path = self.layout().layer_index(layer);
        match open_or_trashed(&path, &self.layout().trashed_layer(layer)) {
            Ok(file) => open_index(&file, layer.0, &path, Reading::Header),
            Err(_) => self.open_layer(layer, Reading::Header),
        }
    }

    pub(crate) fn open_layer(&self, layer: DiffId, reading: Reading) -> Result<Index> {
        let path = self.layout().layer_index(layer);
        match open_if_exists(&path)? {
            Some(file) => open_index(&file, layer.0, &path, reading),
            None if set_apart(&path).exists() => {
                Err(Error::SetApart { layer, images: self.names_with_layer(layer)? })
            }
            None => Err(Error::NoLayer(layer)),
        }
    }

    /// Opens what is left of the index of a layer that was set apart.
    pub(crate) fn layer_set_apart(&self, layer: DiffId) -> Result<Index> {
        let path = set_apart(&self.layout().layer_index(layer));
        let file = open_if_exists(&path)?.ok_or(Error::NoLayer(layer))?;
        open_index(&file, layer.0, &path, Reading::Header)
    }

    /// Returns the names under which registries have images with a layer.
    pub(crate) fn names_with_layer(&self, layer: DiffId) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for (name, to) in self.references()? {
            let (RefName::Named(reference), Some(_)) = (name, to.target) else { continue };
            if self.image(to.manifest).is_ok_and(|image| image.layers().contains(&layer)) {
                names.push(reference.familiar());
            }
        }
        Ok(names)
    }

    /// Returns the names of the images that have an object.
    pub(crate) fn images_with_object(&self, object: Digest) -> Result<Vec<String>> {
        let mut known: HashMap<DiffId, bool> = HashMap::new();
        let mut names = Vec::new();
        for (name, to) in self.references()? {
            let RefName::Named(reference) = name else { continue };
            let Ok(image) = self.image(to.manifest) else { continue };
            let mut has = |layer: &DiffId| {
                *known.entry(*layer).or_insert_with(|| self.layer_has(*layer, object))
            };
            if image.layers().iter().any(&mut has) {
                names.push(reference.familiar());
            }
        }
        Ok(names)
    }

    /// Tells whether a layer has an object, as far as its index can be read.
    pub(crate) fn layer_has(&self, layer: DiffId, object: Digest) -> bool {
        let Ok(index) = self.layer(layer).or_else(|_| self.layer_set_apart(layer)) else {
            return false;
        };
        let is_it = |number| index.object(number).is_ok_and(|(digest, _)| digest == object);
        (0..index.object_count() as u64).any(is_it)
    }

    /// Returns up to which size contents are in indexes, told from what the layers have as objects.
    pub(crate) fn inline_max_of_layers(&self) -> u64 {
        let names = list(&self.layout().layers()).unwrap_or_default();
        let mut ids =
            names.iter().filter_map(|name| Digest::from_hex(name.strip_suffix(".idx")?).ok());
        let has_small = |id| {
            self.layer(DiffId(id)).is_ok_and(|index| {
                (0..index.object_count() as u64)
                    .any(|number| index.object(number).is_ok_and(|(_, size)| size <= INLINE_MAX))
            })
        };
        if ids.any(has_small) { INLINE_MAX_WITHOUT } else { INLINE_MAX }
    }

    /// Reads the index of a chain to its end; tells whether it is there.
    pub(crate) fn verified_chain(&self, chain: ChainId) -> Result<bool> {
        Ok(self.chain_index(chain, Reading::Whole)?.is_some())
    }

    /// Opens the index of a chain; none when it is not there.
    pub(crate) fn chain_index(&self, chain: ChainId, reading: Reading) -> Result<Option<Index>> {
        let path = self.layout().chain(chain);
        let Some(file) = open_if_exists(&path)? else { return Ok(None) };
        open_index(&file, chain.0, &path, reading).map(Some)
    }

    /// Opens the merged view of layers, bottom first; the chain is made if it is missing.
    pub fn chain(&self, layers: &[DiffId]) -> Result<Chain> {
        self.open_chain(layers, Reading::Header, Arc::new(self.objects()))
    }

    /// Opens the merged view of layers for a mount that checks what it hands out. What is in indexes is
    /// checked now.
    pub fn verified_view(&self, layers: &[DiffId], verify: Verify) -> Result<Chain> {
        match verify {
            Verify::Off => self.chain(layers),
            Verify::Open | Verify::Always => {
                self.open_chain(layers, Reading::Whole, Arc::new(Verified::new(self, verify)))
            }
        }
    }

    fn open_chain(
        &self,
        layers: &[DiffId],
        reading: Reading,
        objects: Arc<dyn ObjectSource>,
    ) -> Result<Chain> {
        let id = ChainId::of(layers);
        let index = match self.chain_index(id, reading) {
            Ok(Some(index)) => index,
            missing => {
                if let Err(error) = missing {
                    tracing::warn!("{error}; it is made again");
                }
                self.stage()?.publish_chain(layers)?;
                let path = self.layout().chain(id);
                let gone = || crate::layer::Error::Damaged("it went away");
                self.chain_index(id, reading)?.ok_or_else(|| layer_error(&path)(gone()))?
            }
        };
        let path = self.layout().chain(id);
        if reading == Reading::Whole {
            let indexes = layers.iter().map(|layer| self.open_layer(*layer, reading));
            let indexes = indexes.collect::<Result<_>>()?;
            return Chain::new(index, indexes, objects).map_err(layer_error(&path));
        }
        self.check_there(layers)?;
        Chain::over(index, layers, Box::new(self.objects()), objects).map_err(layer_error(&path))
    }

    /// Checks that there are the indexes of layers.
    fn check_there(&self, layers: &[DiffId]) -> Result<()> {
        let dir = sys::open_dir_path(&self.layout().layers())?;
        let mut listed = HashSet::new();
        if layers.len() >= MANY_LAYERS {
            let mut names = sys::DirStream::new(&dir)?;
            // Of a store that has far more layers each one is asked for.
            while listed.len() < 8 * layers.len()
                && let Some(entry) = names.next_entry()?
            {
                listed.insert(entry.name.to_owned());
            }
        }
        for layer in layers {
            let path = self.layout().layer_index(*layer);
            let name = path.file_name().unwrap_or_default();
            if !listed.contains(name) && !sys::exists(dir.as_fd(), name)? {
                // This says why.
                self.layer(*layer)?;
            }
        }
        Ok(())
    }

    /// Returns a reader of the tar of a layer, bit for bit.
    pub fn layer_tar(&self, layer: DiffId) -> Result<TarStream> {
        let path = self.layout().layer_recipe(layer);
        let recipe = open_if_exists(&path)?.ok_or(Error::NoLayer(layer))?;
        let index = self.layer(layer)?;
        TarStream::new(index, recipe, Arc::new(self.objects())).map_err(layer_error(&path))
    }

    /// Returns the compressed forms of a layer that registries are known to have. They save work: a
    /// damaged list of them is told, and none.
    pub fn sources(&self, layer: DiffId) -> Result<Vec<Source>> {
        let read = record::read(&self.layout().layer_sources(layer));
        Ok(readable(read)?.flatten().unwrap_or_default())
    }

    /// Remembers that a repository has a compressed form of a layer.
    pub fn add_source(
        &self,
        layer: DiffId,
        (digest, size, media_type): (Digest, u64, &str),
        repository: &str,
    ) -> Result<()> {
        let mut sources = self.sources(layer)?;
        let known = sources.iter_mut().find(|source| source.digest == digest);
        match known {
            Some(source) if source.repositories.iter().any(|known| known == repository) => {
                return Ok(());
            }
            Some(source) => {
                source.repositories.insert(0, repository.to_owned());
                source.repositories.truncate(MAX_REPOSITORIES);
            }
            None => sources.push(Source {
                digest,
                size,
                media_type: media_type.to_owned(),
                repositories: vec![repository.to_owned()],
            }),
        }
        let path = self.layout().layer_sources(layer);
        replace(&self.layout().staging(), &path, &record::encode(&sources))
    }
}

fn open_index(file: &File, id: Digest, path: &Path, reading: Reading) -> Result<Index> {
    let index = match reading {
        Reading::Header => Index::open(file),
        Reading::Whole => Index::open_verified(file),
    };
    let index = index.map_err(layer_error(path))?;
    if index.id() != id {
        let source = crate::layer::Error::Damaged("it is the index of something else");
        return Err(layer_error(path)(source));
    }
    Ok(index)
}

/// Reads a reader to its end, into memory, if that is not longer than `limit_bytes`.
pub fn read_limited(reader: impl Read, limit_bytes: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit_bytes {
        let text = format!("it is longer than {limit_bytes} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
    }
    Ok(bytes)
}
