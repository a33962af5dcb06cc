//! How Go's JSON differs from serde's: `null` for what is empty, a string for a list of one.
//!
//! Pure helpers for the `deserialize_with` of this room; they know no document.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Deserializer;
use serde_json::Value;

/// The fields of a JSON object that no struct names.
pub(super) type Other = BTreeMap<String, Value>;

/// Reads `null` as the default value, as Go does.
pub(super) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a list of strings, or one string as the list of it, as docker's `StrSlice` does.
pub(super) fn list_or_string<'de, D>(deserializer: D) -> Result<Option<Vec<String>>, D::Error>
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
