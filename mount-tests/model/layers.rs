//! The layers below the overlay: tars in memory, and objects in a folder.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use strata::digest::Digest;
use strata::layer::{Kind, ObjectSink, ObjectSource, TarMeta, TarWriter};
use strata::sys::Time;

use crate::op::{LowerFile, LowerKind, text};

/// Objects as files.
#[derive(Clone)]
pub(crate) struct Objects(pub(crate) PathBuf);

impl ObjectSink for Objects {
    fn put(&mut self, digest: Digest, bytes: &[u8]) -> io::Result<()> {
        fs::write(self.0.join(digest.hex()), bytes)
    }

    fn begin(&mut self) -> io::Result<File> {
        Err(io::Error::other("no file of the model is that large"))
    }

    fn commit(&mut self, _: File, _: Digest) -> io::Result<()> {
        Err(io::Error::other("no file of the model is that large"))
    }
}

impl ObjectSource for Objects {
    fn open(&self, digest: Digest) -> io::Result<File> {
        File::open(self.0.join(digest.hex()))
    }
}

fn meta(path: &str, kind: Kind, mode: u32) -> TarMeta {
    TarMeta {
        path: path.as_bytes().to_vec(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        device: 0,
        target: Vec::new(),
        xattrs: BTreeMap::new(),
        size: 0,
    }
}

/// Writes the tar that a layer is.
pub(crate) fn tar_of(layer: &[LowerFile]) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    for LowerFile { path, kind } in layer {
        let text = text(path);
        let (dir, name) =
            text.rsplit_once('/').map_or(("", text.as_str()), |(dir, name)| (dir, name));
        let slash = if dir.is_empty() { "" } else { "/" };
        match kind {
            LowerKind::Dir => tar.entry(&meta(&text, Kind::Directory, 0o755)),
            LowerKind::Bytes(bytes) => {
                let size = bytes.len() as u64;
                tar.file(&TarMeta { size, ..meta(&text, Kind::Regular, 0o644) }, &mut &bytes[..])
            }
            LowerKind::File(_) => panic!("files have bytes by now"),
            LowerKind::Symlink => {
                let target = b"target".to_vec();
                tar.entry(&TarMeta { target, ..meta(&text, Kind::Symlink, 0o777) })
            }
            LowerKind::Fifo => tar.entry(&meta(&text, Kind::Fifo, 0o644)),
            LowerKind::Hard(target) => {
                let target = crate::op::text(target);
                tar.hard_link(&meta(&text, Kind::Regular, 0o644), target.as_bytes())
            }
            LowerKind::Whiteout => {
                tar.marker(format!("{dir}{slash}.wh.{name}").as_bytes(), Time::default())
            }
            LowerKind::Opaque => {
                tar.marker(format!("{text}/.wh..wh..opq").as_bytes(), Time::default())
            }
        }
        .expect("a tar in memory can be written");
    }
    tar.finish().expect("a tar in memory can be written")
}
