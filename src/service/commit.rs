//! Committing: the changes of a container as a new image.
//!
//! Only the writable layer is walked. Its tar streams into staging as a pulled one would; on the base
//! image's layers it makes the new image, whose configuration is the base's with the requested
//! changes and one more line of history.

use std::io;
use std::path::PathBuf;

use crate::digest::{DiffId, Digest};
use crate::image::{
    Descriptor, History, ImageConfig, Manifest, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Reference,
    apply_changes, fill_history, oci_layer,
};
use crate::layer::{Unpacked, unpack};
use crate::service::error::{Error, Result};
use crate::service::pack::{Packer, Target};
use crate::service::{Event, Strata};
use crate::store::{Claim, Container, Image, NewImage, Ref, RefName, Stage};
use crate::sys::Time;

/// What to commit.
#[derive(Clone, Debug, Default)]
pub struct CommitRequest {
    /// The container.
    pub container: String,
    /// The name of the new image; none leaves it without one.
    pub reference: Option<Reference>,
    /// Who made it.
    pub author: Option<String>,
    /// What was done.
    pub message: Option<String>,
    /// Instructions that change the configuration: `CMD ["sh"]`.
    pub changes: Vec<String>,
}

/// A layer of a new image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewLayer {
    pub(crate) diff_id: DiffId,
    pub(crate) tar_len: u64,
    /// It changes nothing, so the image does without it.
    pub(crate) is_empty: bool,
}

impl NewLayer {
    /// Lays a layer that was unpacked aside, to be published with its image.
    pub(crate) fn keep(unpacked: &Unpacked, stage: &mut Stage) -> Result<Self> {
        let (diff_id, tar_len) = (unpacked.diff_id, unpacked.tar_len);
        let is_empty = tar_len == EMPTY_TAR;
        if !is_empty {
            stage.keep_layer(unpacked)?;
        }
        Ok(Self { diff_id, tar_len, is_empty })
    }
}

/// What came of a commit.
enum Committed {
    /// The image with this id.
    Image(Digest),
    /// Nothing: this was changed meanwhile.
    Changed(PathBuf),
}

/// How often changes are packed again because something has changed meanwhile.
const TRIES: usize = 5;

/// The length of a tar without entries: its two blocks of zeros.
pub(crate) const EMPTY_TAR: u64 = 1024;

impl Strata {
    /// Makes an image of what a container has changed, and returns its id.
    pub fn commit(&self, request: &CommitRequest) -> Result<Digest> {
        let container = self.find_container(&request.container)?;
        let mut stage = self.store.stage()?;
        stage.claim(Claim::Image(container.manifest))?;
        let base = self.store.image(container.manifest)?;
        let mut config = base.config.clone();
        config.config.cmd = container.command.clone().or(config.config.cmd);
        let created_by = config.config.cmd.clone().unwrap_or_default().join(" ");
        apply_changes(&request.changes, &mut config.config)?;
        let epoch = source_date_epoch()?;
        let created = created(epoch);
        config.created = Some(created.clone());
        config.author = request.author.clone().or(config.author);
        fill_history(&mut config.history, base.layers().len());
        config.history.push(History {
            created: Some(created),
            created_by: Some(created_by),
            author: request.author.clone(),
            comment: request.message.clone(),
            ..History::default()
        });
        let mut changed = PathBuf::new();
        for _ in 0..TRIES {
            match self.commit_once(request, &container, &base, (&mut stage, epoch, &config))? {
                Committed::Image(id) => return Ok(id),
                Committed::Changed(path) => changed = path,
            }
            stage.discard_layer()?;
        }
        Err(Error::KeepsChanging { name: container.name, path: changed })
    }

    /// Makes an image of the changes of a container. Programs may be working in it: what is recorded is a
    /// state in which nothing has changed while it was packed.
    fn commit_once(
        &self,
        request: &CommitRequest,
        container: &Container,
        base: &Image,
        (stage, epoch, config): (&mut Stage, Option<Time>, &ImageConfig),
    ) -> Result<Committed> {
        let begun = self.settle(container, stage)?;
        let mut changed = None;
        let mut look = || {
            changed = self.store.changed_since(&container.id, begun)?;
            Ok(changed.is_none())
        };
        let unpacked = match self.pack_changes(container, base, stage, epoch) {
            Ok(unpacked) => unpacked,
            Err(error) => {
                look()?;
                tracing::debug!("{error}");
                return changed.map(Committed::Changed).ok_or(error);
            }
        };
        let layer = NewLayer::keep(&unpacked, stage)?;
        let mut config = config.clone();
        if let Some(last) = config.history.last_mut() {
            last.empty_layer = layer.is_empty;
        }
        let (layers, name) = (base.manifest.layers.clone(), request.reference.as_ref());
        let id = self.add_image_if(stage, layers, config, (Some(layer), name), look)?;
        Ok(id.map_or_else(|| Committed::Changed(changed.unwrap_or_default()), Committed::Image))
    }

    /// Has the kernel hold nothing back of what was changed until now, and returns when that was.
    ///
    /// If nothing in the writable layer has changed since then, it is what programs saw at that time:
    /// what the second flush has written was changed before it, and counts as changed since.
    fn settle(&self, container: &Container, stage: &Stage) -> Result<Time> {
        let is_mounted = self.flush_mount(container)?;
        let begun = stage.clock()?;
        if is_mounted {
            self.flush_mount(container)?;
        }
        Ok(begun)
    }

