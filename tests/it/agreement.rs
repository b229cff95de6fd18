//! Agreement with `restic forget` and `borg prune` on the same moments: where we differ, and that nothing else differs.
//!
//! A small model of rules of periods has three switches. One setting of them is restic, one is borg, one is ours; each is
//! compared with what the real program says. The README has the differences as a table. Quarters are ours alone.
//!
//! A newcomer would make a snapshot for each hour of two years. Few moments do, where they are awkward: days on which the
//! clocks change, the turn of the year in an ISO week 53, several a day.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use backstop::{
    policy::Retention,
    record::{Backup, BackupStatus, BackupType, EngineKind},
    retention::{Circumstances, plan},
};
use chrono::{DateTime, Datelike, TimeDelta, Timelike, Utc};
use chrono_tz::Europe::Berlin;
use serde_json::Value;

use crate::harness::{self, sh};

type Moments = BTreeSet<DateTime<Utc>>;

/// What a coarser rule counts.
#[derive(Clone, Copy, PartialEq)]
enum Counts {
    /// Every period with a backup.
    All,
    /// Only periods whose newest backup no finer rule keeps.
    New,
}

/// What the hour is that comes twice in autumn.
#[derive(Clone, Copy, PartialEq)]
enum Twice {
    /// One hour.
    One,
    /// Two hours.
    Two,
}

/// What becomes of the oldest backup while a count is not used up.
#[derive(Clone, Copy, PartialEq)]
enum Oldest {
    /// It stays, so that the history grows until there are so many periods.
    Stays,
    /// It goes when a newer one of its period is there.
    Goes,
}

type Habits = (Counts, Twice, Oldest);
const RESTIC_BEFORE_0_16: Habits = (Counts::All, Twice::One, Oldest::Goes);
const RESTIC: Habits = (Counts::All, Twice::One, Oldest::Stays);
const BORG: Habits = (Counts::New, Twice::One, Oldest::Stays);
const OURS: Habits = (Counts::All, Twice::Two, Oldest::Stays);

/// What rules of periods keep.
fn model((counts, twice, oldest): Habits, moments: &Moments, rules: &Retention) -> Moments {
    let period = |rule: usize, at: &DateTime<Utc>| {
        let local = at.with_timezone(&Berlin);
        let week = local.iso_week();
        match rule {
            // To borg it is the newest of each second of the local clock.
            0 if counts == Counts::New => local.naive_local().to_string(),
            0 => at.to_rfc3339(),
            1 if twice == Twice::Two => local.format("%F %H %z").to_string(),
            1 => format!("{} {}", local.date_naive(), local.hour()),
            2 => local.date_naive().to_string(),
            3 => format!("{} {}", week.year(), week.week()),
            4 => format!("{} {}", local.year(), local.month()),
            _ => local.year().to_string(),
        }
    };
    let limits = [rules.last, rules.hourly, rules.daily, rules.weekly, rules.monthly, rules.yearly];
    let mut kept = Moments::new();
    for (rule, limit) in limits.into_iter().enumerate().filter_map(|(rule, limit)| Some((rule, limit?))) {
        let (mut counted, mut last) = (0, None);
        for at in moments.iter().rev() {
            let this = Some(period(rule, at));
            if counted < limit && this != last {
                let is_new = kept.insert(*at);
                counted += u32::from(is_new || counts == Counts::All);
            }
            last = this;
        }
        kept.extend(moments.first().filter(|_| counted < limit && oldest == Oldest::Stays));
    }
    kept
}

/// What our planner keeps.
fn planned(moments: &Moments, rules: &Retention) -> Moments {
    let backups: Vec<Backup> = moments.iter().map(backup).collect();
    let at = Circumstances { now: *moments.last().unwrap(), zone: Berlin, pinned: Default::default() };
    let plan = plan(&backups, rules, &at);
    let kept: BTreeSet<&str> = plan.decisions.iter().filter(|it| it.keep).map(|it| it.label.as_str()).collect();
    backups.iter().filter(|backup| kept.contains(backup.label.as_str())).map(|backup| backup.stopped_at).collect()
}

