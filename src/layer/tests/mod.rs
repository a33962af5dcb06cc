//! Tests of the room as a whole: tars in and out, and layers on each other.

mod absurd;
mod chains;
mod hostile;
mod tars;
mod told;
mod uses;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::digest::{DiffId, Digest};
use crate::layer::format::{FLAG_IMPLICIT, FLAG_OPAQUE, WHITEOUT};
use crate::layer::fuzz::Memory;
use crate::layer::pax::record;
use crate::layer::*;
use crate::sys::Time;

struct Layer {
    index: Index,
    recipe: File,
    objects: Memory,
}

fn unpack_bytes(tar: &[u8]) -> Result<Layer> {
    let mut objects = Memory::default();
    let files =
        LayerFiles { index: tempfile::tempfile().unwrap(), recipe: tempfile::tempfile().unwrap() };
    let unpacked = unpack(tar, files, &mut objects)?;
    assert_eq!(unpacked.diff_id, DiffId(Digest::of(tar)));
    let index = Index::open_verified(&unpacked.files.index)?;
    Ok(Layer { index, recipe: unpacked.files.recipe, objects })
}

/// Unpacks a tar, packs it again, and returns the layer: the bytes must be the same.
fn round_trip(tar: &[u8]) -> Layer {
    let mut layer = unpack_bytes(tar).unwrap();
    let index = layer.index;
    layer.recipe.rewind().unwrap();
    let recipe = layer.recipe.try_clone().unwrap();
    let mut stream = TarStream::new(index, recipe, Arc::new(layer.objects.clone())).unwrap();
    let mut again = Vec::new();
    stream.read_to_end(&mut again).unwrap();
    assert!(again == tar, "the tar came back with other bytes");
    layer.index = unpack_bytes(tar).unwrap().index;
    layer
}

/// Lists an index: a line for each entry, sorted by path.
fn list(index: &Index) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = vec![(0, String::new())];
    while let Some((number, path)) = pending.pop() {
        let dir = index.inode(number).unwrap();
        let flag = |flag, text| if dir.has(flag) { text } else { "" };
        let shown = if path.is_empty() { "." } else { &path };
        lines.push(format!(
            "{shown} dir {:o} {}:{}{}{}",
            dir.mode & 0o7777,
            dir.uid,
            dir.gid,
            flag(FLAG_OPAQUE, " opaque"),
            flag(FLAG_IMPLICIT, " implicit"),
        ));
        let (first, count) = dir.dirents();
        for number in first..first + count {
            let (entry, name) = index.dirent(number).unwrap();
            let name = String::from_utf8_lossy(name);
            let path = if path.is_empty() { name.into_owned() } else { format!("{path}/{name}") };
            if entry.inode == WHITEOUT {
                lines.push(format!("{path} whiteout"));
                continue;
            }
            let inode = index.inode(entry.inode).unwrap();
            match Kind::of(inode.mode) {
                Kind::Directory => pending.push((entry.inode, path)),
                kind => lines.push(format!(
                    "{path} {kind:?} {:o} {}:{} {} x{}",
                    inode.mode & 0o7777,
                    inode.uid,
                    inode.gid,
                    inode.size,
                    inode.nlink
                )),
            }
        }
    }
    lines.sort();
    lines
}

fn meta(path: &str, kind: Kind) -> TarMeta {
    TarMeta::new(path, kind, if kind == Kind::Directory { 0o755 } else { 0o644 })
}

/// Builds a tar: `path/` is a directory, `path=text` a file, `path->target` a symbolic link,
/// `path=>target` a hard link.
pub(crate) fn tar_of(entries: &[&str]) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    for entry in entries {
        if let Some((path, target)) = entry.split_once("=>") {
            writer.hard_link(&meta(path, Kind::Regular), target.as_bytes()).unwrap();
        } else if let Some((path, target)) = entry.split_once("->") {
            let meta = TarMeta { target: target.into(), ..meta(path, Kind::Symlink) };
            writer.entry(&meta).unwrap();
        } else if let Some((path, text)) = entry.split_once('=') {
            let meta = TarMeta { size: text.len() as u64, ..meta(path, Kind::Regular) };
            writer.file(&meta, &mut text.as_bytes()).unwrap();
        } else {
            let path = entry.strip_suffix('/').expect("a directory");
            writer.entry(&meta(path, Kind::Directory)).unwrap();
        }
    }
    writer.finish().unwrap()
}

fn merged(layers: &[Vec<u8>]) -> Result<(Chain, Vec<String>)> {
    let layers: Vec<_> = layers.iter().map(|tar| round_trip(tar)).collect();
    let objects = Memory::default();
    for layer in &layers {
        let more = layer.objects.objects().clone();
        objects.objects().extend(more);
    }
    let indexes: Vec<_> = layers.into_iter().map(|layer| layer.index).collect();
    let whole = merge(&indexes, Limits::NONE, tempfile::tempfile().unwrap())?;
    let (_, below) = indexes.split_last().unwrap();
    if !below.is_empty() {
        let base = merge(below, Limits::NONE, tempfile::tempfile().unwrap())?;
        let grown = Index::open_verified(&base)
            .and_then(|base| merge_onto(base, &indexes, tempfile::tempfile().unwrap()));
        assert!(bytes(&grown?) == bytes(&whole), "a chain that has grown is another one");
    }
    let index = Index::open_verified(&whole)?;
    let lines = list(&index);
    Ok((Chain::new(index, indexes, Arc::new(objects))?, lines))
}

fn bytes(mut file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Returns what the chain of these layers lists, without modes and owners.
fn names(layers: &[&[&str]]) -> Vec<String> {
    let tars: Vec<_> = layers.iter().map(|entries| tar_of(entries)).collect();
    let lines = merged(&tars).unwrap().1;
    let words = |line: &String| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    lines.iter().map(words).filter(|line| line != ". dir").collect()
}

fn run_tar(dir: &Path, args: &[&str]) -> Vec<u8> {
    let output = Command::new("tar").arg("-C").arg(dir).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A tree with what archives find hard: long names, links, a sparse file, sizes around limits.
fn odd_tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir_all(at(&format!("{}/{}", "d".repeat(120), "e".repeat(200)))).unwrap();
    std::fs::write(at(&format!("{}/{}/file", "d".repeat(120), "e".repeat(200))), "deep").unwrap();
    for (name, size) in [("empty", 0), ("s1", 1), ("s4096", 4096), ("s4097", 4097)] {
        std::fs::write(at(name), vec![b'x'; size]).unwrap();
    }
    std::fs::write(at("large"), vec![b'y'; 3 << 20]).unwrap();
    let sparse = File::create(at("sparse")).unwrap();
    for piece in 0..40 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", piece * 65_536 + 100).unwrap();
    }
    sparse.set_len(3 << 20).unwrap();
    File::create(at("hole")).unwrap().set_len(2 << 20).unwrap();
    std::fs::hard_link(at("s4097"), at("hard")).unwrap();
    std::os::unix::fs::symlink("t".repeat(150), at("symlink")).unwrap();
    assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
    dir
}
