//! What the client's errors mean: who must do what, without the five layers that the client wraps around it.
//!
//! A newcomer would show the client's own message; that is "service error" or "dispatch failure".

use std::error::Error as StdError;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::Error;

/// As much of what a service says is repeated.
const LONGEST: usize = 300;

/// How a request failed.
pub(super) type Failed<E> = SdkError<E>;

/// An error that a service answered with.
pub(super) trait Answer: ProvideErrorMetadata + StdError + Send + Sync + 'static {}

impl<E: ProvideErrorMetadata + StdError + Send + Sync + 'static> Answer for E {}

/// A failed request: the error, and what the service answered.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) error: Error,
    status: u16,
    code: String,
}

impl Fault {
    /// There is no such object or upload; a missing bucket is another matter.
    pub(super) fn is_missing(&self) -> bool {
        self.status == 404 && self.code != "NoSuchBucket"
    }

    pub(super) fn is_denied(&self) -> bool {
        self.status == 403
    }

    /// The condition of a write does not hold: something is there.
    pub(super) fn is_taken(&self) -> bool {
        self.status == 412
    }

    /// The service does not know what we ask for.
    pub(super) fn is_unknown(&self) -> bool {
        self.status == 501
    }
}

/// Reads a failed request.
pub(super) fn explain<E: Answer>(storage: &str, bucket: &str, failed: &Failed<E>) -> Fault {
    let unreachable = |why: String| Error::Unreachable { storage: storage.to_owned(), why };
    let (error, status, code) = match failed {
        SdkError::ServiceError(answer) => {
            let (status, code) = (answer.raw().status().as_u16(), answer.err().code().unwrap_or_default());
            let said = answer.err().message().unwrap_or_default();
            (answered(storage, bucket, status, code, said), status, code)
        }
        SdkError::ResponseError(answer) => {
            let status = answer.raw().status().as_u16();
            (unreachable(format!("what answers there does not speak S3 (HTTP {status}): {}", root(failed))), status, "")
        }
        SdkError::TimeoutError(_) => (unreachable("it did not answer in time".to_owned()), 0, ""),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => {
            (unreachable(format!("it did not answer in time: {}", root(failed))), 0, "")
        }
        SdkError::DispatchFailure(_) => (connection(storage, &root(failed)), 0, ""),
        _ => (Error::Refused { storage: storage.to_owned(), why: root(failed) }, 0, ""),
    };
    Fault { error, status, code: code.to_owned() }
}

/// A connection that failed because of what we trust will fail again.
fn connection(storage: &str, why: &str) -> Error {
    let storage = storage.to_owned();
    if why.contains("certificate") {
        return Error::Refused { storage, why: format!("its certificate is not trusted: {why}") };
    }
    Error::Unreachable { storage, why: why.to_owned() }
}

/// The innermost cause.
pub(super) fn root(error: &dyn StdError) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    shown(&innermost.to_string())
}

/// What an answer means.
fn answered(storage: &str, bucket: &str, status: u16, code: &str, said: &str) -> Error {
    let full =
        ["QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "StorageQuotaExceeded", "ServiceQuotaExceeded"];
    let what = [code, said].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ");
    let what = if what.is_empty() { format!("HTTP {status}") } else { shown(&what) };
    let storage = storage.to_owned();
    if status == 507 || full.contains(&code) {
        return Error::Full { storage };
    }
    let why = match code {
        "NoSuchBucket" => format!("the bucket `{bucket}` does not exist"),
        "InvalidAccessKeyId" => "it does not know the access key".to_owned(),
        "SignatureDoesNotMatch" => {
            "the signature is wrong: the secret key does not belong to the access key".to_owned()
        }
        "ExpiredToken" | "InvalidToken" => format!("the session token is not valid any more ({code})"),
        "RequestTimeTooSkewed" => "the clock of this host differs too much from its own".to_owned(),
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
            format!("the bucket `{bucket}` is in another region: {what}")
        }
        "AccessDenied" => format!("access to the bucket `{bucket}` is denied: {what}"),
        _ if status == 403 => format!("access to the bucket `{bucket}` is denied ({what})"),
        // 408, 409 and 429 are about the moment, not about us.
        _ if status >= 500 && status != 501 || [408, 409, 429].contains(&status) => {
            return Error::Unreachable { storage, why: format!("it fails: {what}") };
        }
        _ => what,
    };
    Error::Refused { storage, why }
}

/// One line, not too long.
fn shown(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_who_must_do_what() {
        let said = |status, code, said| answered("far", "shop", status, code, said).to_string();
        let table = [
            said(404, "NoSuchBucket", "The specified bucket does not exist"),
            said(403, "AccessDenied", "User: x is not authorized to perform: s3:PutObject"),
            said(403, "", ""),
            said(403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist"),
            said(403, "SignatureDoesNotMatch", "The request signature we calculated …"),
            said(403, "RequestTimeTooSkewed", ""),
            said(301, "PermanentRedirect", "use another endpoint"),
            said(507, "", ""),
            said(403, "QuotaExceeded", "no more"),
            said(503, "SlowDown", "Please reduce your request rate."),
            said(400, "InvalidStorageClass", "no\nsuch class"),
        ];
        insta::assert_snapshot!(table.join("\n"), @"
        storage `far` refuses: the bucket `shop` does not exist
        storage `far` refuses: access to the bucket `shop` is denied: AccessDenied: User: x is not authorized to perform: s3:PutObject
        storage `far` refuses: access to the bucket `shop` is denied (HTTP 403)
        storage `far` refuses: it does not know the access key
        storage `far` refuses: the signature is wrong: the secret key does not belong to the access key
        storage `far` refuses: the clock of this host differs too much from its own
        storage `far` refuses: the bucket `shop` is in another region: PermanentRedirect: use another endpoint
        storage `far` is full
        storage `far` is full
        storage `far` cannot be reached: it fails: SlowDown: Please reduce your request rate.
        storage `far` refuses: InvalidStorageClass: no such class
        ");
    }

    #[test]
    fn the_innermost_cause_is_told_in_one_line() {
        #[derive(Debug, thiserror::Error)]
        #[error("dispatch failure")]
        struct Outer(#[source] std::io::Error);
        assert_eq!(root(&Outer(std::io::Error::other("connection\nrefused"))), "connection refused");
    }
}