fn backup(at: &DateTime<Utc>) -> Backup {
    let label = at.format("%Y%m%d-%H%M%SF").to_string();
    Backup {
        id: label.clone(),
        database: "orders".parse().unwrap(),
        environment: "staging".to_owned(),
        engine: EngineKind::PgBackRest,
        backup_type: BackupType::Full,
        requested_type: BackupType::Full,
        label,
        repo: 1,
        system_id: String::new(),
        server_version: String::new(),
        tool_version: String::new(),
        name: None,
        reason: None,
        tags: Vec::new(),
        run_uuid: None,
        started_at: *at,
        stopped_at: *at,
        size: 1,
        delta: 1,
        repo_delta: None,
        repo_size: None,
        prior: None,
        references: Vec::new(),
        wal_start: None,
        wal_stop: None,
        lsn_stop: None,
        page_errors: None,
        status: BackupStatus::Good,
        expired_reason: None,
        expired_at: None,
        held: None,
        held_until: None,
        proven_at: None,
        created_by: "test".to_owned(),
        dump: None,
    }
}

/// Two years: each ninth day at another hour, and every few hours where it is awkward.
fn two_years() -> Moments {
    let utc = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    let mut moments: Moments =
        (0..82).map(|n| utc("2019-06-03T01:10:00Z") + TimeDelta::hours(n * (9 * 24 + 5))).collect();
    for (from, hours, count) in [
        ("2020-03-27T22:30:00Z", 4, 14), // a day of 23 hours
        ("2020-10-23T21:30:00Z", 3, 18), // a day of 25 hours; the hour that comes twice is left out
        ("2020-12-27T20:15:00Z", 7, 20), // ISO week 53, which ends on January 3
        ("2021-06-20T00:05:00Z", 1, 14),
    ] {
        moments.extend((0..count).map(|n| utc(from) + TimeDelta::hours(n * hours)));
    }
    moments
}

/// Around and in the hour that comes twice.
fn an_hour_twice() -> Moments {
    [
        "2020-10-24T22:40:00Z",
        "2020-10-24T23:40:00Z",
        "2020-10-25T00:40:00Z",
        "2020-10-25T01:40:00Z",
        "2020-10-25T02:40:00Z",
    ]
    .map(|text| text.parse().unwrap())
    .into()
}

/// Counts of `last`, `hourly` to `monthly`, `yearly`; 0 is no rule.
fn rules([last, hourly, daily, weekly, monthly, yearly]: [u32; 6]) -> Retention {
    let some = |n| Some(n).filter(|n| *n > 0);
    Retention {
        last: some(last),
        hourly: some(hourly),
        daily: some(daily),
        weekly: some(weekly),
        monthly: some(monthly),
        yearly: some(yearly),
        keep_proven: 0,
        ..Retention::default()
    }
}

/// Rules one by one, together, and with counts that two years do not use up.
fn all_rules() -> Vec<Retention> {
    let all = [
        [7, 0, 0, 0, 0, 0],
        [0, 30, 0, 0, 0, 0],
        [0, 0, 14, 0, 0, 0],
        [0, 0, 0, 31, 0, 0],
        [0, 0, 0, 0, 9, 0],
        [0, 0, 0, 0, 0, 2],
        [0, 0, 0, 0, 0, 9],
        [0, 0, 400, 0, 0, 0],
        [0, 24, 7, 5, 12, 3],
        [3, 0, 30, 0, 6, 0],
        [0, 12, 0, 26, 0, 2],
        [5, 40, 12, 60, 40, 9],
    ];
    all.map(rules).into()
}

/// The rules as both programs take them.
fn flags(rules: &Retention) -> Vec<String> {
    let limits = [
        ("last", rules.last),
        ("hourly", rules.hourly),
        ("daily", rules.daily),
        ("weekly", rules.weekly),
        ("monthly", rules.monthly),
        ("yearly", rules.yearly),
    ];
    limits.iter().filter_map(|(word, limit)| Some(format!("--keep-{word}={}", (*limit)?))).collect()
}

/// A directory that is in memory where there is such a place: both programs sync each file.
fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("backstop-agreement-").tempdir_in(parent).unwrap()
}

/// A command in a directory, with a clear environment and Berlin's time.
fn command(dir: &Path, program: &str) -> Command {
    let mut command = harness::command(program);
    command.current_dir(dir).env("HOME", dir);
    command.env("TZ", "Europe/Berlin").env("RESTIC_PASSWORD_FILE", "password");
    command.env("BORG_BASE_DIR", dir).env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes");
    command
}

