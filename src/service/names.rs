//! Names for containers that were given none, and what names may be.

use crate::service::error::{Error, Result};
use crate::sys;

const ADJECTIVES: [&str; 64] = [
    "amber", "ancient", "ashen", "banded", "bold", "brisk", "bronze", "calm", "chalky", "clear",
    "coarse", "cold", "coral", "crisp", "deep", "dense", "dusky", "dusty", "eastern", "even",
    "faint", "firm", "flat", "folded", "fossil", "frosty", "gentle", "gilded", "glassy", "golden",
    "grey", "hard", "hidden", "hollow", "inner", "ivory", "jagged", "layered", "light", "linear",
    "massive", "mellow", "mossy", "northern", "oaken", "ochre", "outer", "pale", "quiet", "rough",
    "russet", "sandy", "shallow", "silent", "silver", "sleek", "smooth", "solid", "southern",
    "steady", "tilted", "umber", "western", "white",
];

const NOUNS: [&str; 64] = [
    "agate", "anvil", "arch", "arkose", "basalt", "basin", "bay", "bed", "beryl", "bluff",
    "boulder", "breccia", "butte", "canyon", "cavern", "chert", "cliff", "clay", "cobble", "coal",
    "crag", "crystal", "delta", "dolomite", "dune", "esker", "fault", "feldspar", "flint", "fold",
    "gabbro", "garnet", "geode", "gneiss", "gorge", "granite", "gravel", "gypsum", "jasper",
    "karst", "ledge", "lens", "lime", "loam", "marble", "marl", "mesa", "moraine", "obsidian",
    "onyx", "opal", "pebble", "plateau", "pumice", "quartz", "reef", "ridge", "schist", "shale",
    "slate", "strata", "talus", "tuff", "vein",
];

/// Most characters of the name of a snapshot.
const MOST: usize = 128;

/// Returns a name of two words.
pub(crate) fn random_name() -> Result<String> {
    let [first, second] = sys::random_bytes::<2>()?;
    let word = |words: &[&'static str; 64], byte: u8| words[usize::from(byte) % 64];
    Ok(format!("{}_{}", word(&ADJECTIVES, first), word(&NOUNS, second)))
}

/// Returns an id of 64 hex digits.
pub(crate) fn random_id() -> Result<String> {
    let bytes = sys::random_bytes::<32>()?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Checks a name that a person gives to a container.
pub(crate) fn check_name(name: &str) -> Result<()> {
    match is_word(name) && name.len() >= 2 {
        true => Ok(()),
        false => Err(Error::ContainerName(name.to_owned())),
    }
}

/// Checks a name that a person gives to a snapshot.
pub(crate) fn check_snapshot_name(name: &str) -> Result<()> {
    match is_word(name) && name.len() <= MOST {
        true => Ok(()),
        false => Err(Error::SnapshotName(name.to_owned())),
    }
}

fn is_word(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    first && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_names_are_valid_and_words_are_unique() {
        for _ in 0..200 {
            check_name(&random_name().unwrap()).unwrap();
        }
        assert_eq!(random_id().unwrap().len(), 64);
        for words in [ADJECTIVES, NOUNS] {
            let unique: std::collections::BTreeSet<_> = words.iter().collect();
            assert_eq!(unique.len(), words.len());
        }
    }

    #[test]
    fn names_are_checked() {
        for name in ["ab", "a.b_c-d", "7up"] {
            check_name(name).unwrap();
        }
        for name in ["", "a", ".a", "-x", "a/b", "a b", "ü1"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        let (longest, longer) = ("x".repeat(128), "x".repeat(129));
        for name in ["1", "a.b_c-d", &longest] {
            check_snapshot_name(name).unwrap();
        }
        for name in ["", ".", "..", "a/b", "-x", &longer] {
            assert!(check_snapshot_name(name).is_err(), "{name}");
        }
    }
}
