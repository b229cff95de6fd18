//! What becomes of a backup: verdicts, holds, its end.
//!
//! A hold that comes while a plan is carried out wins, so an end looks once more, in the step that ends. A newcomer would
//! mark what a plan said; what became something else meanwhile is not what was planned about.

use chrono::{DateTime, Utc};

use super::{
    Catalog, Result, audit, dumps,
    fields::{json, millis},
};
use crate::record::BackupStatus;

impl Catalog {
    /// Says what became of backups, and why.
    pub async fn mark_backups(
        &self,
        ids: &[String],
        status: BackupStatus,
        reason: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<()> {
        self.mark_backups_that_are(BackupStatus::ALL, ids, status, reason, now).await
    }

    /// The same, for those that still are what they were taken for; the others became something else meanwhile.
    pub async fn mark_backups_that_are(
        &self,
        was: &[BackupStatus],
        ids: &[String],
        status: BackupStatus,
        reason: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let (ids, was) = (json(&ids), json(&was));
        let ended = matches!(status, BackupStatus::Expired | BackupStatus::Lost);
        self.write("marking backups", async |conn| {
            sqlx::query(
                "update backups set status = ?, status_reason = ?, expired_at = ?
                  where id in (select value from json_each(?)) and status in (select value from json_each(?))",
            )
            .bind(status.as_str())
            .bind(reason)
            .bind(ended.then_some(millis(now)))
            .bind(&ids)
            .bind(&was)
            .execute(conn)
            .await?;
            Ok(())
        })
        .await
    }

    /// Ends a backup as long as nobody holds it and it still is what it was taken for; tells whether it did. Nothing is
    /// said of its copies any more, in the same step: from now on each may be half deleted.
    pub async fn end_backup(&self, id: &str, was: BackupStatus, reason: &str, now: DateTime<Utc>) -> Result<bool> {
        self.write("ending a backup", async |conn| {
            let ended = sqlx::query(
                "update backups set status = 'expired', status_reason = ?,
                        expired_at = iif(status = 'expired', expired_at, ?)
                  where id = ? and (held is null or held_until <= ?) and status = ?",
            )
            .bind(reason)
            .bind(millis(now))
            .bind(id)
            .bind(millis(now))
            .bind(was.as_str())
            .execute(&mut *conn)
            .await?;
            if ended.rows_affected() == 0 {
                return Ok(false);
            }
            dumps::doubt_copies(conn, id, "its deletion was begun").await?;
            Ok(true)
        })
        .await
    }

    /// Keeps a backup until a moment, or until `who` or another releases it. Returns the new head of the audit; none:
    /// there is no such backup, or it was ended.
    pub async fn hold(
        &self,
        id: &str,
        reason: &str,
        until: Option<DateTime<Utc>>,
        who: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<String>> {
        let told =
            until.map_or_else(|| reason.to_owned(), |until| format!("{reason}, until {}", until.format("%F %T UTC")));
        self.set_hold(id, Some((reason, until)), ("hold", &told), who, now).await
    }

    /// Ends a hold. Returns the new head of the audit; none: there is no such backup.
    pub async fn release(&self, id: &str, why: &str, who: &str, now: DateTime<Utc>) -> Result<Option<String>> {
        self.set_hold(id, None, ("release", why), who, now).await
    }

    async fn set_hold(
        &self,
        id: &str,
        held: Option<(&str, Option<DateTime<Utc>>)>,
        (action, detail): (&'static str, &str),
        who: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<String>> {
        self.write("holding a backup", async |conn| {
            // What was ended may be half gone; a hold of it would promise too much.
            let sql = "update backups set held = ?1, held_until = ?2
                        where id = ?3 and (?1 is null or status <> 'expired') returning database";
            let database: Option<String> = sqlx::query_scalar(sql)
                .bind(held.map(|(reason, _)| reason))
                .bind(held.and_then(|(_, until)| until).map(millis))
                .bind(id)
                .fetch_optional(&mut *conn)
                .await?;
            let Some(database) = database else { return Ok(None) };
            audit::append(conn, who, action, &format!("{database} {id}"), detail, now).await.map(Some)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing::{at, backup as some, catalog, dump};

    #[tokio::test]
    async fn what_ended_leaves_the_list_with_its_reason_and_stays_known() {
        let (_dir, catalog) = catalog().await;
        let orders = "orders".parse().unwrap();
        let one = catalog.record_backup(&some("orders", "20260101-000000F", 100)).await.unwrap();
        let two = catalog.record_backup(&some("orders", "20260102-000000F", 200)).await.unwrap();
        catalog.record_backup(&some("stock", "20260102-000000F", 300)).await.unwrap();
        let reason = Some("beyond full = 1");
        catalog.mark_backups(std::slice::from_ref(&one), BackupStatus::Expired, reason, at(900)).await.unwrap();
        let live: Vec<String> = catalog.backups(&orders).await.unwrap().into_iter().map(|b| b.id).collect();
        assert_eq!(live, [two]);
        let gone = catalog.backup(&one).await.unwrap().unwrap();
        assert_eq!((gone.expired_reason.as_deref(), gone.expired_at), (reason, Some(at(900))));
    }

    #[tokio::test]
    async fn a_verdict_does_not_reach_what_became_something_else_meanwhile() {
        let (_dir, catalog) = catalog().await;
        let one = catalog.record_backup(&some("orders", "20260101-000000F", 100)).await.unwrap();
        let two = catalog.record_backup(&some("orders", "20260102-000000F", 200)).await.unwrap();
        let both = [one.clone(), two.clone()];
        let expired = Some("beyond full = 1");
        catalog.mark_backups(&both[..1], BackupStatus::Expired, expired, at(900)).await.unwrap();
        let was = [BackupStatus::Good, BackupStatus::Damaged];
        catalog.mark_backups_that_are(&was, &both, BackupStatus::Lost, Some("gone"), at(950)).await.unwrap();
        let found = catalog.backup(&one).await.unwrap().unwrap();
        assert_eq!((found.status, found.expired_at), (BackupStatus::Expired, Some(at(900))));
        assert_eq!(catalog.backup(&two).await.unwrap().unwrap().status, BackupStatus::Lost);
    }

    #[tokio::test]
    async fn a_hold_wins_over_an_end_that_was_planned_before_it() {
        let (_dir, catalog) = catalog().await;
        let made = dump("shop", "backup-1", 500);
        catalog.record_dump(&made).await.unwrap();
        let end = async |was| catalog.end_backup("backup-1", was, "beyond full = 1", at(900)).await.unwrap();
        catalog.hold("backup-1", "audit", None, "ada", at(800)).await.unwrap();
        assert!(!end(BackupStatus::Good).await, "it is held");
        assert_eq!(catalog.backup("backup-1").await.unwrap().unwrap().dump, made.dump);
        catalog.release("backup-1", "done", "ada", at(801)).await.unwrap();
        assert!(!end(BackupStatus::Damaged).await, "it is not what it was planned as");
        assert!(end(BackupStatus::Good).await);
        assert_eq!(
            catalog.hold("backup-1", "audit", None, "ada", at(901)).await.unwrap(),
            None,
            "a hold comes too late"
        );
        assert!(!end(BackupStatus::Good).await, "it was ended already");
        assert!(end(BackupStatus::Expired).await, "and may go on");
        assert!(!catalog.end_backup("nothing", BackupStatus::Good, "x", at(900)).await.unwrap());
    }
}
