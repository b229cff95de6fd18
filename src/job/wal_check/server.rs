//! What the server says of its archiving, and whether it is the server to listen to.
//!
//! A connection may lead to another cluster: a copy, a new one at the same place. Its LSN beside our archive would prove
//! anything. A newcomer would trust whoever answers; here nothing of a stranger's answer is kept.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::{
    clock::age,
    error::ExitCode,
    human::length,
    job::sync,
    policy::{Database, Wal},
    postgres::{Archiving, Client},
    record::{ErrorClass, Failure, WalSample},
    recovery::SegmentSize,
};

/// A server's answers.
pub(super) struct Server {
    pub(super) archiving: Archiving,
    pub(super) segment_size: SegmentSize,
    system_id: String,
}

/// Asks the server; none where the policy has no connection.
pub(super) async fn ask(database: &Database) -> Result<Option<Server>, Failure> {
    let Some(client) = Client::of(database).map_err(sync::secret_failure)? else { return Ok(None) };
    let identity = client.identity().await?;
    let archiving = client.archiving().await?;
    Ok(Some(Server { archiving, segment_size: identity.wal_segment_size, system_id: identity.system_id }))
}

/// A sample without anything that a server said.
pub(super) fn unasked(database: &Database, now: DateTime<Utc>) -> WalSample {
    WalSample {
        database: database.name.clone(),
        sampled_at: now,
        timeline: None,
        current_lsn: None,
        last_archived_wal: None,
        last_archived_at: None,
        failed_count: None,
        last_failed_at: None,
        ready_count: None,
        contiguous_to: BTreeMap::new(),
        gaps: BTreeMap::new(),
        problems: Vec::new(),
    }
}

impl Server {
    /// Why its word counts for nothing: a repository is for another cluster.
    pub(super) fn mistaken(&self, database: &Database, seen: &sync::Seen) -> Option<Failure> {
        let theirs = |repo: &u32| seen.cluster(*repo).filter(|cluster| cluster.system_id != self.system_id);
        let cluster = database.pgbackrest.repos.iter().find_map(theirs)?;
        Some(Failure {
            class: ErrorClass::Config,
            exit: ExitCode::Configuration,
            message: format!(
                "the server is cluster {}, the stanza belongs to cluster {} (repository {}): what the server says is not used",
                self.system_id, cluster.system_id, cluster.repo
            ),
            remedy: Some(
                "Somebody made a new cluster, or the connection leads elsewhere. After a major upgrade run `pgbackrest stanza-upgrade`."
                    .to_owned(),
            ),
        })
    }

    /// Puts its answers, and what is wrong by them, into the sample.
    pub(super) fn tell(&self, rules: &Wal, sample: &mut WalSample) {
        let server = &self.archiving;
        // The server's clock, because the moment belongs to the LSN that it told with it.
        sample.sampled_at = server.now;
        sample.timeline = Some(server.timeline);
        sample.current_lsn = Some(server.lsn.to_string());
        sample.last_archived_wal = server.last_archived_segment().map(|segment| segment.to_string());
        sample.last_archived_at = server.last_archived_at;
        sample.failed_count = Some(server.failed_count);
        sample.last_failed_at = server.last_failed_at;
        sample.ready_count = server.ready_count;
        sample.problems.extend(problems(server, rules));
    }
}

/// What is wrong by the server's own words.
fn problems(server: &Archiving, rules: &Wal) -> Vec<String> {
    if server.mode == "off" {
        return vec!["archiving is off (`archive_mode = off`): nothing after a backup can be recovered".to_owned()];
    }
    let since = |at: DateTime<Utc>| length(age(server.now, at));
    let mut problems = Vec::new();
    if let Some(command) = server.command.as_ref().filter(|command| !command.contains("archive-push")) {
        problems.push(format!("`archive_command` does not call pgBackRest: `{command}`"));
    }
    if let Some(failed) = server.last_failed_at.filter(|_| server.is_failing()) {
        let segment = server.last_failed_wal.as_deref().unwrap_or("a segment");
        let count = server.failed_count;
        problems.push(format!("archiving fails: {segment} failed {} ago, {count} failures so far", since(failed)));
    }
    let ready = server.ready_count.unwrap_or(0);
    if ready > i64::from(rules.max_ready) {
        problems.push(format!("{ready} segments wait to be archived, {} are allowed", rules.max_ready));
    }
    if let Some(archived) = server.last_archived_at
        && ready > 0
        && age(server.now, archived) > rules.max_lag
    {
        let allowed = length(rules.max_lag);
        problems.push(format!(
            "archiving is late: others wait since the last was archived {} ago, {allowed} is allowed",
            since(archived)
        ));
    }
    problems
}
