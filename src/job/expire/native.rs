//! Retention by pgBackRest's own settings, where the policy leaves it to them.
//!
//! Its dry run is the plan that people see and agree to. What really went is then read from the repository.

use std::{collections::BTreeSet, time::Duration};

use super::{Preview, compare, intent, labels, look, refused};
use crate::{
    engine::pgbackrest::{PgBackRest, expire::Expiry},
    job::{Context, Done, sync},
    process::Stop,
    record::{Backup, BackupStatus, Failure, RepoKey},
    retention::{Decision, Plan},
};

const REASON: &str = "ended by pgBackRest's own retention";
/// A dry run lists the archive as a real one does.
const LIMIT: Duration = Duration::from_secs(600);

/// Asks pgBackRest what it would end now, and which WAL. `backups` are the newest first.
pub(super) async fn plan(
    tool: &PgBackRest,
    repo: RepoKey,
    backups: &[Backup],
    stop: &Stop,
) -> Result<(Plan, Vec<String>), Failure> {
    let said = sync::ask(&tool.expire_native(repo, true).timeout(Some(LIMIT)), stop).await?;
    let would = Expiry::of(String::from_utf8_lossy(&said).lines());
    Ok((decisions(backups, &would), would.wal_words()))
}

fn decisions(backups: &[Backup], would: &Expiry) -> Plan {
    let decide = |backup: &Backup| {
        let keep = !would.backups.contains(&backup.label);
        let reason =
            if keep { "kept: by pgBackRest's own retention" } else { "expires: by pgBackRest's own retention" };
        Decision {
            backup_id: backup.id.clone(),
            label: backup.label.clone(),
            repo: backup.repo,
            keep,
            reasons: vec![reason.to_owned()],
        }
    };
    Plan { decisions: backups.iter().map(decide).collect() }
}

pub(super) async fn run(context: &Context, tool: &PgBackRest, preview: &Preview) -> Result<Done, Failure> {
    let ending = preview.ending();
    none_is_held(context, &ending)?;
    if let Err(failure) = intent::write(context, &ending).await {
        intent::take_back(context, &ending).await;
        return Err(failure);
    }
    if let Err(failure) = context.tool("expire", &tool.expire_native(preview.repo, false), |_| {}).await {
        intent::take_back(context, &ending).await;
        return Err(failure);
    }
    let seen = look(context.database(), preview.repo, &context.stop).await?;
    let left = labels(&seen, preview.repo);
    let (still_there, gone): (Vec<_>, Vec<_>) = ending.into_iter().partition(|(one, _)| left.contains(&one.label));
    intent::fulfil(context, &gone).await?;
    intent::undo(context, &still_there).await?;
    let more = others_that_went(context, preview, &left).await?;
    compare(context, preview).await?;
    Ok(Done::new(format!("{} backups {REASON}", gone.len() + more)))
}

/// pgBackRest knows no holds, and its `expire` cannot leave one backup out.
fn none_is_held(context: &Context, ending: &[(&Decision, &Backup)]) -> Result<(), Failure> {
    let held = ending.iter().find_map(|(_, backup)| Some((backup, backup.held_at(context.now())?)));
    let Some((backup, why)) = held else { return Ok(()) };
    Err(refused(
        format!("pgBackRest's own retention would end {}, which is held: {why}; nothing was ended", backup.label),
        "Raise the retention in pgbackrest.conf, or release the backup.",
    ))
}

/// Records what went although the dry run did not name it; `compare` then makes it known.
async fn others_that_went(context: &Context, preview: &Preview, left: &BTreeSet<String>) -> Result<usize, Failure> {
    let kept = preview.rows().filter(|(decision, _)| decision.keep && !left.contains(&decision.label));
    let went: Vec<(&Decision, &Backup)> = kept.collect();
    for (decision, backup) in &went {
        intent::mark(context, backup, BackupStatus::Expired, Some(REASON)).await?;
        intent::audit(context, "expire", decision, REASON).await?;
    }
    Ok(went.len())
}
