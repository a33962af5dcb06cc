//! The `HEALTHCHECK` instruction: flags, a command, and durations as Go writes them.
//!
//! Pure. It must not know the config that the healthcheck goes into.

use crate::image::change::Fault;
use crate::image::change::json_list;
use crate::image::change::split_word;
use crate::image::config::Healthcheck;

const SHORTEST_TIME_NANOS: i64 = 1_000_000;

/// Reads `[--flag=value …] CMD command` or `NONE`; `rest` is what follows the flags.
pub(super) fn read_healthcheck(flags: &[&str], rest: &str) -> Fault<Healthcheck> {
    let mut check = Healthcheck::default();
    let (kind, rest) = split_word(rest);
    match kind.to_uppercase().as_str() {
        "NONE" if rest.is_empty() => check.test = vec!["NONE".to_owned()],
        "NONE" => return Err("NONE takes no arguments".to_owned()),
        "CMD" if rest.is_empty() => return Err("missing command after CMD".to_owned()),
        "CMD" => {
            check.test = match json_list(rest)? {
                Some(list) => [vec!["CMD".to_owned()], list].concat(),
                None => vec!["CMD-SHELL".to_owned(), rest.to_owned()],
            };
        }
        kind => return Err(format!("unknown type {kind:?} (try CMD)")),
    }
    flags.iter().try_for_each(|flag| read_flag(&mut check, flag))?;
    Ok(check)
}

/// Reads one `--name=value`.
fn read_flag(check: &mut Healthcheck, flag: &str) -> Fault<()> {
    let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
    let field = match name {
        "--interval" => &mut check.interval,
        "--timeout" => &mut check.timeout,
        "--start-period" => &mut check.start_period,
        "--start-interval" => &mut check.start_interval,
        "--retries" => {
            let retries: u32 = value.parse().map_err(|_| format!("invalid number: {flag}"))?;
            check.retries = i64::from(retries);
            return Ok(());
        }
        _ => return Err(format!("unknown flag: {name}")),
    };
    *field = nanos(value).ok_or_else(|| format!("invalid duration: {flag}"))?;
    if (1..SHORTEST_TIME_NANOS).contains(field) {
        return Err(format!("{name} cannot be less than 1ms"));
    }
    Ok(())
}

/// Returns a duration as Go writes it, `1m30s` or `1.5h`, in nanoseconds.
fn nanos(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0_i64;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        total = total.checked_add(scaled(number, unit_nanos(unit)?)?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

fn unit_nanos(unit: &str) -> Option<i64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3600 * 1_000_000_000,
        _ => return None,
    })
}

/// Returns the decimal number times `unit`, cut to an integer.
fn scaled(number: &str, unit: i64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then_some(());
    digits(fraction)?;
    let Ok(whole) = format!("0{whole}").parse::<i64>() else { return None };
    let mut total = whole.checked_mul(unit)?;
    let mut place = unit;
    for digit in fraction.bytes() {
        place /= 10;
        total = total.checked_add(place.checked_mul(i64::from(digit - b'0'))?)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let table = [
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            ("100ms", Some(100_000_000)),
            (".5s", Some(500_000_000)),
            ("10µs", Some(10_000)),
            ("", None),
            ("5", None),
            (".s", None),
            ("1.2.3s", None),
            ("-1s", None),
            ("9999999999h", None),
        ];
        for (text, expected) in table {
            assert_eq!(nanos(text), expected, "{text}");
        }
    }
}
