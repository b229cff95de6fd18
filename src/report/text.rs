//! Facts for people: times, sizes, lengths, tables.

use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use comfy_table::{ContentArrangement, Table, presets};

use super::{DatabaseStatus, Objective, Running, Status};
use crate::{
    human::{length, size},
    record::{Backup, BackupCopy, BackupType, CopyState, Run, RunState, Window},
};

/// A moment in UTC.
pub fn when(at: DateTime<Utc>) -> String {
    at.format("%F %T UTC").to_string()
}

/// A moment in the policy's zone.
pub fn local(at: DateTime<Utc>, zone: Tz) -> String {
    at.with_timezone(&zone).format("%F %T %Z").to_string()
}

/// A table without lines, aligned for a terminal and for `grep`.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    table
}

/// A table as text, without the spaces that pad its last column.
pub fn plain(table: &Table) -> String {
    let mut text: String =
        table.lines().map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(&line).trim_end())).collect();
    text.truncate(text.trim_end_matches('\n').len());
    text
}

/// `backstop status`.
pub fn status(status: &Status, zone: Tz) -> String {
    let mut text = String::new();
    for notice in &status.notices {
        text.push_str(&format!("! {notice}\n"));
    }
    for database in &status.databases {
        text.push_str(&database_status(database, status.at, zone));
        text.push('\n');
    }
    text
}

fn database_status(database: &DatabaseStatus, now: DateTime<Utc>, zone: Tz) -> String {
    let tier = if database.tier.is_empty() { String::new() } else { format!(", {}", database.tier) };
    let mut text = format!("{} ({}{tier})\n", database.database, database.environment);
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<15}{value}\n"));
    line("recoverable to", recoverable(database, now, zone));
    further(database, zone).into_iter().for_each(|range| line("", range));
    line("loss now (RPO)", objective(&database.rpo));
    line("restore (RTO)", objective(&database.rto));
    line("last proven", proven(database, zone));
    line("backups", backups(database));
    let place = if database.engine.is_dump() { "storages" } else { "repositories" };
    if let Some(size_bytes) = database.size_bytes {
        line("size", format!("{}, {} in the {place}", size(size_bytes), size(database.stored_bytes)));
    }
    if database.engine.is_dump() {
        line("copies", copies(&database.copies));
    } else {
        line("archive", archive(database, now));
    }
    for running in &database.running {
        let far = how_far(running);
        line("running", format!("{} (run {}) for {}{far}", running.kind, running.run, ago(now, running.since)));
    }
    if let Some(next) = database.next.first() {
        line("next", format!("{} at {}", next.job, local(next.at, zone)));
    }
    for alarm in &database.alarms {
        line("ALARM", alarm.message.clone());
    }
    text
}

/// `, 52.5 MiB at 12.1 MiB/s, 43 %, 1m 10s left`, as far as it is known.
fn how_far(running: &Running) -> String {
    let rate = running.rate.map_or_else(String::new, |rate| format!(" at {}/s", size(rate as u64)));
    let parts = [
        running.bytes.map(|bytes| format!(", {}{rate}", size(bytes))),
        running.percent.map(|percent| format!(", {percent:.0} %")),
        running.eta_seconds.map(|eta| format!(", {} left", length(Duration::from_secs(eta)))),
    ];
    parts.into_iter().flatten().collect()
}

fn recoverable(database: &DatabaseStatus, now: DateTime<Utc>, zone: Tz) -> String {
    let Some(range) = database.windows.first() else {
        let why = match (database.last.is_empty(), database.engine.is_dump()) {
            (true, _) => "there is no good backup",
            (false, true) => "no good backup has a good copy",
            (false, false) => "no good backup has its WAL",
        };
        return format!("nothing: {why}");
    };
    let to = format!("{} ({} ago)", local(range.to, zone), ago(now, range.to));
    if range.from < range.to {
        return format!("{to}, from {} on", local(range.from, zone));
    }
    if database.engine.is_dump() {
        return format!("{to}, the moment of {}", range.label);
    }
    let after = if database.wal_watched {
        "the WAL after it is not proven yet"
    } else {
        "no `wal` schedule looks at what follows"
    };
    format!("{to}, the stop of {}: {after}", range.label)
}

