//! Whether a diff or incr runs as a full, because the full that should have been there is not.
//!
//! A chain on a full that failed grows longer than the policy wants. The next diff makes up for it; an incr does so only
//! when it has nothing at all to build on, as incrs come by the hour in working time. Once per missed full, and never
//! when the full itself would be too late to start.
//!
//! A newcomer would promote at each diff until a full succeeds; a full that fails every day would then fail all day.

use chrono::{DateTime, Utc};

use crate::{policy::Promote, record::BackupType};

/// What is known of the fulls of a database in a repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FullHistory {
    /// The last slot of the full failed or was missed.
    pub missed_full: bool,
    /// A promoted run was already tried for it.
    pub made_up_for: bool,
    /// A good full exists to build on.
    pub usable_full: bool,
}

/// The reason to run a full in place of `kind`; `None` to run what was planned.
pub fn promote(
    kind: BackupType,
    rule: Promote,
    history: &FullHistory,
    full_latest_start: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Option<String> {
    if kind == BackupType::Full || rule == Promote::Never || full_latest_start.is_some_and(|limit| now > limit) {
        return None;
    }
    if !history.usable_full {
        // The tool decides so by itself, with a warning only; this way the catalog knows why.
        return Some(format!("no usable full exists, and pgBackRest would make one in place of the {kind} anyway"));
    }
    let makes_up = kind == BackupType::Diff || rule == Promote::Any;
    (makes_up && history.missed_full && !history.made_up_for)
        .then(|| format!("the last full failed or was missed, and this {kind} makes up for it"))
}

#[cfg(test)]
mod tests {
    use super::{super::sample::utc, *};

    const MISSED: FullHistory = FullHistory { missed_full: true, made_up_for: false, usable_full: true };

    fn promoted(kind: BackupType, rule: Promote, history: FullHistory) -> bool {
        promote(kind, rule, &history, None, utc("2026-11-20T12:00:00Z")).is_some()
    }

    #[test]
    fn each_rule_promotes_what_it_says() {
        use BackupType::{Diff, Full, Incr};
        let well = FullHistory { missed_full: false, ..MISSED };
        let done = FullHistory { made_up_for: true, ..MISSED };
        let nothing = FullHistory { usable_full: false, ..MISSED };
        for (rule, kind, [on_well, on_missed, on_done, on_nothing]) in [
            (Promote::Diff, Diff, [false, true, false, true]),
            (Promote::Diff, Incr, [false, false, false, true]),
            (Promote::Any, Diff, [false, true, false, true]),
            (Promote::Any, Incr, [false, true, false, true]),
            (Promote::Never, Diff, [false; 4]),
            (Promote::Never, Incr, [false; 4]),
            (Promote::Any, Full, [false; 4]),
        ] {
            let got = [well, MISSED, done, nothing].map(|history| promoted(kind, rule, history));
            assert_eq!(got, [on_well, on_missed, on_done, on_nothing], "{rule:?} {kind}");
        }
    }

    #[test]
    fn nothing_is_promoted_after_the_fulls_latest_start() {
        let limit = utc("2026-11-20T06:00:00Z");
        let at = |now| promote(BackupType::Diff, Promote::Diff, &MISSED, Some(limit), utc(now));
        assert!(at("2026-11-20T06:00:00Z").is_some());
        assert_eq!(at("2026-11-20T06:00:01Z"), None);
    }

    #[test]
    fn the_reason_tells_the_two_cases_apart() {
        let reason = |usable_full| {
            let history = FullHistory { usable_full, ..MISSED };
            promote(BackupType::Diff, Promote::Diff, &history, None, utc("2026-11-20T12:00:00Z")).unwrap()
        };
        assert_eq!(reason(true), "the last full failed or was missed, and this diff makes up for it");
        assert!(reason(false).starts_with("no usable full exists"), "{}", reason(false));
    }
}
