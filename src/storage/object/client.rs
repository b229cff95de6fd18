//! The client of a bucket: whom it trusts, how it signs, how patient it is.
//!
//! A newcomer would bound each request by `timeout` alone. That is right for questions, and downloads are watched for
//! progress by it; but an upload is silent until it has arrived, so it has the time that its size needs on a slow line.

use std::{fs, path::Path, time::Duration};

use aws_credential_types::Credentials;
use aws_sdk_s3::{
    Client,
    config::{
        BehaviorVersion, Builder, Config, Region, RequestChecksumCalculation, ResponseChecksumValidation,
        SharedHttpClient, StalledStreamProtectionConfig, retry::RetryConfig, timeout::TimeoutConfig,
    },
};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::Error;
use crate::policy::{S3, Secret, SecretRef};

const CONNECT: Duration = Duration::from_secs(10);
/// The slowest upload that is waited for, in bytes a second.
const SLOWEST: u64 = 256 * 1024;

pub(super) fn of(name: &str, settings: &S3) -> Result<Client, Error> {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(settings.region.clone()))
        .credentials_provider(credentials(name, settings)?)
        .http_client(http(name, settings.ca_file.as_deref())?)
        .force_path_style(settings.path_style)
        .retry_config(RetryConfig::standard().with_max_attempts(settings.attempts.max(1)))
        .timeout_config(timeouts(settings.timeout))
        .stalled_stream_protection(
            StalledStreamProtectionConfig::enabled().upload_enabled(true).grace_period(settings.timeout).build(),
        )
        // Other services than AWS refuse checksums they do not know, or store them with the data.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    let config = match &settings.endpoint {
        Some(endpoint) => config.endpoint_url(endpoint),
        None => config,
    };
    Ok(Client::from_conf(config.build()))
}

/// The patience for a request that carries so many bytes.
pub(super) fn patience(settings: &S3, bytes: usize) -> Builder {
    let sending = Duration::from_secs(bytes as u64 / SLOWEST);
    Config::builder().timeout_config(timeouts(settings.timeout + sending))
}

pub(super) fn timeouts(silence: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT).read_timeout(silence).build()
}

/// What the policy names, else what the environment of the service holds.
fn credentials(name: &str, settings: &S3) -> Result<Credentials, Error> {
    let read =
        |reference: &SecretRef| reference.read().map_err(|source| Error::Secret { storage: name.to_owned(), source });
    let named = |reference: &Option<SecretRef>, variable: &str| {
        read(reference.as_ref().unwrap_or(&SecretRef::Env(variable.to_owned())))
    };
    let access = named(&settings.access_key, "AWS_ACCESS_KEY_ID")?;
    let secret = named(&settings.secret_key, "AWS_SECRET_ACCESS_KEY")?;
    let token: Option<Secret> = match &settings.session_token {
        Some(reference) => Some(read(reference)?),
        // The environment's token belongs to the environment's keys.
        None if settings.access_key.is_none() => SecretRef::Env("AWS_SESSION_TOKEN".to_owned()).read().ok(),
        None => None,
    };
    let token = token.map(|token| token.expose().to_owned());
    Ok(Credentials::new(access.expose(), secret.expose(), token, None, "backstop"))
}

fn http(name: &str, ca_file: Option<&Path>) -> Result<SharedHttpClient, Error> {
    let trusted = match ca_file {
        Some(path) => TrustStore::empty().with_pem_certificate(authorities(name, path)?),
        None => TrustStore::default(),
    };
    let context = TlsContext::builder().with_trust_store(trusted).build();
    let context = context.map_err(|error| refused(name, format!("TLS cannot be set up: {error}")))?;
    let provider = Provider::Rustls(CryptoMode::AwsLc);
    Ok(aws_smithy_http_client::Builder::new().tls_provider(provider).tls_context(context).build_https())
}

/// The client panics over a file it cannot use, so it gets one that was looked at.
fn authorities(name: &str, path: &Path) -> Result<Vec<u8>, Error> {
    let bad = |why: String| refused(name, format!("the CA file `{}` cannot be used: {why}", path.display()));
    let text = fs::read(path).map_err(|error| bad(error.to_string()))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let added = certificate.map_err(|error| bad(error.to_string()))?;
        roots.add(added).map_err(|error| bad(error.to_string()))?;
    }
    if roots.is_empty() { Err(bad("it holds no certificate".to_owned())) } else { Ok(text) }
}

fn refused(name: &str, why: String) -> Error {
    Error::Refused { storage: name.to_owned(), why }
}
