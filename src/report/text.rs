//! Facts for people: times, sizes, lengths, tables.

use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use comfy_table::{ContentArrangement, Table, presets};

use super::{DatabaseStatus, Objective, Status};
use crate::{
    human::{length, size},
    record::{Backup, BackupType, Run, RunState, Window},
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
    if let Some(size_bytes) = database.size_bytes {
        line("size", format!("{}, {} in the repositories", size(size_bytes), size(database.stored_bytes)));
    }
    line("archive", archive(database, now));
    for running in &database.running {
        let percent = running.percent.map_or_else(String::new, |percent| format!(", {percent:.0} %"));
        line("running", format!("{} (run {}) for {}{percent}", running.kind, running.run, ago(now, running.since)));
    }
    if let Some(next) = database.next.first() {
        line("next", format!("{} at {}", next.job, local(next.at, zone)));
    }
    for alarm in &database.alarms {
        line("ALARM", alarm.message.clone());
    }
    text
}

fn recoverable(database: &DatabaseStatus, now: DateTime<Utc>, zone: Tz) -> String {
    let Some(range) = database.windows.first() else {
        let why = if database.last.is_empty() { "there is no good backup" } else { "no good backup has its WAL" };
        return format!("nothing: {why}");
    };
    let to = format!("{} ({} ago)", local(range.to, zone), ago(now, range.to));
    if range.from < range.to {
        return format!("{to}, from {} on", local(range.from, zone));
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
            lines.push(format!("or one of {} more stops of backups, the oldest {}", stops.len(), span(oldest, zone)));
        }
    }
    lines
}

/// A range in one line; a moment where it has no length.
pub fn span(range: &Window, zone: Tz) -> String {
    let (from, to) = (local(range.from, zone), local(range.to, zone));
    let when = if range.from == range.to { to } else { format!("{from} … {to}") };
    format!("{when} (repo {}, from {})", range.repo, range.label)
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
    BackupType::ALL.iter().map(one).collect::<Vec<_>>().join(", ")
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
pub fn backups_table(backups: &[Backup], zone: Tz) -> String {
    let mut table =
        table(&["BACKUP", "DATABASE", "TYPE", "STOPPED", "SIZE", "STORED", "REPO", "LABEL", "STATUS", "PROVEN"]);
    for backup in backups {
        let stored = backup.repo_delta.map_or_else(|| "?".to_owned(), size);
        let proven = backup.proven_at.map_or_else(String::new, |at| local(at, zone));
        let status = if backup.held.is_some() { format!("{}, held", backup.status) } else { backup.status.to_string() };
        table.add_row([
            backup.id.clone(),
            backup.database.to_string(),
            backup.backup_type.to_string(),
            local(backup.stopped_at, zone),
            size(backup.size),
            stored,
            backup.repo.to_string(),
            backup.label.clone(),
            status,
            proven,
        ]);
    }
    plain(&table)
}
