//! `backstop show`: everything about one run or one backup.

use chrono_tz::Tz;
use serde_json::json;

use super::{
    Answer, list,
    session::{Session, catalog_error},
};
use crate::{
    catalog::{BackupFilter, Catalog, ProofSummary},
    dump,
    error::{Error, ExitCode},
    human::{size, took},
    policy::Policy,
    record::{Attempt, Backup, BackupCopy, BackupStatus, CopyState, Dump, Migrations, Run},
    report::{
        backup::{artifact_line, best_copy, locate},
        text,
    },
};

pub(super) async fn run(session: &Session, id: &str) -> Result<Answer, Error> {
    let (policy, catalog, _) = session.policy_for_looking().await?;
    let zone = policy.daemon.timezone;
    if let Ok(number) = id.parse() {
        let found = catalog.run(number).await.map_err(catalog_error)?;
        let (run, attempts) = found.ok_or_else(|| unknown(id))?;
        let proof = catalog.proof_of_run(number).await.map_err(catalog_error)?;
        let mut page = run_page(&run, &attempts, zone);
        for step in proof.iter().flat_map(|proof| &proof.steps) {
            page.push_str(&format!(
                "  {:<16} {:<8} {:>9}  {}\n",
                step.name,
                step.outcome,
                took(step.duration),
                step.detail
            ));
        }
        let result = json!({ "run": run, "attempts": attempts, "proof": proof });
        return Ok(Answer::new("show", result, format!("run {number}"), page));
    }
    let backup = find(&catalog, id).await?;
    let mut page = backup_page(&backup, zone);
    let mut forms = list::machine_forms(&policy, &catalog, std::slice::from_ref(&backup)).await?;
    let mut form = forms.pop().unwrap_or_default();
    let mut commands = Vec::new();
    if let Some(dump) = &backup.dump {
        commands = by_hand(&policy, &backup, dump);
        page.push_str(&dump_page(&policy, dump, zone));
        form["artifacts"] = json!(dump.artifacts);
        form["restore_by_hand"] = json!(commands);
    }
    let proofs = catalog.proofs_of(std::slice::from_ref(&backup.id)).await.map_err(catalog_error)?;
    page.push_str(&proof_lines(proofs.values().flatten(), zone));
    page.push_str(&by_hand_lines(&commands));
    Ok(Answer::new("show", json!({ "backup": form }), format!("backup {}", backup.id), page))
}

/// The commands that restore it with standard tools from the copy that is read first.
fn by_hand(policy: &Policy, backup: &Backup, dump: &Dump) -> Vec<String> {
    let Some(copy) = best_copy(dump) else { return Vec::new() };
    dump::restore_by_hand(backup, &locate(policy, &copy.storage, &dump.directory))
}

/// A backup by its id, by pgBackRest's label, or by the name that a person gave it; where several have it, the newest that
/// was not ended, else the newest.
pub(super) async fn find(catalog: &Catalog, id: &str) -> Result<Backup, Error> {
    if let Some(backup) = catalog.backup(id).await.map_err(catalog_error)? {
        return Ok(backup);
    }
    let filter = BackupFilter { name: Some(id.to_owned()), include_expired: true, ..BackupFilter::default() };
    let like = catalog.all_backups(&filter).await.map_err(catalog_error)?;
    meant(like, id).ok_or_else(|| unknown(id))
}

/// What a label or name means among backups, newest first.
fn meant(mut backups: Vec<Backup>, name: &str) -> Option<Backup> {
    backups.retain(|backup| backup.label == name || backup.name.as_deref() == Some(name));
    let is_over = |backup: &Backup| matches!(backup.status, BackupStatus::Expired | BackupStatus::Lost);
    // Stable, so the newest stays before the others of its kind.
    backups.sort_by_key(is_over);
    backups.into_iter().next()
}

fn unknown(id: &str) -> Error {
    Error::new(ExitCode::Configuration, format!("there is no run and no backup `{id}`"))
        .hint("`backstop history` lists runs, `backstop list --expired` lists backups.")
}

fn run_page(run: &Run, attempts: &[Attempt], zone: Tz) -> String {
    let mut page = format!("run {} of {}: {}\n", run.id, run.job, run.state);
    let mut line = |name: &str, value: String| page.push_str(&format!("  {name:<11}{value}\n"));
    line("summary", run.summary.clone());
    line("started", format!("{} by {}", text::local(run.started_at, zone), run.requested_by));
    if let Some(nominal) = run.nominal_at {
        line("slot", text::local(nominal, zone));
    }
    if let Some(kind) = run.promoted_from {
        line("promoted", format!("a {kind} was due; a full ran in its place"));
    }
    if let (Some(finished), Some(length)) = (run.finished_at, run.duration) {
        line("finished", format!("{} after {}", text::local(finished, zone), took(length)));
    }
    line("run-id", run.uuid.clone());
    if let Some(remedy) = run.failure.as_ref().and_then(|failure| failure.remedy.as_ref()) {
        line("remedy", remedy.clone());
    }
    for found in &run.diagnosis {
        line("diagnosis", found.clone());
    }
    for attempt in attempts {
        page.push_str(&attempt_lines(attempt));
    }
    page
}

