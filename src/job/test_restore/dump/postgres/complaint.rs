//! What `psql` and `pg_restore` complained about, without the statements they show beside it.
//!
//! `psql` says `psql:FILE:LINE: ERROR:  42P01: …` with `VERBOSITY=verbose`, `pg_restore` says
//! `pg_restore: error: could not execute query: ERROR:  …`. A newcomer would keep the lines after it; they hold the
//! statement with its passwords, or the row that did not fit.

use super::super::super::failure;
use crate::{
    process::Captured,
    record::{ErrorClass, Failure},
};

/// How many of many are told.
const TOLD: usize = 5;

/// One complaint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Complaint {
    message: String,
}

impl Complaint {
    /// All of a tool's messages.
    pub(super) fn all(stderr: &str) -> Vec<Complaint> {
        stderr.lines().filter_map(Complaint::read).collect()
    }

    fn read(line: &str) -> Option<Complaint> {
        let server = ["ERROR:  ", "FATAL:  ", "PANIC:  "];
        let said = server.iter().find_map(|severity| line.split_once(severity).map(|(_, said)| said));
        let said = said.or_else(|| tools_own(line))?;
        let (state, rest) = said.split_once(": ").unwrap_or_default();
        let is_state = state.len() == 5 && state.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
        let message = if is_state { rest } else { said };
        Some(Complaint { message: message.trim().to_owned() })
    }

    /// Whether a role is there that `initdb` made.
    pub(super) fn is_role_there(&self, role: &str) -> bool {
        self.message == format!("role \"{role}\" already exists")
    }

    /// Whether it is about a role or tablespace that is not there, and nothing else.
    pub(super) fn is_of_missing_globals(&self) -> bool {
        let named = |what: &str| self.message.starts_with(what) && self.message.ends_with("\" does not exist");
        let is_default = self.message.starts_with("invalid value for parameter \"default_tablespace\": ");
        named("role \"") || named("tablespace \"") || is_default
    }
}

/// What the tool itself says: `pg_restore: error: …`, `psql: error: …`.
fn tools_own(line: &str) -> Option<&str> {
    let (tool, said) = line.split_once(": error: ").or_else(|| line.split_once(": fatal: "))?;
    ["psql", "pg_restore"].iter().any(|name| tool == *name || tool.starts_with(&format!("{name}:"))).then_some(said)
}

/// A load that came to nothing.
pub(super) fn failed(what: &str, said: &Captured, wrong: Vec<&Complaint>) -> Failure {
    let told: Vec<&str> = wrong.iter().take(TOLD).map(|complaint| complaint.message.as_str()).collect();
    let message = match (told.is_empty(), wrong.len().saturating_sub(TOLD)) {
        (true, _) => format!("{what} cannot be restored: the tool {} without saying why", ended(said)),
        (false, 0) => format!("{what} cannot be restored: {}", told.join("; ")),
        (false, more) => format!("{what} cannot be restored: {}; and {more} more", told.join("; ")),
    };
    let (class, remedy) = remedy(&message);
    failure(class, message, remedy)
}

fn ended(said: &Captured) -> String {
    said.ending.code().map_or_else(|| said.ending.word(), |code| format!("exited with code {code}"))
}

fn remedy(message: &str) -> (ErrorClass, &'static str) {
    let says = |words: &str| message.contains(words);
    if says("invalid locale name") || says("invalid LC_COLLATE") || says("invalid LC_CTYPE") {
        return (ErrorClass::Config, "Install this locale (`dpkg-reconfigure locales`); the dump is not broken.");
    }
    if says("could not open extension control file")
        || says("is not available")
        || says("could not access file \"$libdir")
    {
        return (ErrorClass::Config, "Install this extension for the server of this host; the dump is not broken.");
    }
    if says("shared_preload_libraries") {
        let remedy =
            "An extension that must be preloaded runs in no sandbox: exclude it from the dump, or restore by hand.";
        return (ErrorClass::Config, remedy);
    }
    if says("No space left on device") {
        return (ErrorClass::Space, "Free space, or set `daemon.scratch_dir` to a larger file system.");
    }
    (ErrorClass::Integrity, "Restore it by hand to see more; `backstop show` prints the commands. Make a new backup.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(line: &str) -> String {
        Complaint::read(line).unwrap().message
    }

    // Said by psql and pg_restore 15.
    #[test]
    fn a_complaint_is_read_without_its_statement() {
        let stderr = "psql:/s/globals.sql:14: ERROR:  42710: role \"postgres\" already exists\n\
                      LOCATION:  CreateRole, user.c:345\n\
                      psql:/s/shop.sql:9: ERROR:  42601: syntax error at or near \"hunter2\"\n\
                      LINE 1: CREATE SUBSCRIPTION s CONNECTION 'password=hunter2';\n\
                      pg_restore: error: could not execute query: ERROR:  role \"app\" does not exist\n\
                      Command was: ALTER TABLE public.t OWNER TO app;\n\
                      pg_restore: error: could not read from input file: end of file\n\
                      pg_restore: warning: errors ignored on restore: 1\n";
        let messages: Vec<String> = Complaint::all(stderr).into_iter().map(|complaint| complaint.message).collect();
        let expected = [
            "role \"postgres\" already exists",
            "syntax error at or near \"hunter2\"",
            "role \"app\" does not exist",
            "could not read from input file: end of file",
        ];
        assert_eq!(messages, expected);
    }

    #[test]
    fn only_the_first_role_may_be_there_and_only_globals_may_be_missing() {
        let read = |line: &str| Complaint::read(line).unwrap();
        assert!(read("psql:g:1: ERROR:  42710: role \"postgres\" already exists").is_role_there("postgres"));
        assert!(!read("psql:g:1: ERROR:  42710: role \"app\" already exists").is_role_there("postgres"));
        assert!(read("ERROR:  42704: role \"app\" does not exist").is_of_missing_globals());
        assert!(read("ERROR:  42704: tablespace \"fast\" does not exist").is_of_missing_globals());
        assert!(!read("ERROR:  42P01: relation \"app\" does not exist").is_of_missing_globals());
        assert!(!read("ERROR:  42704: role \"app\" does not exist in schema").is_of_missing_globals());
    }

    #[test]
    fn a_message_that_begins_like_a_state_keeps_its_words() {
        assert_eq!(complaint("pg_restore: error: ERROR:  index \"i\": no"), "index \"i\": no");
        assert_eq!(complaint("x: ERROR:  22P02: invalid input"), "invalid input");
    }

    #[test]
    fn many_complaints_are_told_in_part() {
        let one = Complaint { message: "no".to_owned() };
        let said = Captured {
            ending: crate::process::Ending::Exited(3),
            stdout: Vec::new(),
            stderr: String::new(),
            duration: Default::default(),
            is_cut: false,
        };
        assert_eq!(
            failed("the dump", &said, vec![&one; 7]).message,
            "the dump cannot be restored: no; no; no; no; no; and 2 more"
        );
        let silent = failed("the dump", &said, Vec::new()).message;
        assert_eq!(silent, "the dump cannot be restored: the tool exited with code 3 without saying why");
    }
}
