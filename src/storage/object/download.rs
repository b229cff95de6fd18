//! An object that is being read: a stream that is taken up again where it broke off.
//!
//! A newcomer would begin anew from the first byte, or read another object of the same name: what follows is asked for
//! by its place and by the tag of what was begun.

use aws_sdk_s3::{
    operation::get_object::GetObjectOutput,
    primitives::{ByteStream, ByteStreamError},
};
use bytes::{Bytes, BytesMut};

use super::{Bucket, Error, failure::root};

/// As much is gathered before it is handed on; the network brings small pieces.
const PIECE: usize = 256 * 1024;

/// An object that is being read.
#[derive(Debug)]
pub(crate) struct Reading {
    bucket: Bucket,
    path: String,
    tag: Option<String>,
    size: u64,
    at: u64,
    /// None when it broke off.
    body: Option<ByteStream>,
    /// How often it broke off since bytes came.
    broken: u32,
}

impl Reading {
    pub(super) async fn open(bucket: Bucket, path: &str) -> Result<Self, Error> {
        let mut reading = Self { bucket, path: path.to_owned(), tag: None, size: 0, at: 0, body: None, broken: 0 };
        let opened = reading.request().await?;
        reading.size = opened.content_length().unwrap_or(0).unsigned_abs();
        reading.tag = opened.e_tag().map(str::to_owned);
        reading.body = Some(opened.body);
        Ok(reading)
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while self.at < self.size {
            let piece = self.piece().await?;
            if !piece.is_empty() {
                self.at += piece.len() as u64;
                self.broken = 0;
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// Gathers what comes; nothing when it broke off before anything came and may be tried again.
    async fn piece(&mut self) -> Result<Bytes, Error> {
        if self.body.is_none() {
            self.body = Some(self.resume().await?);
        }
        let mut gathered = BytesMut::new();
        while gathered.len() < PIECE {
            match self.body.as_mut().expect("it was opened above").next().await {
                Some(Ok(bytes)) => gathered.extend_from_slice(&bytes),
                None if self.at + gathered.len() as u64 >= self.size => break,
                end => {
                    self.body = None;
                    if gathered.is_empty() {
                        self.give_up_in_time(end.and_then(Result::err).as_ref())?;
                    }
                    break;
                }
            }
        }
        Ok(gathered.freeze())
    }

    fn give_up_in_time(&mut self, cause: Option<&ByteStreamError>) -> Result<(), Error> {
        self.broken += 1;
        if self.broken < self.bucket.0.settings.attempts.max(1) {
            return Ok(());
        }
        let why = cause.map_or_else(|| "the connection was closed".to_owned(), |error| root(error));
        let why = format!("`{}` broke off after {} of {} bytes: {why}", self.path, self.at, self.size);
        Err(self.bucket.unreachable(&why))
    }

    async fn resume(&self) -> Result<ByteStream, Error> {
        let answer = self.request().await?;
        let range = answer.content_range().unwrap_or_default();
        if self.at > 0 && !range.starts_with(&format!("bytes {}-", self.at)) {
            let why = format!("`{}` broke off, and it cannot go on in the middle", self.path);
            return Err(self.bucket.unreachable(&why));
        }
        Ok(answer.body)
    }

    async fn request(&self) -> Result<GetObjectOutput, Error> {
        let settings = &self.bucket.0.settings;
        let request = self.bucket.0.client.get_object().bucket(&settings.bucket).key(self.bucket.key(&self.path));
        let request = request.set_if_match(self.tag.clone());
        let request = if self.at > 0 { request.range(format!("bytes={}-", self.at)) } else { request };
        request.send().await.map_err(|error| {
            let fault = self.bucket.fault(error);
            let (storage, path) = (self.bucket.name().to_owned(), self.path.clone());
            if fault.is_missing() { Error::NotFound { storage, path } } else { fault.error }
        })
    }
}
