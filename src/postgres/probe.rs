//! The questions that are asked of every server.
//!
//! Each is one statement that works on a primary and on a standby, and for a role with nothing but `pg_monitor`. A
//! newcomer would ask `pg_current_wal_lsn()`; a commit that does not wait for the disk lies beyond it, so the
//! insert position is what bounds all commits before now.

use std::path::PathBuf;

use chrono::{DateTime, Utc};

use super::{Client, QueryError, Record};
use crate::recovery::{Lsn, Segment, SegmentSize};

/// Which cluster a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The system identifier, as text because it exceeds 2^53.
    pub system_id: String,
    /// `server_version_num`, e.g. 150020.
    pub version_num: u32,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// The data directory; none where the role may not see it.
    pub data_directory: Option<PathBuf>,
    /// The size of its WAL segments.
    pub wal_segment_size: SegmentSize,
    /// Whether its pages carry checksums.
    pub data_checksums: bool,
}

impl Identity {
    /// The major version as pgBackRest writes it, e.g. `15`.
    pub fn major_version(&self) -> String {
        (self.version_num / 10_000).to_string()
    }
}

/// How archiving goes, by the server's own account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archiving {
    /// The server's clock.
    pub now: DateTime<Utc>,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// Its timeline.
    pub timeline: u32,
    /// Every commit before `now` lies below this; on a standby what it replayed.
    pub lsn: Lsn,
    /// `archive_mode`: `on`, `off` or `always`.
    pub mode: String,
    /// `archive_command`; none where the role may not see it.
    pub command: Option<String>,
    /// `archive_timeout` in seconds; 0 is never.
    pub timeout: u64,
    /// How many files were archived since the statistics were reset.
    pub archived_count: i64,
    /// The last file that was archived; may be a history or label file.
    pub last_archived_wal: Option<String>,
    /// When.
    pub last_archived_at: Option<DateTime<Utc>>,
    /// How often archiving failed since the statistics were reset.
    pub failed_count: i64,
    /// The file with which it last failed.
    pub last_failed_wal: Option<String>,
    /// When.
    pub last_failed_at: Option<DateTime<Utc>>,
    /// Files that wait to be archived; none where the role may not look.
    pub ready_count: Option<i64>,
}

impl Archiving {
    /// The last archived segment, whatever else that file is.
    pub fn last_archived_segment(&self) -> Option<Segment> {
        self.last_archived_wal.as_deref()?.get(..24)?.parse().ok()
    }

    /// Whether the last try to archive failed.
    pub fn is_failing(&self) -> bool {
        self.last_failed_at.is_some_and(|failed| self.last_archived_at.is_none_or(|archived| failed > archived))
    }
}

/// A tablespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    /// Its number, the name of its link in `pg_tblspc`.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Its directory; none for the two that lie in the data directory.
    pub location: Option<PathBuf>,
}

const IDENTITY: &str = "\
select system.system_identifier, current_setting('server_version_num'), pg_is_in_recovery(),
       (select setting from pg_settings where name = 'data_directory'),
       init.bytes_per_wal_segment, init.data_page_checksum_version > 0
from pg_control_system() system, pg_control_init() init";

const ARCHIVING: &str = "\
select (extract(epoch from clock_timestamp()) * 1000)::bigint, pg_is_in_recovery(),
       case when pg_is_in_recovery() then (select timeline_id from pg_control_checkpoint())
            else ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int end,
       case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end,
       current_setting('archive_mode'), (select setting from pg_settings where name = 'archive_command'),
       (select setting from pg_settings where name = 'archive_timeout'),
       archived_count, last_archived_wal, (extract(epoch from last_archived_time) * 1000)::bigint,
       failed_count, last_failed_wal, (extract(epoch from last_failed_time) * 1000)::bigint,
       has_function_privilege('pg_catalog.pg_ls_archive_statusdir()', 'execute')
from pg_stat_archiver";

const READY: &str = "select count(*) from pg_ls_archive_statusdir() where name like '%.ready'";

impl Client {
    /// Which cluster the server is.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn identity(&self) -> Result<Identity, QueryError> {
        let record = one(self.query(IDENTITY).await?)?;
        let size: u64 = value(&record, 4)?;
        Ok(Identity {
            system_id: text(&record, 0)?.to_owned(),
            version_num: value(&record, 1)?,
            in_recovery: flag(&record, 2)?,
            data_directory: optional(&record, 3)?.map(PathBuf::from),
            wal_segment_size: SegmentSize::new(size).ok_or_else(|| nonsense("segment size", &record[4]))?,
            data_checksums: flag(&record, 5)?,
        })
    }

    /// How archiving goes.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn archiving(&self) -> Result<Archiving, QueryError> {
        let record = one(self.query(ARCHIVING).await?)?;
        // Even inside a `case` the function would be refused, so it is only named where it is allowed.
        let ready_count = if flag(&record, 13)? { Some(value(&one(self.query(READY).await?)?, 0)?) } else { None };
        archiving(&record, ready_count)
    }

    /// The tablespaces.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn tablespaces(&self) -> Result<Vec<Tablespace>, QueryError> {
        let sql = "select oid, spcname, pg_tablespace_location(oid) from pg_tablespace order by oid";
        let tablespace = |record: &Record| {
            let location = optional(record, 2)?.map(PathBuf::from);
            Ok(Tablespace { oid: value(record, 0)?, name: text(record, 1)?.to_owned(), location })
        };
        self.query(sql).await?.iter().map(tablespace).collect()
    }

    /// The names of the databases that can be connected to.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn databases(&self) -> Result<Vec<String>, QueryError> {
        let records = self.query("select datname from pg_database where datallowconn order by datname").await?;
        Ok(records.into_iter().map(|mut record| record.swap_remove(0)).collect())
    }

    /// Writes a named restore point into the WAL and says where it ends.
    ///
    /// # Errors
    /// When the role may not, or there is no answer.
    pub async fn create_restore_point(&self, name: &str) -> Result<Lsn, QueryError> {
        let sql = format!("select pg_create_restore_point('{}')", name.replace('\'', "''"));
        value(&one(self.query(&sql).await?)?, 0)
    }

    /// Ends the current segment, so that it is archived, and says where it ended.
    ///
    /// # Errors
    /// When the role may not, or there is no answer.
    pub async fn switch_wal(&self) -> Result<Lsn, QueryError> {
        value(&one(self.query("select pg_switch_wal()").await?)?, 0)
    }
}

