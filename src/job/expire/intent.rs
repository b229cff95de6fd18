//! What is about to go is written down before the tool runs.
//!
//! A backup is marked expired, with its reason, and audited; then the tool removes it; then it is marked again. Killed
//! in between, the next look finds it gone and knows why, or finds it there and takes the mark away. The second mark is
//! for a look by others that began before the removal and saw the backup: it took the first one away.

use tracing::{error, info};

use super::{labels, look, refused};
use crate::{
    clock,
    error::chain,
    human::size,
    job::{Context, catalog_failure},
    process::Stop,
    record::{Backup, BackupStatus, Failure},
    retention::Decision,
};

type Ending<'a> = (&'a Decision, &'a Backup);

/// Writes that these go now, and who wants it. One that somebody held since it was looked at stops it: it stays, and so
/// must what it needs.
pub(super) async fn write(context: &Context, ending: &[Ending<'_>]) -> Result<(), Failure> {
    for (decision, backup) in ending {
        begin(context, backup, &decision.reasons.join("; ")).await?;
        audit(context, "expire", decision, &told(decision, backup)).await?;
    }
    Ok(())
}

/// Marks what is known to the catalog as ended, as long as it is what it was taken for.
async fn begin(context: &Context, backup: &Backup, reason: &str) -> Result<(), Failure> {
    let Some(row) = known(context, backup).await? else { return Ok(()) };
    let begun = context.catalog.end_backup(&row.id, backup.status, reason, clock::now()).await;
    if begun.map_err(catalog_failure)? {
        return Ok(());
    }
    Err(refused(
        format!("{} was held or changed since the plan was made, so it stays", backup.label),
        "Look at the new plan with `backstop expire --dry-run`.",
    ))
}

/// Why it goes, how much the backup added to its repository, and to which.
fn told(decision: &Decision, backup: &Backup) -> String {
    let size = backup.repo_delta.map_or_else(|| "size unknown".to_owned(), size);
    format!("{}; {size} in repository {}", decision.reasons.join("; "), decision.repo)
}

/// Writes that these are gone.
pub(super) async fn fulfil(context: &Context, ending: &[Ending<'_>]) -> Result<(), Failure> {
    for (decision, backup) in ending {
        mark(context, backup, BackupStatus::Expired, Some(&decision.reasons.join("; "))).await?;
    }
    Ok(())
}

/// Gives back their former status to those that are there after all.
pub(super) async fn undo(context: &Context, ending: &[Ending<'_>]) -> Result<(), Failure> {
    for (decision, backup) in ending {
        mark(context, backup, backup.status, backup.expired_reason.as_deref()).await?;
        audit(context, "expire_failed", decision, "it is still in the repository").await?;
    }
    Ok(())
}

/// After the tool failed: whatever the repository still lists did not go. Where it cannot be read, the marks stay, and
/// the next look that can read it takes them away.
pub(super) async fn take_back(context: &Context, ending: &[Ending<'_>]) {
    let repo = context.repo();
    // The wish to stop may be why the tool failed; this look is short and worth it.
    let left = match look(context.database(), repo, &Stop::never()).await {
        Ok(seen) => labels(&seen, repo),
        Err(failure) => {
            error!(run_id = context.run, error = %failure.message, "it cannot be told what `expire` left behind");
            return;
        }
    };
    let still_there: Vec<Ending<'_>> = ending.iter().filter(|(one, _)| left.contains(&one.label)).copied().collect();
    if let Err(failure) = undo(context, &still_there).await {
        error!(run_id = context.run, error = %failure.message, "what `expire` left behind cannot be recorded");
    }
}

/// Says what became of a backup. One that the catalog does not know under this identity is left out.
pub(super) async fn mark(
    context: &Context,
    backup: &Backup,
    status: BackupStatus,
    reason: Option<&str>,
) -> Result<(), Failure> {
    if known(context, backup).await?.is_none() {
        return Ok(());
    }
    let id = std::slice::from_ref(&backup.id);
    context.catalog.mark_backups(id, status, reason, clock::now()).await.map_err(catalog_failure)
}

/// The catalog's row of a backup, as long as it is of the same one.
async fn known(context: &Context, backup: &Backup) -> Result<Option<Backup>, Failure> {
    let row = context.catalog.backup(&backup.id).await.map_err(catalog_failure)?;
    Ok(row.filter(|row| (row.repo, &row.label) == (backup.repo, &backup.label)))
}

pub(super) async fn audit(context: &Context, action: &str, decision: &Decision, detail: &str) -> Result<(), Failure> {
    let object = format!("{} repo {} {}", context.database().name, decision.repo, decision.label);
    let written = context.catalog.audit(&context.witness, action, &object, detail, clock::now()).await;
    let head = written.map_err(|problem| {
        error!(run_id = context.run, error = %chain(&problem), "the audit cannot be written");
        catalog_failure(problem)
    })?;
    info!(run_id = context.run, job = %context.job(), label = %decision.label, audit = %head, "audit: {action}: {detail}");
    Ok(())
}
