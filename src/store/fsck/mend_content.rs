//! Mending documents, indexes, recipes and contents with what the store has, and setting apart what
//! cannot be mended.
//!
//! What is set apart keeps its bytes under another name (`.bad`), for a person who wants to look at
//! them; a layer whose index was set apart is not there for anybody else. Whatever makes the part again
//! (a pull, a load) removes that.

use std::fs::{self, File};
use std::path::Path;

use crate::digest::{ChainId, DiffId, Digest, MEND_MAX_BYTES, mend_one_bit};
use crate::image::{Descriptor, Reference};
use crate::layer::{Index, TarStream, mend_index, mend_recipe, unpack};
use crate::store::error::{Result, io_error, layer_error, way_back};
use crate::store::files::{create_new, random_name, rename_over, sync_dir};
use crate::store::fsck::mend::{BIT_TURNED, Outcome};
use crate::store::fsck::{Check, Fault, Part};
use crate::store::layout::set_apart;
use crate::store::{Claim, Source, Stage};

const UNNEEDED: &str = "it was removed: nothing needs it";

impl Check {
    pub(crate) fn mend_content(&self, part: &Part) -> Result<Option<Outcome>> {
        let is_needed = self.is_still_needed(part)? || self.known.has_gaps();
        match part {
            Part::Blob(blob) => self.mend_blob(*blob, is_needed),
            Part::Object(object) => self.mend_object(*object, is_needed),
            Part::Index(layer) => self.mend_layer_index(*layer, is_needed),
            Part::Recipe(layer) => self.mend_layer_recipe(*layer, is_needed),
            Part::Apart(layer) => self.bring_layer_back(*layer),
            Part::Chain(chain) => self.mend_chain(*chain).map(Some),
            _ => Ok(None),
        }
    }

    /// Tells whether images need a part, which they keep from being collected then.
    fn is_still_needed(&self, part: &Part) -> Result<bool> {
        let images = self.known.images_with(&self.store, part);
        let manifests: Vec<_> = images.iter().map(|image| image.manifest).collect();
        self.is_needed(&manifests)
    }

    fn mend_blob(&self, blob: Digest, is_needed: bool) -> Result<Option<Outcome>> {
        let path = self.store.layout().blob(blob);
        if let Some(mut bytes) = small(&path)
            && mend_one_bit(&mut bytes, blob)
        {
            self.stage.lock().publish_blob(&bytes)?;
            return Ok(Some(Outcome::mended(BIT_TURNED)));
        }
        let is_document = self.known.images.iter().any(|image| {
            image.manifest == blob
                || image.config.as_ref().is_some_and(|config| config.digest == blob)
        });
        if is_needed && (is_document || self.known.has_gaps()) {
            return Ok(None);
        }
        self.remove(&path)?;
        Ok(Some(Outcome::mended(UNNEEDED)))
    }

    fn mend_object(&self, object: Digest, is_needed: bool) -> Result<Option<Outcome>> {
        let path = self.store.layout().object(object);
        if path.symlink_metadata().is_err() && self.store.bring_back(object)? {
            if self.store.objects().has_sound(object)? {
                return Ok(Some(Outcome::mended("it was brought back from trash/")));
            }
            self.remove(&path)?;
        }
        if let Some(mut bytes) = small(&path)
            && mend_one_bit(&mut bytes, object)
        {
            self.stage.lock().publish_object(object, &bytes)?;
            return Ok(Some(Outcome::mended(BIT_TURNED)));
        }
        if is_needed {
            return Ok(None);
        }
        self.remove(&path)?;
        Ok(Some(Outcome::mended(UNNEEDED)))
    }

    /// The header of an index may be mended, or all of it if it is small. Where the bytes that make the
    /// tar are sound, the index is made again of that.
    fn mend_layer_index(&self, layer: DiffId, is_needed: bool) -> Result<Option<Outcome>> {
        let path = self.store.layout().layer_index(layer);
        let mut bytes = regular(&path);
        if let Some(bytes) = &mut bytes
            && mend_index(bytes)
        {
            self.replace_immutable(&path, bytes)?;
            return Ok(Some(Outcome::mended(BIT_TURNED)));
        }
        if !is_needed {
            self.remove(&path)?;
            self.remove(&self.store.layout().layer_recipe(layer))?;
            return Ok(Some(Outcome::mended(UNNEEDED)));
        }
        if bytes.is_none() {
            // What cannot be read cannot be mapped either.
            return Ok(None);
        }
        match self.index_from_tar(layer, &path) {
            Ok(true) => Ok(Some(Outcome::mended("it was made again of its recipe and contents"))),
            Ok(false) => Ok(None),
            Err(error) => {
                tracing::debug!("{error}");
                Ok(None)
            }
        }
    }

