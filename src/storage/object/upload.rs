//! An object that is being written: one request when it is small, else parts, two of them on their way at a time.
//!
//! A part stays in memory until it has arrived, because it may have to be sent again: 24 MiB for an upload up to 8 GiB,
//! 32 MiB up to 80 GiB. Beyond that the parts grow, since there are 10,000 numbers for them.
//!
//! The object bears the mark of its upload, so that an answer that was lost can be told from somebody else's object: the
//! client asks again, and the second time is told that something is there. A newcomer would take that for a collision.

use aws_sdk_s3::types::{
    ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, ServerSideEncryption, StorageClass,
};
use bytes::{Bytes, BytesMut};
use tokio::task::JoinSet;

use super::{Bucket, Error, MARK, client, failure::Fault, lock, lock::Lock};

/// The first parts. Every service takes 5 MiB, some want all parts to be of one size.
const FIRST_PART: u64 = 8 * 1024 * 1024;
/// How far the first parts go.
const FIRST_END: u64 = 8 << 30;
/// The parts after them, and how far they go.
const SECOND_PART: u64 = 16 * 1024 * 1024;
const SECOND_END: u64 = 80 << 30;
/// From then on a part is this share of what is there already; 10,000 parts are 5 TiB so.
const SHARE: u64 = 1024;
/// Some services copy the parts together at the end, and say nothing meanwhile.
const COMPLETION: u32 = 10;

/// An object that is being written.
#[derive(Debug)]
pub(crate) struct Writing {
    bucket: Bucket,
    path: String,
    mark: String,
    lock: Option<Lock>,
    gathered: BytesMut,
    size: u64,
    /// The service's name of an upload in parts.
    id: Option<String>,
    sent: i32,
    flying: JoinSet<Result<CompletedPart, Error>>,
    landed: Vec<CompletedPart>,
}

/// The request that makes an object visible.
enum Last {
    /// All of a small object.
    Whole(Bytes),
    /// The end of an upload in parts.
    Completion,
}

/// The length of the part that begins after so many bytes.
fn part_size(begin: u64) -> usize {
    let size = match begin {
        ..FIRST_END => FIRST_PART,
        FIRST_END..SECOND_END => SECOND_PART,
        SECOND_END.. => begin / SHARE,
    };
    usize::try_from(size).expect("a part is some gigabytes at most")
}

impl Writing {
    pub(super) fn begin(bucket: Bucket, path: &str, lock: Option<Lock>) -> Self {
        Self {
            bucket,
            path: path.to_owned(),
            mark: uuid::Uuid::now_v7().to_string(),
            lock,
            gathered: BytesMut::new(),
            size: 0,
            id: None,
            sent: 0,
            flying: JoinSet::new(),
            landed: Vec::new(),
        }
    }

