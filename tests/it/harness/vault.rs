//! A vault: where the dumps of a lab go. A directory, a bucket, and keys by `backstop keygen`; it goes with its lab.
//!
//! A newcomer would read what lies in the bucket through Backstop; here the tests have a client of their own.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{Lab, S3, Site};

/// The storages `local` and `offsite`, and the keys `age` and `aes256`.
pub(crate) struct Vault {
    dir: PathBuf,
    owner: (u32, u32),
    pub(crate) s3: S3,
    recipient: String,
}

/// The names of the storages.
pub(crate) const STORAGES: [&str; 2] = ["local", "offsite"];

/// What stands for `aws s3 cp [--recursive] s3://BUCKET/KEY TARGET`, on boto3.
const AWS: &str = r"
from pathlib import Path
assert sys.argv[1:3] == ['s3', 'cp'], sys.argv
source, target = sys.argv[-2:]
bucket, key = source.removeprefix('s3://').split('/', 1)
if target == '-':
    s3.download_fileobj(bucket, key, sys.stdout.buffer)
elif '--recursive' in sys.argv:
    for page in s3.get_paginator('list_objects_v2').paginate(Bucket=bucket, Prefix=key):
        for found in page['Contents']:
            path = Path(target, found['Key'][len(key):])
            path.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(bucket, found['Key'], str(path))
else:
    s3.download_file(bucket, key, target)";

impl Vault {
    /// An empty one in the lab of a site.
    #[track_caller]
    pub(crate) fn of(site: &Site<'_>) -> Self {
        let mut vault =
            Self { dir: site.lab.path("vault"), owner: site.lab.owner(), s3: S3::up(), recipient: String::new() };
        for directory in ["", "local", "keys", "bin"] {
            vault.make_directory(directory);
        }
        vault.recipient = vault.keygen(site, "age");
        vault.keygen(site, "aes256");
        vault.write_aws();
        vault
    }

    /// The sections of the policy for its storages and keys.
    pub(crate) fn policy(&self) -> String {
        let (local, offsite) = (self.dir.join("local"), self.s3.policy("offsite", "backups", ""));
        let age = self.age("age", &self.recipient, &self.key("age"));
        let aes256 = self.aes256("aes256", &self.key("aes256"));
        format!("[storage.local]\ntype = \"filesystem\"\npath = \"{}\"\n\n{offsite}\n{age}{aes256}", local.display())
    }

    /// A section of the policy for a key of age that this host may read with.
    pub(crate) fn age(&self, name: &str, recipient: &str, identity: &Path) -> String {
        let identity = identity.display();
        format!("[encryption.{name}]\ntype = \"age\"\nrecipients = [\"{recipient}\"]\nidentity = \"{identity}\"\n\n")
    }

    /// A section of the policy for a passphrase.
    pub(crate) fn aes256(&self, name: &str, passphrase: &Path) -> String {
        format!("[encryption.{name}]\ntype = \"aes256\"\npassphrase = \"file:{}\"\n\n", passphrase.display())
    }

    /// The file with the secret of a key.
    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.dir.join("keys").join(name)
    }

    /// Makes one more key, a passphrase if `aes256` is in its name; gives the recipient, where it has one.
    #[track_caller]
    pub(crate) fn keygen(&self, site: &Site<'_>, name: &str) -> String {
        let (file, mut arguments) = (self.key(name), vec!["keygen"]);
        arguments.extend(name.contains("aes256").then_some("--aes256"));
        arguments.extend(["--out", file.to_str().unwrap()]);
        let answer = site.run(&arguments);
        chown(&file, Some(self.owner.0), Some(self.owner.1)).unwrap();
        answer.ok()["recipient"].as_str().unwrap_or_default().to_owned()
    }

    /// Copies what is in the bucket, and gives for each storage the directory in which its files are.
    #[track_caller]
    pub(crate) fn look(&self) -> [(&'static str, PathBuf); 2] {
        self.make_directory("seen");
        let seen = self.dir.join("seen");
        self.s3.aws(&["s3", "cp", "--recursive", "s3://backups/below/", seen.to_str().unwrap()]);
        [(STORAGES[0], self.dir.join("local")), (STORAGES[1], seen)]
    }

    /// Writes the by-hand commands of a manifest into a script, as a person who fills in what only a person knows: the
    /// key, and for the name of each other variable its value.
    #[track_caller]
    pub(crate) fn write_by_hand(&self, lab: &Lab, manifest: &Value, values: &[(&str, &str)]) -> PathBuf {
        let key = manifest["backup"]["dump"]["encryption"]["key"].as_str().map(|key| self.key(key));
        let key = key.as_ref().and_then(|key| Some(("KEY", key.to_str()?)));
        let filled = |line: &str| {
            let mut values = values.iter().copied().chain(key);
            let value = values.find(|(name, _)| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('=')));
            value.map_or_else(|| line.to_owned(), |(name, value)| format!("{name}='{value}'"))
        };
        let lines = manifest["restore_by_hand"].as_array().expect("a manifest has commands");
        let mut script = vec![format!("PATH={}:$PATH", self.dir.join("bin").display())];
        script.extend(lines.iter().map(|line| filled(line.as_str().unwrap())));
        let path = lab.path("by-hand.sh");
        fs::write(&path, script.join("\n")).unwrap();
        lab.run("rm -rf hand; mkdir hand");
        path
    }

    fn make_directory(&self, name: &str) {
        let path = self.dir.join(name);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        chown(&path, Some(self.owner.0), Some(self.owner.1)).unwrap();
    }

    /// The repository may be where the lab's owner cannot read, so the script that it needs is copied.
    fn write_aws(&self) {
        let (script, aws) = (self.dir.join("bin/s3"), self.dir.join("bin/aws"));
        fs::copy(S3::SCRIPT, &script).unwrap();
        let text =
            format!("#!/bin/bash\nexec '{}' python '{}' \"{AWS}\" \"$@\"\n", script.display(), self.s3.dir().display());
        fs::write(&aws, text).unwrap();
        for path in [script, aws] {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}

impl S3 {
    /// `aws` with these arguments.
    #[track_caller]
    pub(crate) fn aws(&self, arguments: &[&str]) {
        let arguments = serde_json::to_string(arguments).unwrap();
        self.python(&format!("sys.argv[1:] = {arguments}{AWS}"));
    }
}
