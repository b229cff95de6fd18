//! Where dumps lie: each storage by itself, and all of them beside each other and beside our own directories.
//!
//! A newcomer would let two storages share a directory; the copies of a dump would then be one, and deleting one would
//! delete both.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

use super::{Checker, MINUTE, layer::Layer};
use crate::policy::{
    Daemon, Place, S3, Storage,
    file::{self, ServerSide, StorageKind},
    mask,
    source::At,
};

/// The keys of a bucket.
const OF_S3: &[&str] = &[
    "bucket",
    "prefix",
    "region",
    "endpoint",
    "ca_file",
    "path_style",
    "storage_class",
    "server_side_encryption",
    "kms_key",
    "object_lock",
    "access_key",
    "secret_key",
    "session_token",
    "attempts",
    "timeout",
];
/// The keys of a directory.
const OF_FILESYSTEM: &[&str] = &["path"];
/// Classes whose objects must be asked for, hours before they can be read.
const FROZEN_CLASSES: &[&str] = &["GLACIER", "DEEP_ARCHIVE"];

/// A checked storage, and the file it was written in.
pub(super) struct Written {
    file: usize,
    pub(super) storage: Storage,
}

impl Written {
    /// The path to its section.
    fn at(&self) -> At<'_> {
        At::Section(self.file, "storage", &self.storage.name)
    }
}

impl Checker<'_, '_> {
    /// Checks a storage by itself.
    pub(super) fn storage(&mut self, at: &At, typed: file::Storage) -> Written {
        let place = match typed.kind {
            Some(StorageKind::S3) => {
                self.belong(at, OF_FILESYSTEM, "s3");
                Place::S3(Box::new(self.s3(at, typed)))
            }
            Some(StorageKind::Filesystem) => {
                self.belong(at, OF_S3, "filesystem");
                Place::Filesystem { path: self.directory(at, typed.path) }
            }
            None => {
                self.needs(at, "type", "needs a `type`", "Write `type = \"filesystem\"` or `type = \"s3\"`.");
                Place::Filesystem { path: PathBuf::new() }
            }
        };
        Written { file: at.file(), storage: Storage { name: at.name().to_owned(), place } }
    }

    /// Reports a key that must be written, unless it was and is wrong.
    pub(super) fn needs(&mut self, at: &At, key: &str, message: &str, help: &str) {
        if !self.findings.is_damaged(&at.key(key)) {
            self.findings.error(at, message).help(help);
        }
    }

    /// Refuses the keys of another type of section.
    pub(super) fn belong(&mut self, at: &At, others: &[&str], kind: &str) {
        for key in others {
            let at = at.key(key);
            if self.findings.is_written(&at) {
                self.findings.key_error(&at, format!("`{key}` makes no sense with `type = \"{kind}\"`"));
            }
        }
    }

    fn directory(&mut self, at: &At, path: Option<PathBuf>) -> PathBuf {
        let Some(path) = path else {
            self.needs(at, "path", "needs a `path`", "Write for example `path = \"/srv/backups\"`.");
            return PathBuf::new();
        };
        let at = at.key("path");
        if path.components().any(|part| part == Component::ParentDir) {
            self.findings.error(&at, "may not hold `..`");
        }
        self.absolute(&at, path)
    }

