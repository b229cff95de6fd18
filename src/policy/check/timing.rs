//! Schedules: from a schedule value to timings, each with a parsed cron text and the rules written beside it.
//!
//! A newcomer would parse a cron text where it is used; in a policy of thousands of databases the same few texts stand
//! again and again, so each is parsed once.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use super::{Checker, HOUR, MINUTE};
use crate::{
    cron::Schedule,
    policy::{
        NotAfter, Promote, Retry,
        file::{self, Entry, Length, Schedules, Start, When},
        source::At,
    },
    record::{JobKind, RepoKey},
};

/// A schedule that was checked, with the rules written beside it.
#[derive(Debug, Clone)]
pub(super) struct Timing {
    pub(super) kind: JobKind,
    pub(super) schedule: Schedule,
    pub(super) name: Option<String>,
    pub(super) repo: Option<RepoKey>,
    pub(super) not_after: Option<NotAfter>,
    pub(super) timeout: Option<Duration>,
    pub(super) catch_up: Option<Duration>,
    pub(super) splay: Option<Duration>,
    pub(super) retry: Option<Retry>,
    pub(super) promote: Option<Promote>,
    /// The word it stands under, e.g. `differential`.
    word: &'static str,
    /// Its place in a list.
    index: Option<usize>,
}

impl Timing {
    /// Calls `then` with the path to this timing; `schedules` is the path to the table it stands in.
    pub(super) fn locate<R>(&self, schedules: &At, then: impl FnOnce(&At) -> R) -> R {
        let at = schedules.key(self.word);
        match self.index {
            Some(index) => then(&at.index(index)),
            None => then(&at),
        }
    }

    /// Whether another timing would make the same job.
    fn is_same_job(&self, other: &Timing) -> bool {
        let is_same_repo = self.repo.is_none() || other.repo.is_none() || self.repo == other.repo;
        self.kind == other.kind && self.name == other.name && is_same_repo
    }
}

/// The cron texts parsed so far, in one zone.
pub(super) struct Crons {
    zone: Tz,
    parsed: HashMap<String, Result<Schedule, String>>,
    pauses: HashMap<String, Pauses>,
}

/// The shortest and the longest time between two neighbouring slots, among the first dozen of a week.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pauses {
    pub(super) shortest: Duration,
    pub(super) longest: Duration,
}

impl Crons {
    pub(super) fn new(zone: Tz) -> Self {
        Self { zone, parsed: HashMap::new(), pauses: HashMap::new() }
    }

    fn parse(&mut self, text: &str) -> Result<Schedule, String> {
        if let Some(known) = self.parsed.get(text) {
            return known.clone();
        }
        let parsed = Schedule::parse(text, self.zone).map_err(|error| error.to_string());
        self.parsed.entry(text.to_owned()).or_insert(parsed).clone()
    }

    /// Measured from a fixed Monday, so that a policy is right or wrong whatever the day.
    pub(super) fn pauses(&mut self, schedule: &Schedule) -> Pauses {
        if let Some(known) = self.pauses.get(schedule.text()) {
            return *known;
        }
        let monday = DateTime::from_timestamp(1_767_571_200, 0);
        let slots: Vec<DateTime<Utc>> =
            std::iter::successors(monday, |slot| schedule.next(*slot)).skip(1).take(13).collect();
        let between = slots.windows(2).filter_map(|pair| (pair[1] - pair[0]).to_std().ok());
        let pauses = Pauses {
            shortest: between.clone().min().unwrap_or(Duration::MAX),
            longest: between.max().unwrap_or(Duration::MAX),
        };
        self.pauses.insert(schedule.text().to_owned(), pauses);
        pauses
    }
}

/// How long an attempt may take where nothing is written.
pub(super) const fn built_in_timeout(kind: JobKind) -> Option<Duration> {
    match kind {
        JobKind::Full | JobKind::Diff | JobKind::Incr => None,
        JobKind::Wal => Some(MINUTE.saturating_mul(10)),
        JobKind::Verify | JobKind::TestRestore => Some(HOUR.saturating_mul(6)),
        JobKind::Expire | JobKind::CatalogBackup => Some(HOUR),
    }
}

/// Whether there is one job of this kind for each repository.
pub(super) const fn is_per_repo(kind: JobKind) -> bool {
    !matches!(kind, JobKind::Wal | JobKind::TestRestore | JobKind::CatalogBackup)
}

impl Checker<'_, '_> {
    /// Checks a table of schedules.
    pub(super) fn schedules(&mut self, at: &At, typed: Schedules) -> Vec<Timing> {
        self.one_word(at, ("diff", typed.diff.is_some()), ("differential", typed.differential.is_some()));
        self.one_word(at, ("incr", typed.incr.is_some()), ("incremental", typed.incremental.is_some()));
        let values = [
            ("full", JobKind::Full, typed.full),
            ("diff", JobKind::Diff, typed.diff),
            ("differential", JobKind::Diff, typed.differential),
            ("incr", JobKind::Incr, typed.incr),
            ("incremental", JobKind::Incr, typed.incremental),
            ("wal", JobKind::Wal, typed.wal),
            ("expire", JobKind::Expire, typed.expire),
            ("verify", JobKind::Verify, typed.verify),
            ("test_restore", JobKind::TestRestore, typed.test_restore),
        ];
        let written = values.into_iter().filter_map(|(word, kind, when)| Some((word, kind, when?)));
        written.flat_map(|(word, kind, when)| self.timings(at, word, kind, when)).collect()
    }

