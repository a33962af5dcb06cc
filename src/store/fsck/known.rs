//! Who needs what: images with their names, the containers made of them, and the parts that each has.
//!
//! Read from references, containers and documents as far as these are sound.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::digest::{ChainId, DiffId, Digest};
use crate::image::{Descriptor, Manifest, Parsed, Reference};
use crate::layer::Index;
use crate::store::error::Result;
use crate::store::files::list_if_there;
use crate::store::fsck::Part;
use crate::store::refs::read_ref;
use crate::store::{Container, Ref, RefName, Store};

/// An image that something leads to.
#[derive(Clone, Debug)]
pub(crate) struct KnownImage {
    pub(crate) manifest: Digest,
    /// Its names.
    pub(crate) names: Vec<Reference>,
    /// Those under which a registry has it.
    pub(crate) pulled: Vec<Reference>,
    /// What registries have under its names.
    pub(crate) targets: Vec<Digest>,
    /// The containers made of it, by id, with their names.
    pub(crate) containers: BTreeMap<String, String>,
    /// Of the manifest, if that can be read.
    pub(crate) config: Option<Descriptor>,
    /// Compressed layers, as the manifest has them.
    pub(crate) blobs: Vec<Descriptor>,
    /// Of the configuration, if that can be read.
    pub(crate) layers: Vec<DiffId>,
    /// Whether the configuration could be read: an image without layers is one, too.
    pub(crate) has_layers: bool,
}

impl KnownImage {
    const fn new(manifest: Digest) -> Self {
        Self {
            manifest,
            names: Vec::new(),
            pulled: Vec::new(),
            targets: Vec::new(),
            containers: BTreeMap::new(),
            config: None,
            blobs: Vec::new(),
            layers: Vec::new(),
            has_layers: false,
        }
    }

    /// Returns the names that people see.
    fn shown(&self) -> Vec<String> {
        match self.names.as_slice() {
            [] => vec![self.config.as_ref().map_or(self.manifest, |config| config.digest).short()],
            names => names.iter().map(Reference::familiar).collect(),
        }
    }

    pub(crate) fn chain(&self) -> Option<ChainId> {
        self.has_layers.then(|| ChainId::of(&self.layers))
    }

    fn needs_blob(&self, blob: Digest) -> bool {
        self.manifest == blob
            || self.targets.contains(&blob)
            || self.config.as_ref().is_some_and(|config| config.digest == blob)
    }
}

/// All that is known of who needs what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// All images, whichever are checked: any of them may have what another one lacks.
    pub(crate) images: Vec<KnownImage>,
    /// The only image whose parts are checked.
    scope: Option<Digest>,
    /// The names of containers, by their ids.
    pub(crate) containers: BTreeMap<String, String>,
    /// The images that have a layer, by their places in the list.
    by_layer: HashMap<DiffId, Vec<usize>>,
    /// Layers whose indexes the disk does not give: whoever maps one of them would be ended by that.
    unreadable: HashSet<DiffId>,
}

impl Known {
    /// Reads what there is, to check all of it or one image alone.
    pub(crate) fn of(store: &Store, scope: Option<Digest>) -> Result<Self> {
        let mut images: BTreeMap<Digest, KnownImage> = BTreeMap::new();
        for (name, to) in references(store)? {
            let new = || KnownImage::new(to.manifest);
            let image = images.entry(to.manifest).or_insert_with(new);
            image.targets.extend(to.target);
            if let RefName::Named(reference) = name {
                if to.target.is_some() {
                    image.pulled.push(reference.clone());
                }
                image.names.push(reference);
            }
        }
        let mut containers = BTreeMap::new();
        for container in containers_of(store)? {
            let new = || KnownImage::new(container.manifest);
            let image = images.entry(container.manifest).or_insert_with(new);
            image.containers.insert(container.id.clone(), container.name.clone());
            if scope.is_none_or(|only| only == container.manifest) {
                containers.insert(container.id, container.name);
            }
        }
        let mut known = Self { containers, scope, ..Self::default() };
        for (at, mut image) in images.into_values().enumerate() {
            read_documents(store, &mut image);
            for layer in &image.layers {
                known.by_layer.entry(*layer).or_default().push(at);
            }
            known.images.push(image);
        }
        Ok(known)
    }

    /// Takes over which indexes cannot be read.
    pub(crate) fn with_unreadable(mut self, layers: HashSet<DiffId>) -> Self {
        self.unreadable = layers;
        self
    }

    pub(crate) const fn unreadable(&self) -> &HashSet<DiffId> {
        &self.unreadable
    }

    /// Returns the index of a layer, if it can be read.
    pub(crate) fn index(&self, store: &Store, layer: DiffId) -> Option<Index> {
        if self.unreadable.contains(&layer) { None } else { store.layer(layer).ok() }
    }

    /// Tells whether a layer has an object.
    fn layer_has(&self, store: &Store, layer: DiffId, object: Digest) -> bool {
        !self.unreadable.contains(&layer) && store.layer_has(layer, object)
    }

    /// Tells whether a reference or a container leads to an image.
    pub(crate) fn is_needed(store: &Store, manifest: Digest) -> Result<bool> {
        let named = references(store)?.iter().any(|(_, to)| to.manifest == manifest);
        Ok(named || containers_of(store)?.iter().any(|container| container.manifest == manifest))
    }

