//! `backstop delete`: one dump goes, because a person says so.
//!
//! What speaks against it is decided by `retention/delete.rs`, after the lock is held, so that nothing changes between
//! the question and the deed.

use serde_json::json;

use super::{
    Answer,
    act::{self, Act},
    session::{self, Session, catalog_error},
};
use crate::{
    catalog::{BackupFilter, Catalog},
    error::{Error, ExitCode},
    human::{size, took},
    job::{self, guard},
    policy::{Database, Policy},
    record::{Backup, CopyState, JobKind},
    report::{
        backup::{copies_column, locate},
        text,
    },
    retention::delete::{Objection, objections},
};

/// What may be asked.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The id of a dump
    id: String,
    /// Why; stays in the audit
    #[arg(long, default_value = "by hand")]
    reason: String,
    /// Show what would go; do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) async fn run(session: &Session, options: &Options) -> Result<Answer, Error> {
    // A file that is broken stops this verb: it deletes, so it must know what the owner wants today.
    let policy = session.policy()?;
    let catalog = match options.dry_run {
        true => session.read_catalog(&policy).await?,
        false => session.write_catalog(&policy).await?,
    };
    let backup = find(&catalog, &options.id).await?;
    let database = session::find(&policy, &backup.database)?.clone();
    if options.dry_run {
        return dry_run(session, &policy, &catalog, &database, &backup).await;
    }
    let key = act::key(&database, JobKind::Expire, None)?;
    let act = Act::begin(session, policy, catalog, &key).await?;
    // Whoever had the lock before may have ended or proven it.
    let backup = find(&act.runner.catalog, &options.id).await?;
    refuse(&backup, against(session, &act.runner.catalog, &backup).await?)?;
    if database.protected {
        let page = page(&act.runner.policy, &backup);
        act::confirm(options.yes, "delete", &page, "delete it?", &act.runner.stop).await?;
    }
    let watch = crate::clock::Stopwatch::start();
    let done = job::delete(&act.runner, &backup, &options.reason, &session.witness).await.map_err(|failure| {
        Error::new(failure.exit, format!("`{}` could not be deleted everywhere", backup.id))
            .because(failure.message)
            .hint(failure.remedy.unwrap_or_else(|| "Try again; what is gone stays gone.".to_owned()))
    })?;
    let text = format!("{}; it took {}", done.summary, took(watch.elapsed()));
    let result = json!({ "backup_id": backup.id, "freed_bytes": freed(&backup), "summary": done.summary });
    Ok(Answer::new("delete", result, done.summary, text).about(&database))
}

async fn find(catalog: &Catalog, id: &str) -> Result<Backup, Error> {
    catalog.backup(id).await.map_err(catalog_error)?.ok_or_else(|| {
        Error::new(ExitCode::Configuration, format!("there is no backup with the id `{id}`"))
            .hint("`backstop list` shows the ids; a name or label is not enough to delete by.")
    })
}

async fn dry_run(
    session: &Session,
    policy: &Policy,
    catalog: &Catalog,
    database: &Database,
    backup: &Backup,
) -> Result<Answer, Error> {
    let found = against(session, catalog, backup).await?;
    let mut text = page(policy, backup);
    for Objection { why, .. } in &found {
        text.push_str(&format!("  refused    {why}\n"));
    }
    let whys: Vec<&str> = found.iter().map(|objection| objection.why.as_str()).collect();
    let message = if found.is_empty() {
        format!("`{}` would be deleted", backup.id)
    } else {
        format!("`{}` would stay", backup.id)
    };
    let result = json!({
        "dry_run": true,
        "backup_id": backup.id,
        "would_delete": found.is_empty(),
        "objections": whys,
        "freed_bytes": freed(backup),
    });
    Ok(Answer::new("delete", result, message, text).about(database))
}

/// Everything that speaks against it: the catalog's state, then the backup's own.
async fn against(session: &Session, catalog: &Catalog, backup: &Backup) -> Result<Vec<Objection>, Error> {
    let mut found = Vec::new();
    let accept =
        |why| Objection { why, remedy: "Look at `backstop list`, then say `backstop catalog accept`.".to_owned() };
    if let Some(mode) = catalog.recovery_mode().await.map_err(catalog_error)? {
        found.push(accept(format!("nothing is deleted in recovery mode: {}", mode.why)));
    }
    if let Some(why) = guard::frozen_since(catalog).await.map_err(catalog_error)? {
        found.push(accept(format!("nothing is deleted: {why}")));
    }
    let filter = BackupFilter { database: Some(backup.database.clone()), ..BackupFilter::default() };
    let all = catalog.all_backups(&filter).await.map_err(catalog_error)?;
    found.extend(objections(backup, &all, session.now));
    Ok(found)
}

fn refuse(backup: &Backup, found: Vec<Objection>) -> Result<(), Error> {
    let Some(first) = found.first() else { return Ok(()) };
    let whys: Vec<&str> = found.iter().map(|objection| objection.why.as_str()).collect();
    Err(Error::new(ExitCode::Configuration, format!("`{}` is not deleted", backup.id))
        .because(whys.join("; "))
        .hint(first.remedy.clone()))
}

/// Bytes that its copies take; those that are not there take none.
fn freed(backup: &Backup) -> u64 {
    let Some(dump) = &backup.dump else { return 0 };
    let gone = |state| matches!(state, CopyState::Failed | CopyState::Missing | CopyState::Deleted);
    dump.copies.iter().filter(|copy| !gone(copy.state)).map(|_| dump.stored_size()).sum()
}

fn page(policy: &Policy, backup: &Backup) -> String {
    let mut page = format!("{}: dump of {}\n", backup.id, backup.database);
    let mut line = |name: &str, value: String| page.push_str(&format!("  {name:<11}{value}\n"));
    line("made", text::local(backup.stopped_at, policy.daemon.timezone));
    line("copies", copies_column(backup));
    if let Some(dump) = &backup.dump {
        for copy in &dump.copies {
            line("", locate(policy, &copy.storage, &dump.directory));
        }
    }
    line("frees", size(freed(backup)));
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::backup::tests::{dump, policy};

    #[test]
    fn what_would_go_is_shown_with_its_places() {
        insta::assert_snapshot!(page(&policy(), &dump()), @r"
        backup-20270115-080010-pre: dump of shop
          made       2027-01-15 08:00:15 UTC
          copies     offsite! local
                     s3://acme/db/shop/backup-20270115-080010-pre
                     /srv/backups/shop/backup-20270115-080010-pre
          frees      513.0 KiB
        ");
    }

    #[test]
    fn a_refusal_says_everything_that_speaks_against_it() {
        let objection = |why: &str, remedy: &str| Objection { why: why.to_owned(), remedy: remedy.to_owned() };
        let found = vec![objection("it is held: audit", "Release it."), objection("it is the newest", "Make another.")];
        let error = refuse(&dump(), found).unwrap_err();
        assert_eq!(error.exit(), ExitCode::Configuration);
        insta::assert_snapshot!(error.report(), @r"
        error: `backup-20270115-080010-pre` is not deleted
          caused by: it is held: audit; it is the newest
        hint: Release it.
        ");
        assert!(refuse(&dump(), Vec::new()).is_ok());
    }
}
