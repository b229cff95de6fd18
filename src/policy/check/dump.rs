//! The dump engines: the tables of a section by themselves, and what a database that is dumped must have.
//!
//! A newcomer would look for a default storage; a dump that goes nowhere in particular is found by nobody.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use super::{
    Checker, MINUTE,
    database::{Layers, Shared},
    jobs::Planned,
    key::NOT_ENCRYPTED,
    layer::Layer,
};
use crate::{
    policy::{
        Database, Dump, KeyKind, MySql, OnShrink, Place, Sqlite,
        file::{self, Format, Length},
        mask,
        source::At,
    },
    record::{DatabaseName, DumpFormat, EngineKind, JobKind},
};

/// `[database.NAME.dump]` as checked; which form is usual depends on the engine.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    format: Option<DumpFormat>,
    /// What stands elsewhere is still as it is by default.
    rest: Dump,
}

impl Checker<'_, '_> {
    /// Checks `dump`.
    pub(super) fn dump_table(&mut self, at: &At, typed: file::Dump) -> Table {
        let usual = Dump::default();
        let shrink_below = typed.shrink_below.unwrap_or(usual.shrink_below);
        if !(0.0..=1.0).contains(&shrink_below) {
            self.findings.error(&at.key("shrink_below"), "must be between 0 and 1");
        }
        let format = typed.format.map(|format| match format {
            Format::Plain => DumpFormat::Plain,
            Format::Custom => DumpFormat::Custom,
            Format::Directory => DumpFormat::Directory,
        });
        let rest = Dump {
            jobs: typed.jobs.map_or(usual.jobs, |count| self.at_least_one(&at.key("jobs"), count)),
            lock_timeout: typed
                .lock_timeout
                .map_or(usual.lock_timeout, |length| self.positive(&at.key("lock_timeout"), length)),
            tool_dir: typed.tool_dir.map(|path| self.absolute(&at.key("tool_dir"), path)),
            globals: typed.globals.unwrap_or(usual.globals),
            shrink_below,
            on_shrink: typed.on_shrink.unwrap_or(OnShrink::Warn),
            ..usual
        };
        Table { format, rest }
    }

    /// Checks `mysql`.
    pub(super) fn mysql(&mut self, at: &At, typed: file::MySql) -> MySql {
        if typed.host.is_some() && typed.socket.is_some() {
            let problem = self.findings.key_error(&at.key("socket"), "`socket` and `host` are two ways to one server");
            problem.help("Write one of them.");
        }
        if typed.port.is_some() && typed.host.is_none() && !self.findings.is_damaged(&at.key("host")) {
            let problem = self.findings.key_error(&at.key("port"), "`port` needs a `host` beside it");
            problem.help("Without a host the client uses the socket; write for example `host = \"127.0.0.1\"`.");
        }
        if typed.port == Some(0) {
            self.findings.error(&at.key("port"), "must be at least 1");
        }
        let databases = typed.databases.unwrap_or_default();
        self.listed_once(&at.key("databases"), &databases);
        MySql {
            host: typed.host.map(|host| self.host(&at.key("host"), host)),
            port: typed.port,
            socket: typed.socket.map(|path| self.absolute(&at.key("socket"), path)),
            user: typed.user.map(|user| self.not_empty(&at.key("user"), user)),
            databases,
            defaults_file: typed.defaults_file.map(|path| self.absolute(&at.key("defaults_file"), path)),
        }
    }

    fn host(&mut self, at: &At, host: String) -> String {
        if mask::has_login(&host) {
            let problem = self.findings.error(at, "a password may not stand in the policy");
            problem.help("Write `user` beside it, and say where the password is: `password = \"file:/path\"`.");
        } else if host.contains(['/', '@', '=']) || host.contains(char::is_whitespace) {
            let problem = self.findings.error(at, "is no host");
            problem.help("Write a name or an address; a socket goes into `socket`, the port into `port`.");
        }
        self.not_empty(at, host)
    }

    fn listed_once(&mut self, at: &At, names: &[String]) {
        if names.is_empty() && self.findings.is_list(at) && !self.findings.is_damaged(at) {
            self.findings.error(at, "an empty list names nothing").help("Leave the key out.");
            self.findings.damage(at);
        }
        for (index, name) in names.iter().enumerate() {
            let element = at.index(index);
            let at = if self.findings.is_list(at) { &element } else { at };
            if name.trim().is_empty() {
                self.findings.error(at, "must not be empty");
            } else if names[..index].contains(name) {
                self.findings.error(at, format!("`{name}` stands twice"));
            }
        }
    }

