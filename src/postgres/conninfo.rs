//! Another database by the same connection string.
//!
//! A string is a URI, `key=value` pairs, or the bare name of a database; in the first two the last `dbname` wins. A
//! newcomer would set `PGDATABASE`; whatever the string or the service says outranks it.

use std::fmt::Write;

/// The connection string with another database.
pub(super) fn in_database(conninfo: &str, database: &str) -> String {
    let is_uri = ["postgresql://", "postgres://"].iter().any(|scheme| conninfo.starts_with(scheme));
    if is_uri {
        let mark = if conninfo.contains('?') { '&' } else { '?' };
        format!("{conninfo}{mark}dbname={}", encoded(database))
    } else if conninfo.contains('=') {
        format!("{conninfo} dbname={}", quoted(database))
    } else {
        format!("dbname={}", quoted(database))
    }
}

/// A value as `key=value` pairs hold it.
pub(super) fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
}

fn encoded(value: &str) -> String {
    value.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"_.-".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("writing to a string cannot fail");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_database_wins_in_every_form() {
        let other = |conninfo| in_database(conninfo, r"we'ird \db");
        assert_eq!(other("service=orders"), r"service=orders dbname='we\'ird \\db'");
        assert_eq!(other("postgresql://db1/orders"), "postgresql://db1/orders?dbname=we%27ird%20%5Cdb");
        assert_eq!(other("postgres://?service=x"), "postgres://?service=x&dbname=we%27ird%20%5Cdb");
        assert_eq!(other("orders"), r"dbname='we\'ird \\db'");
        assert_eq!(in_database("host=/run dbname=a", "crm"), "host=/run dbname=a dbname=crm");
    }
}
