//! The keys that encrypt dumps: each is one kind of key, whole, and no secret stands in it.
//!
//! A newcomer would look at recipients when a dump is made; a mistyped one is found here, before a night without backup.

use super::Checker;
use crate::policy::{
    Key, KeyKind, SecretRef,
    file::{self, KeyType},
    source::At,
};

/// What `encryption` says where nothing is encrypted.
pub(super) const NOT_ENCRYPTED: &str = "none";

impl Checker<'_, '_> {
    /// Checks a key.
    pub(super) fn key(&mut self, at: &At, typed: file::Key) -> Key {
        if at.name() == NOT_ENCRYPTED {
            let problem = self.findings.error(at, "`none` is no name for a key: it means not encrypted");
            problem.help("Take another name.");
        }
        let kind = match typed.kind {
            Some(KeyType::Age) => self.age(at, typed),
            Some(KeyType::Aes256) => self.aes256(at, typed),
            None => {
                self.needs(at, "type", "needs a `type`", "Write `type = \"age\"` or `type = \"aes256\"`.");
                KeyKind::Age { recipients: Vec::new(), identity: None }
            }
        };
        Key { name: at.name().to_owned(), kind }
    }

    fn age(&mut self, at: &At, typed: file::Key) -> KeyKind {
        self.belong(at, &["passphrase"], "age");
        let list = at.key("recipients");
        let recipients = typed.recipients.unwrap_or_default();
        if recipients.is_empty() {
            let help = "Write `recipients = [\"age1…\"]`; `backstop keygen` makes a key.";
            self.needs(at, "recipients", "needs at least one recipient", help);
        }
        for (index, recipient) in recipients.iter().enumerate() {
            self.recipient(&list.index(index), recipient);
            if recipients[..index].contains(recipient) {
                self.findings.error(&list.index(index), "this recipient stands twice");
            }
        }
        KeyKind::Age { recipients, identity: typed.identity.map(|path| self.absolute(&at.key("identity"), path)) }
    }

    /// The text is not repeated: people mistake the two halves of a key for each other.
    fn recipient(&mut self, at: &At, text: &str) {
        if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
            let problem = self.findings.error(at, "a secret key may not stand in the policy");
            problem.help("Write the public key, `age1…`; the secret one goes into a file that `identity` names.");
        } else if let Err(why) = text.parse::<age::x25519::Recipient>() {
            let problem = self.findings.error(at, format!("is no recipient of age: {why}"));
            problem
                .help("It is `age1` and 58 more letters and digits, as `backstop keygen` and `age-keygen` print it.");
        }
    }

    fn aes256(&mut self, at: &At, typed: file::Key) -> KeyKind {
        self.belong(at, &["recipients", "identity"], "aes256");
        let Some(passphrase) = typed.passphrase else {
            let help = "Write for example `passphrase = \"file:/etc/backstop/secrets/dumps\"`.";
            self.needs(at, "passphrase", "needs a `passphrase`", help);
            return KeyKind::Aes256 { passphrase: SecretRef::Env(String::new()) };
        };
        KeyKind::Aes256 { passphrase: self.secret(&at.key("passphrase"), passphrase) }
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::check::errors;

    const GOOD: &str = "age105hejphufj9qfw339hl9rwhd9x8qpu8wksfyqy4chfsr0w4qac7qfwjat8";

    /// The errors about one key.
    fn told(key: &str) -> Vec<String> {
        errors(&format!("[encryption.team]\n{key}"))
    }

    #[test]
    fn a_key_is_of_one_kind_and_whole() {
        let none: [&str; 0] = [];
        assert_eq!(told(&format!("type = \"age\"\nrecipients = [\"{GOOD}\"]\nidentity = \"/k\"")), none);
        assert_eq!(told("type = \"aes256\"\npassphrase = \"file:/etc/backstop/secrets/dumps\""), none);
        for (key, message) in [
            ("", "needs a `type`"),
            ("type = \"gpg\"", "is not one of: age, aes256"),
            ("type = \"age\"", "needs at least one recipient"),
            ("type = \"age\"\nrecipients = []", "needs at least one recipient"),
            ("type = \"aes256\"", "needs a `passphrase`"),
            (
                "type = \"aes256\"\npassphrase = \"file:/p\"\nidentity = \"/k\"",
                "`identity` makes no sense with `type = \"aes256\"`",
            ),
            (
                &format!("type = \"age\"\nrecipients = [\"{GOOD}\"]\npassphrase = \"file:/p\""),
                "`passphrase` makes no sense",
            ),
            (&format!("type = \"age\"\nrecipients = [\"{GOOD}\", \"{GOOD}\"]"), "this recipient stands twice"),
            (&format!("type = \"age\"\nrecipients = [\"{GOOD}\"]\nidentity = \"key.txt\""), "must be an absolute path"),
        ] {
            let told = told(key);
            assert!(told.len() == 1 && told[0].contains(message), "{key}\n{told:#?}");
        }
        let text = format!("[encryption.none]\ntype = \"age\"\nrecipients = [\"{GOOD}\"]");
        assert!(errors(&text)[0].contains("it means not encrypted"));
    }

    #[test]
    fn a_recipient_with_one_wrong_letter_is_none() {
        for bad in [&GOOD[..61], &GOOD.replace("105", "106"), &GOOD.replace("age1", "agf1"), "ssh-ed25519 AAAA", ""] {
            let told = told(&format!("type = \"age\"\nrecipients = [\"{GOOD}\", \"{bad}\"]"));
            assert!(told.len() == 1 && told[0].contains("recipients[1]: is no recipient of age"), "{bad}: {told:#?}");
        }
    }

    #[test]
    fn a_secret_key_is_refused_and_not_repeated() {
        let secret = "AGE-SECRET-KEY-1JAVEEUU7S3YUQ3RSU2V3SXRQLWY9Z6QG57GMDUQ3RRWWYFEW99HSUJXS6G";
        for key in [
            format!("type = \"age\"\nrecipients = [\"{secret}\"]"),
            format!("type = \"age\"\nrecipients = [\"{GOOD}\"]\nidentity = \"{secret}\""),
            format!("type = \"age\"\nrecipients = {secret}"),
            format!("type = \"age\"\nrecipient = \"{secret}\""),
            format!("type = \"{secret}\""),
        ] {
            let problems = crate::policy::check::parse(&format!("[encryption.team]\n{key}")).unwrap_err();
            for told in [problems.to_string(), serde_json::to_string(&problems).unwrap(), format!("{problems:?}")] {
                assert!(!told.contains("JAVEEUU"), "{key}\n{told}");
            }
        }
    }
}
