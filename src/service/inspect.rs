//! Everything that is known of an image or a container.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;

use crate::digest::Digest;
use crate::image::ImageConfig;
use crate::service::containers::command_of;
use crate::service::error::{Error, Result};
use crate::service::{ContainerStatus, Strata};
use crate::store::{Container, Image, RefName, walk};
use crate::sys::Errno;

/// The unit in which the kernel counts what a file takes on disk.
const BLOCK: u64 = 512;

/// What an id or name leads to.
#[derive(Clone, Debug)]
pub enum Details {
    /// An image.
    Image(Box<ImageDetails>),
    /// A container.
    Container(Box<ContainerDetails>),
}

/// An image.
#[derive(Clone, Debug)]
pub struct ImageDetails {
    /// Its id.
    pub id: Digest,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Media type of its manifest.
    pub media_type: Option<String>,
    /// Size of its manifest in bytes.
    pub manifest_size: u64,
    /// Names with tags, as docker prints them.
    pub tags: Vec<String>,
    /// Names with digests.
    pub digests: Vec<String>,
    /// Its configuration.
    pub config: ImageConfig,
    /// Size of all files of its layers in bytes.
    pub size: u64,
    /// When a name was last given to it.
    pub tagged: Option<jiff::Timestamp>,
}

/// A container.
#[derive(Clone, Debug)]
pub struct ContainerDetails {
    /// The container.
    pub container: Container,
    /// The id of its image.
    pub image: Digest,
    /// The configuration of its image, with its own command.
    pub config: ImageConfig,
    /// What it would run, the entry point first.
    pub command: Vec<String>,
    /// Whether it is mounted.
    pub status: ContainerStatus,
    /// Its writable layer.
    pub upper: std::path::PathBuf,
    /// The directory beside it in which changes are prepared.
    pub work: std::path::PathBuf,
    /// What the process that serves it has to say.
    pub log: std::path::PathBuf,
}

impl Strata {
    /// Returns what is known of a container or an image.
    pub fn inspect(&self, text: &str) -> Result<Details> {
        match self.inspect_container_only(text) {
            Ok(details) => Ok(Details::Container(Box::new(details))),
            Err(Error::NoContainer(_)) => match self.inspect_image(text) {
                Ok(details) => Ok(Details::Image(Box::new(details))),
                Err(Error::NoImage(_) | Error::ImageName(_)) => {
                    Err(Error::NoObject(text.to_owned()))
                }
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Returns what is known of an image.
    pub fn inspect_image(&self, text: &str) -> Result<ImageDetails> {
        let (image, _) = self.find_image(text)?;
        self.image_details(image)
    }

    /// Returns what is known of a container.
    pub fn inspect_container_only(&self, text: &str) -> Result<ContainerDetails> {
        let container = self.find_container(text)?;
        let mut image = self.store.image(container.manifest)?;
        let command = command_of(&container, &image);
        let own = &mut image.config.config;
        own.cmd = container.command.clone().or(own.cmd.take());
        Ok(ContainerDetails {
            image: image.id(),
            command,
            status: self.status(&container.id)?,
            upper: self.store.upper(&container.id),
            work: self.store.work(&container.id),
            log: self.store.mount_log(&container.id),
            config: image.config,
            container,
        })
    }

    fn image_details(&self, image: Image) -> Result<ImageDetails> {
        let (mut tags, mut digests, mut tagged) = (Vec::new(), Vec::new(), None);
        for (name, to) in self.store.references()? {
            let RefName::Named(reference) = name else { continue };
            if to.manifest != image.digest {
                continue;
            }
            tagged = tagged.max(Some(to.updated));
            if reference.tag().is_some() {
                tags.push(reference.familiar());
            }
            if let Some(target) = to.target {
                digests.push(format!("{}@{target}", reference.familiar_name()));
            }
        }
        digests.sort();
        digests.dedup();
        Ok(ImageDetails {
            id: image.id(),
            manifest: image.digest,
            media_type: image.manifest.media_type.clone(),
            manifest_size: image.manifest_bytes.len() as u64,
            tags,
            digests,
            size: self.size(&image),
            tagged,
            config: image.config,
        })
    }
}

/// Returns the size of the files below a directory in bytes.
pub(crate) fn written_below(dir: &Path) -> Result<u64> {
    let mut total = 0;
    each_file_below(dir, &mut |_, bytes| total += bytes)?;
    Ok(total)
}

/// Shows every regular file below a directory to `visit`, once: its device and inode, and its size in
/// bytes. A file whose attributes alone were copied takes no room and counts nothing; one that vanishes
/// meanwhile, neither.
pub(crate) fn each_file_below(dir: &Path, visit: &mut dyn FnMut((u64, u64), u64)) -> Result<()> {
    let mut seen = HashSet::new();
    let walked = walk(dir, &mut |_, stat| {
        let inode = (stat.dev, stat.ino);
        if stat.is_regular() && seen.insert(inode) {
            visit(inode, stat.size.min(stat.blocks * BLOCK));
        }
        ControlFlow::Continue(())
    });
    match walked {
        Err(error) if error.errno() == Errno::ENOENT => Ok(()),
        other => Ok(other?),
    }
}
