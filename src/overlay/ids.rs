//! Owners as they are shown and as they are stored.
//!
//! A mapping is a list of ranges, as in `/proc/self/uid_map`: so many ids from `stored` on are shown
//! from `shown` on. An id in no range is shown as the overflow id and cannot be given to a file.

use crate::overlay::error::{Error, Result};

/// What the kernel shows for an id that a mapping does not have
/// (`/proc/sys/kernel/overflowuid`).
const OVERFLOW: u32 = 65_534;

/// A range of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// First id on the disk.
    pub stored: u32,
    /// First id that is shown.
    pub shown: u32,
    /// How many.
    pub count: u32,
}

/// How ids of one kind are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap {
    /// Ranges; none of them shows every id as it is.
    pub ranges: Vec<IdRange>,
    /// Every file belongs to this id, whatever is stored.
    pub squash: Option<u32>,
}

/// How owners are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// Users.
    pub users: IdMap,
    /// Groups.
    pub groups: IdMap,
}

impl IdMap {
    /// Returns the id that is shown for one on the disk.
    pub(crate) fn shown(&self, id: u32) -> u32 {
        if let Some(id) = self.squash {
            return id;
        }
        self.map(id, |range| (range.stored, range.shown)).unwrap_or(OVERFLOW)
    }

    /// Returns the id on the disk for one that a program gives.
    ///
    /// # Errors
    /// `EINVAL` when no range has it, as in a user namespace.
    pub(crate) fn stored(&self, id: u32) -> Result<u32> {
        let stored = self.map(id, |range| (range.shown, range.stored));
        stored.ok_or(Error::Invalid("the owner has no place in the mapping"))
    }

    /// Tells whether a program can change owners to what it then sees.
    pub(crate) const fn is_squashed(&self) -> bool {
        self.squash.is_some()
    }

    fn map(&self, id: u32, ends: impl Fn(&IdRange) -> (u32, u32)) -> Option<u32> {
        if self.ranges.is_empty() {
            return Some(id);
        }
        self.ranges.iter().find_map(|range| {
            let (from, to) = ends(range);
            let offset = id.checked_sub(from).filter(|offset| *offset < range.count)?;
            to.checked_add(offset)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_mapped_there_and_back() {
        let ranges = [(100_000, 0, 1000), (5000, 1000, 10)];
        let range = |(stored, shown, count)| IdRange { stored, shown, count };
        let map = IdMap { ranges: ranges.into_iter().map(range).collect(), squash: None };
        for (stored, shown) in [(100_000, 0), (100_999, 999), (5000, 1000), (5009, 1009)] {
            assert_eq!(map.shown(stored), shown);
            assert_eq!(map.stored(shown).unwrap(), stored);
        }
        for stored in [0, 101_000, 5010, 99_999] {
            assert_eq!(map.shown(stored), OVERFLOW);
        }
        assert!(map.stored(1010).is_err());
        let plain = IdMap::default();
        assert_eq!((plain.shown(7), plain.stored(7).unwrap()), (7, 7));
        let squashed = IdMap { squash: Some(0), ..IdMap::default() };
        assert_eq!((squashed.shown(7), squashed.stored(7).unwrap()), (0, 7));
    }
}
