//! The ranges of time that a database can be recovered to: what the last WAL check proved, and what happened since.
//!
//! The windows of a check outlive what they describe: a backup that began one may have ended, its repository may have
//! left the policy. So each is cut back to the backups that are good now. A backup that no check has judged yet proves
//! one moment, its own stop; a dump proves one, too, and never more: its start, because what was written while it ran is
//! not in it. A newcomer would join ranges that touch; a hole in the archive lies between them.

use std::{cmp::Reverse, collections::BTreeMap};

use chrono::{DateTime, Utc};

use crate::{
    objective::good_copies,
    policy::Database,
    record::{Backup, RepoKey, Window},
};

/// The ranges, the one that reaches furthest first.
///
/// `windows` are those that the last checks found, `judged_at` tells when each repository was last looked at,
/// `backups` are all that the catalog knows.
pub fn ranges(
    database: &Database,
    backups: &[Backup],
    windows: &[Window],
    judged_at: &BTreeMap<RepoKey, DateTime<Utc>>,
) -> Vec<Window> {
    let sound: Vec<&Backup> =
        backups.iter().filter(|backup| database.repos().contains(&backup.repo) && is_sound(backup, backups)).collect();
    if database.engine.is_dump() {
        return dumps(database, &sound);
    }
    let mut ranges: Vec<Window> = windows.iter().filter_map(|window| cut_back(window, &sound)).collect();
    let proven = ranges.clone();
    let is_within = |backup: &Backup| proven.iter().any(|window| holds(window, backup));
    // The windows tell all about a backup that was there when its archive was last looked at.
    let is_judged = |backup: &Backup| judged_at.get(&backup.repo).is_some_and(|at| backup.stopped_at <= *at);
    let fresh = sound.iter().filter(|backup| !is_judged(backup) && !is_within(backup));
    ranges.extend(fresh.map(|backup| moment(backup)));
    ranges.sort_by_key(|range| (Reverse(range.to), range.from, range.repo));
    ranges
}

/// The moments of the dumps of which a good copy is left, the newest first.
fn dumps(database: &Database, sound: &[&Backup]) -> Vec<Window> {
    let within_reach = sound.iter().filter(|backup| !good_copies(database, backup).is_empty());
    let start = |backup: &&Backup| Window { from: backup.started_at, to: backup.started_at, ..moment(backup) };
    let mut moments: Vec<Window> = within_reach.map(start).collect();
    moments.sort_by_key(|moment| Reverse(moment.to));
    moments
}

/// Whether recovery may begin with a backup: it is good, and so is all that it builds on.
fn is_sound(backup: &Backup, all: &[Backup]) -> bool {
    let is_good = |label: &String| {
        all.iter().any(|other| {
            other.is_good() && other.label == *label && other.repo == backup.repo && other.system_id == backup.system_id
        })
    };
    backup.is_good() && backup.references.iter().chain(&backup.prior).all(is_good)
}

/// The window from its oldest backup that is still sound; none when there is none left in it.
fn cut_back(window: &Window, sound: &[&Backup]) -> Option<Window> {
    let within = sound.iter().filter(|backup| holds(window, backup));
    let oldest = within.min_by_key(|backup| backup.stopped_at)?;
    Some(Window { label: oldest.label.clone(), from: oldest.stopped_at, ..window.clone() })
}

/// Whether a backup stopped within a window of its repository; then the WAL after it is whole up to the window's end.
fn holds(window: &Window, backup: &Backup) -> bool {
    window.repo == backup.repo && (window.from..=window.to).contains(&backup.stopped_at)
}

