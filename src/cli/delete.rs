//! `backstop delete`: one backup goes, because a person says so.
//!
//! What speaks against it is decided by `retention/delete.rs`, after the lock is held, so that nothing changes between
//! the question and the deed. A dump is deleted by ourselves, a backup of pgBackRest by its own `expire --set`, in a run
//! like that of the rules. A newcomer would believe the catalog about what was built on a backup; the repository is asked.

use std::collections::BTreeMap;

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
    job::{
        self, Request, Runner,
        expire::{Guard, Preview, Question},
        guard,
    },
    policy::{Database, Policy},
    process::Stop,
    record::{Backup, CopyState, JobKey, JobKind},
    report::{
        backup::{copies_column, locate},
        text,
    },
    retention::{
        Circumstances, Selection,
        delete::{Objection, objections},
    },
};

/// What may be asked.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The id of a backup
    id: String,
    /// Why; stays in the audit
    #[arg(long, default_value = "by hand")]
    reason: String,
    /// Delete it although it is proven, important, a safety backup, or its own retention is not over
    #[arg(long)]
    force: bool,
    /// Show what would go; do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// What speaks against it, parted by whether the person may pass it.
struct Against {
    stands: Vec<Objection>,
    overruled: Vec<Objection>,
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
        return dry_run(session, options, &policy, &catalog, &database, &backup).await;
    }
    let key = key(&database, &backup)?;
    let act = Act::begin(session, policy, catalog, &key).await?;
    // Whoever had the lock before may have ended or proven it.
    let backup = find(&act.runner.catalog, &options.id).await?;
    let against = against(session, options, &act.runner.policy, &act.runner.catalog, &backup).await?;
    refuse(&backup, &against.stands)?;
    let why = why(options, &against.overruled);
    if backup.dump.is_none() {
        return physical(session, options, &act, &backup, why).await;
    }
    ask(options, &act, &backup).await?;
    let watch = crate::clock::Stopwatch::start();
    let done = job::delete(&act.runner, &backup, &why, &session.witness).await.map_err(|failure| {
        Error::new(failure.exit, format!("`{}` could not be deleted everywhere", backup.id))
            .because(failure.message)
            .hint(failure.remedy.unwrap_or_else(|| "Try again; what is gone stays gone.".to_owned()))
    })?;
    let text = format!("{}; it took {}", done.summary, took(watch.elapsed()));
    let result = json!({ "backup_id": backup.id, "freed_bytes": freed(&backup), "summary": done.summary });
    Ok(Answer::new("delete", result, done.summary, text).about(&database))
}

async fn ask(options: &Options, act: &Act, backup: &Backup) -> Result<(), Error> {
    if !act.database.protected {
        return Ok(());
    }
    let page = page(&act.runner.policy, backup);
    act::confirm(options.yes, ("delete", act::PROTECTED), &page, "delete it?", &act.runner.stop).await
}

/// Lets pgBackRest delete it. The repository is asked first whether anything was built on it.
async fn physical(
    session: &Session,
    options: &Options,
    act: &Act,
    backup: &Backup,
    why: String,
) -> Result<Answer, Error> {
    let Runner { policy, catalog, stop, .. } = &act.runner;
    let selection = Selection::Deleted { id: backup.id.clone(), force: options.force, why };
    let preview = question(session, policy, catalog, &act.database, (backup, &selection)).prepare(stop).await;
    let preview = preview.map_err(Error::from)?;
    refuse(backup, &kept(&preview, backup))?;
    ask(options, act, backup).await?;
    let (confirmed, selection) = (Some(preview.going()), Some(selection));
    let request = Request { confirmed, selection, ..act::request(session, key(&act.database, backup)?) };
    let answer = act.run("delete", &request).await?;
    let result = json!({
        "backup_id": backup.id,
        "freed_bytes": freed(backup),
        "summary": answer.message,
        "run": answer.result["run"],
    });
    let message = format!("backup {} ({}) is deleted", backup.id, backup.label);
    Ok(Answer::new("delete", result, message.clone(), format!("{message}; {}", answer.text)).about(&act.database))
}

fn question<'a>(
    session: &Session,
    policy: &'a Policy,
    catalog: &'a Catalog,
    database: &'a Database,
    (backup, selection): (&Backup, &'a Selection),
) -> Question<'a> {
    let (repo, selection, guard) = (backup.repo, Some(selection), Guard::Former);
    Question { policy, database, repo, selection, guard, catalog, now: session.now }
}

/// Why the plan keeps it after all.
fn kept(preview: &Preview, backup: &Backup) -> Vec<Objection> {
    match preview.decision(&backup.id) {
        None => {
            let remedy = format!("Look at `backstop list {} --expired`.", backup.database);
            vec![Objection::hard("the repository does not show it, or it is of a former cluster", remedy)]
        }
        Some(decision) if decision.keep => {
            let reason = |reason: &String| {
                Objection::hard(
                    reason.trim_start_matches("kept: "),
                    "`backstop expire --dry-run` shows the whole plan.",
                )
            };
            decision.reasons.iter().map(reason).collect()
        }
        Some(_) => Vec::new(),
    }
}

/// The lock and the run it needs: in the repository where there are several.
fn key(database: &Database, backup: &Backup) -> Result<JobKey, Error> {
    let repo = (backup.dump.is_none() && database.repos() != [backup.repo]).then_some(backup.repo);
    act::key(database, JobKind::Expire, repo)
}

