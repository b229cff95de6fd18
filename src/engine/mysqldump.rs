//! `mariadb-dump`, or MySQL's `mysqldump`: the command lines, what it wrote and how it ended.
//!
//! It needs either program, of any version that still gets fixes. `/usr/bin/mysqldump` is often MariaDB's under its old
//! name, so the flavour is what `--version` says: options that only MySQL knows end MariaDB's with code 7.
//!
//! What it writes is whole only if it ended with zero *and* the last line is its trailer: with `--force`, which is never
//! given, it writes the trailer after errors; killed between two statements it leaves SQL that loads without an error.
//!
//! There is no option with which it would wait for a lock only so long (`pg_dump` has one); who calls looks for locks
//! before, and ends what takes too long. A newcomer would give the option file as any argument; it counts only as the
//! first one.

mod exit;
mod trailer;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

pub(crate) use self::exit::{number, short};
pub use self::{
    exit::{Trouble, explain, explain_load, trouble},
    trailer::Trailer,
};
use crate::process::Command;

/// Whose programs, whose server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// MariaDB.
    MariaDb,
    /// MySQL and what is built from it.
    MySql,
}

impl Flavour {
    /// Its name, as people write it.
    pub const fn name(self) -> &'static str {
        match self {
            Flavour::MariaDb => "MariaDB",
            Flavour::MySql => "MySQL",
        }
    }

    /// Reads the flavour of anything that tells its version.
    fn of(text: &str) -> Self {
        if text.to_ascii_lowercase().contains("mariadb") { Flavour::MariaDb } else { Flavour::MySql }
    }
}

/// Whose server it is and its version, from what `select version()` answers, e.g. `10.11.14-MariaDB-0+deb12u2`.
pub fn server(version: &str) -> (Flavour, String) {
    // Replication of old needs `5.5.5-` before MariaDB's version; some proxies still show it.
    let number = version.strip_prefix("5.5.5-").filter(|_| version.contains("MariaDB")).unwrap_or(version);
    let number = number.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap_or_default();
    (Flavour::of(version), number.to_owned())
}

/// A program that dumps, after it told its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// The program.
    pub program: PathBuf,
    /// Whose it is.
    pub flavour: Flavour,
    /// Its version, e.g. `10.11.14`.
    pub version: String,
}

impl Tool {
    /// Reads what `--version` says, which has four forms:
    ///
    /// ```text
    /// mariadb-dump  Ver 10.19 Distrib 10.11.14-MariaDB, for debian-linux-gnu (x86_64)
    /// mariadb-dump from 11.4.2-MariaDB, client 10.19 for linux-systemd (x86_64)
    /// mysqldump  Ver 10.13 Distrib 5.7.44, for Linux (x86_64)
    /// mysqldump  Ver 8.0.36 for Linux on x86_64 (MySQL Community Server - GPL)
    /// ```
    pub fn read(program: &Path, text: &str) -> Option<Self> {
        let after = |mark: &str| text.split_once(mark).map(|(_, rest)| rest.trim_start());
        let rest = after(" Distrib ").or_else(|| after(" from ")).or_else(|| after(" Ver "))?;
        let (_, version) = server(rest);
        let is_version = version.starts_with(|c: char| c.is_ascii_digit());
        is_version.then(|| Self { program: program.to_owned(), flavour: Flavour::of(text), version })
    }

    /// The tool that called itself so ([`name`](Self::name)) when it was looked for.
    pub fn named(program: &Path, name: &str) -> Option<Self> {
        let (name, version) = name.split_once(' ')?;
        Some(Self { program: program.to_owned(), flavour: Flavour::of(name), version: version.to_owned() })
    }

    /// What it calls itself, e.g. `mariadb-dump 10.11.14`.
    pub fn name(&self) -> String {
        let name = match self.flavour {
            Flavour::MariaDb => "mariadb-dump",
            Flavour::MySql => "mysqldump",
        };
        format!("{name} {}", self.version)
    }

    fn is_at_least(&self, major: u32) -> bool {
        self.version.split('.').next().and_then(|number| number.parse::<u32>().ok()) >= Some(major)
    }

    /// Writes the databases to standard output.
    pub fn dump(&self, option_file: &Path, databases: &[String]) -> Command {
        Command::new(&self.program)
            .arg(defaults_extra_file(option_file))
            .args(["--single-transaction", "--quick", "--routines", "--triggers", "--events", "--hex-blob"])
            .args(["--default-character-set=utf8mb4", "--tz-utc", "--max-allowed-packet=1G"])
            // Only the tablespaces of NDB, for which MySQL wants the privilege PROCESS.
            .arg("--no-tablespaces")
            .args(self.only_mysql())
            .arg("--databases")
            // A name that begins with a dash is a name.
            .arg("--")
            .args(databases)
    }

