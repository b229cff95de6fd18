//! New keys.
//!
//! A newcomer would let people invent a passphrase; 10000 iterations protect no word that a person can remember.

use age::secrecy::ExposeSecret;

use crate::{policy::Secret, record::EncryptionMethod, stream::tally::hex};

/// A new key.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// The text of the secret key file, fit for `age -i` or `openssl -pass file:`.
    pub secret: Secret,
    /// The public key, for `age`.
    pub recipient: Option<String>,
}

/// Makes a new key.
///
/// # Panics
/// When the system has no random numbers.
pub fn generate(method: EncryptionMethod) -> NewKey {
    match method {
        EncryptionMethod::Age => {
            let identity = age::x25519::Identity::generate();
            let recipient = identity.to_public().to_string();
            let secret = format!("# public key: {recipient}\n{}\n", identity.to_string().expose_secret());
            NewKey { secret: Secret::new(secret), recipient: Some(recipient) }
        }
        EncryptionMethod::Aes256 => {
            let mut bytes = [0; 32];
            getrandom::fill(&mut bytes).expect("the system has random numbers");
            NewKey { secret: Secret::new(format!("{}\n", hex(&bytes))), recipient: None }
        }
    }
}
