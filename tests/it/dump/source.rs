//! The awkward databases of each engine, and a second place to which they are restored by hand.
//!
//! Both sides are told as text by the database's own tool. A newcomer would compare numbers of rows; a large object, the
//! state of a sequence or a role's setting is in no row.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::Value;

use crate::harness::{Lab, MariaDb, Site, Vault, sh};

/// A database to dump.
pub(super) trait Source {
    /// Whose site and vault it is.
    fn lab(&self) -> &Lab;

    /// The keys of its section: the engine, and what to dump in which form.
    fn policy(&self) -> String;

    /// What is to be recognised of its schema migrations: the tool, how many are applied, the last one.
    fn migrations(&self) -> (&'static str, u64, &'static str);

    /// What a backup of it warns of, if of anything.
    fn warning(&self) -> Option<&'static str> {
        None
    }

    /// All that is in the original.
    fn content(&self) -> String;

    /// Follows the commands of a manifest in an empty place; gives all that is there then.
    fn restored(&self, vault: &Vault, manifest: &Value) -> String;
}

fn awkward(name: &str) -> String {
    format!("{}/tests/samples/awkward/{name}.sql", env!("CARGO_MANIFEST_DIR"))
}

/// Puts a sample where everybody can read it.
fn put(name: &str, into: &std::path::Path) {
    fs::copy(awkward(name), into).unwrap();
    fs::set_permissions(into, fs::Permissions::from_mode(0o644)).unwrap();
}

/// A form of `pg_dump`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    Custom,
    Directory,
}

/// A database in one cluster, and a second cluster that has nothing of it, not even its role.
pub(super) struct Postgres {
    form: Form,
    lab: Lab,
    second: Lab,
}

/// What belongs to the database itself; the role comes with the sample.
const SETTINGS: &str = r#"
alter database "Shöp 'x' ""y""" set search_path = "Scheme with space", public;
alter role "Röle ""quoted""" in database "Shöp 'x' ""y""" set statement_timeout = '7min';
"#;

impl Postgres {
    /// Its name, as a shell has it between quotes.
    const NAME: &str = r#"Shöp '\''x'\'' "y""#;

    pub(super) fn up(form: Form) -> Self {
        let (lab, second) = (Lab::empty(), Lab::empty());
        put("postgres", &lab.path("awkward.sql"));
        fs::write(lab.path("settings.sql"), SETTINGS).unwrap();
        let name = Self::NAME;
        lab.run(&format!(
            "createdb '{name}'; psql -X -q -v ON_ERROR_STOP=1 -d '{name}' -f awkward.sql -f settings.sql > log/awkward"
        ));
        Self { form, lab, second }
    }

    /// The database, and the roles of its cluster. The tool's lines against injection hold a new random word each time.
    fn text(lab: &Lab, name: &str, how: &str) -> String {
        let no_words = r"grep -v '^\\\(un\)\?restrict '";
        lab.run(&format!("pg_dump {how} -d '{name}' | {no_words}; pg_dumpall --globals-only | {no_words}"))
    }

    /// Empties the second cluster and writes the commands of a manifest for it.
    fn prepare(&self, vault: &Vault, manifest: &Value) {
        let drop_role = r#"drop role if exists "Röle ""quoted""""#;
        self.second.run(&format!(
            "dropdb --if-exists again; dropdb --if-exists '{}'; psql -X -q -c '{drop_role}'",
            Self::NAME
        ));
        vault.write_by_hand(&self.second, manifest, &[("DB", "again")]);
    }

    /// Runs the commands of a manifest, which must fail; gives what they say, and the databases that there are then.
    pub(super) fn pasted(&self, vault: &Vault, manifest: &Value) -> (String, String) {
        self.prepare(vault, manifest);
        let told = self.second.run("cd hand; ! bash ../by-hand.sh 2>&1");
        let names = self.second.run("psql -X -A -t -d postgres -c 'select datname from pg_database order by 1'");
        (told, names)
    }

