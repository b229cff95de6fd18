//! `backstop hold` and `backstop release`: a backup stays whatever the rules say.
//!
//! The catalog decides. For a dump the hold also lies beside it, as `hold.json`, so that a catalog that is rebuilt from
//! the storages knows it; a storage that cannot be written to is named, and is no reason to refuse. A newcomer would put
//! it into the manifest, which is written once and signed.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::info;

use super::{
    Answer,
    moment::{Moment, moment},
    session::{Session, catalog_error},
    show,
};
use crate::{
    clock,
    error::{Error, ExitCode, chain},
    policy::Policy,
    record::{Backup, BackupStatus, CopyState, Dump, HOLD},
    report::text,
    storage::{self, Storage},
};

/// What may be asked of `hold`.
#[derive(Debug, clap::Args)]
pub(super) struct HoldOptions {
    /// A backup by its id, name or label
    id: String,
    /// Why it must stay
    #[arg(long, value_parser = reason)]
    reason: String,
    /// Until when: a length like `90d`, a day or a time (RFC 3339); until released when left out
    #[arg(long, value_name = "LENGTH|TIME", value_parser = moment)]
    until: Option<Moment>,
}

/// What may be asked of `release`.
#[derive(Debug, clap::Args)]
pub(super) struct ReleaseOptions {
    /// A backup by its id, name or label
    id: String,
    /// Why it need not stay any more
    #[arg(long, default_value = "no reason given")]
    reason: String,
}

fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() { Err("say why, e.g. `--reason \"audit of 2026\"`".to_owned()) } else { Ok(text.to_owned()) }
}

/// The hold as it lies beside a dump.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Beside {
    /// The backup.
    backup_id: String,
    /// Why, and by whom, as the catalog has it.
    pub(super) held: String,
    /// Since when.
    held_at: DateTime<Utc>,
    /// Until when; none: until somebody releases it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) held_until: Option<DateTime<Utc>>,
}

pub(super) async fn hold(session: &Session, options: &HoldOptions) -> Result<Answer, Error> {
    let policy = session.policy()?;
    let catalog = session.write_catalog(&policy).await?;
    let backup = show::find(&catalog, &options.id).await?;
    if backup.status == BackupStatus::Expired {
        return Err(ended(&backup));
    }
    let now = clock::now();
    let zone = policy.daemon.timezone;
    let until = options.until.map(|until| until.after(now, zone));
    if let Some(over) = until.filter(|until| *until <= now) {
        let what = format!("a hold until {} would be over already", text::local(over, zone));
        return Err(Error::new(ExitCode::Usage, what).hint("Name a later time, or leave out `--until`."));
    }
    ends_later(&backup, until, now)?;
    let held = format!("{} (by {})", options.reason, session.actor);
    // What it is held for already goes on.
    let held = backup.held_at(now).map_or_else(|| held.clone(), |before| format!("{held}; {before}"));
    let head = catalog.hold(&backup.id, &held, until, &session.witness, now).await.map_err(catalog_error)?;
    // It may have been ended since it was read.
    let head = head.ok_or_else(|| ended(&backup))?;
    info!(backup = %backup.id, audit = head, "audit: hold: {held}");
    let beside = Beside { backup_id: backup.id.clone(), held: held.clone(), held_at: now, held_until: until };
    let missed = each_copy(&policy, &backup, async |storage, path| put(storage, path, &beside).await).await;
    let end = until.map_or_else(String::new, |until| format!(" until {}", text::local(until, zone)));
    let text = told(format!("{} is held{end}: {held}", backup.id), &missed);
    let result = json!({ "backup_id": backup.id, "held": held, "held_until": until, "not_beside": missed });
    Ok(Answer::new("hold", result, text.clone(), text))
}