    fn s3(&mut self, at: &At, typed: file::Storage) -> S3 {
        self.keys_are_whole(at, &typed);
        if typed.kms_key.is_some() && typed.server_side_encryption != Some(ServerSide::Kms) {
            let problem = self.findings.key_error(&at.key("kms_key"), "`kms_key` is not used");
            problem.help("Write `server_side_encryption = \"aws:kms\"` beside it.");
        }
        let endpoint = typed.endpoint.map(|url| self.endpoint(&at.key("endpoint"), url));
        let server_side = typed.server_side_encryption.map(|how| match how {
            ServerSide::Aes256 => "AES256".to_owned(),
            ServerSide::Kms => "aws:kms".to_owned(),
        });
        S3 {
            bucket: self.bucket(at, typed.bucket),
            prefix: typed.prefix.map(|prefix| self.prefix(&at.key("prefix"), &prefix)).unwrap_or_default(),
            region: typed
                .region
                .map_or_else(|| "us-east-1".to_owned(), |region| self.not_empty(&at.key("region"), region)),
            path_style: typed.path_style.unwrap_or(endpoint.is_some()),
            endpoint,
            ca_file: typed.ca_file.map(|path| self.absolute(&at.key("ca_file"), path)),
            storage_class: typed.storage_class.map(|class| self.storage_class(&at.key("storage_class"), class)),
            server_side_encryption: server_side,
            kms_key: typed.kms_key.map(|key| self.not_empty(&at.key("kms_key"), key)),
            object_lock: typed.object_lock,
            access_key: typed.access_key.map(|secret| self.secret(&at.key("access_key"), secret)),
            secret_key: typed.secret_key.map(|secret| self.secret(&at.key("secret_key"), secret)),
            session_token: typed.session_token.map(|secret| self.secret(&at.key("session_token"), secret)),
            attempts: typed.attempts.map_or(5, |count| self.at_least_one(&at.key("attempts"), count)),
            timeout: typed.timeout.map_or(MINUTE, |length| self.positive(&at.key("timeout"), length)),
        }
    }

    /// Half a key opens nothing.
    fn keys_are_whole(&mut self, at: &At, typed: &file::Storage) {
        let has = [
            ("access_key", typed.access_key.is_some()),
            ("secret_key", typed.secret_key.is_some()),
            ("session_token", typed.session_token.is_some()),
        ];
        let Some((written, _)) = has.into_iter().find(|(_, is_written)| *is_written) else { return };
        for (missing, _) in has.into_iter().take(2).filter(|(_, is_written)| !is_written) {
            let message = format!("`{written}` needs a `{missing}` beside it");
            if !self.findings.is_damaged(&at.key(missing)) {
                self.findings.key_error(&at.key(written), message);
            }
        }
    }

    fn bucket(&mut self, at: &At, bucket: Option<String>) -> String {
        let Some(bucket) = bucket else {
            self.needs(at, "bucket", "needs a `bucket`", "Write for example `bucket = \"acme-backups\"`.");
            return String::new();
        };
        let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(is_good) {
            let problem = self.findings.error(&at.key("bucket"), "is no name of a bucket");
            problem.help(
                "Write 3 to 63 of a-z, 0-9, `-` and `.`; the service goes into `endpoint`, a path into `prefix`.",
            );
        }
        bucket
    }

    /// The slashes at its ends do not count.
    fn prefix(&mut self, at: &At, prefix: &str) -> String {
        let prefix = prefix.trim_matches('/');
        let is_good = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(char::is_control);
        if !prefix.is_empty() && !prefix.split('/').all(is_good) {
            self.findings.error(at, "is no prefix of keys").help("Write for example `prefix = \"backups/eu\"`.");
        }
        prefix.to_owned()
    }

    fn endpoint(&mut self, at: &At, url: String) -> String {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", &url));
        let host = rest.split('/').next().unwrap_or_default();
        if host.contains('@') || mask::has_password(&url) {
            let problem = self.findings.error(at, "a user or a password may not stand in a URL");
            problem.help("Take them out, and say where they are by `access_key` and `secret_key`.");
        } else if !matches!(scheme, "http" | "https") || host.is_empty() || host.contains(char::is_whitespace) {
            let problem = self.findings.error(at, "is no URL of a service");
            problem.help("Write for example `endpoint = \"https://s3.example.com\"`.");
        } else if scheme == "http" && !is_loopback(host) {
            let problem = self.findings.warning(at, "`http://` is not encrypted on its way");
            problem.help(
                "Whoever listens reads what is not encrypted by a key, and may change all of it. Use `https://`.",
            );
        }
        url
    }

