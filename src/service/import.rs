//! Importing: a tar or a directory as an image of one layer.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::image::{History, ImageConfig, Platform, Reference, apply_changes};
use crate::layer::{Unpacked, decompress, unpack};
use crate::registry::public_url;
use crate::service::Strata;
use crate::service::commit::{NewLayer, created, source_date_epoch};
use crate::service::directory::DirectoryPacker;
use crate::service::error::{Error, Result, io_error};
use crate::service::room::file_len;
use crate::store::Stage;
use crate::sys::Time;

/// What to import.
#[derive(Clone, Debug)]
pub struct ImportRequest {
    /// Where it comes from.
    pub source: ImportSource,
    /// The name of the image; none leaves it without one.
    pub reference: Option<Reference>,
    /// What the history says; that it was imported if it is not said.
    pub message: Option<String>,
    /// Instructions that change the configuration.
    pub changes: Vec<String>,
    /// What the image runs on; this machine's if it is not said.
    pub platform: Option<Platform>,
}

/// Where an import comes from.
#[derive(Clone, Debug)]
pub enum ImportSource {
    /// Standard input, a tar.
    Stdin,
    /// A tar or a directory.
    Path(PathBuf),
    /// A tar under an address of the web.
    Url(String),
}

impl ImportSource {
    /// Returns the source that a person means; `-` is standard input.
    pub fn of(path: PathBuf) -> Self {
        match path.to_str() {
            Some("-") => Self::Stdin,
            Some(url) if ["http://", "https://"].iter().any(|start| url.starts_with(start)) => {
                Self::Url(url.to_owned())
            }
            _ => Self::Path(path),
        }
    }
}

impl Strata {
    /// Makes an image of a tar, compressed or not, or of a directory, and returns its id.
    pub fn import(&self, request: &ImportRequest) -> Result<crate::digest::Digest> {
        self.import_source(request).map_err(|error| {
            let missing_bytes = match &request.source {
                ImportSource::Path(path) => file_len(path),
                ImportSource::Stdin | ImportSource::Url(_) => None,
            };
            self.telling_room_for(error, missing_bytes)
        })
    }

    fn import_source(&self, request: &ImportRequest) -> Result<crate::digest::Digest> {
        let mut config = ImageConfig::default();
        apply_changes(&request.changes, &mut config.config)?;
        let platform = request.platform.clone().unwrap_or_else(Platform::host);
        config.architecture = platform.architecture;
        config.os = platform.os;
        config.variant = platform.variant;
        let epoch = source_date_epoch()?;
        let mut stage = self.store.stage()?;
        let (unpacked, from) = match &request.source {
            ImportSource::Stdin => {
                let name = "standard input";
                (self.unpack_tar(io::stdin(), &mut stage, name)?, "-".to_owned())
            }
            ImportSource::Url(url) => {
                let shown = public_url(url);
                (self.unpack_tar(self.registry()?.download(url)?, &mut stage, &shown)?, shown)
            }
            ImportSource::Path(path) => {
                (self.import_path(path, &mut stage, epoch)?, path.display().to_string())
            }
        };
        let created = created(epoch);
        config.created = Some(created.clone());
        let comment = request.message.clone().unwrap_or_else(|| format!("Imported from {from}"));
        config.history.push(History {
            created: Some(created),
            comment: Some(comment),
            ..History::default()
        });
        // Also an image of nothing has a layer.
        let layer =
            NewLayer { diff_id: unpacked.diff_id, tar_len: unpacked.tar_len, is_empty: false };
        stage.keep_layer(&unpacked)?;
        self.add_image(&mut stage, Vec::new(), config, Some(layer), request.reference.as_ref())
    }

    fn import_path(&self, path: &Path, stage: &mut Stage, epoch: Option<Time>) -> Result<Unpacked> {
        let shown = path.display().to_string();
        let metadata = fs::metadata(path).map_err(io_error("open", &shown))?;
        if !metadata.is_dir() {
            let file = File::open(path).map_err(io_error("open", &shown))?;
            return self.unpack_tar(file, stage, &shown);
        }
        self.pack_into(stage, |out, skipped| {
            let packer = DirectoryPacker::new(out, epoch, skipped, &|_, _| Ok(false));
            self.pack_directory(packer, path, b"")
        })
    }

    /// Makes a layer of a tar, compressed or not, that a person knows as `name`.
    pub(crate) fn unpack_tar(
        &self,
        reader: impl Read + Send,
        stage: &mut Stage,
        name: &str,
    ) -> Result<Unpacked> {
        stage.set_limits(self.limits);
        let tar = decompress(reader).map_err(io_error("read", name))?;
        unpack(tar, stage.layer_files()?, stage)
            .map_err(|error| Error::unpacking(name.to_owned(), error))
    }
}
