//! How well the layers of an image use their bytes, by the measures of dive.

use crate::digest::Digest;
use crate::layer::{PathUse, path_uses};
use crate::service::Strata;
use crate::service::error::Result;

/// How well the layers of an image use their bytes.
#[derive(Clone, Debug)]
pub struct Analysis {
    /// The id of the image.
    pub image: Digest,
    /// How many layers it has.
    pub layers: usize,
    /// Size of all files in all layers in bytes.
    pub bytes: u64,
    /// The same without the lowest layer.
    pub user_bytes: u64,
    /// What the paths would take if each were stored once, at its smallest, as a part of what they
    /// take: 1 is best.
    pub efficiency: f64,
    /// What the wasted paths take in bytes.
    pub wasted_bytes: u64,
    /// The same as a part of `user_bytes`; above 1 where it is more than these.
    pub user_wasted: f64,
    /// Paths that take bytes and are in several layers, the largest first.
    pub wasted: Vec<WastedPath>,
}

/// A path that takes bytes and that several layers write or remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WastedPath {
    /// From the root, with a leading slash.
    pub path: Vec<u8>,
    /// How many layers write or remove it.
    pub layers: u64,
    /// The sum of its sizes in bytes.
    pub bytes: u64,
}

impl Strata {
    /// Returns how well the layers of an image use their bytes.
    pub fn analyze(&self, image: &str) -> Result<Analysis> {
        let (image, _, _lease) = self.lease_image(image)?;
        let indexes = self.indexes(&image)?;
        let sizes: Vec<u64> = indexes.iter().map(crate::layer::Index::content_len).collect();
        let uses = path_uses(&indexes)?;
        let efficiency = efficiency(&uses);
        let wasted = wasted(uses);
        let wasted_bytes = wasted.iter().map(|path| path.bytes).sum();
        let user_bytes = sizes.iter().skip(1).sum();
        Ok(Analysis {
            image: image.id(),
            layers: indexes.len(),
            bytes: sizes.iter().sum(),
            user_bytes,
            efficiency,
            wasted_bytes,
            user_wasted: part(wasted_bytes, user_bytes),
            wasted,
        })
    }
}

fn efficiency(uses: &[PathUse]) -> f64 {
    let taken: u64 = uses.iter().map(|path| path.bytes).sum();
    let least: u64 = uses.iter().map(|path| path.least_bytes).sum();
    if taken == 0 { 1.0 } else { part(least, taken) }
}

/// Returns one number as a part of another; of nothing, anything is all.
fn part(bytes: u64, of: u64) -> f64 {
    match (bytes, of) {
        (0, _) => 0.0,
        (_, 0) => 1.0,
        (bytes, of) => bytes as f64 / of as f64,
    }
}

fn wasted(uses: Vec<PathUse>) -> Vec<WastedPath> {
    let is_wasted = |path: &PathUse| path.layers > 1 && path.bytes > 0;
    let shown = |PathUse { path, layers, bytes, .. }| WastedPath {
        path: [b"/", &path[..]].concat(),
        layers,
        bytes,
    };
    let mut wasted: Vec<_> = uses.into_iter().filter(is_wasted).map(shown).collect();
    // They were sorted by path, which decides between those of the same size.
    wasted.sort_by_key(|path| std::cmp::Reverse(path.bytes));
    wasted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_use(path: &str, layers: u64, bytes: u64, least_bytes: u64) -> PathUse {
        PathUse { path: path.into(), layers, bytes, least_bytes }
    }

    #[test]
    fn what_is_stored_once_is_efficient() {
        assert!((efficiency(&[]) - 1.0).abs() < f64::EPSILON);
        assert!((efficiency(&[path_use("a", 3, 0, 0)]) - 1.0).abs() < f64::EPSILON);
        let uses = [path_use("a", 1, 13000, 13000), path_use("b", 2, 7000, 2000)];
        assert!((efficiency(&uses) - 0.75).abs() < f64::EPSILON);
    }

    #[test]
    fn the_largest_waste_comes_first() {
        let uses = vec![
            path_use("empty", 2, 0, 0),
            path_use("once", 1, 99, 99),
            path_use("same", 2, 5, 0),
            path_use("tame", 3, 5, 1),
            path_use("worst", 2, 10, 5),
        ];
        let paths: Vec<_> = wasted(uses).into_iter().map(|path| path.path).collect();
        assert_eq!(paths, [&b"/worst"[..], b"/same", b"/tame"]);
    }

    #[test]
    fn a_part_of_nothing_is_a_number() {
        for (bytes, of, expected) in [(0, 0, 0.0), (7, 0, 1.0), (3, 2, 1.5), (1, 4, 0.25)] {
            assert!((part(bytes, of) - expected).abs() < f64::EPSILON, "{bytes} of {of}");
        }
    }
}
