//! Mutating: an image with another configuration on the same layers.
//!
//! No layer is written, and the manifest names the blobs of the base as they are, so a registry that
//! has these needs only the new configuration and the manifest.

use crate::digest::Digest;
use crate::image::{Edit, History, Reference, apply_changes, apply_edits, fill_history};
use crate::service::Strata;
use crate::service::commit::{created, source_date_epoch};
use crate::service::error::{Error, Result};
use crate::store::Claim;

/// What to change of an image's configuration.
#[derive(Clone, Debug, Default)]
pub struct MutateRequest {
    /// The image.
    pub image: String,
    /// The name of the new image; none leaves it without one.
    pub reference: Option<Reference>,
    /// What was done.
    pub message: Option<String>,
    /// Instructions that change the configuration: `CMD ["sh"]`. They come first.
    pub changes: Vec<String>,
    /// Changes of its parts.
    pub edits: Vec<Edit>,
}

impl Strata {
    /// Makes an image of the layers of another one with a changed configuration; returns its id.
    pub fn mutate(&self, request: &MutateRequest) -> Result<Digest> {
        if request.changes.is_empty() && request.edits.is_empty() {
            return Err(Error::NothingToChange(request.image.clone()));
        }
        let (base, _, _lease) = self.lease_image(&request.image)?;
        let mut stage = self.store.stage()?;
        stage.claim(Claim::Image(base.digest))?;
        let mut config = base.config.clone();
        apply_changes(&request.changes, &mut config.config)?;
        apply_edits(&request.edits, &mut config.config)?;
        let created = created(source_date_epoch()?);
        config.created = Some(created.clone());
        let edits = request.edits.iter().map(Edit::to_string);
        let words: Vec<_> = request.changes.iter().cloned().chain(edits).collect();
        fill_history(&mut config.history, base.layers().len());
        config.history.push(History {
            created: Some(created),
            created_by: Some(words.join("; ")),
            comment: request.message.clone(),
            empty_layer: true,
            ..History::default()
        });
        let layers = base.manifest.layers.clone();
        self.add_image(&mut stage, layers, config, None, request.reference.as_ref())
    }
}
