//! `backstop show`: everything about one run or one backup.

use serde_json::json;

use super::{
    Answer,
    list::machine_form,
    session::{Session, catalog_error},
};
use crate::{
    catalog::{BackupFilter, Catalog},
    error::{Error, ExitCode},
    human::took,
    record::{Attempt, Backup, Run},
    report::text,
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
    let page = backup_page(&backup, zone);
    Ok(Answer::new("show", json!({ "backup": machine_form(&backup) }), format!("backup {}", backup.id), page))
}

/// A backup by its id, by pgBackRest's label, or by the name that a person gave it; the newest where several have it.
async fn find(catalog: &Catalog, id: &str) -> Result<Backup, Error> {
    if let Some(backup) = catalog.backup(id).await.map_err(catalog_error)? {
        return Ok(backup);
    }
    let filter = BackupFilter { name: Some(id.to_owned()), include_expired: true, ..BackupFilter::default() };
    let like = catalog.all_backups(&filter).await.map_err(catalog_error)?;
    let is_it = |backup: &Backup| backup.label == id || backup.name.as_deref() == Some(id);
    like.into_iter().find(is_it).ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> Error {
    Error::new(ExitCode::Configuration, format!("there is no run and no backup `{id}`"))
        .hint("`backstop history` lists runs, `backstop list --expired` lists backups.")
}

fn run_page(run: &Run, attempts: &[Attempt], zone: chrono_tz::Tz) -> String {
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

fn backup_page(backup: &Backup, zone: chrono_tz::Tz) -> String {
    let mut page = format!("{}: {} backup of {}\n", backup.id, backup.backup_type, backup.database);
    let mut line = |name: &str, value: String| page.push_str(&format!("  {name:<11}{value}\n"));
    line("status", backup.status.to_string());
    line("label", format!("{} in repo {}", backup.label, backup.repo));
    line("stopped", text::local(backup.stopped_at, zone));
    line("size", format!("{}, {} copied", crate::human::size(backup.size), crate::human::size(backup.delta)));
    if let (Some(start), Some(stop)) = (&backup.wal_start, &backup.wal_stop) {
        line("WAL", format!("{start} to {stop}"));
    }
    if !backup.references.is_empty() {
        line("needs", backup.references.join(", "));
    }
    line(
        "pages",
        backup
            .page_errors
            .map_or("checksums not checked", |bad| if bad { "CHECKSUM ERRORS" } else { "checksums right" })
            .to_owned(),
    );
    line(
        "made by",
        format!("{}, pgBackRest {}, PostgreSQL {}", backup.created_by, backup.tool_version, backup.server_version),
    );
    if let Some(reason) = &backup.reason {
        line("reason", reason.clone());
    }
    line("proven", backup.proven_at.map_or_else(|| "never".to_owned(), |at| text::local(at, zone)));
    if let Some(reason) = &backup.expired_reason {
        line("ended", reason.clone());
    }
    page
}
