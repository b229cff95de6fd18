//! What a user may do, from `show grants`: which parts of a dump would be missing without a word.
//!
//! Both the server and the dump tool leave out what the user may not see: triggers without TRIGGER, routines of others
//! without the right to read their text. The dump ends with zero then. A newcomer would ask `information_schema`, which
//! leaves the same out, and does not tell what a role grants.

use crate::engine::mysqldump::Flavour;

/// The grants of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Grants(Vec<Grant>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    privileges: Vec<String>,
    database: String,
    table: String,
}

impl Grants {
    /// Reads the lines of `show grants`; what is no grant on tables (a role, a proxy) is passed over.
    pub(super) fn read<'l>(lines: impl IntoIterator<Item = &'l str>) -> Self {
        Self(lines.into_iter().filter_map(Grant::read).collect())
    }

    /// What of a database the dump would leave out without an error.
    pub(super) fn silences(&self, database: &str, flavour: Flavour) -> Vec<&'static str> {
        let triggers = self.has("TRIGGER", database, "*");
        let routines = match flavour {
            Flavour::MariaDb => self.has("SELECT", "mysql", "proc") || self.has("SHOW CREATE ROUTINE", database, "*"),
            Flavour::MySql => self.has_everywhere("SHOW_ROUTINE") || self.has_everywhere("SELECT"),
        };
        [(triggers, "triggers"), (routines, "routines")]
            .into_iter()
            .filter(|(has, _)| !has)
            .map(|(_, what)| what)
            .collect()
    }

    fn has(&self, privilege: &str, database: &str, table: &str) -> bool {
        self.0.iter().any(|grant| grant.gives(privilege) && grant.covers(database, table))
    }

    fn has_everywhere(&self, privilege: &str) -> bool {
        self.0.iter().any(|grant| grant.gives(privilege) && grant.database == "*")
    }
}

impl Grant {
    /// Reads ``GRANT SELECT, TRIGGER ON `shop`.* TO `backup`@`localhost` ``.
    fn read(line: &str) -> Option<Self> {
        let (privileges, rest) = line.strip_prefix("GRANT ")?.split_once(" ON ")?;
        let (database, rest) = name(rest)?;
        let (table, _) = name(rest.strip_prefix('.')?)?;
        let privileges = privileges.split(", ").map(str::to_owned).collect();
        Some(Self { privileges, database, table })
    }

    fn gives(&self, privilege: &str) -> bool {
        self.privileges.iter().any(|given| given == privilege || given == "ALL PRIVILEGES")
    }

    fn covers(&self, database: &str, table: &str) -> bool {
        let is_table = self.table == "*" || self.table == table;
        let is_database = self.database == "*" || self.database == database || like(&self.database, database);
        is_table && is_database
    }
}

/// A name in backticks or a `*`, and what comes after it.
fn name(text: &str) -> Option<(String, &str)> {
    if let Some(rest) = text.strip_prefix('*') {
        return Some(("*".to_owned(), rest));
    }
    let mut name = String::new();
    let mut rest = text.strip_prefix('`')?;
    loop {
        let (part, after) = rest.split_once('`')?;
        name.push_str(part);
        match after.strip_prefix('`') {
            Some(more) => {
                name.push('`');
                rest = more;
            }
            None => return Some((name, after)),
        }
    }
}

/// Whether a pattern of `grant` covers a name: `%` is any text, `_` any character, `\` takes that away.
fn like(pattern: &str, name: &str) -> bool {
    let mut pattern_chars = pattern.chars();
    match pattern_chars.next() {
        None => name.is_empty(),
        Some('%') => {
            let rest = pattern_chars.as_str();
            (0..=name.len()).filter(|at| name.is_char_boundary(*at)).any(|at| like(rest, &name[at..]))
        }
        Some(first) => {
            let first = if first == '\\' { pattern_chars.next() } else { Some(first).filter(|c| *c != '_') };
            let mut name_chars = name.chars();
            let Some(c) = name_chars.next() else { return false };
            first.is_none_or(|wanted| wanted == c) && like(pattern_chars.as_str(), name_chars.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silences(lines: &[&str], flavour: Flavour) -> Vec<&'static str> {
        Grants::read(lines.iter().copied()).silences("web_shop", flavour)
    }

    #[test]
    fn what_the_user_may_not_see_is_missing_without_a_word() {
        let mariadb = |lines: &[&str]| silences(lines, Flavour::MariaDb);
        let usage = "GRANT USAGE ON *.* TO `low`@`localhost` IDENTIFIED BY PASSWORD '*123'";
        assert_eq!(
            mariadb(&[usage, "GRANT SELECT, LOCK TABLES ON `web\\_shop`.* TO `low`@`localhost`"]),
            ["triggers", "routines"]
        );
        assert_eq!(mariadb(&[usage, "GRANT SELECT, TRIGGER ON `web\\_shop`.* TO `low`@`localhost`"]), ["routines"]);
        assert_eq!(
            mariadb(&["GRANT TRIGGER ON `web%`.* TO `l`@`%`", "GRANT SELECT ON `mysql`.`proc` TO `l`@`%`"]),
            [""; 0]
        );
        assert_eq!(mariadb(&["GRANT TRIGGER ON `x`.* TO `l`@`%`", "GRANT SELECT ON *.* TO `l`@`%`"]), ["triggers"]);
        assert_eq!(mariadb(&["GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION"]), [""; 0]);
    }

    #[test]
    fn mysql_asks_for_a_privilege_on_the_whole_server() {
        let lines = ["GRANT `reader`@`%` TO `b`@`%`", "GRANT SELECT, TRIGGER ON `web_shop`.* TO `b`@`%`"];
        assert_eq!(silences(&lines, Flavour::MySql), ["routines"]);
        let lines = ["GRANT SHOW_ROUTINE ON *.* TO `b`@`%`", "GRANT TRIGGER ON `web_shop`.* TO `b`@`%`"];
        assert_eq!(silences(&lines, Flavour::MySql), [""; 0]);
    }

    #[test]
    fn a_pattern_covers_what_the_server_says_it_covers() {
        for (pattern, name, covers) in [
            ("web_shop", "webxshop", true),
            ("web\\_shop", "webxshop", false),
            ("web\\_shop", "web_shop", true),
            ("%", "", true),
            ("w%p", "web_shop", true),
            ("w%p", "web_shops", false),
            ("", "x", false),
        ] {
            assert_eq!(like(pattern, name), covers, "{pattern} {name}");
        }
    }

    #[test]
    fn a_name_may_hold_backticks() {
        assert_eq!(name("`a``b`.`c`"), Some(("a`b".to_owned(), ".`c`")));
        assert_eq!(name("`open"), None);
    }
}