    fn index_from_tar(&self, layer: DiffId, path: &Path) -> Result<bool> {
        let mut stage = Stage::new(&self.store)?;
        stage.claim(Claim::Layer(layer.0))?;
        let file = File::open(path).map_err(io_error("open", path))?;
        let index = Index::open(&file).map_err(layer_error(path))?;
        let recipe_path = self.store.layout().layer_recipe(layer);
        let recipe = File::open(&recipe_path).map_err(io_error("open", &recipe_path))?;
        let objects = std::sync::Arc::new(self.store.objects());
        let tar = TarStream::new(index, recipe, objects).map_err(layer_error(path))?;
        let files = stage.layer_files()?;
        let unpacked = unpack(tar, files, &mut stage).map_err(layer_error(path))?;
        if unpacked.diff_id == layer {
            stage.publish_layer(&unpacked)?;
        }
        Ok(unpacked.diff_id == layer)
    }

    fn mend_layer_recipe(&self, layer: DiffId, is_needed: bool) -> Result<Option<Outcome>> {
        let path = self.store.layout().layer_recipe(layer);
        if let Some(mut bytes) = regular(&path)
            && mend_recipe(&mut bytes)
        {
            self.replace_immutable(&path, &bytes)?;
            return Ok(Some(Outcome::mended(BIT_TURNED)));
        }
        if is_needed {
            return Ok(None);
        }
        self.remove(&path)?;
        Ok(Some(Outcome::mended(UNNEEDED)))
    }

    /// A layer may have been set apart for want of something that is there again.
    fn bring_layer_back(&self, layer: DiffId) -> Result<Option<Outcome>> {
        let path = self.store.layout().layer_index(layer);
        let apart = set_apart(&path);
        let Ok(file) = File::open(&apart) else { return Ok(None) };
        let Ok(index) = Index::open_verified(&file) else { return Ok(None) };
        for number in 0..index.object_count() as u64 {
            let (object, _) = index.object(number).map_err(layer_error(&apart))?;
            if !self.store.objects().has_sound(object)? {
                return Ok(None);
            }
        }
        fs::rename(&apart, &path).map_err(io_error("bring back", &path))?;
        sync_dir(&self.store.layout().layers())?;
        Ok(Some(Outcome::mended("all that it needs is there again")))
    }

    fn mend_chain(&self, chain: ChainId) -> Result<Outcome> {
        let path = self.store.layout().chain(chain);
        self.remove(&path)?;
        let of_image = self.known.images.iter().find(|image| image.chain() == Some(chain));
        let Some(image) = of_image else { return Ok(Outcome::mended(UNNEEDED)) };
        if image.layers.iter().any(|layer| self.known.unreadable().contains(layer)) {
            return Ok(Outcome::left("it is made again when its layers are all there"));
        }
        match self.stage.lock().publish_chain(&image.layers) {
            Ok(()) => Ok(Outcome::mended("it was made again of its layers")),
            Err(error) => {
                tracing::debug!("{error}");
                Ok(Outcome::left("it is made again when its layers are all there"))
            }
        }
    }

    /// Replaces a file that never changes.
    fn replace_immutable(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        use std::io::Write;
        let stage = self.stage.lock();
        let staged = stage.dir().join(format!("mended-{}", random_name()?));
        let mut file = create_new(&staged, 0o444)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.map_err(io_error("write", &staged))?;
        rename_over(stage.dir(), &staged, path)?;
        sync_dir(path.parent().unwrap_or(path))
    }

