//! Keeps secrets out of what is shown of a policy file.
//!
//! A secret has no place in a policy, but people type it there, and then the message about it goes into terminals, logs
//! and tickets. So every line that is shown is masked: by the tree, where it says that a value is a secret, and by the
//! words of the line, where it could not be parsed. A newcomer would show the text of a value in a message; only a value
//! that is checked here or that has a fixed form (a duration, a cron text) may be repeated.

use std::ops::Range;

use toml::{Spanned, de::DeValue};

use super::{SecretRef, did_you_mean};

/// Keys with these words in them hold secrets.
const SECRET_WORDS: &[&str] = &["passw", "passphrase", "secret", "token", "pwd", "cipher_pass", "access_key"];
/// How a secret key of `age` begins.
const AGE_SECRET_KEY: &str = "age-secret-key-";

/// The spans of all values that are secrets themselves and not references to them.
pub(super) fn secret_spans(root: &Spanned<DeValue>) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    collect(root, false, &mut spans);
    spans
}

fn collect(value: &Spanned<DeValue>, is_secret: bool, spans: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::Table(table) => {
            for (key, value) in table {
                collect(value, is_secret || is_secret_key(key.get_ref()), spans);
            }
        }
        DeValue::Array(list) => list.iter().for_each(|value| collect(value, is_secret, spans)),
        DeValue::String(text) if is_secret_itself(text) || (is_secret && text.parse::<SecretRef>().is_err()) => {
            spans.push(value.span());
        }
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Datetime(_) if is_secret => spans.push(value.span()),
        _ => {}
    }
}

/// Whether a text is a secret, or holds one, under whatever key.
fn is_secret_itself(text: &str) -> bool {
    has_password(text) || has_login(text) || text.to_ascii_lowercase().contains(AGE_SECRET_KEY)
}

/// Whether a key announces a secret, also when it is mistyped.
pub(super) fn is_secret_key(key: &str) -> bool {
    secret_word_end(key).is_some() || did_you_mean(key, ["password", "secrets"]).is_some()
}

/// Where the first word that announces a secret ends.
fn secret_word_end(text: &str) -> Option<usize> {
    let lower = text.to_ascii_lowercase();
    SECRET_WORDS.iter().filter_map(|word| lower.find(word).map(|at| at + word.len())).min()
}

/// A line that begins at byte `from` of its file, with the hidden spans as asterisks of the same length.
///
/// In a line that could not be parsed nobody knows where a value ends: all that follows a telling word is hidden.
pub(super) fn line(line: &str, from: usize, hidden: &[Range<usize>], is_broken: bool) -> String {
    let age = line.to_ascii_lowercase().find(AGE_SECRET_KEY).map(|at| at + AGE_SECRET_KEY.len());
    let telling = [secret_word_end(line), age, line.find("://").map(|at| at + 3)];
    let broken_from = telling.into_iter().flatten().min().filter(|_| is_broken);
    let is_hidden = |at: usize| {
        broken_from.is_some_and(|begin| at >= begin) || hidden.iter().any(|span| span.contains(&(from + at)))
    };
    if hidden.iter().all(|span| span.end <= from || span.start >= from + line.len()) && broken_from.is_none() {
        return line.to_owned();
    }
    // Every byte becomes one asterisk, so that the caret still stands where it belongs.
    let masked =
        line.char_indices().map(|(at, c)| if is_hidden(at) { "*".repeat(c.len_utf8()) } else { c.to_string() });
    masked.collect()
}

/// Whether a libpq connection string holds a password, as a key or in the user part of a URI.
pub(super) fn has_password(connection: &str) -> bool {
    match connection.split_once("://") {
        Some((_, rest)) => {
            let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
            let query = rest.split_once('?').map_or("", |(_, query)| query);
            user.match_indices(':').any(|(at, _)| !is_port(&user[at + 1..])) || names_password(query, &['&'])
        }
        None => names_password(connection, &[' ', '\t', '\n', '\'', ',', ';']),
    }
}

/// Whether a text is a user with a password before a host, `user:password@host`.
pub(super) fn has_login(text: &str) -> bool {
    let before = text.rsplit_once('@').and_then(|(login, _)| login.split_once(':'));
    // What looks like a URL or like `key=value` is judged by `has_password`.
    before.is_some_and(|(user, rest)| {
        !user.contains('=') && !rest.starts_with("//") && !text.contains(char::is_whitespace)
    })
}

/// Whether what follows a colon is a port: digits, and something after them. A password may hold any character.
fn is_port(text: &str) -> bool {
    text.find(['/', '?', ',']).is_some_and(|end| text[..end].bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether one of the `key = value` parts has a key that ends in `password`, e.g. `sslpassword`.
fn names_password(text: &str, separators: &[char]) -> bool {
    let keys = text.split('=').map(|before| before.trim_end().rsplit(separators).next().unwrap_or_default());
    let count = text.matches('=').count();
    keys.take(count).any(|key| key.trim().to_ascii_lowercase().ends_with("password"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_seen_in_every_form_libpq_takes() {
        for connection in [
            "password=hunter2",
            "host=db  password = hunter2",
            "host=db sslpassword='hunter2'",
            "postgresql://backup:hunter2@db/orders",
            "postgresql://backup:hun@ter2@db",
            "postgresql://backup:hun/t?er2@db",
            "postgresql://backup:1234@db:5432,db2:5432/orders",
            "postgresql://db/orders?sslmode=require&password=hunter2",
        ] {
            assert!(has_password(connection), "{connection}");
        }
        assert!(has_login("backup:hunter2@db") && !has_login("db:3306") && !has_login("select 'a:b@c'"));
        assert!(!has_login("postgresql://backup@db:5432/orders") && !has_login("user=a:b@c"));
        for connection in [
            "service=orders",
            "host=db dbname=password",
            "postgresql://backup@db:5432/orders",
            "postgresql://db:5432",
            "postgresql://db:5432/orders?application_name=a@b",
            "passfile=/etc/backstop/pgpass",
        ] {
            assert!(!has_password(connection), "{connection}");
        }
    }

    #[test]
    fn a_masked_line_keeps_its_length() {
        let text = "password = \"hünter2\" # why";
        let masked = line(text, 100, std::slice::from_ref(&(111..121)), false);
        assert_eq!(masked, "password = ********** # why");
        assert_eq!(masked.len(), text.len());
    }

    #[test]
    fn what_follows_a_telling_word_in_a_broken_line_is_hidden() {
        assert_eq!(line("password: hunter2", 0, &[], true), "passw************");
        assert_eq!(line("connection = postgresql://u:p@h", 0, &[], true), "connection = postgresql://*****");
        assert_eq!(line("full = 0 2 * * SUN", 0, &[], true), "full = 0 2 * * SUN");
    }
}