    /// Packs the changes of a container.
    fn pack_changes(
        &self,
        container: &Container,
        base: &Image,
        stage: &mut Stage,
        epoch: Option<Time>,
    ) -> Result<Unpacked> {
        let overlay = self.inspect_container(container, base)?;
        self.pack_into(stage, |out, skipped| {
            let mut packer = Packer::new(out, Target::Layer, epoch, skipped);
            if overlay.root_has_changed()? {
                packer.root(&overlay.root())?;
            }
            overlay.changes::<Error>(&mut |change| packer.change(change))?;
            packer.finish().map(drop)
        })
    }

    /// Unpacks what `pack` writes, as it is written.
    pub(crate) fn pack_into(
        &self,
        stage: &mut Stage,
        pack: impl FnOnce(io::BufWriter<io::PipeWriter>, &mut dyn FnMut(String)) -> Result<()> + Send,
    ) -> Result<Unpacked> {
        let (reader, writer) =
            io::pipe().map_err(crate::service::error::io_error("make", "a pipe"))?;
        let files = stage.layer_files()?;
        std::thread::scope(|scope| {
            let packing = scope.spawn(move || {
                let mut skipped = |path| {
                    let text = format!("{path} is a socket, which a layer cannot hold: left out");
                    self.tell(Event::Warning(text));
                };
                pack(io::BufWriter::with_capacity(64 * 1024, writer), &mut skipped)
            });
            let unpacked = unpack(reader, files, stage);
            let packed = packing.join().map_err(|_| Error::Panicked("packing a layer"))?;
            match (packed, unpacked) {
                // Nobody listened any more: why, says who has stopped to.
                (Err(error), Err(cause)) if is_broken_pipe(&error) => Err(match cause {
                    crate::layer::Error::Io(error) => error.into(),
                    cause => cause.into(),
                }),
                // Why it was not packed says more than that the tar ended early.
                (Err(error), _) => Err(error),
                (Ok(()), unpacked) => Ok(unpacked?),
            }
        })
    }

    /// Puts an image into the store: the layer, which was kept, its configuration, its manifest, its chain,
    /// its name.
    pub(crate) fn add_image(
        &self,
        stage: &mut Stage,
        layers: Vec<Descriptor>,
        config: ImageConfig,
        layer: Option<NewLayer>,
        reference: Option<&Reference>,
    ) -> Result<Digest> {
        let id = self.add_image_if(stage, layers, config, (layer, reference), || Ok(true))?;
        Ok(id.expect("there was reason to"))
    }

    /// Does the same if there is reason to when all is ready; else nothing is in the store, and none is
    /// returned.
    fn add_image_if(
        &self,
        stage: &mut Stage,
        mut layers: Vec<Descriptor>,
        mut config: ImageConfig,
        (layer, reference): (Option<NewLayer>, Option<&Reference>),
        go_on: impl FnOnce() -> crate::store::Result<bool>,
    ) -> Result<Option<Digest>> {
        let layer = layer.filter(|layer| !layer.is_empty);
        if let Some(layer) = layer {
            config.rootfs.diff_ids.push(layer.diff_id);
            layers.push(Descriptor::new(OCI_LAYER, layer.diff_id.0, layer.tar_len));
        }
        // The manifest is OCI, whatever the base's was, and names no layer by a type of docker's.
        for descriptor in &mut layers {
            if let Ok(media_type) = oci_layer(&descriptor.media_type) {
                media_type.clone_into(&mut descriptor.media_type);
            }
        }
        let bytes = config.to_bytes();
        let id = Digest::of(&bytes);
        let descriptor = Descriptor::new(OCI_CONFIG, id, bytes.len() as u64);
        let manifest_bytes = Manifest::new(OCI_MANIFEST, descriptor, layers).to_bytes();
        let manifest = Digest::of(&manifest_bytes);
        let name = match reference {
            Some(reference) => RefName::Named(reference.tag_or_latest()),
            None => RefName::Untagged(manifest),
        };
        let image = NewImage {
            layers: &layer.map(|layer| layer.diff_id).into_iter().collect::<Vec<_>>(),
            chain: &config.rootfs.diff_ids,
            blobs: &[&bytes, &manifest_bytes],
            name: &name,
            to: &Ref { manifest, target: None, updated: jiff::Timestamp::now() },
        };
        let published = stage.publish_image(&image, go_on);
        let is_published = published.map_err(|error| Error::merging("the new image", error))?;
        Ok(is_published.then_some(id))
    }
}

fn is_broken_pipe(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
}

/// Returns the time that SOURCE_DATE_EPOCH says, for images that come out the same twice.
pub(crate) fn source_date_epoch() -> Result<Option<Time>> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let text = text.to_string_lossy().into_owned();
    match text.parse() {
        Ok(secs) if jiff::Timestamp::from_second(secs).is_ok() => Ok(Some(Time { secs, nanos: 0 })),
        _ => Err(Error::SourceDateEpoch(text)),
    }
}

/// Returns the time of creation as images have it.
pub(crate) fn created(epoch: Option<Time>) -> String {
    let time = epoch.and_then(|time| jiff::Timestamp::from_second(time.secs).ok());
    time.unwrap_or_else(jiff::Timestamp::now).to_string()
}
