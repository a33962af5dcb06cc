//! How an image came to be.

use crate::image::steps;
use crate::service::Strata;
use crate::service::error::Result;

/// A step in the making of an image.
#[derive(Clone, Debug)]
pub struct HistoryRow {
    /// The id of the image, at the newest step.
    pub image: Option<crate::digest::Digest>,
    /// When, RFC 3339.
    pub created: Option<String>,
    /// By which command.
    pub created_by: String,
    /// Size of the layer in bytes; 0 when the step made none.
    pub size: u64,
    /// What was said about it.
    pub comment: String,
}

impl Strata {
    /// Returns the steps that made an image, newest first.
    pub fn history(&self, image: &str) -> Result<Vec<HistoryRow>> {
        let (image, _, _lease) = self.lease_image(image)?;
        let mut rows = Vec::new();
        for step in steps(&image.config.history, image.layers()) {
            let size = match step.layer {
                Some(layer) => self.store.layer(*layer)?.content_len(),
                None => 0,
            };
            let history = step.history.cloned().unwrap_or_default();
            rows.push(HistoryRow {
                image: None,
                created: history.created,
                created_by: history.created_by.unwrap_or_default(),
                size,
                comment: history.comment.unwrap_or_default(),
            });
        }
        rows.reverse();
        if let Some(newest) = rows.first_mut() {
            newest.image = Some(image.id());
        }
        Ok(rows)
    }
}
