//! pgBackRest: every command line that we give it, and how its answers are read.
//!
//! It needs pgBackRest 2.45, which Debian 12 has, or later; it is written for 2.59 too. The readers: `info.rs` is what
//! the repositories hold, `archive.rs` which WAL, `log.rs` a command's log, `exit.rs` its ending, `expire.rs` what
//! expiry removes, `verify.rs` what a verification found, `conf.rs` its own configuration, `locks.rs` its lock and stop
//! files, `version.rs` its version.
//!
//! Rules that hold for every command: the repository is always named; output goes to stdout in one format, with
//! timestamps (2.45 would send errors to stderr without); the environment is ours, so that no `PGBACKREST_*` of the
//! daemon leaks in; `TZ` is fixed, because labels are written in local time and a run in another zone is refused (106).
//! A newcomer would find a backup again by its label; a resumed backup has the old one, so the run-id annotation is it.

pub mod archive;
pub mod conf;
pub mod exit;
pub mod expire;
pub mod info;
pub mod locks;
pub mod log;
pub mod verify;
pub mod version;

use std::{
    ffi::OsString,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use chrono_tz::Tz;

use crate::{
    error::{ExitCode, chain},
    policy::{Database, Niceness, Secret, SecretError},
    process::Command,
    record::{BackupType, ErrorClass, Failure, RepoKey},
    recovery::Segment,
};

/// The most that pgBackRest's retention options can say: for ever.
const FOR_EVER: u32 = 9_999_999;
/// A storage that is down answers after 60 to 120 seconds.
const ANSWER: Duration = Duration::from_secs(180);
/// A listing of a large archive in a bucket takes its time.
const LISTING: Duration = Duration::from_secs(600);

/// An answer of the tool that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the {what} is not what pgBackRest writes")]
pub struct Unreadable {
    what: &'static str,
    source: serde_json::Error,
}

impl From<Unreadable> for Failure {
    fn from(error: Unreadable) -> Self {
        Failure {
            class: ErrorClass::Defect,
            exit: ExitCode::Storage,
            message: chain(&error),
            remedy: Some("Run the command by hand and look at what it prints; update pgBackRest or Backstop.".into()),
        }
    }
}

/// A backup to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupRequest {
    /// Where.
    pub repo: RepoKey,
    /// How much; without a full before it pgBackRest makes a full whatever was asked.
    pub backup_type: BackupType,
    /// What is written on it, e.g. [`info::RUN_ID`]; not secret.
    pub annotations: Vec<(String, String)>,
}

/// A backup to be restored into an empty scratch directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreRequest {
    /// Where it is.
    pub repo: RepoKey,
    /// Which.
    pub label: String,
    /// The new data directory: exists, is empty, mode 0700.
    pub data_dir: PathBuf,
    /// Where tablespaces go; not inside the data directory.
    pub tablespace_dir: PathBuf,
    /// Where the tool's own locks go.
    pub work_dir: PathBuf,
    /// Parallel processes.
    pub process_max: Option<u32>,
}

/// pgBackRest for one database, with its secrets read.
#[derive(Debug, Clone)]
pub struct PgBackRest {
    stanza: String,
    config: Option<PathBuf>,
    binary: PathBuf,
    secrets: Vec<(String, Secret)>,
    label_timezone: Tz,
    niceness: Niceness,
    start_fast: bool,
    process_max: Option<u32>,
}

/// For how many backups all WAL from their start on stays. Those before them keep what makes them consistent.
///
/// pgBackRest counts over all clusters of the repository, the newest labels first, damaged and foreign ones included. A
/// number that is larger than what is there removes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalKept {
    /// So many fulls; as many as there are: no holes.
    Fulls(NonZeroU32),
    /// So many backups of any type.
    Backups(NonZeroU32),
}

impl WalKept {
    const FOR_EVER: Self = Self::Fulls(NonZeroU32::new(FOR_EVER).expect("it is not zero"));
}

impl PgBackRest {
    /// pgBackRest for a database; its secrets are read now.
    ///
    /// # Errors
    /// When a secret cannot be read.
    pub fn of(database: &Database) -> Result<Self, SecretError> {
        let settings = &database.pgbackrest;
        let secrets = settings.secrets.iter().map(|(name, secret)| Ok((name.clone(), secret.read()?)));
        Ok(Self {
            stanza: settings.stanza.clone(),
            config: settings.config.clone(),
            binary: settings.binary.clone(),
            secrets: secrets.collect::<Result<_, SecretError>>()?,
            label_timezone: settings.label_timezone,
            niceness: database.niceness,
            start_fast: settings.start_fast,
            process_max: settings.process_max,
        })
    }

    /// The stanza.
    pub fn stanza(&self) -> &str {
        &self.stanza
    }