    fn only_mysql(&self) -> Vec<&'static str> {
        match self.flavour {
            Flavour::MariaDb => vec![],
            Flavour::MySql if self.is_at_least(8) => vec!["--set-gtid-purged=OFF", "--column-statistics=0"],
            Flavour::MySql => vec!["--set-gtid-purged=OFF"],
        }
    }
}

/// The programs that may do it, the likeliest for this server first.
pub fn candidates(tool_dir: Option<&Path>, server: Flavour) -> [PathBuf; 2] {
    let names = match server {
        Flavour::MariaDb => ["mariadb-dump", "mysqldump"],
        Flavour::MySql => ["mysqldump", "mariadb-dump"],
    };
    names.map(|name| program(tool_dir, name))
}

/// Asks a program for its version; without reading any option file.
pub fn version(program: &Path) -> Command {
    Command::new(program).arg("--version")
}

/// The argument that names an option file; it must be the first one.
pub fn defaults_extra_file(file: &Path) -> OsString {
    let mut argument = OsString::from("--defaults-extra-file=");
    argument.push(file);
    argument
}

/// Makes the directory and the system tables of a throw-away MariaDB server. Its user `root` has no password, so only
/// its socket may be in reach. `bin` holds the programs, where `PATH` does not.
pub fn install_command(bin: Option<&Path>, datadir: &Path) -> Command {
    Command::new(program(bin, "mariadb-install-db"))
        .arg("--no-defaults")
        .arg(option("--datadir=", datadir))
        .arg(tmpdir(datadir))
        .args(["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve", NO_NATIVE_AIO])
}

/// A throw-away MariaDB server on what [`install_command`] made: no network, no event runs, nothing replicates, nothing
/// waits for the disk, and no SQL reads or writes files. Stops by TERM. The name of `log` must have an extension, else the
/// server gives it one.
pub fn server_command(bin: Option<&Path>, datadir: &Path, socket: &Path, log: &Path) -> Command {
    Command::new(program(bin, "mariadbd"))
        .arg("--no-defaults")
        .arg(option("--datadir=", datadir))
        .arg(tmpdir(datadir))
        .arg(option("--socket=", socket))
        .arg(option("--log-error=", log))
        .arg(option("--pid-file=", &datadir.join("server.pid")))
        .args(["--skip-networking", "--skip-name-resolve", "--skip-log-bin", "--skip-slave-start"])
        // With `DISABLED`, the events of a dump cannot be loaded.
        .args(["--event-scheduler=OFF", "--log-bin-trust-function-creators=1"])
        // Nothing is ever written there: a directory that is no directory.
        .args(["--secure-file-priv=/dev/null", "--local-infile=0", "--skip-symbolic-links"])
        .args(["--character-set-server=utf8mb4", "--max-allowed-packet=1G", "--performance-schema=OFF"])
        .args(["--innodb-buffer-pool-size=128M", "--innodb-flush-log-at-trx-commit=0", "--skip-innodb-doublewrite"])
        .arg(NO_NATIVE_AIO)
}