#[track_caller]
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    // Borg lists on stderr.
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// What is backed up, and a password for it.
fn tiny(dir: &Path) {
    fs::write(dir.join("password"), "not a secret\n").unwrap();
    fs::create_dir(dir.join("tiny")).unwrap();
    fs::write(dir.join("tiny/file"), "a few bytes").unwrap();
}

/// A restic repository with a snapshot at each moment, a set for each host.
fn restic_repository(dir: &Path, sets: &[(&str, &Moments)]) {
    output(command(dir, "restic").args(["--no-cache", "--quiet", "--repo", "restic", "init"]));
    let all: Vec<(&str, DateTime<Utc>)> =
        sets.iter().flat_map(|(host, moments)| moments.iter().map(|at| (*host, *at))).collect();
    // Restic waits most of the time, and copies of a repository do not wait for each other's locks; what is in them is
    // named by its checksum, so they are put together again by copying.
    thread::scope(|scope| {
        for (n, part) in all.chunks(all.len().div_ceil(6)).enumerate() {
            sh(&format!("cp -a {0}/restic {0}/restic.{n}", dir.display()));
            scope.spawn(move || part.iter().for_each(|(host, at)| snapshot(dir, &format!("restic.{n}"), host, *at)));
        }
    });
    sh(&format!("cd {} && for part in restic.*; do cp -a -n $part/. restic/; done", dir.display()));
}

fn snapshot(dir: &Path, repository: &str, host: &str, at: DateTime<Utc>) {
    let local = at.with_timezone(&Berlin);
    // A local time alone is not one moment where it comes twice; the zone of its offset is (the sign is POSIX's).
    let zone = if local.format("%z").to_string() == "+0200" { "Etc/GMT-2" } else { "Etc/GMT-1" };
    let time = local.format("%F %T").to_string();
    let arguments =
        ["--no-cache", "--quiet", "--repo", repository, "backup", "--force", "--host", host, "--time", &time, "tiny"];
    output(command(dir, "restic").env("TZ", zone).args(arguments));
}

/// Those of the version that is installed.
fn habits_of_restic(dir: &Path) -> Habits {
    let told = output(command(dir, "restic").arg("version"));
    let mut numbers = told.split([' ', '.']).filter_map(|word| word.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) < (Some(0), Some(16)) { RESTIC_BEFORE_0_16 } else { RESTIC }
}

/// What restic would keep.
fn restic(dir: &Path, host: &str, flags: &[String]) -> Moments {
    let mut forget = command(dir, "restic");
    forget.args(["--no-cache", "--repo", "restic", "forget", "--dry-run", "--json", "--host", host]).args(flags);
    let answer: Value = serde_json::from_str(&output(&mut forget)).unwrap();
    let kept = answer[0]["keep"].as_array().unwrap();
    kept.iter().map(|it| DateTime::parse_from_rfc3339(it["time"].as_str().unwrap()).unwrap().to_utc()).collect()
}

/// What makes archives in one process: a start of borg takes longer than an archive.
const CREATE: &str = "
import sys
from borg.archiver import Archiver
for line in sys.stdin:
    name, at = line.split()
    borg = Archiver()
    code = borg.run(borg.get_args(['borg', 'create', '--timestamp', at, 'borg::' + name, 'tiny'], None))
    if code: sys.exit(code)
";

/// The form of the moment in an archive's name.
const NAMED: &str = "%Y-%m-%dT%H:%M:%SZ";

