//! Keys, and what they lock and open.
//!
//! With `age` a host needs only public keys to make backups, so that who takes it over cannot read them. With AES-256
//! the same passphrase locks and opens; `aes256.rs` says how, and how to do it by hand. Several identities in one file,
//! and several recipients of one key, are how keys are rotated: what is old stays readable.
//!
//! A newcomer would try a key and call a failure damage; whoever reads has compared the checksum of what is stored, so
//! bytes that are right and do not open are bytes of another key.

mod aes256;
mod generate;

use std::{
    fmt,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use age::{
    DecryptError,
    stream::StreamWriter,
    x25519::{Identity, Recipient},
};

pub(super) use self::aes256::{Hmac256, finish as finish_hmac};
pub use self::generate::{NewKey, generate};
use super::extract::{Stored, Trouble};
use crate::{
    error::{ExitCode, chain},
    policy::{Key, KeyKind, Secret, SecretError, read_private},
    record::{Encryption, EncryptionMethod, ErrorClass, Failure},
};

/// Why a key is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A passphrase cannot be read.
    #[error("the passphrase of key `{key}` cannot be read")]
    Secret {
        /// The key.
        key: String,
        /// Why.
        source: SecretError,
    },
    /// A passphrase is too weak, or other tools would read another one in its file.
    #[error("the passphrase of key `{key}` cannot be used: {why}")]
    Passphrase {
        /// The key.
        key: String,
        /// Why; never its text.
        why: &'static str,
    },
    /// A recipient is none.
    #[error("key `{key}`: `{recipient}` is no recipient of age")]
    Recipient {
        /// The key.
        key: String,
        /// The text.
        recipient: String,
    },
    /// The identity file cannot be used.
    #[error("the identity file `{}` of key `{key}` cannot be used: {why}", path.display())]
    Identity {
        /// The key.
        key: String,
        /// The file.
        path: PathBuf,
        /// Why; never its content.
        why: String,
    },
    /// No secret key is at hand.
    #[error("no secret key for `{key}` is on this host")]
    NoIdentity {
        /// The key.
        key: String,
    },
    /// The key does not open it.
    #[error("key `{key}` does not open it: it was encrypted with another key")]
    Wrong {
        /// The key.
        key: String,
    },
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        Self::from(&error)
    }
}

impl From<&KeyError> for Failure {
    fn from(error: &KeyError) -> Self {
        let (exit, remedy) = match error {
            KeyError::Secret { key, .. } => {
                let remedy = format!("Correct `passphrase` in `[encryption.{key}]`, or the place that it names.");
                (ExitCode::Configuration, remedy)
            }
            KeyError::Passphrase { .. } => {
                (ExitCode::Configuration, "Make one with `backstop keygen --aes256`.".to_owned())
            }
            KeyError::Recipient { key, .. } => {
                let remedy = format!(
                    "Write public keys of `age` into `recipients` of `[encryption.{key}]`; they begin with `age1`."
                );
                (ExitCode::Configuration, remedy)
            }
            KeyError::Identity { .. } => (
                ExitCode::Configuration,
                "Name a file as `backstop keygen` or `age-keygen` makes it, with mode 0600.".to_owned(),
            ),
            KeyError::NoIdentity { key } => {
                let remedy = format!(
                    "Name the file with the secret key: `identity` in `[encryption.{key}]` or in `test_restore`."
                );
                (ExitCode::Configuration, remedy)
            }
            KeyError::Wrong { key } => {
                let remedy = format!(
                    "Give `{key}` the secret key that was in use when the backup was made; keep old ones when you \
                     rotate. If it is the right one, somebody changed the manifest: use another copy."
                );
                (ExitCode::VerificationFailed, remedy)
            }
        };
        Failure { class: ErrorClass::Config, exit, message: chain(error), remedy: Some(remedy) }
    }
}

/// What encrypts. Shows no secret in Debug.
#[derive(Debug, Clone)]
pub struct Sealer {
    key: String,
    lock: Lock,
}