    pub(crate) async fn write(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        while !bytes.is_empty() {
            let full = part_size(self.size - self.gathered.len() as u64);
            if self.gathered.capacity() == 0 {
                self.gathered.reserve(full);
            }
            let piece = bytes.split_to(bytes.len().min(full - self.gathered.len()));
            self.gathered.extend_from_slice(&piece);
            self.size += piece.len() as u64;
            if self.gathered.len() == full {
                self.send_part().await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn finish(mut self) -> Result<(), Error> {
        if let Err(error) = self.send_rest().await {
            self.retract().await;
            return Err(error);
        }
        let confirmed = self.confirm().await;
        if confirmed.is_err() {
            // It is visible but not what it should be. What cannot be removed now is found by who lists.
            let _ = self.bucket.remove_key(&self.path).await;
        }
        confirmed
    }

    pub(crate) async fn discard(mut self) {
        // A part that arrives after the upload was dropped would stay.
        self.flying.shutdown().await;
        if let Some(id) = &self.id {
            // What cannot be dropped now is swept later; a service that is gone holds nobody up.
            let key = self.bucket.key(&self.path);
            let _ = tokio::time::timeout(self.bucket.0.settings.timeout, self.bucket.abort(&key, id)).await;
        }
    }

    /// Discards it, and removes what may be visible although the service did not say so.
    async fn retract(self) {
        let (bucket, path, mark) = (self.bucket.clone(), self.path.clone(), self.mark.clone());
        self.discard().await;
        let removal = async {
            if bucket.head(&path).await?.is_some_and(|found| found.mark == Some(mark)) {
                bucket.remove_key(&path).await?;
            }
            Ok::<(), Error>(())
        };
        let _ = tokio::time::timeout(bucket.0.settings.timeout, removal).await;
    }

    /// Sends a part and drops the upload: as much as can be tried where nothing could be removed again.
    pub(super) async fn try_out(mut self, bytes: Bytes) -> Result<(), Error> {
        self.gathered.extend_from_slice(&bytes);
        let tried = match self.send_part().await {
            Ok(()) => self.land_all().await,
            failed => failed,
        };
        self.discard().await;
        tried
    }

    async fn send_rest(&mut self) -> Result<(), Error> {
        if self.id.is_none() {
            let body = self.gathered.split().freeze();
            return self.once_or_plain(&Last::Whole(body)).await;
        }
        if !self.gathered.is_empty() {
            self.send_part().await?;
        }
        self.land_all().await?;
        self.landed.sort_unstable_by_key(|part| part.part_number);
        self.once_or_plain(&Last::Completion).await
    }

    /// Makes the object visible on the condition that nothing is there, and without it where the service does not know
    /// such a condition; that nothing was there at the beginning must do then.
    async fn once_or_plain(&self, last: &Last) -> Result<(), Error> {
        let mut sent = self.send_last(last, true).await;
        if sent.as_ref().is_err_and(Fault::is_unknown) {
            sent = self.send_last(last, false).await;
        }
        let Err(fault) = sent else { return Ok(()) };
        // The answer to an earlier attempt was lost, but it had arrived.
        if (fault.is_taken() || fault.is_missing()) && self.is_there().await? {
            return Ok(());
        }
        Err(if fault.is_taken() { self.bucket.taken(&self.path) } else { fault.error })
    }

    async fn send_last(&self, last: &Last, exclusive: bool) -> Result<(), Fault> {
        match last {
            Last::Whole(body) => self.put(body.clone(), exclusive).await,
            Last::Completion => self.complete(exclusive).await,
        }
    }

    async fn is_there(&self) -> Result<bool, Error> {
        let found = self.bucket.head(&self.path).await?;
        Ok(found.is_some_and(|found| found.mark.as_ref() == Some(&self.mark)))
    }

    async fn put(&self, body: Bytes, exclusive: bool) -> Result<(), Fault> {
        let settings = &self.bucket.0.settings;
        let patience = client::patience(settings, body.len());
        let request = self
            .bucket
            .0
            .client
            .put_object()
            .bucket(&settings.bucket)
            .key(self.bucket.key(&self.path))
            .body(body.into())
            .metadata(MARK, &self.mark)
            .set_if_none_match(exclusive.then(|| "*".to_owned()))
            .set_checksum_algorithm(self.checksum())
            .set_storage_class(self.storage_class())
            .set_server_side_encryption(self.encryption())
            .set_ssekms_key_id(settings.kms_key.clone())
            .set_object_lock_mode(self.lock.map(Lock::mode))
            .set_object_lock_retain_until_date(self.lock.map(Lock::end));
        let sent = request.customize().config_override(patience).send().await;
        sent.map(drop).map_err(|error| self.bucket.fault(error))
    }

    /// Begins an upload in parts; gives the service's name of it.
    async fn begin_parts(&self) -> Result<String, Error> {
        let settings = &self.bucket.0.settings;
        let request = self
            .bucket
            .0
            .client
            .create_multipart_upload()
            .bucket(&settings.bucket)
            .key(self.bucket.key(&self.path))
            .metadata(MARK, &self.mark)
            .set_checksum_algorithm(self.checksum())
            .set_storage_class(self.storage_class())
            .set_server_side_encryption(self.encryption())
            .set_ssekms_key_id(settings.kms_key.clone())
            .set_object_lock_mode(self.lock.map(Lock::mode))
            .set_object_lock_retain_until_date(self.lock.map(Lock::end));
        let begun = request.send().await.map_err(|error| self.bucket.explain(error))?;
        begun.upload_id.ok_or_else(|| self.bucket.refused("it gave no name to an upload"))
    }

    async fn send_part(&mut self) -> Result<(), Error> {
        let id = match &self.id {
            Some(id) => id.clone(),
            None => self.id.insert(self.begin_parts().await?).clone(),
        };
        let most = if self.gathered.len() as u64 > FIRST_PART { 1 } else { 2 };
        while self.flying.len() >= most {
            self.land().await?;
        }
        self.sent += 1;
        let (bucket, key) = (self.bucket.clone(), self.bucket.key(&self.path));
        let part = Part { id, number: self.sent, checksum: self.checksum(), body: self.gathered.split().freeze() };
        // The next part gets memory of its own; this one's is freed when it has arrived.
        self.gathered = BytesMut::new();
        self.flying.spawn(async move { part.send(&bucket, &key).await });
        Ok(())
    }

    async fn land_all(&mut self) -> Result<(), Error> {
        while !self.flying.is_empty() {
            self.land().await?;
        }
        Ok(())
    }

    async fn land(&mut self) -> Result<(), Error> {
        match self.flying.join_next().await {
            Some(Ok(part)) => self.landed.push(part?),
            Some(Err(_)) => return Err(self.bucket.unreachable("the program ends")),
            None => {}
        }
        Ok(())
    }

    async fn complete(&self, exclusive: bool) -> Result<(), Fault> {
        let settings = &self.bucket.0.settings;
        let parts = CompletedMultipartUpload::builder().set_parts(Some(self.landed.clone())).build();
        let request = self
            .bucket
            .0
            .client
            .complete_multipart_upload()
            .bucket(&settings.bucket)
            .key(self.bucket.key(&self.path))
            .set_upload_id(self.id.clone())
            .multipart_upload(parts)
            .set_if_none_match(exclusive.then(|| "*".to_owned()));
        let patience = client::timeouts(settings.timeout * COMPLETION);
        let config = aws_sdk_s3::config::Config::builder().timeout_config(patience);
        let sent = request.customize().config_override(config).send().await;
        sent.map(drop).map_err(|error| self.bucket.fault(error))
    }

    /// What was sent must be what is there.
    async fn confirm(&self) -> Result<(), Error> {
        let path = &self.path;
        let found = self.bucket.head(path).await?;
        let found = found.ok_or_else(|| self.bucket.refused(&format!("it took `{path}` and does not have it")))?;
        if found.size != self.size {
            let why = format!("it took {} bytes for `{path}` and has {}", self.size, found.size);
            return Err(self.bucket.refused(&why));
        }
        match self.lock {
            Some(wanted) => lock::ensure(&self.bucket, path, wanted, found.lock).await,
            None => Ok(()),
        }
    }

    /// AWS demands one with a lock; without, its own is one more chance to notice damage on the way.
    fn checksum(&self) -> Option<ChecksumAlgorithm> {
        let settings = &self.bucket.0.settings;
        (settings.endpoint.is_none() || settings.object_lock.is_some()).then_some(ChecksumAlgorithm::Crc32)
    }

    fn storage_class(&self) -> Option<StorageClass> {
        self.bucket.0.settings.storage_class.as_deref().map(StorageClass::from)
    }

    fn encryption(&self) -> Option<ServerSideEncryption> {
        self.bucket.0.settings.server_side_encryption.as_deref().map(ServerSideEncryption::from)
    }
}

/// A part on its way.
struct Part {
    id: String,
    number: i32,
    checksum: Option<ChecksumAlgorithm>,
    body: Bytes,
}

impl Part {
    async fn send(self, bucket: &Bucket, key: &str) -> Result<CompletedPart, Error> {
        let settings = &bucket.0.settings;
        let patience = client::patience(settings, self.body.len());
        let request = bucket
            .0
            .client
            .upload_part()
            .bucket(&settings.bucket)
            .key(key)
            .upload_id(self.id)
            .part_number(self.number)
            .set_checksum_algorithm(self.checksum)
            .body(self.body.into());
        let sent = request.customize().config_override(patience).send().await;
        let answer = sent.map_err(|error| bucket.explain(error))?;
        Ok(CompletedPart::builder()
            .part_number(self.number)
            .set_e_tag(answer.e_tag)
            .set_checksum_crc32(answer.checksum_crc32)
            .build())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_parts_are_five_terabytes_and_none_is_too_large() {
        let (mut total, mut count, mut largest) = (0, 0, 0);
        while total < 5 << 40 {
            largest = part_size(total) as u64;
            total += largest;
            count += 1;
        }
        assert!(count <= 10_000, "{count}");
        assert!(largest <= 5 << 30, "{largest}");
    }

    #[test]
    fn parts_stay_small_for_as_long_as_dumps_usually_are() {
        assert_eq!((part_size(0), part_size((8 << 30) - 1)), (8 << 20, 8 << 20));
        assert_eq!((part_size(8 << 30), part_size((80 << 30) - 1)), (16 << 20, 16 << 20));
    }
}
