//! What a job gets to work with, and the one way in which it runs a long tool.

use std::{
    collections::BTreeSet,
    fs::File,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tracing::warn;

use super::{Progress, Remarks, Request, Runner};
use crate::{
    catalog::Catalog,
    clock::{self, Stopwatch},
    engine::pgbackrest::exit,
    error::{ExitCode, chain},
    policy::{Database, Policy},
    process::{self, Activity, Command, Finished, Stop, StopHandle},
    record::{AttemptId, ErrorClass, Failure, JobKey, ProcessIdentity, RepoKey, RunId},
    retention::Selection,
};

/// A silence that is alarming where no database says otherwise.
const DEFAULT_STALL: Duration = Duration::from_secs(30 * 60);

/// Watches a long tool that may hang.
pub(crate) struct Silence<'a> {
    /// The run, for the log.
    pub(crate) run: RunId,
    /// Its job, for the log.
    pub(crate) job: &'a JobKey,
    /// The tool's name, for the log.
    pub(crate) tool: &'a str,
    /// A silence of this length is alarming.
    pub(crate) stall: Duration,
}

impl Silence<'_> {
    /// Says so when the tool writes no line for that long, and again after each such length. Never returns.
    pub(crate) async fn watch<T>(&self, activity: &Activity) -> T {
        loop {
            let silent = activity.silent_for();
            if silent >= self.stall {
                let (job, tool, silent) = (self.job, self.tool, crate::human::took(silent));
                warn!(run_id = self.run, %job, "`{tool}` wrote no line for {silent}: does it hang?");
                tokio::time::sleep(self.stall).await;
            } else {
                tokio::time::sleep(self.stall - silent).await;
            }
        }
    }
}

/// What the last long tool of an attempt left behind, for the attempt's row.
#[derive(Debug, Clone, Default)]
pub(super) struct LastTool {
    pub(super) exit_code: Option<i32>,
    pub(super) ending: Option<String>,
    pub(super) tail: Vec<String>,
}

/// One attempt's surroundings.
pub struct Context {
    /// The policy that the run began under.
    pub policy: Arc<Policy>,
    /// The catalog.
    pub catalog: Catalog,
    /// The run.
    pub run: RunId,
    /// Its travelling identity.
    pub run_uuid: String,
    /// The attempt.
    pub attempt: AttemptId,
    /// Where the tools' output goes.
    pub log_dir: PathBuf,
    /// Stops the run.
    pub stop: Stop,
    /// Is told how far a long tool is.
    pub progress: Progress,
    /// What a person said about the backup.
    pub remarks: Remarks,
    /// The labels that a person agreed to end; none where nobody was asked.
    pub confirmed: Option<BTreeSet<String>>,
    /// What a person wants ended beside the rules; none: what the rules end.
    pub selection: Option<Selection>,
    /// The one backup it is about, where a person named one.
    pub target: Option<String>,
    /// Who asked.
    pub requested_by: String,
    /// The same for the audit.
    pub witness: String,
    /// Why nothing may be deleted now, if so.
    pub frozen: Option<String>,
    job: JobKey,
    database: Option<Arc<Database>>,
    timeout: Option<Duration>,
    watch: Stopwatch,
    last: Mutex<LastTool>,
}

impl Context {
    pub(super) fn new(
        runner: &Runner,
        request: &Request,
        run: RunId,
        run_uuid: &str,
        attempt: AttemptId,
        log_dir: PathBuf,
    ) -> Self {
        Self {
            policy: runner.policy.clone(),
            catalog: runner.catalog.clone(),
            run,
            run_uuid: run_uuid.to_owned(),
            attempt,
            log_dir,
            stop: runner.stop.clone(),
            progress: runner.progress.clone(),
            remarks: request.remarks.clone(),
            confirmed: request.confirmed.clone(),
            selection: request.selection.clone(),
            target: request.target.clone(),
            requested_by: request.requested_by.clone(),
            witness: request.witness.clone(),
            frozen: None,
            job: request.job.clone(),
            database: runner.database(&request.job),
            timeout: request.timeout,
            watch: Stopwatch::start(),
            last: Mutex::default(),
        }
    }

    /// What is run.
    pub fn job(&self) -> &JobKey {
        &self.job
    }

    /// The database it is about.
    ///
    /// # Panics
    /// In a job without a database; only `catalog_backup` is one, and it never asks.
    pub fn database(&self) -> &Database {
        self.database.as_deref().expect("every job but the catalog's own copy has a database of the policy")
    }

    /// The repository it is about: the job's, else the database's first; 0 for a dump, which has none.
    pub fn repo(&self) -> RepoKey {
        self.job.repo.or_else(|| self.database().repos().first().copied()).unwrap_or(1)
    }

    /// The time now.
    pub fn now(&self) -> DateTime<Utc> {
        clock::now()
    }

    /// What is left of the attempt's timeout; `None` is no limit.
    pub fn time_left(&self) -> Option<Duration> {
        self.timeout.map(|timeout| timeout.saturating_sub(self.watch.elapsed()))
    }

