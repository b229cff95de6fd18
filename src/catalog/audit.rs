//! The audit: who did what, in a chain of hashes.
//!
//! Each entry's hash covers the entry and the hash before it, so whoever changes a row must change every row after it,
//! and the head, which also stands in the log and in each report, tells. That a chain was cut off at its end only those
//! other places can show. A newcomer would hash the fields joined by a separator; a length before each leaves no doubt
//! where one field ends.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    Catalog, Result,
    fields::{Fields, millis},
};

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditEntry {
    /// Its place in the chain, from 1.
    pub seq: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// Who.
    pub actor: String,
    /// Did what.
    pub action: String,
    /// To what.
    pub object: String,
    /// The rest that matters.
    pub detail: String,
    /// The hash of this entry.
    pub hash: String,
    #[serde(skip)]
    prev_hash: String,
}

/// What a check of the chain found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chain {
    /// Every entry is as it was written.
    Whole {
        /// How many there are.
        count: u64,
        /// The hash of the last; empty when there is none.
        head: String,
    },
    /// An entry was changed, or one is missing before it.
    Broken {
        /// The first entry that does not fit.
        seq: i64,
    },
}

impl Catalog {
    /// Adds an entry and returns the new head, which the caller writes to the log.
    pub async fn audit(
        &self,
        actor: &str,
        action: &str,
        object: &str,
        detail: &str,
        now: DateTime<Utc>,
    ) -> Result<String> {
        self.write("writing the audit", async |conn| append(conn, actor, action, object, detail, now).await).await
    }

    /// Follows the chain from its beginning.
    pub async fn audit_verify(&self) -> Result<Chain> {
        self.read("checking the audit", async |conn| {
            let (mut count, mut head) = (0i64, String::new());
            loop {
                let sql = "select * from audit where seq > ? order by seq limit 1000";
                let rows = sqlx::query(sql).bind(count).fetch_all(&mut *conn).await?;
                if rows.is_empty() {
                    return Ok(Chain::Whole { count: count.unsigned_abs(), head });
                }
                for row in &rows {
                    let entry = entry(row)?;
                    let is_next = entry.seq == count + 1 && entry.prev_hash == head;
                    if !is_next || entry.hash != digest(&entry) {
                        return Ok(Chain::Broken { seq: entry.seq });
                    }
                    (count, head) = (entry.seq, entry.hash);
                }
            }
        })
        .await
    }

    /// An entry by its place in the chain.
    pub async fn audit_entry(&self, seq: i64) -> Result<Option<AuditEntry>> {
        self.read("reading the audit", async |conn| {
            let row = sqlx::query("select * from audit where seq = ?").bind(seq).fetch_optional(conn).await?;
            row.as_ref().map(entry).transpose()
        })
        .await
    }

    /// The newest entries, the newest first; at most `limit`.
    pub async fn audit_list(&self, limit: u32) -> Result<Vec<AuditEntry>> {
        self.read("listing the audit", async |conn| {
            let rows = sqlx::query("select * from audit order by seq desc limit ?").bind(limit).fetch_all(conn).await?;
            rows.iter().map(entry).collect()
        })
        .await
    }
}

/// Adds an entry within a transaction, so that what was done and that it was done stand or fall together.
pub(super) async fn append(
    conn: &mut SqliteConnection,
    actor: &str,
    action: &str,
    object: &str,
    detail: &str,
    now: DateTime<Utc>,
) -> sqlx::Result<String> {
    let last = "select seq, hash from audit order by seq desc limit 1";
    let last: Option<(i64, String)> = sqlx::query_as(last).fetch_optional(&mut *conn).await?;
    let (seq, prev_hash) = last.unwrap_or_default();
    let mut entry = AuditEntry {
        seq: seq + 1,
        at: now,
        actor: actor.to_owned(),
        action: action.to_owned(),
        object: object.to_owned(),
        detail: detail.to_owned(),
        hash: String::new(),
        prev_hash,
    };
    entry.hash = digest(&entry);
    let sql =
        "insert into audit (seq, at, actor, action, object, detail, prev_hash, hash) values (?, ?, ?, ?, ?, ?, ?, ?)";
    sqlx::query(sql)
        .bind(entry.seq)
        .bind(millis(entry.at))
        .bind(actor)
        .bind(action)
        .bind(object)
        .bind(detail)
        .bind(&entry.prev_hash)
        .bind(&entry.hash)
        .execute(conn)
        .await?;
    Ok(entry.hash)
}

