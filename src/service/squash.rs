//! Squashing: all layers of an image, or those above one, made into one layer.
//!
//! The tree stays what it is, hard links and extended attributes included; the configuration too.
//! Rows of the history whose layers are gone stay, without a layer.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use crate::digest::Digest;
use crate::image::{History, Reference, fill_history};
use crate::layer::{Kind, Unpacked};
use crate::overlay::{Attr, Ino, Overlay};
use crate::service::Strata;
use crate::service::commit::{NewLayer, created, source_date_epoch};
use crate::service::compare::{Difference, compare};
use crate::service::error::{Error, Result};
use crate::service::pack::{Packer, Target};
use crate::service::resolve::find_layer;
use crate::store::{Claim, Image, Stage};

/// What to squash.
#[derive(Clone, Debug)]
pub struct SquashRequest {
    /// The image.
    pub image: String,
    /// The name of the new image.
    pub reference: Reference,
    /// The layer that stays with all below it: its number, or the beginning of its diffID if that is
    /// not only digits. None stays if it is not said.
    pub above: Option<String>,
}

impl Strata {
    /// Makes an image that shows what another one shows in fewer layers; returns its id.
    pub fn squash(&self, request: &SquashRequest) -> Result<Digest> {
        let (base, _, _lease) = self.lease_image(&request.image)?;
        let mut stage = self.store.stage()?;
        stage.claim(Claim::Image(base.digest))?;
        let count = base.layers().len();
        let kept = match &request.above {
            Some(text) => find_layer(&base, &request.image, text)?,
            None => 0,
        };
        if kept == count {
            return Err(Error::NothingToSquash { image: request.image.clone(), layer: kept });
        }
        let unpacked = self.squash_layers(&base, kept, &mut stage)?;
        let layer = NewLayer::keep(&unpacked, &mut stage)?;
        let mut config = base.config.clone();
        config.rootfs.diff_ids.truncate(kept);
        let created = created(source_date_epoch()?);
        config.created = Some(created.clone());
        fill_history(&mut config.history, count);
        let with_layers = config.history.iter_mut().filter(|row| !row.empty_layer);
        with_layers.skip(kept).for_each(|row| row.empty_layer = true);
        config.history.push(History {
            created: Some(created),
            created_by: Some(match count - kept {
                1 => format!("squash of layer {count}"),
                _ => format!("squash of layers {} to {count}", kept + 1),
            }),
            empty_layer: layer.is_empty,
            ..History::default()
        });
        let layers = base.manifest.layers.iter().take(kept).cloned().collect();
        self.add_image(&mut stage, layers, config, Some(layer), Some(&request.reference))
    }

    fn squash_layers(&self, base: &Image, kept: usize, stage: &mut Stage) -> Result<Unpacked> {
        let after = self.read_only(base)?;
        let before = self.read_only_up_to(base, kept)?;
        self.pack_into(stage, |out, skipped| {
            let mut packer = Packer::new(out, Target::Layer, None, skipped);
            match kept {
                0 => packer.tree(&after)?,
                _ => pack_difference(&mut packer, &before, &after)?,
            }
            packer.finish().map(drop)
        })
    }
}

/// Writes what makes the second tree of the first.
fn pack_difference<W: Write>(
    packer: &mut Packer<'_, W>,
    before: &Overlay,
    after: &Overlay,
) -> Result<()> {
    let links = Links::of(before, after)?;
    compare(before, after, &mut |path, difference| match difference {
        Difference::Deleted(_) => packer.whiteout(&path),
        Difference::Added(item) => packer.item(path, &item),
        Difference::Both { after, parts, .. } => {
            if parts.any() || links.must_be_written(&after.attr()?) {
                packer.item(path, &after)?;
            }
            Ok(())
        }
    })
}

/// Files with several names of which some have to be written: then all are, because the names that
/// a layer leaves out lead to another file.
#[derive(Default)]
struct Links {
    /// Files of the first tree, and what the same names lead to in the second.
    came_to: BTreeMap<Ino, BTreeSet<Ino>>,
    /// Files of the second tree, and what the same names lead to in the first.
    came_from: BTreeMap<Ino, BTreeSet<Ino>>,
    /// Files of the second tree with a name that has to be written.
    written: BTreeSet<Ino>,
}

impl Links {
    fn of(before: &Overlay, after: &Overlay) -> Result<Self> {
        let mut links = Self::default();
        compare::<Error>(before, after, &mut |_, difference| {
            match difference {
                Difference::Deleted(_) => {}
                Difference::Added(item) => {
                    let attr = item.attr()?;
                    if attr.kind() != Kind::Directory && attr.nlink > 1 {
                        links.written.insert(attr.ino);
                    }
                }
                Difference::Both { before, after, parts } => {
                    links.note(&before.attr()?, &after.attr()?, parts.any());
                }
            }
            Ok(())
        })?;
        Ok(links)
    }

    fn note(&mut self, old: &Attr, new: &Attr, is_written: bool) {
        if new.kind() == Kind::Directory || (old.nlink <= 1 && new.nlink <= 1) {
            return;
        }
        if is_written {
            self.written.insert(new.ino);
        }
        self.came_to.entry(old.ino).or_default().insert(new.ino);
        self.came_from.entry(new.ino).or_default().insert(old.ino);
    }

    fn must_be_written(&self, new: &Attr) -> bool {
        if new.kind() == Kind::Directory {
            return false;
        }
        // Names that were of one file and are of two, or the other way round.
        let is_parted = |old| self.came_to.get(old).is_some_and(|all| all.len() > 1);
        let from = self.came_from.get(&new.ino);
        self.written.contains(&new.ino)
            || from.is_some_and(|all| all.len() > 1 || all.iter().any(is_parted))
    }
}
