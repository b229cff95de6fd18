//! Which schema migrations a database has, for every tool that leaves a table behind, on every kind of server.
//!
//! Pure: [`candidates_sql`] asks which of the known tables exist and with which columns, [`recognise`] finds the tool in
//! the answer, and its `list_sql` asks for what was applied. A name alone proves nothing: `schema_migrations` is the
//! table of Rails, but also of golang-migrate, Ecto and dbmate, so the columns must be right too, and for Rails the
//! second table. What failed, was rolled back or undone is not applied.
//!
//! Alembic remembers only where it stands: its list is its heads, not its history. A database in which several tools
//! are at home is told by one of them. A newcomer would quote the names that he knows; the names that the database told
//! are quoted, because another case or schema may be meant.

use crate::record::Migrations;

/// The SQL of a kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    MySql,
    /// SQLite.
    Sqlite,
}

/// A tool that was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name, e.g. `prisma`.
    pub framework: &'static str,
    /// Asks which migrations are applied, the oldest first; the answer is for [`migrations`].
    pub list_sql: String,
    glue: &'static str,
}

/// A tool and its table.
struct Framework {
    name: &'static str,
    table: &'static str,
    columns: Columns,
    /// A table that must stand beside it.
    beside: Option<&'static str>,
    /// Asks what is applied; `{t}` is the table.
    list: &'static str,
    /// What stands between the columns of one answer.
    glue: &'static str,
}

/// The columns by which a table is recognised.
enum Columns {
    /// It has these, and perhaps more.
    Has(&'static [&'static str]),
    /// It has this one and no other.
    Only(&'static str),
}

const FRAMEWORKS: &[Framework] = &[
    Framework {
        name: "prisma",
        table: "_prisma_migrations",
        columns: Columns::Has(&["migration_name", "started_at", "finished_at", "rolled_back_at"]),
        beside: None,
        list: "select migration_name from {t} where finished_at is not null and rolled_back_at is null \
               order by started_at, migration_name",
        glue: "",
    },
    // An undone or deleted migration gets a row of its own, a repeatable one gets another row each time.
    Framework {
        name: "flyway",
        table: "flyway_schema_history",
        columns: Columns::Has(&["installed_rank", "version", "type", "script", "success"]),
        beside: None,
        list: "select h.script from {t} h where h.success and h.type not in ('SCHEMA', 'DELETE') \
               and h.type not like 'UNDO%' and not exists (select 1 from {t} l \
               where l.success and l.installed_rank > h.installed_rank and (l.script = h.script \
               or l.version = h.version and (l.type = 'DELETE' or l.type like 'UNDO%'))) order by h.installed_rank",
        glue: "",
    },
    Framework {
        name: "liquibase",
        table: "databasechangelog",
        columns: Columns::Has(&["id", "author", "filename", "dateexecuted", "orderexecuted", "exectype"]),
        beside: None,
        list: "select filename, id, author from {t} where exectype in ('EXECUTED', 'RERAN', 'MARK_RAN') \
               order by dateexecuted, orderexecuted",
        glue: "::",
    },
    Framework {
        name: "django",
        table: "django_migrations",
        columns: Columns::Has(&["id", "app", "name", "applied"]),
        beside: None,
        list: "select app, name from {t} order by id",
        glue: ".",
    },
    Framework {
        name: "rails",
        table: "schema_migrations",
        columns: Columns::Only("version"),
        beside: Some("ar_internal_metadata"),
        list: "select version from {t} order by length(version), version",
        glue: "",
    },
    Framework {
        name: "alembic",
        table: "alembic_version",
        columns: Columns::Only("version_num"),
        beside: None,
        list: "select version_num from {t} order by version_num",
        glue: "",
    },
    Framework {
        name: "sqlx",
        table: "_sqlx_migrations",
        columns: Columns::Has(&["version", "description", "installed_on", "success", "checksum"]),
        beside: None,
        list: "select version, description from {t} where success order by version",
        glue: " ",
    },
    Framework {
        name: "diesel",
        table: "__diesel_schema_migrations",
        columns: Columns::Has(&["version", "run_on"]),
        beside: None,
        list: "select version from {t} order by version",
        glue: "",
    },
    // Version 0 is the table itself; an older goose notes what was taken back in a further row.
    Framework {
        name: "goose",
        table: "goose_db_version",
        columns: Columns::Has(&["id", "version_id", "is_applied"]),
        beside: None,
        list: "select g.version_id from {t} g where g.is_applied and g.version_id > 0 and not exists \
               (select 1 from {t} l where l.version_id = g.version_id and l.id > g.id) order by g.id",
        glue: "",
    },
    Framework {
        name: "knex",
        table: "knex_migrations",
        columns: Columns::Has(&["id", "name", "batch", "migration_time"]),
        beside: None,
        list: "select name from {t} order by id",
        glue: "",
    },
    Framework {
        name: "sequelize",
        table: "SequelizeMeta",
        columns: Columns::Has(&["name"]),
        beside: None,
        list: "select name from {t} order by name",
        glue: "",
    },
];

