//! The name of a database.
//!
//! A newcomer would carry it as a `String`; checked once, it is safe as a file name, a lock name and a log field.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A name that cannot be used, with the rule that it breaks.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("`{name}` is not a name: {rule}")]
pub struct BadName {
    name: String,
    rule: &'static str,
}

/// The name of a database in the policy; safe as a file name, a lock name and a log field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DatabaseName(String);

impl DatabaseName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DatabaseName {
    type Err = BadName;

    fn from_str(name: &str) -> Result<Self, BadName> {
        let rule = "use 1 to 63 of a-z, 0-9, `-` and `_`, and begin with a letter or a digit";
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if begins_well && name.len() <= 63 && name.chars().all(good) {
            Ok(Self(name.to_owned()))
        } else {
            Err(BadName { name: name.to_owned(), rule })
        }
    }
}

impl TryFrom<String> for DatabaseName {
    type Error = BadName;

    fn try_from(name: String) -> Result<Self, BadName> {
        name.parse()
    }
}

impl From<DatabaseName> for String {
    fn from(name: DatabaseName) -> String {
        name.0
    }
}

impl fmt::Display for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
