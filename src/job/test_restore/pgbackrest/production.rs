//! What production is asked before a test restore, and the mark that it gets.
//!
//! Everything here may fail without failing the restore: a backup must be provable while production is down. Then the
//! proof says what was not asked. A newcomer would write a row as the mark; a restore point writes none, needs no table,
//! and recovery stops exactly there.

use std::path::PathBuf;

use chrono::{DateTime, Utc};

use super::super::{
    Context, failure,
    steps::{Checked, Result},
    stopped, sync,
};
use crate::{
    error::chain,
    policy,
    postgres::{Client, QueryError},
    record::{Backup, ErrorClass, Failure},
    recovery::{Lsn, Segment, SegmentSize},
    sandbox::FLOORS,
};

/// What production said.
pub(super) struct Production {
    client: Option<Client>,
    /// Why it could not be asked.
    pub(super) unknown: Option<String>,
    is_standby: bool,
    /// Its timeline; none when it could not be asked.
    pub(super) timeline: Option<u32>,
    /// The size of its WAL segments.
    pub(super) segment_size: Option<SegmentSize>,
    data_directory: Option<PathBuf>,
    /// Where its tablespaces lie.
    pub(super) tablespaces: Vec<PathBuf>,
    /// The role that `initdb` made, which may do everything.
    pub(super) superuser: String,
    /// Settings of which a recovery needs at least as much.
    pub(super) floors: Vec<(String, u64)>,
}

/// The mark in production's WAL.
#[derive(Debug, Clone)]
pub(super) struct Canary {
    /// The restore point.
    pub(super) name: String,
    /// Where it is.
    pub(super) lsn: Lsn,
    /// The segment that holds it.
    pub(super) segment: Segment,
    /// When it was set, by production's clock.
    pub(super) at: DateTime<Utc>,
}

impl Production {
    /// Asks it; fails only when it is not the server that the backup is of.
    pub(super) async fn ask(context: &Context, backup: &Backup) -> Result<Production> {
        let Some(client) = Client::of(context.database()).map_err(sync::secret_failure)? else {
            return Ok(Production::unasked("the policy names no `connection`".to_owned()));
        };
        let (system_id, production) = match Production::facts(client.stop(&context.stop)).await {
            Ok(facts) => facts,
            Err(QueryError::Stopped) => return Err(stopped()),
            Err(error) => return Ok(Production::unasked(format!("production cannot be asked: {}", chain(&error)))),
        };
        if system_id != backup.system_id {
            return Err(another_cluster(&system_id, backup));
        }
        let count = production.tablespaces.len();
        let role = if production.is_standby { "standby" } else { "primary" };
        let detail = format!("{role} on timeline {}, {count} tablespaces", production.timeline.unwrap_or_default());
        Ok(Checked::passed(production, detail))
    }

    fn unasked(reason: String) -> Checked<Production> {
        Checked::skipped(Production::unknown_because(&reason), reason)
    }

    /// A production that could not be asked.
    pub(super) fn unknown_because(reason: &str) -> Production {
        Production {
            client: None,
            unknown: Some(reason.to_owned()),
            is_standby: false,
            timeline: None,
            segment_size: None,
            data_directory: None,
            tablespaces: Vec::new(),
            superuser: "postgres".to_owned(),
            floors: Vec::new(),
        }
    }

