//! What lies in the archives of a repository, judged beside the backups and what the server said.
//!
//! The archive of the present cluster is searched for holes. Those of the clusters before an upgrade are judged too,
//! because their backups can still be restored; nobody writes to them any more, so only their backups' own times count.
//! A newcomer would judge all backups of a repository by one listing; a backup of another cluster would then seem torn.

use chrono::{DateTime, Utc};

use super::{Failure, Look, Runner, server::Server};
use crate::{
    engine::pgbackrest::{PgBackRest, archive, info::Cluster},
    error::{ExitCode, chain},
    job::sync,
    policy::Database,
    postgres::Archiving,
    record::{Backup, BackupStatus, ErrorClass, RepoKey, WalSample, Window},
    recovery::{Archive, BadWal, Gap, History, Listing, Lsn, Segment, SegmentSize, analyse, persistent},
};

/// What all repositories of one look are judged by.
pub(super) struct Facts<'a> {
    pub(super) database: &'a Database,
    pub(super) seen: &'a sync::Seen,
    /// The server; none where it could not be asked, or is not the one that the repositories are for.
    pub(super) server: Option<&'a Server>,
    /// The backups that should be there, of all repositories and clusters.
    pub(super) backups: &'a [Backup],
    /// What earlier looks saw, the newest first.
    pub(super) earlier: &'a [WalSample],
}

impl Facts<'_> {
    fn archiving(&self) -> Option<&Archiving> {
        self.server.map(|server| &server.archiving)
    }

    /// The backups of one cluster in its repository.
    fn backups_of(&self, cluster: &Cluster) -> Vec<Backup> {
        let is_of = |backup: &&Backup| {
            backup.repo == cluster.repo
                && backup.system_id == cluster.system_id
                && backup.server_version == cluster.version
        };
        self.backups.iter().filter(is_of).cloned().collect()
    }
}

impl Runner {
    /// Judges a repository.
    ///
    /// # Errors
    /// When it cannot be looked at; then nothing of it is judged, and what was known of it stays.
    pub(super) async fn look_at_repo(&self, facts: &Facts<'_>, repo: RepoKey, look: &mut Look) -> Result<(), Failure> {
        if let Some(failure) = facts.seen.trouble(repo) {
            if facts.seen.is_missing(repo) {
                look.nothing_in(repo);
            }
            look.blinded(failure);
            return Ok(());
        }
        let Some(present) = facts.seen.cluster(repo) else {
            look.sample.problems.push(format!("repo {repo} has no archive of this cluster yet"));
            look.nothing_in(repo);
            return Ok(());
        };
        let mut windows = Vec::new();
        for cluster in facts.seen.clusters(repo).filter(|cluster| cluster.id != present.id) {
            let backups = facts.backups_of(cluster);
            if !backups.is_empty() {
                let listing = self.list(facts.database, repo, &cluster.archive_id()).await?;
                let size = segment_size(&backups).unwrap_or(SegmentSize::DEFAULT);
                windows.extend(verdict(analyse(&listing, &backups, size, None, &[]), &backups, look));
            }
        }
        let backups = facts.backups_of(present);
        let listing = self.list(facts.database, repo, &present.archive_id()).await?;
        let known_size = facts.server.map(|server| server.segment_size).or_else(|| segment_size(&backups));
        let samples = moments(facts.earlier, &look.sample);
        let timeline = facts.archiving().map(|server| server.timeline);
        let size = known_size.unwrap_or(SegmentSize::DEFAULT);
        let archive = analyse(&listing, &backups, size, timeline, &samples);
        judge(facts, repo, &archive, &mut look.sample);
        if backups.is_empty() && facts.backups.iter().any(|backup| backup.repo == repo) {
            let id = &present.system_id;
            look.sample.problems.push(format!(
                "repo {repo} holds no backup of the present cluster {id}, only of former ones: make a full backup"
            ));
        }
        windows.extend(verdict(archive, &backups, look));
        look.windows.insert(repo, windows);
        Ok(())
    }

    async fn list(&self, database: &Database, repo: RepoKey, archive_id: &str) -> Result<Listing, Failure> {
        let tool = PgBackRest::of(database).map_err(sync::secret_failure)?;
        let answer = sync::ask(&tool.list_archive(repo, Some(archive_id)), &self.stop).await?;
        let mut listing = archive::listings(&answer, Some(archive_id))?.into_iter().next().unwrap_or_default();
        for timeline in listing.history_files.clone() {
            let answer = sync::ask(&tool.get_history(repo, archive_id, timeline), &self.stop).await?;
            let history = History::parse(&String::from_utf8_lossy(&answer)).map_err(unreadable)?;
            listing.histories.insert(timeline, history);
        }
        Ok(listing)
    }
}

