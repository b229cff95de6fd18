//! A bucket of an S3-compatible service as storage.
//!
//! Azure is not given by this client, and GCS only through its S3-compatible XML interface with HMAC keys. Services
//! differ: many ignore what they do not know, a condition or a lock as well as a checksum. So a lock counts when the
//! service tells it back, a file counts when its size does, and checksums in headers are sent only where they are asked
//! for: to AWS, and with locks. A newcomer would trust an answer of 200; here each upload ends with a question.
//!
//! The credentials need the rights to list, get, put and delete objects and to list and abort uploads; with versions also
//! to delete those, with locks also to put retention. Without the right to list, AWS calls a missing object forbidden.
//!
//! Until its end an upload is one of several parts that no listing shows, or is not sent at all (`upload.rs`). Parts grow
//! with the upload so that 10,000 of them make 5 TiB; up to 9 GiB they are all of 8 MiB, as some services demand.

mod client;
mod download;
mod failure;
mod lock;
mod upload;

use std::{fmt, sync::Arc};

use aws_sdk_s3::{Client, types::MultipartUpload};
use bytes::Bytes;
use chrono::{DateTime, Utc};

pub(super) use self::{download::Reading, upload::Writing};
use self::{
    failure::{Fault, explain},
    lock::Lock,
};
use super::{Error, Stored, directory_parts, parts};
use crate::policy::S3;

/// As many versions of one object are removed at most; we make one.
const MOST_VERSIONS: u32 = 100;
/// The field in which an object says by which upload it was made.
const MARK: &str = "backstop-upload";
/// What a check writes.
const CHECKED: &[u8] = b"Backstop was here to see that it may write, read and delete.\n";

/// A bucket as storage.
#[derive(Clone)]
pub(super) struct Bucket(Arc<Site>);

struct Site {
    name: String,
    settings: S3,
    client: Client,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client knows the credentials.
        f.debug_tuple("Bucket").field(&self.0.name).finish()
    }
}

/// What the service says of an object.
struct Found {
    size: u64,
    mark: Option<String>,
    lock: Option<Lock>,
    version: Option<String>,
}

impl Bucket {
    pub(super) fn open(name: &str, settings: &S3) -> Result<Self, Error> {
        let client = client::of(name, settings)?;
        Ok(Self(Arc::new(Site { name: name.to_owned(), settings: settings.clone(), client })))
    }

    pub(super) fn name(&self) -> &str {
        &self.0.name
    }

    pub(super) fn locate(&self, path: &str) -> String {
        format!("s3://{}/{}", self.0.settings.bucket, self.key(path))
    }

    pub(super) async fn check(&self) -> Result<(), Error> {
        let path = format!(".backstop-check-{}", uuid::Uuid::now_v7());
        if self.0.settings.object_lock.is_some() {
            lock::check_bucket(self).await?;
            return Writing::begin(self.clone(), &path, None).try_out(Bytes::from_static(CHECKED)).await;
        }
        let mut writing = Writing::begin(self.clone(), &path, None);
        match writing.write(Bytes::from_static(CHECKED)).await {
            Ok(()) => writing.finish().await?,
            Err(error) => {
                writing.discard().await;
                return Err(error);
            }
        }
        let back = self.read_whole(&path).await;
        self.remove_key(&path).await?;
        if back? == CHECKED { Ok(()) } else { Err(self.refused("it gives back something else than was written")) }
    }

    pub(super) async fn create(&self, path: &str, lock_until: Option<DateTime<Utc>>) -> Result<Writing, Error> {
        parts(self.name(), path)?;
        // The condition is sent at the end as well, but not every service obeys it.
        if self.head(path).await?.is_some() {
            return Err(self.taken(path));
        }
        let mode = self.0.settings.object_lock;
        let lock = mode.zip(lock_until).map(|(mode, until)| Lock { mode, until });
        Ok(Writing::begin(self.clone(), path, lock))
    }

    pub(super) async fn read(&self, path: &str) -> Result<Reading, Error> {
        parts(self.name(), path)?;
        Reading::open(self.clone(), path).await
    }