fn attempt_lines(attempt: &Attempt) -> String {
    let ending = match (&attempt.ending, attempt.exit_code) {
        (Some(word), Some(code)) => format!("{word} with code {code}"),
        (Some(word), None) => word.clone(),
        _ => "no tool ran".to_owned(),
    };
    let mut lines = format!("  attempt {}: {ending}\n", attempt.number);
    if let Some(failure) = &attempt.failure {
        lines.push_str(&format!("    {} ({})\n", failure.message, failure.class));
    }
    if let Some(path) = &attempt.log_path {
        lines.push_str(&format!("    log: {}\n", path.display()));
    }
    if attempt.failure.is_some() {
        lines.extend(attempt.tail.iter().map(|line| format!("    | {line}\n")));
    }
    lines
}

fn backup_page(backup: &Backup, zone: Tz) -> String {
    let mut page = format!("{}: {} backup of {}\n", backup.id, backup.backup_type, backup.database);
    let mut line = |name: &str, value: String| page.push_str(&format!("  {name:<11}{value}\n"));
    line("status", backup.status.to_string());
    if backup.dump.is_none() {
        line("label", format!("{} in repo {}", backup.label, backup.repo));
    }
    if let Some(name) = &backup.name {
        line("name", name.clone());
    }
    let took = took(crate::clock::age(backup.stopped_at, backup.started_at));
    line("stopped", format!("{} after {took}", text::local(backup.stopped_at, zone)));
    match (&backup.dump, backup.repo_delta) {
        (Some(_), Some(stored)) => line("size", format!("{}, {} stored", size(backup.size), size(stored))),
        _ => line("size", format!("{}, {} copied", size(backup.size), size(backup.delta))),
    }
    if let (Some(start), Some(stop)) = (&backup.wal_start, &backup.wal_stop) {
        line("WAL", format!("{start} to {stop}"));
    }
    if !backup.references.is_empty() {
        line("needs", backup.references.join(", "));
    }
    match &backup.dump {
        Some(dump) => line("made by", format!("{}, {}, {}", backup.created_by, backup.tool_version, dump.server)),
        None => {
            let pages = backup
                .page_errors
                .map_or("checksums not checked", |bad| if bad { "CHECKSUM ERRORS" } else { "checksums right" });
            line("pages", pages.to_owned());
            let tools = format!("pgBackRest {}, PostgreSQL {}", backup.tool_version, backup.server_version);
            line("made by", format!("{}, {tools}", backup.created_by));
        }
    }
    if let Some(reason) = &backup.reason {
        line("reason", reason.clone());
    }
    if !backup.tags.is_empty() {
        line("tags", backup.tags.join(", "));
    }
    if let Some(held) = &backup.held {
        let until = backup.held_until.map_or_else(String::new, |until| format!(", until {}", text::local(until, zone)));
        line("held", format!("{held}{until}"));
    }
    line("proven", backup.proven_at.map_or_else(|| "never".to_owned(), |at| text::local(at, zone)));
    if let Some(reason) = &backup.expired_reason {
        line(if backup.is_good() { "note" } else { "why" }, reason.clone());
    }
    page
}

/// How many files people are told one by one; a directory may have thousands.
const FILES: usize = 20;

/// What a dump has beyond: how it was made, its copies, its files, what to know.
fn dump_page(policy: &Policy, dump: &Dump, zone: Tz) -> String {
    let mut page = String::new();
    let mut line = |name: &str, value: String| page.push_str(&format!("  {name:<11}{value}\n"));
    let encryption = dump.encryption.as_ref().map_or_else(
        || "not encrypted".to_owned(),
        |encryption| format!("{} with key `{}`", encryption.method, encryption.key),
    );
    line("form", format!("{}, {}, {encryption}", dump.format, dump.compression));
    line("of", dump.source.clone());
    if let Some(Migrations { framework, applied_count, last_migration, .. }) = &dump.migrations {
        let last = last_migration.as_ref().map_or_else(String::new, |last| format!(", the last one {last}"));
        line("migrations", format!("{applied_count} of {framework}{last}"));
    }
    if let Some(expires_at) = dump.expires_at {
        let days = dump.retention_days.map_or_else(String::new, |days| format!(" ({days} days)"));
        line("kept until", format!("{}{days}", text::local(expires_at, zone)));
    }
    let verified = dump.verified_at.map_or_else(|| "not since it was made".to_owned(), |at| text::local(at, zone));
    line("verified", verified);
    for warning in &dump.warnings {
        line("WARNING", warning.clone());
    }
    for copy in &dump.copies {
        line("copy", copy_line(policy, dump, copy, zone));
    }
    for artifact in dump.artifacts.iter().take(FILES) {
        line("file", artifact_line(artifact));
    }
    if let Some(more) = dump.artifacts.len().checked_sub(FILES).filter(|more| *more > 0) {
        line("", format!("and {more} more, which `--json` tells"));
    }
    page
}

