//! Brings the catalog in line with what the repositories really hold.
//!
//! `pgbackrest info` exits 0 for almost everything; only the status codes in its answer count, and a repository that
//! could not be read must never look like one without backups. So only readable repositories of the policy are
//! remembered, with the backups of every cluster in them: an upgrade of PostgreSQL loses nothing.
//!
//! `info` believes its own books, so the directories of the backups are listed too: what somebody removed by hand is not
//! there, nor is what was built on it, for pgBackRest drops both when it next makes or ends a backup.
//!
//! Looks run beside backups and expiry, so an answer may be older than what the catalog says. A newcomer would let the
//! last writer win; here an answer never brings back what ended after it was asked for, and what is missing from it is
//! looked for once more.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tracing::warn;

use crate::{
    catalog::{self, BackupFilter, Catalog},
    clock,
    engine::pgbackrest::{
        PgBackRest, archive, exit,
        info::{self, Cluster, Stanza},
    },
    error::{ExitCode, chain},
    policy::{Database, SecretError},
    process::{self, Captured, Command, Stop},
    record::{Backup, BackupStatus, ErrorClass, Failure, JobKind, RepoKey},
};

/// An object store that is down keeps `info` busy for two minutes.
const LIMIT: Duration = Duration::from_secs(150);

/// What the repositories of a database hold.
pub(crate) struct Seen {
    /// The tool's answer; none where not even the repository's path exists.
    pub(crate) stanza: Option<Stanza>,
    /// The backups of the cluster that each readable repository is for now.
    pub(crate) backups: Vec<Backup>,
    /// The backups of every cluster that each repository of the policy was ever for, those above included.
    pub(crate) of_all_clusters: Vec<Backup>,
    /// What lies beside the backups, in each repository that has some.
    beside: BTreeMap<RepoKey, BTreeSet<String>>,
    /// Repositories whose directories could not be listed, and why.
    unlisted: BTreeMap<RepoKey, Failure>,
    /// When the tool was asked: what happened later is not in its answer.
    asked_at: DateTime<Utc>,
    /// Ends a second look.
    stop: Stop,
}

impl Seen {
    /// The backup that carries a run's id, in one repository.
    pub(crate) fn backup_of_run(&self, repo: RepoKey, run_uuid: &str) -> Option<&Backup> {
        self.backups.iter().find(|backup| backup.repo == repo && backup.run_uuid.as_deref() == Some(run_uuid))
    }

    /// The backups in one repository.
    pub(crate) fn in_repo(&self, repo: RepoKey) -> impl Iterator<Item = &Backup> {
        self.backups.iter().filter(move |backup| backup.repo == repo)
    }

    /// The cluster that a repository is for now.
    pub(crate) fn cluster(&self, repo: RepoKey) -> Option<&Cluster> {
        self.stanza.as_ref()?.cluster(repo)
    }

    /// The clusters that a repository was ever for, the present one included.
    pub(crate) fn clusters(&self, repo: RepoKey) -> impl Iterator<Item = &Cluster> {
        let all = self.stanza.as_ref().map(|stanza| stanza.clusters.as_slice()).unwrap_or_default();
        all.iter().filter(move |cluster| cluster.repo == repo)
    }

    /// The archive of the cluster that a repository is for now, e.g. `15-1`.
    pub(crate) fn archive_id(&self, repo: RepoKey) -> Option<String> {
        self.cluster(repo).map(Cluster::archive_id)
    }

    /// Whether a repository was read and has this stanza. One that the answer does not name was not read.
    pub(crate) fn is_readable(&self, repo: RepoKey) -> bool {
        let is_named = |stanza: &Stanza| stanza.repos.iter().any(|listed| listed.key == repo);
        self.stanza.as_ref().is_some_and(is_named) && self.trouble(repo).is_none()
    }

    /// Whether a backup should have been in the answer and is not. A repository that left the policy, or could not be
    /// read, says nothing about its backups.
    fn lacks(&self, backup: &Backup, database: &Database) -> bool {
        database.pgbackrest.repos.contains(&backup.repo)
            && self.is_readable(backup.repo)
            && !self.of_all_clusters.iter().any(|seen| same(seen, backup))
    }

    /// What lies in a repository under labels that no backup has: the remains of interrupted ones, and of those whose
    /// parents somebody removed. pgBackRest clears them away when it next ends something.
    pub(crate) fn remains(&self, repo: RepoKey) -> BTreeSet<String> {
        let listed = self.stanza.as_ref().map(|stanza| stanza.labels(repo)).unwrap_or_default();
        let beside = self.beside.get(&repo).into_iter().flatten();
        beside.filter(|name| !listed.contains(*name)).cloned().collect()
    }

