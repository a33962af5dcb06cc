//! `Backoff`: whether to try again, and when.
//!
//! The wait doubles from attempt to attempt and is then shortened at random, so that many layers
//! that were refused together do not come back together. What a registry asks for in `Retry-After`
//! is the least that is waited; a registry that asks for more than a person would wait gets no
//! second request.

use std::hash::BuildHasher;
use std::hash::RandomState;
use std::thread;
use std::time::Duration;

use tracing::debug;

use crate::registry::Error;
use crate::registry::Options;
use crate::registry::Result;

const LONGEST_DELAY: Duration = Duration::from_secs(30);
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// The attempts of one request.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    attempts: u32,
    used: u32,
    base_delay: Duration,
}

impl Backoff {
    /// Returns the attempts that `options` allow; the first is taken for granted.
    pub(super) const fn new(options: &Options) -> Self {
        Self { attempts: options.attempts, used: 1, base_delay: options.base_delay }
    }

    /// Forgets the attempts used: there was progress.
    pub(super) const fn reset(&mut self) {
        self.used = 1;
    }

    /// Waits until the next attempt is due.
    ///
    /// # Errors
    /// Gives `error` back where another attempt is not allowed or cannot help.
    pub(super) fn wait(&mut self, error: Error) -> Result<()> {
        let least = error.retry_after().unwrap_or_default();
        if self.used >= self.attempts || !error.is_transient() || least > LONGEST_RETRY_AFTER {
            return Err(error);
        }
        let delay = jittered(self.delay()).max(least);
        debug!(%error, ?delay, attempt = self.used, "trying again");
        self.used += 1;
        thread::sleep(delay);
        Ok(())
    }

    /// Returns the wait after the attempts used.
    fn delay(&self) -> Duration {
        let factor = 2_u32.saturating_pow(self.used - 1);
        self.base_delay.saturating_mul(factor).min(LONGEST_DELAY)
    }
}

/// Returns between half of `delay` and all of it.
fn jittered(delay: Duration) -> Duration {
    // Each `RandomState` has its own random keys.
    let random = RandomState::new().hash_one(()) >> 32;
    let random = u32::try_from(random).unwrap_or(u32::MAX);
    delay.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(attempts: u32) -> Options {
        Options { attempts, base_delay: Duration::from_nanos(1), ..Options::default() }
    }

    fn status(status: u16) -> Error {
        Error::Status { url: String::new(), status, message: String::new() }
    }

    fn too_many(retry_after: u64) -> Error {
        let retry_after = Some(Duration::from_secs(retry_after));
        Error::TooManyRequests { host: String::new(), message: String::new(), retry_after }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let refused = Error::PullDenied { repository: String::new() };
        // (error, whether a second attempt is made)
        let table = [
            (status(500), true),
            (status(503), true),
            (status(400), false),
            (status(501), false),
            (refused, false),
            (too_many(0), true),
            (too_many(61), false),
        ];
        for (error, expected) in table {
            let text = error.to_string();
            assert_eq!(Backoff::new(&options(2)).wait(error).is_ok(), expected, "{text}");
        }
    }

    #[test]
    fn attempts_are_counted_until_there_is_progress() {
        let mut backoff = Backoff::new(&options(3));
        assert!(backoff.wait(status(500)).is_ok());
        assert!(backoff.wait(status(500)).is_ok());
        assert!(backoff.wait(status(500)).is_err());
        backoff.reset();
        assert!(backoff.wait(status(500)).is_ok());
        assert!(Backoff::new(&options(0)).wait(status(500)).is_err());
    }

    #[test]
    fn the_wait_doubles_up_to_a_limit_and_is_shortened_at_random() {
        let mut backoff =
            Backoff::new(&Options { base_delay: Duration::from_secs(1), ..options(9) });
        let delays: Vec<_> = (1..9)
            .map(|used| {
                backoff.used = used;
                backoff.delay().as_secs()
            })
            .collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30, 30]);
        let second = Duration::from_secs(1);
        for _ in 0..100 {
            let delay = jittered(second);
            assert!(delay >= second / 2 && delay <= second, "{delay:?}");
        }
    }
}
