//! Filters of lists: which keys there are, and what a value of them means.
//!
//! Values of one key are alternatives, different keys must all fit, and of labels all must, as docker
//! has it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::service::error::{Error, Result};

/// What a person asked a list to be confined to: `key=value`, in the order of asking.
pub type Filters = Vec<(String, String)>;

/// Returns the values of a key.
pub(crate) fn values<'a>(filters: &'a Filters, key: &str) -> Vec<&'a str> {
    let fits = |(name, _): &&(String, String)| name == key;
    filters.iter().filter(fits).map(|(_, value)| value.as_str()).collect()
}

/// Checks that there are only filters that a list knows.
pub(crate) fn check_keys(filters: &Filters, known: &[&str]) -> Result<()> {
    match filters.iter().find(|(key, _)| !known.contains(&key.as_str())) {
        Some((key, _)) => Err(Error::UnknownFilter(key.clone())),
        None => Ok(()),
    }
}

/// Returns what a filter of yes and no asks for.
pub(crate) fn truth(filters: &Filters, key: &str) -> Result<Option<bool>> {
    let one = |value: &str| match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(Error::FilterValue(key.to_owned(), other.to_owned())),
    };
    values(filters, key).last().map(|value| one(value)).transpose()
}

/// Tells whether labels are as the filters `label` and `label!` ask.
pub(crate) fn labels_fit(filters: &Filters, labels: &BTreeMap<String, String>) -> bool {
    let has = |wanted: &&str| match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|label| label == value),
        None => labels.contains_key(*wanted),
    };
    values(filters, "label").iter().all(has) && !values(filters, "label!").iter().any(has)
}

/// Returns the times that the filters `until` mean.
pub(crate) fn untils(filters: &Filters, now: Timestamp) -> Result<Vec<Timestamp>> {
    values(filters, "until").into_iter().map(|value| until(value, now)).collect()
}

/// Returns the time that a filter `until` means: a time, or how long ago it was.
fn until(value: &str, now: Timestamp) -> Result<Timestamp> {
    let seconds = || value.parse::<i64>().ok().and_then(|s| Timestamp::from_second(s).ok());
    let time = || value.parse::<Timestamp>().ok();
    let local = || {
        let time = value.parse::<jiff::civil::DateTime>().ok()?;
        time.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    };
    let ago = || duration(value).and_then(|ago| now.checked_sub(ago).ok());
    let found = seconds().or_else(time).or_else(local).or_else(ago);
    found.ok_or_else(|| Error::FilterTime(value.to_owned()))
}

/// Returns a duration as Go writes it: `1h30m`.
pub(crate) fn duration(text: &str) -> Option<SignedDuration> {
    let (mut total, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = after;
    }
    if text.is_empty() { None } else { SignedDuration::try_from_secs_f64(total).ok() }
}

/// Tells whether a name fits a pattern, in which `*` and `?` stand for anything but a slash and `[…]`
/// for one of some characters, as Go's `path.Match` has it. A broken pattern fits nothing.
///
/// Only the last star is tried with more and more: what those before it have taken is the least, and
/// they could give the next ones nothing better.
pub(crate) fn glob(pattern: &[char], name: &[char]) -> bool {
    let (mut pattern, mut name) = (pattern, name);
    let mut star: Option<(&[char], &[char])> = None;
    loop {
        if let Some(('*', rest)) = pattern.split_first() {
            (pattern, star) = (rest, Some((rest, name)));
            continue;
        }
        if pattern.is_empty() && name.is_empty() {
            return true;
        }
        if let Some((rest, after)) = one(pattern, name) {
            (pattern, name) = (rest, after);
            continue;
        }
        star = match star.and_then(|(rest, from)| Some((rest, from.split_first()?))) {
            Some((rest, (c, after))) if *c != '/' => Some((rest, after)),
            _ => return false,
        };
        if let Some((rest, after)) = star {
            (pattern, name) = (rest, after);
        }
    }
}

