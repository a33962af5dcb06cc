//! `Time`: seconds and nanoseconds since 1970, before it as negative seconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time as `struct timespec` holds it.
///
/// The nanoseconds always count forward, so half a second before 1970 is `-1 s + 500_000_000 ns`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Whole seconds since 1970-01-01 00:00:00 UTC.
    pub secs: i64,
    /// Nanoseconds after `secs`, below 1,000,000,000.
    pub nanos: u32,
}

impl Time {
    /// Returns the present.
    pub fn now() -> Self {
        SystemTime::now().into()
    }
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self {
                secs: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
                nanos: after.subsec_nanos(),
            },
            Err(before) => {
                let before = before.duration();
                let secs = i64::try_from(before.as_secs()).map_or(i64::MIN, |secs| -secs);
                match before.subsec_nanos() {
                    0 => Self { secs, nanos: 0 },
                    nanos => Self { secs: secs.saturating_sub(1), nanos: 1_000_000_000 - nanos },
                }
            }
        }
    }
}

impl From<Time> for SystemTime {
    fn from(time: Time) -> Self {
        let nanos = Duration::from_nanos(u64::from(time.nanos));
        let whole = Duration::from_secs(time.secs.unsigned_abs());
        let base = if time.secs < 0 {
            UNIX_EPOCH.checked_sub(whole)
        } else {
            UNIX_EPOCH.checked_add(whole)
        };
        base.and_then(|base| base.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_and_after_1970_survive_conversion() {
        for (secs, nanos) in
            [(0, 0), (1, 5), (-1, 500_000_000), (-1, 0), (-86_400, 1), (1 << 33, 9)]
        {
            let time = Time { secs, nanos };
            assert_eq!(Time::from(SystemTime::from(time)), time);
        }
    }
}
