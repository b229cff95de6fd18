//! The forecast against days that a test walks by itself, and against itself.

use chrono::{Datelike, TimeDelta, TimeZone};
use chrono_tz::{Europe, Tz};
use proptest::prelude::*;

use super::*;
use crate::policy::Retention;

const ZONE: Tz = Europe::Berlin;

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// A policy with one database in Berlin, `orders`; its engine, schedule and the like are given.
fn policy(database: &str) -> Policy {
    let text = format!(
        r#"
[daemon]
timezone = "Europe/Berlin"

[storage.one]
type = "filesystem"
path = "/srv/one"

[storage.two]
type = "filesystem"
path = "/srv/two"

[database.orders]
environment = "staging"
{database}
"#
    );
    Policy::parse(vec![("backstop.toml".into(), text)]).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Dumps into two storages.
fn dumps(more: &str) -> Policy {
    policy(&format!("engine = \"pg_dump\"\nconnection = \"dbname=orders\"\nstorage = [\"one\", \"two\"]\n{more}"))
}

fn question<'a>(policy: &'a Policy, backups: &'a [Backup], now: &str, days: u32) -> Question<'a> {
    let database = policy.databases.values().next().unwrap();
    let (repo, now) = (database.repos()[0], utc(now));
    Question { policy, database, repo, backups, former: &[], now, from: now, days }
}

/// A backup that the forecast would make, as if it had been made at a moment.
fn made(policy: &Policy, asked: BackupType, at: &str, before: &[Backup]) -> Backup {
    let question = question(policy, before, at, 1);
    let mut made = Maker::new(&question, before).make(asked, utc(at), before);
    (made.created_by, made.repo_delta) = ("daemon".to_owned(), Some(1000));
    made
}

fn plan_at(there: &[Backup], rules: &Retention, now: DateTime<Utc>) -> Plan {
    plan(there, rules, &Circumstances { now, zone: ZONE, pinned: BTreeMap::new() })
}

/// `label at` of each deletion.
fn told(forecast: &Forecast) -> Vec<(DateTime<Utc>, String)> {
    forecast.deletions.iter().map(|it| (it.at, it.label.clone())).collect()
}

#[test]
fn a_year_of_hourly_backups_goes_as_the_planner_says_day_by_day() {
    let policy = dumps(
        "schedule = { full = \"0 * * * *\", expire = \"30 4 * * *\" }
         retention = { keep_hourly = 30, keep_daily = 7, keep_weekly = 5, keep_monthly = 12, keep_yearly = 3 }",
    );
    let rules = &policy.databases.values().next().unwrap().retention;
    let first = made(&policy, BackupType::Full, "2026-02-28T12:00:00Z", &[]);
    let begins = utc("2026-02-28T12:30:00Z");
    let forecast = forecast(&question(&policy, std::slice::from_ref(&first), "2026-02-28T12:30:00Z", 365));

    let (mut there, mut gone, mut by_day) = (vec![first.clone()], Vec::new(), Vec::new());
    let (mut hour, mut date) = (begins + TimeDelta::minutes(30), begins.with_timezone(&ZONE).date_naive());
    for _ in 0..=365 {
        let midnight =
            |date: NaiveDate| ZONE.from_local_datetime(&date.and_hms_opt(0, 0, 0).unwrap()).unwrap().to_utc();
        let at = ZONE.from_local_datetime(&date.and_hms_opt(4, 30, 0).unwrap()).unwrap().to_utc();
        let next = midnight(date.succ_opt().unwrap());
        let mut counts = (date, 0, 0);
        let mut make_until = |until: DateTime<Utc>, there: &mut Vec<Backup>| {
            while hour < until {
                let label = format!("backup-{}", hour.format("%Y%m%d-%H%M%S"));
                let stopped_at = hour + TimeDelta::seconds(1);
                there.push(Backup { id: label.clone(), label, started_at: hour, stopped_at, ..first.clone() });
                hour += TimeDelta::hours(1);
                counts.1 += 1;
            }
        };
        if at > begins {
            make_until(at, &mut there);
            for decision in plan_at(&there, rules, at).expire() {
                there.retain(|backup| backup.label != decision.label);
                gone.push((at, decision.label.clone()));
            }
        }
        make_until(next, &mut there);
        counts.2 = there.len();
        by_day.push(counts);
        date = date.succ_opt().unwrap();
    }
    assert_eq!(told(&forecast), gone);
    let days: Vec<_> = forecast.days.iter().map(|day| (day.date, day.made, day.kept)).collect();
    assert_eq!(days, by_day);
    let labels = |backups: &[Backup]| backups.iter().map(|it| it.label.clone()).collect::<Vec<_>>();
    assert_eq!(labels(&forecast.left), labels(&there));
    assert!(gone.len() > 8000 && there.len() > 40, "{} {}", gone.len(), there.len());
    let hours = |month, day| days.iter().find(|it| (it.0.month(), it.0.day()) == (month, day)).unwrap().1;
    assert_eq!((hours(3, 29), hours(10, 25), hours(3, 30)), (23, 25, 24), "clocks change in Berlin");
    assert_eq!(forecast.days[100].stored_bytes, forecast.days[100].kept as u64 * 2000, "two copies of each");
}

/// A pgBackRest database.
fn chains(more: &str) -> Policy {
    policy(&format!("engine = \"pgbackrest\"\n{more}"))
}

#[test]
fn chains_are_built_as_pgbackrest_builds_them() {
    let policy = chains(
        "schedule = { full = \"0 1 * * SUN\", diff = \"0 1 * * *\", incr = \"0 13 * * *\" }\nretention = { full = 9 }",
    );
    let forecast = forecast(&question(&policy, &[], "2026-11-21T12:30:00Z", 3));
    let shape: Vec<String> = forecast
        .left
        .iter()
        .map(|it| format!("{} on {} of {}", it.label, it.prior.as_deref().unwrap_or("nothing"), it.references.len()))
        .collect();
    insta::assert_snapshot!(shape.join("\n"), @r"
    20261122-000000F on nothing of 0
    20261122-000000F_20261122-120000I on 20261122-000000F of 1
    20261122-000000F_20261123-000000D on 20261122-000000F of 1
    20261122-000000F_20261123-120000I on 20261122-000000F_20261123-000000D of 2
    20261122-000000F_20261124-000000D on 20261122-000000F of 1
    20261122-000000F_20261124-120000I on 20261122-000000F_20261124-000000D of 2
    ");
    assert_eq!(
        forecast.days.iter().map(|day| day.made).collect::<Vec<_>>(),
        [0, 2, 2, 2],
        "the full does the diff's work"
    );
    assert!(
        forecast.notes.iter().any(|note| note.starts_with("no full is there to learn from")),
        "{:?}",
        forecast.notes
    );
    assert!(forecast.notes.iter().any(|note| note.contains("no `expire` schedule")), "{:?}", forecast.notes);
}

#[test]
fn without_a_full_the_first_incr_becomes_one() {
    let policy = chains("schedule = { incr = \"0 13 * * *\" }\nretention = { full = 9 }");
    let forecast = forecast(&question(&policy, &[], "2026-11-21T12:30:00Z", 2));
    let types: Vec<_> = forecast.left.iter().map(|it| it.backup_type).collect();
    assert_eq!(types, [BackupType::Full, BackupType::Incr]);
}

#[test]
fn what_comes_due_while_a_long_full_runs_waits_or_is_left_out() {
    let policy = chains(
        "schedule = { full = \"0 1 * * SUN\", incr = \"30 * * * *\", expire = \"45 1 * * SUN\" }\nretention = { full = 1 }",
    );
    let mut full = made(&policy, BackupType::Full, "2026-11-15T00:00:00Z", &[]);
    full.stopped_at = full.started_at + TimeDelta::minutes(150);
    let forecast = forecast(&question(&policy, &[full], "2026-11-21T23:45:00Z", 1));
    let new = &forecast.left[0];
    assert_eq!((new.label.as_str(), new.stopped_at), ("20261122-000000F", utc("2026-11-22T02:30:00Z")));
    assert_eq!(forecast.left[1].started_at, utc("2026-11-22T02:30:00Z"), "those of 0:30 and 1:30 were left out");
    assert_eq!(forecast.deletions.last().unwrap().at, utc("2026-11-22T02:30:00Z"), "expire waits for the full");
}

#[test]
fn holds_that_end_own_days_and_safety_backups_go_when_they_may() {
    let policy = dumps("schedule = { full = \"0 1 * * *\", expire = \"0 2 * * *\" }\nretention = { full = 2 }");
    let at = |text: &str| made(&policy, BackupType::Full, text, &[]);
    let mut backups: Vec<Backup> =
        ["2026-09-10T08:00:00Z", "2026-09-11T08:00:00Z", "2026-09-12T08:00:00Z", "2026-11-20T00:00:00Z"].map(at).into();
    (backups[0].held, backups[0].held_until) = (Some("audit".to_owned()), Some(utc("2026-11-30T12:00:00Z")));
    backups[1].dump.as_mut().unwrap().expires_at = Some(utc("2026-12-03T00:30:00Z"));
    backups[2].reason = Some("pre-migration of release 5".to_owned());
    let forecast = forecast(&question(&policy, &backups, "2026-11-20T12:00:00Z", 30));
    let goes = |label: &str| forecast.deletions.iter().find(|it| it.label == label).map(|it| it.at.to_rfc3339());
    assert_eq!(goes("backup-20260910-080000").as_deref(), Some("2026-12-01T01:00:00+00:00"));
    assert_eq!(goes("backup-20260911-080000").as_deref(), Some("2026-12-03T01:00:00+00:00"));
    assert_eq!(goes("backup-20260912-080000").as_deref(), Some("2026-12-12T01:00:00+00:00"), "90 days, and two more");
    let why = |label: &str| forecast.deletions.iter().find(|it| it.label == label).map(|it| it.reason.clone());
    assert_eq!(why("backup-20260911-080000").as_deref(), Some("expires: its own retention ended 2026-12-03 00:30 UTC"));
    assert!(forecast.deletions.iter().any(|it| !it.exists) && forecast.deletions[0].exists);
}

#[test]
fn a_pass_that_would_stop_and_ask_deletes_nothing_and_is_told() {
    let policy = dumps(
        "schedule = { full = \"0 1 1 * *\", expire = \"0 2 * * *\" }
         retention = { full = 1, max_delete_fraction = 0.5 }",
    );
    let mut backups: Vec<Backup> = Vec::new();
    for day in 10..18 {
        backups.push(made(&policy, BackupType::Full, &format!("2026-11-{day}T00:00:00Z"), &[]));
    }
    let forecast = forecast(&question(&policy, &backups, "2026-11-20T12:00:00Z", 4));
    assert_eq!(forecast.deletions, []);
    assert_eq!(
        forecast.notes,
        ["on 2026-11-21 02:00 `expire` would stop and ask, 4 times in all, and delete nothing: \
          7 of 8 backups would go, more than `max_delete_fraction` (0.5) allows"]
    );
}

#[test]
fn what_a_tighter_policy_ends_waits_as_long_as_the_former_rules_guard() {
    let policy = dumps("schedule = { full = \"0 1 1 1 *\", expire = \"0 2 * * *\" }\nretention = { full = 2 }");
    let backups = ["2026-11-17T00:00:00Z", "2026-11-18T00:00:00Z", "2026-11-19T00:00:00Z"]
        .map(|at| made(&policy, BackupType::Full, at, &[]));
    let rules = Retention { full: Some(3), ..Retention::default() };
    let (replaced_at, guards_until) = (utc("2026-11-20T10:00:00Z"), utc("2026-11-22T10:00:00Z"));
    let former = [FormerRules { rules, replaced_at, guards_until }];
    let mut question = question(&policy, &backups, "2026-11-20T12:00:00Z", 5);
    assert_eq!(forecast(&question).deletions[0].at, utc("2026-11-21T01:00:00Z"));
    question.former = &former;
    assert_eq!(forecast(&question).deletions[0].at, utc("2026-11-23T01:00:00Z"));
}

#[test]
fn test_restores_let_what_was_proven_before_go() {
    let text = |proofs: &str| {
        format!("schedule = {{ full = \"0 1 * * *\", expire = \"0 2 * * *\"{proofs} }}\nretention = {{ full = 2 }}")
    };
    let old = |policy: &Policy| {
        let mut old = made(policy, BackupType::Full, "2026-11-01T00:00:00Z", &[]);
        old.proven_at = Some(utc("2026-11-02T00:00:00Z"));
        [old]
    };
    for (proofs, goes) in [("", None), (", test_restore = \"0 3 25 * *\"", Some("2026-11-26T01:00:00+00:00"))] {
        let policy = dumps(&text(proofs));
        let forecast = forecast(&question(&policy, &old(&policy), "2026-11-20T12:00:00Z", 20));
        let at = forecast.deletions.iter().find(|it| it.exists).map(|it| it.at.to_rfc3339());
        assert_eq!(at.as_deref(), goes, "{proofs}");
    }
}

#[test]
fn sizes_are_the_median_of_the_last_of_the_type() {
    let policy = chains("schedule = { full = \"0 1 * * SUN\", incr = \"0 13 * * *\" }\nretention = { full = 9 }");
    let mut backups: Vec<Backup> = Vec::new();
    for (day, asked, size) in [
        (15, BackupType::Full, 5000),
        (16, BackupType::Incr, 10),
        (17, BackupType::Incr, 900),
        (18, BackupType::Incr, 20),
    ] {
        let mut backup = made(&policy, asked, &format!("2026-11-{day}T00:00:00Z"), &backups);
        (backup.repo_delta, backup.delta) = (Some(size).filter(|size| *size != 20), 20);
        backups.push(backup);
    }
    let days = forecast(&question(&policy, &backups, "2026-11-20T12:30:00Z", 2)).days;
    let stored: Vec<u64> = days.iter().map(|day| day.stored_bytes).collect();
    assert_eq!(stored, [5930, 5950, 5950 + 5000 + 20]);
}

#[test]
fn what_pgbackrest_decides_itself_is_not_forecast() {
    let policy = chains(
        "schedule = { full = \"0 1 * * *\", expire = \"0 2 * * *\" }\npgbackrest = { expire_by = \"pgbackrest\" }",
    );
    let forecast = forecast(&question(&policy, &[], "2026-11-20T12:00:00Z", 60));
    assert_eq!((forecast.deletions.len(), forecast.left.len()), (0, 60));
    assert!(forecast.notes.iter().any(|note| note.starts_with("pgBackRest's own retention")), "{:?}", forecast.notes);
}

#[test]
fn backups_of_a_former_cluster_and_of_other_repositories_stay_out_of_the_plan() {
    let policy = chains(
        "schedule = { full = \"0 1 * * *\", expire = \"0 2 * * *\" }\nretention = { full = 1, max_delete_fraction = 0.9 }",
    );
    let mut backups: Vec<Backup> = Vec::new();
    for day in 10..16 {
        backups.push(made(&policy, BackupType::Full, &format!("2026-11-{day}T00:00:00Z"), &[]));
    }
    backups[0].system_id = "another".to_owned();
    backups[1].repo = 2;
    backups[2].status = BackupStatus::Lost;
    let question = Question { ..question(&policy, &backups, "2026-11-15T12:00:00Z", 9) };
    let forecast = forecast(&question);
    assert_eq!(forecast.days[0].kept, 4, "the other repository's and the lost one are not here");
    assert_eq!(forecast.days[9].kept, 2, "the former cluster's stays");
    assert!(forecast.deletions.iter().all(|it| it.label != backups[0].label));
}

#[test]
fn what_happens_before_the_time_that_is_asked_about_is_reckoned_with_and_not_told() {
    let policy = dumps("schedule = { full = \"0 1 * * *\", expire = \"0 2 * * *\" }\nretention = { full = 3 }");
    let whole = forecast(&question(&policy, &[], "2026-11-20T12:00:00Z", 20));
    let from = utc("2026-11-30T12:00:00Z");
    let part = forecast(&Question { from, ..question(&policy, &[], "2026-11-20T12:00:00Z", 10) });
    assert_eq!(part.days[0], Day { made: 0, deleted: 0, ..whole.days[10].clone() });
    assert_eq!(part.days[1..], whole.days[11..]);
    assert_eq!(part.deletions, whole.deletions.iter().filter(|it| it.at >= from).cloned().collect::<Vec<_>>());
}

/// The rules, schedules and history of a policy at random.
fn scenarios() -> impl Strategy<Value = (String, Vec<(BackupType, u8, bool)>)> {
    let asked = prop_oneof![Just(BackupType::Full), Just(BackupType::Diff), Just(BackupType::Incr)];
    let rule = |word: &'static str, most: u32| {
        prop::option::weighted(0.4, 1..most).prop_map(move |n| n.map(|n| format!("{word} = {n}, ")).unwrap_or_default())
    };
    let rules = (
        rule("full", 4),
        rule("diff", 5),
        rule("keep_last", 6),
        rule("keep_daily", 6),
        rule("keep_weekly", 4),
        rule("keep_hourly", 9),
    );
    let rules = rules.prop_map(|(a, b, c, d, e, f)| [a, b, c, d, e, f].concat());
    let incr = prop::sample::select(vec!["17 */3 * * *", "5 8-18 * * *", "30 2 * * *"]);
    let splay = prop::bool::ANY
        .prop_map(|splay| if splay { "{ cron = \"59 23 * * SAT\", splay = \"2h\" }" } else { "\"59 23 * * SAT\"" });
    let history = prop::collection::vec((asked, 1..40u8, prop::bool::weighted(0.2)), 0..9);
    (rules, incr, splay, history).prop_map(|(rules, incr, full, history)| {
        let schedule = format!("schedule = {{ full = {full}, diff = \"40 1 * * *\", incr = \"{incr}\", expire = \"50 4 * * *\", test_restore = \"0 6 * * WED\" }}");
        (format!("{schedule}\nretention = {{ {rules}keep_within = \"3d\", max_delete_fraction = 0.9 }}"), history)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_forecast_that_begins_within_another_goes_on_the_same((text, history) in scenarios(), days in 0..12u32, march in any::<bool>()) {
        let policy = chains(&text);
        let begins = if march { "2027-03-24T10:00:00Z" } else { "2026-10-21T10:00:00Z" };
        let (mut backups, mut at) = (Vec::new(), utc(begins) - TimeDelta::hours(400));
        for (asked, hours, held) in history {
            at += TimeDelta::hours(hours.into());
            let mut backup = made(&policy, asked, &at.to_rfc3339(), &backups);
            (backup.held, backup.held_until) = (held.then(|| "audit".to_owned()), Some(utc(begins) + TimeDelta::days(6)));
            backups.push(backup);
        }
        let whole = forecast(&question(&policy, &backups, begins, 14));
        let first = forecast(&question(&policy, &backups, begins, days));
        prop_assert_eq!(&first.days[..], &whole.days[..=days as usize]);
        let midnight = calendar::end_of(first.days.last().unwrap().date, ZONE);
        // What is due at midnight itself comes after it.
        let now = midnight - TimeDelta::milliseconds(1);
        let rest = forecast(&Question { now, from: midnight, ..question(&policy, &first.left, begins, 13 - days) });
        prop_assert_eq!(&rest.days[..], &whole.days[days as usize + 1..]);
        let after: Vec<_> = told(&whole).into_iter().filter(|(at, _)| *at >= midnight).collect();
        prop_assert_eq!(told(&rest), after);
    }
}
