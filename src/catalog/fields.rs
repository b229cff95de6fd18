//! How the nouns' types are written into columns and read back.
//!
//! A newcomer would bind a `DateTime` directly; sqlx writes it as text, and STRICT tables keep times as milliseconds.

use std::{str::FromStr, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Row, sqlite::SqliteRow};

use crate::record::{DatabaseName, Failure, JobKey};

/// A moment as unix milliseconds.
pub(super) fn millis(at: DateTime<Utc>) -> i64 {
    at.timestamp_millis()
}

/// A length in milliseconds.
pub(super) fn length(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A count or size; SQLite's integers are signed.
pub(super) fn size(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A list, map or plain record as JSON text.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain lists, records and maps with text keys have a JSON form")
}

/// The columns of a job's key, with `''` and 0 for what is absent.
pub(super) fn key_columns(key: &JobKey) -> (&str, &'static str, u32, &str) {
    let database = key.database.as_ref().map_or("", DatabaseName::as_str);
    (database, key.kind.as_str(), key.repo.unwrap_or_default(), key.name.as_deref().unwrap_or_default())
}

/// A moment from unix milliseconds.
pub(super) fn moment(millis: i64) -> sqlx::Result<DateTime<Utc>> {
    DateTime::from_timestamp_millis(millis).ok_or_else(|| decode(format!("{millis} ms is no time")))
}

pub(super) fn decode(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::Decode(why.into())
}

/// Reads the nouns' types from a row, by column name.
pub(super) trait Fields {
    fn text(&self, column: &str) -> sqlx::Result<String>;
    fn opt_text(&self, column: &str) -> sqlx::Result<Option<String>>;
    fn int(&self, column: &str) -> sqlx::Result<i64>;
    fn opt_int(&self, column: &str) -> sqlx::Result<Option<i64>>;

    fn time(&self, column: &str) -> sqlx::Result<DateTime<Utc>> {
        moment(self.int(column)?)
    }

    fn opt_time(&self, column: &str) -> sqlx::Result<Option<DateTime<Utc>>> {
        self.opt_int(column)?.map(moment).transpose()
    }

    fn length(&self, column: &str) -> sqlx::Result<Duration> {
        self.opt_length(column).map(Option::unwrap_or_default)
    }

    fn opt_length(&self, column: &str) -> sqlx::Result<Option<Duration>> {
        Ok(self.opt_int(column)?.map(|millis| Duration::from_millis(millis.max(0).unsigned_abs())))
    }

    fn number<T: TryFrom<i64>>(&self, column: &str) -> sqlx::Result<T> {
        let number = self.int(column)?;
        T::try_from(number).map_err(|_| decode(format!("{number} in `{column}` is out of range")))
    }

    fn opt_number<T: TryFrom<i64>>(&self, column: &str) -> sqlx::Result<Option<T>> {
        self.opt_int(column)?.map(|_| self.number(column)).transpose()
    }

    fn word<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(&self, column: &str) -> sqlx::Result<T> {
        self.text(column)?.parse().map_err(decode)
    }

    fn opt_word<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
        &self,
        column: &str,
    ) -> sqlx::Result<Option<T>> {
        self.opt_text(column)?.map(|word| word.parse().map_err(decode)).transpose()
    }

    fn json<T: DeserializeOwned>(&self, column: &str) -> sqlx::Result<T> {
        serde_json::from_str(&self.text(column)?).map_err(decode)
    }

    /// From the columns `database`, `kind`, `repo` and `name`.
    fn job_key(&self) -> sqlx::Result<JobKey> {
        let database = self.opt_text("database")?.filter(|name| !name.is_empty());
        Ok(JobKey {
            database: database.map(|name| name.parse().map_err(decode)).transpose()?,
            kind: self.word("kind")?,
            repo: self.opt_number("repo")?.filter(|repo| *repo != 0),
            name: self.opt_text("name")?.filter(|name| !name.is_empty()),
        })
    }

    /// From the four `failure_*` columns.
    fn failure(&self) -> sqlx::Result<Option<Failure>> {
        let Some(class) = self.opt_word("failure_class")? else { return Ok(None) };
        let exit: u8 = self.number("failure_exit")?;
        Ok(Some(Failure {
            class,
            exit: exit.try_into().map_err(|why: String| decode(why))?,
            message: self.text("failure_message")?,
            remedy: self.opt_text("failure_remedy")?,
        }))
    }
}

impl Fields for SqliteRow {
    fn text(&self, column: &str) -> sqlx::Result<String> {
        self.try_get(column)
    }

    fn opt_text(&self, column: &str) -> sqlx::Result<Option<String>> {
        self.try_get(column)
    }

    fn int(&self, column: &str) -> sqlx::Result<i64> {
        self.try_get(column)
    }

    fn opt_int(&self, column: &str) -> sqlx::Result<Option<i64>> {
        self.try_get(column)
    }
}
