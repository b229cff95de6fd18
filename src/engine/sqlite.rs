//! `sqlite3`: the command lines, and what its endings mean.
//!
//! It needs the program of 3.33 or newer, for answers in JSON.
//!
//! A copy is made by the online backup (`.backup`) *inside a read transaction*. Alone, `.backup` reads a hundred pages at
//! a time and begins again whenever another process writes between two steps: beside a process with 500 small writes a
//! second, a copy of 100 MB had not ended after ten seconds; in a read transaction it took a quarter of a second, and
//! nothing in WAL mode waited for it. `VACUUM INTO` is as quick and as steady, but it numbers anew the rows of tables
//! that have no `integer primary key`, to which a full-text index or the application may point; the backup is the same
//! pages. Without WAL mode writers wait for either until it ends, which reading the file whole always costs.
//!
//! In the same transaction it is written down how many pages and tables there are, so that the copy can be compared with
//! what was copied and not with what the file has become since.
//!
//! A newcomer would put the file's name into `.backup '…'` or into a URI as it is; names of files hold quotes, `?` and
//! `#`. The source is a URI with every odd byte escaped, and the copy has a name of ours in a directory of ours.

mod exit;

use std::{fmt::Write, os::unix::ffi::OsStrExt, path::Path, time::Duration};

pub use self::exit::explain;
use crate::process::Command;

/// The program, where the policy names no directory.
const PROGRAM: &str = "sqlite3";
/// The copy's name in the scratch directory.
pub const COPY: &str = "copy.sqlite";
/// Where the numbers of pages and tables at the moment of the copy stand, in the scratch directory.
pub const COUNTS: &str = "counts";

/// The program to use.
pub fn program(tool_dir: Option<&Path>) -> std::path::PathBuf {
    tool_dir.map_or_else(|| PROGRAM.into(), |directory| directory.join(PROGRAM))
}

/// Asks the program for its version.
pub fn version(program: &Path) -> Command {
    Command::new(program).arg("--version")
}

/// Reads `3.40.1 2022-12-28 14:03:47 df5c253c…`; none where it is too old to answer in JSON.
pub fn read_version(text: &str) -> Option<String> {
    let version = text.split_whitespace().next()?;
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    let (major, minor) = (parts.next()??, parts.next()??);
    ((major, minor) >= (3, 33)).then(|| version.to_owned())
}

/// The file as a URI that is never created and never written.
pub fn read_only(file: &Path) -> String {
    format!("file:{}?mode=ro", escaped(file))
}

/// A file that nobody else can open, and that needs nothing beside it.
pub fn immutable(file: &Path) -> String {
    format!("file:{}?immutable=1", escaped(file))
}

/// Every byte that could mean something in a URI as `%XX`.
fn escaped(file: &Path) -> String {
    file.as_os_str().as_bytes().iter().fold(String::new(), |mut uri, byte| {
        if byte.is_ascii_alphanumeric() || b"/_.-".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            write!(uri, "%{byte:02X}").expect("writing to a string cannot fail");
        }
        uri
    })
}

/// The program on a database, without what a person's `~/.sqliterc` says, stopping at the first error.
fn on(program: &Path, uri: &str, busy_timeout: Duration) -> Command {
    Command::new(program)
        .args(["-readonly", "-batch", "-bail", "-init", "/dev/null"])
        .args(["-cmd".to_owned(), format!(".timeout {}", busy_timeout.as_millis())])
        .arg(uri)
}

/// Asks one statement; the answer is JSON.
pub fn query(program: &Path, uri: &str, busy_timeout: Duration, sql: &str) -> Command {
    on(program, uri, busy_timeout).args([".mode json", sql])
}

/// Copies the file to [`COPY`] in the scratch directory, and writes [`COUNTS`] beside it.
pub fn backup(program: &Path, file: &Path, busy_timeout: Duration, scratch: &Path) -> Command {
    on(program, &read_only(file), busy_timeout)
        .arg("begin")
        .arg(format!(".once {COUNTS}"))
        // The first reading begins the transaction in earnest, and so waits for a lock; `.backup` does not wait.
        .arg(COUNT_SQL)
        .arg(format!(".backup main {COPY}"))
        .current_dir(scratch)
}

/// Counts pages, and tables with indexes, views and triggers.
pub const COUNT_SQL: &str = "select (select page_count from pragma_page_count), (select count(*) from sqlite_master)";

#[cfg(test)]
mod tests {
    use super::*;

    const ODD: &str = "/srv/a'b \"c?#%41;é/x y.db";

    #[test]
    fn an_odd_path_is_escaped_and_the_copy_has_a_name_of_ours() {
        let command = backup(Path::new("sqlite3"), Path::new(ODD), Duration::from_secs(5), Path::new("/scratch"));
        insta::assert_snapshot!(
            command.display(),
            @"sqlite3 -readonly -batch -bail -init /dev/null -cmd '.timeout 5000' 'file:/srv/a%27b%20%22c%3F%23%2541%3B%C3%A9/x%20y.db?mode=ro' begin '.once counts' 'select (select page_count from pragma_page_count), (select count(*) from sqlite_master)' '.backup main copy.sqlite'"
        );
    }

    #[test]
    fn a_question_never_writes() {
        let uri = read_only(Path::new("/srv/app.db"));
        insta::assert_snapshot!(
            query(Path::new("/opt/bin/sqlite3"), &uri, Duration::from_millis(1500), "select 1").display(),
            @"/opt/bin/sqlite3 -readonly -batch -bail -init /dev/null -cmd '.timeout 1500' 'file:/srv/app.db?mode=ro' '.mode json' 'select 1'"
        );
        assert_eq!(immutable(Path::new("/scratch/copy.sqlite")), "file:/scratch/copy.sqlite?immutable=1");
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(read_version("3.40.1 2022-12-28 14:03:47 df5c\n").as_deref(), Some("3.40.1"));
        assert_eq!(read_version("3.9.2 2015"), None);
        assert_eq!(read_version("3.33.0 2020").as_deref(), Some("3.33.0"));
        for text in ["", "3", "x.y", "SQLite 3"] {
            assert_eq!(read_version(text), None, "{text}");
        }
    }
}
