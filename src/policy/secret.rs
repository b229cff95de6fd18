//! Secrets by reference: the policy names a file, an environment variable or a systemd credential, never the secret.
//!
//! A reference is read again before each attempt, so that a rotated secret works without a restart. A newcomer would
//! keep the value; it lives only as long as the command that needs it.

use std::{fmt, fs, path::PathBuf, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A secret's value. It shows itself as `***` and never serializes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one who hands it to a tool.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a secret is: `file:/path`, `env:NAME` or `credential:NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum SecretRef {
    /// The first line of a file that only its owner may read.
    File(PathBuf),
    /// An environment variable of the daemon.
    Env(String),
    /// A systemd credential (`LoadCredential=` in the unit).
    Credential(String),
}

/// Why a secret could not be read; never holds the secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The text names no place.
    #[error("`{0}` is no reference to a secret: write `file:/path`, `env:NAME` or `credential:NAME`")]
    NoReference(String),
    /// The file cannot be read.
    #[error("the secret file `{}` cannot be read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others may read the file.
    #[error("the secret file `{}` may be read by others (mode {mode:04o}): run `chmod 0600` on it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The variable is not set.
    #[error("the environment variable `{0}` is not set")]
    Env(String),
    /// There is no credentials directory.
    #[error("the systemd credential `{0}` is not available: credentials exist only inside the running service")]
    NoCredentials(String),
    /// Nothing is in it.
    #[error("the secret {0} is empty")]
    Empty(SecretRef),
}

impl SecretRef {
    /// Reads the secret now.
    ///
    /// # Errors
    /// When it cannot be read, is empty, or its file is readable by others.
    pub fn read(&self) -> Result<Secret, SecretError> {
        let Secret(mut value) = self.read_line()?;
        value.truncate(value.strip_suffix('\r').unwrap_or(&value).len());
        if value.is_empty() { Err(SecretError::Empty(self.clone())) } else { Ok(Secret(value)) }
    }

    /// The same with the carriage return of a line that ends as on Windows, which other tools may keep.
    pub(crate) fn read_line(&self) -> Result<Secret, SecretError> {
        let value = match self {
            SecretRef::File(path) => read_private(path.clone())?,
            SecretRef::Env(name) => std::env::var(name).map_err(|_| SecretError::Env(name.clone()))?,
            SecretRef::Credential(name) => {
                let directory = std::env::var_os("CREDENTIALS_DIRECTORY")
                    .ok_or_else(|| SecretError::NoCredentials(name.clone()))?;
                read_private(PathBuf::from(directory).join(name))?
            }
        };
        let value = value.split('\n').next().unwrap_or_default().to_owned();
        if value.is_empty() { Err(SecretError::Empty(self.clone())) } else { Ok(Secret(value)) }
    }
}

/// Reads a whole file that only its owner and group may read.
pub(crate) fn read_private(path: PathBuf) -> Result<String, SecretError> {
    use std::os::unix::fs::MetadataExt;
    let failed = |source| SecretError::File { path: path.clone(), source };
    let mode = fs::metadata(&path).map_err(failed)?.mode() & 0o7777;
    // Group read is how a file is shared with the service's group; anything for others is a leak.
    if mode & 0o027 != 0 {
        return Err(SecretError::Exposed { path, mode });
    }
    fs::read_to_string(&path).map_err(failed)
}

impl FromStr for SecretRef {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        let no_reference = || SecretError::NoReference(shown(text));
        let (kind, rest) = text.split_once(':').ok_or_else(no_reference)?;
        match kind {
            "file" if rest.starts_with('/') => Ok(SecretRef::File(rest.into())),
            "env" if !rest.is_empty() => Ok(SecretRef::Env(rest.to_owned())),
            "credential" if !rest.is_empty() && !rest.contains('/') => Ok(SecretRef::Credential(rest.to_owned())),
            _ => Err(no_reference()),
        }
    }
}

/// What may be repeated of a text that is not a reference: somebody may have typed the secret itself.
fn shown(text: &str) -> String {
    if text.starts_with('/') { text.to_owned() } else { "***".to_owned() }
}

impl TryFrom<String> for SecretRef {
    type Error = SecretError;

    fn try_from(text: String) -> Result<Self, SecretError> {
        text.parse()
    }
}

impl From<SecretRef> for String {
    fn from(reference: SecretRef) -> String {
        reference.to_string()
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretRef::File(path) => write!(f, "file:{}", path.display()),
            SecretRef::Env(name) => write!(f, "env:{name}"),
            SecretRef::Credential(name) => write!(f, "credential:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_typed_into_the_policy_is_not_repeated() {
        let error = "hunter2".parse::<SecretRef>().unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "***");
    }

    #[test]
    fn a_file_is_read_anew_each_time_and_only_when_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, "one\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let reference: SecretRef = format!("file:{}", path.display()).parse().unwrap();
        assert_eq!(reference.read().unwrap().expose(), "one");
        fs::write(&path, "two\n").unwrap();
        assert_eq!(reference.read().unwrap().expose(), "two");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(reference.read(), Err(SecretError::Exposed { mode: 0o644, .. })));
    }
}