    fn storage_class(&mut self, at: &At, class: String) -> String {
        if FROZEN_CLASSES.contains(&class.as_str()) {
            let message = format!("objects of the class `{class}` cannot be read at once, so no copy could be checked");
            self.findings.error(at, message).help("`GLACIER_IR` can be, or let a rule of the bucket move them later.");
        }
        self.not_empty(at, class)
    }

    /// Whether the storages stand beside each other and beside our own directories.
    pub(super) fn storages_fit(&mut self, storages: &BTreeMap<String, Written>, daemon: &Daemon) {
        let mut seen: Vec<&Written> = Vec::new();
        for written in storages.values() {
            for other in &seen {
                self.apart(written, other);
            }
            seen.push(written);
            let Place::Filesystem { path } = &written.storage.place else { continue };
            let own = [("state_dir", &daemon.state_dir), ("scratch_dir", &daemon.scratch_dir)];
            if let Some((key, _)) = own.into_iter().find(|(_, own)| path.starts_with(own)) {
                let problem = self.findings.error(&written.at().key("path"), format!("lies in `{key}`"));
                problem.help("A storage needs a directory of its own, better on another disk.");
            } else if let Some((key, _)) = own.into_iter().find(|(_, own)| is_within(own, path)) {
                let problem = self.findings.warning(&written.at().key("path"), format!("`{key}` lies in it"));
                problem.help("A storage needs a directory of its own.");
            }
        }
    }

    fn apart(&mut self, written: &Written, other: &Written) {
        let name = &other.storage.name;
        match (&written.storage.place, &other.storage.place) {
            (Place::Filesystem { path }, Place::Filesystem { path: theirs }) if path == theirs => {
                self.same_place(&written.at().key("path"), name);
            }
            (Place::Filesystem { path }, Place::Filesystem { path: theirs })
                if is_within(path, theirs) || is_within(theirs, path) =>
            {
                let message = format!("this and the directory of storage `{name}` lie in one another");
                self.findings.warning(&written.at().key("path"), message);
            }
            (Place::S3(s3), Place::S3(theirs))
                if (&s3.endpoint, &s3.bucket, &s3.prefix) == (&theirs.endpoint, &theirs.bucket, &theirs.prefix) =>
            {
                self.same_place(&written.at().key("bucket"), name);
            }
            _ => {}
        }
    }

    fn same_place(&mut self, at: &At, other: &str) {
        // What is missing or impossible is told already.
        if self.findings.is_written(at) {
            let problem = self.findings.error(at, format!("is the place of storage `{other}` already"));
            problem.help("Two copies in one place are one copy.");
        }
    }

    /// A storage that no database names gets no copy of anything.
    pub(super) fn storages_are_used<'l>(
        &mut self,
        storages: &BTreeMap<String, Written>,
        layers: impl Iterator<Item = &'l Layer> + Clone,
        used: &BTreeSet<&String>,
    ) {
        if layers.clone().any(|layer| self.findings.is_damaged(&layer.at().key("storage"))) {
            return;
        }
        for (_, written) in storages.iter().filter(|(name, _)| !used.contains(name)) {
            let problem = self.findings.warning(&written.at(), "no database uses this storage");
            problem.help(
                "Name it in the `storage` of a database; take it out when none of its backups is needed any more.",
            );
        }
    }
}

