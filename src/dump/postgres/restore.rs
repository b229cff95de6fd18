//! The commands that restore a dump of PostgreSQL by hand.
//!
//! They make a database of a new name, so that nothing that exists is touched, and stop at the first error. Roles come
//! first, because what is restored belongs to them; there errors are passed over, because some of the roles exist
//! everywhere. The name of the new database is plain, whatever the old one was: a name such as `host=x` is a connection
//! to some tools. A newcomer would restore with `--clean`; that is how the last good database is lost too.

use crate::{
    dump::by_hand::{preamble, quoted, read, read_file},
    record::{Artifact, Backup, Dump, DumpFormat, Role},
};

/// The lines for a backup whose files are at `location`.
pub(in crate::dump) fn restore_by_hand(backup: &Backup, location: &str) -> Vec<String> {
    let Some(dump) = &backup.dump else { return Vec::new() };
    let tools = format!("psql, createdb and pg_restore of PostgreSQL {} or later", backup.server_version);
    let mut lines = preamble(backup, dump, location, &tools);
    lines.push("# psql and the others connect by PGHOST, PGPORT, PGUSER and the like.".to_owned());
    lines.push(format!("DB={} # the new database", new_name(&dump.source)));
    if dump.format == DumpFormat::Directory {
        lines.extend(one_directory(dump, location));
    }
    lines.extend(dump.artifacts.iter().filter(|a| a.role == Role::Globals).flat_map(|a| globals(dump, a, location)));
    lines.push("createdb -T template0 -- \"$DB\"".to_owned());
    match dump.format {
        DumpFormat::Directory => lines.extend(restore_directory()),
        format => {
            let data = dump.artifacts.iter().filter(|a| a.role == Role::Data);
            lines.extend(data.flat_map(|a| one_file(dump, a, location, format)));
        }
    }
    lines
}

/// A name that needs no quotes anywhere and is no longer than PostgreSQL takes.
fn new_name(source: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '_' };
    format!("{}_restored", source.chars().take(50).map(plain).collect::<String>())
}

fn globals(dump: &Dump, artifact: &Artifact, location: &str) -> [String; 2] {
    [
        "# Roles and tablespaces. Leave this out on a server that has them: it sets their passwords and attributes again. That a role exists already is no harm."
            .to_owned(),
        format!("{} | psql -X -q -v ON_ERROR_STOP=0 -d postgres", read(dump, artifact, location)),
    ]
}

fn one_file(dump: &Dump, artifact: &Artifact, location: &str, format: DumpFormat) -> Vec<String> {
    let content = read(dump, artifact, location);
    if format == DumpFormat::Plain {
        return vec![format!("{content} | psql -X -q -1 -v ON_ERROR_STOP=1 -d \"dbname='$DB'\"")];
    }
    vec![
        format!("{content} | pg_restore --exit-on-error -d \"dbname='$DB'\""),
        OLD_NAME.to_owned(),
        format!("#   {content} | pg_restore --exit-on-error --create -d postgres"),
    ]
}

const OLD_NAME: &str = "# Or under its old name, which must be free, with what belongs to the database itself (owner, \
                        encoding, `alter database … set`):";

/// The parts become files of one directory again, all of them or none: `pg_restore` would not miss every one. This comes
/// before anything is made on the server.
fn one_directory(dump: &Dump, location: &str) -> Vec<String> {
    let encryption = dump.encryption.as_ref().map_or("", |encryption| encryption.method.suffix());
    let suffix = format!("{}{encryption}", dump.compression.suffix());
    let location = location.trim_end_matches('/');
    let is_remote = location.starts_with("s3://");
    let stored = if is_remote { "stored".to_owned() } else { quoted(&format!("{location}/parts")) };
    let fetch = format!("aws s3 cp --recursive {} stored", quoted(&format!("{location}/parts/")));
    let unpack = read_file(dump, "\"$FILE\"");
    let mut lines: Vec<String> = is_remote.then_some(fetch).into_iter().collect();
    lines.extend(compare_parts(dump, &stored));
    lines.extend([
        "mkdir parts".to_owned(),
        format!("for FILE in {stored}/*{suffix}; do {unpack} > \"parts/$(basename \"$FILE\" '{suffix}')\"; done"),
    ]);
    lines
}

fn restore_directory() -> [String; 3] {
    [
        "pg_restore -F d -j 4 --exit-on-error -d \"dbname='$DB'\" parts".to_owned(),
        OLD_NAME.to_owned(),
        "#   pg_restore -F d -j 4 --exit-on-error --create -d postgres parts".to_owned(),
    ]
}

/// No here-document: these lines are also shown indented, and its end would not be found there.
fn compare_parts(dump: &Dump, stored: &str) -> Vec<String> {
    let parts = dump.artifacts.iter().filter(|a| a.role == Role::Part);
    let part = |a: &Artifact| {
        let name = a.name.strip_prefix("parts/").unwrap_or(&a.name);
        format!("  {} {} \\", a.stored.sha256, quoted(name))
    };
    let first = format!("(cd {stored}; printf '%s  %s\\n' \\");
    let last = "  | sha256sum -c --quiet -)".to_owned();
    [first].into_iter().chain(parts.map(part)).chain([last]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_name_is_plain_whatever_the_old_one_was() {
        assert_eq!(new_name("shop"), "shop_restored");
        assert_eq!(new_name("host=x dbname=Y"), "host_x_dbname_y_restored");
        assert_eq!(new_name("-Ünï'; \n"), "__n______restored");
        assert!(new_name(&"ä".repeat(63)).len() <= 63);
    }
}