    /// Whether a repository has no stanza.
    pub(crate) fn is_missing(&self, repo: RepoKey) -> bool {
        self.stanza.as_ref().is_none_or(|stanza| stanza.is_missing(repo))
    }

    /// What is wrong with a repository, a missing stanza included.
    pub(crate) fn trouble(&self, repo: RepoKey) -> Option<Failure> {
        if let Some(failure) = self.unlisted.get(&repo) {
            return Some(failure.clone());
        }
        match &self.stanza {
            Some(stanza) => stanza.trouble(repo),
            None => Some(Failure {
                class: ErrorClass::Config,
                exit: ExitCode::Storage,
                message: format!("repository {repo}: its path does not exist"),
                remedy: Some("Is it mounted? The first backup makes what is missing.".to_owned()),
            }),
        }
    }
}

/// Asks the repositories of a database.
///
/// # Errors
/// When the tool cannot be run, or says nothing that can be read.
pub(crate) async fn look(database: &Database, stop: &Stop) -> Result<Seen, Failure> {
    let tool = PgBackRest::of(database).map_err(secret_failure)?;
    let asked_at = clock::now();
    let answer = ask(&tool.info().timeout(Some(LIMIT)), stop).await?;
    let stanza = info::read(&answer).map_err(|problem| not_understood("info", &problem))?;
    let mut seen = seen(database, stanza, asked_at, stop);
    for repo in &database.pgbackrest.repos {
        let has_backups = seen.stanza.as_ref().is_some_and(|stanza| !stanza.labels(*repo).is_empty());
        if has_backups && seen.is_readable(*repo) {
            seen.look_beside(*repo, &tool, database).await?;
        }
    }
    Ok(seen)
}

impl Seen {
    /// Lists a repository's directories, and forgets the backups that have none. Where that fails, nothing is known of
    /// the backups there.
    async fn look_beside(&mut self, repo: RepoKey, tool: &PgBackRest, database: &Database) -> Result<(), Failure> {
        let names = async {
            let answer = ask(&tool.list_backups(repo).timeout(Some(LIMIT)), &self.stop).await?;
            archive::names(&answer).map_err(|problem| not_understood("repo-ls", &problem))
        };
        match names.await {
            Ok(names) => {
                let Some(stanza) = &mut self.stanza else { return Ok(()) };
                stanza.forget_missing(repo, &names);
                self.beside.insert(repo, names);
            }
            Err(failure) if failure.class == ErrorClass::Stopped => return Err(failure),
            Err(failure) => {
                let message = format!("repository {repo}: its backups cannot be listed: {}", failure.message);
                self.unlisted.insert(repo, Failure { message, ..failure });
            }
        }
        self.recall(database);
        Ok(())
    }

    /// Reads the backups out of the answer, those of the repositories whose directories are known.
    fn recall(&mut self, database: &Database) {
        let Some(stanza) = &self.stanza else { return };
        let repos: Vec<RepoKey> =
            database.pgbackrest.repos.iter().copied().filter(|repo| !self.unlisted.contains_key(repo)).collect();
        self.backups = repos.iter().flat_map(|repo| stanza.backups(*repo, database)).collect();
        self.of_all_clusters = stanza.all_backups(database);
        self.of_all_clusters.retain(|backup| repos.contains(&backup.repo));
    }
}

fn seen(database: &Database, stanza: Option<Stanza>, asked_at: DateTime<Utc>, stop: &Stop) -> Seen {
    let mut seen = Seen {
        stanza,
        backups: Vec::new(),
        of_all_clusters: Vec::new(),
        beside: BTreeMap::new(),
        unlisted: BTreeMap::new(),
        asked_at,
        stop: stop.clone(),
    };
    seen.recall(database);
    seen
}