    /// Asks for the version; see [`version::Version::read`].
    pub fn version(&self) -> Command {
        self.environment(Command::new(&self.binary)).arg("version").timeout(Some(Duration::from_secs(20)))
    }

    /// Asks what all repositories hold; see [`info::read`].
    pub fn info(&self) -> Command {
        self.query().arg("--output=json").arg("info")
    }

    /// Asks for one backup with its databases, tablespaces and damaged files; see [`info::read`].
    pub fn info_set(&self, repo: RepoKey, label: &str) -> Command {
        self.query().arg(format!("--repo={repo}")).arg(format!("--set={label}")).arg("--output=json").arg("info")
    }

    /// Checks configuration and archiving of all repositories, with a forced segment switch.
    ///
    /// 2.45 cannot check one repository alone.
    pub fn check(&self) -> Command {
        self.work("info").arg("check")
    }

    /// Creates the stanza in all repositories that lack it; in the others it changes nothing.
    pub fn stanza_create(&self) -> Command {
        self.work("info").arg("stanza-create")
    }

    /// Makes a backup. Progress stands in the log; see [`log::percent`].
    pub fn backup(&self, request: &BackupRequest) -> Command {
        let said = request.annotations.iter().filter(|(_, value)| !value.is_empty());
        self.work("detail")
            .arg(format!("--repo={}", request.repo))
            .arg(format!("--type={}", request.backup_type))
            .args(said.map(annotation))
            .args(self.start_fast.then_some("--start-fast"))
            .args(self.process_max.map(|n| format!("--process-max={n}")))
            .arg("--no-expire-auto")
            .arg("backup")
            .niceness(self.niceness)
    }

    /// Ends one backup and all that depend on it, and no WAL; see [`expire::Expiry`].
    ///
    /// The retention arguments are in the way of whatever the configuration says about WAL.
    pub fn expire_set(&self, repo: RepoKey, label: &str, dry_run: bool) -> Command {
        self.expire(repo, dry_run).arg(format!("--set={label}")).args(retention(repo, WalKept::FOR_EVER)).arg("expire")
    }

    /// Ends WAL that no kept backup needs, and no backup that `info` lists.
    pub fn expire_wal(&self, repo: RepoKey, kept: WalKept, dry_run: bool) -> Command {
        self.expire(repo, dry_run).args(retention(repo, kept)).arg("expire")
    }

    /// Ends backups and WAL by pgBackRest's own retention settings.
    pub fn expire_native(&self, repo: RepoKey, dry_run: bool) -> Command {
        self.expire(repo, dry_run).arg("expire")
    }

    /// Reads the whole repository against its checksums; see [`verify::Report`].
    pub fn verify(&self, repo: RepoKey) -> Command {
        self.work("detail")
            .arg(format!("--repo={repo}"))
            .args(self.process_max.map(|n| format!("--process-max={n}")))
            .args(["--output=text", "--verbose", "verify"])
            .niceness(self.niceness)
    }

    /// Restores a backup into an empty directory, without recovery settings and without archiving.
    ///
    /// What the configuration may say about links, tablespaces, single databases and `delta` is taken back, because all
    /// of these lead out of the scratch directory or leave something out.
    pub fn restore(&self, request: &RestoreRequest) -> Command {
        let process_max = request.process_max.or(self.process_max);
        self.apart(self.work("detail"), request.repo, &request.data_dir, &request.work_dir)
            .arg(format!("--set={}", request.label))
            .args(["--type=none", "--archive-mode=off", "--no-delta", "--no-link-all", "--reset-link-map"])
            .args(["--reset-tablespace-map", "--reset-recovery-option", "--reset-db-include", "--reset-db-exclude"])
            .arg(option("--tablespace-map-all", &request.tablespace_dir))
            .args(process_max.map(|n| format!("--process-max={n}")))
            .arg("restore")
            .niceness(self.niceness)
    }

    /// Fetches a segment into a file. Exits with 1 when the archive does not have it.
    ///
    /// `cluster_dir` is the restored data directory: pgBackRest compares its `pg_control` with the archive.
    pub fn archive_get(
        &self,
        repo: RepoKey,
        work_dir: &Path,
        segment: Segment,
        target: &Path,
        cluster_dir: &Path,
    ) -> Command {
        self.archive_get_file(repo, work_dir, &segment.to_string(), target, cluster_dir)
    }

    /// Fetches a timeline's history file into a file; see [`archive_get`](Self::archive_get).
    pub fn archive_get_history(
        &self,
        repo: RepoKey,
        work_dir: &Path,
        timeline: u32,
        target: &Path,
        cluster_dir: &Path,
    ) -> Command {
        self.archive_get_file(repo, work_dir, &history_name(timeline), target, cluster_dir)
    }

