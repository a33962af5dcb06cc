//! What the files of generated layers hold: bytes that cannot be compressed, and that are known.
//!
//! Every eight bytes follow from the file's seed and their place, so whoever has read any of them can
//! tell whether they are right.

/// Bytes of a word.
const WORD: usize = 8;

/// Makes the content of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filler {
    seed: u64,
}

impl Filler {
    /// Returns the content of the file at a path.
    pub fn of(path: &[u8]) -> Self {
        Self { seed: hash(path) }
    }

    /// Returns the eight bytes at an offset, which is a multiple of eight.
    pub const fn word(self, offset: u64) -> u64 {
        mixed(self.seed.wrapping_add(offset))
    }

    /// Fills a buffer with what stands at an offset, which is a multiple of eight.
    pub fn fill(self, offset: u64, buffer: &mut [u8]) {
        let mut at = offset;
        let mut words = buffer.chunks_exact_mut(WORD);
        for word in &mut words {
            word.copy_from_slice(&self.word(at).to_le_bytes());
            at += WORD as u64;
        }
        let rest = words.into_remainder();
        let len = rest.len();
        rest.copy_from_slice(&self.word(at).to_le_bytes()[..len]);
    }
}

/// Returns a number that stands for these bytes, the same on every machine (FNV-1a).
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mixed(bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// Numbers that look random and are the same in every run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers(u64);

impl Numbers {
    /// Returns the numbers of a seed.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number below `end`, which is not 0.
    pub(crate) const fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0) % end
    }
}

/// The finisher of SplitMix64.
pub(crate) const fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Returns what tells a content from another one: its first and its last eight bytes.
pub(crate) fn mark(content: &[u8]) -> u64 {
    let word = |bytes: &[u8]| {
        let mut word = [0; WORD];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    let end = content.len().min(WORD);
    word(&content[..end]) ^ word(&content[content.len() - end..]).rotate_left(17)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_content_is_the_same_whoever_asks() {
        let filler = Filler::of(b"usr/bin/env");
        let mut whole = vec![0; 100];
        filler.fill(0, &mut whole);
        let mut part = vec![0; 44];
        filler.fill(56, &mut part);
        assert_eq!(part, whole[56..]);
        assert_eq!(filler.word(48).to_le_bytes(), whole[48..56]);
        assert_ne!(Filler::of(b"usr/bin/other"), filler);
    }

    #[test]
    fn a_mark_is_of_both_ends() {
        assert_eq!(mark(b""), 0);
        let known = mark(b"0123456789");
        for other in [&b"1123456789"[..], b"0123456788", b"9876543210", b"01234567"] {
            assert_ne!(mark(other), known, "{other:?}");
        }
        assert_eq!(mark(b"01234567xx89012345"), mark(b"01234567yy89012345"));
    }
}