fn entry(row: &SqliteRow) -> sqlx::Result<AuditEntry> {
    Ok(AuditEntry {
        seq: row.int("seq")?,
        at: row.time("at")?,
        actor: row.text("actor")?,
        action: row.text("action")?,
        object: row.text("object")?,
        detail: row.text("detail")?,
        hash: row.text("hash")?,
        prev_hash: row.text("prev_hash")?,
    })
}

fn digest(entry: &AuditEntry) -> String {
    let (seq, at) = (entry.seq.to_string(), millis(entry.at).to_string());
    let fields = [&entry.prev_hash, &seq, &at, &entry.actor, &entry.action, &entry.object, &entry.detail];
    let mut hasher = Sha256::new();
    for field in fields {
        hasher.update(format!("{}:{field}", field.len()));
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use sqlx::Executor;

    use super::*;
    use crate::catalog::testing::{at, catalog};

    async fn five(catalog: &Catalog) -> String {
        let mut head = String::new();
        for n in 1..=5 {
            head = catalog.audit("ada (1000)", "expire", &format!("backup-{n}"), "by policy", at(n)).await.unwrap();
        }
        head
    }

    #[tokio::test]
    async fn an_untouched_chain_is_whole_and_ends_in_its_head() {
        let (_dir, catalog) = catalog().await;
        assert_eq!(catalog.audit_verify().await.unwrap(), Chain::Whole { count: 0, head: String::new() });
        let head = five(&catalog).await;
        assert_eq!(head.len(), 64);
        assert_eq!(catalog.audit_verify().await.unwrap(), Chain::Whole { count: 5, head });
        let newest = catalog.audit_list(2).await.unwrap();
        assert_eq!(newest.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [5, 4]);
        assert_eq!((newest[0].object.as_str(), newest[0].at), ("backup-5", at(5)));
    }

    #[tokio::test]
    async fn entries_cannot_be_changed_by_accident() {
        let (_dir, catalog) = catalog().await;
        five(&catalog).await;
        let writer = catalog.inner.writer.as_ref().unwrap();
        for sql in ["update audit set actor = 'eve' where seq = 2", "delete from audit where seq = 2"] {
            let refused = writer.execute(sql).await.unwrap_err().to_string();
            assert!(refused.contains("audit entries are never"), "{refused}");
        }
    }

    #[tokio::test]
    async fn an_entry_that_was_changed_or_taken_out_is_found() {
        for (change, seq) in [
            ("update audit set actor = 'eve' where seq = 3", 3),
            ("update audit set at = at + 1 where seq = 1", 1),
            ("update audit set hash = 'x' where seq = 5", 5),
            ("update audit set actor = actor || 'a', action = '' where seq = 4", 4),
            ("delete from audit where seq = 2", 3),
        ] {
            let (_dir, catalog) = catalog().await;
            five(&catalog).await;
            let writer = catalog.inner.writer.as_ref().unwrap();
            writer.execute("drop trigger audit_is_never_changed; drop trigger audit_is_never_deleted").await.unwrap();
            writer.execute(change).await.unwrap();
            assert_eq!(catalog.audit_verify().await.unwrap(), Chain::Broken { seq }, "{change}");
            assert_eq!(catalog.audit_entry(seq).await.unwrap().unwrap().seq, seq);
        }
    }
}