/// Whether a path is below a directory, and not the directory itself.
fn is_within(path: &Path, directory: &Path) -> bool {
    !directory.as_os_str().is_empty() && path != directory && path.starts_with(directory)
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use crate::policy::{
        Place, S3,
        check::{errors, parse, warnings},
    };

    const NONE: [&str; 0] = [];

    /// The one error about a storage `x` with these keys.
    fn refused(keys: &str) -> String {
        let told = errors(&format!("[storage.x]\n{keys}"));
        assert_eq!(told.len(), 1, "{keys}\n{told:#?}");
        told.into_iter().next().unwrap()
    }

    fn s3(keys: &str) -> S3 {
        let policy = parse(&format!("[storage.x]\ntype = \"s3\"\nbucket = \"acme\"\n{keys}")).unwrap();
        match &policy.storages["x"].place {
            Place::S3(s3) => (**s3).clone(),
            Place::Filesystem { .. } => panic!("it is a bucket"),
        }
    }

    #[test]
    fn a_storage_is_of_one_type_and_whole() {
        for (keys, message) in [
            ("", "storage.x: needs a `type`"),
            ("type = \"ftp\"", "is not one of: filesystem, s3"),
            ("type = \"filesystem\"", "storage.x: needs a `path`"),
            ("type = \"filesystem\"\npath = \"backups\"", "must be an absolute path"),
            ("type = \"filesystem\"\npath = \"/srv/../etc\"", "may not hold `..`"),
            (
                "type = \"filesystem\"\npath = \"/srv\"\nbucket = \"acme\"",
                "`bucket` makes no sense with `type = \"filesystem\"`",
            ),
            ("type = \"s3\"", "storage.x: needs a `bucket`"),
            ("type = \"s3\"\nbucket = \"acme\"\npath = \"/srv\"", "`path` makes no sense with `type = \"s3\"`"),
            ("type = \"s3\"\nbucket = \"s3://acme/x\"", "is no name of a bucket"),
            ("type = \"s3\"\nbucket = \"acme\"\nprefix = \"a/../b\"", "is no prefix of keys"),
            ("type = \"s3\"\nbucket = \"acme\"\nendpoint = \"s3.example.com\"", "is no URL of a service"),
            ("type = \"s3\"\nbucket = \"acme\"\nattempts = 0", "must be at least 1"),
            ("type = \"s3\"\nbucket = \"acme\"\ntimeout = \"0s\"", "must be longer than zero"),
            ("type = \"s3\"\nbucket = \"acme\"\nstorage_class = \"DEEP_ARCHIVE\"", "so no copy could be checked"),
            ("type = \"s3\"\nbucket = \"acme\"\nserver_side_encryption = \"aes256\"", "is not one of: AES256, aws:kms"),
            ("type = \"s3\"\nbucket = \"acme\"\nkms_key = \"k\"", "`kms_key` is not used"),
            ("type = \"s3\"\nbucket = \"acme\"\naccess_key = \"env:K\"", "`access_key` needs a `secret_key` beside it"),
            ("type = \"s3\"\nbucket = \"acme\"\nsecret_key = \"env:K\"", "`secret_key` needs a `access_key` beside it"),
        ] {
            let told = refused(keys);
            assert!(told.contains(message), "{keys}\n{told}");
        }
        let typo = refused("type = \"s3\"\nbucket = \"acme\"\nendpont = \"https://s3.example.com\"");
        assert!(typo.contains("did you mean `endpoint`?"), "{typo}");
    }

    #[test]
    fn a_bucket_has_the_defaults_that_suit_it() {
        let plain = s3("");
        assert_eq!((plain.region.as_str(), plain.path_style, plain.attempts), ("us-east-1", false, 5));
        assert_eq!((plain.prefix.as_str(), plain.timeout.as_secs()), ("", 60));
        let own = s3("endpoint = \"https://s3.example.com\"\nprefix = \"/backups/eu/\"");
        assert_eq!((own.prefix.as_str(), own.path_style), ("backups/eu", true));
        assert!(!s3("endpoint = \"https://s3.example.com\"\npath_style = false").path_style);
        let kms = s3("server_side_encryption = \"aws:kms\"\nkms_key = \"k\"");
        assert_eq!(kms.server_side_encryption.as_deref(), Some("aws:kms"));
    }

    #[test]
    fn no_secret_may_stand_in_a_storage_nor_is_it_repeated() {
        for keys in [
            "endpoint = \"https://backup:hunter2@s3.example.com\"",
            "access_key = \"hunter2\"\nsecret_key = \"env:K\"",
            "access_key = \"env:K\"\nsecret_key = \"hunter2\"",
            "secret_key = hunter2",
            "session_token = [\"hunter2\"]",
        ] {
            let problems = parse(&format!("[storage.x]\ntype = \"s3\"\nbucket = \"acme\"\n{keys}")).unwrap_err();
            for told in [problems.to_string(), serde_json::to_string(&problems).unwrap(), format!("{problems:?}")] {
                assert!(!told.contains("hunter2"), "{keys}\n{told}");
            }
        }
    }

    #[test]
    fn an_endpoint_without_tls_is_unwise_unless_it_is_this_host() {
        let told = |url: &str| {
            let text = format!("[storage.x]\ntype = \"s3\"\nbucket = \"acme\"\nendpoint = \"{url}\"");
            warnings(&text).into_iter().filter(|warning| warning.contains("is not encrypted")).count()
        };
        for (url, expected) in [
            ("http://minio.example.com:9000", 1),
            ("http://10.0.0.7", 1),
            ("http://127.0.0.1:9000", 0),
            ("http://localhost/", 0),
            ("http://[::1]:9000", 0),
            ("https://minio.example.com:9000", 0),
        ] {
            assert_eq!(told(url), expected, "{url}");
        }
    }

    #[test]
    fn a_storage_has_a_place_of_its_own() {
        let own = |path: &str| {
            errors(&format!(
                "[daemon]\nstate_dir = \"/var/lib/b\"\nscratch_dir = \"/srv/scratch\"\n[storage.x]\ntype = \"filesystem\"\npath = \"{path}\""
            ))
        };
        assert!(own("/var/lib/b")[0].contains("storage.x.path: lies in `state_dir`"));
        assert!(own("/var/lib/b/dumps")[0].contains("storage.x.path: lies in `state_dir`"));
        assert!(own("/srv/scratch/dumps")[0].contains("storage.x.path: lies in `scratch_dir`"));
        assert_eq!(own("/var/lib/backups"), NONE);

        let two = |a: &str, b: &str| format!("[storage.a]\n{a}\n[storage.b]\n{b}");
        let directory = |path: &str| format!("type = \"filesystem\"\npath = \"{path}\"");
        let told = errors(&two(&directory("/srv/a"), &directory("/srv/a/")));
        assert!(told[0].contains("storage.b.path: is the place of storage `a` already"), "{told:#?}");
        let told = warnings(&two(&directory("/srv"), &directory("/srv/b")));
        assert!(told.iter().any(|warning| warning.contains("lie in one another")), "{told:#?}");
        let bucket = |prefix: &str| format!("type = \"s3\"\nbucket = \"acme\"\nprefix = \"{prefix}\"");
        assert!(errors(&two(&bucket("x"), &bucket("x/")))[0].contains("is the place of storage `a` already"));
        assert_eq!(errors(&two(&bucket("x"), &bucket("y"))), NONE);
        assert_eq!(errors(&two("type = \"s3\"", "type = \"s3\"")).len(), 2, "what is missing is no place");
    }

    #[test]
    fn a_storage_that_nobody_uses_is_told_and_an_old_key_is_not() {
        let told = warnings(
            "[storage.x]\ntype = \"filesystem\"\npath = \"/srv\"\n\
             [encryption.old]\ntype = \"aes256\"\npassphrase = \"file:/k\"",
        );
        let unused: Vec<_> = told.iter().filter(|warning| warning.contains("uses")).collect();
        assert_eq!(unused.len(), 1, "{told:#?}");
        assert!(unused[0].contains("storage.x: no database uses this storage"), "{told:#?}");
    }

    #[test]
    fn storages_and_keys_may_stand_in_conf_d_once() {
        let storage = "[storage.x]\ntype = \"filesystem\"\npath = \"/srv\"";
        let files = |second: &str| {
            let files = [("backstop.toml", storage), ("conf.d/b.toml", second)];
            crate::policy::Policy::parse(files.iter().map(|(path, text)| (path.into(), (*text).to_owned())).collect())
        };
        let policy = files("[encryption.k]\ntype = \"aes256\"\npassphrase = \"file:/k\"").unwrap();
        assert_eq!((policy.storages.len(), policy.keys.len()), (1, 1));
        assert!(files(storage).unwrap_err().to_string().contains("storage.x: is defined in `backstop.toml` already"));
    }
}