/// Takes note of the backups that an archive condemns or acquits, and gives its windows.
fn verdict(archive: Archive, backups: &[Backup], look: &mut Look) -> Vec<Window> {
    for backup in backups {
        match (backup.status, archive.is_consistent(backup)) {
            (BackupStatus::Good, Some(false)) => look.torn.push(backup.id.clone()),
            (BackupStatus::Unrestorable, Some(true)) if backup.page_errors != Some(true) => {
                look.mended.push(backup.id.clone());
            }
            _ => {}
        }
    }
    archive.windows
}

/// The segment size of a cluster, by the names and positions at which its backups stopped.
fn segment_size(backups: &[Backup]) -> Option<SegmentSize> {
    let stop = |backup: &Backup| {
        Some((backup.wal_stop.as_deref()?.parse::<Segment>().ok()?, backup.lsn_stop.as_deref()?.parse::<Lsn>().ok()?))
    };
    let stops: Vec<(Segment, Lsn)> = backups.iter().filter_map(stop).collect();
    // A position between two segments belongs to the one before it.
    let fits = |size: &SegmentSize| {
        stops
            .iter()
            .all(|(segment, lsn)| segment.fits(*size) && segment.start(*size) <= *lsn && *lsn <= segment.end(*size))
    };
    let mut sizes = (20..=30).filter_map(|power| SegmentSize::new(1 << power)).filter(fits);
    let only = sizes.next().filter(|_| !stops.is_empty())?;
    // At the very start of the log several may fit; that tells nothing.
    sizes.next().is_none().then_some(only)
}

/// What is wrong by the archive's own content.
fn judge(facts: &Facts<'_>, repo: RepoKey, archive: &Archive, sample: &mut WalSample) {
    let server = facts.archiving();
    let mut gaps: Vec<Gap> = archive.holes.iter().filter(|hole| !hole.is_bridged).map(|hole| hole.gap).collect();
    let lost = server.and_then(Archiving::last_archived_segment);
    gaps.extend(lost.and_then(|segment| archive.missing_after(segment)));
    // A look that did not reach the repository says nothing about a hole, least of all that it was closed.
    let before: Vec<(DateTime<Utc>, Vec<Gap>)> = facts
        .earlier
        .iter()
        .filter(|sample| sample.gaps.contains_key(&repo))
        .map(|sample| (sample.sampled_at, gaps_of(sample, repo)))
        .collect();
    let stays = persistent(&gaps, &before, sample.sampled_at, facts.database.wal.gap_grace);
    let lasting: Vec<&Gap> = gaps.iter().filter(|gap| stays.contains(gap) || is_deep(**gap, archive)).collect();
    for gap in &lasting {
        sample
            .problems
            .push(format!("repo {repo}: WAL {gap} is missing: recovery past it needs a backup that began later"));
    }
    sample.gaps.insert(repo, gaps.iter().map(ToString::to_string).collect());
    if let Some(segment) = archive.contiguous_to {
        sample.contiguous_to.insert(repo, segment.to_string());
    }
    for label in &archive.unrestorable {
        sample.problems.push(format!("repo {repo}: backup {label} cannot be restored: its own WAL is not complete"));
    }
    let timeline = server.map(|server| server.timeline);
    for foreign in archive.foreign_timelines.iter().filter(|foreign| timeline.is_some_and(|ours| **foreign > ours)) {
        sample.problems.push(format!("repo {repo}: timeline {foreign} is in the archive but the server is on {}: a copy archives into production's stanza", timeline.unwrap_or_default()));
    }
    for conflict in &archive.conflicts {
        sample.problems.push(format!("repo {repo}: segment {} is there with different contents", conflict.segment));
    }
}

/// Parallel pushes arrive out of order, but not by more than a handful of segments: a hole with more than that behind
/// it is real at once, a fresh one may still fill. Each hole is judged by itself.
fn is_deep(gap: Gap, archive: &Archive) -> bool {
    let number = |segment: Segment| segment.number(SegmentSize::DEFAULT);
    let last = archive.runs.iter().map(|run| run.last).max();
    last.is_some_and(|last| number(last).saturating_sub(number(gap.last)) > 8)
}

fn gaps_of(sample: &WalSample, repo: RepoKey) -> Vec<Gap> {
    sample.gaps.get(&repo).into_iter().flatten().filter_map(|text| text.parse().ok()).collect()
}