    /// Checks `sqlite`.
    pub(super) fn sqlite(&mut self, at: &At, typed: file::Sqlite) -> Sqlite {
        let busy_timeout = typed.busy_timeout.map_or(MINUTE / 2, |Length(length)| length);
        Sqlite { path: typed.path.map(|path| self.absolute(&at.key("path"), path)).unwrap_or_default(), busy_timeout }
    }

    /// Whether the storages and the key that a section names are defined.
    pub(super) fn names_are_defined(&mut self, layer: &Layer, shared: &Shared) {
        let section = layer.at();
        let list = section.key("storage");
        let names = layer.storage.as_deref().unwrap_or_default();
        self.listed_once(&list, names);
        for (index, name) in names.iter().enumerate().filter(|(_, name)| !shared.storages.contains_key(*name)) {
            let element = list.index(index);
            let at = if self.findings.is_list(&list) { &element } else { &list };
            let problem = self.findings.error(at, format!("there is no storage `{name}`"));
            let known = shared.storages.keys().map(String::as_str);
            problem.help(format!("Write a `[storage.{name}]`.")).suggest(name, known);
        }
        let key = layer.encryption.as_deref().filter(|name| *name != NOT_ENCRYPTED);
        if let Some(name) = key.filter(|name| !shared.keys.contains_key(*name)) {
            let problem = self.findings.error(&section.key("encryption"), format!("there is no key `{name}`"));
            let known = shared.keys.keys().map(String::as_str).chain([NOT_ENCRYPTED]);
            problem.help(format!("Write an `[encryption.{name}]`, or \"none\".")).suggest(name, known);
        }
    }

    /// Whether a database that is dumped has all it needs.
    pub(super) fn dump_fits(&mut self, database: &Database, planned: &[Planned], layers: &Layers, shared: &Shared) {
        if !database.engine.is_dump() {
            return;
        }
        let own = layers.own.at();
        self.source_is_named(database, &own);
        if database.dump.storages.is_empty() && !self.is_damaged_in(layers, "storage") {
            let problem = self.findings.error(&own, format!("the engine `{}` needs a `storage`", database.engine));
            problem.help("Write `storage = \"NAME\"` and a `[storage.NAME]`.");
        }
        self.is_encrypted_enough(database, layers);
        self.passwords_are_encrypted(database, layers);
        self.can_be_read(database, planned, layers, shared);
        self.locks_end(database, layers, shared);
    }

    /// What is dumped.
    fn source_is_named(&mut self, database: &Database, own: &At) {
        let (key, help) = match database.engine {
            EngineKind::PgDump if database.connection.is_none() => {
                ("connection", "Write for example `connection = \"service=shop\"`.")
            }
            EngineKind::Sqlite if database.dump.sqlite.path.as_os_str().is_empty() => {
                ("sqlite.path", "Write for example `sqlite = { path = \"/srv/wiki/wiki.db\" }`.")
            }
            _ => return,
        };
        let table = own.key("sqlite");
        let at = if key == "connection" { own.key(key) } else { table.key("path") };
        if !self.findings.is_damaged(&at) {
            let problem = self.findings.error(own, format!("the engine `{}` needs a `{key}`", database.engine));
            problem.help(help);
        }
    }

    fn is_encrypted_enough(&mut self, database: &Database, layers: &Layers) {
        let tier = &database.tier;
        if !tier.encryption_required || database.dump.encryption.is_some() || self.is_damaged_in(layers, "encryption") {
            return;
        }
        let message = format!("tier `{}` requires encryption, but the dumps are not encrypted", tier.name);
        let written = layers.written(|layer| layer.encryption.as_ref());
        let section = written.map_or(layers.own, |(_, layer)| layer).at();
        let key = section.key("encryption");
        let problem = self.findings.error(if written.is_some() { &key } else { &section }, message);
        problem.help("Write `encryption = \"NAME\"` and an `[encryption.NAME]`.");
    }

    /// The roles of the cluster are dumped with what their passwords are checked by.
    fn passwords_are_encrypted(&mut self, database: &Database, layers: &Layers) {
        let dump = &database.dump;
        let has_passwords = database.engine == EngineKind::PgDump && dump.globals && dump.encryption.is_none();
        let is_told = database.tier.encryption_required;
        let is_damaged = ["encryption", "dump", "dump.globals"].iter().any(|key| self.is_damaged_in(layers, key));
        if has_passwords && !is_told && !is_damaged {
            let message = "the password hashes of all roles of the cluster will lie in the dumps in plain text";
            let problem = self.findings.warning(&layers.own.at(), message);
            problem.help(
                "Write `encryption = \"NAME\"` and an `[encryption.NAME]`, or `globals = false` in `dump`: no roles then.",
            );
        }
    }

