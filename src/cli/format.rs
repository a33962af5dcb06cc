//! Sizes, ages and ids as docker prints them.

use jiff::Timestamp;

/// The most letters of a command in a list of containers.
pub(crate) const COMMAND_COLUMNS: usize = 20;

const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/// Returns a size in units of 1000, with three digits that count: `1.98MB`.
pub(crate) fn size(bytes: u64) -> String {
    size_with(bytes, 3)
}

/// Returns a size on the disk in units of 1000, with four digits that count: `1.982MB`.
pub(crate) fn size_of_room(bytes: u64) -> String {
    size_with(bytes, 4)
}

fn size_with(bytes: u64, digits: u8) -> String {
    let mut unit = 0;
    let mut value = bytes as f64;
    // What would be rounded to this power of ten is so much.
    let rounded_to = |power: f64, decimals: u8| power - 0.5 / 10_f64.powi(decimals.into());
    while value >= rounded_to(1000.0, digits - 3) && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        value if value >= rounded_to(100.0, digits - 2) => digits - 3,
        value if value >= rounded_to(10.0, digits - 1) => digits - 2,
        _ => digits - 1,
    };
    let mut text = format!("{value:.0$}", usize::from(decimals));
    if text.contains('.') {
        text = text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    text.push_str(UNITS[unit]);
    text
}

/// Returns a size in units of 1024, with four digits that count: `7.755GiB`.
pub(crate) fn binary_size(bytes: u64) -> String {
    const BINARY_UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < BINARY_UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = match value {
        value if value >= 1000.0 => 0,
        value if value >= 100.0 => 1,
        value if value >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0') } else { &text };
    format!("{}{}", text.trim_end_matches('.'), BINARY_UNITS[unit])
}

/// Reads a size: a number, and a unit of 1000 (`kB`, `20MB`) or of 1024 (`KiB`, `1.5GiB`).
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it was held against the limits; a part of a byte is none"
)]
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size (expected bytes, or as 20MB or 1.5GiB)");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let (letter, base) = match unit.strip_suffix("ib") {
        Some(letter) if !letter.is_empty() => (letter, 1024_f64),
        _ => (unit.strip_suffix('b').unwrap_or(&unit), 1000_f64),
    };
    let power = ["", "k", "m", "g", "t", "p", "e"].iter().position(|known| *known == letter);
    let power = i32::try_from(power.ok_or_else(wrong)?).map_err(|_| wrong())?;
    let bytes = number * base.powi(power);
    if bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(wrong()) }
}

/// Returns how long ago something was: `3 weeks ago`.
pub(crate) fn ago(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(time.as_second()).max(0);
    format!("{} ago", duration(seconds))
}

fn duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    let count = |number: i64, unit: &str| format!("{number} {unit}");
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (..60, ..) => count(seconds, "seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, ..60, _) => count(minutes, "minutes"),
        (.., 1) => "About an hour".to_owned(),
        (.., ..48) => count(hours, "hours"),
        (.., hours) if hours < 24 * 7 * 2 => count(hours / 24, "days"),
        (.., hours) if hours < 24 * 30 * 2 => count(hours / 24 / 7, "weeks"),
        (.., hours) if hours < 24 * 365 * 2 => count(hours / 24 / 30, "months"),
        (.., hours) => count(hours / 24 / 365, "years"),
    }
}

/// Returns how long ago an image was made; `N/A` if it does not say a believable time.
pub(crate) fn created_ago(created: Option<&str>, now: Timestamp) -> String {
    match created.and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(time) if time.as_second() > 0 => ago(time, now),
        _ => "N/A".to_owned(),
    }
}

/// Returns when an image was made, as Go prints a time.
pub(crate) fn created_at(created: Option<&str>) -> String {
    match created.and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(time) => go_time(time),
        None => "N/A".to_owned(),
    }
}

/// Returns a time as Go prints it.
pub(crate) fn go_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
}

/// Returns the key and the value of a filter.
pub(crate) fn filter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        // `label!=x` says that there is no label.
        Some((key, value)) => Ok((key.trim().to_lowercase(), value.trim().to_owned())),
        None => Err("bad format of filter (expected name=value)".to_owned()),
    }
}

/// Returns a text of at most `columns` characters; what is cut off is a dot of three.
pub(crate) fn shorten(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let kept: String = text.chars().take(columns.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// Returns a command as lists of containers show it: arguments with a space are quoted.
pub(crate) fn command(words: &[String], columns: usize) -> String {
    let quoted = |(at, word): (usize, &String)| match at > 0 && word.contains(' ') {
        true => format!("'{word}'"),
        false => word.clone(),
    };
    let words: Vec<_> = words.iter().enumerate().map(quoted).collect();
    format!("\"{}\"", shorten(&words.join(" "), columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits_and_roll_over() {
        for (bytes, text) in [
            (0, "0B"),
            (1, "1B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.23kB"),
            (1_980_000, "1.98MB"),
            (12_345_678, "12.3MB"),
            (123_456_789, "123MB"),
            (999_600, "1MB"),
            (1_500_000_000, "1.5GB"),
            (u64::MAX, "18.4EB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
        for (bytes, text) in [
            (14, "14B"),
            (1_982_000, "1.982MB"),
            (12_345_678, "12.35MB"),
            (123_456_789, "123.5MB"),
            (999_970, "1MB"),
        ] {
            assert_eq!(size_of_room(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn sizes_are_read_in_both_kinds_of_units() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("20B", 20),
            ("1.5kB", 1500),
            ("20MB", 20_000_000),
            ("20 mb", 20_000_000),
            ("3G", 3_000_000_000),
            ("1.5GiB", 1_610_612_736),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MB", "-1", "1.2.3", "1XB", "1iB", "20MBB", "99EB", "1e3"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_is_counted_in_units_of_1024() {
        for (bytes, text) in [
            (0, "0B"),
            (1024, "1KiB"),
            (16_682_844_160, "15.54GiB"),
            (8_327_168_000, "7.755GiB"),
            (1_073_741_824_000, "1000GiB"),
        ] {
            assert_eq!(binary_size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn ages_are_dockers() {
        const HOUR: i64 = 3600;
        const DAY: i64 = 24 * HOUR;
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (HOUR, "About an hour"),
            (5400, "2 hours"),
            (47 * HOUR, "47 hours"),
            (2 * DAY, "2 days"),
            (13 * DAY, "13 days"),
            (14 * DAY, "2 weeks"),
            (59 * DAY, "8 weeks"),
            (61 * DAY, "2 months"),
            (729 * DAY, "24 months"),
            (731 * DAY, "2 years"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn long_texts_are_cut_by_characters() {
        assert_eq!(shorten("short", 5), "short");
        assert_eq!(shorten("longer", 5), "long…");
        assert_eq!(shorten("äöüßé", 4), "äöü…");
        assert_eq!(command(&["sh".into(), "-c".into()], 20), "\"sh -c\"");
        assert_eq!(command(&["a b".into(), "echo a".into()], 20), "\"a b 'echo a'\"");
    }

    #[test]
    fn a_time_that_cannot_be_is_not_shown() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        assert_eq!(created_ago(None, now), "N/A");
        assert_eq!(created_ago(Some("0001-01-01T00:00:00Z"), now), "N/A");
        assert_eq!(created_ago(Some("2023-11-14T21:13:20Z"), now), "About an hour ago");
    }
}
