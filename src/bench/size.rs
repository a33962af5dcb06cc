//! How much is made and done.

use serde::{Deserialize, Serialize};

/// How much is made and done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// What a person calls it.
    pub name: String,
    /// Entries of the generated tree.
    pub tree_entries: u64,
    /// Layers of the tree, at least.
    pub layers: usize,
    /// Bytes of the big file that is read.
    pub big_bytes: u64,
    /// Bytes of the big file that is copied up.
    pub copied_bytes: u64,
    /// Reads at random places of the big file.
    pub random_reads: u64,
    /// Entries of the directory that is listed.
    pub wide_entries: u64,
    /// Entries of the tree whose server's memory is measured.
    pub deep_entries: u64,
    /// Most layers of that tree.
    pub most_layers: usize,
    /// Files that are made.
    pub created: u64,
    /// Files of the lower and of the upper that are changed.
    pub changed: u64,
    /// Files of the source tree.
    pub sources: u64,
    /// Files that are compiled.
    pub compiled: u64,
    /// Containers that are started.
    pub containers: u64,
}

/// The part of the full size that the small one is.
const SMALL: f64 = 0.1;

impl Size {
    /// Returns the size that the published figures are of.
    pub fn full() -> Self {
        Self::scaled("full".to_owned(), 1.0)
    }

    /// Reads `full`, `small`, or a part of the full size: `0.05`.
    ///
    /// # Errors
    /// The sentence to say.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        match text {
            "full" => Ok(Self::full()),
            "small" => Ok(Self::scaled("small".to_owned(), SMALL)),
            _ => match text.parse::<f64>() {
                Ok(part) if part > 0.0 && part <= 10.0 => Ok(Self::scaled(text.to_owned(), part)),
                _ => Err(format!("{text:?} is neither small nor full nor a number up to 10")),
            },
        }
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the numbers are small and not negative"
    )]
    fn scaled(name: String, part: f64) -> Self {
        let count = |full: u64, least: u64| ((full as f64 * part) as u64).max(least);
        // A mapping and a read of 1 MiB want whole pages.
        let bytes = |full: u64| count(full, 4 << 20) & !((1 << 20) - 1);
        Self {
            name,
            tree_entries: count(14_000, 400),
            layers: 10,
            big_bytes: bytes(1 << 30),
            copied_bytes: bytes(500_000_000),
            random_reads: count(20_000, 200),
            wide_entries: count(50_000, 500),
            deep_entries: count(150_000, 500),
            most_layers: if part < 0.1 { 10 } else { 500 },
            created: count(10_000, 50),
            changed: count(1_000, 30),
            sources: count(3_000, 60),
            compiled: count(20, 2),
            containers: count(20, 2),
        }
    }

    /// Returns about how many bytes the fixtures take on the disk at most: the layers, the store, a
    /// plain copy, and what a run writes.
    pub fn disk_bytes(&self) -> u64 {
        const ENTRY: u64 = 30_000;
        const SMALL_ENTRY: u64 = 6_000;
        let big = 2 * self.big_bytes + 4 * self.copied_bytes;
        let tree = 4 * self.tree_entries * ENTRY;
        let deep = 2 * (self.deep_entries + self.wide_entries) * SMALL_ENTRY;
        big + tree + deep + 4 * self.sources * SMALL_ENTRY + self.created * 4096
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_words_or_parts_of_the_full_one() {
        assert_eq!(Size::parse("full").unwrap().big_bytes, 1 << 30);
        assert_eq!(Size::parse("1").unwrap().deep_entries, 150_000);
        let small = Size::parse("small").unwrap();
        assert!(small.tree_entries < 14_000 && small.big_bytes.is_multiple_of(1 << 20));
        assert_eq!(Size::parse("0.001").unwrap().big_bytes, 4 << 20);
        for wrong in ["", "large", "0", "-1", "NaN", "11"] {
            assert!(Size::parse(wrong).unwrap_err().contains(&format!("{wrong:?}")), "{wrong}");
        }
    }
}
