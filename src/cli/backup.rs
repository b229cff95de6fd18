//! `backstop backup`: a backup now, by the same locks, catalog and code as the daemon's.

use super::{
    Answer,
    act::{self, Act},
    session::{self, Session},
};
use crate::{
    error::{Error, ExitCode},
    job::Remarks,
    record::{BackupType, DatabaseName, JobKind, RepoKey, UnknownWord},
};

/// What may be asked.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The database
    database: DatabaseName,
    /// How much to copy: full, diff or incr
    #[arg(long = "type", value_name = "TYPE", default_value = "incr", value_parser = backup_type)]
    backup_type: BackupType,
    /// The repository, where there are several; the first when left out
    #[arg(long, value_name = "N")]
    repo: Option<RepoKey>,
    /// A name for it: a-z, 0-9 and `-`, at most 32 characters
    #[arg(long, value_parser = label)]
    label: Option<String>,
    /// Why it is made
    #[arg(long)]
    reason: Option<String>,
    /// A free word; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
}

/// The words of the policy, long and short.
fn backup_type(text: &str) -> Result<BackupType, String> {
    match text {
        "differential" => Ok(BackupType::Diff),
        "incremental" => Ok(BackupType::Incr),
        word => word.parse().map_err(|unknown: UnknownWord| unknown.to_string()),
    }
}

fn label(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=32).contains(&text.len()) && text.chars().all(good) {
        Ok(text.to_owned())
    } else {
        Err("use 1 to 32 of a-z, 0-9 and `-`".to_owned())
    }
}

pub(super) async fn run(session: &Session, options: &Options) -> Result<Answer, Error> {
    let policy = session.policy()?;
    let database = session::find(&policy, &options.database)?;
    let several = database.pgbackrest.repos.len() > 1;
    let repo = options.repo.or_else(|| several.then(|| database.pgbackrest.repos[0]));
    let key = act::key(database, JobKind::from(options.backup_type), repo)?;
    let catalog = session.write_catalog(&policy).await?;
    let act = Act::begin(session, policy, catalog, &key).await?;
    let mut request = act::request(session, key);
    request.remarks =
        Remarks { name: options.label.clone(), reason: options.reason.clone(), tags: options.tags.clone() };
    let mut answer = act.run("backup", &request).await?;
    if let Some(id) = answer.result["backup_id"].as_str().map(str::to_owned) {
        let backup = act.runner.catalog.backup(&id).await.map_err(session::catalog_error)?;
        let backup = backup
            .ok_or_else(|| Error::new(ExitCode::Defect, format!("backup `{id}` was made but is not in the catalog")))?;
        answer.result["backup"] = super::list::machine_form(&backup);
    }
    Ok(answer)
}
