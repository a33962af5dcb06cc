//! The layers of an image: what each holds and hides, and which has made a file what it is.

use crate::digest::DiffId;
use crate::image::steps;
use crate::layer::{Index, Origin, account, origins};
use crate::service::error::{Error, Result};
use crate::service::{Depth, Strata, TreePath};
use crate::store::Image;

/// A layer of an image.
#[derive(Clone, Debug)]
pub struct LayerRow {
    /// Counted from 1 at the bottom.
    pub number: usize,
    /// Its id.
    pub diff_id: DiffId,
    /// Size of all its files in bytes.
    pub size: u64,
    /// Names in it: files, directories, and what it says is gone.
    pub entries: u64,
    /// Files of lower layers that it hides.
    pub hidden_files: u64,
    /// Their sizes in bytes.
    pub hidden_bytes: u64,
    /// What made it, or what was said about it.
    pub created_by: String,
}

/// Which layers have made a file what it is.
#[derive(Clone, Debug)]
pub struct BlameRow {
    /// From the root, with a leading slash.
    pub path: Vec<u8>,
    /// The layer that last changed its content; a directory has none.
    pub content: Option<usize>,
    /// The layer that last changed its attributes.
    pub attributes: usize,
    /// What made the layer of the content, or of the attributes of a directory.
    pub created_by: String,
}

impl Strata {
    /// Returns the layers of an image, the lowest first.
    pub fn layers(&self, image: &str) -> Result<Vec<LayerRow>> {
        let (image, _, _lease) = self.lease_image(image)?;
        let indexes = self.indexes(&image)?;
        let makers = makers(&image);
        let accounts = account(&indexes)?;
        let rows = image.layers().iter().zip(&indexes).zip(accounts).zip(makers).zip(1..);
        Ok(rows
            .map(|((((diff_id, index), account), created_by), number)| LayerRow {
                number,
                diff_id: *diff_id,
                size: index.content_len(),
                entries: account.entries,
                hidden_files: account.hidden_files,
                hidden_bytes: account.hidden_bytes,
                created_by,
            })
            .collect())
    }

    /// Returns which layers of an image have made the files at a path what they are, sorted by path.
    pub fn blame(&self, at: &TreePath, depth: Depth) -> Result<Vec<BlameRow>> {
        let (image, _, _lease) = self.lease_image(&at.tree)?;
        let makers = makers(&image);
        let found = origins(&self.indexes(&image)?, &at.path, depth)?;
        let found = found.ok_or_else(|| Error::NoPath {
            path: String::from_utf8_lossy(&at.path).into_owned(),
            tree: at.tree.clone(),
        })?;
        let row = |Origin { path, content, attributes, .. }: Origin| BlameRow {
            path: [b"/", &path[..]].concat(),
            content: content.map(|layer| layer + 1),
            attributes: attributes + 1,
            created_by: makers.get(content.unwrap_or(attributes)).cloned().unwrap_or_default(),
        };
        Ok(found.into_iter().map(row).collect())
    }

    /// Returns the indexes of the layers of an image, the lowest first.
    pub(crate) fn indexes(&self, image: &Image) -> Result<Vec<Index>> {
        let index = |layer: &DiffId| self.store.layer(*layer);
        Ok(image.layers().iter().map(index).collect::<crate::store::Result<_>>()?)
    }
}

/// Returns what the history says made each layer.
pub(crate) fn makers(image: &Image) -> Vec<String> {
    let steps = steps(&image.config.history, image.layers()).into_iter();
    let told = |step: crate::image::Step<'_, DiffId>| {
        let history = step.history.cloned().unwrap_or_default();
        let by = history.created_by.filter(|text| !text.is_empty());
        by.or(history.comment).unwrap_or_default()
    };
    steps.filter(|step| step.layer.is_some()).map(told).collect()
}