    fn one_word(&mut self, at: &At, short: (&str, bool), long: (&str, bool)) {
        if short.1 && long.1 {
            let problem = self
                .findings
                .key_error(&at.key(long.0), format!("`{}` is `{}`, which is written too", long.0, short.0));
            problem.help("Write one of them.");
        }
    }

    /// Checks a schedule value that stands under `word` in the table `at`.
    pub(super) fn timings(&mut self, at: &At, word: &'static str, kind: JobKind, when: When) -> Vec<Timing> {
        let value = at.key(word);
        let entries = match when {
            When::One(entry) => return self.timing(&value, word, kind, None, entry).into_iter().collect(),
            When::Many(entries) => entries,
        };
        if entries.is_empty() {
            self.findings.error(&value, "an empty list schedules nothing").help("Leave the key out.");
            self.findings.damage(&value);
        }
        let mut timings: Vec<Timing> = Vec::new();
        for (index, entry) in entries.into_iter().enumerate() {
            let at = value.index(index);
            let Some(timing) = self.timing(&at, word, kind, Some(index), entry) else { continue };
            if timings.iter().any(|other| other.is_same_job(&timing)) {
                let problem = self.findings.error(&at, "makes the same job as another of this list");
                problem
                    .help(format!("Tell them apart: `{{ cron = \"{}\", name = \"NAME\" }}`.", timing.schedule.text()));
            }
            timings.push(timing);
        }
        timings
    }

    fn timing(
        &mut self,
        at: &At,
        word: &'static str,
        kind: JobKind,
        index: Option<usize>,
        entry: Entry,
    ) -> Option<Timing> {
        let (typed, cron_at) = match entry {
            Entry::Text(text) => (Box::new(file::Timing { cron: Some(text), ..file::Timing::default() }), *at),
            Entry::Table(typed) => (typed, at.key("cron")),
        };
        let schedule = self.cron(at, &cron_at, typed.cron.as_deref());
        self.fits_kind(at, kind, &typed);
        Some(Timing {
            kind,
            word,
            index,
            name: typed.name.map(|name| self.timing_name(&at.key("name"), name)),
            repo: typed.repo.map(|repo| self.at_least_one(&at.key("repo"), repo)),
            not_after: typed.not_after.map(|Start(not_after)| not_after),
            timeout: typed.timeout.map(|length| self.positive(&at.key("timeout"), length)),
            catch_up: typed.catch_up.map(|Length(length)| length),
            splay: typed.splay.map(|Length(length)| length),
            retry: typed.retry.map(|retry| self.retry(&at.key("retry"), retry)),
            promote: typed.promote,
            // Last, so that everything else has been checked when there is no schedule.
            schedule: schedule?,
        })
    }

    fn cron(&mut self, at: &At, cron_at: &At, text: Option<&str>) -> Option<Schedule> {
        let problem = match text.map(|text| self.crons.parse(text)) {
            Some(Ok(schedule)) => return Some(schedule),
            Some(Err(error)) => Some((cron_at, error)),
            None => Some((at, "needs a `cron`".to_owned())).filter(|_| !self.findings.is_damaged(cron_at)),
        };
        if let Some((at, message)) = problem {
            self.findings.error(at, message);
        }
        self.findings.damage(at);
        None
    }

    /// Refuses what makes no sense for this kind of job.
    fn fits_kind(&mut self, at: &At, kind: JobKind, typed: &file::Timing) {
        if typed.repo.is_some() && !is_per_repo(kind) && kind != JobKind::TestRestore {
            let message = format!("`repo` makes no sense for `{kind}`");
            self.findings.key_error(&at.key("repo"), message).help("It looks at all repositories.");
        }
        if typed.promote.is_some() && !matches!(kind, JobKind::Diff | JobKind::Incr) {
            let message = format!("`promote` makes no sense for `{kind}`");
            self.findings.key_error(&at.key("promote"), message).help("Only a diff or an incr can become a full.");
        }
    }

    fn timing_name(&mut self, at: &At, name: String) -> String {
        let is_good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 32 || !name.chars().all(is_good) {
            self.findings.error(at, format!("`{name}` is not a name: use 1 to 32 of a-z, 0-9, `-` and `_`"));
        }
        name
    }

    /// Checks attempts and pauses.
    pub(super) fn retry(&mut self, at: &At, typed: file::Retry) -> Retry {
        let usual = Retry::default();
        let retry = Retry {
            attempts: typed.attempts.map_or(usual.attempts, |count| self.at_least_one(&at.key("attempts"), count)),
            backoff: typed.backoff.map_or(usual.backoff, |Length(backoff)| backoff),
            max_backoff: typed.max_backoff.map_or(usual.max_backoff, |Length(longest)| longest),
        };
        if retry.backoff > retry.max_backoff {
            self.findings.error(&at.key("max_backoff"), "must not be shorter than `backoff`");
        }
        retry
    }
}