#[derive(Debug, Clone)]
enum Lock {
    Age(Vec<Recipient>),
    Aes256(Secret),
}

impl Sealer {
    /// The sealer of a key; its secrets are read now.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn of(key: &Key) -> Result<Self, KeyError> {
        let lock = match &key.kind {
            KeyKind::Age { recipients, .. } => Lock::Age(parse_recipients(&key.name, recipients)?),
            KeyKind::Aes256 { .. } => Lock::Aes256(passphrase(key)?),
        };
        Ok(Self { key: key.name.clone(), lock })
    }

    /// What the record says of it.
    pub fn encryption(&self) -> Encryption {
        let method = match self.lock {
            Lock::Age(_) => EncryptionMethod::Age,
            Lock::Aes256(_) => EncryptionMethod::Aes256,
        };
        Encryption { key: self.key.clone(), method }
    }

    /// HMAC-SHA-256 of a manifest, hexadecimal; none for `age`, which has no common secret.
    pub fn sign(&self, bytes: &[u8]) -> Option<String> {
        match &self.lock {
            Lock::Age(_) => None,
            Lock::Aes256(passphrase) => Some(aes256::sign(passphrase, bytes)),
        }
    }
}

fn parse_recipients(key: &str, recipients: &[String]) -> Result<Vec<Recipient>, KeyError> {
    let bad = |text: &str| KeyError::Recipient { key: key.to_owned(), recipient: shown(text) };
    if recipients.is_empty() {
        return Err(bad(""));
    }
    recipients.iter().map(|text| text.trim().parse().map_err(|_| bad(text))).collect()
}

/// What may be repeated of a text that is no public key: somebody may have written the secret one.
fn shown(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() || text.starts_with("age1") { text.to_owned() } else { "***".to_owned() }
}

fn passphrase(key: &Key) -> Result<Secret, KeyError> {
    match &key.kind {
        KeyKind::Aes256 { passphrase } => {
            let key = || key.name.clone();
            let secret = passphrase.read_line().map_err(|source| KeyError::Secret { key: key(), source })?;
            unfit(secret.expose()).map_or(Ok(secret), |why| Err(KeyError::Passphrase { key: key(), why }))
        }
        KeyKind::Age { .. } => Err(KeyError::NoIdentity { key: key.name.clone() }),
    }
}

/// Why a text is no passphrase. openssl reads 1023 bytes of a line and keeps a carriage return.
fn unfit(passphrase: &str) -> Option<&'static str> {
    if passphrase.contains(char::is_control) {
        Some("it holds a control character, perhaps the carriage return of a line that ends as on Windows")
    } else if passphrase.len() > 1000 {
        Some("it is longer than 1000 bytes, of which openssl would not read all")
    } else if passphrase.chars().count() < 16 {
        Some("it is shorter than 16 characters, so that it can be guessed")
    } else {
        None
    }
}

/// A stream that is being encrypted, or not.
pub(super) enum Sealing<W: Write> {
    Plain(W),
    Age(Box<StreamWriter<W>>),
    Aes256(Box<aes256::Encryptor<W>>),
}

impl<W: Write> Sealing<W> {
    pub(super) fn start(sealer: Option<&Sealer>, out: W) -> io::Result<Self> {
        Ok(match sealer.map(|sealer| &sealer.lock) {
            None => Self::Plain(out),
            Some(Lock::Age(recipients)) => {
                let recipients = recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
                let encryptor = age::Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
                Self::Age(Box::new(encryptor.wrap_output(out)?))
            }
            Some(Lock::Aes256(passphrase)) => Self::Aes256(Box::new(aes256::Encryptor::start(passphrase, out)?)),
        })
    }

    pub(super) fn write(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.write_all(&bytes),
            Self::Age(age) => age.write_all(&bytes),
            Self::Aes256(aes256) => aes256.write(bytes),
        }
    }

    /// Gives back the writer and, where the method has one apart, the HMAC.
    pub(super) fn finish(self) -> io::Result<(W, Option<String>)> {
        Ok(match self {
            Self::Plain(out) => (out, None),
            Self::Age(age) => (age.finish()?, None),
            Self::Aes256(aes256) => {
                let (out, hmac) = aes256.finish();
                (out, Some(hmac))
            }
        })
    }
}