    /// Runs a long tool: spawned, its identity recorded before anything else, followed line by line into
    /// `NAME.log` in the run's directory, ended at the attempt's timeout or when the run is stopped.
    ///
    /// # Errors
    /// When it cannot be started, or does not end with 0.
    pub async fn tool(&self, name: &str, command: &Command, on_line: impl FnMut(&str)) -> Result<Finished, Failure> {
        let finished = self.follow(name, command, on_line).await?;
        if finished.ok() {
            Ok(finished)
        } else {
            Err(exit::explain(&finished.ending, finished.tail.iter().map(String::as_str)))
        }
    }

    /// As [`Context::tool`], for tools whose endings are not pgBackRest's: any ending is handed back.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn follow(
        &self,
        name: &str,
        command: &Command,
        on_line: impl FnMut(&str),
    ) -> Result<Finished, process::Error> {
        let log = self.log_dir.join(format!("{name}.log"));
        let child = process::spawn(&command.clone().timeout(self.time_left()), &log)?;
        self.record(child.identity()).await;
        let (activity, silence) = (child.activity(), self.silence(name));
        let finished = tokio::select! {
            finished = child.wait(&self.stop, on_line) => finished,
            never = silence.watch(&activity) => never,
        };
        self.remember(&finished);
        Ok(finished)
    }

    /// Runs a long tool whose standard output is what is wanted: `consume` gets it, and a way to say that bytes moved.
    /// When consuming fails, nobody is left to write for and the tool is ended.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) async fn piped<T, E, F>(
        &self,
        name: &str,
        command: &Command,
        consume: impl FnOnce(File, Activity) -> F,
    ) -> Result<(Finished, Result<T, E>), process::Error>
    where
        F: Future<Output = Result<T, E>>,
    {
        let log = self.log_dir.join(format!("{name}.log"));
        let (child, output) = process::spawn_piped(&command.clone().timeout(self.time_left()), &log)?;
        self.record(child.identity()).await;
        let (activity, silence) = (child.activity(), self.silence(name));
        let (handle, stop) = Stop::new();
        let consuming = async {
            let consumed = consume(output, activity.clone()).await;
            if consumed.is_err() {
                handle.stop();
            }
            consumed
        };
        let (finished, consumed) = tokio::select! {
            both = async { tokio::join!(child.wait(&stop, |_| {}), consuming) } => both,
            never = pass_on(&self.stop, &handle) => never,
            never = silence.watch(&activity) => never,
        };
        self.remember(&finished);
        Ok((finished, consumed))
    }

    /// Does something under a stop that also comes when the attempt's time is over. It ends by itself then, and so can
    /// take away what it began.
    pub(super) async fn within<T, F: Future<Output = T>>(&self, work: impl FnOnce(Stop) -> F) -> T {
        let (handle, stop) = Stop::new();
        let time_left = self.time_left();
        let over = async {
            match time_left {
                Some(time_left) => tokio::time::sleep(time_left).await,
                None => std::future::pending().await,
            }
            handle.stop();
            std::future::pending().await
        };
        tokio::select! {
            done = work(stop) => done,
            never = pass_on(&self.stop, &handle) => never,
            never = over => never,
        }
    }

    /// Why something under such a stop came to nothing.
    pub(super) fn stopped(&self) -> Failure {
        if self.stop.is_stopped() || self.time_left().is_none_or(|left| !left.is_zero()) {
            let (class, exit) = (ErrorClass::Stopped, ExitCode::Interrupted);
            return Failure { class, exit, message: "it was stopped".to_owned(), remedy: None };
        }
        Failure {
            class: ErrorClass::Transient,
            exit: ExitCode::Storage,
            message: "it was ended because its time was over".to_owned(),
            remedy: Some(
                "Raise `timeout` if it usually takes that long; otherwise look at what it waited for.".to_owned(),
            ),
        }
    }

    async fn record(&self, identity: &ProcessIdentity) {
        if let Err(problem) = self.catalog.record_process(self.attempt, identity).await {
            // Without the row an orphan is still found by its arguments, so the work goes on.
            warn!(run_id = self.run, error = %chain(&problem), "the tool's process could not be recorded");
        }
    }

    fn silence<'a>(&'a self, tool: &'a str) -> Silence<'a> {
        let stall = self.database.as_ref().map_or(DEFAULT_STALL, |database| database.stall);
        Silence { run: self.run, job: &self.job, tool, stall }
    }

    fn remember(&self, finished: &Finished) {
        let last = LastTool {
            exit_code: finished.ending.code(),
            ending: Some(finished.ending.word()),
            tail: finished.tail.clone(),
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }

    pub(super) fn last_tool(&self) -> LastTool {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Stops one when the other is stopped. Never returns.
async fn pass_on<T>(stop: &Stop, handle: &StopHandle) -> T {
    stop.stopped().await;
    handle.stop();
    std::future::pending().await
}
