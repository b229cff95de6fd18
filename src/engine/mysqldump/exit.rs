//! How the endings of `mariadb-dump`, `mysqldump` and the client that loads a dump become causes and remedies.
//!
//! The server's error number gives the answer, wherever the text has it; the exit code only says that something failed.
//! All texts are cut short: the client repeats whole statements, and with them rows of data. A newcomer would put the
//! tail of standard error into the failure as it is.

use crate::{
    error::ExitCode::{self, Busy, Configuration, Connection, Defect as Broken, NoSpace, Storage, VerificationFailed},
    process::Ending,
    record::{
        ErrorClass::{self, Config, Defect, Integrity, Space, Transient},
        Failure,
    },
};

/// How many characters of a message are told.
const TOLD: usize = 400;

/// What an error number of server or client means for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trouble {
    /// What kind of trouble it is.
    pub class: ErrorClass,
    /// Our exit code for it.
    pub exit: ExitCode,
    /// What to do; a full sentence.
    pub remedy: &'static str,
}

/// What an error number means; numbers below 1000 are the system's, from 2000 on the client's.
#[rustfmt::skip]
pub const fn trouble(number: u16) -> Trouble {
    match number {
        32 => row(Transient, Storage, "What it wrote was not taken; look at the other messages of this run."),
        28 | 1021 | 1114 => row(Space, NoSpace, "Free space on the server: its data or temporary directory is full."),
        126 | 127 | 144 | 145 | 1034 | 1035 | 1194 | 1195 => row(Integrity, VerificationFailed, "A table is damaged: run `mariadb-check` on it, and look at the server's log and disk."),
        1040 | 1203 | 1226 => row(Transient, Connection, "The server has no connection left for this user: look at `max_connections` and who holds them."),
        1044 | 1142 | 1143 | 1227 | 1370 => row(Config, Connection, "Grant the user what the message names; a dump needs SELECT, SHOW VIEW, TRIGGER, EVENT and LOCK TABLES, and SELECT on `mysql.proc` (MySQL 8: SHOW_ROUTINE) for routines."),
        1045 | 1130 | 1396 | 1698 | 1820 | 1862 | 2059 | 2061 => row(Config, Connection, "Correct `mysql.user` or the password in the policy, or let this user in from this host."),
        1049 => row(Config, Configuration, "Correct `mysql.databases` in the policy."),
        1053 | 1077 | 1317 | 1927 => row(Transient, Connection, "Somebody ended the session or the server; look at the server's log."),
        1146 | 1412 => row(Transient, Connection, "A table was changed or dropped meanwhile; dump when no migrations run."),
        1205 | 1213 => row(Transient, Busy, "Look at who holds a lock on the table: `show processlist`."),
        1356 | 1449 => row(Config, Configuration, "Repair or drop the view or routine that the message names; without that nothing of this database can be dumped or restored whole."),
        1969 | 3024 => row(Transient, Connection, "Look at the load of the server, and at its `max_statement_time` or `max_execution_time`."),
        2002 | 2003 | 2005 => row(Transient, Connection, "Check that the server is running and that `mysql.host`, `mysql.port` or `mysql.socket` leads to it."),
        2006 | 2013 => row(Transient, Connection, "The server was restarted, or it waited too long for us: look at its log, and raise its `net_write_timeout`."),
        2026 => row(Config, Connection, "Correct the TLS settings in `mysql.defaults_file`."),
        2020 | 1153 => row(Config, Connection, "Raise the server's `max_allowed_packet`: a row is larger."),
        _ => row(Config, Connection, "Look at the message and at the server's log."),
    }
}

const fn row(class: ErrorClass, exit: ExitCode, remedy: &'static str) -> Trouble {
    Trouble { class, exit, remedy }
}

/// Says why a dump failed, from how the tool ended and the last lines it wrote. Only for endings that are no success.
pub fn explain(ending: &Ending, tail: &[String]) -> Failure {
    let said = tail.iter().rev().find_map(|line| said(line));
    let program = said.map_or("the dump tool", |(program, _)| program);
    let Ending::Exited(code) = ending else { return cut_off(program, *ending) };
    let told = said.map(|(_, told)| told).or_else(|| tail.last().map(String::as_str)).unwrap_or_default();
    let found = match (number(told), code) {
        (Some(number), _) => trouble(number),
        (None, 5) => {
            row(Transient, Storage, "What it wrote could not be taken; look at the other messages of this run.")
        }
        (None, 4) => row(Transient, NoSpace, "Free memory on this machine."),
        (None, 7 | 1) => row(
            Config,
            Configuration,
            "The tool does not know an option: look at `mysql.defaults_file` and the option files of this machine.",
        ),
        (None, _) if told.contains("insufficient privileges") => trouble(1370),
        (None, _) => row(Config, Connection, "Read the run's log."),
    };
    let colon = if told.is_empty() { "" } else { ": " };
    failure(found, format!("{program} exited with code {code}{colon}{}", short(told)))
}