/// What decrypts. Shows no secret in Debug.
#[derive(Clone)]
pub struct Opener {
    key: String,
    unlock: Unlock,
}

#[derive(Clone)]
enum Unlock {
    Age(Vec<Identity>),
    Aes256(Secret),
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Opener {
    /// The opener of a key; `identity` names a secret key file where the key's own section names none.
    ///
    /// # Errors
    /// When there is no secret key on this host, or it cannot be used.
    pub fn of(key: &Key, identity: Option<&Path>) -> Result<Self, KeyError> {
        let unlock = match &key.kind {
            KeyKind::Age { identity: own, .. } => {
                let path = own.as_deref().or(identity).ok_or_else(|| KeyError::NoIdentity { key: key.name.clone() })?;
                Unlock::Age(read_identities(&key.name, path)?)
            }
            KeyKind::Aes256 { .. } => Unlock::Aes256(passphrase(key)?),
        };
        Ok(Self { key: key.name.clone(), unlock })
    }

    /// Whether it opens what a sealer locks; an identity beside somebody else's recipients does not.
    pub fn opens(&self, sealer: &Sealer) -> bool {
        match (&self.unlock, &sealer.lock) {
            (Unlock::Age(identities), Lock::Age(recipients)) => identities.iter().any(|identity| {
                let own = identity.to_public().to_string();
                recipients.iter().any(|recipient| recipient.to_string() == own)
            }),
            (Unlock::Aes256(own), Lock::Aes256(other)) => own == other,
            _ => false,
        }
    }

    /// Whether a manifest's HMAC is right; true for `age`, which has none.
    pub fn agrees(&self, bytes: &[u8], hmac: Option<&str>) -> bool {
        match &self.unlock {
            Unlock::Age(_) => true,
            Unlock::Aes256(passphrase) => hmac == Some(aes256::sign(passphrase, bytes).as_str()),
        }
    }

    /// It was locked with another key.
    pub(super) fn is_wrong(&self) -> KeyError {
        KeyError::Wrong { key: self.key.clone() }
    }

    /// Whether the files it opens have an HMAC in the manifest.
    pub(super) fn has_hmac(&self) -> bool {
        matches!(self.unlock, Unlock::Aes256(_))
    }

    /// Reads what the HMAC needs, so that the rest counts into it.
    pub(super) fn watch(&self, stored: &mut Stored) -> io::Result<()> {
        match &self.unlock {
            Unlock::Age(_) => Ok(()),
            Unlock::Aes256(passphrase) => keys(passphrase, stored).map(drop),
        }
    }

    /// The plain text of a stored file.
    pub(super) fn open<'a>(&self, stored: &'a mut Stored) -> Result<Box<dyn Read + 'a>, Trouble> {
        match &self.unlock {
            Unlock::Age(identities) => {
                let decryptor = age::Decryptor::new(stored).map_err(of_age)?;
                let identities = identities.iter().map(|identity| identity as &dyn age::Identity);
                Ok(Box::new(decryptor.decrypt(identities).map_err(of_age)?))
            }
            Unlock::Aes256(passphrase) => {
                let cipher = keys(passphrase, stored).map_err(Trouble::Unreadable)?;
                Ok(Box::new(aes256::Decryptor { cipher, from: stored }))
            }
        }
    }
}

fn keys(passphrase: &Secret, stored: &mut Stored) -> io::Result<ctr::Ctr128BE<aes::Aes256>> {
    let salt = aes256::read_salt(stored)?;
    let keys = aes256::Keys::of(passphrase, &salt);
    stored.watch(keys.hmac);
    Ok(keys.cipher)
}

