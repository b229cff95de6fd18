//! What is asked of every server before its databases are dumped.
//!
//! A newcomer would take an empty answer for an empty database; one that is missing, or that the user may not see,
//! gives the same.

use std::time::Duration;

use super::{Client, QueryError, Record, grants::Grants, identifier, literal};
use crate::{
    engine::{
        migration::{self, Dialect},
        mysqldump::{Flavour, server},
    },
    record::Migrations,
};

/// How many tables are looked at by one question; a command line is no longer than 128 KiB.
const AT_ONCE: usize = 200;

/// Which server it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Whose it is.
    pub flavour: Flavour,
    /// Its version, e.g. `10.11.14`.
    pub version: String,
    /// What tells it from others, where it has that: `server_uuid` of MySQL, `server_uid` of a newer MariaDB.
    pub id: String,
}

/// What is in the databases that are to be dumped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// Databases that do not exist, or that the user may not see.
    pub missing: Vec<String>,
    /// Bytes of data and indexes.
    pub size: u64,
    /// Tables whose engine knows no transactions, as `database.table (engine)`.
    pub not_transactional: Vec<String>,
    /// What the dump would leave out without an error: the database, and `triggers` or `routines`.
    pub silences: Vec<(String, &'static str)>,
}

impl Client {
    /// Which server it is.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn server(&self) -> Result<Server, QueryError> {
        let version = one(self.query("select version()").await?, 0)?;
        let ids = self.query("show global variables where variable_name in ('server_uuid', 'server_uid')").await?;
        let id = ids.into_iter().next().and_then(|record| record.into_iter().nth(1)).unwrap_or_default();
        let (flavour, version) = server(&version);
        Ok(Server { flavour, version, id })
    }

    /// What is in the databases.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn contents(&self, databases: &[String], flavour: Flavour) -> Result<Contents, QueryError> {
        let names = literals(databases);
        let sql = format!("select schema_name from information_schema.schemata where schema_name in ({names})");
        let seen: Vec<String> = self.query(&sql).await?.into_iter().flatten().collect();
        let is_there = |name: &&String| seen.iter().any(|seen| seen.eq_ignore_ascii_case(name));
        let missing = databases.iter().filter(|name| !is_there(name)).cloned().collect();

        let sql = format!(
            "select coalesce(sum(data_length + index_length), 0) from information_schema.tables where table_schema in ({names})"
        );
        let size = one(self.query(&sql).await?, 0)?;
        let size = size.parse().map_err(|_| QueryError::Answer(format!("`{size}` is no size")))?;

        let sql = format!(
            "select table_schema, table_name, engine from information_schema.tables where table_schema in ({names}) \
             and table_type = 'BASE TABLE' and engine not in \
             (select engine from information_schema.engines where coalesce(transactions, 'NO') = 'YES') order by 1, 2"
        );
        let not_transactional = self.query(&sql).await?.iter().filter_map(told).collect();

        let lines = self.query("show grants").await?;
        let grants = Grants::read(lines.iter().filter_map(|record| record.first()).map(String::as_str));
        let silent =
            |name: &String| grants.silences(name, flavour).into_iter().map(|what| (name.clone(), what)).collect();
        let silences = databases.iter().flat_map(|name| -> Vec<_> { silent(name) }).collect();
        Ok(Contents { missing, size, not_transactional, silences })
    }

    /// Opens every table for a moment, and so waits for whoever holds a lock on one, at most `timeout` for each 200. The
    /// dump tools know no such limit; they would wait for a day. Gives the table that is locked, if one is.
    ///
    /// # Errors
    /// When there is no answer, or a table cannot be opened for another reason.
    pub async fn locked_table(&self, databases: &[String], timeout: Duration) -> Result<Option<String>, QueryError> {
        let sql = format!(
            "select table_schema, table_name from information_schema.tables where table_schema in ({}) \
             and table_type = 'BASE TABLE' order by 1, 2",
            literals(databases)
        );
        let tables = self.query(&sql).await?;
        let names: Vec<String> = tables.iter().filter_map(|record| qualified(record, identifier)).collect();
        let patient = self.clone().statement_timeout(timeout);
        for names in names.chunks(AT_ONCE) {
            let sql: String = names.iter().map(|name| format!("select 1 from {name} limit 0;\n")).collect();
            match patient.query(&sql).await {
                Ok(_) => {}
                Err(QueryError::Sql { number: 1205, line, .. }) => {
                    return Ok(line.checked_sub(1).and_then(|at| names.get(at)).cloned());
                }
                // Dropped since it was listed.
                Err(QueryError::Sql { number: 1146, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The schema migrations of the first of the databases that has any.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn migrations(&self, databases: &[String]) -> Result<Option<Migrations>, QueryError> {
        let mut records = self.query(&migration::candidates_sql(Dialect::MySql)).await?;
        let is_ours = |record: &Record| {
            record.first().is_some_and(|schema| databases.iter().any(|name| name.eq_ignore_ascii_case(schema)))
        };
        records.retain(is_ours);
        let Some(found) = migration::recognise(Dialect::MySql, &records) else { return Ok(None) };
        let applied = self.query(&found.list_sql).await?;
        Ok(Some(migration::migrations(&found, &applied)))
    }
}

fn one(records: Vec<Record>, column: usize) -> Result<String, QueryError> {
    let value = records.into_iter().next().and_then(|record| record.into_iter().nth(column));
    value.ok_or_else(|| QueryError::Answer("nothing was answered".to_owned()))
}

fn literals(names: &[String]) -> String {
    names.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ")
}

fn qualified(record: &Record, part: impl Fn(&str) -> String) -> Option<String> {
    Some(format!("{}.{}", part(record.first()?), part(record.get(1)?)))
}

fn told(record: &Record) -> Option<String> {
    Some(format!("{} ({})", qualified(record, str::to_owned)?, record.get(2)?))
}