    /// A host that only encrypts cannot prove that a restore works.
    fn can_be_read(&mut self, database: &Database, planned: &[Planned], layers: &Layers, shared: &Shared) {
        let is_tested = planned.iter().any(|planned| planned.job.key.kind == JobKind::TestRestore);
        let Some(key) = database.dump.encryption.as_ref().and_then(|name| shared.keys.get(name)) else { return };
        let KeyKind::Age { recipients, identity } = &key.kind else { return };
        if !is_tested || identity.is_some() || database.test_restore.identity.is_some() || recipients.is_empty() {
            return;
        }
        let files = 0..self.findings.sources().len();
        let is_damaged = |file| self.findings.is_damaged(&At::Section(file, "encryption", &key.name).key("identity"));
        if self.is_damaged_in(layers, "test_restore.identity") || files.into_iter().any(is_damaged) {
            return;
        }
        let message = format!(
            "a test restore is scheduled, but no secret key for `{}` is named, so it could read nothing",
            key.name
        );
        let help = format!(
            "Write `test_restore = {{ identity = \"/path/key.txt\" }}`, or `identity` in `[encryption.{}]`.",
            key.name
        );
        self.findings.error(&layers.own.at(), message).help(help);
    }

    /// An object is locked until a day; a rule that counts backups knows none.
    fn locks_end(&mut self, database: &Database, layers: &Layers, shared: &Shared) {
        let locks = |name: &&String| {
            let place = shared.storages.get(*name).map(|written| &written.storage.place);
            matches!(place, Some(Place::S3(s3)) if s3.object_lock.is_some())
        };
        let Some(name) = database.dump.storages.iter().find(locks) else { return };
        if database.retention.within.is_none()
            && let Some((_, layer)) = layers.written(|layer| layer.retention.as_ref())
        {
            let section = layer.at();
            let message = format!("storage `{name}` locks its objects, but no rule says until when");
            let problem = self.findings.warning(&section.key("retention"), message);
            problem.help("Write `days` beside the other rules; without it nothing is locked.");
        }
    }

    /// Whether a key is missing in one of the sections only because it was wrong there.
    pub(super) fn is_damaged_in(&self, layers: &Layers, path: &str) -> bool {
        let sections = [Some(layers.own), Some(layers.defaults), layers.environment];
        sections.into_iter().flatten().any(|layer| match path.split_once('.') {
            Some((table, key)) => self.findings.is_damaged(&layer.at().key(table).key(key)),
            None => self.findings.is_damaged(&layer.at().key(path)),
        })
    }

    /// What only shows when all databases are known: storages that nobody uses, files that two databases are of.
    pub(super) fn dumps_fit_together(
        &mut self,
        databases: &BTreeMap<DatabaseName, Database>,
        layers: &BTreeMap<String, Layer>,
        shared: &Shared,
    ) {
        let used: BTreeSet<&String> = databases.values().flat_map(|database| &database.dump.storages).collect();
        let environments = shared.environments.values();
        self.storages_are_used(&shared.storages, layers.values().chain(environments).chain([&shared.defaults]), &used);
        let mut files: BTreeMap<&PathBuf, &DatabaseName> = BTreeMap::new();
        for (name, database) in databases.iter().filter(|(_, database)| database.engine == EngineKind::Sqlite) {
            let path = &database.dump.sqlite.path;
            let Some(other) = files.insert(path, name).filter(|_| !path.as_os_str().is_empty()) else { continue };
            let section = layers[name.as_str()].at();
            let table = section.key("sqlite");
            self.findings.warning(&table.key("path"), format!("is the file of database `{other}` already"));
        }
    }
}

/// How a database is dumped, from the sections it takes its values from.
pub(super) fn dump(engine: EngineKind, layers: &Layers) -> Dump {
    if !engine.is_dump() {
        return Dump::default();
    }
    let Table { format, rest } = layers.first(|layer| layer.dump.as_ref()).cloned().unwrap_or_default();
    let usual = match engine {
        EngineKind::PgBackRest | EngineKind::PgDump => DumpFormat::Custom,
        EngineKind::MySqlDump => DumpFormat::Plain,
        EngineKind::Sqlite => DumpFormat::File,
    };
    Dump {
        storages: layers.first(|layer| layer.storage.clone()).unwrap_or_default(),
        encryption: layers.first(|layer| layer.encryption.clone()).filter(|name| name != NOT_ENCRYPTED),
        compression: layers.first(|layer| layer.compression).unwrap_or_default(),
        format: format.filter(|_| engine == EngineKind::PgDump).unwrap_or(usual),
        mysql: layers.first(|layer| layer.mysql.clone()).unwrap_or_default(),
        sqlite: layers.own.sqlite.clone().unwrap_or(Sqlite { path: PathBuf::new(), busy_timeout: Duration::ZERO }),
        ..rest
    }
}
