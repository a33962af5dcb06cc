//! Staging: where layers, chains and blobs are made before they are published.
//!
//! A stage is a lease and a directory of the same name. What it makes becomes visible in an order
//! that a crash at any point leaves consistent: the data is made durable, objects get their names,
//! the names are made durable, the index gets its name. An object under `objects/` is therefore
//! always whole, and an index under `layers/` never names an object that is not there.
//!
//! What was found and not made has its content on the disk, but its name may not be: who has made it
//! works at the same time, or was killed before he came to that. So names are made durable by whoever
//! relies on them.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;

use crate::digest::{ChainId, DiffId, Digest};
use crate::layer::{Index, LayerFiles, Limits, ObjectSink, Unpacked, merge, merge_onto};
use crate::store::error::{Error, Result, io_error, layer_error};
use crate::store::files::{
    create_new, make_dirs_above, remove_if_exists, rename_into, rename_over, sync_dir, sync_dirs,
    sync_each, sync_name,
};
use crate::store::images::Reading;
use crate::store::layout::set_apart;
use crate::store::lease::{Claim, Lease};
use crate::store::{Ref, RefName, Store, record};
use crate::sys::{self, Time};

/// Up to this many files are made durable one by one; more at once with all that the file system
/// holds, which is what costs least from there on.
const SYNC_SINGLY: usize = 32;

// Files in the directory of the stage; the first two are those of the layer that is being made.
const INDEX: &str = "index";
const RECIPE: &str = "recipe";
const CHAIN: &str = "chain";
const REFERENCE: &str = "reference";
const CLOCK: &str = "clock";

/// From this size on an object is on its way to the disk as soon as it is written. Many smaller ones go
/// faster together.
const WRITE_BACK_MIN: u64 = 128 << 10;

/// So much is written at most before the room on the disk is looked at again.
const ROOM_STEP: u64 = 64 << 20;
/// What an unpacked layer leaves of the disk to others: a fiftieth, and never more than this.
const RESERVE_MAX: u64 = 256 << 20;

/// A place to make things in.
#[derive(Debug)]
pub struct Stage {
    store: Store,
    lease: Lease,
    dir: PathBuf,
    /// Objects that this stage has written and not yet published.
    staged: HashSet<Digest>,
    limits: Limits,
    /// How much may be written before the room on the disk is looked at again.
    room_bytes: u64,
}

impl Stage {
    /// Makes an empty stage.
    pub(crate) fn new(store: &Store) -> Result<Self> {
        let lease = Lease::new(store)?;
        let dir = store.layout().staging().join(lease.id());
        fs::create_dir_all(&dir).map_err(io_error("create", &dir))?;
        Ok(Self {
            store: store.clone(),
            lease,
            dir,
            staged: HashSet::new(),
            limits: Limits::NONE,
            room_bytes: 0,
        })
    }

    /// Sets how much the layers may be from now on; without it there are no limits. Those that come from
    /// somebody else have some.
    pub const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Claims something that is in the store, so that it stays while this stage lives.
    pub fn claim(&mut self, claim: Claim) -> Result<()> {
        self.lease.claim(claim)
    }

    /// Returns the directory that is deleted with the stage.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes a file that is deleted with the stage.
    pub fn scratch(&self, name: &str) -> Result<File> {
        create_new(&self.dir.join(name), 0o600)
    }

    /// Returns the time that the file system gives to what is changed now.
    pub fn clock(&self) -> Result<Time> {
        let file = self.scratch(CLOCK)?;
        let now = sys::fstat(file.as_fd())?.ctime;
        let path = self.dir.join(CLOCK);
        fs::remove_file(&path).map_err(io_error("remove", &path))?;
        Ok(now)
    }

    /// Makes the files for a new layer. The one before must be kept, published or given up.
    pub fn layer_files(&self) -> Result<LayerFiles> {
        Ok(LayerFiles {
            index: create_new(&self.dir.join(INDEX), 0o444)?,
            recipe: create_new(&self.dir.join(RECIPE), 0o444)?,
        })
    }

    /// Publishes the layer that was written to [`Stage::layer_files`], and its objects.
    pub fn publish_layer(&mut self, unpacked: &Unpacked) -> Result<()> {
        self.keep_layer(unpacked)?;
        self.publish_layers(&[unpacked.diff_id])
    }