/// Asks which of the known tables exist: a record for each column, of schema, table and column, the preferred schema
/// first. Who dumps only some databases of a server leaves the records of the others out before [`recognise`].
pub fn candidates_sql(dialect: Dialect) -> String {
    let tables = FRAMEWORKS.iter().flat_map(|framework| [Some(framework.table), framework.beside]).flatten();
    let names = tables.map(|table| format!("'{}'", dialect.folded(table))).collect::<Vec<_>>().join(", ");
    match dialect {
        Dialect::Postgres => format!(
            "select n.nspname, c.relname, a.attname from pg_catalog.pg_class c \
             join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
             join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped \
             where c.relkind in ('r', 'p') and c.relpersistence <> 't' and c.relname in ({names}) \
             order by n.nspname is not distinct from current_schema() desc, n.nspname = 'public' desc, \
             n.nspname, c.relname, a.attnum"
        ),
        Dialect::MySql => format!(
            "select table_schema, table_name, column_name from information_schema.columns \
             where lower(table_name) in ({names}) \
             and table_schema not in ('mysql', 'sys', 'performance_schema', 'information_schema') \
             order by coalesce(table_schema = database(), 0) desc, table_schema, table_name, ordinal_position"
        ),
        Dialect::Sqlite => format!(
            "select 'main', m.name, c.name from main.sqlite_master m, pragma_table_info(m.name) c \
             where m.type = 'table' and lower(m.name) in ({names}) order by m.name, c.cid"
        ),
    }
}

/// Finds the tool in the answer to [`candidates_sql`]: the first schema's, and there the first that fits.
pub fn recognise(dialect: Dialect, records: &[Vec<String>]) -> Option<Found> {
    let mut schemas: Vec<&str> = records.iter().filter_map(|record| record.first()).map(String::as_str).collect();
    schemas.dedup();
    let fit = |schema| FRAMEWORKS.iter().find_map(|framework| framework.find(dialect, schema, records));
    schemas.into_iter().find_map(fit)
}

/// Reads the answer to a tool's `list_sql`.
pub fn migrations(found: &Found, records: &[Vec<String>]) -> Migrations {
    let migrations_list: Vec<String> = records.iter().map(|record| record.join(found.glue)).collect();
    Migrations {
        framework: found.framework.to_owned(),
        applied_count: u32::try_from(migrations_list.len()).unwrap_or(u32::MAX),
        last_migration: migrations_list.last().cloned(),
        migrations_list,
    }
}

impl Framework {
    fn find(&self, dialect: Dialect, schema: &str, records: &[Vec<String>]) -> Option<Found> {
        let (table, columns) = described(dialect, schema, self.table, records)?;
        if let Some(beside) = self.beside {
            described(dialect, schema, beside, records)?;
        }
        let has = |wanted: &&str| columns.iter().any(|column| dialect.is_same(column, wanted));
        let fits = match self.columns {
            Columns::Has(wanted) => wanted.iter().all(has),
            Columns::Only(wanted) => columns.len() == 1 && has(&wanted),
        };
        let table = format!("{}.{}", dialect.quoted(schema), dialect.quoted(table));
        let found = || Found { framework: self.name, list_sql: self.list.replace("{t}", &table), glue: self.glue };
        fits.then(found)
    }
}

/// A table as the database calls it, and its columns.
fn described<'a>(
    dialect: Dialect,
    schema: &str,
    table: &str,
    records: &'a [Vec<String>],
) -> Option<(&'a str, Vec<&'a str>)> {
    let rows = records.iter().filter_map(|record| match record.as_slice() {
        [s, t, column] if s == schema && dialect.is_same(t, table) => Some((t.as_str(), column.as_str())),
        _ => None,
    });
    let rows: Vec<_> = rows.collect();
    let name = rows.first()?.0;
    Some((name, rows.into_iter().filter(|(table, _)| *table == name).map(|(_, column)| column).collect()))
}

impl Dialect {
    /// Whether a name in the database is this one. PostgreSQL alone knows names that differ only in their case.
    fn is_same(self, name: &str, wanted: &str) -> bool {
        if self == Dialect::Postgres { name == wanted } else { name.eq_ignore_ascii_case(wanted) }
    }