    async fn facts(client: Client) -> std::result::Result<(String, Production), QueryError> {
        let identity = client.identity().await?;
        let locations = client.tablespaces().await?.into_iter().filter_map(|tablespace| tablespace.location);
        let names = FLOORS.map(|(name, _)| format!("'{name}'")).join(", ");
        let settings = client.query(&format!("select name, setting from pg_settings where name in ({names})")).await?;
        let superuser = client.query("select rolname from pg_roles where oid = 10").await?;
        let floor = |row: &Vec<String>| Some((row.first()?.clone(), row.get(1)?.parse().ok()?));
        let production = Production {
            unknown: None,
            is_standby: identity.in_recovery,
            timeline: Some(client.archiving().await?.timeline),
            segment_size: Some(identity.wal_segment_size),
            data_directory: identity.data_directory,
            // One inside the data directory has a relative location, and is restored with it.
            tablespaces: locations.filter(|location| location.is_absolute()).collect(),
            superuser: superuser.into_iter().flatten().next().unwrap_or_else(|| "postgres".to_owned()),
            floors: settings.iter().filter_map(floor).collect(),
            client: Some(client),
        };
        Ok((identity.system_id, production))
    }

    /// Every directory that is its own.
    pub(super) fn directories(&self) -> Vec<PathBuf> {
        self.data_directory.iter().chain(&self.tablespaces).cloned().collect()
    }

    /// Sets a restore point and closes its segment; the inner error is the reason why there is none.
    pub(super) async fn mark(
        &self,
        context: &Context,
    ) -> std::result::Result<std::result::Result<Canary, String>, Failure> {
        if context.database().test_restore.canary == policy::Canary::Off {
            return Ok(Err("the policy sets `canary = \"off\"`".to_owned()));
        }
        let Some(client) = &self.client else {
            return Ok(Err(self.unknown.clone().unwrap_or_default()));
        };
        if self.is_standby {
            return Ok(Err("the server is a standby, which cannot set a restore point".to_owned()));
        }
        // The attempt makes it unique: recovery stops at the first restore point of that name.
        let name =
            format!("backstop_{}_{}", &context.run_uuid[context.run_uuid.len().saturating_sub(8)..], context.attempt);
        match set_restore_point(client, &name).await {
            Ok(row) => read_canary(name, &row).map(Ok),
            Err(error) => Ok(Err(format!("no restore point could be set: {}", chain(&error)))),
        }
    }
}

async fn set_restore_point(client: &Client, name: &str) -> std::result::Result<Vec<String>, QueryError> {
    let set = format!(
        "select lsn, pg_walfile_name(lsn), to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') \
         from (select pg_create_restore_point('{name}') as lsn offset 0) as mark"
    );
    let rows = client.query(&set).await?;
    client.switch_wal().await?;
    Ok(rows.into_iter().next().unwrap_or_default())
}

fn read_canary(name: String, row: &[String]) -> std::result::Result<Canary, Failure> {
    let field = |number: usize| row.get(number).map(String::as_str).unwrap_or_default();
    let read = || {
        let at = DateTime::parse_from_rfc3339(field(2)).ok()?.with_timezone(&Utc);
        Some((field(0).parse().ok()?, field(1).parse().ok()?, at))
    };
    let (lsn, segment, at) = read().ok_or_else(|| {
        let message = format!("production answered `{}` when a restore point was set", row.join("|"));
        failure(ErrorClass::Defect, message, "Look at what `psql` prints by itself, e.g. from a `psqlrc`.")
    })?;
    Ok(Canary { name, lsn, segment, at })
}

fn another_cluster(system_id: &str, backup: &Backup) -> Failure {
    let message =
        format!("`connection` leads to cluster {system_id}, but the backup is of cluster {}", backup.system_id);
    failure(ErrorClass::Config, message, "Correct `connection` or `stanza` of this database in the policy.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_read_back_with_its_place_and_time() {
        let row = ["0/6000098", "000000010000000000000006", "2026-11-20T16:59:00.123Z"].map(str::to_owned);
        let canary = read_canary("backstop_0a1b2c3d_7".into(), &row).unwrap();
        assert_eq!((canary.lsn.to_string(), canary.segment.to_string()), (row[0].clone(), row[1].clone()));
        assert_eq!(canary.at.timestamp_millis() % 1000, 123);
        assert_eq!(read_canary(String::new(), &[]).unwrap_err().class, ErrorClass::Defect);
    }
}
