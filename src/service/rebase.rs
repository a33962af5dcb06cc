//! Rebasing: the layers of an image put on another base.
//!
//! No layer is written. What the image adds to its base, layers and rows of history, comes to lie on
//! the new base as it is; the configuration is the image's. It is what crane's rebase does.

use crate::digest::Digest;
use crate::image::{Reference, fill_history};
use crate::service::Strata;
use crate::service::commit::{created, source_date_epoch};
use crate::service::error::{Error, Result};
use crate::store::{Claim, Image};

/// What to rebase.
#[derive(Clone, Debug)]
pub struct RebaseRequest {
    /// The image.
    pub image: String,
    /// The image that it was made of.
    pub old_base: String,
    /// The image that it is to be made of.
    pub new_base: String,
    /// The name of the new image; none leaves it without one.
    pub reference: Option<Reference>,
}

impl Strata {
    /// Makes an image of what another one adds to its base, on a new base; returns its id.
    pub fn rebase(&self, request: &RebaseRequest) -> Result<Digest> {
        let (image, _, _image_lease) = self.lease_image(&request.image)?;
        let (old, _, _old_lease) = self.lease_image(&request.old_base)?;
        let (new, _, _new_lease) = self.lease_image(&request.new_base)?;
        check_base(&image, &old, request)?;
        let mut stage = self.store.stage()?;
        stage.claim(Claim::Image(image.digest))?;
        stage.claim(Claim::Image(new.digest))?;
        let below = old.layers().len();
        let mut config = image.config.clone();
        config.architecture.clone_from(&new.config.architecture);
        config.os.clone_from(&new.config.os);
        config.os_version.clone_from(&new.config.os_version);
        config.os_features.clone_from(&new.config.os_features);
        config.variant.clone_from(&new.config.variant);
        config.created = Some(created(source_date_epoch()?));
        config.rootfs.diff_ids = [new.layers(), &image.layers()[below..]].concat();
        config.history.clone_from(&new.config.history);
        fill_history(&mut config.history, new.layers().len());
        let mut own = image.config.history.clone();
        fill_history(&mut own, image.layers().len());
        let first = first_own_row(&own, old.config.history.len(), below);
        config.history.extend(own.into_iter().skip(first));
        let layers = [&new.manifest.layers, &image.manifest.layers[below..]].concat();
        self.add_image(&mut stage, layers, config, None, request.reference.as_ref())
    }
}

/// Checks that the layers of the base are the lowest of the image.
fn check_base(image: &Image, base: &Image, request: &RebaseRequest) -> Result<()> {
    let wrong = |reason| Error::NotItsBase {
        image: request.image.clone(),
        base: request.old_base.clone(),
        reason,
    };
    let (have, wanted) = (image.layers(), base.layers());
    if wanted.len() > have.len() {
        let (have, wanted) = (have.len(), wanted.len());
        return Err(wrong(format!("it has {have} layers and the base has {wanted}")));
    }
    for (number, (have, wanted)) in (1..).zip(have.iter().zip(wanted)) {
        if have != wanted {
            let (have, wanted) = (have.0.short(), wanted.0.short());
            return Err(wrong(format!("its layer {number} is {have}, that of the base {wanted}")));
        }
    }
    Ok(())
}

/// Returns the number of the first row of history that is not the base's. A base whose history was
/// changed since has as many rows with layers all the same.
fn first_own_row(rows: &[crate::image::History], of_base: usize, layers: usize) -> usize {
    let own_layer = |(_, row): &(usize, &crate::image::History)| !row.empty_layer;
    let first_layer = rows.iter().enumerate().filter(own_layer).nth(layers).map(|(at, _)| at);
    first_layer.map_or(of_base, |at| at.min(of_base)).max(last_base_row(rows, layers))
}

/// Returns the number of the row behind the one that made the base's top layer.
fn last_base_row(rows: &[crate::image::History], layers: usize) -> usize {
    let Some(top) = layers.checked_sub(1) else { return 0 };
    let with_layers = rows.iter().enumerate().filter(|(_, row)| !row.empty_layer);
    with_layers.map(|(at, _)| at + 1).nth(top).unwrap_or(rows.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::History;

    #[test]
    fn the_rows_of_the_base_are_told_from_those_of_the_image() {
        // (rows: L makes a layer, e is empty; rows of the base; layers of the base; first own row)
        for (rows, of_base, layers, first) in [
            ("LeLe", 2, 1, 2),
            ("LeLe", 4, 2, 4),
            ("LL", 0, 1, 1),
            ("LLe", 5, 1, 1),
            ("Lee", 9, 1, 9),
            ("eL", 1, 0, 1),
            ("L", 0, 0, 0),
        ] {
            let row = |c| History { empty_layer: c == 'e', ..History::default() };
            let history: Vec<_> = rows.chars().map(row).collect();
            assert_eq!(
                first_own_row(&history, of_base, layers),
                first,
                "{rows} {of_base} {layers}"
            );
        }
    }
}