/// What a backup proves by itself.
fn moment(backup: &Backup) -> Window {
    Window {
        database: backup.database.clone(),
        repo: backup.repo,
        label: backup.label.clone(),
        from: backup.stopped_at,
        to: backup.stopped_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::pgbackrest::info, policy::Policy, record::BackupStatus};

    const INFO: &[u8] = include_bytes!("../../tests/samples/pgbackrest-info-multirepo.json");

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    /// A full from a real repository, moved to the second at which it stopped, in repository 1.
    fn full(stopped: i64) -> Backup {
        let some = info::read(INFO).unwrap().unwrap().backups(1, &database()).remove(0);
        let (id, label) = (format!("backup-{stopped}"), format!("{stopped}F"));
        Backup { id, label, started_at: at(stopped), stopped_at: at(stopped), ..some }
    }

    /// One whose policy has the repositories 1 and 2.
    fn database() -> Database {
        let text = "[database.orders]\nenvironment = \"staging\"\npgbackrest = { repos = [1, 2] }\n";
        Policy::parse(vec![("p.toml".into(), text.into())]).unwrap().databases.pop_first().unwrap().1
    }

    fn window(repo: RepoKey, from: i64, to: i64) -> Window {
        Window { database: "orders".parse().unwrap(), repo, label: format!("{from}F"), from: at(from), to: at(to) }
    }

    /// The ranges as `repo:from..to`.
    fn told(backups: &[Backup], windows: &[Window], judged: &[(RepoKey, i64)]) -> Vec<String> {
        let judged = judged.iter().map(|(repo, second)| (*repo, at(*second))).collect();
        let ranges = ranges(&database(), backups, windows, &judged);
        ranges.iter().map(|r| format!("{}:{}..{}", r.repo, r.from.timestamp(), r.to.timestamp())).collect()
    }

    #[test]
    fn a_hole_parts_two_ranges_and_the_one_that_reaches_furthest_comes_first() {
        let windows = [window(1, 10, 50), window(1, 80, 200)];
        assert_eq!(told(&[full(80), full(10)], &windows, &[(1, 200)]), ["1:80..200", "1:10..50"]);
    }

    #[test]
    fn a_window_begins_at_its_oldest_backup_that_is_still_good() {
        let gone = |stopped, status| Backup { status, ..full(stopped) };
        let windows = [window(1, 10, 200)];
        let told = |backups: &[Backup]| told(backups, &windows, &[(1, 200)]);
        assert_eq!(told(&[full(90), full(50), gone(10, BackupStatus::Expired)]), ["1:50..200"]);
        assert_eq!(told(&[full(90), gone(50, BackupStatus::Damaged), gone(10, BackupStatus::Lost)]), ["1:90..200"]);
        assert_eq!(told(&[gone(50, BackupStatus::Unrestorable)]), [""; 0]);
        let orphan = Backup { prior: Some("10F".into()), references: vec!["10F".into()], ..full(50) };
        assert_eq!(told(&[orphan, gone(10, BackupStatus::Damaged)]), [""; 0], "what it builds on is damaged");
        assert_eq!(told(&[Backup { repo: 2, ..full(50) }]), ["2:50..50"], "it says nothing about the other repository");
    }

    #[test]
    fn a_repository_that_left_the_policy_counts_no_more() {
        let backups = [Backup { repo: 3, ..full(90) }, full(10)];
        assert_eq!(told(&backups, &[window(3, 90, 300), window(1, 10, 20)], &[(1, 20)]), ["1:10..20"]);
    }

    #[test]
    fn a_backup_that_no_look_has_judged_proves_its_own_stop_and_no_more() {
        let backups = [full(90), full(50), full(10)];
        assert_eq!(told(&backups, &[], &[]), ["1:90..90", "1:50..50", "1:10..10"], "nobody looks at WAL");
        let windows = [window(1, 10, 60)];
        assert_eq!(told(&backups, &windows, &[(1, 60)]), ["1:90..90", "1:10..60"]);
        assert_eq!(told(&backups, &windows, &[(1, 95)]), ["1:10..60"], "the look found no range for the newest");
        assert_eq!(told(&backups, &[], &[(1, 95)]), [""; 0], "the repository was missing");
    }

    #[test]
    fn a_dump_proves_its_own_start_while_a_good_copy_is_within_reach() {
        let text = "[storage.a]\ntype = \"filesystem\"\npath = \"/a\"\n[database.orders]\nengine = \"sqlite\"\n\
                    sqlite.path = \"/o.db\"\nstorage = \"a\"";
        let policy = Policy::parse(vec![("p.toml".into(), text.into())]).unwrap();
        let dump = |started, storage: &str, state| {
            let copy = serde_json::json!({ "storage": storage, "state": state, "checked_at": at(started) });
            let dump = serde_json::json!({
                "format": "file", "compression": "zstd:3", "encryption": null, "directory": "", "artifacts": [],
                "copies": [copy], "server": "", "source": "", "migrations": null, "retention_days": null,
                "expires_at": null, "warnings": [], "verified_at": null,
            });
            let dump = Some(serde_json::from_value(dump).unwrap());
            Backup { repo: 0, started_at: at(started), dump, ..full(started + 5) }
        };
        let backups = [
            dump(90, "a", "damaged"),
            dump(60, "a", "good"),
            dump(40, "gone", "good"),
            Backup { status: BackupStatus::Lost, ..dump(30, "a", "good") },
            dump(20, "a", "good"),
            full(95),
        ];
        let found =
            ranges(&policy.databases[&"orders".parse().unwrap()], &backups, &[window(1, 10, 95)], &BTreeMap::new());
        let moments: Vec<_> = found.iter().map(|r| (r.repo, r.from.timestamp(), r.to.timestamp())).collect();
        assert_eq!(moments, [(0, 60, 60), (0, 20, 20)]);
    }
}