    /// The other way that the commands offer, in the last line: under its old name.
    fn under_its_old_name(&self) {
        self.second.run(
            "{ grep -E '^(PATH=|KEY=|set )' by-hand.sh; sed -n '$s/^#   //p' by-hand.sh; } > old-name.sh; \
             cd hand; bash -e ../old-name.sh",
        );
        let text = |lab| Self::text(lab, Self::NAME, "--create");
        super::same(&text(&self.second), &text(&self.lab), "under its old name");
    }
}

impl Source for Postgres {
    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn policy(&self) -> String {
        let form = format!("{:?}", self.form).to_lowercase();
        let connection =
            format!(r#"host={}/sock port=5432 user=postgres dbname='Shöp \'x\' "y"'"#, self.lab.dir().display());
        format!("engine = \"pg_dump\"\nconnection = '''{connection}'''\ndump = {{ format = \"{form}\", jobs = 2 }}\n")
    }

    fn migrations(&self) -> (&'static str, u64, &'static str) {
        ("prisma", 2, "20260201000000_add_orders")
    }

    /// What belongs to the database itself is not in this form.
    fn warning(&self) -> Option<&'static str> {
        (self.form == Form::Plain).then_some("search_path")
    }

    fn content(&self) -> String {
        let content = Self::text(&self.lab, Self::NAME, "");
        assert!(content.contains("lo_create('4711')") && content.contains("work_mem TO '7MB'"), "{content}");
        content
    }

    fn restored(&self, vault: &Vault, manifest: &Value) -> String {
        self.prepare(vault, manifest);
        self.second.run("cd hand; bash -e ../by-hand.sh");
        // It reads as the first way does, so one storage will do.
        if self.form != Form::Plain && !manifest["restore_by_hand"].to_string().contains("s3://") {
            self.under_its_old_name();
        }
        Self::text(&self.second, "again", "")
    }
}

/// Two databases of one MariaDB server, and a second server.
pub(super) struct Maria {
    lab: Lab,
    server: MariaDb,
    second: MariaDb,
}

impl Maria {
    /// A name with a quote in it is refused by mariadb-dump 10.11.14 itself (`Unknown database`).
    const NAME: &str = "shöp we-ird";

    pub(super) fn up() -> Self {
        let (lab, server, second) = (Lab::empty(), MariaDb::up(), MariaDb::up());
        let (sample, (uid, gid)) = (server.path("awkward.sql"), lab.owner());
        put("mariadb", &sample);
        server.sql(&format!(
            "create database other; create table other.one (a int); insert into other.one values (1);\n\
             create database `{0}` character set utf8mb4;\nuse `{0}`;\nsource {1}\n",
            Self::NAME,
            sample.display()
        ));
        fs::write(lab.path("login.cnf"), format!("[client]\nuser=root\nsocket={}\n", second.path("sock").display()))
            .unwrap();
        let (from, to) = (server.path("password"), lab.path("password"));
        sh(&format!("install -m 600 -o {uid} -g {gid} {} {}", from.display(), to.display()));
        Self { lab, server, second }
    }

    fn text(&self, server: &MariaDb) -> String {
        self.lab.run(&format!(
            "mariadb-dump --no-defaults --socket={} --user=root --skip-comments --hex-blob --routines --events --triggers \
             --default-character-set=utf8mb4 --databases '{}' other",
            server.path("sock").display(),
            Self::NAME
        ))
    }
}

impl Source for Maria {
    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn policy(&self) -> String {
        format!(
            "engine = \"mysqldump\"\npassword = \"file:{}\"\nmysql = {{ socket = \"{}\", user = \"backup\", databases = \
             [\"{}\", \"other\"] }}\n",
            self.lab.path("password").display(),
            self.server.path("sock").display(),
            Self::NAME
        )
    }

    fn migrations(&self) -> (&'static str, u64, &'static str) {
        ("knex", 2, "20260201_orders.js")
    }

