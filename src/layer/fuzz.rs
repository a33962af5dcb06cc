//! What fuzzing does with this room: tars in and out, indexes and recipes that nobody has written.
//!
//! Each function takes any bytes. That it comes back is what is asked of it, and what it asserts.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a crash is what this looks for, and it is in no program"
)]

use std::collections::HashMap;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, Cursor, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use crate::digest::{DiffId, Digest};
use crate::layer::format as f;
use crate::layer::format::{IndexKind, put};
use crate::layer::path::components;
use crate::layer::whiteout::{self, Marker};
use crate::layer::*;
use crate::sys::fuzz::memory_file;

/// Little enough for many runs in a second; the layers in use differ in number, not in kind.
const LIMITS: Limits = Limits { size_bytes: 16 << 20, entries: 20_000 };

/// Objects in memory.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    objects: Arc<Mutex<HashMap<Digest, Vec<u8>>>>,
    limits: Limits,
}

impl Default for Memory {
    fn default() -> Self {
        Self::within(Limits::NONE)
    }
}

impl Memory {
    /// Returns room for the objects of a layer that has these limits.
    pub(crate) fn within(limits: Limits) -> Self {
        Self { objects: Arc::default(), limits }
    }

    pub(crate) fn objects(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Vec<u8>>> {
        self.objects.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl ObjectSink for Memory {
    /// Little, so that small tars have objects too.
    fn inline_max(&self) -> u64 {
        4096
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn put(&mut self, digest: Digest, bytes: &[u8]) -> io::Result<()> {
        assert_eq!(Digest::of(bytes), digest);
        self.objects().insert(digest, bytes.to_vec());
        Ok(())
    }

    fn begin(&mut self) -> io::Result<File> {
        memory_file()
    }

    fn commit(&mut self, mut file: File, digest: Digest) -> io::Result<()> {
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        self.put(digest, &bytes)
    }
}

impl ObjectSource for Memory {
    fn open(&self, digest: Digest) -> io::Result<File> {
        let mut file = memory_file()?;
        file.write_all(self.objects().get(&digest).ok_or(io::ErrorKind::NotFound)?)?;
        Ok(file)
    }
}

/// Returns the layer that a tar is.
fn layer_of(tar: impl Read, objects: &mut Memory) -> Result<Unpacked> {
    let files = LayerFiles { index: memory_file()?, recipe: memory_file()? };
    unpack(tar, files, objects)
}

/// The files of a chain of one layer.
#[derive(Debug)]
pub(crate) struct Merged {
    layer: File,
    chain: File,
    objects: Memory,
}

impl Merged {
    /// Makes them of a tar.
    pub(crate) fn of(tar: &[u8]) -> Result<Self> {
        let mut objects = Memory::within(LIMITS);
        let layer = layer_of(tar, &mut objects)?.files.index;
        let chain = merge(&[Index::open(&layer)?], LIMITS, memory_file()?)?;
        Ok(Self { layer, chain, objects })
    }

    /// Opens the chain.
    pub(crate) fn open(&self) -> Result<Chain> {
        let layers = vec![Index::open(&self.layer)?];
        Chain::new(Index::open(&self.chain)?, layers, Arc::new(self.objects.clone()))
    }
}

/// Unpacks a tar. What can be unpacked comes back bit for bit, and can be read and merged.
pub(crate) fn tar(data: &[u8]) {
    let mut objects = Memory::within(LIMITS);
    let Ok(unpacked) = layer_of(data, &mut objects) else { return };
    assert_eq!((unpacked.diff_id, unpacked.tar_len), (DiffId(Digest::of(data)), data.len() as u64));
    let LayerFiles { index, mut recipe } = unpacked.files;
    let open = || Index::open_verified(&index).expect("what was written has its sum");
    recipe.rewind().expect("a file of memory");
    let stream = TarStream::new(open(), recipe, Arc::new(objects.clone()));
    let mut again = Vec::new();
    stream.expect("they belong together").read_to_end(&mut again).expect("it can be made again");
    assert!(again == data, "the tar came back with other bytes");
    let layers = [open(), open()];
    // A hard link may lead to nothing, two layers may be too many; nothing else is wrong.
    match merge(&layers, LIMITS, memory_file().expect("memory")) {
        Ok(chain) => {
            if let Ok(base) = merge(&layers[..1], LIMITS, memory_file().expect("memory")) {
                let base = Index::open_verified(&base).expect("what was written has its sum");
                let grown = merge_onto(base, &layers, memory_file().expect("memory"));
                let grown = bytes_of(grown.expect("it is the same chain"));
                assert!(grown == bytes_of(chain.try_clone().expect("a file of memory")));
            }
            let chain = Index::open(&chain).expect("what was merged can be opened");
            let chain = Chain::new(chain, layers.into(), Arc::new(objects)).expect("its layers");
            let files = walk(&chain).expect("what was merged can be read");
            assert!(files <= LIMITS.entries, "{files}");
        }
        Err(Error::LowerLink { .. } | Error::Limit { .. } | Error::TooMany(_)) => {}
        Err(error) => panic!("{error}"),
    }
    drop(relocate(data, b"/to/../there", Vec::new()));
}

fn bytes_of(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().expect("a file of memory");
    file.read_to_end(&mut bytes).expect("a file of memory");
    bytes
}

/// Undoes a compression, and unpacks what comes.
pub(crate) fn compressed(data: &[u8]) {
    let Ok(stream) = decompress(data) else { return };
    let stream = &mut stream.take(LIMITS.size_bytes + 1);
    drop(layer_of(stream, &mut Memory::within(LIMITS)));
}

/// Reads everything of a chain, and returns how many names it has.
fn walk(chain: &Chain) -> Result<u64> {
    let (mut pending, mut count) = (vec![ROOT], 0);
    while let Some(dir) = pending.pop() {
        for position in 0..chain.entry_count(dir)? {
            let Some(entry) = chain.entry(dir, position)? else { break };
            let name = entry.name.as_encoded_bytes();
            assert!(!matches!(name, b"" | b"." | b"..") && !name.contains(&b'/'));
            count += 1;
            look(chain, entry.inode)?;
            black_box(chain.lookup(dir, entry.name)?);
            if entry.kind == Kind::Directory {
                pending.push(entry.inode);
            }
        }
    }
    Ok(count)
}

/// Reads what there is of a file.
fn look(chain: &Chain, inode: u32) -> Result<()> {
    let attr = chain.attr(inode)?;
    drop(chain.names(inode)?);
    for (name, value) in chain.xattrs(inode)? {
        assert!(name.len() + value.len() <= u32::MAX as usize);
    }
    match Kind::of(attr.mode) {
        Kind::Symlink => assert!(chain.read_link(inode)?.len() <= limits::LINK_TARGET_MAX),
        Kind::Regular => {
            if let Content::Object(digest) = chain.content(inode)? {
                // There is none.
                drop(chain.open_object(digest));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Returns an index of these sections, in the order that files have them: first the lengths of each in
/// bytes, two for each, then all of them. What begins as an index is one, and its header is what it says.
pub(crate) fn index_of(data: &[u8], kind: IndexKind, id: Digest) -> Option<Index> {
    let mut bytes = data.to_vec();
    bytes.resize(data.len().max(f::HEADER_BYTES), 0);
    if !data.starts_with(f::MAGIC) {
        let (lengths, mut body) = data.split_at_checked(2 * f::SECTION_COUNT)?;
        bytes = vec![0; f::HEADER_BYTES];
        for (section, len) in f::Section::ALL.into_iter().zip(lengths.as_chunks::<2>().0) {
            let len = usize::from(u16::from_le_bytes(*len)).min(body.len());
            let count = len / section.record_bytes();
            let (part, rest) = body.split_at(count * section.record_bytes());
            body = rest;
            let at = f::H_SECTIONS + section as usize * f::SECTION_BYTES;
            let offset = bytes.len() as u64;
            put(&mut bytes, at, &offset.to_le_bytes());
            put(&mut bytes, at + 8, &(part.len() as u64).to_le_bytes());
            let counted = match section {
                f::Section::Inodes => Some(f::H_INODES),
                f::Section::Dirents => Some(f::H_DIRENTS),
                f::Section::Layers => Some(f::H_LAYERS),
                _ => None,
            };
            if let Some(field) = counted {
                put(&mut bytes, field, &u32::try_from(count).unwrap_or(0).to_le_bytes());
            }
            bytes.extend_from_slice(part);
        }
    }
    put(&mut bytes, f::H_MAGIC, f::MAGIC);
    put(&mut bytes, f::H_VERSION, &f::VERSION.to_le_bytes());
    put(&mut bytes, f::H_KIND, &(kind as u32).to_le_bytes());
    put(&mut bytes, f::H_INCOMPAT, &0_u32.to_le_bytes());
    put(&mut bytes, f::H_TAR_LEN, &TAR_LEN.to_le_bytes());
    let len = bytes.len() as u64;
    put(&mut bytes, f::H_FILE_LEN, &len.to_le_bytes());
    put(&mut bytes, f::H_ID, id.as_bytes());
    let sum = Digest::of(bytes.get(..f::H_SHA256)?);
    put(&mut bytes, f::H_SHA256, sum.as_bytes());
    let mut file = memory_file().expect("memory");
    file.write_all(&bytes).expect("memory");
    Index::open(&file).ok()
}

/// Reads an index of a layer that says anything, merges it, and asks what it holds and hides.
pub(crate) fn index(data: &[u8]) {
    let open = || index_of(data, IndexKind::Layer, Digest::of(b"layer"));
    let (Some(one), Some(two)) = (open(), open()) else { return };
    let layers = [one, two];
    let file = || memory_file().expect("memory");
    if let Ok(merged) = merge(&layers, LIMITS, file()) {
        let chain = Index::open(&merged).expect("what was merged can be opened");
        let chain = Chain::new(chain, layers.into(), Arc::new(Memory::default()));
        // Places of contents are looked at when they are read.
        drop(walk(&chain.expect("its layers")));
    }
    let Some(layer) = open() else { return };
    let layers = [layer];
    drop(account(&layers));
    drop(path_uses(&layers));
    drop(origins(&layers, b"a/b", Depth::All));
    let [layer] = layers;
    let recipe = recipe_of(&[0]);
    let recipe = recipe.map_err(Error::from);
    drop(recipe.and_then(|recipe| TarStream::new(layer, recipe, Arc::new(Memory::default()))));
}

/// Reads a chain that says anything, over layers that say anything.
pub(crate) fn chain(data: &[u8]) {
    const MOST_LAYERS: usize = 4;
    let Some(index) = index_of(data, IndexKind::Chain, Digest::of(b"chain")) else { return };
    let count = index.layer_count().min(MOST_LAYERS);
    let layer = |number| {
        let id: DiffId = index.layer(number).ok()?;
        index_of(data, IndexKind::Layer, id.0)
    };
    let Some(mut layers) = (0..count).map(layer).collect::<Option<Vec<_>>>() else { return };
    let (id, top) = (Digest::of(b"chain"), Digest::of(b"top"));
    let (base, top) = (index_of(data, IndexKind::Chain, id), index_of(data, IndexKind::Layer, top));
    if let (Some(base), Some(top)) = (base, top) {
        layers.push(top);
        if let Ok(grown) = merge_onto(base, &layers, memory_file().expect("memory")) {
            Index::open_verified(&grown).expect("what was merged can be opened");
        }
        layers.pop();
    }
    let Ok(chain) = Chain::new(index, layers, Arc::new(Memory::default())) else { return };
    drop(walk(&chain));
    for inode in 0..chain.inode_count().min(1000) {
        drop(look(&chain, inode));
    }
}

/// How long the tar of a recipe is said to be.
const TAR_LEN: u64 = 1 << 20;

fn recipe_header() -> [u8; 64] {
    recipe::header_without_sums(DiffId(Digest::of(b"layer")), TAR_LEN)
}

/// Returns the recipe with these instructions.
fn recipe_of(instructions: &[u8]) -> io::Result<File> {
    let mut file = memory_file()?;
    file.write_all(&recipe_header())?;
    file.write_all(&zstd::encode_all(instructions, 1)?)?;
    file.rewind()?;
    Ok(file)
}

/// Makes a tar again by a recipe that says anything. The first byte tells whether the rest is the file
/// or its instructions.
pub(crate) fn recipe(data: &[u8]) {
    let Some((form, rest)) = data.split_first() else { return };
    let recipe = if form % 2 == 0 {
        recipe_of(rest)
    } else {
        memory_file().and_then(|mut file| {
            file.write_all(rest)?;
            file.write_all_at(&recipe_header(), 0)?;
            file.rewind()?;
            Ok(file)
        })
    };
    let mut objects = Memory::default();
    let content = [7; 5000];
    objects.put(Digest::of(&content), &content).expect("memory");
    // A heap of 64 bytes, a root, an object.
    let lengths = [64_u16, 0, 0, 64, 0, 0, 0, 40].map(u16::to_le_bytes).concat();
    let mut inode = [0; f::INODE_BYTES];
    put(&mut inode, 0, &(Kind::Directory.mode() | 0o755).to_le_bytes());
    let object = [Digest::of(&content).as_bytes(), &5000_u64.to_le_bytes()[..]].concat();
    let body = [&lengths[..], &[1; 64], &inode, &object].concat();
    let index = index_of(&body, IndexKind::Layer, Digest::of(b"layer")).expect("it is one");
    let stream = recipe.map_err(Error::from);
    let stream = stream.and_then(|recipe| TarStream::new(index, recipe, Arc::new(objects)));
    if let Ok(mut stream) = stream {
        let (mut buffer, mut len_bytes) = (vec![0; 64 * 1024], 0);
        while let Ok(len @ 1..) = stream.read(&mut buffer) {
            len_bytes += len as u64;
        }
        assert!(len_bytes <= TAR_LEN);
    }
}

/// Tells names and paths apart, as the reading of a layer does.
pub(crate) fn names(data: &[u8]) {
    for name in components(data) {
        assert!(!matches!(name, b"" | b"." | b"..") && !name.contains(&b'/'));
        match Marker::of(name) {
            Ok(Some(Marker::Whiteout(hidden))) => {
                assert!(!matches!(hidden, b"" | b"." | b".."));
                assert!(whiteout::is_reserved(name));
            }
            Ok(Some(Marker::Opaque)) | Err(_) => assert!(whiteout::is_reserved(name)),
            Ok(None) => assert!(!whiteout::is_aufs_metadata(name)),
        }
    }
    let parts: Vec<&[u8]> = data.splitn(2, |byte| *byte == 0).collect();
    if let [dir, name] = parts.as_slice() {
        drop(join_path(dir, name));
        black_box(whiteout::check_xattrs(&[(name.to_vec(), dir.to_vec())]).is_ok());
    }
}

/// Reads the files of a tar that is no layer.
pub(crate) fn files(data: &[u8]) {
    let mut files = TarFiles::new(Cursor::new(data));
    while let Ok(Some(file)) = files.next_file() {
        if file.size % 2 == 0 && files.skip_content(data.len() as u64).is_err() {
            return;
        }
    }
    black_box(begins_as_tar(data));
}