/// How many further ranges are told one by one.
const FURTHER: usize = 3;

/// The ranges beside the one that reaches furthest; stops of backups together.
fn further(database: &DatabaseStatus, zone: Tz) -> Vec<String> {
    let others = database.windows.get(1..).unwrap_or_default();
    let (ranges, stops): (Vec<&Window>, Vec<&Window>) = others.iter().partition(|range| range.from < range.to);
    let mut lines: Vec<String> = ranges.iter().take(FURTHER).map(|range| format!("or {}", span(range, zone))).collect();
    if ranges.len() > FURTHER {
        lines.push(format!("or within {} more ranges", ranges.len() - FURTHER));
    }
    match stops.as_slice() {
        [] => {}
        [stop] => lines.push(format!("or {}", span(stop, zone))),
        [.., oldest] => {
            let what = if database.engine.is_dump() { "dumps" } else { "stops of backups" };
            lines.push(format!("or one of {} more {what}, the oldest {}", stops.len(), span(oldest, zone)));
        }
    }
    lines
}

/// A range in one line; a moment where it has no length.
pub fn span(range: &Window, zone: Tz) -> String {
    let (from, to) = (local(range.from, zone), local(range.to, zone));
    let when = if range.from == range.to { to } else { format!("{from} … {to}") };
    // All storages of dumps together are repository 0.
    let repo = if range.repo == 0 { String::new() } else { format!("repo {}, ", range.repo) };
    format!("{when} ({repo}from {})", range.label)
}

fn objective(objective: &Objective) -> String {
    let measured =
        objective.seconds.map_or_else(|| "unknown".to_owned(), |seconds| length(Duration::from_secs(seconds)));
    match (objective.objective_seconds, objective.met) {
        (Some(wanted), Some(met)) => {
            let verdict = if met { "met" } else { "NOT MET" };
            format!("{measured}, objective {}: {verdict}", length(Duration::from_secs(wanted)))
        }
        (Some(wanted), None) => format!("{measured}, objective {}", length(Duration::from_secs(wanted))),
        _ => measured,
    }
}

fn proven(database: &DatabaseStatus, zone: Tz) -> String {
    match &database.proof {
        None => "never".to_owned(),
        Some(proof) => {
            let to = proof.recovered_to.map_or_else(String::new, |to| format!(", recovered to {}", local(to, zone)));
            let age = length(Duration::from_secs(proof.age_seconds));
            format!("{} ({age} ago) by a restore of {}{to}", local(proof.at, zone), proof.backup_id)
        }
    }
}

