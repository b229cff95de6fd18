//! One execution of a job, its attempts, and how they end.
//!
//! A newcomer would recognise a process by its number alone; after a restart that number is somebody else's.

use std::{path::PathBuf, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{AttemptId, JobKey, JobKind, RunId, SlotId, words};

words! {
    /// How a run ended, or that it has not.
    RunState {
        /// It is open; its owner or its child lives.
        Running = "running",
        /// It did what it should, and that was checked.
        Succeeded = "succeeded",
        /// It did not.
        Failed = "failed",
        /// Something outside stopped it: a crash, a signal, a person.
        Interrupted = "interrupted",
        /// Somebody else held the tool's lock; its slot went back into the queue. This is a delay, no failure.
        Requeued = "requeued",
    }
}

words! {
    /// What kind of trouble a failure is, and so what to do next.
    ErrorClass {
        /// Somebody else holds the lock; try again later, this is no failure.
        Busy = "busy",
        /// It may go away by itself; retry with backoff.
        Transient = "transient",
        /// A person must change something; a retry is useless.
        Config = "config",
        /// Data or archive is damaged or missing; a person must look now.
        Integrity = "integrity",
        /// A file system is full.
        Space = "space",
        /// Somebody stopped it on purpose.
        Stopped = "stopped",
        /// A defect of the tool or of ours.
        Defect = "defect",
    }
}

impl ErrorClass {
    /// Whether another attempt within the same run may help.
    pub const fn is_retryable(self) -> bool {
        matches!(self, ErrorClass::Transient)
    }
}

/// A failure as it is recorded and shown: what went wrong, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of trouble it is.
    pub class: ErrorClass,
    /// The exit code of the command line for it.
    pub exit: crate::error::ExitCode,
    /// What failed, lower case, no full stop.
    pub message: String,
    /// What a person should do next; a full sentence.
    pub remedy: Option<String>,
}

/// Enough to recognise a process again after a restart, however often its number was used since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// The process number.
    pub pid: i32,
    /// Its process group; children are started as leaders of their own.
    pub pgid: i32,
    /// Field 22 of `/proc/PID/stat`: start time in clock ticks since boot.
    pub start_ticks: u64,
    /// `/proc/sys/kernel/random/boot_id` at the start.
    pub boot_id: String,
}

/// A run to be opened.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// The identity that travels: in the annotation of a backup, in directory names. A UUID of version 7.
    pub uuid: String,
    /// What is run.
    pub job: JobKey,
    /// The slot it runs for; none when a person asked.
    pub slot: Option<SlotId>,
    /// The slot's nominal instant.
    pub nominal_at: Option<DateTime<Utc>>,
    /// What was asked for where it differs from the job's kind, e.g. a diff that was promoted to a full.
    pub promoted_from: Option<JobKind>,
    /// Who asked: `daemon`, or the login name of a person.
    pub requested_by: String,
    /// The process that works on it.
    pub owner: ProcessIdentity,
    /// SHA-256 of the policy it runs under.
    pub policy_hash: String,
    /// The moment it began.
    pub started_at: DateTime<Utc>,
}

/// How an attempt ended.
#[derive(Debug, Clone)]
pub struct AttemptEnd {
    /// The moment it ended.
    pub finished_at: DateTime<Utc>,
    /// Its length by the monotonic clock.
    pub duration: Duration,
    /// The tool's exit code, where it had one.
    pub exit_code: Option<i32>,
    /// How the process ended in words: `exited`, `signal 9`, `timed out`, `stopped`, `could not start`.
    pub ending: Option<String>,
    /// What went wrong; none is success.
    pub failure: Option<Failure>,
    /// The last lines of the tool's output, redacted.
    pub tail: Vec<String>,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct RunEnd {
    /// Succeeded, failed or interrupted.
    pub state: RunState,
    /// The moment it ended.
    pub finished_at: DateTime<Utc>,
    /// Its length by the monotonic clock, or by the wall clock after a crash.
    pub duration: Duration,
    /// What went wrong; none is success.
    pub failure: Option<Failure>,
    /// One line for people: what was done.
    pub summary: String,
    /// What the diagnosis found, line by line.
    pub diagnosis: Vec<String>,
}

/// A run as the catalog tells it.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// Its number.
    pub id: RunId,
    /// Its travelling identity.
    pub uuid: String,
    /// What was run.
    pub job: JobKey,
    /// The slot it ran for.
    pub slot: Option<SlotId>,
    /// The slot's nominal instant.
    pub nominal_at: Option<DateTime<Utc>>,
    /// What was asked for where the kind that ran differs.
    pub promoted_from: Option<JobKind>,
    /// Who asked.
    pub requested_by: String,
    /// Where it stands.
    pub state: RunState,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// Its length.
    #[serde(rename = "duration_seconds", serialize_with = "seconds")]
    pub duration: Option<Duration>,
    /// What went wrong.
    pub failure: Option<Failure>,
    /// One line for people.
    pub summary: String,
    /// What the diagnosis found.
    pub diagnosis: Vec<String>,
}

fn seconds<S: serde::Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|d| d.as_secs_f64()).serialize(serializer)
}

/// An attempt as the catalog tells it.
#[derive(Debug, Clone, Serialize)]
pub struct Attempt {
    /// Its row.
    pub id: AttemptId,
    /// 1 for the first attempt of a run.
    pub number: u32,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// The tool's process, while and after it ran.
    pub process: Option<ProcessIdentity>,
    /// The tool's exit code.
    pub exit_code: Option<i32>,
    /// How the process ended, in words.
    pub ending: Option<String>,
    /// What went wrong.
    pub failure: Option<Failure>,
    /// The last lines of the output, redacted.
    pub tail: Vec<String>,
    /// The whole output.
    pub log_path: Option<PathBuf>,
}

/// An open run with what is needed to settle it after its owner died.
#[derive(Debug, Clone)]
pub struct OpenRun {
    /// The run.
    pub run: Run,
    /// The process that owned it.
    pub owner: ProcessIdentity,
    /// Its last attempt.
    pub attempt: Option<Attempt>,
}
