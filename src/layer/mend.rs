//! Turning a single wrong bit of an index or a recipe back.
//!
//! A bit that flips in memory or on a disk is the damage that is met most. Both forms have the sums of
//! their parts, so that it is certain which bit it was. Only small parts are looked through.

use crate::digest::{Digest, mend_one_bit};
use crate::layer::format as f;
use crate::layer::recipe;

/// Turns a wrong bit of an index back; tells whether that made it what its sums say.
pub fn mend_index(bytes: &mut [u8]) -> bool {
    let Some((header, body)) = bytes.split_at_mut_checked(f::HEADER_BYTES) else { return false };
    // Behind the sum of the header nothing is.
    header.iter_mut().skip(f::H_SHA256 + 32).for_each(|byte| *byte = 0);
    mend_header(header, f::H_SHA256)
        && sum_at(header, f::H_BODY_SHA256).is_some_and(|expected| mend_one_bit(body, expected))
}

/// Turns a wrong bit of a recipe back; tells whether that made it what its sums say. One of the first
/// version has none.
pub fn mend_recipe(bytes: &mut [u8]) -> bool {
    let Some((header, body)) = bytes.split_at_mut_checked(recipe::HEADER_BYTES) else {
        return false;
    };
    mend_header(header, recipe::R_SHA256)
        && sum_at(header, recipe::R_BODY_SHA256)
            .is_some_and(|expected| mend_one_bit(body, expected))
}

/// Mends a header whose sum is of all that is before it; the bit may be one of the sum.
fn mend_header(header: &mut [u8], sum: usize) -> bool {
    let Some(expected) = sum_at(header, sum) else { return false };
    let Some(covered) = header.get_mut(..sum) else { return false };
    let actual = Digest::of(covered);
    let is_one_bit = differing_bits(&actual, &expected) == 1;
    if is_one_bit {
        return header.get_mut(sum..sum + 32).is_some_and(|place| {
            place.copy_from_slice(actual.as_bytes());
            true
        });
    }
    mend_one_bit(covered, expected)
}

fn differing_bits(one: &Digest, other: &Digest) -> u32 {
    let pairs = one.as_bytes().iter().zip(other.as_bytes());
    pairs.map(|(a, b)| (a ^ b).count_ones()).sum()
}

fn sum_at(header: &[u8], at: usize) -> Option<Digest> {
    Some(Digest::from_bytes(header.get(at..at + 32)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek};

    use super::*;
    use crate::layer::fuzz::Memory;
    use crate::layer::tests::tar_of;
    use crate::layer::{LayerFiles, unpack};

    fn read_all(mut file: File) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_wrong_bit_is_turned_back_wherever_it_is() {
        let files = LayerFiles {
            index: tempfile::tempfile().unwrap(),
            recipe: tempfile::tempfile().unwrap(),
        };
        let tar = tar_of(&["a/", "a/f=text", "a/l->f"]);
        let files = unpack(&tar[..], files, &mut Memory::default()).unwrap().files;
        type Mend = fn(&mut [u8]) -> bool;
        for (file, mend) in [(files.index, mend_index as Mend), (files.recipe, mend_recipe as Mend)]
        {
            let good = read_all(file);
            assert!(mend(&mut good.clone()));
            for bit in (0..good.len() * 8).step_by(61) {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(mend(&mut bad), "bit {bit}");
                assert!(bad == good, "bit {bit}");
            }
            let mut cut = good[..good.len() - 1].to_vec();
            assert!(!mend(&mut cut));
            assert!(!mend(&mut [0; 20]));
        }
    }
}
