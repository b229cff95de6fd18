//! Alerts: what is alarming, since when, and how often that was seen.
//!
//! One open row per database and kind. A newcomer would raise one per sighting; people would then turn them off.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{
    Catalog, Result,
    fields::{Fields, millis},
};
use crate::record::DatabaseName;

/// Something alarming that is not over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alert {
    /// The database; none for the daemon itself.
    pub database: Option<DatabaseName>,
    /// What kind of trouble it is, one word.
    pub kind: String,
    /// What is wrong, as of the last sighting.
    pub message: String,
    /// When it was first seen.
    pub raised_at: DateTime<Utc>,
    /// When it was last seen.
    pub repeated_at: DateTime<Utc>,
    /// How often it was seen.
    pub count: u32,
}

/// Whether an alert is news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raised {
    /// It was not open before.
    New,
    /// It was, and now carries the new message.
    Repeated,
}

impl Catalog {
    /// Says that something is alarming.
    pub async fn raise(
        &self,
        database: Option<&DatabaseName>,
        kind: &str,
        message: &str,
        now: DateTime<Utc>,
    ) -> Result<Raised> {
        let sql =
            "insert into alerts (database, kind, message, raised_at, repeated_at, count) values (?, ?, ?, ?4, ?4, 1)
                   on conflict (database, kind) where cleared_at is null do update set
                       message = excluded.message, repeated_at = excluded.repeated_at, count = count + 1
                   returning count";
        let count: i64 = self
            .write("raising an alert", async |conn| {
                let query = sqlx::query_scalar(sql).bind(key(database)).bind(kind).bind(message).bind(millis(now));
                query.fetch_one(conn).await
            })
            .await?;
        Ok(if count == 1 { Raised::New } else { Raised::Repeated })
    }

    /// Says that it is over. False: it was not open.
    pub async fn clear(&self, database: Option<&DatabaseName>, kind: &str, now: DateTime<Utc>) -> Result<bool> {
        self.write("clearing an alert", async |conn| {
            let sql = "update alerts set cleared_at = ? where database = ? and kind = ? and cleared_at is null";
            let done = sqlx::query(sql).bind(millis(now)).bind(key(database)).bind(kind).execute(conn).await?;
            Ok(done.rows_affected() > 0)
        })
        .await
    }

    /// What is alarming now, the oldest first.
    pub async fn open_alerts(&self) -> Result<Vec<Alert>> {
        self.read("listing alerts", async |conn| {
            let sql = "select * from alerts where cleared_at is null order by raised_at, id";
            let rows = sqlx::query(sql).fetch_all(conn).await?;
            rows.iter()
                .map(|row| {
                    Ok(Alert {
                        database: row.text("database").map(|name| name.parse().ok())?,
                        kind: row.text("kind")?,
                        message: row.text("message")?,
                        raised_at: row.time("raised_at")?,
                        repeated_at: row.time("repeated_at")?,
                        count: row.number("count")?,
                    })
                })
                .collect()
        })
        .await
    }
}

fn key(database: Option<&DatabaseName>) -> &str {
    database.map_or("", DatabaseName::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing::{at, catalog};

    #[tokio::test]
    async fn an_alert_is_new_once_until_it_is_over() {
        let (_dir, catalog) = catalog().await;
        let orders: DatabaseName = "orders".parse().unwrap();
        let raise = async |database, message, time| catalog.raise(database, "wal", message, at(time)).await.unwrap();
        assert_eq!(raise(Some(&orders), "late", 10).await, Raised::New);
        assert_eq!(raise(Some(&orders), "later", 20).await, Raised::Repeated);
        assert_eq!(raise(None, "own", 30).await, Raised::New);
        let open = catalog.open_alerts().await.unwrap();
        let first = Alert {
            database: Some(orders.clone()),
            kind: "wal".to_owned(),
            message: "later".to_owned(),
            raised_at: at(10),
            repeated_at: at(20),
            count: 2,
        };
        assert_eq!((open.len(), &open[0], &open[1].database), (2, &first, &None));
        assert!(catalog.clear(Some(&orders), "wal", at(40)).await.unwrap());
        assert!(!catalog.clear(Some(&orders), "wal", at(41)).await.unwrap());
        assert_eq!(raise(Some(&orders), "late", 50).await, Raised::New, "it came back");
    }
}