    pub(super) async fn list(&self, directory: &str) -> Result<Vec<Stored>, Error> {
        let prefix = self.prefix(directory)?;
        let request = self.0.client.list_objects_v2().bucket(&self.0.settings.bucket).prefix(&prefix);
        let mut pages = request.into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.explain(error))?;
            found.extend(page.contents().iter().filter_map(|object| {
                let path = object.key()?.strip_prefix(self.prefix("").ok()?.as_str())?;
                // A folder that a web console made, a check that a crash left.
                parts(self.name(), path).ok()?;
                Some(Stored { path: path.to_owned(), size: object.size().unwrap_or(0).unsigned_abs() })
            }));
        }
        found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    pub(super) async fn remove(&self, path: &str) -> Result<(), Error> {
        parts(self.name(), path)?;
        self.remove_key(path).await
    }

    pub(super) async fn sweep(&self, directory: &str) -> Result<u32, Error> {
        let mut count = 0;
        for upload in self.unfinished(&self.prefix(directory)?).await? {
            if let (Some(key), Some(id)) = (upload.key(), upload.upload_id()) {
                self.abort(key, id).await?;
                count += 1;
            }
        }
        Ok(count)
    }

    fn key(&self, path: &str) -> String {
        let prefix = &self.0.settings.prefix;
        if prefix.is_empty() { path.to_owned() } else { format!("{prefix}/{path}") }
    }

    /// What the keys below a directory begin with.
    fn prefix(&self, directory: &str) -> Result<String, Error> {
        let parts = directory_parts(self.name(), directory)?;
        let prefix = Some(self.0.settings.prefix.as_str()).filter(|prefix| !prefix.is_empty());
        Ok(prefix.into_iter().chain(parts).map(|part| format!("{part}/")).collect())
    }

    async fn unfinished(&self, prefix: &str) -> Result<Vec<MultipartUpload>, Error> {
        let mut found = Vec::new();
        let (mut key, mut id) = (None, None);
        loop {
            let request = self.0.client.list_multipart_uploads().bucket(&self.0.settings.bucket).prefix(prefix);
            let page = request.set_key_marker(key).set_upload_id_marker(id).send().await;
            let page = page.map_err(|error| self.explain(error))?;
            found.extend_from_slice(page.uploads());
            (key, id) = (page.next_key_marker, page.next_upload_id_marker);
            if page.is_truncated != Some(true) || key.is_none() {
                break;
            }
        }
        // Not every service looks at the prefix.
        found.retain(|upload| upload.key().is_some_and(|key| key.starts_with(prefix)));
        Ok(found)
    }

    async fn abort(&self, key: &str, id: &str) -> Result<(), Error> {
        let request = self.0.client.abort_multipart_upload().bucket(&self.0.settings.bucket).key(key).upload_id(id);
        match request.send().await.map_err(|error| self.fault(error)) {
            Err(fault) if !fault.is_missing() => Err(fault.error),
            _ => Ok(()),
        }
    }

    /// Asks for an object; none when there is nothing.
    async fn head(&self, path: &str) -> Result<Option<Found>, Error> {
        let request = self.0.client.head_object().bucket(&self.0.settings.bucket).key(self.key(path));
        match request.send().await.map_err(|error| self.fault(error)) {
            Ok(head) => Ok(Some(Found {
                size: head.content_length().unwrap_or(0).unsigned_abs(),
                mark: head.metadata().and_then(|fields| fields.get(MARK).cloned()),
                lock: Lock::told(head.object_lock_mode(), head.object_lock_retain_until_date()),
                version: head.version_id().filter(|version| *version != "null").map(str::to_owned),
            })),
            Err(fault) if fault.is_missing() => Ok(None),
            Err(fault) => Err(fault.error),
        }
    }

    /// Removes an object for good: in a bucket with versions each version, because deleting the name alone hides it and
    /// frees nothing.
    async fn remove_key(&self, path: &str) -> Result<(), Error> {
        for _ in 0..MOST_VERSIONS {
            let Some(found) = self.head(path).await? else { return Ok(()) };
            let request = self.0.client.delete_object().bucket(&self.0.settings.bucket).key(self.key(path));
            let request = request.set_version_id(found.version.clone());
            match request.send().await.map_err(|error| self.fault(error)) {
                Ok(_) if found.version.is_none() => return Ok(()),
                Ok(_) => {}
                Err(fault) => return self.hide(path, &found, fault).await,
            }
        }
        Err(self.refused(&format!("`{path}` has more versions than can be")))
    }

    /// Who may not delete versions may still delete the name, unless the object is locked: it then stays as it is.
    async fn hide(&self, path: &str, found: &Found, fault: Fault) -> Result<(), Error> {
        if let Some(lock) = found.lock.filter(|_| fault.is_denied()) {
            return Err(Error::Locked {
                storage: self.name().to_owned(),
                path: path.to_owned(),
                why: lock.to_string(),
            });
        }
        if !fault.is_denied() || found.version.is_none() || self.0.settings.object_lock.is_some() {
            return Err(fault.error);
        }
        let request = self.0.client.delete_object().bucket(&self.0.settings.bucket).key(self.key(path));
        request.send().await.map(drop).map_err(|error| self.explain(error))
    }

    async fn read_whole(&self, path: &str) -> Result<Vec<u8>, Error> {
        let mut reading = Reading::open(self.clone(), path).await?;
        let mut whole = Vec::new();
        while let Some(bytes) = reading.next().await? {
            whole.extend_from_slice(&bytes);
        }
        Ok(whole)
    }

    fn refused(&self, why: &str) -> Error {
        Error::Refused { storage: self.name().to_owned(), why: why.to_owned() }
    }

    fn unreachable(&self, why: &str) -> Error {
        Error::Unreachable { storage: self.name().to_owned(), why: why.to_owned() }
    }

    fn taken(&self, path: &str) -> Error {
        self.refused(&format!("`{}` is there already", self.locate(path)))
    }

    fn fault<E: failure::Answer>(&self, error: failure::Failed<E>) -> Fault {
        explain(self.name(), &self.0.settings.bucket, &error)
    }

    fn explain<E: failure::Answer>(&self, error: failure::Failed<E>) -> Error {
        self.fault(error).error
    }
}