/// The program that a message is of, and the message: `mariadb-dump: Got error …`, at times with the program's path.
fn said(line: &str) -> Option<(&'static str, &str)> {
    let (program, told) = line.split_once(": ")?;
    let name = program.rsplit('/').next()?;
    let known = [("mariadb-dump", "`mariadb-dump`"), ("mysqldump", "`mysqldump`")];
    known.iter().find(|(known, _)| *known == name).map(|(_, shown)| (*shown, told))
}

/// Says why a dump could not be loaded. The lines between are statements, that is, data; they are not told.
pub fn explain_load(ending: &Ending, tail: &[String]) -> Failure {
    let Ending::Exited(code) = ending else { return cut_off("`mariadb`", *ending) };
    let said = tail.iter().rev().find(|line| line.starts_with("ERROR ")).map(String::as_str).unwrap_or_default();
    let colon = if said.is_empty() { "" } else { ": " };
    let message = format!("`mariadb` exited with code {code}{colon}{}", without_data(said));
    let remedy =
        "The dump cannot be restored as it is: correct what the message names in the database, and dump again.";
    failure(row(Integrity, ExitCode::RestoreFailed, remedy), message)
}

/// The server's error number in what a tool said: `Got error: 1045:`, `Error 2013:`, `ERROR 1049 (42000)`, or `(1356)`
/// at the end.
pub(crate) fn number(text: &str) -> Option<u16> {
    let digits =
        |rest: &str| rest.trim_start_matches([':', ' ']).split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
    let named = ["Got error", "Got errno", "ERROR", "Error"].iter().find_map(|mark| digits(text.split_once(mark)?.1));
    let last = || text.trim_end().strip_suffix(')')?.rsplit_once('(')?.1.parse().ok();
    named.or_else(last)
}

/// A syntax error repeats the statement from the place of the error on.
fn without_data(text: &str) -> String {
    short(text.split_once(" near '").map_or(text, |(before, _)| before))
}

/// A message cut to what is told of it.
pub(crate) fn short(text: &str) -> String {
    let cut: String = text.chars().take(TOLD).collect();
    if cut.len() < text.len() { format!("{cut} …") } else { cut }
}

fn cut_off(program: &str, ending: Ending) -> Failure {
    let word = ending.word();
    match ending {
        Ending::TimedOut => failure(
            row(
                Transient,
                Connection,
                "Raise `timeout` if it usually takes that long; otherwise look at what it waited for: `show processlist`.",
            ),
            format!("{program} was ended because its time was over"),
        ),
        Ending::Stopped => Failure {
            class: ErrorClass::Stopped,
            exit: ExitCode::Interrupted,
            message: format!("{program} was stopped"),
            remedy: None,
        },
        Ending::Signalled(9) => failure(
            row(
                Transient,
                ExitCode::Interrupted,
                "Somebody killed it, or the kernel did because memory was short: look at the kernel's log.",
            ),
            format!("{program} was ended by {word}"),
        ),
        Ending::Signalled(_) => failure(
            row(Transient, ExitCode::Interrupted, "Look at the kernel's log, and at the other messages of this run."),
            format!("{program} was ended by {word}"),
        ),
        Ending::Unseen => failure(
            row(Transient, ExitCode::Interrupted, "Look at the kernel's log: it was killed, or the machine went down."),
            format!("{program} ended without saying how"),
        ),
        Ending::Exited(code) => {
            failure(row(Defect, Broken, "Report this defect."), format!("{program} exited with code {code}"))
        }
    }
}