    fn folded(self, name: &str) -> String {
        if self == Dialect::Postgres { name.to_owned() } else { name.to_ascii_lowercase() }
    }

    fn quoted(self, name: &str) -> String {
        let mark = if self == Dialect::MySql { "`" } else { "\"" };
        format!("{mark}{}{mark}", name.replace(mark, &mark.repeat(2)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(schema: &str, table: &str, columns: &[&str]) -> Vec<Vec<String>> {
        columns.iter().map(|column| [schema, table, column].map(str::to_owned).to_vec()).collect()
    }

    fn framework(dialect: Dialect, tables: &[Vec<Vec<String>>]) -> Option<&'static str> {
        recognise(dialect, &tables.concat()).map(|found| found.framework)
    }

    fn columns(framework: &Framework) -> Vec<&'static str> {
        match framework.columns {
            Columns::Has(columns) => columns.to_vec(),
            Columns::Only(column) => vec![column],
        }
    }

    #[test]
    fn every_tool_is_recognised_by_its_table_and_not_without_a_column() {
        for wanted in FRAMEWORKS {
            let columns = columns(wanted);
            let beside = wanted.beside.map(|name| table("public", name, &["key", "value"])).unwrap_or_default();
            for dialect in [Dialect::Postgres, Dialect::MySql, Dialect::Sqlite] {
                let whole = table("public", wanted.table, &columns);
                assert_eq!(framework(dialect, &[whole, beside.clone()]), Some(wanted.name));
                let other = table("public", wanted.table, &[&["other"], &columns[1..]].concat());
                assert_eq!(framework(dialect, &[other, beside.clone()]), None, "{}", wanted.name);
            }
        }
    }

    #[test]
    fn a_name_alone_proves_nothing() {
        let p = |columns| framework(Dialect::Postgres, &[table("public", "schema_migrations", columns)]);
        assert_eq!(p(&["version", "dirty"]), None, "golang-migrate");
        assert_eq!(p(&["version", "inserted_at"]), None, "Ecto");
        assert_eq!(p(&["version"]), None, "dbmate");
        let elsewhere = table("other", "ar_internal_metadata", &["key", "value"]);
        let rails = table("public", "schema_migrations", &["version"]);
        assert_eq!(framework(Dialect::Postgres, &[rails, elsewhere]), None);
    }

    #[test]
    fn the_first_schema_is_asked_and_names_are_quoted_as_the_database_told_them() {
        let rows = [
            table("we\"ird", "alembic_version", &["version_num"]),
            table("zoo", "knex_migrations", &["id", "name", "batch", "migration_time"]),
        ]
        .concat();
        let found = recognise(Dialect::Postgres, &rows).unwrap();
        insta::assert_snapshot!(found.list_sql, @r#"select version_num from "we""ird"."alembic_version" order by version_num"#);
        let rows = table("shop`s", "sequelizemeta", &["Name"]);
        let found = recognise(Dialect::MySql, &rows).unwrap();
        insta::assert_snapshot!(found.list_sql, @"select name from `shop``s`.`sequelizemeta` order by name");
    }

    #[test]
    fn a_name_in_another_case_is_another_name_only_on_postgresql() {
        let rows = table(
            "main",
            "DATABASECHANGELOG",
            &["ID", "AUTHOR", "FILENAME", "DATEEXECUTED", "ORDEREXECUTED", "EXECTYPE", "MD5SUM"],
        );
        assert_eq!(framework(Dialect::Sqlite, std::slice::from_ref(&rows)), Some("liquibase"));
        assert_eq!(framework(Dialect::MySql, std::slice::from_ref(&rows)), Some("liquibase"));
        assert_eq!(framework(Dialect::Postgres, &[rows]), None);
    }

    #[test]
    fn what_is_applied_is_counted_and_the_last_is_named() {
        let found = Found { framework: "django", list_sql: String::new(), glue: "." };
        let list =
            [["auth", "0001_initial"], ["shop", "0001_initial"]].map(|record| record.map(str::to_owned).to_vec());
        let told = migrations(&found, &list);
        assert_eq!((told.applied_count, told.last_migration.as_deref()), (2, Some("shop.0001_initial")));
        assert_eq!(told.migrations_list, ["auth.0001_initial", "shop.0001_initial"]);
        let none = migrations(&found, &[]);
        assert_eq!((none.applied_count, none.last_migration), (0, None));
    }

    #[test]
    fn an_answer_that_makes_no_sense_recognises_nothing() {
        for rows in [vec![], vec![vec![]], vec![vec!["public".to_owned()]]] {
            assert_eq!(recognise(Dialect::Sqlite, &rows), None);
        }
    }
}
