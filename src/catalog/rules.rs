//! The retention rules that each database had, and which of the former ones still guard what they kept.
//!
//! A policy that keeps less is obeyed after a while, so that a slip of the pen can be taken back. What guards is the rules
//! themselves and not a list of backups: a backup that only the former rules keep may also come of age in the meantime.
//! The grace is that of the former rules; a newcomer would take the new one, which the same slip may have set to zero.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    Catalog, Result, audit,
    fields::{Fields, json, millis},
};
use crate::{policy::Retention, record::DatabaseName, retention::FormerRules};

impl Catalog {
    /// Puts rules in force, for all these databases in one step; those before them begin to guard. The same ones again
    /// change nothing.
    pub async fn adopt_rules(&self, rules: &[(&DatabaseName, &Retention)], now: DateTime<Utc>) -> Result<()> {
        self.write("adopting retention rules", async |conn| {
            for (database, rules) in rules {
                adopt(conn, database, rules, now).await?;
            }
            Ok(())
        })
        .await
    }

    /// The rules in force; none before the first are adopted.
    pub async fn rules_in_force(&self, database: &DatabaseName) -> Result<Option<Retention>> {
        self.read("reading retention rules", async |conn| in_force(conn, database).await).await
    }

    /// The rules in force of every database that ever had some, in one look.
    pub async fn all_rules_in_force(&self) -> Result<BTreeMap<DatabaseName, Retention>> {
        self.read("reading all retention rules", async |conn| {
            let rows = sqlx::query("select * from retention_rules where replaced_at is null").fetch_all(conn).await?;
            rows.iter().map(|row| Ok((row.word("database")?, Fields::json(row, "rules")?))).collect()
        })
        .await
    }

    /// What guards the backups of a database whose policy has these rules: former rules, oldest first, and those in force
    /// where the new ones are not adopted yet.
    pub async fn guarding(
        &self,
        database: &DatabaseName,
        rules: &Retention,
        now: DateTime<Utc>,
    ) -> Result<Vec<FormerRules>> {
        let mut former = self.former_rules(database, now).await?;
        let in_force = self.rules_in_force(database).await?.filter(|in_force| in_force != rules);
        former.extend(in_force.map(|old| FormerRules::replaced(old, now)));
        Ok(former)
    }

    async fn former_rules(&self, database: &DatabaseName, now: DateTime<Utc>) -> Result<Vec<FormerRules>> {
        self.read("reading former retention rules", async |conn| {
            let rows = sqlx::query(
                "select * from retention_rules
                  where database = ? and guards_until > ? and accepted_by is null order by id",
            )
            .bind(database.as_str())
            .bind(millis(now))
            .fetch_all(conn)
            .await?;
            let former = |row: &SqliteRow| {
                Ok(FormerRules {
                    rules: Fields::json(row, "rules")?,
                    replaced_at: row.time("replaced_at")?,
                    guards_until: row.time("guards_until")?,
                })
            };
            rows.iter().map(former).collect()
        })
        .await
    }

    /// Ends all guarding for a database, because `who` says so. Returns the new head of the audit; none: nothing guards.
    pub async fn accept_rules(&self, database: &DatabaseName, who: &str, now: DateTime<Utc>) -> Result<Option<String>> {
        self.write("accepting retention rules", async |conn| {
            let accepted = sqlx::query(
                "update retention_rules set accepted_by = ?
                  where database = ? and guards_until > ? and accepted_by is null",
            )
            .bind(who)
            .bind(database.as_str())
            .bind(millis(now))
            .execute(&mut *conn)
            .await?;
            if accepted.rows_affected() == 0 {
                return Ok(None);
            }
            let detail = "what only former rules keep may go at once";
            audit::append(conn, who, "accept_retention", database.as_str(), detail, now).await.map(Some)
        })
        .await
    }
}