/// The commands stand last, so that they can be copied to the end.
fn by_hand_lines(commands: &[String]) -> String {
    if commands.is_empty() {
        return String::new();
    }
    let lines = commands.iter().map(|command| format!("    {command}\n"));
    std::iter::once("  by hand\n".to_owned()).chain(lines).collect()
}

fn copy_line(policy: &Policy, dump: &Dump, copy: &BackupCopy, zone: Tz) -> String {
    let state = if copy.state == CopyState::Good { copy.state.to_string() } else { copy.state.as_str().to_uppercase() };
    let why = copy.detail.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
    let locked =
        copy.locked_until.map_or_else(String::new, |until| format!(", locked until {}", text::local(until, zone)));
    let place = locate(policy, &copy.storage, &dump.directory);
    format!("{}: {state}{why}, looked at {}{locked}: {place}", copy.storage, text::local(copy.checked_at, zone))
}

fn proof_lines<'a>(proofs: impl Iterator<Item = &'a ProofSummary>, zone: Tz) -> String {
    let line = |proof: &ProofSummary| {
        let verdict = if proof.passed { "passed" } else { "FAILED" };
        format!("  {:<11}{verdict} at {} (run {})\n", "proof", text::local(proof.finished_at, zone), proof.run)
    };
    proofs.map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::backup::tests::{at, dump, policy};

    #[test]
    fn a_name_means_the_newest_backup_that_is_not_over() {
        let some = |id: &str, name: &str, status| Backup {
            id: id.to_owned(),
            label: id.to_owned(),
            name: Some(name.to_owned()),
            status,
            ..dump()
        };
        let all = [
            some("4", "other", BackupStatus::Good),
            some("3", "pre", BackupStatus::Expired),
            some("2", "pre", BackupStatus::Damaged),
            some("1", "pre", BackupStatus::Good),
        ];
        let means = |all: &[Backup], name: &str| meant(all.to_vec(), name).map(|backup| backup.id);
        assert_eq!(means(&all, "pre").as_deref(), Some("2"));
        assert_eq!(means(&all[..2], "pre").as_deref(), Some("3"), "one that is over can still be looked at");
        assert_eq!(means(&all, "4").as_deref(), Some("4"));
        assert_eq!(means(&all, "pr"), None);
    }

    #[test]
    fn a_dump_is_shown_with_all_that_a_person_needs_to_restore_it() {
        let backup = dump();
        let commands = ["# roles first".to_owned(), "pg_restore --dbname=shop shop.dump".to_owned()];
        let page = dump_page(&policy(), backup.dump.as_ref().unwrap(), Tz::UTC);
        let proof = ProofSummary {
            id: 1,
            run: 7,
            finished_at: at(900),
            passed: false,
            recovered_to: None,
            recovery_seconds: 1.5,
        };
        let proofs = proof_lines([&proof].into_iter(), Tz::UTC);
        let page = format!("{}{page}{proofs}{}", backup_page(&backup, Tz::UTC), by_hand_lines(&commands));
        insta::assert_snapshot!(page, @r"
        backup-20270115-080010-pre: full backup of shop
          status     good
          name       pre
          stopped    2027-01-15 08:00:15 UTC after 5s
          size       1.0 MiB, 256.5 KiB stored
          made by    ada, pg_dump 15.20, PostgreSQL 15.20
          reason     before the upgrade
          tags       release
          held       audit (by ada)
          proven     never
          form       custom, zstd:3, aes-256-ctr with key `ops`
          of         shop
          migrations 2 of prisma, the last one 2_more
          kept until 2027-02-14 08:00:00 UTC (30 days)
          verified   2027-01-15 08:10:00 UTC
          WARNING    the dump is half as large as usual
          copy       offsite: DAMAGED (`shop.dump.zst.enc` has another checksum), looked at 2027-01-15 08:00:20 UTC, locked until 2027-01-16 08:00:00 UTC: s3://acme/db/shop/backup-20270115-080010-pre
          copy       local: good, looked at 2027-01-15 08:00:20 UTC: /srv/backups/shop/backup-20270115-080010-pre
          file       globals.sql.zst.enc (globals, 512 B) sha256 bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
          file       shop.dump.zst.enc (data, 256.0 KiB) sha256 bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
          proof      FAILED at 2027-01-15 08:15:00 UTC (run 7)
          by hand
            # roles first
            pg_restore --dbname=shop shop.dump
        ");
    }
}