/// A borg repository with an archive at each moment, a set for each prefix.
fn borg_repository(dir: &Path, sets: &[(&str, &Moments)]) {
    output(command(dir, "borg").args(["init", "--encryption", "none", "borg"]));
    let mut python = command(dir, "/usr/bin/python3");
    let mut python = python.args(["-c", CREATE]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = python.stdin.take().unwrap();
    for (prefix, moments) in sets {
        for at in *moments {
            let at = at.format(NAMED);
            writeln!(stdin, "{prefix}-{at} {at}").unwrap();
        }
    }
    drop(stdin);
    assert!(python.wait().unwrap().success());
}

/// What borg would keep.
fn borg(dir: &Path, prefix: &str, flags: &[String]) -> Moments {
    let mut prune = command(dir, "borg");
    prune.args(["prune", "--dry-run", "--list", "--glob-archives", &format!("{prefix}-*")]).args(flags).arg("borg");
    let text = output(&mut prune);
    let kept = text.lines().filter(|line| line.starts_with("Keeping"));
    kept.map(|line| {
        let name = line.split_whitespace().find_map(|word| word.strip_prefix(&format!("{prefix}-"))).unwrap();
        chrono::NaiveDateTime::parse_from_str(name, NAMED).unwrap().and_utc()
    })
    .collect()
}

#[test]
fn our_rules_keep_what_restic_keeps_and_a_few_habits_make_every_difference() {
    let (years, twice) = (two_years(), an_hour_twice());
    let sets = [("years", &years), ("twice", &twice)];
    let dir = directory();
    tiny(dir.path());
    thread::scope(|scope| {
        let restic = scope.spawn(|| {
            restic_repository(dir.path(), &sets);
            each_rule(&years, &twice, |name, flags| restic(dir.path(), name, flags), habits_of_restic(dir.path()));
            within_is_counted_from_now(dir.path(), &years);
        });
        borg_repository(dir.path(), &sets);
        each_rule(&years, &twice, |name, flags| borg(dir.path(), name, flags), BORG);
        restic.join().unwrap();
    });

    // Each program is its setting of the model; so is ours, and the settings differ as the README says.
    let mut more_by_borg = 0;
    for rules in all_rules() {
        let ours = planned(&years, &rules);
        assert_eq!(ours, model(OURS, &years, &rules), "{rules:?}");
        assert_eq!(ours, model(RESTIC, &years, &rules), "no hour comes twice here: {rules:?}");
        let theirs = model(BORG, &years, &rules);
        assert!(theirs.is_superset(&ours), "{rules:?}");
        assert!(flags(&rules).len() > 1 || theirs == ours, "a rule alone is the same rule: {rules:?}");
        more_by_borg += theirs.len() - ours.len();
        assert_eq!(planned(&twice, &rules), model(OURS, &twice, &rules), "{rules:?}");
    }
    assert!(more_by_borg > 0, "what borg hands to the coarser rules");
    let hourly = rules([0, 9, 0, 0, 0, 0]);
    let (ours, theirs) = (planned(&twice, &hourly), model(RESTIC, &twice, &hourly));
    assert_eq!(ours, twice, "each hour has one");
    assert_eq!(ours.difference(&theirs).map(|at| at.to_rfc3339()).collect::<Vec<_>>(), ["2020-10-25T00:40:00+00:00"]);
}

/// Asks a program about every set of rules, and about some where an hour comes twice.
fn each_rule(years: &Moments, twice: &Moments, ask: impl Fn(&str, &[String]) -> Moments, habits: Habits) {
    let few = [[7, 0, 0, 0, 0, 0], [0, 9, 0, 0, 0, 0], [0, 2, 1, 0, 0, 1]].map(rules);
    let years = all_rules().into_iter().map(|rules| ("years", years, rules));
    for (name, moments, rules) in years.chain(few.into_iter().map(|rules| ("twice", twice, rules))) {
        let flags = flags(&rules);
        assert_eq!(ask(name, &flags), model(habits, moments, &rules), "{name} {flags:?}");
    }
}

/// Restic counts `--keep-within` from the newest snapshot, so both agree where that was made just now.
fn within_is_counted_from_now(dir: &Path, moments: &Moments) {
    let within = Some(std::time::Duration::from_hours(24 * 20));
    let rules = Retention { within, keep_proven: 0, ..Retention::default() };
    let theirs = restic(dir, "years", &["--keep-within=20d".to_owned()]);
    assert_eq!(planned(moments, &rules), theirs);
    let backups: Vec<Backup> = moments.iter().map(backup).collect();
    let now = *moments.last().unwrap() + TimeDelta::days(19);
    let later = plan(&backups, &rules, &Circumstances { now, zone: Berlin, pinned: Default::default() });
    let kept = later.decisions.iter().filter(|it| it.keep).count();
    assert!(kept < theirs.len() && kept > 0, "we keep {kept} of {} after 19 days without a backup", theirs.len());
}