    /// Sets apart what nothing has mended, so that nobody takes it for sound.
    pub fn give_up(&self, fault: &Fault) -> Result<Outcome> {
        let layout = self.store.layout();
        let back = way_back(&self.names(fault));
        Ok(match &fault.part {
            Part::Blob(blob) => {
                self.set_apart(&layout.blob(*blob))?;
                Outcome::left(format!("set apart; {back} brings it back"))
            }
            Part::Object(object) => {
                for layer in self.known.layers_with(&self.store, *object) {
                    self.set_apart(&layout.layer_index(layer))?;
                }
                self.set_apart(&layout.object(*object))?;
                Outcome::left(format!("its layer is set apart; {back} brings it back"))
            }
            Part::Index(layer) | Part::Tar(layer) => {
                self.set_apart(&layout.layer_index(*layer))?;
                Outcome::left(format!("its layer is set apart; {back} brings it back"))
            }
            Part::Recipe(layer) => {
                self.set_apart(&layout.layer_recipe(*layer))?;
                Outcome::left(format!(
                    "set apart: the image can be mounted, but neither saved nor pushed; {back} brings \
                     it back"
                ))
            }
            _ => Outcome::left(format!("{back} brings it back")),
        })
    }

    /// Returns the names under which registries have the images that a fault touches.
    fn names(&self, fault: &Fault) -> Vec<String> {
        let images = self.known.images_with(&self.store, &fault.part).into_iter();
        images.flat_map(|image| image.pulled.iter().map(Reference::familiar)).collect()
    }

    /// Returns the layers that have an object, of whichever images.
    pub fn layers_with(&self, object: Digest) -> Vec<DiffId> {
        self.known.layers_with(&self.store, object)
    }

    /// Returns where a layer may be had: compressed forms, and repositories that are known to have each.
    pub fn sources_of(&self, layer: DiffId) -> Vec<Source> {
        let mut sources = self.store.sources(layer).unwrap_or_else(|error| {
            tracing::debug!("{error}");
            Vec::new()
        });
        for image in self.known.with_layer(layer) {
            let at = image.layers.iter().position(|other| *other == layer);
            let Some(Descriptor { digest, size, media_type, .. }) =
                at.and_then(|at| image.blobs.get(at))
            else {
                continue;
            };
            if sources.iter().any(|source| source.digest == *digest) {
                continue;
            }
            let repositories: Vec<_> = image.pulled.iter().map(Reference::repository).collect();
            let (digest, size, media_type) = (*digest, *size, media_type.clone());
            sources.push(Source { digest, size, media_type, repositories });
        }
        sources
    }

    /// Returns where a manifest or a configuration may be had, and how it is described; a manifest has
    /// no description.
    pub fn sources_of_blob(&self, blob: Digest) -> Vec<(String, Option<Descriptor>)> {
        let mut found = Vec::new();
        for image in self.known.images_with(&self.store, &Part::Blob(blob)) {
            let config = image.config.clone().filter(|config| config.digest == blob);
            let mut repositories: Vec<_> = image.pulled.iter().map(Reference::repository).collect();
            for layer in &image.layers {
                let sources = self.store.sources(*layer).unwrap_or_default().into_iter();
                repositories.extend(sources.flat_map(|source| source.repositories));
            }
            let new = |repository: &String| {
                !found.iter().any(|(known, _): &(String, _)| known == repository)
            };
            repositories.retain(new);
            repositories.dedup();
            found.extend(repositories.into_iter().map(|repository| (repository, config.clone())));
        }
        found
    }

    /// Publishes a document that was fetched again, if it is that one; tells whether it is.
    pub fn put_blob(&self, blob: Digest, bytes: &[u8]) -> Result<bool> {
        let is_it = Digest::of(bytes) == blob;
        if is_it {
            self.stage.lock().publish_blob(bytes)?;
        }
        Ok(is_it)
    }

    /// Gives a file the name that damaged ones have. What is no file is moved away.
    fn set_apart(&self, path: &Path) -> Result<()> {
        match path.symlink_metadata() {
            Ok(metadata) if metadata.is_file() => {
                let apart = set_apart(path);
                fs::rename(path, apart).map_err(io_error("set apart", path))?;
            }
            Ok(_) => self.move_away(path)?,
            Err(_) => return Ok(()),
        }
        sync_dir(path.parent().unwrap_or(path))
    }
}

/// Reads a regular file.
fn regular(path: &Path) -> Option<Vec<u8>> {
    let is_file = path.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
    if !is_file {
        return None;
    }
    match fs::read(path) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            tracing::debug!("{}: {error}", path.display());
            None
        }
    }
}

/// Reads a regular file in which a wrong bit may be looked for.
fn small(path: &Path) -> Option<Vec<u8>> {
    let len = path.symlink_metadata().ok()?.len();
    if len <= MEND_MAX_BYTES as u64 { regular(path) } else { None }
}
