//! Appending: a tar or a directory as a layer on top of an image.
//!
//! A tar is the layer, markers of what is gone included. A directory is put on what the image has:
//! a directory that is there stays as it is, so that neither `/tmp` loses its mode nor a symbolic
//! link to a directory is replaced by the directory that stood for it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::digest::Digest;
use crate::image::{History, Reference, fill_history};
use crate::layer::{Kind, Unpacked, decompress, relocate};
use crate::registry::public_url;
use crate::service::browse::{Last, Tree};
use crate::service::commit::{NewLayer, created, source_date_epoch};
use crate::service::directory::DirectoryPacker;
use crate::service::error::{Error, Result, io_error};
use crate::service::{ImportSource, Strata};
use crate::store::{Claim, Stage};
use crate::sys::Time;

/// What to append.
#[derive(Clone, Debug)]
pub struct AppendRequest {
    /// The image.
    pub image: String,
    /// Where the layer comes from.
    pub source: ImportSource,
    /// The directory of the image that it goes to; empty for the root.
    pub to: Vec<u8>,
    /// The name of the new image; none leaves it without one.
    pub reference: Option<Reference>,
    /// What was done.
    pub message: Option<String>,
}

impl Strata {
    /// Makes an image of another one and a layer on top of it; returns its id.
    pub fn append(&self, request: &AppendRequest) -> Result<Digest> {
        let (base, _, _lease) = self.lease_image(&request.image)?;
        let mut stage = self.store.stage()?;
        stage.claim(Claim::Image(base.digest))?;
        let epoch = source_date_epoch()?;
        let (unpacked, from) = match &request.source {
            ImportSource::Stdin => {
                let name = "standard input";
                (self.append_tar(io::stdin(), &request.to, &mut stage, name)?, "-".to_owned())
            }
            ImportSource::Url(url) => {
                let tar = self.registry()?.download(url)?;
                let shown = public_url(url);
                (self.append_tar(tar, &request.to, &mut stage, &shown)?, shown)
            }
            ImportSource::Path(path) => {
                let shown = path.display().to_string();
                (self.append_path(path, request, &mut stage, epoch)?, shown)
            }
        };
        let layer = NewLayer::keep(&unpacked, &mut stage)?;
        let mut config = base.config.clone();
        let created = created(epoch);
        config.created = Some(created.clone());
        fill_history(&mut config.history, base.layers().len());
        let to = String::from_utf8_lossy(&request.to).into_owned();
        let to = if to.is_empty() { to } else { format!(" to {to}") };
        config.history.push(History {
            created: Some(created),
            created_by: Some(format!("append {from}{to}")),
            comment: request.message.clone(),
            empty_layer: layer.is_empty,
            ..History::default()
        });
        let layers = base.manifest.layers.clone();
        self.add_image(&mut stage, layers, config, Some(layer), request.reference.as_ref())
    }

    /// Unpacks a tar, below a directory if it is to go there.
    fn append_tar(
        &self,
        reader: impl Read + Send,
        to: &[u8],
        stage: &mut Stage,
        name: &str,
    ) -> Result<Unpacked> {
        if to.is_empty() {
            return self.unpack_tar(reader, stage, name);
        }
        stage.set_limits(self.limits);
        let tar = decompress(reader).map_err(io_error("read", name))?;
        self.pack_into(stage, |out, _| {
            let written = relocate(tar, to, out);
            written.map(drop).map_err(|error| Error::unpacking(name.to_owned(), error))
        })
    }

    fn append_path(
        &self,
        path: &Path,
        request: &AppendRequest,
        stage: &mut Stage,
        epoch: Option<Time>,
    ) -> Result<Unpacked> {
        let shown = path.display().to_string();
        if !fs::metadata(path).map_err(io_error("open", &shown))?.is_dir() {
            let file = File::open(path).map_err(io_error("open", &shown))?;
            return self.append_tar(file, &request.to, stage, &shown);
        }
        let base = self.open_image_tree(&request.image)?;
        self.pack_into(stage, |out, skipped| {
            let is_dir = |path: &[u8], last| is_directory(&base, path, last);
            let packer = DirectoryPacker::new(out, epoch, skipped, &is_dir);
            self.pack_directory(packer, path, &request.to)
        })
    }
}

/// Tells whether an image has a directory at a path.
fn is_directory(tree: &Tree, path: &[u8], last: Last) -> Result<bool> {
    match tree.find(path, last) {
        Ok(found) => Ok(found.kind()? == Kind::Directory),
        Err(Error::NoPath { .. } | Error::LinkLoop(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