async fn adopt(
    conn: &mut SqliteConnection,
    database: &DatabaseName,
    rules: &Retention,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let former = in_force(conn, database).await?;
    if former.as_ref() == Some(rules) {
        return Ok(());
    }
    if let Some(former) = former {
        sqlx::query(
            "update retention_rules set replaced_at = ?, guards_until = ? where database = ? and replaced_at is null",
        )
        .bind(millis(now))
        .bind(millis(FormerRules::replaced(former, now).guards_until))
        .bind(database.as_str())
        .execute(&mut *conn)
        .await?;
    }
    sqlx::query("insert into retention_rules (database, rules, since) values (?, ?, ?)")
        .bind(database.as_str())
        .bind(json(rules))
        .bind(millis(now))
        .execute(conn)
        .await?;
    Ok(())
}

async fn in_force(conn: &mut SqliteConnection, database: &DatabaseName) -> sqlx::Result<Option<Retention>> {
    let sql = "select * from retention_rules where database = ? and replaced_at is null";
    let row = sqlx::query(sql).bind(database.as_str()).fetch_optional(conn).await?;
    row.as_ref().map(|row| Fields::json(row, "rules")).transpose()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::catalog::{
        Chain,
        testing::{at, catalog},
    };

    fn rules(last: u32, grace: u64) -> Retention {
        Retention { last: Some(last), shrink_grace: Duration::from_secs(grace), ..Retention::default() }
    }

    #[tokio::test]
    async fn former_rules_guard_for_their_own_grace() {
        let (_dir, catalog) = catalog().await;
        let shop = "shop".parse().unwrap();
        let adopt = async |rules: &Retention, time| catalog.adopt_rules(&[(&shop, rules)], at(time)).await.unwrap();
        let guarding = async |time| {
            let former = catalog.former_rules(&shop, at(time)).await.unwrap();
            former.iter().map(|former| former.rules.last.unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(catalog.rules_in_force(&shop).await.unwrap(), None);
        adopt(&rules(9, 100), 0).await;
        adopt(&rules(9, 100), 10).await;
        assert_eq!(guarding(10).await, [0; 0], "the first replace nothing, and they replace not themselves");
        adopt(&rules(5, 0), 20).await;
        assert_eq!(catalog.rules_in_force(&shop).await.unwrap(), Some(rules(5, 0)));
        assert_eq!((guarding(119).await, guarding(120).await), (vec![9], vec![]), "the grace of the former ones");
        adopt(&rules(3, 100), 30).await;
        adopt(&rules(1, 100), 40).await;
        assert_eq!(guarding(50).await, [9, 3], "those with no grace do not guard");
        assert_eq!(catalog.former_rules(&"other".parse().unwrap(), at(50)).await.unwrap(), []);
        let all = catalog.all_rules_in_force().await.unwrap();
        assert_eq!(all.into_iter().collect::<Vec<_>>(), [(shop.clone(), rules(1, 100))]);
        let early = catalog.guarding(&shop, &rules(7, 0), at(60)).await.unwrap();
        let told: Vec<_> = early.iter().map(|former| (former.rules.last.unwrap(), former.guards_until)).collect();
        assert_eq!(told, [(9, at(120)), (3, at(140)), (1, at(160))], "what is in force guards before it is replaced");
        assert_eq!(catalog.guarding(&shop, &rules(1, 100), at(60)).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_person_may_end_the_guarding_and_that_is_audited() {
        let (_dir, catalog) = catalog().await;
        let shop = "shop".parse().unwrap();
        assert_eq!(catalog.accept_rules(&shop, "ada", at(0)).await.unwrap(), None, "nothing guards");
        catalog.adopt_rules(&[(&shop, &rules(9, 100))], at(0)).await.unwrap();
        catalog.adopt_rules(&[(&shop, &rules(1, 100))], at(10)).await.unwrap();
        let head = catalog.accept_rules(&shop, "ada", at(20)).await.unwrap();
        assert!(head.is_some());
        assert_eq!(catalog.former_rules(&shop, at(20)).await.unwrap(), []);
        assert!(matches!(catalog.audit_verify().await.unwrap(), Chain::Whole { count: 1, .. }));
    }
}