/// Loads a file of SQL into a throw-away server and ends with 1 at the first error.
///
/// The file is the client's standard input: with `source FILE` it would obey `\!` and `system` in it. The shell's words
/// are fixed; the file's name is an argument of it.
pub fn load_command(bin: Option<&Path>, socket: &Path, file: &Path) -> Command {
    Command::new("sh")
        .args(["-c", r#"exec "$@" <"$0""#])
        .arg(file)
        .arg(program(bin, "mariadb"))
        .args(["--no-defaults", "--user=root"])
        .arg(option("--socket=", socket))
        .args(["--batch", "--binary-mode", "--default-character-set=utf8mb4", "--max-allowed-packet=1G"])
        // It would show the whole statement, that is, the data.
        .args(["--local-infile=0", "--loose-skip-print-query-on-error"])
}

/// A server that starts removes all temporary tables that it finds in its directory for them; in `/tmp` those are
/// production's.
fn tmpdir(datadir: &Path) -> OsString {
    option("--tmpdir=", datadir)
}

/// Rings of the kernel count as locked memory, of which a service has little; without them it is as good here.
const NO_NATIVE_AIO: &str = "--innodb-use-native-aio=OFF";

fn option(name: &str, value: &Path) -> OsString {
    let mut argument = OsString::from(name);
    argument.push(value);
    argument
}

fn program(directory: Option<&Path>, name: &str) -> PathBuf {
    directory.map_or_else(|| name.into(), |directory| directory.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(text: &str) -> Tool {
        Tool::read(Path::new("/bin/tool"), text).unwrap()
    }

    const MARIADB: &str = "mariadb-dump  Ver 10.19 Distrib 10.11.14-MariaDB, for debian-linux-gnu (x86_64)\n";
    const MYSQL: &str = "mysqldump  Ver 8.0.36 for Linux on x86_64 (MySQL Community Server - GPL)\n";

    #[test]
    fn every_form_of_a_version_is_read() {
        for (text, name) in [
            (MARIADB, "mariadb-dump 10.11.14"),
            ("mariadb-dump from 11.4.2-MariaDB, client 10.19 for linux-systemd (x86_64)", "mariadb-dump 11.4.2"),
            ("mysqldump  Ver 10.19 Distrib 10.5.8-MariaDB, for Linux (x86_64)", "mariadb-dump 10.5.8"),
            ("mysqldump  Ver 10.13 Distrib 5.7.44, for Linux (x86_64)", "mysqldump 5.7.44"),
            (MYSQL, "mysqldump 8.0.36"),
        ] {
            assert_eq!(tool(text).name(), name);
            assert_eq!(Tool::named(Path::new("/bin/tool"), name), Some(tool(text)));
        }
        for text in ["", "mysqldump", "mysqldump  Ver x", "pg_dump (PostgreSQL) 15.20"] {
            assert_eq!(Tool::read(Path::new("x"), text), None, "{text}");
        }
    }

    #[test]
    fn a_server_tells_whose_it_is() {
        assert_eq!(server("10.11.14-MariaDB-0+deb12u2"), (Flavour::MariaDb, "10.11.14".to_owned()));
        assert_eq!(server("5.5.5-10.6.12-MariaDB-log"), (Flavour::MariaDb, "10.6.12".to_owned()));
        assert_eq!(server("8.0.36-0ubuntu0.22.04.1"), (Flavour::MySql, "8.0.36".to_owned()));
        assert_eq!(server("8.4.0"), (Flavour::MySql, "8.4.0".to_owned()));
    }

    #[test]
    fn mariadb_is_not_told_what_only_mysql_knows() {
        let databases = ["shop".to_owned(), "we\"ird `x".to_owned()];
        insta::assert_snapshot!(
            tool(MARIADB).dump(Path::new("/scratch/login.cnf"), &databases).display(),
            @r#"/bin/tool --defaults-extra-file=/scratch/login.cnf --single-transaction --quick --routines --triggers --events --hex-blob --default-character-set=utf8mb4 --tz-utc --max-allowed-packet=1G --no-tablespaces --databases -- shop 'we"ird `x'"#
        );
        insta::assert_snapshot!(
            tool(MYSQL).dump(Path::new("/scratch/login.cnf"), &databases[..1]).display(),
            @"/bin/tool --defaults-extra-file=/scratch/login.cnf --single-transaction --quick --routines --triggers --events --hex-blob --default-character-set=utf8mb4 --tz-utc --max-allowed-packet=1G --no-tablespaces --set-gtid-purged=OFF --column-statistics=0 --databases -- shop"
        );
        let old =
            tool("mysqldump  Ver 10.13 Distrib 5.7.44, for Linux (x86_64)").dump(Path::new("/f"), &databases[..1]);
        assert!(!old.display().contains("column-statistics") && old.display().contains("--set-gtid-purged=OFF"));
    }

    #[test]
    fn the_servers_own_program_is_tried_first() {
        assert_eq!(candidates(None, Flavour::MariaDb), ["mariadb-dump", "mysqldump"].map(PathBuf::from));
        let found = candidates(Some(Path::new("/opt/mysql/bin")), Flavour::MySql);
        assert_eq!(found, ["/opt/mysql/bin/mysqldump", "/opt/mysql/bin/mariadb-dump"].map(PathBuf::from));
    }

    #[test]
    fn a_throw_away_server_hears_nobody_and_runs_nothing_of_its_own() {
        insta::assert_snapshot!(
            install_command(None, Path::new("/s/data")).display(),
            @"mariadb-install-db --no-defaults --datadir=/s/data --tmpdir=/s/data --auth-root-authentication-method=normal --skip-test-db --skip-name-resolve --innodb-use-native-aio=OFF"
        );
        insta::assert_snapshot!(
            server_command(None, Path::new("/s/data"), Path::new("/s/sock"), Path::new("/s/server.log")).display(),
            @"mariadbd --no-defaults --datadir=/s/data --tmpdir=/s/data --socket=/s/sock --log-error=/s/server.log --pid-file=/s/data/server.pid --skip-networking --skip-name-resolve --skip-log-bin --skip-slave-start --event-scheduler=OFF --log-bin-trust-function-creators=1 --secure-file-priv=/dev/null --local-infile=0 --skip-symbolic-links --character-set-server=utf8mb4 --max-allowed-packet=1G --performance-schema=OFF --innodb-buffer-pool-size=128M --innodb-flush-log-at-trx-commit=0 --skip-innodb-doublewrite --innodb-use-native-aio=OFF"
        );
        insta::assert_snapshot!(
            load_command(None, Path::new("/s/sock"), Path::new("/s/shop.sql")).display(),
            @r#"sh -c 'exec "$@" <"$0"' /s/shop.sql mariadb --no-defaults --user=root --socket=/s/sock --batch --binary-mode --default-character-set=utf8mb4 --max-allowed-packet=1G --local-infile=0 --loose-skip-print-query-on-error"#
        );
    }
}