    /// Lays the layer that was written to [`Stage::layer_files`] aside, to be published with others.
    pub fn keep_layer(&mut self, unpacked: &Unpacked) -> Result<()> {
        let [index, recipe] = self.kept(unpacked.diff_id);
        rename(&self.dir.join(INDEX), &index)?;
        rename(&self.dir.join(RECIPE), &recipe)
    }

    /// Gives the layer up that was written to [`Stage::layer_files`], whole or not.
    pub fn discard_layer(&mut self) -> Result<()> {
        let files = [self.dir.join(INDEX), self.dir.join(RECIPE), self.large()];
        files.iter().try_for_each(|path| remove_if_exists(path).map(drop))
    }

    /// Publishes layers that were kept, and their objects, with one barrier for all.
    pub fn publish_layers(&mut self, layers: &[DiffId]) -> Result<()> {
        let (files, objects) = self.prepare_layers(layers)?;
        self.make_durable(&files, &objects.staged)?;
        self.publish_objects(&objects)?;
        self.name(&files)?;
        sync_dir(&self.store.layout().layers())
    }

    /// Makes durable that layers are in the store which somebody else has published, perhaps just now.
    pub fn settle_layers(&self) -> Result<()> {
        sync_dir(&self.store.layout().layers())
    }

    /// Merges layers that are in the store, and publishes the chain. One that is there and sound is left
    /// as it is.
    pub fn publish_chain(&mut self, layers: &[DiffId]) -> Result<()> {
        self.claim(Claim::Chain(ChainId::of(layers).0))?;
        let made = self.make_chain(layers)?;
        self.publish_made_chain(made)
    }

    /// Publishes a blob: a manifest or a configuration.
    pub fn publish_blob(&mut self, bytes: &[u8]) -> Result<Digest> {
        self.publish_blobs(&[bytes])?;
        Ok(Digest::of(bytes))
    }

    /// Publishes blobs, with one barrier for all.
    pub fn publish_blobs(&mut self, blobs: &[&[u8]]) -> Result<()> {
        self.claim_blobs(blobs)?;
        let files = self.make_blobs(blobs)?;
        self.make_durable(&files, &[])?;
        self.name(&files)?;
        sync_dir(&self.store.layout().blobs())
    }

    /// Publishes all of an image. What does not need each other is made durable at the same time: the chain is
    /// merged and published beside all else; the reference comes last.
    ///
    /// Whether there is still reason to is asked while the files are made. Nothing has got its name if
    /// not; the image is not published then, which is told, and what was kept has to be made again.
    pub fn publish_image(
        &mut self,
        image: &NewImage<'_>,
        go_on: impl FnOnce() -> Result<bool>,
    ) -> Result<bool> {
        let (mut files, objects) = self.prepare_layers(image.layers)?;
        self.claim(Claim::Chain(ChainId::of(image.chain).0))?;
        self.claim_blobs(image.blobs)?;
        files.extend(self.make_blobs(image.blobs)?);
        let reference =
            Staged { from: self.dir.join(REFERENCE), to: self.store.ref_path(image.name) };
        write_new(&reference.from, &record::encode(image.to))?;
        let written = [&files[..], std::slice::from_ref(&reference)].concat();
        let (stage, (tell, told)) = (&*self, channel());
        let goes_on = std::thread::scope(|scope| {
            let chain = scope.spawn(move || {
                let made = stage.make_chain(image.chain)?;
                let goes_on = told.recv().unwrap_or(false);
                if goes_on { stage.publish_made_chain(made) } else { Ok(()) }
            });
            let synced = scope.spawn(|| stage.make_durable(&written, &objects.staged));
            let goes_on = go_on();
            let goes_on = goes_on.and_then(|goes_on| joined(synced).map(|()| goes_on));
            // Nobody listens any more where the chain could not be made.
            let is_heard = tell.send(matches!(goes_on, Ok(true))).is_ok();
            if !goes_on? {
                return Ok(false);
            }
            let named = is_heard.then(|| stage.name_all(&files, &objects, &reference.to));
            joined(chain).and(named.unwrap_or(Ok(()))).map(|()| true)
        })?;
        if !goes_on {
            return Ok(false);
        }
        self.forget_staged(&objects);
        self.store.set_reference_as(image.name, image.to, |path| {
            rename_into(&self.dir, &reference.from, path)?;
            sync_name(path)
        })?;
        Ok(true)
    }