fn not_understood(command: &str, problem: &(dyn std::error::Error + 'static)) -> Failure {
    Failure {
        class: ErrorClass::Transient,
        exit: ExitCode::Storage,
        message: format!("`pgbackrest {command}` cannot be understood: {}", chain(problem)),
        remedy: Some(format!("Run `pgbackrest {command}` by hand and look at what it says.")),
    }
}

/// Runs a short query of the tool and returns what it printed.
///
/// # Errors
/// When it cannot be run or ends badly.
pub(crate) async fn ask(command: &Command, stop: &Stop) -> Result<Vec<u8>, Failure> {
    let captured = process::capture(command, stop).await?;
    if captured.ok() { Ok(captured.stdout) } else { Err(explain(&captured)) }
}

fn explain(captured: &Captured) -> Failure {
    let output = String::from_utf8_lossy(&captured.stdout);
    let tail: Vec<&str> = output.lines().chain(captured.stderr.lines()).collect();
    exit::explain(&captured.ending, tail)
}

/// Records what was seen: new backups, changed facts, and those that vanished.
///
/// # Errors
/// When the catalog cannot be read or written.
pub(crate) async fn remember(catalog: &Catalog, database: &Database, seen: &Seen) -> Result<(), catalog::Error> {
    let filter =
        BackupFilter { database: Some(database.name.clone()), include_expired: true, ..BackupFilter::default() };
    let known = catalog.all_backups(&filter).await?;
    let expiring = expiring_since(catalog, database).await?;
    notice_an_earlier_catalog(catalog, database, seen, &known).await?;
    for backup in &seen.of_all_clusters {
        let old = known.iter().find(|old| same(old, backup));
        if old.is_none_or(|old| is_news(old, backup, seen.asked_at, expiring)) {
            catalog.record_seen(backup, seen.asked_at).await?;
        }
    }
    let is_there = |old: &&Backup| !matches!(old.status, BackupStatus::Lost | BackupStatus::Expired);
    let missing: Vec<&Backup> = known.iter().filter(is_there).filter(|old| seen.lacks(old, database)).collect();
    // What an expire run removes is its to record; whatever else is missing is found when it is done.
    if missing.is_empty() || expiring.is_some() {
        return Ok(());
    }
    lose(catalog, database, seen, missing).await.map(|_| ())
}

/// Records what vanished without us, for the expire run that is about to plan, and tells the labels.
///
/// # Errors
/// When the catalog cannot be read or written.
pub(crate) async fn lose_what_vanished(
    catalog: &Catalog,
    database: &Database,
    seen: &Seen,
) -> Result<Vec<String>, catalog::Error> {
    let known = catalog.backups(&database.name).await?;
    let is_there = |old: &&Backup| !matches!(old.status, BackupStatus::Lost | BackupStatus::Expired);
    let missing: Vec<&Backup> = known.iter().filter(is_there).filter(|old| seen.lacks(old, database)).collect();
    if missing.is_empty() { Ok(Vec::new()) } else { lose(catalog, database, seen, missing).await }
}

/// Backups of ours that are older than the catalog were made under an earlier one, whose holds, proofs and history are
/// gone: nothing is deleted by this one until a person has looked.
async fn notice_an_earlier_catalog(
    catalog: &Catalog,
    database: &Database,
    seen: &Seen,
    known: &[Backup],
) -> Result<(), catalog::Error> {
    let Some(since) = catalog.known_since(&database.name).await? else { return Ok(()) };
    let ours = seen.of_all_clusters.iter().filter(|backup| backup.run_uuid.is_some() && backup.started_at < since);
    let unknown = ours.filter(|backup| !known.iter().any(|old| same(old, backup))).count();
    if unknown == 0 || catalog.recovery_mode().await?.is_some() {
        return Ok(());
    }
    let why = format!("{unknown} backups of `{}` were made under an earlier catalog", database.name);
    warn!(database = %database.name, "{why}: recovery mode, nothing is deleted until `backstop catalog accept`");
    catalog.enter_recovery(&why, clock::now()).await
}

/// Since when an expire run works on the database, if one does.
async fn expiring_since(catalog: &Catalog, database: &Database) -> Result<Option<DateTime<Utc>>, catalog::Error> {
    let open = catalog.open_runs().await?;
    let ours = open
        .iter()
        .filter(|open| open.run.job.kind == JobKind::Expire && open.run.job.database.as_ref() == Some(&database.name));
    Ok(ours.map(|open| open.run.started_at).min())
}

/// Marks what vanished. A backup that was made and recorded while the answer was on its way is missing from it too, so
/// everything is looked for once more; by then whatever is known was in the repository before. Tells the labels.
async fn lose(
    catalog: &Catalog,
    database: &Database,
    seen: &Seen,
    mut missing: Vec<&Backup>,
) -> Result<Vec<String>, catalog::Error> {
    match look(database, &seen.stop).await {
        Ok(again) => missing.retain(|old| again.lacks(old, database)),
        Err(failure) => {
            warn!(database = %database.name, error = %failure.message, "backups seem to be missing, but a second look failed");
            return Ok(Vec::new());
        }
    }
    for Backup { label, repo, .. } in &missing {
        warn!(database = %database.name, %label, "a backup vanished from repository {repo}: somebody else removed it, or what it was built on");
    }
    let ids: Vec<String> = missing.iter().map(|backup| backup.id.clone()).collect();
    let was = [BackupStatus::Good, BackupStatus::Damaged, BackupStatus::Unrestorable];
    let reason = Some("not in the repository any more");
    catalog.mark_backups_that_are(&was, &ids, BackupStatus::Lost, reason, clock::now()).await?;
    Ok(missing.into_iter().map(|backup| backup.label.clone()).collect())
}

fn same(a: &Backup, b: &Backup) -> bool {
    a.repo == b.repo && a.label == b.label && a.system_id == b.system_id
}

/// Whether the repository tells something new of a backup; holds, proofs and our own verdicts are not its to tell.
///
/// What is gone by the catalog and there by an answer that was asked for later is there. Only an expire run that works
/// now writes down what it ends before it removes it.
fn is_news(old: &Backup, new: &Backup, asked_at: DateTime<Utc>, expiring: Option<DateTime<Utc>>) -> bool {
    match old.status {
        BackupStatus::Lost => old.expired_at.is_none_or(|at| at < asked_at),
        BackupStatus::Expired => {
            old.expired_at.is_none_or(|at| at < asked_at && expiring.is_none_or(|since| at < since))
        }
        _ => old.page_errors != new.page_errors || old.references != new.references,
    }
}

/// A secret that cannot be read stops whatever needed it.
pub(crate) fn secret_failure(problem: SecretError) -> Failure {
    let remedy = "Mend the file, variable or credential that the policy names; it is read again at the next attempt.";
    Failure {
        class: ErrorClass::Config,
        exit: ExitCode::Configuration,
        message: chain(&problem),
        remedy: Some(remedy.to_owned()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::policy::Policy;

    const TWO_REPOS: &[u8] = include_bytes!("../../tests/samples/pgbackrest-info-multirepo.json");

    fn second(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    /// A policy's database with these repositories, whose tool answers nothing.
    fn database(repos: &str) -> Database {
        let text = format!(
            "[database.orders]\nenvironment = \"staging\"\npgbackrest = {{ repos = {repos}, binary = \"/bin/false\" }}\n"
        );
        let mut policy = Policy::parse(vec![("p.toml".into(), text)]).unwrap();
        policy.databases.pop_first().unwrap().1
    }

    fn answer(database: &Database, text: &[u8], asked: i64) -> Seen {
        seen(database, info::read(text).unwrap(), second(asked), &Stop::never())
    }

    /// An answer of a repository whose path does not exist.
    pub(crate) fn nothing(database: &Database) -> Seen {
        answer(database, b"[]", 0)
    }

    async fn catalog() -> (tempfile::TempDir, Catalog) {
        let directory = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(directory.path(), second(0)).await.unwrap();
        (directory, catalog)
    }

    #[test]
    fn only_a_readable_repository_of_the_policy_can_lack_a_backup() {
        let both = database("[1, 2]");
        let told = answer(&both, TWO_REPOS, 0);
        let foreign = |repo| Backup { label: "20260101-000000F".into(), repo, ..told.backups[0].clone() };
        assert!(told.lacks(&foreign(1), &both) && told.lacks(&foreign(2), &both));
        assert!(!told.lacks(&told.backups[0], &both));
        let one = database("[1]");
        let told = answer(&one, TWO_REPOS, 0);
        assert!(told.backups.iter().chain(&told.of_all_clusters).all(|backup| backup.repo == 1));
        assert!(!told.lacks(&foreign(2), &one), "a repository that left the policy is not looked at");
        let three = database("[1, 2, 3]");
        assert!(!answer(&three, TWO_REPOS, 0).lacks(&foreign(3), &three), "a repository that is not in the answer");
        assert!(!answer(&both, b"[]", 0).lacks(&foreign(1), &both), "a repository whose path does not exist");
    }

    #[test]
    fn a_repository_whose_directories_cannot_be_listed_says_nothing_of_its_backups() {
        let both = database("[1, 2]");
        let mut told = answer(&both, TWO_REPOS, 0);
        let some = told.in_repo(1).next().unwrap().clone();
        told.unlisted.insert(1, not_understood("repo-ls", &std::io::Error::other("cut off")));
        told.recall(&both);
        assert!(told.trouble(1).is_some() && told.trouble(2).is_none());
        assert!(told.backups.iter().chain(&told.of_all_clusters).all(|backup| backup.repo == 2));
        assert!(!told.lacks(&some, &both), "least of all that one is lost");
    }

    #[test]
    fn what_lies_beside_the_backups_remains_of_others() {
        let mut told = answer(&database("[1, 2]"), TWO_REPOS, 0);
        let labels = told.stanza.as_ref().unwrap().labels(1);
        told.beside.insert(1, labels.into_iter().chain(["20260101-000000F".to_owned()]).collect());
        assert_eq!(told.remains(1).into_iter().collect::<Vec<_>>(), ["20260101-000000F"]);
        assert_eq!(told.remains(2).len(), 0);
    }

    #[test]
    fn the_backups_before_an_upgrade_are_still_there_after_it() {
        let both = database("[1, 2]");
        let before = answer(&both, TWO_REPOS, 0);
        let text = String::from_utf8_lossy(TWO_REPOS);
        let upgraded = r#""db":[{"id":2,"repo-key":1,"system-id":7800000000000000001,"version":"16"},"#;
        let after = answer(&both, text.replace(r#""db":["#, upgraded).as_bytes(), 10);
        assert_eq!(after.in_repo(1).count(), 0, "none is of the present cluster");
        assert!(before.backups.iter().all(|backup| !after.lacks(backup, &both)));
    }

    #[tokio::test]
    async fn an_answer_brings_back_only_what_ended_before_it_was_asked_for() {
        let (_directory, catalog) = catalog().await;
        let both = database("[1, 2]");
        remember(&catalog, &both, &answer(&both, TWO_REPOS, 0)).await.unwrap();
        let all = catalog.backups(&both.name).await.unwrap();
        let id = vec![all[0].id.clone()];
        for (status, asked, then) in [
            (BackupStatus::Expired, 99, BackupStatus::Expired),
            (BackupStatus::Expired, 100, BackupStatus::Expired),
            (BackupStatus::Expired, 101, BackupStatus::Good),
            (BackupStatus::Lost, 99, BackupStatus::Lost),
            (BackupStatus::Lost, 101, BackupStatus::Good),
        ] {
            catalog.mark_backups(&id, status, Some("ended"), second(100)).await.unwrap();
            let told = answer(&both, TWO_REPOS, asked);
            // The catalog refuses by itself too, for it may have changed since it was read.
            catalog
                .record_seen(told.of_all_clusters.iter().find(|new| same(new, &all[0])).unwrap(), told.asked_at)
                .await
                .unwrap();
            assert_eq!(catalog.backup(&id[0]).await.unwrap().unwrap().status, then, "{status} asked {asked}");
            catalog.mark_backups(&id, status, Some("ended"), second(100)).await.unwrap();
            remember(&catalog, &both, &told).await.unwrap();
            assert_eq!(catalog.backup(&id[0]).await.unwrap().unwrap().status, then, "{status} asked {asked}");
        }
    }

    #[test]
    fn what_an_expire_run_ends_now_stays_ended_though_it_is_still_there() {
        let both = database("[1, 2]");
        let new = answer(&both, TWO_REPOS, 0).backups.remove(0);
        let old = Backup { status: BackupStatus::Expired, expired_at: Some(second(50)), ..new.clone() };
        assert!(!is_news(&old, &new, second(60), Some(second(40))), "the run that ends it is at work");
        assert!(is_news(&old, &new, second(90), Some(second(80))), "an earlier run died before it was removed");
        assert!(is_news(&old, &new, second(60), None));
    }

    #[tokio::test]
    async fn nothing_is_lost_while_a_second_look_fails() {
        let (_directory, catalog) = catalog().await;
        let both = database("[1, 2]");
        let told = answer(&both, TWO_REPOS, 0);
        remember(&catalog, &both, &told).await.unwrap();
        let made_meanwhile = Backup { id: "new".into(), label: "20270101-000000F".into(), ..told.backups[0].clone() };
        catalog.record_backup(&made_meanwhile).await.unwrap();
        remember(&catalog, &both, &told).await.unwrap();
        assert!(catalog.known_backups(&both.name).await.unwrap().iter().all(Backup::is_good));
    }
}
