//! `backstop verify`: every byte of every copy, read again.

use serde_json::json;

use super::{
    Answer,
    act::{self, Act},
    list, session,
    session::{Session, catalog_error},
    show,
};
use crate::{
    error::{Error, ExitCode},
    job::Request,
    policy::{Database, Policy},
    record::{Backup, BackupStatus, DatabaseName, JobKey, JobKind, RepoKey},
};

/// What may be asked.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// A database, or the id or name of one dump
    what: String,
    /// The repository, where there are several; all of the database when left out
    #[arg(long, value_name = "N")]
    repo: Option<RepoKey>,
}

pub(super) async fn run(session: &Session, options: &Options) -> Result<Answer, Error> {
    let policy = session.policy()?;
    match named(&policy, &options.what) {
        Some(database) => of_database(session, policy.clone(), database, options.repo).await,
        None => of_backup(session, policy, &options.what).await,
    }
}

fn named<'a>(policy: &'a Policy, what: &str) -> Option<&'a Database> {
    policy.databases.get(&what.parse::<DatabaseName>().ok()?)
}

async fn of_database(
    session: &Session,
    policy: Policy,
    database: &Database,
    repo: Option<RepoKey>,
) -> Result<Answer, Error> {
    let keys = keys(database, repo)?;
    let catalog = session.write_catalog(&policy).await?;
    let act = Act::begin(session, policy, catalog, &keys[0]).await?;
    let (mut texts, mut runs, mut failed) = (Vec::new(), Vec::new(), None);
    for key in keys {
        // Damage in one repository is no reason to leave the next one unread.
        match act.run("verify", &act::request(session, key)).await {
            Ok(answer) => {
                texts.push(answer.text);
                runs.push(answer.result);
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    let text = texts.join("\n");
    Ok(Answer::new("verify", json!({ "runs": runs }), text.clone(), text).about(database))
}

/// One job for a dumped database, one for each repository of another.
fn keys(database: &Database, repo: Option<RepoKey>) -> Result<Vec<JobKey>, Error> {
    let repos = &database.pgbackrest.repos;
    if database.engine.is_dump() || repo.is_some() || repos.len() == 1 {
        return Ok(vec![act::key(database, JobKind::Verify, repo)?]);
    }
    repos.iter().map(|repo| act::key(database, JobKind::Verify, Some(*repo))).collect()
}

async fn of_backup(session: &Session, policy: Policy, id: &str) -> Result<Answer, Error> {
    let catalog = session.write_catalog(&policy).await?;
    let backup = show::find(&catalog, id).await?;
    may_be_verified(&backup)?;
    let key = act::key(session::find(&policy, &backup.database)?, JobKind::Verify, None)?;
    let act = Act::begin(session, policy, catalog, &key).await?;
    let request = Request { target: Some(backup.id.clone()), ..act::request(session, key) };
    let mut answer = act.run("verify", &request).await?;
    let again = act.runner.catalog.backup(&backup.id).await.map_err(catalog_error)?.unwrap_or(backup);
    let forms = list::machine_forms(&act.runner.policy, &act.runner.catalog, &[again]).await?;
    answer.result["backup"] = forms.into_iter().next().unwrap_or_default();
    Ok(answer)
}

fn may_be_verified(backup: &Backup) -> Result<(), Error> {
    if !backup.engine.is_dump() {
        return Err(Error::new(ExitCode::Usage, "pgBackRest verifies a whole repository, not one backup")
            .hint(format!("Say `backstop verify {}`.", backup.database)));
    }
    if backup.status == BackupStatus::Expired {
        return Err(Error::new(ExitCode::Configuration, format!("`{}` was ended, nothing is left to read", backup.id))
            .hint(format!("`backstop show {}` says why.", backup.id)));
    }
    Ok(())
}
