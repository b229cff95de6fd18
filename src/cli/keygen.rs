//! `backstop keygen`: a new key for the encryption of dumps.
//!
//! It reads no policy and no catalog, so that it also works on the laptop where a secret key shall stay. A newcomer
//! would write over a file that is there; with the key that was in it, its backups would be gone.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::Answer;
use crate::{
    error::{Error, ExitCode},
    record::EncryptionMethod,
    stream::encrypt::{NewKey, generate},
};

/// What may be asked.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Make a passphrase for AES-256 instead of a key pair of age
    #[arg(long)]
    aes256: bool,
    /// Write the secret into this new file, which only its owner may read; to stdout when left out
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(options: &Options) -> Result<Answer, Error> {
    let method = if options.aes256 { EncryptionMethod::Aes256 } else { EncryptionMethod::Age };
    let key = generate(method);
    let Some(out) = &options.out else { return Ok(shown(method, &key)) };
    let file = std::path::absolute(out).and_then(|file| write_new(&file, &key).map(|()| file));
    let file = file.map_err(|source| not_written(out, source))?;
    Ok(written(method, &key, &file))
}

/// The secret and nothing else, so that it can be sent into a file.
fn shown(method: EncryptionMethod, key: &NewKey) -> Answer {
    let secret = key.secret.expose();
    let result = json!({ "method": method, "recipient": key.recipient, "file": null, "secret": secret });
    Answer::new("keygen", result, "a new key", secret)
}

fn written(method: EncryptionMethod, key: &NewKey, file: &Path) -> Answer {
    let message = format!("the secret is in {}", file.display());
    let lines = policy_lines(key, file);
    let owner = if nix::unistd::geteuid().is_root() {
        format!("It belongs to root: give it to the daemon's user, e.g. `chown postgres {}`.\n", file.display())
    } else {
        String::new()
    };
    let text = format!(
        "{message}\n{owner}Keep a copy of it elsewhere: without it nobody can read what it encrypted.\n\n\
         For the policy, with a name of yours for the key:\n\n{lines}"
    );
    let result = json!({ "method": method, "recipient": key.recipient, "file": file, "policy": lines });
    Answer::new("keygen", result, message, text)
}

fn policy_lines(key: &NewKey, file: &Path) -> String {
    let file = file.display();
    match &key.recipient {
        Some(recipient) => format!(
            "[encryption.NAME]\ntype = \"age\"\nrecipients = [\"{recipient}\"]\n\
             # Only where this host may read what it backs up, e.g. for test restores:\n# identity = \"{file}\"\n"
        ),
        None => format!("[encryption.NAME]\ntype = \"aes256\"\npassphrase = \"file:{file}\"\n"),
    }
}

fn write_new(path: &Path, key: &NewKey) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(key.secret.expose().as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a key is worse than none; what hinders the removal is the same trouble.
        let _ = fs::remove_file(path);
    }
    written
}

fn not_written(path: &Path, source: io::Error) -> Error {
    let hint = match source.kind() {
        io::ErrorKind::AlreadyExists => "Name a file that does not exist; a key is never overwritten.",
        io::ErrorKind::NotFound => "Make the directory first.",
        _ => "Name a file in a directory where this user may write.",
    };
    let step = format!("the key cannot be written to `{}`", path.display());
    Error::new(ExitCode::Configuration, step).because(source).hint(hint)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn options(aes256: bool, out: Option<&Path>) -> Options {
        Options { aes256, out: out.map(Path::to_owned) }
    }

    #[test]
    fn without_a_file_the_secret_is_all_that_is_printed() {
        let answer = run(&options(false, None)).unwrap();
        let (comment, secret) = answer.text.trim_end().split_once('\n').unwrap();
        let recipient = answer.result["recipient"].as_str().unwrap();
        assert_eq!(comment, format!("# public key: {recipient}"));
        assert!(secret.starts_with("AGE-SECRET-KEY-1") && !secret.contains('\n'));
        assert_eq!(run(&options(true, None)).unwrap().text.lines().count(), 1);
    }

    #[test]
    fn a_file_is_made_for_its_owner_and_its_secret_is_not_printed() {
        let directory = tempfile::tempdir().unwrap();
        for (aes256, policy) in [(false, "recipients = [\"age1"), (true, "passphrase = \"file:/")] {
            let path = directory.path().join(aes256.to_string());
            let answer = run(&options(aes256, Some(&path))).unwrap();
            let text = fs::read_to_string(&path).unwrap();
            let secret = text.lines().last().unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(answer.text.contains(policy), "{}", answer.text);
            assert!(!answer.text.contains(secret) && !answer.result.to_string().contains(secret));
        }
    }

    #[test]
    fn a_file_that_is_there_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, "the only key").unwrap();
        let error = run(&options(false, Some(&path))).unwrap_err();
        assert_eq!(error.exit(), ExitCode::Configuration);
        assert!(error.remedy().unwrap().contains("never overwritten"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "the only key");
    }
}