    /// Names the objects of an image, then its other files, and makes the directories on the way to its
    /// reference; all of it durable.
    fn name_all(&self, files: &[Staged], objects: &LayerObjects, reference: &Path) -> Result<()> {
        let layout = self.store.layout();
        let above = make_dirs_above(&layout.refs(), reference)?;
        let mut dirs = vec![layout.blobs(), layout.layers()];
        if objects.staged.is_empty() && objects.found.is_empty() {
            dirs.extend(above);
        } else {
            self.name_objects(objects, &above)?;
        }
        self.name(files)?;
        sync_dirs(&dirs)
    }

    /// Makes a chain durable, if it was made, and its name, whoever has made it.
    fn publish_made_chain(&self, made: Option<Staged>) -> Result<()> {
        let files: Vec<_> = made.into_iter().collect();
        self.make_durable(&files, &[])?;
        self.name(&files)?;
        sync_dir(&self.store.layout().chains())
    }

    /// Claims layers that were kept, and returns their files, and their objects.
    fn prepare_layers(&mut self, layers: &[DiffId]) -> Result<(Vec<Staged>, LayerObjects)> {
        let mut needed = BTreeSet::new();
        let mut files = Vec::new();
        for layer in layers {
            self.lease.claim(Claim::Layer(layer.0))?;
            let [index, recipe] = self.kept(*layer);
            let opened = open_kept(&index)?;
            for number in 0..opened.object_count() as u64 {
                needed.insert(opened.object(number).map_err(layer_error(&index))?.0);
            }
            let layout = self.store.layout();
            // The recipe first: whoever sees the index has both.
            files.push(Staged { from: recipe, to: layout.layer_recipe(*layer) });
            files.push(Staged { from: index, to: layout.layer_index(*layer) });
        }
        let (staged, found) = needed.into_iter().partition(|digest| self.staged.contains(digest));
        Ok((files, LayerObjects { staged, found }))
    }

    /// Merges a chain if it is not there. Layers that were kept need not be published.
    fn make_chain(&self, layers: &[DiffId]) -> Result<Option<Staged>> {
        let chain = ChainId::of(layers);
        match self.store.verified_chain(chain) {
            Ok(true) => return Ok(None),
            Ok(false) => {}
            Err(error) => tracing::warn!("{error}; it is made again"),
        }
        let indexes: Vec<Index> =
            layers.iter().map(|layer| self.layer(*layer)).collect::<Result<_>>()?;
        let from = self.dir.join(CHAIN);
        remove_if_exists(&from)?;
        let file = create_new(&from, 0o444)?;
        let merged = match self.base_of(layers) {
            Some(base) => merge_onto(base, &indexes, file),
            None => merge(&indexes, self.limits, file),
        };
        merged.map_err(layer_error(&from))?;
        Ok(Some(Staged { from, to: self.store.layout().chain(chain) }))
    }

