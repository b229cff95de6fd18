//! pgBackRest's own `verify`: every file in the repository re-read against its checksum.
//!
//! It exits 0 whatever it finds, and it does not miss a backup that was removed by hand. So its text is read, and the
//! labels it found valid are compared with those that `info` lists, before and after: it takes hours, and what others
//! make or remove meanwhile is no damage. A backup that is not whole is damaged from then on, with all that depends on
//! it; one that a later verification finds whole again, because it was mended, is good again.
//!
//! Dumps are re-read by ourselves, see `dumps.rs`.
//!
//! A newcomer would take back every `damaged`; page checksum errors, which stand in the backup itself, no reading heals.

mod dumps;

use std::collections::{BTreeMap, BTreeSet};

use tracing::{info, warn};

use super::{Context, Done, catalog_failure, sync};
use crate::{
    clock,
    engine::pgbackrest::{PgBackRest, verify::Report},
    error::ExitCode,
    record::{Backup, BackupStatus, EngineKind, ErrorClass, Failure},
};

/// How the reason of a verdict of ours begins, by which it is known again.
const OURS: &str = "verify: ";

pub(super) async fn run(context: &Context) -> Result<Done, Failure> {
    match context.database().engine {
        EngineKind::PgBackRest => repository(context).await,
        EngineKind::PgDump | EngineKind::MySqlDump | EngineKind::Sqlite => dumps::run(context).await,
    }
}

async fn repository(context: &Context) -> Result<Done, Failure> {
    let database = context.database();
    let tool = PgBackRest::of(database).map_err(sync::secret_failure)?;
    let before = listed(context).await?;
    let mut lines = Vec::new();
    let finished = context.tool("verify", &tool.verify(context.repo()), |line| lines.push(line.to_owned())).await?;
    let after = listed(context).await?;
    let listed: BTreeSet<String> = before.intersection(&after).cloned().collect();
    let report = Report::of(lines.iter().map(String::as_str));
    let damaged = judge(context, &report, &listed).await?;
    let problems = report.problems(&finished.ending, &listed);
    if problems.is_empty() {
        let segments: u64 = report.archives.values().map(|archive| archive.files.checked).sum();
        return Ok(Done::new(format!("{} backups and {segments} WAL segments re-read, all right", listed.len())));
    }
    let count_no_more = if damaged == 0 { String::new() } else { format!(" ({damaged} backups count no more)") };
    Err(Failure {
        class: ErrorClass::Integrity,
        exit: ExitCode::VerificationFailed,
        message: format!("the repository is damaged: {}{count_no_more}", problems.join("; ")),
        remedy: Some(
            "Make a new full backup now, then look at the disk or bucket under the repository. Nothing was deleted."
                .to_owned(),
        ),
    })
}

/// The labels in the repository, once the catalog knows them too.
async fn listed(context: &Context) -> Result<BTreeSet<String>, Failure> {
    let (database, repo) = (context.database(), context.repo());
    let seen = sync::look(database, &context.stop).await?;
    if let Some(failure) = seen.trouble(repo) {
        return Err(failure);
    }
    sync::remember(&context.catalog, database, &seen).await.map_err(catalog_failure)?;
    Ok(seen.stanza.map(|stanza| stanza.labels(repo)).unwrap_or_default())
}

/// Records what the report proves of each backup, and says how many are damaged by it.
async fn judge(context: &Context, report: &Report, listed: &BTreeSet<String>) -> Result<usize, Failure> {
    let known = context.catalog.backups(&context.database().name).await.map_err(catalog_failure)?;
    let known: Vec<Backup> = known.into_iter().filter(|backup| backup.repo == context.repo()).collect();
    let damaged = with_dependents(report.damaged(listed), &known);
    for (backup, reason) in verdicts(&known, &damaged, report) {
        let (status, label) = (reason.map_or(BackupStatus::Good, |_| BackupStatus::Damaged), &backup.label);
        match reason {
            Some(reason) => warn!(run_id = context.run, job = %context.job(), %label, "backup is damaged: {reason}"),
            None => info!(run_id = context.run, job = %context.job(), %label, "backup is whole again"),
        }
        let reason = reason.map(|reason| format!("{OURS}{reason}"));
        let id = std::slice::from_ref(&backup.id);
        let marked = context.catalog.mark_backups(id, status, reason.as_deref(), clock::now()).await;
        marked.map_err(catalog_failure)?;
    }
    Ok(known.iter().filter(|backup| damaged.contains_key(&backup.label)).count())
}

