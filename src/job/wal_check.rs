//! Looks at archiving and at the archive itself: what PostgreSQL says, and what really lies in the repository.
//!
//! Nothing in pgBackRest sees a segment that is missing in the middle, and `pg_stat_archiver` counts a dropped segment
//! as archived. So the archive is listed and searched for holes, per repository, and compared with what the server
//! says (`wal_check/archive.rs`), if it is the server that the repositories are for (`wal_check/server.rs`).
//!
//! Every look is a row in `wal_samples`, also one that could not see: alarms are told from the newest row, and silence
//! is no health. Only a bad look becomes a run too, and that run fails. A newcomer would return early with `?` where
//! one repository cannot be listed; the others are looked at all the same.

mod archive;
mod server;

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use tracing::info;

use self::archive::Facts;
use super::{Done, Ran, Request, Runner, catalog_failure, sync};
use crate::{
    clock::{self, Stopwatch},
    error::ExitCode,
    human::took,
    policy::Database,
    record::{AttemptEnd, BackupStatus, ErrorClass, Failure, RepoKey, RunEnd, RunState, SlotState, WalSample, Window},
};

/// What one look found so far.
struct Look {
    sample: WalSample,
    /// The windows of each repository that could be judged.
    windows: BTreeMap<RepoKey, Vec<Window>>,
    /// Backups, by their ids, whose own WAL turned out not to be complete, and those whose WAL is complete again.
    torn: Vec<String>,
    mended: Vec<String>,
    /// What kept it from seeing everything; the first such thing.
    failure: Option<Failure>,
}

impl Look {
    fn of(database: &Database, now: DateTime<Utc>) -> Self {
        Self {
            sample: server::unasked(database, now),
            windows: BTreeMap::new(),
            torn: Vec::new(),
            mended: Vec::new(),
            failure: None,
        }
    }

    /// Something that kept it from seeing everything.
    fn blinded(&mut self, failure: Failure) {
        self.sample.problems.push(failure.message.clone());
        self.failure.get_or_insert(failure);
    }

    /// Nothing can be recovered from a repository. It counts as looked at.
    fn nothing_in(&mut self, repo: RepoKey) {
        self.windows.insert(repo, Vec::new());
        self.sample.gaps.entry(repo).or_default();
    }
}

impl Runner {
    /// A WAL check: a sample when all is well, a failed run beside it when not.
    pub(super) async fn check_wal(&self, request: &Request) -> Ran {
        let watch = Stopwatch::start();
        let Some(database) = self.database(&request.job) else {
            return ended(None, Some(super::defect("the database left the policy")), &watch);
        };
        let limit = request.timeout.unwrap_or(Duration::from_secs(600));
        let mut look = Look::of(&database, clock::now());
        let looked = tokio::time::timeout(limit, self.look(&database, &mut look)).await;
        match looked.unwrap_or_else(|_| Err(timed_out(limit))) {
            // Nobody knows what it would have seen, and that is not the archive's fault.
            Err(failure) if self.is_interrupted(&failure) => return self.record_bad(request, failure, watch).await,
            Err(failure) => look.blinded(failure),
            Ok(()) => {}
        }
        match self.remember(&database, look).await {
            Ok(summary) => {
                self.settle_quietly(request).await;
                let mut ran = ended(None, None, &watch);
                ran.done = Done::new(summary);
                ran
            }
            Err(failure) => self.record_bad(request, failure, watch).await,
        }
    }

