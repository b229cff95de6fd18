//! Single values: what any number, length, path or zone of the policy must be.
//!
//! Each check gives the value back, right or wrong, so that the checks after it have something to work on. A newcomer
//! would put a rule about one key here; such a rule stands where the key is read.

use std::{path::PathBuf, time::Duration};

use chrono_tz::{TZ_VARIANTS, Tz};

use super::{Checker, DAY};
use crate::policy::{file::Length, source::At};

impl Checker<'_, '_> {
    pub(super) fn zone(&mut self, at: &At, name: &str) -> Tz {
        name.parse().unwrap_or_else(|_| {
            let problem = self.findings.error(at, format!("`{name}` is no IANA time zone"));
            problem
                .help("Write for example \"Europe/Berlin\".")
                .suggest(name, TZ_VARIANTS.iter().map(|zone| zone.name()));
            Tz::UTC
        })
    }

    pub(super) fn absolute(&mut self, at: &At, path: PathBuf) -> PathBuf {
        if !path.is_absolute() {
            self.findings.error(at, format!("`{}` must be an absolute path", path.display()));
        }
        path
    }

    pub(super) fn positive(&mut self, at: &At, Length(length): Length) -> Duration {
        if length.is_zero() {
            self.findings.error(at, "must be longer than zero");
        }
        length
    }

    pub(super) fn at_least_one(&mut self, at: &At, count: u32) -> u32 {
        if count == 0 {
            self.findings.error(at, "must be at least 1");
        }
        count
    }

    /// A number of days as a length; more than a century is a mistake, and would overflow the calendar.
    pub(super) fn days(&mut self, at: &At, days: u32) -> Duration {
        if !(1..=36_500).contains(&days) {
            self.findings.error(at, format!("must be 1 to 36500 days, not {days}"));
        }
        DAY * days.min(36_500)
    }

    pub(super) fn not_empty(&mut self, at: &At, text: String) -> String {
        if text.trim().is_empty() {
            self.findings.error(at, "must not be empty");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::check::parse;

    #[test]
    fn impossible_values_are_refused() {
        for (text, message) in [
            ("[daemon]\nmax_parallel = 0", "must be 1 to 1000"),
            ("[daemon]\nkeep_runs = \"0s\"", "must be longer than zero"),
            ("[daemon]\nkeep_logs = \"1000y\"", "is longer than a century"),
            ("[daemon]\nscratch_dir = \"scratch\"", "must be an absolute path"),
            ("[tier.gold]\nsuccess_rate = 99.9", "must be between 0 and 1"),
            ("[tier.gold]\nsuccess_rate = nan", "must be between 0 and 1"),
            ("[database.Orders]", "`Orders` is not a name"),
            ("[database.a]\nretention = { full = 0 }", "must be at least 1"),
            ("[database.a]\nretention = { days = 99999 }", "must be 1 to 36500 days"),
            ("[database.a]\nretention = { keep_weekly = 0 }", "must be at least 1"),
            ("[database.a]\nretention = { recovery_window = \"0s\" }", "must be longer than zero"),
            ("[database.a]\nretention = { max_delete_fraction = 50.0 }", "must be between 0 and 1"),
            ("[database.a]\nretention = { days = 3, keep_within = \"3d\" }", "says the same as `days`"),
            (
                "[database.a]\nretention = { recovery_window = \"14d\", wal_depth = \"7d\" }",
                "must not be shorter than `recovery_window`",
            ),
            ("[database.a]\nnice = 20", "must be 0 to 19"),
            ("[database.a]\nretry = { backoff = \"1h\" }", "must not be shorter than `backoff`"),
            ("[database.a]\npgbackrest = { repos = [] }", "needs at least one repository"),
            ("[database.a]\npgbackrest = { repos = [1, 1] }", "repository 1 stands twice"),
            ("[database.a]\npgbackrest = { repos = [0] }", "`0` is no repository"),
            ("[database.a]\npgbackrest = { binary = \"bin/pgbackrest\" }", "must be an absolute path"),
            ("[database.a]\npgbackrest = { secrets = { REPO = \"env:X\" } }", "is no variable that pgBackRest reads"),
            ("[database.a]\ntest_restore = { assert = [{ sql = \"x\" }] }", "needs an answer to expect"),
            (
                "[database.a]\ntest_restore = { assert = [{ sql = \"x\", min = 1, equals = 1 }] }",
                "needs an answer to expect",
            ),
            (
                "[database.a]\ntest_restore = { assert = [{ sql = \"x\", min = 2, max = 1 }] }",
                "must not be greater than `max`",
            ),
            ("[database.a]\ntest_restore = { assert = [{ min = 2 }] }", "needs an `sql`"),
            ("[database.a]\nschedule = { wal = { cron = \"@daily\", repo = 1 } }", "`repo` makes no sense for `wal`"),
            (
                "[database.a]\nschedule = { full = { cron = \"@daily\", promote = \"any\" } }",
                "`promote` makes no sense for `full`",
            ),
            ("[database.a]\nschedule = { full = { cron = \"@daily\", repo = 2 } }", "repository 2 is not one of `a`"),
            ("[database.a]\nschedule = { full = [] }", "an empty list schedules nothing"),
            ("[database.a]\nschedule = { full = [\"@daily\", \"@weekly\"] }", "makes the same job as another"),
            ("[database.a]\nschedule = { full = {} }", "needs a `cron`"),
            (
                "[database.a]\nschedule = { full = \"@daily\", diff = \"@daily\", differential = \"@daily\" }",
                "`differential` is `diff`, which is written too",
            ),
        ] {
            let problems = parse(text).expect_err(text);
            assert!(problems.to_string().contains(message), "{text}\n{problems}");
        }
    }
}