fn archiving(record: &Record, ready_count: Option<i64>) -> Result<Archiving, QueryError> {
    let name = |column| Ok::<_, QueryError>(optional(record, column)?.map(str::to_owned));
    Ok(Archiving {
        now: instant(text(record, 0)?)?,
        in_recovery: flag(record, 1)?,
        timeline: value(record, 2)?,
        lsn: value(record, 3)?,
        mode: text(record, 4)?.to_owned(),
        command: name(5)?,
        timeout: value(record, 6)?,
        archived_count: value(record, 7)?,
        last_archived_wal: name(8)?,
        last_archived_at: optional(record, 9)?.map(instant).transpose()?,
        failed_count: value(record, 10)?,
        last_failed_wal: name(11)?,
        last_failed_at: optional(record, 12)?.map(instant).transpose()?,
        ready_count,
    })
}

pub(super) fn one(records: Vec<Record>) -> Result<Record, QueryError> {
    let count = records.len();
    let only = records.into_iter().next().filter(|_| count == 1);
    only.ok_or_else(|| QueryError::Answer(format!("{count} records instead of one")))
}

pub(super) fn text(record: &Record, column: usize) -> Result<&str, QueryError> {
    record.get(column).map(String::as_str).ok_or_else(|| QueryError::Answer(format!("no column {}", column + 1)))
}

/// A value that may be null.
pub(super) fn optional(record: &Record, column: usize) -> Result<Option<&str>, QueryError> {
    Ok(Some(text(record, column)?).filter(|text| !text.is_empty()))
}

pub(super) fn value<T: std::str::FromStr>(record: &Record, column: usize) -> Result<T, QueryError> {
    let text = text(record, column)?;
    text.parse().map_err(|_| nonsense("value", text))
}

pub(super) fn flag(record: &Record, column: usize) -> Result<bool, QueryError> {
    match text(record, column)? {
        "t" => Ok(true),
        "f" => Ok(false),
        other => Err(nonsense("truth value", other)),
    }
}

/// An instant, from milliseconds since 1970.
fn instant(text: &str) -> Result<DateTime<Utc>, QueryError> {
    text.parse().ok().and_then(DateTime::from_timestamp_millis).ok_or_else(|| nonsense("instant", text))
}

fn nonsense(what: &str, text: &str) -> QueryError {
    QueryError::Answer(format!("`{}` is no {what}", text.chars().take(80).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(values: &str) -> Record {
        values.split('|').map(str::to_owned).collect()
    }

    // Answers of PostgreSQL 15.
    const PRIMARY: &str = "1795193000123|f|3|0/1F0000D8|on|cp %p /a|60|42|00000003.history|1795192000000|0|||t";

    #[test]
    fn a_healthy_server_is_read_column_by_column() {
        let archiving = archiving(&record(PRIMARY), Some(2)).unwrap();
        assert_eq!((archiving.timeline, archiving.lsn.to_string()), (3, "0/1F0000D8".into()));
        assert_eq!((archiving.timeout, archiving.ready_count, archiving.is_failing()), (60, Some(2), false));
        assert_eq!((archiving.last_archived_segment(), archiving.last_failed_at), (None, None));
        assert_eq!(archiving.now.timestamp_subsec_millis(), 123);
    }

    #[test]
    fn archiving_fails_when_the_last_try_did() {
        let failing = |archived: &str, failed: &str| {
            let text = format!("1|f|1|0/1|on||0|1|000000010000000000000007|{archived}|9|x|{failed}|f");
            archiving(&record(&text), None).unwrap().is_failing()
        };
        assert!(failing("", "1000") && failing("1000", "2000"));
        assert!(!failing("2000", "1000") && !failing("1000", ""));
    }

    #[test]
    fn a_label_file_names_the_segment_it_belongs_to() {
        let text = PRIMARY.replace("00000003.history", "00000003000000000000001C.00000028.backup");
        let segment = archiving(&record(&text), None).unwrap().last_archived_segment().unwrap();
        assert_eq!(segment.to_string(), "00000003000000000000001C");
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_no_panic() {
        for text in ["", "a", "1|x|3", "99999999999999999999|f|1|0/1|on||0|0|||0|||f", "1|f|1|zero|on||0|0|||0|||f"] {
            assert!(matches!(archiving(&record(text), None), Err(QueryError::Answer(_))), "{text}");
        }
        assert!(one(vec![]).is_err() && one(vec![vec![], vec![]]).is_err());
    }
}