/// Adds what depends on a damaged backup.
fn with_dependents(mut damaged: BTreeMap<String, String>, known: &[Backup]) -> BTreeMap<String, String> {
    let own: BTreeSet<String> = damaged.keys().cloned().collect();
    for backup in known.iter().filter(|backup| !own.contains(&backup.label)) {
        if let Some(needed) = backup.references.iter().find(|label| own.contains(*label)) {
            damaged.insert(backup.label.clone(), format!("it needs {needed}, which is damaged"));
        }
    }
    damaged
}

/// What changes: newly damaged with the reason, or whole again.
fn verdicts<'a>(
    known: &'a [Backup],
    damaged: &'a BTreeMap<String, String>,
    report: &Report,
) -> Vec<(&'a Backup, Option<&'a str>)> {
    let verdict = |backup: &'a Backup| match (damaged.get(&backup.label), backup.status) {
        (Some(_), BackupStatus::Damaged) => None,
        (Some(reason), _) => Some((backup, Some(reason.as_str()))),
        (None, BackupStatus::Damaged) if is_healed(backup, report) => Some((backup, None)),
        (None, _) => None,
    };
    known.iter().filter_map(verdict).collect()
}

fn is_healed(backup: &Backup, report: &Report) -> bool {
    let was_ours = backup.expired_reason.as_ref().is_some_and(|reason| reason.starts_with(OURS));
    was_ours
        && backup.page_errors != Some(true)
        && report.is_whole(&backup.label)
        && backup.references.iter().all(|label| report.is_whole(label))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::BackupType;

    const ERROR: &str = include_str!("../../tests/samples/pgbackrest-verify-text-error.txt");
    const OK: &str = include_str!("../../tests/samples/pgbackrest-verify-text-ok.txt");
    const FULL: &str = "20261120-152106F";
    const INCR: &str = "20261120-152106F_20261121-000000I";

    fn backup(label: &str, references: &[&str], status: BackupStatus) -> Backup {
        let at = chrono::DateTime::UNIX_EPOCH;
        Backup {
            id: label.to_owned(),
            database: "orders".parse().unwrap(),
            environment: String::new(),
            engine: EngineKind::PgBackRest,
            backup_type: BackupType::Full,
            requested_type: BackupType::Full,
            label: label.to_owned(),
            repo: 1,
            system_id: String::new(),
            server_version: String::new(),
            tool_version: String::new(),
            name: None,
            reason: None,
            tags: Vec::new(),
            run_uuid: None,
            started_at: at,
            stopped_at: at,
            size: 0,
            delta: 0,
            repo_delta: None,
            repo_size: None,
            prior: None,
            references: references.iter().map(|label| (*label).to_owned()).collect(),
            wal_start: None,
            wal_stop: None,
            lsn_stop: None,
            page_errors: Some(false),
            status,
            expired_reason: (status == BackupStatus::Damaged).then(|| format!("{OURS}it was")),
            expired_at: None,
            held: None,
            held_until: None,
            proven_at: None,
            created_by: String::new(),
            dump: None,
        }
    }

    fn told(known: &[Backup], text: &str) -> Vec<(String, bool)> {
        let report = Report::of(text.lines());
        let listed = known.iter().map(|backup| backup.label.clone()).collect();
        let damaged = with_dependents(report.damaged(&listed), known);
        verdicts(known, &damaged, &report).into_iter().map(|(b, why)| (b.label.clone(), why.is_some())).collect()
    }

    #[test]
    fn a_damaged_full_takes_what_was_built_on_it_along() {
        let known = [backup(FULL, &[], BackupStatus::Good), backup(INCR, &[FULL], BackupStatus::Good)];
        assert_eq!(told(&known, ERROR), [(FULL.to_owned(), true), (INCR.to_owned(), true)]);
        let damaged = with_dependents(BTreeMap::from([(FULL.to_owned(), String::new())]), &known);
        assert_eq!(damaged[INCR], format!("it needs {FULL}, which is damaged"));
    }

    #[test]
    fn a_verdict_is_given_once_and_taken_back_when_the_backup_was_mended() {
        let whole = Report::of(OK.lines()).backups.keys().next().unwrap().clone();
        let known = [backup(FULL, &[], BackupStatus::Damaged)];
        assert_eq!(told(&known, ERROR), []);
        let mut known = [backup(&whole, &[], BackupStatus::Damaged)];
        assert_eq!(told(&known, OK), [(whole, false)]);
        known[0].page_errors = Some(true);
        assert_eq!(told(&known, OK), [], "page errors stand in the backup itself");
        known[0].page_errors = Some(false);
        known[0].expired_reason = None;
        assert_eq!(told(&known, OK), [], "not a verdict of ours");
    }
}