fn backups(database: &DatabaseStatus) -> String {
    let one = |backup_type: &BackupType| {
        let age = database.last.get(backup_type).map(|last| length(Duration::from_secs(last.age_seconds)));
        age.map_or_else(|| format!("{backup_type} never"), |age| format!("{backup_type} {age} ago"))
    };
    let types = if database.engine.is_dump() { &[BackupType::Full] } else { BackupType::ALL };
    types.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The copies of the newest dump.
fn copies(copies: &[BackupCopy]) -> String {
    let one = |copy: &BackupCopy| match copy.state {
        CopyState::Good => copy.storage.clone(),
        state => format!("{} {}", copy.storage, state.as_str().to_uppercase()),
    };
    if copies.is_empty() { "none".to_owned() } else { copies.iter().map(one).collect::<Vec<_>>().join(", ") }
}

fn archive(database: &DatabaseStatus, now: DateTime<Utc>) -> String {
    let watch = if database.wal_watched { "" } else { "; no `wal` schedule watches it" };
    let Some(sample) = &database.wal else { return format!("never looked at{watch}") };
    let last = sample.last_archived_wal.as_deref().unwrap_or("nothing archived");
    let age = sample.last_archived_at.map_or_else(String::new, |at| format!(", archived {} ago", ago(now, at)));
    let ready = sample.ready_count.map_or_else(String::new, |count| format!(", {count} waiting"));
    format!("{last}{age}{ready} (looked at {} ago{watch})", ago(now, sample.sampled_at))
}

/// How long ago, in the two largest units.
pub fn ago(now: DateTime<Utc>, then: DateTime<Utc>) -> String {
    length(crate::clock::age(now, then))
}

/// `backstop history`.
pub fn history(runs: &[Run], zone: Tz) -> String {
    let mut table = table(&["RUN", "STARTED", "JOB", "STATE", "TOOK", "BY", "WHAT"]);
    for run in runs {
        let took = run.duration.map_or_else(String::new, crate::human::took);
        let job = match run.promoted_from {
            Some(kind) => format!("{} (was {kind})", run.job),
            None => run.job.to_string(),
        };
        let state = if run.state == RunState::Failed { "FAILED".to_owned() } else { run.state.to_string() };
        table.add_row([
            run.id.to_string(),
            local(run.started_at, zone),
            job,
            state,
            took,
            run.requested_by.clone(),
            run.summary.clone(),
        ]);
    }
    plain(&table)
}

/// `backstop list`.
pub fn backups_table(backups: &[Backup], now: DateTime<Utc>, zone: Tz) -> String {
    let mut table =
        table(&["BACKUP", "DATABASE", "TYPE", "STOPPED", "SIZE", "STORED", "COPIES", "LABEL", "STATUS", "PROVEN"]);
    for backup in backups {
        let stored = backup.repo_delta.map_or_else(|| "?".to_owned(), size);
        let proven = backup.proven_at.map_or_else(String::new, |at| local(at, zone));
        let status = match (backup.held_at(now), backup.held_until) {
            (None, _) => backup.status.to_string(),
            (Some(_), None) => format!("{}, held", backup.status),
            (Some(_), Some(until)) => {
                format!("{}, held until {}", backup.status, until.with_timezone(&zone).format("%F"))
            }
        };
        table.add_row([
            backup.id.clone(),
            backup.database.to_string(),
            backup.backup_type.to_string(),
            local(backup.stopped_at, zone),
            size(backup.size),
            stored,
            super::backup::copies_column(backup),
            // The label of a dump is its id; what a person called it says more.
            if backup.engine.is_dump() { backup.name.clone().unwrap_or_default() } else { backup.label.clone() },
            status,
            proven,
        ]);
    }
    plain(&table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BackupStatus, EngineKind};

    #[test]
    fn a_list_tells_where_each_backup_is_and_how_its_copies_stand() {
        let dump = crate::report::backup::tests::dump();
        let physical = Backup {
            id: "backup-20270114-020000".to_owned(),
            database: "orders".parse().unwrap(),
            engine: EngineKind::PgBackRest,
            label: "20270114-020000F".to_owned(),
            repo: 1,
            held: None,
            held_until: None,
            proven_at: Some(dump.stopped_at),
            status: BackupStatus::Damaged,
            dump: None,
            ..dump.clone()
        };
        let now = dump.stopped_at;
        let ends = Backup { held_until: Some(now + chrono::TimeDelta::days(9)), ..dump.clone() };
        let over = Backup { held_until: Some(now), ..dump.clone() };
        insta::assert_snapshot!(backups_table(&[dump, physical, ends, over], now, Tz::UTC), @r"
        BACKUP                      DATABASE  TYPE  STOPPED                  SIZE     STORED     COPIES          LABEL             STATUS                       PROVEN
        backup-20270115-080010-pre  shop      full  2027-01-15 08:00:15 UTC  1.0 MiB  256.5 KiB  offsite! local  pre               good, held
        backup-20270114-020000      orders    full  2027-01-15 08:00:15 UTC  1.0 MiB  256.5 KiB  repo1           20270114-020000F  damaged                      2027-01-15 08:00:15 UTC
        backup-20270115-080010-pre  shop      full  2027-01-15 08:00:15 UTC  1.0 MiB  256.5 KiB  offsite! local  pre               good, held until 2027-01-24
        backup-20270115-080010-pre  shop      full  2027-01-15 08:00:15 UTC  1.0 MiB  256.5 KiB  offsite! local  pre               good
        ");
    }
}
