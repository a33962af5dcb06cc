//! Records: small files that say something, each with the sum of what it says.
//!
//! A record is JSON, and on a last line of its own, as JSON too, the sha256 of all that is before
//! that line. So it is read with any tool, and no bit of it can change without being noticed.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::digest::{Digest, mend_one_bit};
use crate::store::error::{Error, Result};
use crate::store::files::read_if_exists;

/// Length of the last line: a digest in quotation marks, and the end of the line.
const SUM_BYTES: usize = "\"sha256:\"\n".len() + 64;

/// Returns a record.
pub(crate) fn encode(record: &impl Serialize) -> Vec<u8> {
    with_sum(serde_json::to_vec(record).expect("a record has nothing that JSON cannot hold"))
}

/// Returns a record that is easy to read for people.
pub(crate) fn encode_pretty(record: &impl Serialize) -> Vec<u8> {
    with_sum(serde_json::to_vec_pretty(record).expect("a record has nothing JSON cannot hold"))
}

/// Adds the last line to what a record says.
pub(crate) fn with_sum(mut text: Vec<u8>) -> Vec<u8> {
    text.push(b'\n');
    let sum = Digest::of(&text);
    text.extend_from_slice(format!("\"{sum}\"\n").as_bytes());
    text
}

/// Returns what a record says, the line of the sum taken off.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn checked(bytes: &[u8]) -> std::result::Result<&[u8], String> {
    let Some((text, line)) = bytes.len().checked_sub(SUM_BYTES).map(|at| bytes.split_at(at)) else {
        return Err("it is too short to have a sum".to_owned());
    };
    let Some(sum) = sum_of(line).filter(|_| text.ends_with(b"\n")) else {
        return Err("its last line is not the sum of the others".to_owned());
    };
    let actual = Digest::of(text);
    if actual == sum {
        Ok(text)
    } else {
        Err(format!("it hashes to {actual}, its last line says {sum}"))
    }
}

fn sum_of(line: &[u8]) -> Option<Digest> {
    let text = std::str::from_utf8(line).ok()?;
    text.strip_prefix('"')?.strip_suffix("\"\n")?.parse().ok()
}

/// Returns a damaged record as it was, if a single bit of it was turned.
pub(crate) fn mended(bytes: &[u8]) -> Option<Vec<u8>> {
    let (text, line) = bytes.split_at_checked(bytes.len().checked_sub(SUM_BYTES)?)?;
    let right = format!("\"{}\"\n", Digest::of(text)).into_bytes();
    let turned = line.iter().zip(&right).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
    if turned <= 1 {
        return Some([text, &right].concat());
    }
    let mut text = text.to_vec();
    mend_one_bit(&mut text, sum_of(line)?).then(|| [&text, line].concat())
}

/// Returns what a damaged record says, if what is left of it still says something.
pub(crate) fn salvaged<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::Deserializer::from_slice(bytes).into_iter().next()?.ok()
}

/// Returns what a record says.
///
/// # Errors
/// [`Error::Record`] names the file and says what is wrong with it.
pub(crate) fn decode<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    let parsed = checked(bytes)
        .and_then(|text| serde_json::from_slice(text).map_err(|error| error.to_string()));
    parsed.map_err(|reason| Error::Record { path: path.to_owned(), reason })
}

/// Reads a record; none when there is no such file.
///
/// # Errors
/// [`Error::Record`] when it is damaged.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    read_if_exists(path)?.map(|bytes| decode(path, &bytes)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_is_two_values_of_json() {
        let record = vec!["one".to_owned(), "two".to_owned()];
        for bytes in [encode(&record), encode_pretty(&record)] {
            assert_eq!(decode::<Vec<String>>("r".as_ref(), &bytes).unwrap(), record);
            let values = serde_json::Deserializer::from_slice(&bytes).into_iter();
            let values: Vec<serde_json::Value> = values.map(|value| value.unwrap()).collect();
            assert_eq!(values.len(), 2);
            let text = checked(&bytes).unwrap();
            assert_eq!(values[1], serde_json::json!(Digest::of(text).to_string()));
        }
    }

    #[test]
    fn no_bit_of_a_record_changes_unnoticed() {
        let good = encode(&serde_json::json!({"id": "0123", "time": "2024-01-01T00:00:00Z"}));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(checked(&bad).is_err(), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(checked(&good[..len]).is_err(), "{len} bytes");
        }
        assert!(checked(&[&good[..], b"\n"].concat()).is_err());
    }

    #[test]
    fn a_single_wrong_bit_is_turned_back_and_more_is_salvaged() {
        let good = encode(&vec!["one".to_owned(), "two".to_owned()]);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(mended(&bad).as_ref() == Some(&good), "bit {bit}");
        }
        let mut bad = good.clone();
        bad[2] = b'n';
        bad[3] = b'o';
        assert_eq!(mended(&bad), None);
        let found = salvaged::<Vec<String>>(&bad);
        assert_eq!(found, Some(vec!["noe".to_owned(), "two".to_owned()]));
        assert_eq!(salvaged::<Vec<String>>(&good[..5]), None);
    }

    #[test]
    fn what_is_wrong_with_a_record_is_said_with_its_path() {
        let error = |bytes: &[u8]| decode::<Vec<u8>>("refs/x".as_ref(), bytes).unwrap_err();
        let sound = encode(&"text");
        let mut other = sound.clone();
        other[1] = b'T';
        for (bytes, part) in [
            (&b""[..], "refs/x is damaged: it is too short to have a sum; 'strata fsck --repair'"),
            (&[b'x'; 100], "its last line is not the sum of the others"),
            (&other, "it hashes to sha256:"),
            (&sound, "invalid type: string"),
        ] {
            let said = error(bytes).to_string();
            assert!(said.contains(part), "{said}");
        }
    }
}