/// Fits the first part of a pattern, which is no star, to the first character of a name, and returns
/// what is left of both; none if it does not fit.
fn one<'a>(pattern: &'a [char], name: &'a [char]) -> Option<(&'a [char], &'a [char])> {
    let (first, rest) = pattern.split_first()?;
    let (c, after) = name.split_first()?;
    match first {
        '[' => {
            let end = rest.iter().position(|c| *c == ']')?;
            let fits = *c != '/' && in_class(&rest[..end], *c);
            fits.then_some((&rest[end + 1..], after))
        }
        '?' => (*c != '/').then_some((rest, after)),
        '\\' => {
            let (wanted, rest) = rest.split_first()?;
            (wanted == c).then_some((rest, after))
        }
        wanted => (wanted == c).then_some((rest, after)),
    }
}

fn in_class(class: &[char], c: char) -> bool {
    let (class, negated) = match class.split_first() {
        Some(('^', rest)) => (rest, true),
        _ => (class, false),
    };
    let mut rest = class;
    let mut found = false;
    while let Some((low, after)) = rest.split_first() {
        let (high, after) = match after {
            ['-', high, after @ ..] => (high, after),
            _ => (low, after),
        };
        found |= (*low..=*high).contains(&c);
        rest = after;
    }
    found != negated
}

/// Checks that every class of a pattern has an end, and every backslash something after it.
pub(crate) fn check_pattern(pattern: &str) -> Result<()> {
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        let whole = match c {
            '[' => rest.any(|c| c == ']'),
            '\\' => rest.next().is_some(),
            _ => true,
        };
        if !whole {
            return Err(Error::Pattern);
        }
    }
    Ok(())
}

/// As [`glob`], of texts.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    let characters = |text: &str| text.chars().collect::<Vec<_>>();
    glob(&characters(pattern), &characters(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_go() {
        for (pattern, name, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("*/*/*", "127.0.0.1:5000/team/app", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("a[a-c]c", "abc", true),
            ("a[^a-c]c", "abc", false),
            ("a[", "ab", false),
            ("a\\*", "a*", true),
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
            ("**", "", true),
            ("*a*b", "xaxbxb", true),
            ("*a*b*", "xbxa", false),
            ("*a/*b", "xa/a/xb", false),
            ("*a/*b", "xaa/axb", true),
            ("a*[xy]*/c", "abyb/c", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn regression_many_stars_are_no_many_tries() {
        let (pattern, name) = ("*a".repeat(40) + "b", "a".repeat(2000));
        assert!(!fits(&pattern, &name));
        assert!(fits(&pattern, &(name + "b")));
    }

    #[test]
    fn a_broken_pattern_is_told() {
        for (pattern, is_whole) in [("a[b]*", true), ("a[b", false), ("a\\", false), ("\\[", true)]
        {
            assert_eq!(check_pattern(pattern).is_ok(), is_whole, "{pattern}");
        }
    }

    #[test]
    fn a_time_is_said_in_many_ways() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        for (value, expected) in [
            ("24h", "2026-11-20T12:00:00Z"),
            ("1h30m", "2026-11-21T10:30:00Z"),
            ("1.5h", "2026-11-21T10:30:00Z"),
            ("1700000000", "2023-11-14T22:13:20Z"),
            ("2026-01-02", "2026-01-02T00:00:00Z"),
            ("2026-01-02T03:04:05", "2026-01-02T03:04:05Z"),
            ("2026-01-02T03:04:05+01:00", "2026-01-02T02:04:05Z"),
        ] {
            assert_eq!(until(value, now).unwrap().to_string(), expected, "{value}");
        }
        for value in ["", "h", "24", "soon", "1d"] {
            assert_eq!(until(value, now).is_ok(), value == "24", "{value}");
        }
    }

    #[test]
    fn all_labels_must_fit() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        let filter = |pairs: &[(&str, &str)]| -> Filters {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        for (filters, expected) in [
            (&[("label", "a")][..], true),
            (&[("label", "a=1")], true),
            (&[("label", "a=2")], false),
            (&[("label", "a"), ("label", "b")], false),
            (&[("label!", "b")], true),
            (&[("label!", "a")], false),
        ] {
            assert_eq!(labels_fit(&filter(filters), &labels), expected, "{filters:?}");
        }
    }
}
