//! `backstop list`: the backups.

use serde_json::json;

use super::{
    Answer,
    moment::{Moment, moment},
    session::{self, Session, catalog_error},
};
use crate::{
    catalog::{BackupFilter, BackupSort, Catalog},
    error::Error,
    policy::Policy,
    record::{Backup, DatabaseName, EngineKind},
    report::{backup::machine_form, text},
};

/// What may be asked.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Only this database
    database: Option<DatabaseName>,
    /// The same, for those who like to name it
    #[arg(long = "database", value_name = "DATABASE", conflicts_with = "database")]
    named: Option<DatabaseName>,
    /// Only databases of this environment
    #[arg(long)]
    environment: Option<String>,
    /// Only backups of this engine: pgbackrest, pg_dump, mysqldump, sqlite
    #[arg(long)]
    engine: Option<EngineKind>,
    /// Only backups whose name has this text
    #[arg(long)]
    label: Option<String>,
    /// Only backups younger than this, e.g. `7d`, or since this day or time (RFC 3339)
    #[arg(long, value_name = "AGE|TIME", value_parser = moment)]
    since: Option<Moment>,
    /// Also those that retention ended, somebody deleted or the repository lost
    #[arg(long)]
    expired: bool,
    /// What comes first: created (the newest), size (the largest), database (by name)
    #[arg(long, default_value = "created", value_name = "KEY")]
    sort: BackupSort,
    /// At most so many; 0 is all
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: u32,
}

pub(super) async fn run(session: &Session, options: &Options) -> Result<Answer, Error> {
    let (policy, catalog, _) = session.policy_for_looking().await?;
    let database = options.database.clone().or_else(|| options.named.clone());
    let zone = policy.daemon.timezone;
    let filter = BackupFilter {
        database: database.clone(),
        environment: options.environment.clone(),
        engine: options.engine,
        name: options.label.clone(),
        since: options.since.map(|since| since.before(session.now, zone)),
        include_expired: options.expired,
        sort: Some(options.sort),
        limit: options.limit,
    };
    let backups = catalog.all_backups(&filter).await.map_err(catalog_error)?;
    if let Some(name) = database.filter(|_| backups.is_empty()) {
        session::find(&policy, &name)?;
    }
    let text = text::backups_table(&backups, session.now, zone);
    let listed = machine_forms(&policy, &catalog, &backups).await?;
    Ok(Answer::new("list", json!({ "backups": listed }), format!("{} backups", backups.len()), text))
}

/// Backups in their machine form, with their proofs.
pub(super) async fn machine_forms(
    policy: &Policy,
    catalog: &Catalog,
    backups: &[Backup],
) -> Result<Vec<serde_json::Value>, Error> {
    let ids: Vec<String> = backups.iter().map(|backup| backup.id.clone()).collect();
    let proofs = catalog.proofs_of(&ids).await.map_err(catalog_error)?;
    let of = |backup: &Backup| proofs.get(&backup.id).map(Vec::as_slice).unwrap_or_default();
    Ok(backups.iter().map(|backup| machine_form(policy, backup, of(backup))).collect())
}
