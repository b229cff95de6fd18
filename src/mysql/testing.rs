//! A throw-away MariaDB server for tests, by `scripts/mariadb`; gone when the value is dropped.

use std::path::{Path, PathBuf};

use super::Client;
use crate::{
    policy::{Database, MySql, Policy},
    process::{self, Command, Stop},
    record::EngineKind,
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/mariadb");

/// A server and its directory.
pub(crate) struct Throwaway(PathBuf);

impl Throwaway {
    pub(crate) async fn up() -> Self {
        let directory = std::env::temp_dir().join(format!("backstop-my-{}", uuid::Uuid::now_v7()));
        // The value comes first, so that a server that fails half way is taken down as well.
        let server = Self(directory);
        let answer = process::capture(&Command::new(SCRIPT).arg("up").arg(&server.0), &Stop::never()).await.unwrap();
        assert!(answer.ok(), "{}", answer.stderr);
        server
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.0.join(below)
    }

    /// Does what `sql` says, as the server's `root`, and gives the answer.
    #[track_caller]
    pub(crate) fn sql(&self, sql: &str) -> impl Future<Output = Vec<Vec<String>>> {
        let client = Client::at_socket(&self.path("sock"), None);
        let sql = sql.to_owned();
        async move { client.query(&sql).await.unwrap() }
    }

    /// A database of a policy on this server, as its user `backup`.
    pub(crate) fn database(&self, databases: &[&str]) -> Database {
        let settings = MySql {
            socket: Some(self.path("sock")),
            user: Some("backup".into()),
            databases: databases.iter().map(|name| (*name).to_owned()).collect(),
            ..MySql::default()
        };
        database(settings, &self.path("password"))
    }
}

impl Drop for Throwaway {
    #[expect(clippy::disallowed_methods, reason = "a value is dropped without a runtime")]
    fn drop(&mut self) {
        let _ = std::process::Command::new(SCRIPT).arg("down").arg(&self.0).status();
    }
}

/// A database `shop` of this engine.
pub(crate) fn database(settings: MySql, password: &Path) -> Database {
    let text = "[database.shop]\nenvironment = \"staging\"\n".to_owned();
    let mut policy = Policy::parse(vec![("p.toml".into(), text)]).unwrap();
    let mut database = policy.databases.pop_first().unwrap().1;
    database.engine = EngineKind::MySqlDump;
    database.dump.mysql = settings;
    database.password = Some(format!("file:{}", password.display()).parse().unwrap());
    database
}