    async fn look(&self, database: &Database, look: &mut Look) -> Result<(), Failure> {
        let server = server::ask(database).await.unwrap_or_else(|failure| {
            look.blinded(failure);
            None
        });
        let seen = sync::look(database, &self.stop).await?;
        let server = server.filter(|server| match server.mistaken(database, &seen) {
            Some(failure) => {
                look.blinded(failure);
                false
            }
            None => true,
        });
        if let Some(server) = &server {
            server.tell(&database.wal, &mut look.sample);
        }
        sync::remember(&self.catalog, database, &seen).await.map_err(catalog_failure)?;
        let backups = self.catalog.backups(&database.name).await.map_err(catalog_failure)?;
        let since = backups.iter().map(|backup| backup.started_at).min().unwrap_or(look.sample.sampled_at);
        let earlier = self.catalog.wal_samples(&database.name, since).await.map_err(catalog_failure)?;
        let facts = Facts { database, seen: &seen, server: server.as_ref(), backups: &backups, earlier: &earlier };
        for repo in &database.pgbackrest.repos {
            match self.look_at_repo(&facts, *repo, look).await {
                Err(failure) if self.is_interrupted(&failure) => return Err(failure),
                Err(failure) => look.blinded(of_repo(*repo, failure)),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn is_interrupted(&self, failure: &Failure) -> bool {
        failure.class == ErrorClass::Stopped && self.stop.is_stopped()
    }

    /// Stores what was seen. A bad look is stored too, before it becomes a failed run.
    async fn remember(&self, database: &Database, look: Look) -> Result<String, Failure> {
        let name = &database.name;
        self.catalog.record_wal_sample(&look.sample).await.map_err(catalog_failure)?;
        for (repo, windows) in &look.windows {
            self.catalog.replace_windows(name, *repo, windows).await.map_err(catalog_failure)?;
        }
        self.catalog.keep_windows_of(name, &database.pgbackrest.repos).await.map_err(catalog_failure)?;
        self.judge_backups(&look).await.map_err(catalog_failure)?;
        if look.sample.problems.is_empty() {
            return Ok(format!("archived up to {}", look.sample.last_archived_wal.as_deref().unwrap_or("nothing yet")));
        }
        let message = look.sample.problems.join("; ");
        Err(Failure { message, ..look.failure.unwrap_or_else(bad_archive) })
    }

    async fn judge_backups(&self, look: &Look) -> Result<(), crate::catalog::Error> {
        let now = clock::now();
        let (good, torn) = (BackupStatus::Good, BackupStatus::Unrestorable);
        let reason = Some("WAL between its start and stop is missing from the archive");
        self.catalog.mark_backups_that_are(&[good], &look.torn, torn, reason, now).await?;
        for id in &look.mended {
            info!(database = %look.sample.database, backup = %id, "the WAL of a backup is complete again, so it can be restored");
        }
        self.catalog.mark_backups_that_are(&[torn], &look.mended, good, None, now).await
    }

    /// A good look needs no run, but its slot is done.
    async fn settle_quietly(&self, request: &Request) {
        if let Some(slot) = request.slot {
            let done = [(slot, SlotState::Done, None)];
            self.persist("a WAL check's slot", || self.catalog.settle_slots(&done)).await;
        }
    }

    async fn record_bad(&self, request: &Request, failure: Failure, watch: Stopwatch) -> Ran {
        let (run, _) = match self.open(request).await {
            Ok(opened) => opened,
            Err(unwritten) => return ended(None, Some(unwritten), &watch),
        };
        let state = if self.is_interrupted(&failure) { RunState::Interrupted } else { RunState::Failed };
        let end = RunEnd {
            state,
            finished_at: clock::now(),
            duration: watch.elapsed(),
            failure: Some(failure.clone()),
            summary: failure.message.clone(),
            diagnosis: Vec::new(),
        };
        let attempt = AttemptEnd {
            finished_at: end.finished_at,
            duration: end.duration,
            exit_code: None,
            ending: None,
            failure: Some(failure.clone()),
            tail: Vec::new(),
        };
        if let Ok(id) = self.catalog.start_attempt(run, 1, clock::now(), None).await {
            self.persist("the end of an attempt", || self.catalog.finish_attempt(id, &attempt)).await;
        }
        self.persist("the end of a run", || self.catalog.finish_run(run, &end)).await;
        super::log_end(run, request, &end);
        Ran { state, ..ended(Some(run), Some(failure), &watch) }
    }
}

fn ended(run: Option<i64>, failure: Option<Failure>, watch: &Stopwatch) -> Ran {
    let state = if failure.is_some() { RunState::Failed } else { RunState::Succeeded };
    Ran { run, state, failure, done: Done::default(), duration: watch.elapsed() }
}

/// All could be seen, and not all is well.
fn bad_archive() -> Failure {
    Failure {
        class: ErrorClass::Integrity,
        exit: ExitCode::VerificationFailed,
        message: String::new(),
        remedy: Some(
            "Look into PostgreSQL's log for `archive_command`. A segment that is still in `pg_wal` can be pushed again with `pgbackrest archive-push`; otherwise make a full backup now."
                .to_owned(),
        ),
    }
}

fn timed_out(limit: Duration) -> Failure {
    Failure {
        class: ErrorClass::Transient,
        exit: ExitCode::Storage,
        message: format!("the look at the archive took longer than {}", took(limit)),
        remedy: Some("See whether the repository answers: `pgbackrest info`.".to_owned()),
    }
}

/// A failure in the words of the repository it happened to.
fn of_repo(repo: RepoKey, failure: Failure) -> Failure {
    Failure { message: format!("repository {repo}: its archive cannot be looked at: {}", failure.message), ..failure }
}
