//! What the by-hand commands of every engine have in common: where a file is, how it is decrypted and decompressed.
//!
//! They are lines for bash, so that whoever has lost Backstop, but not the backup, copies them from the manifest. What
//! only a person knows (the file with the secret key, the name of the new database) stands once, at the top, as a
//! variable. A newcomer would leave out `pipefail`: then a damaged file restores as a shorter one. Or would trust the
//! stages to notice damage: without compression and encryption, nothing does, so each file is compared before its use.

use crate::record::{Artifact, Backup, CompressionMethod, Dump, EncryptionMethod, Role};

/// The lines that come before all others; `tools` are those of the engine, in words.
pub(super) fn preamble(backup: &Backup, dump: &Dump, location: &str, tools: &str) -> Vec<String> {
    let mut needed = vec!["bash".to_owned()];
    needed.extend(location.starts_with("s3://").then(|| "aws (with --endpoint-url where it is not AWS)".to_owned()));
    needed.extend(dump.encryption.as_ref().map(|encryption| match encryption.method {
        EncryptionMethod::Age => "age".to_owned(),
        EncryptionMethod::Aes256 => "openssl".to_owned(),
    }));
    needed.extend(Some(dump.compression.method.as_str().to_owned()).filter(|method| method != "none"));
    needed.push(tools.to_owned());
    let mut lines = vec![
        shown(&format!("# Backup {} of {}, {}.", backup.id, backup.database, dump.server)),
        shown(&format!("# Needed: {}.", needed.join(", "))),
        "# Put these lines into a file, fill in the variables and run it with bash. It stops at the first error."
            .to_owned(),
        "set -euo pipefail".to_owned(),
    ];
    lines.extend(dump.encryption.as_ref().map(|encryption| {
        let what = match encryption.method {
            EncryptionMethod::Age => "the file with the secret key of",
            EncryptionMethod::Aes256 => "the file with the passphrase of",
        };
        shown(&format!("KEY=/path/to/key # {what} `{}`", encryption.key))
    }));
    // Parts are compared where they are unpacked.
    lines.extend(dump.artifacts.iter().filter(|a| a.role != Role::Part).map(|a| compare(a, location)));
    lines
}

/// The command that fails unless a file is what was stored.
fn compare(artifact: &Artifact, location: &str) -> String {
    let (file, sha256) = (path(artifact, location), &artifact.stored.sha256);
    if location.starts_with("s3://") {
        let damaged = quoted(&format!("{} is damaged", artifact.name));
        let file = quoted(&file);
        return format!(
            "[ \"$(aws s3 cp {file} - | sha256sum)\" = '{sha256}  -' ] || {{ echo {damaged} >&2; exit 1; }}"
        );
    }
    format!("echo {} | sha256sum -c -", quoted(&format!("{sha256}  {file}")))
}

fn path(artifact: &Artifact, location: &str) -> String {
    format!("{}/{}", location.trim_end_matches('/'), artifact.name)
}

/// What stands in a comment is one line, whatever somebody named a database.
pub(super) fn shown(text: &str) -> String {
    text.replace(char::is_control, "?")
}

/// The command that writes what the tool wrote to standard output: fetched, decrypted, decompressed.
pub(super) fn read(dump: &Dump, artifact: &Artifact, location: &str) -> String {
    let file = quoted(&path(artifact, location));
    if location.starts_with("s3://") {
        return [format!("aws s3 cp {file} -")].into_iter().chain(stages(dump)).collect::<Vec<_>>().join(" | ");
    }
    read_file(dump, &file)
}

/// The same for a file on this host; `file` is a word of the shell.
pub(super) fn read_file(dump: &Dump, file: &str) -> String {
    let mut stages = stages(dump).into_iter();
    let first = stages.next().unwrap_or_else(|| "cat".to_owned());
    [format!("{first} < {file}")].into_iter().chain(stages).collect::<Vec<_>>().join(" | ")
}

/// What decrypts and decompresses, from standard input to standard output.
fn stages(dump: &Dump) -> Vec<String> {
    let decrypt = dump.encryption.as_ref().map(|encryption| match encryption.method {
        EncryptionMethod::Age => "age -d -i \"$KEY\"",
        EncryptionMethod::Aes256 => "openssl enc -d -aes-256-ctr -pbkdf2 -pass file:\"$KEY\"",
    });
    let decompress = match dump.compression.method {
        CompressionMethod::None => None,
        CompressionMethod::Gzip => Some("gzip -dc"),
        CompressionMethod::Zstd => Some("zstd -dc"),
    };
    decrypt.into_iter().chain(decompress).map(str::to_owned).collect()
}

/// A word for the shell.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Compression, Digest, DumpFormat, Encryption, Role};

    fn dump(compression: &str, method: Option<EncryptionMethod>) -> Dump {
        Dump {
            format: DumpFormat::Custom,
            compression: compression.parse().unwrap(),
            encryption: method.map(|method| Encryption { key: "offsite".into(), method }),
            directory: "shop/backup-1".into(),
            artifacts: vec![],
            copies: vec![],
            server: "PostgreSQL 15.20".into(),
            source: "shop".into(),
            migrations: None,
            retention_days: None,
            expires_at: None,
            warnings: vec![],
            verified_at: None,
        }
    }

    fn line(compression: &str, method: Option<EncryptionMethod>, location: &str) -> String {
        let dump = dump(compression, method);
        let suffix = method.map_or("", EncryptionMethod::suffix);
        let name = format!("shop.dump{}{suffix}", dump.compression.suffix());
        let digest = Digest::default();
        let artifact = Artifact { role: Role::Data, name, raw: digest.clone(), stored: digest, hmac: None };
        read(&dump, &artifact, location)
    }

    #[test]
    fn a_file_is_compared_where_it_is() {
        let stored = Digest { size: 1, sha256: "5ha".into() };
        let artifact =
            Artifact { role: Role::Data, name: "shop.dump".into(), raw: Digest::default(), stored, hmac: None };
        insta::assert_snapshot!(compare(&artifact, "/srv/b/"), @"echo '5ha  /srv/b/shop.dump' | sha256sum -c -");
        insta::assert_snapshot!(compare(&artifact, "/srv/it's"), @r"echo '5ha  /srv/it'\''s/shop.dump' | sha256sum -c -");
        insta::assert_snapshot!(compare(&artifact, "s3://b/x"), @r#"[ "$(aws s3 cp s3://b/x/shop.dump - | sha256sum)" = '5ha  -' ] || { echo 'shop.dump is damaged' >&2; exit 1; }"#);
    }

    #[test]
    fn a_comment_stays_one_line() {
        assert_eq!(shown("# shop\nrm -rf x\r"), "# shop?rm -rf x?");
    }

    #[test]
    fn a_file_is_fetched_decrypted_and_decompressed_with_standard_tools() {
        let age = Some(EncryptionMethod::Age);
        insta::assert_snapshot!(line("zstd", age, "/srv/b/shop/backup-1"), @r#"age -d -i "$KEY" < /srv/b/shop/backup-1/shop.dump.zst.age | zstd -dc"#);
        insta::assert_snapshot!(line("gzip", Some(EncryptionMethod::Aes256), "s3://b/shop/backup-1"), @r#"aws s3 cp s3://b/shop/backup-1/shop.dump.gz.enc - | openssl enc -d -aes-256-ctr -pbkdf2 -pass file:"$KEY" | gzip -dc"#);
        insta::assert_snapshot!(line("none", None, "/srv/it's here/"), @r"cat < '/srv/it'\''s here/shop.dump'");
        assert_eq!(dump("none", None).compression, Compression::NONE);
    }
}
