//! How Go's JSON differs from serde's: `null` for what is empty, a string for a list of one.
//!
//! Pure helpers for the `deserialize_with` of this room; they know no document.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Deserializer;
use serde_json::Value;

use crate::image::Error;
use crate::image::Result;

/// The fields of a JSON object that no struct names.
pub(super) type Other = BTreeMap<String, Value>;

/// Returns how many values, keys and punctuation of a document take memory of their own: what is
/// between two of `[`, `{`, `,` and `:` outside of strings. For what is no JSON the number means
/// nothing.
fn value_count(bytes: &[u8]) -> usize {
    let (mut count, mut is_string, mut is_escaped) = (0, false, false);
    for byte in bytes {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_string,
            b'"' => is_string = !is_string,
            b'[' | b'{' | b',' | b':' if !is_string => count += 1,
            _ => {}
        }
    }
    count
}

/// Most values of a document. An image of ten thousand layers has a hundred thousand.
const VALUES_MAX: usize = 250_000;
/// What a value takes in memory at least, in bytes.
const VALUE_BYTES: usize = 64;

/// Refuses a document that is small and would fill the memory: `[0,0,0` and so on.
pub(super) fn check_values(document: &'static str, bytes: &[u8]) -> Result<()> {
    // Each takes a byte at least.
    match bytes.len() <= VALUES_MAX || value_count(bytes) <= VALUES_MAX {
        true => Ok(()),
        false => Err(Error::TooManyValues { document, limit: VALUES_MAX }),
    }
}

/// Returns about how much memory a document takes when it was read, in bytes.
pub fn document_memory(bytes: &[u8]) -> u64 {
    (bytes.len() + value_count(bytes) * VALUE_BYTES) as u64
}

/// Reads `null` as the default value, as Go does.
pub(super) fn null_as_default<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a list of strings, or one string as the list of it, as docker's `StrSlice` does.
pub(super) fn list_or_string<'de, D>(
    deserializer: D,
) -> std::result::Result<Option<Vec<String>>, D::Error>
where
    D: Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        List(Vec<String>),
        One(String),
    }
    Ok(Option::deserialize(deserializer)?.map(|form| match form {
        Form::List(list) => list,
        Form::One(text) => vec![text],
    }))
}

/// Says whether a boolean is false: what docker leaves out.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
pub(super) const fn is_false(value: &bool) -> bool {
    !*value
}

/// Says whether a number is zero: what docker leaves out.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
pub(super) const fn is_zero(value: &i64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_strings() {
        for (text, count) in [
            ("", 0),
            ("7", 0),
            ("[0,0,0]", 3),
            (r#"{"a":1,"b":[]}"#, 5),
            (r#"["[,:{"]"#, 1),
            (r#"["\\",["\"[",1]]"#, 4),
        ] {
            assert_eq!(value_count(text.as_bytes()), count, "{text}");
        }
    }

    #[test]
    fn a_document_of_nothing_but_values_is_refused() {
        let many = |count: usize| ["[", &"0,".repeat(count), "0]"].concat().into_bytes();
        assert!(check_values("x", &many(VALUES_MAX - 1)).is_ok());
        let error = check_values("x", &many(VALUES_MAX)).expect_err("too many").to_string();
        assert_eq!(error, "x has more than 250000 values, which no image has");
    }
}
