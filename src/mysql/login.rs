//! How the client and the dump tool log in: an option file that only we can read, in a directory that only we can enter.
//!
//! It comes after the user's own option file, which it includes, so that the policy wins. `~/.my.cnf` is read after
//! both; where the policy gives a password, `HOME` is therefore a place without one. A newcomer would write the value
//! without quotes: `Pa#55` is then read as `Pa`.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::{
    policy::{Database, MySql, Secret, SecretError},
    process::Command,
};

/// What the policy says of a connection, with its password.
#[derive(Debug, Clone)]
pub struct Login {
    settings: MySql,
    password: Option<Secret>,
}

impl Login {
    /// The login of a database, with its password read now.
    ///
    /// # Errors
    /// When the password cannot be read.
    pub fn of(database: &Database) -> Result<Self, SecretError> {
        let password = database.password.as_ref().map(|secret| secret.read()).transpose()?;
        Ok(Self::new(database.dump.mysql.clone(), password))
    }

    pub(super) fn new(settings: MySql, password: Option<Secret>) -> Self {
        Self { settings, password }
    }

    /// Writes the option file into a private directory and gives its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, directory: &Path) -> io::Result<PathBuf> {
        let path = directory.join("login.cnf");
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(self.text().as_bytes())?;
        Ok(path)
    }

    /// Makes a command that reads the option file keep the password to itself, and take it from nowhere else.
    pub fn protect(&self, command: Command, directory: &Path) -> Command {
        match &self.password {
            Some(password) => command.secret(password).env("HOME", directory),
            None => command,
        }
    }

    fn text(&self) -> String {
        let MySql { host, port, socket, user, defaults_file, .. } = &self.settings;
        let include = defaults_file.as_ref().map(|file| format!("!include {}\n", file.display()));
        let options = [
            ("host", host.clone()),
            ("port", port.map(|port| port.to_string())),
            ("socket", socket.as_ref().map(|socket| socket.display().to_string())),
            ("user", user.clone()),
            ("password", self.password.as_ref().map(|password| password.expose().to_owned())),
        ];
        let lines = options.into_iter().filter_map(|(name, value)| Some(format!("{name}={}\n", quoted(&value?))));
        include.into_iter().chain(["[client]\n".to_owned()]).chain(lines).collect()
    }
}

/// A value as option files hold it.
fn quoted(value: &str) -> String {
    let escaped = value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n").replace('\r', r"\r");
    format!("\"{escaped}\"")
}

/// A directory of our own that goes when the value is dropped.
#[derive(Debug)]
pub(super) struct Private(PathBuf);

impl Private {
    /// Makes one, in memory where systemd gives us a place. Never takes one that is there already.
    pub(super) fn new() -> io::Result<Self> {
        let parent = std::env::var_os("RUNTIME_DIRECTORY").map_or_else(std::env::temp_dir, PathBuf::from);
        let path = parent.join(format!("backstop-login-{}", uuid::Uuid::now_v7()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a file with a password could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn login() -> Login {
        let settings = MySql {
            host: Some("db1".into()),
            port: Some(3307),
            socket: None,
            user: Some("backup".into()),
            databases: vec![],
            defaults_file: Some("/etc/backstop/tls.cnf".into()),
        };
        Login::new(settings, Some(Secret::new("Pa#55 \"w\\o\\\\rd'; ")))
    }

    #[test]
    fn every_value_is_quoted_and_the_policy_comes_after_the_users_own_file() {
        insta::assert_snapshot!(login().text(), @r#"
        !include /etc/backstop/tls.cnf
        [client]
        host="db1"
        port="3307"
        user="backup"
        password="Pa#55 \"w\\o\\\\rd'; "
        "#);
    }

    #[test]
    fn what_the_policy_does_not_say_is_left_to_the_client() {
        let login = Login::new(MySql::default(), None);
        assert_eq!(login.text(), "[client]\n");
        let command = login.protect(Command::new("mariadb"), Path::new("/run/x"));
        assert_eq!(command.display(), "mariadb");
    }

    #[test]
    fn only_we_can_read_the_file_and_it_goes_with_its_directory() {
        let private = Private::new().unwrap();
        let directory = private.path().to_owned();
        let file = login().write(&directory).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&directory), mode(&file)), (0o700, 0o600));
        drop(private);
        assert!(!directory.exists());
    }

    #[test]
    fn a_login_shows_no_password() {
        assert!(!format!("{:?}", login()).contains("Pa#55"));
    }
}
