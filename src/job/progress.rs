//! How far a long run is: told to whoever listens, and left in the run's log directory for `status`.
//!
//! Whoever asks for the status is another process than the one that works, and the catalog is no place for a number
//! that changes each second. So the worker rewrites one small file beside its logs, in one step, and `status` reads it
//! for runs that are open. A newcomer would read it for ended runs too; it says only how far they were.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::MissedTickBehavior;
use tracing::debug;

use crate::{clock::Stopwatch, process::Activity};

/// How often the listener is told.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How many tellings go by between two writings of the file.
const WRITE_EVERY: u32 = 2;
/// The file in the log directory of an attempt.
const FILE: &str = "progress.json";
/// What a guess may say at most; only the end is the end.
const NEARLY: f64 = 99.0;

/// How far something is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Amount {
    /// Bytes moved so far; 0 where only the percentage is known. What is staged on a disk moves twice.
    pub bytes: u64,
    /// Bytes a second since the beginning.
    pub rate: f64,
    /// How much of all that is, 0 to 100, by what the last ones were like; none: nobody knows.
    pub percent: Option<f64>,
    /// How long it will still take at this rate; none: nobody knows.
    pub eta: Option<Duration>,
}

impl Amount {
    /// What there is to say after `elapsed`, when about `expected` bytes will come in all.
    pub fn of(bytes: u64, elapsed: Duration, expected: Option<u64>) -> Self {
        let seconds = elapsed.as_secs_f64();
        let rate = if seconds > 0.0 { bytes as f64 / seconds } else { 0.0 };
        let expected = expected.filter(|&expected| expected > 0);
        let percent = expected.map(|expected| (bytes as f64 / expected as f64 * 100.0).min(NEARLY));
        let left = expected.and_then(|expected| expected.checked_sub(bytes));
        let eta = left.filter(|_| rate > 0.0).and_then(|left| Duration::try_from_secs_f64(left as f64 / rate).ok());
        Self { bytes, rate, percent, eta }
    }
}

/// Is told how far a long run is.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<dyn Fn(Amount) + Send + Sync>>);

impl Progress {
    /// Calls `listener` at each step.
    pub fn new(listener: impl Fn(Amount) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    /// Tells the listener, if there is one.
    pub fn tell(&self, amount: Amount) {
        if let Some(listener) = &self.0 {
            listener(amount);
        }
    }

    /// Tells a percentage, where the tool says nothing else.
    pub fn at(&self, percent: f64) {
        self.tell(Amount { percent: Some(percent), ..Amount::default() });
    }
}

/// What an open run last said of itself; none where it said nothing.
pub(crate) fn last_told(log_dir: &Path) -> Option<Amount> {
    serde_json::from_slice(&fs::read(log_dir.join(FILE)).ok()?).ok()
}

/// Tells how far a run is while it works.
pub(super) struct Gauge {
    progress: Progress,
    file: PathBuf,
    expected: Option<u64>,
    watch: Stopwatch,
}

impl Gauge {
    /// One for a run that will move about `expected` bytes.
    pub(super) fn new(progress: Progress, log_dir: &Path, expected: Option<u64>) -> Self {
        Self { progress, file: log_dir.join(FILE), expected, watch: Stopwatch::start() }
    }

    /// Looks at `moved` again and again and tells it. Bytes that move are a sign of life of a tool that writes no line.
    /// Never returns.
    pub(super) async fn watch<T>(&self, moved: impl Fn() -> u64, activity: Option<&Activity>) -> T {
        let mut looks = tokio::time::interval(TELL_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut before, mut number) = (0, 0_u32);
        loop {
            looks.tick().await;
            let bytes = moved();
            if let Some(activity) = activity.filter(|_| bytes != before) {
                activity.mark();
            }
            before = bytes;
            let amount = Amount::of(bytes, self.watch.elapsed(), self.expected);
            self.progress.tell(amount);
            if number.is_multiple_of(WRITE_EVERY) {
                self.write(&amount);
            }
            number = number.wrapping_add(1);
        }
    }

    /// Says that it is over.
    pub(super) fn end(&self, bytes: u64) {
        let amount = Amount::of(bytes, self.watch.elapsed(), None);
        self.progress.tell(Amount { percent: Some(100.0), eta: Some(Duration::ZERO), ..amount });
        // Nobody reads it any more.
        let _ = fs::remove_file(&self.file);
    }

    /// In one step, because others read it. That nobody can be told is no reason to fail.
    fn write(&self, amount: &Amount) {
        let fresh = self.file.with_extension("new");
        let text = serde_json::to_vec(amount).unwrap_or_default();
        if let Err(error) = fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &self.file)) {
            debug!(file = %self.file.display(), %error, "the progress cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::process::testing::eventually;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_rest_is_guessed_from_what_was_expected() {
        let half = Amount::of(500, seconds(5), Some(1000));
        assert_eq!(half, Amount { bytes: 500, rate: 100.0, percent: Some(50.0), eta: Some(seconds(5)) });
        let more = Amount::of(2000, seconds(5), Some(1000));
        assert_eq!((more.percent, more.eta), (Some(NEARLY), None), "it is larger than the last ones");
        assert_eq!(Amount::of(7, seconds(7), None), Amount { bytes: 7, rate: 1.0, percent: None, eta: None });
        assert_eq!(Amount::of(0, seconds(0), Some(10)).eta, None, "nothing is known at the beginning");
        assert_eq!(Amount::of(5, seconds(5), Some(0)).percent, None);
    }

    #[tokio::test]
    async fn status_reads_what_a_run_told() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(last_told(directory.path()), None);
        let told = Arc::new(Mutex::new(Vec::new()));
        let listener = told.clone();
        let progress = Progress::new(move |amount| listener.lock().unwrap().push(amount.bytes));
        let gauge = Gauge::new(progress, directory.path(), Some(100));
        let path = directory.path().to_owned();
        tokio::select! {
            never = gauge.watch(|| 42, None) => never,
            () = eventually("it is told", || last_told(&path).is_some()) => {}
        }
        assert_eq!(last_told(directory.path()).map(|amount| amount.bytes), Some(42));
        gauge.end(50);
        assert_eq!(last_told(directory.path()), None);
        assert_eq!(told.lock().unwrap().last(), Some(&50));
    }
}
