//! How many rows every table has: what a person compares with production years later.
//!
//! A newcomer would take the planner's estimate; a table that was just loaded has none.

use std::time::Duration;

use super::super::{
    super::{
        checks::query_failed,
        steps::{Checked, Result},
    },
    counts,
};
use crate::postgres::Client;

/// Tables that are counted by one statement.
const AT_ONCE: usize = 50;
/// How long such a statement may take.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Every table with rows of its own, and every materialised view that has content.
const TABLES: &str = "select format('%I.%I', nspname, relname) from pg_class join pg_namespace on pg_namespace.oid = relnamespace \
     where relkind in ('r', 'm') and relispopulated and relpersistence <> 't' \
     and nspname not in ('pg_catalog', 'information_schema') order by 1";

/// Counts the rows of every table.
pub(super) async fn count(client: &Client, database: &str) -> Result<()> {
    let client = client.clone().statement_timeout(LONGEST);
    let tables = client.query_in(database, TABLES).await.map_err(query_failed)?;
    let tables: Vec<String> = tables.into_iter().flatten().collect();
    let mut counts = Vec::with_capacity(tables.len());
    for chunk in tables.chunks(AT_ONCE) {
        let counted = client.query_in(database, &counting(chunk)).await.map_err(query_failed)?;
        let rows = counted.iter().map(|row| row.first().and_then(|count| count.parse().ok()).unwrap_or(0));
        counts.extend(chunk.iter().cloned().zip(rows));
    }
    let asked = "select count(*) from pg_largeobject_metadata";
    let objects = client.query_in(database, asked).await.map_err(query_failed)?;
    let objects = objects.into_iter().flatten().next().filter(|count| count != "0");
    let objects = objects.map_or_else(String::new, |count| format!(", {count} large objects"));
    Ok(Checked::passed((), format!("{}{objects}", counts::told(counts))))
}

/// One statement that counts several tables, in their order.
fn counting(tables: &[String]) -> String {
    let counts = tables.iter().enumerate();
    let counts = counts.map(|(number, table)| format!("select {number} as number, count(*) as rows from only {table}"));
    format!("select rows from ({}) as counts order by number", counts.collect::<Vec<_>>().join(" union all "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_counted_in_their_order() {
        let sql = counting(&["public.a".to_owned(), "\"B\".c".to_owned()]);
        insta::assert_snapshot!(sql, @r#"select rows from (select 0 as number, count(*) as rows from only public.a union all select 1 as number, count(*) as rows from only "B".c) as counts order by number"#);
    }
}
