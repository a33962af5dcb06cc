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

use crate::digest::{ChainId, DiffId, Digest};
use crate::layer::{Index, LayerFiles, Limits, ObjectSink, Unpacked, merge};
use crate::store::Store;
use crate::store::error::{Error, Result, io_error, layer_error};
use crate::store::files::{
    create_new, remove_if_exists, rename_into, rename_over, sync_dir, sync_each,
};
use crate::store::layout::set_apart;
use crate::store::lease::{Claim, Lease};
use crate::sys::{self, Time};

/// Up to this many files are made durable one by one; more at once with all that the file system
/// holds, which is what costs least from there on.
const SYNC_SINGLY: usize = 32;

// The files of the layer that is being made, in the directory of the stage.
const INDEX: &str = "index";
const RECIPE: &str = "recipe";
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
        let mut needed = BTreeSet::new();
        for layer in layers {
            self.lease.claim(Claim::Layer(layer.0))?;
            let [path, _] = self.kept(*layer);
            let file = File::open(&path).map_err(io_error("open", &path))?;
            let index = Index::open(&file).map_err(layer_error(&path))?;
            for number in 0..index.object_count() as u64 {
                needed.insert(index.object(number).map_err(layer_error(&path))?.0);
            }
        }
        let (staged, found): (Vec<_>, Vec<_>) =
            needed.into_iter().partition(|digest| self.staged.contains(digest));
        let files: Vec<_> = layers.iter().flat_map(|layer| self.kept(*layer)).collect();
        self.make_durable(&files, &staged)?;
        self.publish_objects(&staged, &found)?;
        let layout = self.store.layout();
        for layer in layers {
            let [index, recipe] = self.kept(*layer);
            // The recipe first: whoever sees the index has both.
            rename_over(&self.dir, &recipe, &layout.layer_recipe(*layer))?;
            rename_over(&self.dir, &index, &layout.layer_index(*layer))?;
        }
        sync_dir(&layout.layers())?;
        for layer in layers {
            // It is back.
            for path in [layout.layer_index(*layer), layout.layer_recipe(*layer)] {
                remove_if_exists(&set_apart(&path))?;
            }
        }
        Ok(())
    }

    /// Makes durable that layers are in the store which somebody else has published, perhaps just now.
    pub fn settle_layers(&self) -> Result<()> {
        sync_dir(&self.store.layout().layers())
    }

    /// Merges layers that are in the store, and publishes the chain. One that is there and sound is left
    /// as it is.
    pub fn publish_chain(&mut self, layers: &[DiffId]) -> Result<()> {
        let chain = ChainId::of(layers);
        self.lease.claim(Claim::Chain(chain.0))?;
        match self.store.verified_chain(chain) {
            Ok(true) => return sync_dir(&self.store.layout().chains()),
            Ok(false) => {}
            Err(error) => tracing::warn!("{error}; it is made again"),
        }
        let indexes: Vec<Index> =
            layers.iter().map(|layer| self.store.layer(*layer)).collect::<Result<_>>()?;
        let path = self.dir.join("chain");
        let file = create_new(&path, 0o444)?;
        let file = merge(&indexes, self.limits, file).map_err(layer_error(&path))?;
        file.sync_all().map_err(io_error("sync", &path))?;
        rename_over(&self.dir, &path, &self.store.layout().chain(chain))?;
        sync_dir(&self.store.layout().chains())
    }

    /// Publishes a blob: a manifest or a configuration.
    pub fn publish_blob(&mut self, bytes: &[u8]) -> Result<Digest> {
        self.publish_blobs(&[bytes])?;
        Ok(Digest::of(bytes))
    }

    /// Publishes blobs, with one barrier for all.
    pub fn publish_blobs(&mut self, blobs: &[&[u8]]) -> Result<()> {
        let mut made: Vec<(PathBuf, PathBuf)> = Vec::new();
        for bytes in blobs {
            let digest = Digest::of(bytes);
            self.lease.claim(Claim::Blob(digest))?;
            let path = self.store.layout().blob(digest);
            let is_there = matches!(fs::read(&path), Ok(found) if found == *bytes);
            if is_there || made.iter().any(|(_, other)| *other == path) {
                continue;
            }
            let staged = self.dir.join(format!("blob-{}", digest.hex()));
            // One that could not be written whole before is begun again.
            remove_if_exists(&staged)?;
            let mut file = create_new(&staged, 0o644)?;
            file.write_all(bytes).map_err(io_error("write", &staged))?;
            made.push((staged, path));
        }
        let staged: Vec<_> = made.iter().map(|(staged, _)| staged.clone()).collect();
        sync_each(&staged)?;
        for (staged, path) in &made {
            rename_into(&self.dir, staged, path)?;
            remove_if_exists(&set_apart(path))?;
        }
        sync_dir(&self.store.layout().blobs())
    }

    /// Publishes an object, whose bytes hash to its name. One that is damaged is replaced.
    pub(crate) fn publish_object(&mut self, digest: Digest, bytes: &[u8]) -> Result<()> {
        self.put_object(digest, bytes)?;
        if self.staged.contains(&digest) {
            self.make_durable(&[], &[digest])?;
            self.publish_objects(&[digest], &[])?;
        }
        Ok(())
    }

    /// Makes files of layers, and objects, durable.
    fn make_durable(&self, files: &[PathBuf], staged: &[Digest]) -> Result<()> {
        if files.len() + staged.len() > SYNC_SINGLY {
            let dir = File::open(&self.dir).map_err(io_error("open", &self.dir))?;
            return Ok(sys::sync_fs(&dir)?);
        }
        let objects = staged.iter().map(|digest| self.staged_object(*digest));
        sync_each(&files.iter().cloned().chain(objects).collect::<Vec<_>>())
    }

    /// Gives staged objects their names, and makes the names durable.
    fn publish_objects(&mut self, staged: &[Digest], found: &[Digest]) -> Result<()> {
        let layout = self.store.layout();
        let mut shards = BTreeSet::new();
        for digest in staged {
            let path = layout.object(*digest);
            rename_over(&self.dir, &self.staged_object(*digest), &path)?;
            remove_if_exists(&set_apart(&path))?;
            self.staged.remove(digest);
            shards.extend(path.parent().map(Path::to_owned));
        }
        // Those that were found are claimed, so the collector has brought back what it had moved.
        for digest in found {
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
            sync_each(&shards.into_iter().collect::<Vec<_>>())?;
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
        begin_write_back(&file, bytes.len() as u64);
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
        begin_write_back(file, u64::MAX);
        self.staged.insert(digest);
        Ok(())
    }
}

impl ObjectSink for Stage {
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

/// Has the disk busy with an object while the next ones are made. The barrier waits for what is left, and
/// tells what went wrong.
fn begin_write_back(file: &File, len_bytes: u64) {
    if len_bytes >= WRITE_BACK_MIN
        && let Err(error) = sys::begin_write_back(file.as_fd())
    {
        tracing::debug!("{error}");
    }
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
