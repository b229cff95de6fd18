//! What the words of PostgreSQL's tools mean for us; the first row whose words are all there is taken.
//!
//! A newcomer would sort the rows; a special case must stand before the general one that it is part of.

use super::Meaning;
use crate::{
    error::ExitCode::{self, Busy, Configuration, Connection, NoSpace, Storage, ToolNotFound, VerificationFailed},
    record::ErrorClass::{self, Config, Integrity, Space, Transient},
};

const LOCKED: &str = "Find who holds the lock that `LOCK TABLE` waited for, in `pg_locks` and `pg_stat_activity`; dump \
                      when no DDL runs, or raise `lock_timeout`.";
const DAMAGED: &str = "The database itself is damaged: look at PostgreSQL's log and the kernel's now, keep every older \
                       backup, and restore from one.";
const PASSWORD: &str = "Correct the password: `password` in the policy, or `~/.pgpass` of this user.";
const LET_IN: &str = "Let this role in: check `pg_hba.conf`, `pg_ident.conf`, and that the role exists.";
const CONNECTION: &str = "Correct `connection`; a service is looked up in `~/.pg_service.conf` of this user.";
const CHANGED: &str = "Something was dropped or changed while the dump ran; dump when no DDL runs.";
const LOST: &str = "Check that PostgreSQL is running and that `connection` names its host and port; its log says why a \
                    session ended.";

/// The table.
#[rustfmt::skip]
pub(super) const TABLE: &[Meaning] = &[
    row(&["server version mismatch"], Config, ToolNotFound, "Install the client programs of the server's major version, or name their directory in `tool_dir`."),
    row(&["affected by row-level security"], Config, Configuration, "Let the role of `connection` see every row, by `alter role … bypassrls`; a dump of some of the rows is no backup."),
    row(&["canceling statement due to statement timeout", "LOCK TABLE"], Transient, Busy, LOCKED),
    row(&["canceling statement due to lock timeout"], Transient, Busy, LOCKED),
    row(&["could not obtain lock on relation"], Transient, Busy, LOCKED),
    row(&["deadlock detected"], Transient, Busy, LOCKED),
    row(&["conflict with recovery"], Transient, Connection, "Set `hot_standby_feedback`, raise `max_standby_streaming_delay`, or dump from the primary."),
    row(&["permission denied for table pg_authid"], Config, Configuration, "Dump as a superuser, or grant this role to read `pg_authid`; without it roles come without their passwords."),
    row(&["permission denied for large object"], Config, Configuration, "Let the role of `connection` read every large object: make it the owner, a superuser, or grant `select on large object`."),
    row(&["ERROR:  permission denied"], Config, Configuration, "Grant the role of `connection` what the message names, e.g. by `grant pg_read_all_data`."),
    row(&["password authentication failed"], Config, Connection, PASSWORD),
    row(&["no password supplied"], Config, Connection, PASSWORD),
    row(&["pg_hba.conf"], Config, Connection, LET_IN),
    row(&["authentication failed"], Config, Connection, LET_IN),
    row(&["FATAL:  role \"", "does not exist"], Config, Connection, LET_IN),
    row(&["FATAL:  permission denied for database"], Config, Connection, "Grant the role of `connection` the right to connect to this database."),
    row(&["FATAL:  database \"", "does not exist"], Config, Connection, "Correct the database in `connection`."),
    row(&["definition of service"], Config, Connection, CONNECTION),
    row(&["invalid connection option"], Config, Connection, CONNECTION),
    row(&["invalid URI"], Config, Connection, CONNECTION),
    row(&["in connection info string"], Config, Connection, CONNECTION),
    row(&["too many clients"], Transient, Connection, "Raise `max_connections`, or dump when fewer sessions are open."),
    row(&["remaining connection slots are reserved"], Transient, Connection, "Raise `max_connections`, or dump when fewer sessions are open."),
    row(&["too many connections for"], Transient, Connection, "Raise the connection limit of the role or database that the message names."),
    row(&["max_locks_per_transaction"], Config, Configuration, "Raise `max_locks_per_transaction` of the server: a dump locks every table at once."),
    row(&["No space left on device"], Space, NoSpace, "Free space where the message says; the directory format needs it in `daemon.scratch_dir`, a sort on the server."),
    row(&["Disk quota exceeded"], Space, NoSpace, "Raise the quota of the user that the message is about."),
    row(&["invalid page"], Integrity, VerificationFailed, DAMAGED),
    row(&["page verification failed"], Integrity, VerificationFailed, DAMAGED),
    row(&["could not read block"], Integrity, VerificationFailed, DAMAGED),
    row(&["could not access status of transaction"], Integrity, VerificationFailed, DAMAGED),
    row(&["missing chunk number"], Integrity, VerificationFailed, DAMAGED),
    row(&["unexpected chunk"], Integrity, VerificationFailed, DAMAGED),
    row(&["invalid memory alloc request size"], Integrity, VerificationFailed, DAMAGED),
    row(&["data is corrupt"], Integrity, VerificationFailed, DAMAGED),
    row(&["cache lookup failed"], Transient, Connection, CHANGED),
    row(&["could not open relation with OID"], Transient, Connection, CHANGED),
    row(&["ERROR:  relation \"", "does not exist"], Transient, Connection, CHANGED),
    row(&["could not create directory"], Config, Storage, "Make `daemon.scratch_dir` writable for this user."),
    row(&["could not open file"], Config, Storage, "Make `daemon.scratch_dir` writable for this user."),
    row(&["could not write to output file"], Transient, Storage, "Look at the disk below `daemon.scratch_dir`, and the kernel's log."),
    row(&["out of memory"], Transient, Connection, "Free memory on the machine that the message is about."),
    row(&["server closed the connection"], Transient, Connection, LOST),
    row(&["terminating connection"], Transient, Connection, LOST),
    row(&["the database system is"], Transient, Connection, LOST),
    row(&["connection to server"], Transient, Connection, LOST),
    row(&["could not translate host name"], Transient, Connection, "Correct the host in `connection`, or look at the name service of this host."),
    row(&["SSL"], Transient, Connection, LOST),
    row(&["could not receive data from server"], Transient, Connection, LOST),
    row(&["no COPY in progress"], Transient, Connection, LOST),
    row(&["canceling statement"], Transient, Connection, "Look at who cancelled it, in PostgreSQL's log."),
];

const fn row(words: &'static [&'static str], class: ErrorClass, exit: ExitCode, remedy: &'static str) -> Meaning {
    Meaning { words, class, exit, remedy }
}
