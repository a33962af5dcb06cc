//! What the benchmarks stand on: layers and objects in a temporary folder, made the same every time.
#![allow(dead_code, reason = "every benchmark uses some of it")]

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use strata::digest::Digest;
use strata::layer::{
    Chain, Index, Kind, LayerFiles, Limits, ObjectSink, ObjectSource, TarMeta, TarWriter, merge,
    unpack,
};
use strata::overlay::{ChainLower, Ino, Overlay, Redirects, Sync, UpperDirs, Writes};

/// Files in a directory of a tree.
pub(crate) const IN_EACH: usize = 30;

/// A tar that is being made.
pub(crate) type Tar = TarWriter<Vec<u8>>;

/// Contents of files in a folder.
#[derive(Clone, Debug)]
pub(crate) struct Objects(PathBuf);

impl Objects {
    pub(crate) fn new(folder: &Path) -> Self {
        let path = folder.join("objects");
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn large(&self) -> PathBuf {
        self.0.join("large")
    }
}

impl ObjectSink for Objects {
    fn put(&mut self, digest: Digest, bytes: &[u8]) -> io::Result<()> {
        fs::write(self.0.join(digest.hex()), bytes)
    }

    fn begin(&mut self) -> io::Result<File> {
        File::options().read(true).write(true).create(true).truncate(true).open(self.large())
    }

    fn commit(&mut self, _: File, digest: Digest) -> io::Result<()> {
        fs::rename(self.large(), self.0.join(digest.hex()))
    }
}

impl ObjectSource for Objects {
    fn open(&self, digest: Digest) -> io::Result<File> {
        File::open(self.0.join(digest.hex()))
    }
}

/// Returns what there is to say of a file.
pub(crate) fn meta(path: &str, kind: Kind, size: u64) -> TarMeta {
    TarMeta { size, ..TarMeta::new(path, kind, 0o755) }
}

/// Adds a directory to a tar.
pub(crate) fn dir(tar: &mut Tar, path: &str) {
    tar.entry(&meta(path, Kind::Directory, 0)).unwrap();
}

/// Adds a regular file to a tar.
pub(crate) fn file(tar: &mut Tar, path: &str, content: &[u8]) {
    let size = content.len() as u64;
    tar.file(&meta(path, Kind::Regular, size), &mut &*content).unwrap();
}

/// Returns the tar of one of several layers of a tree: its share of the entries.
pub(crate) fn tree_tar(entries: usize, layer: usize, layers: usize) -> Vec<u8> {
    let mut tar = Tar::new(Vec::new());
    for number in (layer..entries / (IN_EACH + 1)).step_by(layers) {
        dir(&mut tar, &format!("dir-{number:05}"));
        for name in 0..IN_EACH {
            let path = format!("dir-{number:05}/file-{name:02}.txt");
            file(&mut tar, &path, path.repeat(3).as_bytes());
        }
    }
    tar.finish().unwrap()
}

/// Returns the index of a layer.
pub(crate) fn index(tar: &[u8], objects: &Objects) -> Index {
    let files =
        LayerFiles { index: tempfile::tempfile().unwrap(), recipe: tempfile::tempfile().unwrap() };
    Index::open(&unpack(tar, files, &mut objects.clone()).unwrap().files.index).unwrap()
}

/// Returns the indexes of all layers of a tree.
pub(crate) fn layers(entries: usize, count: usize, objects: &Objects) -> Vec<Index> {
    (0..count).map(|layer| index(&tree_tar(entries, layer, count), objects)).collect()
}

/// Returns layers merged.
pub(crate) fn chain(layers: Vec<Index>, objects: &Objects) -> Chain {
    let merged = merge(&layers, Limits::NONE, tempfile::tempfile().unwrap()).unwrap();
    Chain::new(Index::open(&merged).unwrap(), layers, Arc::new(objects.clone())).unwrap()
}

/// Returns one layer as a tree that cannot be changed.
pub(crate) fn read_only(tar: &[u8], objects: &Objects) -> Overlay {
    Overlay::read_only(Box::new(ChainLower::new(chain(vec![index(tar, objects)], objects))))
}

/// Returns one layer as a tree that can, with its changes in a new folder.
pub(crate) fn writable(tar: &[u8], objects: &Objects, folder: &Path, sync: Sync) -> Overlay {
    let (upper, work) = (folder.join("upper"), folder.join("work"));
    [&upper, &work].into_iter().for_each(|path| fs::create_dir(path).unwrap());
    let writes = Writes { redirects: Redirects::Made, metacopy: true, user_marks: false };
    let dirs = UpperDirs { upper: &upper, work: &work, sync, owners: None, writes };
    let lower = ChainLower::new(chain(vec![index(tar, objects)], objects));
    Overlay::writable(Box::new(lower), dirs).unwrap()
}

/// Looks up a path.
pub(crate) fn find(overlay: &Overlay, path: &str) -> Ino {
    let step = |dir, name: &str| overlay.lookup(dir, name.as_ref()).unwrap().ino;
    path.split('/').fold(Ino::ROOT, step)
}
