//! An S3 service: a throw-away one by `scripts/s3`, gone when the value is dropped.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::{Pid, User, geteuid},
};

use super::{command, must};

/// A service with two empty buckets: `backups`, and `locked` with object lock.
pub(crate) struct S3 {
    dir: PathBuf,
}

impl S3 {
    /// What starts it and ends it, and is its client.
    pub(super) const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/s3");

    /// Starts it.
    #[track_caller]
    pub(crate) fn up() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // The value comes first, so that a service that fails half way is taken down as well.
        let s3 = Self { dir: std::env::temp_dir().join(format!("backstop-it-s3-{}-{number}", std::process::id())) };
        s3.script("up", &[]);
        s3.write_secret("access-key", "access-of-the-test");
        s3.write_secret("secret-key", "secret-of-the-test");
        s3
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its URL.
    pub(crate) fn endpoint(&self) -> String {
        fs::read_to_string(self.dir.join("endpoint")).unwrap().trim().to_owned()
    }

    /// The authority that vouches for it.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// The section of the policy for one of its buckets, impatient enough for a test; `more` are more keys.
    pub(crate) fn policy(&self, name: &str, bucket: &str, more: &str) -> String {
        let (dir, ca_file) = (self.dir.display(), self.ca_file());
        format!(
            r#"[storage.{name}]
type = "s3"
bucket = "{bucket}"
prefix = "below"
endpoint = "{}"
ca_file = "{}"
path_style = true
access_key = "file:{dir}/access-key"
secret_key = "file:{dir}/secret-key"
attempts = 2
timeout = "5s"
{more}
"#,
            self.endpoint(),
            ca_file.display(),
        )
    }

    /// The keys in a bucket, sorted.
    #[track_caller]
    pub(crate) fn keys(&self, bucket: &str) -> Vec<String> {
        let listed = format!("for o in s3.list_objects_v2(Bucket='{bucket}').get('Contents', []): print(o['Key'])");
        self.python(&listed).lines().map(str::to_owned).collect()
    }

    /// What an object holds.
    #[track_caller]
    pub(crate) fn get(&self, bucket: &str, key: &str, into: &Path) {
        self.python(&format!("s3.download_file('{bucket}', '{key}', '{}')", into.display()));
    }

    /// Flips one bit in the middle of an object.
    #[track_caller]
    pub(crate) fn flip_bit(&self, bucket: &str, key: &str) {
        self.change(bucket, key, "b[len(b) // 2] ^= 1");
    }

    /// Cuts an object in half.
    #[track_caller]
    pub(crate) fn truncate(&self, bucket: &str, key: &str) {
        self.change(bucket, key, "b = b[:len(b) // 2]");
    }

    /// The uploads in parts that have not ended.
    #[track_caller]
    pub(crate) fn unfinished(&self, bucket: &str) -> usize {
        self.python(&format!("print(len(s3.list_multipart_uploads(Bucket='{bucket}').get('Uploads', [])))"))
            .parse()
            .unwrap()
    }

    /// Runs Python with `s3`, a boto3 client; gives what it prints.
    #[track_caller]
    pub(crate) fn python(&self, code: &str) -> String {
        self.script("python", &[code])
    }

    /// Makes requests fail, e.g. `PUT partNumber=2 403 AccessDenied`; `scripts/s3` tells the form.
    pub(crate) fn fail(&self, fault: &str) {
        fs::write(self.dir.join("fault"), fault).unwrap();
    }

    /// Makes them succeed again.
    pub(crate) fn mend(&self) {
        fs::remove_file(self.dir.join("fault")).unwrap();
    }

    /// Kills it; what it kept is lost.
    pub(crate) fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// Makes it silent, without closing a connection, until [`thaw`](Self::thaw).
    pub(crate) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let group = fs::read_to_string(self.dir.join("pid")).unwrap();
        killpg(Pid::from_raw(group.trim().parse().unwrap()), signal).unwrap();
    }

    #[track_caller]
    fn change(&self, bucket: &str, key: &str, how: &str) {
        let (get, put) = (format!("s3.get_object(Bucket='{bucket}', Key='{key}')"), "s3.put_object");
        self.python(&format!(
            "b = bytearray({get}['Body'].read())\n{how}\n{put}(Bucket='{bucket}', Key='{key}', Body=b)"
        ));
    }

    #[track_caller]
    fn script(&self, verb: &str, more: &[&str]) -> String {
        let mut script = command(Self::SCRIPT);
        // Where a developer who is not root has the server.
        script.envs(["HOME", "XDG_DATA_HOME"].iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        must(script.arg(verb).arg(&self.dir).args(more)).trim().to_owned()
    }

    /// A file for whoever the program becomes, as labs have it.
    fn write_secret(&self, name: &str, text: &str) {
        let path = self.dir.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        if geteuid().is_root() {
            let owner = User::from_name("postgres").unwrap().expect("PostgreSQL is installed");
            chown(&path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw())).unwrap();
        }
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // Nothing to do about a failure here; the next look at the temporary directory shows it.
        let _ = command(Self::SCRIPT).arg("down").arg(&self.dir).status();
    }
}