fn moments(earlier: &[WalSample], now: &WalSample) -> Vec<(DateTime<Utc>, Lsn)> {
    let all = earlier.iter().chain([now]);
    all.filter_map(|sample| Some((sample.sampled_at, sample.current_lsn.as_deref()?.parse().ok()?))).collect()
}

fn unreadable(problem: BadWal) -> Failure {
    Failure {
        class: ErrorClass::Integrity,
        exit: ExitCode::Storage,
        message: format!("a timeline's history file in the archive cannot be read: {}", chain(&problem)),
        remedy: Some("Compare it with the copy in the server's `pg_wal`.".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::pgbackrest::info, policy::Policy};

    const INFO: &[u8] = include_bytes!("../../../tests/samples/pgbackrest-info-multirepo.json");

    fn database(rules: &str) -> Database {
        let text = format!("[database.orders]\nenvironment = \"staging\"\nwal = {{ {rules} }}\n");
        let mut policy = Policy::parse(vec![("p.toml".into(), text)]).unwrap();
        policy.databases.pop_first().unwrap().1
    }

    /// A backup from a real repository, moved to where it stopped.
    fn backup(wal_stop: &str, lsn_stop: &str) -> Backup {
        let some = info::read(INFO).unwrap().unwrap().backups(1, &database("")).remove(0);
        Backup { wal_stop: Some(wal_stop.into()), lsn_stop: Some(lsn_stop.into()), ..some }
    }

    #[test]
    fn the_segment_size_is_read_from_where_backups_stopped() {
        let mib = |backups: &[Backup]| segment_size(backups).map(|size| size.bytes() >> 20);
        let sixteen = backup("00000001000000000000005C", "0/5C000100");
        assert_eq!(mib(std::slice::from_ref(&sixteen)), Some(16));
        assert_eq!(mib(&[backup("000000010000000000000017", "0/5C000100")]), Some(64));
        assert_eq!(mib(&[backup("0000000100000000000005C0", "0/5C000100")]), Some(1));
        assert_eq!(mib(&[backup("00000001000000000000005B", "0/5C000000")]), Some(16), "the end of a segment");
        assert_eq!(mib(&[backup("000000010000000000000000", "0/100")]), None, "any size has that");
        assert_eq!(mib(&[sixteen, backup("000000010000000000000017", "0/5C000100")]), None, "they contradict");
        assert_eq!(mib(&[]), None);
    }

    fn segment(number: u64) -> Segment {
        Segment::at(1, number, SegmentSize::DEFAULT)
    }

    /// What `judge` says of an archive with these segments, after looks at these minutes that saw these repositories.
    fn problems(numbers: &[u64], earlier: &[(i64, &[RepoKey])]) -> Vec<String> {
        let database = database("gap_grace = \"5m\"");
        let minute = |minute: i64| DateTime::from_timestamp(minute * 60, 0).unwrap();
        let hole = "000000010000000000000003..000000010000000000000003";
        let earlier: Vec<WalSample> = earlier
            .iter()
            .map(|(at, repos)| WalSample {
                gaps: repos.iter().map(|repo| (*repo, vec![hole.to_owned()])).collect(),
                ..super::super::server::unasked(&database, minute(*at))
            })
            .collect();
        let listing = Listing { segments: numbers.iter().copied().map(segment).collect(), ..Listing::default() };
        let archive = analyse(&listing, &[], SegmentSize::DEFAULT, None, &[]);
        let seen = sync::tests::nothing(&database);
        let facts = Facts { database: &database, seen: &seen, server: None, backups: &[], earlier: &earlier };
        let mut sample = super::super::server::unasked(&database, minute(100));
        judge(&facts, 1, &archive, &mut sample);
        assert_eq!(sample.gaps[&1], [hole]);
        sample.problems
    }

    #[test]
    fn a_hole_is_told_when_it_has_stayed_and_a_look_that_saw_nothing_does_not_make_it_new() {
        let holed = [1, 2, 4, 5];
        assert_eq!(problems(&holed, &[]).len(), 0, "it may still close");
        assert_eq!(problems(&holed, &[(98, &[1]), (94, &[1])]).len(), 1);
        assert_eq!(problems(&holed, &[(98, &[1]), (96, &[1]), (90, &[2])]).len(), 0);
        assert_eq!(problems(&holed, &[(98, &[]), (96, &[2]), (94, &[1])]).len(), 1, "two looks were blind");
        assert_eq!(problems(&[1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12], &[]).len(), 1, "much came after it");
    }
}
