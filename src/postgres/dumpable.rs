//! What a dump needs to know of a database before it begins.
//!
//! One statement, for a role that may do no more than read the tables. A newcomer would ask whether the role is a
//! superuser; what counts is what it can read: whether row security hides rows from it, and passwords.

use super::{
    Client, QueryError,
    probe::{flag, one, optional, text, value},
};

/// A database that shall be dumped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dumpable {
    /// `server_version_num`, e.g. 150020.
    pub version_num: u32,
    /// The version in words, e.g. `15.20`.
    pub version: String,
    /// The system identifier, as text because it exceeds 2^53.
    pub system_id: String,
    /// The database's name.
    pub database: String,
    /// Its size in bytes.
    pub size: u64,
    /// Whether the server is a standby.
    pub in_recovery: bool,
    /// Whether the role may read the passwords of all roles.
    pub reads_passwords: bool,
    /// Unlogged tables.
    pub unlogged: u64,
    /// Foreign tables.
    pub foreign: u64,
    /// Some of the tables of which this role does not see every row.
    pub hidden: Option<String>,
    /// What belongs to the database itself and not to anything in it, in words.
    pub properties: Option<String>,
}

impl Dumpable {
    /// The server's major version; 9 for 9.6 and older.
    pub fn major(&self) -> u32 {
        self.version_num / 10_000
    }
}

const DUMPABLE: &str = "\
select current_setting('server_version_num'), split_part(current_setting('server_version'), ' ', 1),
       (select system_identifier from pg_control_system()), d.datname, pg_database_size(d.oid), pg_is_in_recovery(),
       has_table_privilege('pg_catalog.pg_authid', 'select'),
       (select count(*) from pg_class where relkind = 'r' and relpersistence = 'u'),
       (select count(*) from pg_class where relkind = 'f'),
       (select string_agg(name, ', ')
          from (select c.oid::regclass::text as name from pg_class c
                 where c.relkind in ('r', 'p') and c.relrowsecurity and row_security_active(c.oid)
                 order by 1 limit 5) hidden),
       concat_ws('; ',
           (select 'settings ' || string_agg(distinct split_part(setting, '=', 1), ', ')
              from pg_db_role_setting s, unnest(s.setconfig) setting where s.setdatabase = d.oid),
           case when (d.encoding, d.datcollate, d.datctype) is distinct from (t.encoding, t.datcollate, t.datctype)
                then 'encoding ' || pg_encoding_to_char(d.encoding) || ' and locale ' || d.datcollate end,
           case when d.datacl is not null then 'privileges on the database' end)
from pg_database d, pg_database t
where d.datname = current_database() and t.datname = 'template0'";

impl Client {
    /// What a dump of the connection's own database needs to know.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn dumpable(&self) -> Result<Dumpable, QueryError> {
        let record = one(self.query(DUMPABLE).await?)?;
        Ok(Dumpable {
            version_num: value(&record, 0)?,
            version: text(&record, 1)?.to_owned(),
            system_id: text(&record, 2)?.to_owned(),
            database: text(&record, 3)?.to_owned(),
            size: value(&record, 4)?,
            in_recovery: flag(&record, 5)?,
            reads_passwords: flag(&record, 6)?,
            unlogged: value(&record, 7)?,
            foreign: value(&record, 8)?,
            hidden: optional(&record, 9)?.map(str::to_owned),
            properties: optional(&record, 10)?.map(str::to_owned),
        })
    }
}