fn of_age(error: DecryptError) -> Trouble {
    match error {
        DecryptError::NoMatchingKeys => Trouble::WrongKey,
        DecryptError::Io(source) => Trouble::Unreadable(source),
        error => Trouble::Unreadable(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

fn read_identities(key: &str, path: &Path) -> Result<Vec<Identity>, KeyError> {
    let bad = |why: String| KeyError::Identity { key: key.to_owned(), path: path.to_owned(), why };
    let text = read_private(path.to_owned()).map_err(|error| bad(chain(&error)))?;
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let keys = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let identities: Vec<Identity> = keys
        .map(|(number, line)| line.parse().map_err(|_| bad(no_identity(number, line))))
        .collect::<Result<_, KeyError>>()?;
    if identities.is_empty() { Err(bad("there is no secret key in it".to_owned())) } else { Ok(identities) }
}

fn no_identity(number: usize, line: &str) -> String {
    if line.starts_with("-----BEGIN AGE") || line.starts_with("age-encryption.org/") {
        return "it is locked with a passphrase, which nobody could type at night".to_owned();
    }
    if line.starts_with("AGE-PLUGIN-") {
        return format!("line {number} is the key of a plugin, and plugins are not used");
    }
    if line.starts_with("age1") {
        return format!("line {number} is a public key");
    }
    format!("line {number} is no secret key of age")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::{
        policy::SecretRef,
        stream::testing::{new_key, private, tool},
    };

    fn age(identity: Option<PathBuf>) -> Key {
        let recipients = vec!["age1unused".to_owned()];
        Key { name: "vault".to_owned(), kind: KeyKind::Age { recipients, identity } }
    }

    #[tokio::test]
    async fn a_new_key_is_one_that_age_keygen_could_have_made() {
        let new = generate(EncryptionMethod::Age);
        let public = tool("age-keygen -y <\"$1\"", new.secret.expose().as_bytes()).await;
        assert_eq!(String::from_utf8(public).unwrap().trim(), new.recipient.unwrap());
    }

    #[test]
    fn a_new_passphrase_is_one_line_with_256_random_bits() {
        let (one, two) = (generate(EncryptionMethod::Aes256), generate(EncryptionMethod::Aes256));
        assert_ne!(one.secret, two.secret);
        let text = one.secret.expose();
        assert!(text.len() == 65 && text.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit()), "{}", text.len());
    }

    #[test]
    fn a_passphrase_that_is_weak_or_that_openssl_reads_otherwise_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let of = |text: &str| {
            let passphrase = SecretRef::File(private(directory.path(), "key", text));
            let key = Key { name: "vault".to_owned(), kind: KeyKind::Aes256 { passphrase } };
            assert_eq!(Sealer::of(&key).is_ok(), Opener::of(&key, None).is_ok());
            Sealer::of(&key).map(drop).map_err(|error| (error.to_string(), Failure::from(error)))
        };
        for (text, why) in [
            ("x\n", "shorter than 16 characters"),
            ("0123456789abcde\n", "shorter than 16 characters"),
            ("äöüäöüäöüäöüäöü", "shorter than 16 characters"),
            ("0123456789abcdef\r\n", "control character"),
            ("0123456789abcdef\r", "control character"),
            ("01234567\t89abcdef\n", "control character"),
            (&"x".repeat(1001), "longer than 1000 bytes"),
        ] {
            let (told, failure) = of(text).unwrap_err();
            assert!(told.starts_with("the passphrase of key `vault` cannot be used: ") && told.contains(why), "{told}");
            assert!(failure.remedy.unwrap().contains("backstop keygen --aes256") && !told.contains(text));
        }
        for good in ["0123456789abcdef", "0123456789abcdef\nmore\r\n", &"x".repeat(1000)] {
            assert!(of(good).is_ok());
        }
    }

    #[test]
    fn an_identity_file_that_is_of_no_use_says_why_without_its_content() {
        let directory = tempfile::tempdir().unwrap();
        let secret = generate(EncryptionMethod::Age).secret;
        let torn = secret.expose().trim_end().strip_suffix(char::is_alphanumeric).unwrap();
        for (text, why) in [
            ("# only a comment\n", "there is no secret key in it"),
            (torn, "line 2 is no secret key of age"),
            ("hunter2\n", "line 1 is no secret key of age"),
            ("age1qqqq\n", "line 1 is a public key"),
            (
                "-----BEGIN AGE ENCRYPTED FILE-----\n",
                "it is locked with a passphrase, which nobody could type at night",
            ),
            ("AGE-PLUGIN-YUBIKEY-1XX\n", "line 1 is the key of a plugin, and plugins are not used"),
        ] {
            let path = private(directory.path(), "key", text);
            let error = Opener::of(&age(Some(path)), None).unwrap_err().to_string();
            assert!(error.ends_with(&format!("of key `vault` cannot be used: {why}")), "{error}");
        }
    }

    #[test]
    fn an_identity_file_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = private(directory.path(), "key", generate(EncryptionMethod::Age).secret.expose());
        assert!(Opener::of(&age(Some(path.clone())), None).is_ok());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Opener::of(&age(Some(path)), None).unwrap_err().to_string();
        assert!(error.contains("may be read by others"), "{error}");
    }

    #[test]
    fn an_identity_beside_somebody_elses_recipients_is_seen_before_anything_is_locked() {
        let directory = tempfile::tempdir().unwrap();
        let (own, other) = (generate(EncryptionMethod::Age), generate(EncryptionMethod::Age));
        let identity = private(directory.path(), "key", own.secret.expose());
        let key = |recipients: &[&NewKey]| {
            let recipients = recipients.iter().filter_map(|key| key.recipient.clone()).collect();
            Key { name: "vault".to_owned(), kind: KeyKind::Age { recipients, identity: Some(identity.clone()) } }
        };
        let opens = |key: &Key| Opener::of(key, None).unwrap().opens(&Sealer::of(key).unwrap());
        assert!(opens(&key(&[&own])) && opens(&key(&[&other, &own])));
        assert!(!opens(&key(&[&other])));
    }

    #[test]
    fn a_keys_own_identity_goes_before_the_one_of_the_test_restore() {
        let directory = tempfile::tempdir().unwrap();
        let path = private(directory.path(), "key", generate(EncryptionMethod::Age).secret.expose());
        let missing = directory.path().join("missing");
        assert!(Opener::of(&age(Some(path.clone())), Some(&missing)).is_ok());
        assert!(Opener::of(&age(None), Some(&path)).is_ok());
        assert!(matches!(Opener::of(&age(None), None), Err(KeyError::NoIdentity { .. })));
    }

    #[test]
    fn a_manifest_is_signed_where_there_is_a_common_secret() {
        let directory = tempfile::tempdir().unwrap();
        let keys = ["one", "two"].map(|name| new_key(directory.path(), name, EncryptionMethod::Aes256));
        let hmac = Sealer::of(&keys[0]).unwrap().sign(b"text");
        let [one, two] = keys.map(|key| Opener::of(&key, None).unwrap());
        assert!(one.agrees(b"text", hmac.as_deref()));
        assert!(!one.agrees(b"test", hmac.as_deref()) && !one.agrees(b"text", None));
        assert!(!two.agrees(b"text", hmac.as_deref()));
        let age = new_key(directory.path(), "age", EncryptionMethod::Age);
        assert_eq!(Sealer::of(&age).unwrap().sign(b"text"), None);
        assert!(Opener::of(&age, None).unwrap().agrees(b"text", None));
    }

    #[test]
    fn recipients_that_are_none_are_refused_by_name() {
        let bad = |recipients: &[&str]| {
            let recipients = recipients.iter().map(|text| (*text).to_owned()).collect();
            let key = Key { name: "vault".to_owned(), kind: KeyKind::Age { recipients, identity: None } };
            Sealer::of(&key).unwrap_err().to_string()
        };
        assert_eq!(bad(&["age1abc"]), "key `vault`: `age1abc` is no recipient of age");
        assert_eq!(bad(&["hunter2"]), "key `vault`: `***` is no recipient of age");
        assert_eq!(bad(&[]), "key `vault`: `` is no recipient of age");
    }
}