    fn archive_get_file(
        &self,
        repo: RepoKey,
        work_dir: &Path,
        name: &str,
        target: &Path,
        cluster_dir: &Path,
    ) -> Command {
        self.apart(self.work("info"), repo, cluster_dir, work_dir)
            .args(["--no-archive-async", "archive-get", name])
            .arg(target)
            .niceness(self.niceness)
    }

    /// Lists the stanza's archive, or the one of that name; see [`archive::listings`].
    ///
    /// Half a million segments are 64 MB, more than is kept of an answer; whether it was cut is told.
    pub fn list_archive(&self, repo: RepoKey, archive_id: Option<&str>) -> Command {
        let below = archive_id.map_or_else(String::new, |id| format!("/{id}"));
        self.query()
            .arg(format!("--repo={repo}"))
            .args(["--output=json", "--recurse", "repo-ls"])
            .arg(format!("archive/{}{below}", self.stanza))
            .timeout(Some(LISTING))
    }

    /// Lists what lies beside the backups of the stanza, not what is in them; see [`archive::names`].
    pub fn list_backups(&self, repo: RepoKey) -> Command {
        self.query()
            .arg(format!("--repo={repo}"))
            .args(["--output=json", "repo-ls"])
            .arg(format!("backup/{}", self.stanza))
    }

    /// Reads a small file of the repository, decrypted but not uncompressed.
    pub fn get_file(&self, repo: RepoKey, path: &str) -> Command {
        self.query().arg(format!("--repo={repo}")).arg("repo-get").arg(path)
    }

    /// Reads a timeline's history file; see [`History::parse`](crate::recovery::History::parse).
    pub fn get_history(&self, repo: RepoKey, archive_id: &str, timeline: u32) -> Command {
        self.get_file(repo, &format!("archive/{}/{archive_id}/{}", self.stanza, history_name(timeline)))
    }

    /// Writes on a backup; an empty value wipes one out. Takes the backup lock.
    pub fn annotate(&self, repo: RepoKey, label: &str, annotations: &[(String, String)]) -> Command {
        self.work("info")
            .arg(format!("--repo={repo}"))
            .arg(format!("--set={label}"))
            .args(annotations.iter().map(annotation))
            .arg("annotate")
    }

    fn expire(&self, repo: RepoKey, dry_run: bool) -> Command {
        self.work("detail").arg(format!("--repo={repo}")).args(dry_run.then_some("--dry-run"))
    }

    /// A command that touches no server of the configuration and no lock of production's.
    fn apart(&self, command: Command, repo: RepoKey, data_dir: &Path, work_dir: &Path) -> Command {
        command
            .arg(format!("--repo={repo}"))
            .arg("--reset-pg1-host")
            .arg(option("--pg1-path", data_dir))
            .arg(option("--lock-path", work_dir))
            .arg("--log-level-file=off")
    }

    /// A short question, whose answer alone is on stdout.
    fn query(&self) -> Command {
        self.base()
            .args(["--log-level-console=off", "--log-level-stderr=error", "--log-level-file=off"])
            .timeout(Some(ANSWER))
    }

    /// Work, whose log is on stdout.
    fn work(&self, level: &str) -> Command {
        self.base().arg(format!("--log-level-console={level}")).args(["--log-level-stderr=off", "--log-timestamp"])
    }

    fn base(&self) -> Command {
        self.environment(Command::new(&self.binary))
            .arg(format!("--stanza={}", self.stanza))
            .args(self.config.as_ref().map(|config| option("--config", config)))
    }

    fn environment(&self, command: Command) -> Command {
        let command = command.env("TZ", self.label_timezone.name());
        self.secrets.iter().fold(command, |command, (name, secret)| command.secret_env(name, secret))
    }
}

/// Arguments by which no backup expires, and WAL only as told.
fn retention(repo: RepoKey, kept: WalKept) -> [String; 5] {
    let (counted, count) = match kept {
        WalKept::Fulls(count) => ("full", count),
        WalKept::Backups(count) => ("incr", count),
    };
    [
        format!("--repo{repo}-retention-full-type=count"),
        format!("--repo{repo}-retention-full={FOR_EVER}"),
        format!("--repo{repo}-retention-diff={FOR_EVER}"),
        format!("--repo{repo}-retention-archive-type={counted}"),
        format!("--repo{repo}-retention-archive={count}"),
    ]
}

fn annotation((key, value): &(String, String)) -> String {
    format!("--annotation={key}={value}")
}

fn history_name(timeline: u32) -> String {
    format!("{timeline:08X}.history")
}

fn option(name: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(name);
    argument.push("=");
    argument.push(path);
    argument
}

#[cfg(test)]
mod tests;
