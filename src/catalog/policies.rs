//! The policies that were accepted, with their text, for the day on which the file is broken.
//!
//! The text names secrets and never holds them, or it could not be kept here.

use std::path::PathBuf;

use chrono::{DateTime, Utc};

use super::{
    Catalog, Result,
    fields::{Fields, json, millis},
};

/// A policy that was in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedPolicy {
    /// SHA-256 over the text of all files.
    pub hash: String,
    /// The files with their text, the main file first.
    pub files: Vec<(PathBuf, String)>,
    /// When it was accepted.
    pub accepted_at: DateTime<Utc>,
}

impl Catalog {
    /// Remembers the policy that is in force from now on; the same one again changes nothing.
    pub async fn accept_policy(&self, hash: &str, files: &[(PathBuf, String)], now: DateTime<Utc>) -> Result<()> {
        let files: Vec<_> = files.iter().map(|(path, text)| (path.to_string_lossy(), text)).collect();
        let files = json(&files);
        self.write("accepting a policy", async |conn| {
            sqlx::query(
                "insert into policies (hash, accepted_at, files) select ?1, ?2, ?3
                  where ?1 is not (select hash from policies order by id desc limit 1)",
            )
            .bind(hash)
            .bind(millis(now))
            .bind(&files)
            .execute(conn)
            .await?;
            Ok(())
        })
        .await
    }

    /// The policy that was accepted last.
    pub async fn accepted_policy(&self) -> Result<Option<AcceptedPolicy>> {
        self.read("reading the accepted policy", async |conn| {
            let row = sqlx::query("select * from policies order by id desc limit 1").fetch_optional(conn).await?;
            let Some(row) = row else { return Ok(None) };
            let (hash, accepted_at) = (row.text("hash")?, row.time("accepted_at")?);
            Ok(Some(AcceptedPolicy { hash, files: row.json("files")?, accepted_at }))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing::{at, catalog};

    #[tokio::test]
    async fn the_last_accepted_policy_comes_back_word_for_word() {
        let (_dir, catalog) = catalog().await;
        assert_eq!(catalog.accepted_policy().await.unwrap(), None);
        let files = vec![(PathBuf::from("/etc/backstop.toml"), "a = \"ü\"\n".to_owned())];
        for (hash, time) in [("a", 10), ("b", 20), ("a", 30), ("a", 40)] {
            catalog.accept_policy(hash, &files, at(time)).await.unwrap();
        }
        let found = catalog.accepted_policy().await.unwrap();
        assert_eq!(found, Some(AcceptedPolicy { hash: "a".to_owned(), files, accepted_at: at(30) }));
    }
}