    /// Opens the index of a layer, of one that was kept too.
    fn layer(&self, layer: DiffId) -> Result<Index> {
        let [index, _] = self.kept(layer);
        match open_kept(&index) {
            // It is published, perhaps just now.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                self.store.layer(layer)
            }
            opened => opened,
        }
    }

    /// Opens the chain of all but the last of these layers, if it is there and sound, and does not have to
    /// be counted against limits.
    fn base_of(&self, layers: &[DiffId]) -> Option<Index> {
        let (_, below) = layers.split_last()?;
        if below.is_empty() || self.limits != Limits::NONE {
            return None;
        }
        match self.store.chain_index(ChainId::of(below), Reading::Whole) {
            Ok(base) => base,
            Err(error) => {
                tracing::warn!("{error}; its layers are merged");
                None
            }
        }
    }

    fn claim_blobs(&mut self, blobs: &[&[u8]]) -> Result<()> {
        blobs.iter().try_for_each(|bytes| self.claim(Claim::Blob(Digest::of(bytes))))
    }

    /// Writes blobs that are not there.
    fn make_blobs(&self, blobs: &[&[u8]]) -> Result<Vec<Staged>> {
        let mut made: Vec<Staged> = Vec::new();
        for bytes in blobs {
            let digest = Digest::of(bytes);
            let to = self.store.layout().blob(digest);
            let is_there = matches!(fs::read(&to), Ok(found) if found == *bytes);
            if is_there || made.iter().any(|other| other.to == to) {
                continue;
            }
            let from = self.dir.join(format!("blob-{}", digest.hex()));
            write_new(&from, bytes)?;
            made.push(Staged { from, to });
        }
        Ok(made)
    }

    /// Gives files that are durable their names, in their order.
    fn name(&self, files: &[Staged]) -> Result<()> {
        for Staged { from, to } in files {
            rename_into(&self.dir, from, to)?;
        }
        for Staged { to, .. } in files {
            // It is back.
            remove_if_exists(&set_apart(to))?;
        }
        Ok(())
    }

    /// Publishes an object, whose bytes hash to its name. One that is damaged is replaced.
    pub(crate) fn publish_object(&mut self, digest: Digest, bytes: &[u8]) -> Result<()> {
        self.put_object(digest, bytes)?;
        if self.staged.contains(&digest) {
            self.make_durable(&[], &[digest])?;
            let objects = LayerObjects { staged: vec![digest], found: Vec::new() };
            self.publish_objects(&objects)?;
        }
        Ok(())
    }

    /// Makes files, and objects, durable.
    fn make_durable(&self, files: &[Staged], staged: &[Digest]) -> Result<()> {
        if files.len() + staged.len() > SYNC_SINGLY {
            let dir = File::open(&self.dir).map_err(io_error("open", &self.dir))?;
            return Ok(sys::sync_fs(&dir)?);
        }
        let objects = staged.iter().map(|digest| self.staged_object(*digest));
        sync_each(&files.iter().map(|file| file.from.clone()).chain(objects).collect::<Vec<_>>())
    }

    /// Publishes objects that are durable.
    fn publish_objects(&mut self, objects: &LayerObjects) -> Result<()> {
        self.name_objects(objects, &[])?;
        self.forget_staged(objects);
        Ok(())
    }

    fn forget_staged(&mut self, objects: &LayerObjects) {
        for digest in &objects.staged {
            self.staged.remove(digest);
        }
    }

    /// Gives staged objects their names, and makes the names durable, with those in other directories.
    fn name_objects(&self, objects: &LayerObjects, others: &[PathBuf]) -> Result<()> {
        let layout = self.store.layout();
        let mut shards: BTreeSet<PathBuf> = others.iter().cloned().collect();
        for digest in &objects.staged {
            let path = layout.object(*digest);
            rename_over(&self.dir, &self.staged_object(*digest), &path)?;
            remove_if_exists(&set_apart(&path))?;
            shards.extend(path.parent().map(Path::to_owned));
        }
        // Those that were found are claimed, so the collector has brought back what it had moved.
        for digest in &objects.found {
            let path = layout.object(*digest);
            if !path.exists() && !self.store.bring_back(*digest)? {
                return Err(Error::ObjectVanished(*digest));
            }
            // Who has made them may not have come to this yet, or may have been killed before.
            shards.extend(path.parent().map(Path::to_owned));
        }
        if shards.len() > SYNC_SINGLY {
            let dir = File::open(layout.objects()).map_err(io_error("open", &layout.objects()))?;
            sys::sync_fs(&dir)?;
        } else {
            sync_dirs(&shards.into_iter().collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Returns where the index and the recipe of a layer wait to be published.
    fn kept(&self, layer: DiffId) -> [PathBuf; 2] {
        [INDEX, RECIPE].map(|name| self.dir.join(format!("{name}-{}", layer.0.hex())))
    }

    fn staged_object(&self, digest: Digest) -> PathBuf {
        self.dir.join("objects").join(digest.hex())
    }

    /// Returns the place for another object.
    fn place_for(&self, digest: Digest) -> Result<PathBuf> {
        let path = self.staged_object(digest);
        if self.staged.is_empty()
            && let Some(dir) = path.parent()
        {
            fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        }
        Ok(path)
    }

    fn large(&self) -> PathBuf {
        self.dir.join("large")
    }

    /// Sees to it that so much can be written and the disk is not full afterwards.
    fn make_room_for(&mut self, len_bytes: u64) -> Result<()> {
        if len_bytes > self.room_bytes {
            let free = free_bytes(&self.dir)?;
            if len_bytes > free {
                let path = self.store.root().to_owned();
                return Err(Error::NoRoom { needed: len_bytes, free, path });
            }
            // Others write too; and what has been written may not be counted yet.
            self.room_bytes = len_bytes + ((free - len_bytes) / 16).min(ROOM_STEP);
        }
        self.room_bytes -= len_bytes;
        Ok(())
    }

    fn put_object(&mut self, digest: Digest, bytes: &[u8]) -> Result<()> {
        if self.staged.contains(&digest) {
            return Ok(());
        }
        self.lease.claim(Claim::Object(digest))?;
        if self.store.objects().has_bytes(digest, bytes)? {
            return Ok(());
        }
        let path = self.place_for(digest)?;
        let mut file = create_new(&path, 0o444)?;
        file.write_all(bytes).map_err(io_error("write", &path))?;
        if bytes.len() as u64 >= WRITE_BACK_MIN {
            sys::begin_write_back(file.as_fd());
        }
        self.staged.insert(digest);
        Ok(())
    }

    fn commit_object(&mut self, file: &File, digest: Digest) -> Result<()> {
        let large = self.large();
        self.lease.claim(Claim::Object(digest))?;
        if self.staged.contains(&digest) || self.store.objects().has_sound(digest)? {
            return fs::remove_file(&large).map_err(io_error("remove", &large));
        }
        let path = self.place_for(digest)?;
        file.set_permissions(fs::Permissions::from_mode(0o444))
            .map_err(io_error("write", &large))?;
        rename(&large, &path)?;
        sys::begin_write_back(file.as_fd());
        self.staged.insert(digest);
        Ok(())
    }
}

/// An image that is to be published, with its name.
#[derive(Clone, Copy, Debug)]
pub struct NewImage<'a> {
    /// Those of its layers that were kept and are not published.
    pub layers: &'a [DiffId],
    /// All its layers, bottom first.
    pub chain: &'a [DiffId],
    /// Its configuration, its manifest, the index that the manifest was chosen from.
    pub blobs: &'a [&'a [u8]],
    /// Its name.
    pub name: &'a RefName,
    /// Where the name leads.
    pub to: &'a Ref,
}