fn failure(trouble: Trouble, message: String) -> Failure {
    Failure { class: trouble.class, exit: trouble.exit, message, remedy: Some(trouble.remedy.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: i32, text: &str) -> Failure {
        explain(&Ending::Exited(code), &text.lines().map(str::to_owned).collect::<Vec<_>>())
    }

    // All texts were written by mariadb-dump 10.11.14.
    #[test]
    fn every_recorded_ending_has_its_class() {
        for (code, text, class, exit) in [
            (
                2,
                "mariadb-dump: Got error: 1045: \"Access denied for user 'backup'@'localhost' (using password: YES)\" when trying to connect",
                Config,
                Connection,
            ),
            (
                2,
                "mariadb-dump: Got error: 2002: \"Can't connect to local server through socket '/nope' (2)\" when trying to connect",
                Transient,
                Connection,
            ),
            (
                2,
                "mariadb-dump: Got error: 1049: \"Unknown database 'nodb'\" when selecting the database",
                Config,
                Configuration,
            ),
            (
                2,
                "mariadb-dump: Couldn't execute 'SHOW FIELDS FROM `brokenview`': View 'shop.brokenview' references invalid table(s) or column(s) or function(s) or definer/invoker of view lack rights to use them (1356)",
                Config,
                Configuration,
            ),
            (
                2,
                "mariadb-dump: Couldn't execute 'show create table `broken`': SHOW VIEW command denied to user 'low'@'localhost' for table `shop`.`broken` (1142)",
                Config,
                Connection,
            ),
            (
                2,
                "mariadb-dump: Couldn't execute 'show events': Access denied for user 'sel'@'localhost' to database 'shop' (1044)",
                Config,
                Connection,
            ),
            (2, "mariadb-dump: exe has insufficient privileges to SHOW CREATE FUNCTION `f`!", Config, Connection),
            (
                3,
                "mariadb-dump: Error 2013: Lost connection to server during query when dumping table `t` at row: 3327",
                Transient,
                Connection,
            ),
            (5, "mariadb-dump: Got errno 28 on write", Space, NoSpace),
            (5, "mariadb-dump: Got errno 32 on write", Transient, Storage),
            (7, "mariadb-dump: unknown variable 'set-gtid-purged=OFF'", Config, Configuration),
        ] {
            let failure = of(code, text);
            assert_eq!((failure.class, failure.exit), (class, exit), "{text}");
        }
    }

    #[test]
    fn a_failure_tells_the_tools_words_and_a_remedy() {
        let failure = of(
            3,
            "mariadb-dump: Error 2013: Lost connection to server during query when dumping table `t` at row: 3327",
        );
        insta::assert_snapshot!(failure.message, @"`mariadb-dump` exited with code 3: Error 2013: Lost connection to server during query when dumping table `t` at row: 3327");
        insta::assert_snapshot!(failure.remedy.unwrap(), @"The server was restarted, or it waited too long for us: look at its log, and raise its `net_write_timeout`.");
        assert_eq!(of(2, "").message, "the dump tool exited with code 2");
        assert!(
            of(7, "/usr/bin/mysqldump: unknown option '--x'").message.starts_with("`mysqldump` exited with code 7")
        );
    }

    #[test]
    fn a_load_that_failed_shows_no_row_of_data() {
        let tail = [
            "--------------".to_owned(),
            format!("INSERT INTO `t` VALUES {}", "(1,'secret row')".repeat(2000)),
            "--------------".to_owned(),
            "ERROR 1064 (42000) at line 106: You have an error in your SQL syntax; check the manual that corresponds to \
             your MariaDB server version for the right syntax to use near ''näme49' at line 493"
                .to_owned(),
        ];
        let failure = explain_load(&Ending::Exited(1), &tail);
        insta::assert_snapshot!(failure.message, @"`mariadb` exited with code 1: ERROR 1064 (42000) at line 106: You have an error in your SQL syntax; check the manual that corresponds to your MariaDB server version for the right syntax to use");
        assert_eq!((failure.class, failure.exit), (Integrity, ExitCode::RestoreFailed));
    }

    #[test]
    fn a_long_message_is_cut() {
        let failure = of(2, &format!("mariadb-dump: Couldn't execute '{}' (1146)", "ü".repeat(5000)));
        assert!(failure.message.chars().count() < 500, "{}", failure.message);
        assert_eq!(failure.class, Transient);
    }

    #[test]
    fn an_end_that_was_not_its_own_is_told_as_that() {
        let said = |ending| explain(&ending, &[]);
        assert_eq!(said(Ending::Signalled(9)).message, "the dump tool was ended by signal 9");
        assert_eq!(said(Ending::Stopped).class, ErrorClass::Stopped);
        assert!(said(Ending::TimedOut).class.is_retryable());
        assert!(said(Ending::Unseen).class.is_retryable());
    }
}
