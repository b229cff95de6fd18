//! Reads what a recovering server says about its recovery.
//!
//! The words are PostgreSQL's own, in the C locale and without a prefix, as `config.rs` orders them; they are the same
//! from version 12 to 18. MariaDB and MySQL, which recover nothing here, only say that they are ready, or why not. A newcomer would believe the line that says the server is ready: it says the same when the WAL
//! ended too early.

use std::collections::BTreeSet;

/// What a recovery said so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryLog {
    /// The segments that it took from the fetched WAL.
    pub segments: BTreeSet<String>,
    /// Where replay began.
    pub redo_from: Option<String>,
    /// Where the copy became consistent.
    pub consistent_at: Option<String>,
    /// Where replay ended.
    pub redo_to: Option<String>,
    /// The restore point at which it stopped.
    pub stopped_at: Option<String>,
    /// When the last replayed transaction was committed, in PostgreSQL's words.
    pub last_commit: Option<String>,
    /// Whether it accepts connections, its recovery being over.
    pub is_ready: bool,
    /// The first thing that it could not get over, with the lines that explain it.
    pub fatal: Vec<String>,
}

impl RecoveryLog {
    /// Takes a line.
    pub fn read(&mut self, line: &str) {
        let Some((severity, message)) = line.split_once(":  ") else { return };
        match severity {
            "LOG" => self.read_message(message),
            "FATAL" | "PANIC" if self.fatal.is_empty() => self.fatal.push(line.to_owned()),
            "DETAIL" | "HINT" | "CONTEXT" if matches!(self.fatal.len(), 1..=3) => self.fatal.push(line.to_owned()),
            _ => {}
        }
    }

    /// Takes a line of MariaDB or MySQL.
    pub fn read_mariadb(&mut self, line: &str) {
        if line.contains(": ready for connections.") {
            self.is_ready = true;
        } else if line.contains("[ERROR]") && self.fatal.len() < 4 {
            self.fatal.push(line.to_owned());
        }
    }

    fn read_message(&mut self, message: &str) {
        if let Some(name) = between(message, "restored log file \"", "\" from archive") {
            if name.len() == 24 {
                self.segments.insert(name.to_owned());
            }
        } else if let Some(lsn) = message.strip_prefix("redo starts at ") {
            self.redo_from = Some(first_word(lsn));
        } else if let Some(lsn) = message.strip_prefix("consistent recovery state reached at ") {
            self.consistent_at = Some(first_word(lsn));
        } else if let Some(lsn) = message.strip_prefix("redo done at ") {
            self.redo_to = Some(first_word(lsn));
        } else if let Some(name) = between(message, "recovery stopping at restore point \"", "\"") {
            self.stopped_at = Some(name.to_owned());
        } else if let Some(time) = message.strip_prefix("last completed transaction was at log time ") {
            self.last_commit = Some(time.to_owned());
        } else if message == "database system is ready to accept connections" {
            self.is_ready = true;
        }
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.strip_prefix(before)?.split_once(after).map(|(within, _)| within)
}

fn first_word(text: &str) -> String {
    text.split_whitespace().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> RecoveryLog {
        let mut log = RecoveryLog::default();
        text.lines().for_each(|line| log.read(line));
        log
    }

    // Said by PostgreSQL 15.20.
    const GOOD: &str = r#"LOG:  starting PostgreSQL 15.20 (Debian 15.20-0+deb12u1) on x86_64-pc-linux-gnu
LOG:  database system was interrupted; last known up at 2026-11-20 16:55:24 UTC
LOG:  starting point-in-time recovery to "backstop_f6c10ca5_1"
LOG:  restored log file "00000002.history" from archive
LOG:  restored log file "000000010000000000000004" from archive
LOG:  redo starts at 0/4000028
LOG:  restored log file "000000010000000000000005" from archive
LOG:  consistent recovery state reached at 0/4000100
cp: cannot stat '/scratch/tr-f6c10ca5/wal/000000010000000000000006': No such file or directory
LOG:  recovery stopping at restore point "backstop_f6c10ca5_1", time 2026-11-20 17:12:51.679662+00
LOG:  redo done at 0/50B5F20 system usage: CPU: user: 0.00 s, system: 0.02 s, elapsed: 0.05 s
LOG:  last completed transaction was at log time 2026-11-20 16:57:02.791442+00
LOG:  restored log file "000000010000000000000005" from archive
LOG:  selected new timeline ID: 2
LOG:  archive recovery complete
LOG:  database system is ready to accept connections
"#;

    const BAD: &str = r#"LOG:  redo starts at 0/4000028
LOG:  consistent recovery state reached at 0/4000100
FATAL:  directory "/srv/ts2" does not exist
HINT:  Create this directory for the tablespace before restarting the server.
CONTEXT:  WAL redo at 0/5002D30 for Tablespace/CREATE: 16399 "/srv/ts2"
LOG:  startup process (PID 5) exited with exit code 1
FATAL:  the database system is shutting down
"#;

    #[test]
    fn a_whole_recovery_is_read() {
        let log = read(GOOD);
        assert_eq!(log.segments.len(), 2, "one was fetched twice, and a history is no segment");
        assert_eq!((log.redo_from.as_deref(), log.redo_to.as_deref()), (Some("0/4000028"), Some("0/50B5F20")));
        assert_eq!(log.consistent_at.as_deref(), Some("0/4000100"));
        assert_eq!(log.stopped_at.as_deref(), Some("backstop_f6c10ca5_1"));
        assert_eq!(log.last_commit.as_deref(), Some("2026-11-20 16:57:02.791442+00"));
        assert!(log.is_ready && log.fatal.is_empty());
    }

    #[test]
    fn the_first_fatal_error_is_kept_with_what_explains_it() {
        let log = read(BAD);
        assert_eq!(log.fatal.len(), 3);
        assert!(log.fatal[0].starts_with("FATAL:  directory") && log.fatal[2].contains("Tablespace/CREATE"));
        assert!(!log.is_ready);
    }

    #[test]
    fn mariadb_and_mysql_say_when_they_are_ready_and_why_not() {
        // The first was said by MariaDB 10.11.14, the second is in MySQL's manual.
        for ready in [
            "2026-11-21 13:35:15 0 [Note] /usr/sbin/mariadbd: ready for connections.",
            "2026-11-21T13:35:15.000000Z 0 [System] [MY-010931] [Server] /usr/sbin/mysqld: ready for connections. Version: '8.0.36'",
        ] {
            let mut log = RecoveryLog::default();
            log.read_mariadb("2026-11-21 13:35:14 0 [Note] Plugin 'FEEDBACK' is disabled.");
            assert!(!log.is_ready);
            log.read_mariadb(ready);
            assert!(log.is_ready && log.fatal.is_empty());
        }
        let mut log = RecoveryLog::default();
        log.read_mariadb("2026-11-21 13:34:56 0 [ERROR] Aborting");
        assert_eq!((log.fatal.len(), log.is_ready), (1, false));
    }

    #[test]
    fn a_server_that_accepts_only_readers_is_not_ready() {
        assert!(!read("LOG:  database system is ready to accept read-only connections").is_ready);
        assert!(!read("NOTICE:  database system is ready to accept connections").is_ready);
    }
}
