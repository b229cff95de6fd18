//! A real S3 service for tests, by `scripts/s3`, gone when the value is dropped.

use std::{fs, path::Path, process::Command, time::Duration};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::policy::{Place, S3, SecretRef, Storage};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/s3");

/// A service with the buckets `backups` and `locked`.
pub(crate) struct Service {
    directory: tempfile::TempDir,
}

impl Service {
    pub(crate) fn up() -> Self {
        let service = Self { directory: tempfile::tempdir().unwrap() };
        service.write("access", "test");
        service.write("secret", "hunter-two");
        // Below the temporary directory, because the script removes what it made, and only that.
        run(["up", service.path("s3").to_str().unwrap()]);
        service
    }

    /// One that is not there, for what happens before the first request.
    pub(crate) fn pretended() -> Self {
        let service = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(service.path("s3")).unwrap();
        service.write("access", "test");
        service.write("secret", "hunter-two");
        service.write("s3/endpoint", "https://127.0.0.1:1");
        service
    }

    /// The settings of a bucket, impatient enough for a test.
    pub(crate) fn settings(&self, bucket: &str) -> S3 {
        S3 {
            bucket: bucket.to_owned(),
            prefix: "here/below".to_owned(),
            region: "us-east-1".to_owned(),
            endpoint: Some(fs::read_to_string(self.path("s3/endpoint")).unwrap().trim().to_owned()),
            ca_file: Some(self.path("s3/ca.crt")),
            path_style: true,
            storage_class: None,
            server_side_encryption: None,
            kms_key: None,
            object_lock: None,
            access_key: Some(SecretRef::File(self.path("access"))),
            secret_key: Some(SecretRef::File(self.path("secret"))),
            session_token: None,
            attempts: 2,
            timeout: Duration::from_secs(5),
        }
    }

    /// Runs Python with `s3`, a client of the service; gives what it prints.
    #[track_caller]
    pub(crate) fn python(&self, code: &str) -> String {
        run(["python", self.path("s3").to_str().unwrap(), code])
    }

    /// Makes requests fail, as `scripts/s3` tells.
    pub(crate) fn fail(&self, fault: &str) {
        self.write("s3/fault", fault);
    }

    /// Makes them succeed again.
    pub(crate) fn mend(&self) {
        let _ = fs::remove_file(self.path("s3/fault"));
    }

    /// Kills it.
    pub(crate) fn kill(&self) {
        self.signal(Signal::SIGKILL).unwrap();
    }

    /// Makes it silent, without closing a connection.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::SIGSTOP).unwrap();
    }

    fn signal(&self, signal: Signal) -> nix::Result<()> {
        let group = fs::read_to_string(self.path("s3/pid")).unwrap();
        killpg(Pid::from_raw(group.trim().parse().unwrap()), signal)
    }

    fn path(&self, below: &str) -> std::path::PathBuf {
        self.directory.path().join(below)
    }

    fn write(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if !self.path("s3/pid").exists() {
            return;
        }
        // Nothing to do about a failure here.
        let _ = command(SCRIPT).arg("down").arg(self.path("s3")).status();
    }
}

/// Opens a bucket with these settings as the storage `far`.
pub(crate) async fn open(settings: S3) -> Result<super::Storage, super::Error> {
    super::Storage::open(&Storage { name: "far".to_owned(), place: Place::S3(Box::new(settings)) }).await
}

/// Opens a directory as the storage `near`.
pub(crate) async fn open_directory(path: &Path) -> Result<super::Storage, super::Error> {
    let place = Place::Filesystem { path: path.to_owned() };
    super::Storage::open(&Storage { name: "near".to_owned(), place }).await
}

#[expect(clippy::disallowed_methods, reason = "the service must end when a test panics, outside of any runtime")]
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(std::process::Stdio::null());
    command
}

#[track_caller]
fn run<const N: usize>(arguments: [&str; N]) -> String {
    let output = command(SCRIPT).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