    /// Returns the images whose parts are checked.
    pub(crate) fn checked(&self) -> impl Iterator<Item = &KnownImage> + Clone {
        let is_checked = |image: &&KnownImage| self.scope.is_none_or(|only| only == image.manifest);
        self.images.iter().filter(is_checked)
    }

    /// Returns the layers of the images whose parts are checked.
    pub(crate) fn layers(&self) -> BTreeSet<DiffId> {
        self.checked().flat_map(|image| image.layers.iter().copied()).collect()
    }

    /// Returns the layers of all images that have an object.
    pub(crate) fn layers_with(&self, store: &Store, object: Digest) -> Vec<DiffId> {
        let mut layers: Vec<_> = self.by_layer.keys().copied().collect();
        layers.retain(|layer| self.layer_has(store, *layer, object));
        layers.sort_unstable();
        layers
    }

    /// Tells whether something may be needed that nobody is known to need: an image whose documents
    /// cannot be read does not say what it needs.
    pub(crate) fn has_gaps(&self) -> bool {
        self.images.iter().any(|image| !image.has_layers)
    }

    /// Returns the images that need a part of the store.
    pub(crate) fn images_with(&self, store: &Store, part: &Part) -> Vec<&KnownImage> {
        let all = self.images.iter();
        match part {
            Part::Blob(blob) => all.filter(|image| image.needs_blob(*blob)).collect(),
            Part::Chain(chain) => all.filter(|image| image.chain() == Some(*chain)).collect(),
            Part::Index(layer)
            | Part::Recipe(layer)
            | Part::Tar(layer)
            | Part::Apart(layer)
            | Part::Sources(layer) => self.with_layer(*layer),
            Part::Object(object) => {
                let mut places: Vec<usize> = Vec::new();
                for (layer, images) in &self.by_layer {
                    if self.layer_has(store, *layer, *object) {
                        places.extend(images);
                    }
                }
                places.sort_unstable();
                places.dedup();
                places.into_iter().filter_map(|at| self.images.get(at)).collect()
            }
            Part::Ref(name) => {
                let is_it = |image: &&KnownImage| match name {
                    RefName::Named(name) => image.names.contains(name),
                    RefName::Untagged(manifest) => image.manifest == *manifest,
                };
                all.filter(is_it).collect()
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn with_layer(&self, layer: DiffId) -> Vec<&KnownImage> {
        let places = self.by_layer.get(&layer).into_iter().flatten();
        places.filter_map(|at| self.images.get(*at)).collect()
    }

    /// Returns the names of the images and of the containers that a part of the store touches.
    pub(crate) fn touched(&self, store: &Store, part: &Part) -> (Vec<String>, Vec<String>) {
        if let Some(id) = container_of(part) {
            let name = self.containers.get(id).cloned().unwrap_or_else(|| short_id(id));
            return (Vec::new(), vec![name]);
        }
        let images = self.images_with(store, part);
        let mut names: Vec<_> = images.iter().flat_map(|image| image.shown()).collect();
        if let (Part::Ref(RefName::Named(name)), true) = (part, names.is_empty()) {
            names.push(name.familiar());
        }
        let containers = images.iter().flat_map(|image| image.containers.values().cloned());
        // What an image's document is worth does not depend on its name.
        let containers =
            if matches!(part, Part::Ref(_)) { Vec::new() } else { containers.collect() };
        (names, containers)
    }
}

/// Returns the first digits of the id of a container.
pub(crate) fn short_id(id: &str) -> String {
    id.chars().take(12).collect()
}

fn container_of(part: &Part) -> Option<&str> {
    match part {
        Part::Config(id)
        | Part::State(id)
        | Part::Upper(id)
        | Part::Snapshot(id, _)
        | Part::Twins(id, _)
        | Part::Sums(id, _)
        | Part::SnapshotFile(id, ..) => Some(id),
        _ => None,
    }
}

/// Returns the references that can be read; what is wrong with the others is told as faults.
pub(crate) fn references(store: &Store) -> Result<Vec<(RefName, Ref)>> {
    let mut found = Vec::new();
    for (path, name) in store.ref_files()? {
        if let (Some(name), Ok(Some(to))) = (name, read_ref(&path)) {
            found.push((name, to));
        }
    }
    found.sort_by_key(|(name, _)| match name {
        RefName::Named(reference) => reference.to_string(),
        RefName::Untagged(_) => String::new(),
    });
    Ok(found)
}

/// Returns the containers that can be read.
pub(crate) fn containers_of(store: &Store) -> Result<Vec<Container>> {
    let ids = list_if_there(&store.layout().containers())?.into_iter();
    Ok(ids.filter_map(|id| store.container(&id).ok().flatten()).collect())
}

fn read_documents(store: &Store, image: &mut KnownImage) {
    let Some(manifest) = manifest_of(store, image.manifest) else { return };
    image.blobs.clone_from(&manifest.layers);
    image.config = Some(manifest.config);
    match store.image(image.manifest) {
        Ok(read) => {
            image.layers = read.layers().to_vec();
            image.has_layers = true;
        }
        Err(error) => tracing::debug!("{error}"),
    }
}

fn manifest_of(store: &Store, digest: Digest) -> Option<Manifest> {
    match Parsed::parse(&store.blob(digest).ok()?, None) {
        Ok(Parsed::Manifest(manifest)) => Some(manifest),
        _ => None,
    }
}
