//! Long lists, read by the thousand.
//!
//! sqlx hands out each value in memory of its own that another thread took, and each row through a channel; for a hundred
//! thousand backups that was the larger part of a plan. So SQLite packs a thousand rows into one text. A newcomer would
//! list the columns once more; they are asked from the table, for a migration adds some.

use std::cell::Cell;

use serde_json::Value;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::fields::{Fields, decode};

/// Rows of one text.
const BUNCH: u32 = 1000;

/// All columns of a table, of rows that the caller chooses.
pub(super) struct Bunches {
    columns: Vec<String>,
    sql: QueryBuilder<Sqlite>,
}

impl Bunches {
    /// Of the rows of a table, in an order; conditions are pushed to [`Bunches::sql`].
    pub(super) async fn of(conn: &mut SqliteConnection, table: &'static str, order: &str) -> sqlx::Result<Self> {
        let sql = "select name from pragma_table_info(?) order by cid";
        let columns: Vec<String> = sqlx::query_scalar(sql).bind(table).fetch_all(conn).await?;
        let quoted: Vec<String> = columns.iter().map(|column| format!("\"{column}\"")).collect();
        let head = format!(
            "select json_group_array(json_array({}) order by place)
               from (select row_number() over (order by {order}) as place, * from (select * from {table}",
            quoted.join(", ")
        );
        Ok(Self { columns, sql: QueryBuilder::new(head) })
    }

    /// What follows `select * from TABLE`.
    pub(super) fn sql(&mut self) -> &mut QueryBuilder<Sqlite> {
        &mut self.sql
    }

    /// What `of` makes of each row, in their order.
    pub(super) async fn read<T>(
        mut self,
        conn: &mut SqliteConnection,
        of: impl Fn(&Bunched<'_>) -> sqlx::Result<T>,
    ) -> sqlx::Result<Vec<T>> {
        self.sql.push(format!(")) group by place / {BUNCH} order by place / {BUNCH}"));
        let bunches: Vec<String> = self.sql.build_query_scalar().fetch_all(conn).await?;
        let mut all = Vec::new();
        for bunch in bunches {
            let rows: Vec<Vec<Value>> = serde_json::from_str(&bunch).map_err(decode)?;
            for values in rows {
                all.push(of(&Bunched { columns: &self.columns, values, next: Cell::new(0) })?);
            }
        }
        Ok(all)
    }
}

/// A row out of such a text.
pub(super) struct Bunched<'a> {
    columns: &'a [String],
    values: Vec<Value>,
    /// Readers take the columns in the order of the table, more or less.
    next: Cell<usize>,
}

impl Bunched<'_> {
    fn value(&self, column: &str) -> sqlx::Result<&Value> {
        let (before, after) = self.columns.split_at(self.next.get());
        let found = after.iter().chain(before).position(|name| name == column);
        let skipped = found.ok_or_else(|| sqlx::Error::ColumnNotFound(column.to_owned()))?;
        let at = (self.next.get() + skipped) % self.columns.len();
        self.next.set((at + 1) % self.columns.len());
        Ok(&self.values[at])
    }

    fn unfit(column: &str) -> sqlx::Error {
        decode(format!("`{column}` is of another type"))
    }
}

impl Fields for Bunched<'_> {
    fn text(&self, column: &str) -> sqlx::Result<String> {
        self.opt_text(column)?.ok_or_else(|| Self::unfit(column))
    }

    fn opt_text(&self, column: &str) -> sqlx::Result<Option<String>> {
        match self.value(column)? {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            _ => Err(Self::unfit(column)),
        }
    }

    fn int(&self, column: &str) -> sqlx::Result<i64> {
        self.opt_int(column)?.ok_or_else(|| Self::unfit(column))
    }

    fn opt_int(&self, column: &str) -> sqlx::Result<Option<i64>> {
        match self.value(column)? {
            Value::Null => Ok(None),
            value => value.as_i64().map(Some).ok_or_else(|| Self::unfit(column)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing::catalog;

    #[tokio::test]
    async fn rows_of_several_bunches_come_whole_and_in_their_order() {
        let (_dir, catalog) = catalog().await;
        let told = catalog.write("filling", async |conn| {
            let sql = "with recursive number (n) as (select 0 union all select n + 1 from number where n < 2499)
                       insert into backup_ids (id, reserved_at) select printf('ü \"%04d\"', n), 2499 - n from number";
            sqlx::query(sql).execute(&mut *conn).await?;
            let mut rows = Bunches::of(conn, "backup_ids", "reserved_at").await?;
            rows.sql().push(" where reserved_at >= ").push_bind(1);
            rows.read(conn, |row| Ok((row.int("reserved_at")?, row.text("id")?))).await
        });
        let wanted: Vec<(i64, String)> = (1..2500).map(|at| (at, format!("ü \"{:04}\"", 2499 - at))).collect();
        assert_eq!(told.await.unwrap(), wanted);
    }
}