/// What the audit says: the person's reason, and what it was stronger than.
fn why(options: &Options, overruled: &[Objection]) -> String {
    if overruled.is_empty() {
        return options.reason.clone();
    }
    format!("{} (--force, although: {})", options.reason, whys(overruled).join("; "))
}

async fn find(catalog: &Catalog, id: &str) -> Result<Backup, Error> {
    catalog.backup(id).await.map_err(catalog_error)?.ok_or_else(|| {
        Error::new(ExitCode::Configuration, format!("there is no backup with the id `{id}`"))
            .hint("`backstop list` shows the ids; a name or label is not enough to delete by.")
    })
}

/// Shows what would be done; where that is refused, the exit code says so too.
async fn dry_run(
    session: &Session,
    options: &Options,
    policy: &Policy,
    catalog: &Catalog,
    database: &Database,
    backup: &Backup,
) -> Result<Answer, Error> {
    let Against { mut stands, overruled } = against(session, options, policy, catalog, backup).await?;
    if backup.dump.is_none() && stands.is_empty() {
        // Refuses a repository that the policy does not have.
        key(database, backup)?;
        let selection = Selection::Deleted { id: backup.id.clone(), force: options.force, why: options.reason.clone() };
        let question = question(session, policy, catalog, database, (backup, &selection));
        stands = kept(&question.preview(&Stop::never()).await.map_err(Error::from)?, backup);
    }
    let mut text = page(policy, backup);
    for (word, found) in [("refused", &stands), ("overruled", &overruled)] {
        for Objection { why, remedy, .. } in found {
            let remedy = if word == "refused" { format!(". {remedy}") } else { String::new() };
            text.push_str(&format!("  {word:<11}{why}{remedy}\n"));
        }
    }
    let (message, exit) = match stands.is_empty() {
        true => (format!("`{}` would be deleted", backup.id), ExitCode::Done),
        false => (format!("`{}` would stay: {}", backup.id, whys(&stands).join("; ")), ExitCode::Configuration),
    };
    let result = json!({
        "dry_run": true,
        "backup_id": backup.id,
        "would_delete": stands.is_empty(),
        "objections": whys(&stands),
        "overruled": whys(&overruled),
        "freed_bytes": freed(backup),
    });
    Ok(Answer { exit, ..Answer::new("delete", result, message, text).about(database) })
}

fn whys(found: &[Objection]) -> Vec<&str> {
    found.iter().map(|objection| objection.why.as_str()).collect()
}

/// Everything that speaks against it: the catalog's state, then the backup's own.
async fn against(
    session: &Session,
    options: &Options,
    policy: &Policy,
    catalog: &Catalog,
    backup: &Backup,
) -> Result<Against, Error> {
    let mut found = Vec::new();
    let accept = |why| Objection::hard(why, "Look at `backstop list`, then say `backstop catalog accept`.");
    if let Some(mode) = catalog.recovery_mode().await.map_err(catalog_error)? {
        found.push(accept(format!("nothing is deleted in recovery mode: {}", mode.why)));
    }
    if let Some(why) = guard::frozen_since(catalog).await.map_err(catalog_error)? {
        found.push(accept(format!("nothing is deleted: {why}")));
    }
    let filter = BackupFilter { database: Some(backup.database.clone()), ..BackupFilter::default() };
    let all = catalog.all_backups(&filter).await.map_err(catalog_error)?;
    let at = Circumstances { now: session.now, zone: policy.daemon.timezone, pinned: BTreeMap::new() };
    let rules = &session::find(policy, &backup.database)?.retention;
    found.extend(objections(backup, &all, rules, &at));
    let (stands, overruled) = found.into_iter().partition(|objection| objection.stands(options.force));
    Ok(Against { stands, overruled })
}

fn refuse(backup: &Backup, found: &[Objection]) -> Result<(), Error> {
    let Some(first) = found.first() else { return Ok(()) };
    Err(Error::new(ExitCode::Configuration, format!("`{}` is not deleted", backup.id))
        .because(whys(found).join("; "))
        .hint(first.remedy.clone()))
}

/// Bytes that its copies take; those that are not there take none.
fn freed(backup: &Backup) -> u64 {
    let Some(dump) = &backup.dump else { return backup.repo_delta.unwrap_or_default() };
    let gone = |state| matches!(state, CopyState::Failed | CopyState::Missing | CopyState::Deleted);
    dump.copies.iter().filter(|copy| !gone(copy.state)).map(|_| dump.stored_size()).sum()
}

fn page(policy: &Policy, backup: &Backup) -> String {
    let what = if backup.dump.is_some() { "dump".to_owned() } else { format!("{} backup", backup.backup_type) };
    let mut page = format!("{}: {what} of {}\n", backup.id, backup.database);
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
        let found =
            [Objection::hard("held, audit", "Release it."), Objection::hard("the newest good backup", "Make another.")];
        let error = refuse(&dump(), &found).unwrap_err();
        assert_eq!(error.exit(), ExitCode::Configuration);
        insta::assert_snapshot!(error.report(), @r"
        error: `backup-20270115-080010-pre` is not deleted
          caused by: held, audit; the newest good backup
        hint: Release it.
        ");
        assert!(refuse(&dump(), &[]).is_ok());
    }
}
