//! Measured values in words: three digits, and the unit that fits.

use crate::cli::format::size;
use crate::service::{Better, Unit};

/// Returns a value as a person reads it: `12.3 ms`, `1.98 GB/s`.
pub(crate) fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Seconds => seconds(value),
        Unit::Bytes => spaced(&size(whole(value))),
        Unit::BytesPerSecond => format!("{}/s", spaced(&size(whole(value)))),
        Unit::PerSecond => format!("{}/s", grouped(whole(value))),
    }
}

fn seconds(value: f64) -> String {
    let (number, unit) = match value {
        value if value >= 0.9995 => (value, "s"),
        value if value >= 0.000_999_5 => (value * 1e3, "ms"),
        value => (value * 1e6, "µs"),
    };
    format!("{} {unit}", three_digits(number))
}

/// Returns a number with three digits that count.
fn three_digits(number: f64) -> String {
    match number {
        number if number >= 99.95 => format!("{number:.0}"),
        number if number >= 9.995 => format!("{number:.1}"),
        number => format!("{number:.2}"),
    }
}

/// Puts a space before the unit of a size.
fn spaced(size: &str) -> String {
    let at = size.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(size.len());
    let (number, unit) = size.split_at(at);
    format!("{number} {unit}")
}

/// Returns a number with a comma before each three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number that was measured is not negative, and far below the limit"
)]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// Returns a ratio: `0.45`, `12.3`.
pub(crate) fn ratio(ratio: f64) -> String {
    if ratio >= 0.0995 { three_digits(ratio) } else { format!("{ratio:.3}") }
}

/// Returns what a ratio means: `2.2 times as fast as overlay`.
pub(crate) fn meaning(ratio: f64, unit: Unit, base: &str) -> String {
    let good = match unit.better() {
        Better::Lower => 1.0 / ratio,
        Better::Higher => ratio,
    };
    let (more, less) = match unit {
        Unit::Bytes => ("as little", "as much"),
        _ => ("as fast", "as slow"),
    };
    match good {
        good if (0.985..1.015).contains(&good) => format!("like {base}"),
        good if good > 1.0 => format!("{} times {more} as {base}", three_digits(good)),
        good => format!("{} times {less} as {base}", three_digits(1.0 / good)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_three_digits_and_a_unit() {
        for (value, unit, text) in [
            (1.234_5, Unit::Seconds, "1.23 s"),
            (0.999_6, Unit::Seconds, "1.00 s"),
            (0.067, Unit::Seconds, "67.0 ms"),
            (0.000_012_34, Unit::Seconds, "12.3 µs"),
            (123.4, Unit::Seconds, "123 s"),
            (8_120_000_000.0, Unit::BytesPerSecond, "8.12 GB/s"),
            (11_800_000.0, Unit::Bytes, "11.8 MB"),
            (312_345.0, Unit::PerSecond, "312,345/s"),
        ] {
            assert_eq!(shown(value, unit), text);
        }
    }

    #[test]
    fn a_ratio_says_what_it_means() {
        for (value, unit, text) in [
            (0.25, Unit::Seconds, "4.00 times as fast as overlay"),
            (3.0, Unit::Seconds, "3.00 times as slow as overlay"),
            (0.95, Unit::BytesPerSecond, "1.05 times as slow as overlay"),
            (2.0, Unit::PerSecond, "2.00 times as fast as overlay"),
            (0.5, Unit::Bytes, "2.00 times as little as overlay"),
            (1.01, Unit::Seconds, "like overlay"),
        ] {
            assert_eq!(meaning(value, unit, "overlay"), text);
        }
        assert_eq!((ratio(0.0456).as_str(), ratio(12.34).as_str()), ("0.046", "12.3"));
    }
}
