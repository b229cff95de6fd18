//! Object lock: until when nobody can delete an object, asked for with the upload and believed when told back.
//!
//! A newcomer would ask for it and be content. Some services ignore the request, others forget it for uploads in parts;
//! what they forget is set once more, and what is not there then is an error.

use std::fmt;

use aws_sdk_s3::{
    primitives::DateTime as SdkTime,
    types::{ObjectLockEnabled, ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode},
};
use chrono::{DateTime, Utc};

use super::{Bucket, Error};
use crate::policy::ObjectLock;

/// A lock on an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lock {
    pub(super) mode: ObjectLock,
    pub(super) until: DateTime<Utc>,
}

impl Lock {
    /// What a service tells of an object.
    pub(super) fn told(mode: Option<&ObjectLockMode>, until: Option<&SdkTime>) -> Option<Self> {
        let mode = match mode? {
            ObjectLockMode::Governance => ObjectLock::Governance,
            // A mode that we do not know is at least as strict as the one we know.
            _ => ObjectLock::Compliance,
        };
        DateTime::from_timestamp(until?.secs(), until?.subsec_nanos()).map(|until| Self { mode, until })
    }

    /// As a field of an upload.
    pub(super) fn mode(self) -> ObjectLockMode {
        match self.mode {
            ObjectLock::Governance => ObjectLockMode::Governance,
            ObjectLock::Compliance => ObjectLockMode::Compliance,
        }
    }

    /// Its end, in whole seconds: services keep no less.
    pub(super) fn end(self) -> SdkTime {
        let rounds_up = i64::from(self.until.timestamp_subsec_nanos() > 0);
        SdkTime::from_secs(self.until.timestamp() + rounds_up)
    }

    /// Whether what was told is as strict and as long as this.
    fn is_kept_by(self, told: Option<Lock>) -> bool {
        let is_as_strict = |told: Lock| told.mode == self.mode || told.mode == ObjectLock::Compliance;
        told.is_some_and(|told| is_as_strict(told) && told.until >= self.until)
    }

    fn retention(self) -> ObjectLockRetention {
        let mode = match self.mode {
            ObjectLock::Governance => ObjectLockRetentionMode::Governance,
            ObjectLock::Compliance => ObjectLockRetentionMode::Compliance,
        };
        ObjectLockRetention::builder().mode(mode).retain_until_date(self.end()).build()
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            ObjectLock::Governance => "governance",
            ObjectLock::Compliance => "compliance",
        };
        write!(f, "{mode} mode until {}", self.until.format("%Y-%m-%d %H:%M:%S UTC"))
    }
}

/// Sees to it that an object is locked, whatever became of the request that came with its upload.
pub(super) async fn ensure(bucket: &Bucket, path: &str, lock: Lock, told: Option<Lock>) -> Result<(), Error> {
    if lock.is_kept_by(told) {
        return Ok(());
    }
    let request = bucket.0.client.put_object_retention().bucket(&bucket.0.settings.bucket).key(bucket.key(path));
    let set = request.retention(lock.retention()).send().await.map_err(|error| bucket.explain(error));
    let told = bucket.head(path).await?.and_then(|found| found.lock);
    if lock.is_kept_by(told) {
        return Ok(());
    }
    let said = set.err().map_or_else(String::new, |error| format!(" ({error})"));
    Err(bucket.refused(&format!("the lock of `{path}` in {lock} could not be confirmed{said}")))
}

/// Finds a bucket that cannot lock before anything is written. Who may not ask learns it with the first upload.
pub(super) async fn check_bucket(bucket: &Bucket) -> Result<(), Error> {
    let no_lock = || bucket.refused(&format!("the bucket `{}` has no object lock", bucket.0.settings.bucket));
    let request = bucket.0.client.get_object_lock_configuration().bucket(&bucket.0.settings.bucket);
    match request.send().await.map_err(|error| bucket.fault(error)) {
        Ok(answer) => {
            let enabled = answer.object_lock_configuration().and_then(|found| found.object_lock_enabled());
            if enabled == Some(&ObjectLockEnabled::Enabled) { Ok(()) } else { Err(no_lock()) }
        }
        Err(fault) if fault.is_missing() => Err(no_lock()),
        Err(fault) if fault.is_denied() || fault.is_unknown() => Ok(()),
        Err(fault) => Err(fault.error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(mode: ObjectLock, millis: i64) -> Lock {
        Lock { mode, until: DateTime::from_timestamp_millis(millis).unwrap() }
    }

    #[test]
    fn a_lock_is_kept_by_one_that_is_as_strict_and_as_long() {
        let asked = lock(ObjectLock::Governance, 1_000);
        assert!(asked.is_kept_by(Some(lock(ObjectLock::Governance, 1_000))));
        assert!(asked.is_kept_by(Some(lock(ObjectLock::Compliance, 2_000))));
        assert!(!asked.is_kept_by(Some(lock(ObjectLock::Governance, 999))));
        assert!(!asked.is_kept_by(None));
        assert!(!lock(ObjectLock::Compliance, 1_000).is_kept_by(Some(asked)));
    }

    #[test]
    fn the_end_is_never_before_what_was_asked_for() {
        assert_eq!(lock(ObjectLock::Compliance, 1_001).end().secs(), 2);
        assert_eq!(lock(ObjectLock::Compliance, 1_000).end().secs(), 1);
    }
}
