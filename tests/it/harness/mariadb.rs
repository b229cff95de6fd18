//! A throw-away MariaDB server, by `scripts/mariadb`, gone when the value is dropped.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{command, must};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/mariadb");

/// A server on the socket `sock` in its directory, with a user `backup` whose password is in the file `password` there.
pub(crate) struct MariaDb {
    dir: PathBuf,
}

impl MariaDb {
    /// An empty one.
    #[track_caller]
    pub(crate) fn up() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("backstop-it-my-{}-{number}", std::process::id()));
        // The value comes first, so that a server that fails half way is taken down as well.
        let server = Self { dir };
        must(command(SCRIPT).arg("up").arg(&server.dir));
        server
    }

    /// A path below its directory.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.join(below)
    }

    /// Does what `statement` says, as the server's `root`; columns are parted by tabs.
    #[track_caller]
    pub(crate) fn sql(&self, statement: &str) -> String {
        must(command(SCRIPT).arg("sql").arg(&self.dir).args(["-e", statement])).trim().to_owned()
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        // A test that already fails must not abort here as well.
        let _ = command(SCRIPT).arg("down").arg(&self.dir).status();
    }
}