/// A second hold may not shorten what somebody else relies on.
fn ends_later(backup: &Backup, until: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Result<(), Error> {
    let Some(why) = backup.held_at(now) else { return Ok(()) };
    let is_shorter = until.is_some_and(|until| backup.held_until.is_none_or(|held| until < held));
    if !is_shorter {
        return Ok(());
    }
    let what = format!("`{}` is held longer already: {why}", backup.id);
    Err(Error::new(ExitCode::Configuration, what)
        .hint(format!("`backstop release {}` ends that hold first.", backup.id)))
}

fn ended(backup: &Backup) -> Error {
    Error::new(ExitCode::Configuration, format!("`{}` was ended, so it cannot be held", backup.id))
        .hint(format!("`backstop show {}` says why.", backup.id))
}

pub(super) async fn release(session: &Session, options: &ReleaseOptions) -> Result<Answer, Error> {
    let policy = session.policy()?;
    let catalog = session.write_catalog(&policy).await?;
    let backup = show::find(&catalog, &options.id).await?;
    let Some(held) = &backup.held else {
        let text = format!("{} is not held", backup.id);
        return Ok(Answer::new("release", json!({ "backup_id": backup.id, "was_held": null }), text.clone(), text));
    };
    let released = catalog.release(&backup.id, &options.reason, &session.witness, clock::now()).await;
    info!(backup = %backup.id, audit = released.map_err(catalog_error)?, "audit: release: {}", options.reason);
    let missed = each_copy(&policy, &backup, async |storage, path| storage.remove(path).await).await;
    let text = told(format!("{} is no longer held; it was for: {held}", backup.id), &missed);
    let result = json!({ "backup_id": backup.id, "was_held": held, "not_beside": missed });
    Ok(Answer::new("release", result, text.clone(), text))
}

/// Does something about the file beside each copy; tells where that failed.
async fn each_copy(
    policy: &Policy,
    backup: &Backup,
    work: impl AsyncFn(&Storage, &str) -> Result<(), storage::Error>,
) -> Vec<String> {
    let mut missed = Vec::new();
    for (name, path) in backup.dump.iter().flat_map(places) {
        let Some(storage) = policy.storages.get(name) else {
            missed.push(format!("storage `{name}` is not in the policy any more"));
            continue;
        };
        let done = match Storage::open_used(storage).await {
            Ok(storage) => work(&storage, &path).await,
            Err(error) => Err(error),
        };
        missed.extend(done.err().map(|error| chain(&error)));
    }
    missed
}

/// The copies that are there, or may be, with the path of the file beside each.
fn places(dump: &Dump) -> Vec<(&str, String)> {
    let there = |state| !matches!(state, CopyState::Failed | CopyState::Missing | CopyState::Deleted);
    let copies = dump.copies.iter().filter(|copy| there(copy.state));
    copies.map(|copy| (copy.storage.as_str(), format!("{}/{HOLD}", dump.directory))).collect()
}

/// Puts it in the place of an older one.
async fn put(storage: &Storage, path: &str, beside: &Beside) -> Result<(), storage::Error> {
    storage.remove(path).await?;
    let mut upload = storage.create(path, None).await?;
    match upload.write(Bytes::from(format!("{:#}\n", json!(beside)))).await {
        Ok(()) => upload.finish().await,
        Err(error) => {
            upload.discard().await;
            Err(error)
        }
    }
}

fn told(what: String, missed: &[String]) -> String {
    if missed.is_empty() {
        return what;
    }
    format!("{what}\nonly the catalog knows it where this failed: {}", missed.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::backup::tests::dump;

    #[test]
    fn a_second_hold_never_shortens_the_first() {
        let at = |day| DateTime::UNIX_EPOCH + chrono::TimeDelta::days(day);
        let held = |until| Backup { held: Some("audit".to_owned()), held_until: until, ..dump() };
        let may = |backup: &Backup, until| ends_later(backup, until, at(5)).is_ok();
        assert!(may(&Backup { held: None, ..dump() }, Some(at(6))));
        assert!(!may(&held(None), Some(at(9000))), "nobody said when the first ends");
        assert!(!may(&held(Some(at(9))), Some(at(8))) && may(&held(Some(at(9))), Some(at(10))));
        assert!(may(&held(Some(at(9))), None) && may(&held(Some(at(4))), Some(at(6))), "longer, or over by now");
    }

    #[test]
    fn a_hold_needs_a_reason() {
        assert_eq!(reason(" audit "), Ok("audit".to_owned()));
        assert!(reason("  ").unwrap_err().contains("--reason"));
    }

    #[test]
    fn a_hold_lies_beside_every_copy_that_may_be_there() {
        let mut dump = dump().dump.unwrap();
        assert_eq!(places(&dump).len(), 2, "a damaged copy too");
        dump.copies[0].state = CopyState::Missing;
        assert_eq!(places(&dump), [("local", "shop/backup-20270115-080010-pre/hold.json".to_owned())]);
    }
}