/// A file in the stage, and the name that it is to get.
#[derive(Clone, Debug)]
struct Staged {
    from: PathBuf,
    to: PathBuf,
}

/// The objects of layers.
#[derive(Debug)]
struct LayerObjects {
    /// Those in the stage.
    staged: Vec<Digest>,
    /// Those that are in the store.
    found: Vec<Digest>,
}

impl ObjectSink for Stage {
    fn inline_max(&self) -> u64 {
        self.store.inline_max
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn make_room(&mut self, len_bytes: u64) -> io::Result<()> {
        self.make_room_for(len_bytes).map_err(io::Error::other)
    }

    fn put(&mut self, digest: Digest, bytes: &[u8]) -> io::Result<()> {
        self.put_object(digest, bytes).map_err(io::Error::other)
    }

    fn begin(&mut self) -> io::Result<File> {
        create_new(&self.large(), 0o600).map_err(io::Error::other)
    }

    fn commit(&mut self, file: File, digest: Digest) -> io::Result<()> {
        self.commit_object(&file, digest).map_err(io::Error::other)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            // Without its lease the directory is collected.
            tracing::debug!("{}: {error}", self.dir.display());
        }
    }
}

/// Waits for a thread.
fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Writes a file of the stage. One that could not be written whole before is begun again.
fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    remove_if_exists(path)?;
    create_new(path, 0o644)?.write_all(bytes).map_err(io_error("write", path))
}

fn open_kept(path: &Path) -> Result<Index> {
    let file = File::open(path).map_err(io_error("open", path))?;
    Index::open(&file).map_err(layer_error(path))
}

/// Returns how much more may be written to the file system of a directory.
pub(crate) fn free_bytes(dir: &Path) -> Result<u64> {
    let dir = File::open(dir).map_err(io_error("open", dir))?;
    let state = sys::statfs(dir.as_fd())?;
    if state.blocks == 0 {
        // It does not say, as file systems of the network may.
        return Ok(u64::MAX);
    }
    let bytes = |blocks: u64| blocks.saturating_mul(u64::from(state.block_size));
    let reserve = (bytes(state.blocks) / 50).min(RESERVE_MAX);
    Ok(bytes(state.blocks_available).saturating_sub(reserve))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(io_error("write", to))
}
