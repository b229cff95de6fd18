//! The only reader of the system clock.
//!
//! Everyone else takes `now`. A newcomer would call `Utc::now()` where the time is needed; `.clippy.toml` refuses it,
//! because a decision that reads the clock can be neither tested nor replayed with `--at`.

use std::time::{Duration, Instant};

use chrono::{DateTime, SubsecRound, Utc};

/// The wall-clock time in UTC, cut to milliseconds, the precision the catalog keeps.
#[expect(clippy::disallowed_methods, reason = "this is the one reader of the wall clock")]
pub fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(3)
}

/// A monotonic stopwatch for lengths; the wall clock may jump, this may not.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    started: Instant,
}

impl Stopwatch {
    /// Starts counting.
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of the monotonic clock")]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// The length since `start`.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// The length from `then` to `now`; zero where the clock went backwards, so that a jump makes nothing old.
pub fn age(now: DateTime<Utc>, then: DateTime<Utc>) -> Duration {
    (now - then).to_std().unwrap_or_default()
}

/// Compares the wall clock with the monotonic clock, to notice when somebody moved the former.
#[derive(Debug, Clone, Copy)]
pub struct JumpDetector {
    wall: DateTime<Utc>,
    watch: Stopwatch,
}

impl JumpDetector {
    /// Starts comparing from `now`.
    pub fn new(now: DateTime<Utc>) -> Self {
        Self { wall: now, watch: Stopwatch::start() }
    }

    /// The seconds by which the wall clock moved apart from the monotonic one since the last call; positive is forwards.
    pub fn jumped_by(&mut self, now: DateTime<Utc>) -> i64 {
        let elapsed = i64::try_from(self.watch.elapsed().as_millis()).unwrap_or(i64::MAX);
        let drift = (now - self.wall).num_milliseconds() - elapsed;
        *self = Self::new(now);
        drift / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backward_clock_gives_zero_age() {
        let now = DateTime::from_timestamp(1_000, 0).unwrap();
        let later = DateTime::from_timestamp(2_000, 0).unwrap();
        assert_eq!(age(now, later), Duration::ZERO);
        assert_eq!(age(later, now), Duration::from_secs(1_000));
    }
}
