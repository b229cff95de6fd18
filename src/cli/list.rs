//! `backstop list`: the backups.

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::{
    Answer,
    session::{self, Session, catalog_error},
};
use crate::{
    catalog::BackupFilter,
    error::Error,
    record::{Backup, DatabaseName},
    report::text,
};

/// What may be asked.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Only this database
    database: Option<DatabaseName>,
    /// Only databases of this environment
    #[arg(long)]
    environment: Option<String>,
    /// Only backups whose name has this text
    #[arg(long)]
    label: Option<String>,
    /// Only backups younger than this, e.g. `7d`
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    since: Option<std::time::Duration>,
    /// Also those that retention ended or the repository lost
    #[arg(long)]
    expired: bool,
    /// At most so many
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: u32,
}

pub(super) async fn run(session: &Session, options: &Options) -> Result<Answer, Error> {
    let (policy, catalog, _) = session.policy_for_looking().await?;
    let since = options.since.and_then(|age| TimeDelta::from_std(age).ok()).map(|age| session.now - age);
    let filter = BackupFilter {
        database: options.database.clone(),
        environment: options.environment.clone(),
        name: options.label.clone(),
        since,
        include_expired: options.expired,
        limit: options.limit,
    };
    let backups = catalog.all_backups(&filter).await.map_err(catalog_error)?;
    if let Some(name) = options.database.as_ref().filter(|_| backups.is_empty()) {
        session::find(&policy, name)?;
    }
    let text = text::backups_table(&backups, policy.daemon.timezone);
    let listed: Vec<Value> = backups.iter().map(machine_form).collect();
    Ok(Answer::new("list", json!({ "backups": listed }), format!("{} backups", backups.len()), text))
}

/// A backup as the machine form promises it: our facts under the stable names.
pub(super) fn machine_form(backup: &Backup) -> Value {
    let mut form = serde_json::to_value(backup).unwrap_or_default();
    let extra = json!({
        "backup_id": backup.id,
        "type": backup.backup_type,
        "created_at": backup.started_at,
        "size_bytes": backup.size,
        "size_human": crate::human::size(backup.size),
        "duration_seconds": (backup.stopped_at - backup.started_at).num_seconds(),
        "copies": [{ "repo": backup.repo, "label": backup.label, "stored_bytes": backup.repo_delta }],
    });
    if let (Some(form), Some(extra)) = (form.as_object_mut(), extra.as_object()) {
        form.extend(extra.clone());
    }
    form
}