    fn content(&self) -> String {
        let content = self.text(&self.server);
        assert!(
            ["PROCEDURE `fill`", "EVENT `tidy`", "trigger touch"].iter().all(|word| content.contains(word)),
            "{content}"
        );
        content
    }

    fn restored(&self, vault: &Vault, manifest: &Value) -> String {
        self.second.sql(&format!("drop database if exists `{}`; drop database if exists other", Self::NAME));
        let login = self.lab.path("login.cnf");
        vault.write_by_hand(&self.lab, manifest, &[("LOGIN", login.to_str().unwrap())]);
        self.lab.run("cd hand; bash -e ../by-hand.sh");
        self.text(&self.second)
    }
}

/// A file, and another that is replaced by what is restored.
pub(super) struct Sqlite {
    lab: Lab,
}

impl Sqlite {
    const FILE: &str = "data/wiki it's.db";

    pub(super) fn up() -> Self {
        let lab = Lab::empty();
        put("sqlite", &lab.path("awkward.sql"));
        lab.run(&format!("mkdir -m 700 data; sqlite3 \"{}\" < awkward.sql > log/awkward", Self::FILE));
        Self { lab }
    }

    /// What `.dump` leaves out, then `.dump`.
    fn text(&self, file: &str) -> String {
        self.lab.run(&format!(
            "sqlite3 -readonly \"{file}\" 'pragma user_version' 'pragma page_size' 'pragma journal_mode' 'pragma encoding' \
             'select rowid, * from rowid_matters' 'select rowid, * from \"nothing\"' .dump"
        ))
    }
}

impl Source for Sqlite {
    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn policy(&self) -> String {
        format!("engine = \"sqlite\"\nsqlite = {{ path = \"{}\" }}\n", self.lab.path(Self::FILE).display())
    }

    fn migrations(&self) -> (&'static str, u64, &'static str) {
        ("django", 2, "shop.0002_orders")
    }

    fn content(&self) -> String {
        let content = self.text(Self::FILE);
        assert!(content.starts_with("42\n4096\nwal\n") && content.contains("70|seventy"), "{content}");
        content
    }

    fn restored(&self, vault: &Vault, manifest: &Value) -> String {
        self.lab.run("rm -rf target; mkdir target; touch target/wiki.db; echo old > target/wiki.db-wal");
        let target = self.lab.path("target/wiki.db");
        vault.write_by_hand(&self.lab, manifest, &[("FILE", target.to_str().unwrap())]);
        // The last two commands are in comments, because one stops the application between.
        let answer = self.lab.run("sed -i 's/^# \\(for\\|cp\\) /\\1 /' by-hand.sh; cd hand; bash -e ../by-hand.sh");
        assert_eq!(answer.lines().last(), Some("ok"), "{answer}");
        assert_eq!(self.lab.run("ls target"), "wiki.db\nwiki.db.old\nwiki.db.old-wal\n");
        let sum = self.lab.run("sha256sum < hand/restored.sqlite");
        let raw = &manifest["backup"]["dump"]["artifacts"][0]["raw"]["sha256"];
        assert_eq!(sum.split(' ').next(), raw.as_str(), "of what the tool wrote");
        self.text("target/wiki.db")
    }
}

/// A site with one database of a source, in an empty vault.
pub(super) fn small<'a>(source: &'a impl Source, encryption: &str) -> (Site<'a>, Vault) {
    let site = Site::new(source.lab(), "");
    let vault = Vault::of(&site);
    rewrite(&site, &vault, source, encryption, "");
    (site, vault)
}

/// Writes the policy of a small site anew, with another key and more sections.
pub(super) fn rewrite(site: &Site<'_>, vault: &Vault, source: &impl Source, encryption: &str, more: &str) {
    let row = super::Row {
        database: "shop".to_owned(),
        compression: "zstd:3",
        encryption: Box::leak(encryption.to_owned().into_boxed_str()),
    };
    site.write(&(super::policy(source, vault, &[row]) + more));
}
