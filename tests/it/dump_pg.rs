//! Dumps of a real PostgreSQL: what is looked at before, what the tools write, and how a half dump is found out.
//!
//! Here the engine is alone, without stream and storage; `dump.rs` has the whole way, and runs the by-hand commands.

mod migrations;

use std::{fs, path::Path};

use backstop::{
    dump::{Dumper, Limits, Making, Output, Source, restore_by_hand},
    error::ExitCode,
    policy::{Database, Policy},
    process::{Captured, Ending, Stop, capture},
    record::{
        Artifact, Backup, BackupStatus, BackupType, Digest, Dump, DumpFormat, Encryption, EncryptionMethod, EngineKind,
        ErrorClass, Role,
    },
    stream::Inspect,
};

use crate::harness::{Lab, sh, until_true};

/// A database in which everything is awkward.
const AWKWARD: &str = r#"
create schema "Ünï cødé";
create table "Ünï cødé"."quoted ""name""" (id int generated always as identity primary key, "a'b" text, raw bytea);
insert into "Ünï cødé"."quoted ""name""" ("a'b", raw) select E'tab\there\\ line\nbreak ' || n, decode(md5(n::text), 'hex')
  from generate_series(1, 3000) n;
create table parted (id int, at date, twice int generated always as (id * 2) stored) partition by range (at);
create table parted_old partition of parted for values from (minvalue) to ('2026-01-01');
create table parted_new partition of parted for values from ('2026-01-01') to (maxvalue);
insert into parted (id, at) select n, date '2025-12-01' + n from generate_series(1, 90) n;
create table empty (nothing int);
create table guarded (owner text); alter table guarded enable row level security;
create policy own on guarded using (owner = current_user); insert into guarded values ('app'), ('other');
create materialized view summary as select at, count(*) from parted group by at;
create unlogged table cache (x int); insert into cache values (1);
select lo_from_bytea(0, convert_to(repeat('large ', 5000), 'UTF8')), lo_from_bytea(0, ''), lo_create(4000000001);
create table alembic_version (version_num varchar(32) primary key); insert into alembic_version values ('ae1027a6acf');
alter database shop set work_mem = '7MB';
"#;

fn lab_with_shop() -> Lab {
    let lab = Lab::empty();
    lab.sql("create role app login");
    lab.sql("create database shop");
    fs::write(lab.path("awkward.sql"), AWKWARD).unwrap();
    lab.run("psql -X -q -v ON_ERROR_STOP=1 -d shop -f awkward.sql > /dev/null");
    lab
}

fn database(lab: &Lab, dbname: &str, user: &str, format: DumpFormat) -> Database {
    let text = include_str!("../../config/minimal.toml").to_owned();
    let policy = Policy::parse(vec![("backstop.toml".into(), text)]).unwrap();
    let mut database = policy.databases.into_values().next().unwrap();
    database.name = "shop".parse().unwrap();
    database.engine = EngineKind::PgDump;
    database.connection = Some(format!("host={}/sock user={user} dbname={dbname}", lab.dir().display()));
    database.password = None;
    database.dump.format = format;
    database
}

fn dumper(lab: &Lab, user: &str, format: DumpFormat) -> Dumper {
    Dumper::of(&database(lab, "shop", user, format)).unwrap().unwrap()
}

async fn run(making: &Making) -> Captured {
    capture(&making.command, &Stop::never()).await.unwrap()
}

/// What a tool wrote, file by file, after everything that checks it has seen it.
async fn make(dumper: &Dumper, source: &Source, scratch: &Path) -> Vec<(Role, String, Vec<u8>)> {
    let mut files = Vec::new();
    for making in dumper.makings(source, scratch).unwrap() {
        let answer = run(&making).await;
        assert!(answer.ok(), "{}: {}", making.command.display(), answer.stderr);
        dumper.check_staged(source, &making, &Stop::never()).await.unwrap();
        if let Some(inspect) = making.inspect {
            assert_eq!(judge(inspect, &answer.stdout), Ok(()), "{}", making.name);
        }
        match &making.output {
            Output::Directory(directory) => files.extend(fs::read_dir(directory).unwrap().map(|entry| {
                let path = entry.unwrap().path();
                (Role::Part, format!("parts/{}", path.file_name().unwrap().display()), fs::read(&path).unwrap())
            })),
            _ => files.push((making.role, making.name, answer.stdout)),
        }
    }
    files
}

fn judge(mut inspect: Box<dyn Inspect>, bytes: &[u8]) -> Result<(), String> {
    bytes.chunks(4099).for_each(|chunk| inspect.see(chunk));
    inspect.end()
}

fn inspector(dumper: &Dumper, source: &Source, role: Role) -> Box<dyn Inspect> {
    let makings = dumper.makings(source, "/nowhere".as_ref()).unwrap();
    makings.into_iter().find(|making| making.role == role).unwrap().inspect.unwrap()
}

fn backup(source: &Source, dump: Dump) -> Backup {
    let now = "2026-11-21T13:00:00Z".parse().unwrap();
    Backup {
        id: "backup-20261121-130000".into(),
        database: "shop".parse().unwrap(),
        environment: "test".into(),
        engine: EngineKind::PgDump,
        backup_type: BackupType::Full,
        requested_type: BackupType::Full,
        label: "backup-20261121-130000".into(),
        repo: 0,
        system_id: source.system_id.clone(),
        server_version: source.server_version.clone(),
        tool_version: source.tool_version.clone(),
        name: None,
        reason: None,
        tags: vec![],
        run_uuid: None,
        started_at: now,
        stopped_at: now,
        size: 0,
        delta: 0,
        repo_delta: None,
        repo_size: None,
        prior: None,
        references: vec![],
        wal_start: None,
        wal_stop: None,
        lsn_stop: None,
        page_errors: None,
        status: BackupStatus::Good,
        expired_reason: None,
        expired_at: None,
        held: None,
        held_until: None,
        proven_at: None,
        created_by: "test".into(),
        dump: Some(dump),
    }
}

fn dump(source: &Source, format: DumpFormat, compression: &str, encryption: Option<EncryptionMethod>) -> Dump {
    Dump {
        format,
        compression: compression.parse().unwrap(),
        encryption: encryption.map(|method| Encryption { key: "offsite".into(), method }),
        directory: "shop/backup-20261121-130000".into(),
        artifacts: vec![],
        copies: vec![],
        server: source.server.clone(),
        source: source.source.clone(),
        migrations: source.migrations.clone(),
        retention_days: None,
        expires_at: None,
        warnings: vec![],
        verified_at: None,
    }
}

#[test]
fn the_by_hand_commands_are_what_a_person_would_type() {
    let source = Source {
        server: "PostgreSQL 15.20".into(),
        server_version: "15".into(),
        system_id: "7570000000000000001".into(),
        tool: "pg_dump".into(),
        tool_version: "pg_dump 15.20".into(),
        source: "shop".into(),
        size: 1,
        migrations: None,
        warnings: vec![],
        limits: Limits::default(),
    };
    let told = |dump: Dump, names: &[(Role, &str)], location: &str| {
        let file = |(role, name): &(Role, &str)| Artifact {
            role: *role,
            name: (*name).to_owned(),
            raw: Digest::default(),
            stored: Digest { size: 1, sha256: "5ha".into() },
            hmac: None,
        };
        let dump = Dump { artifacts: names.iter().map(file).collect(), ..dump };
        restore_by_hand(&backup(&source, dump), location).join("\n")
    };
    let custom = dump(&source, DumpFormat::Custom, "zstd", Some(EncryptionMethod::Age));
    let names = [(Role::Globals, "globals.sql.zst.age"), (Role::Data, "shop.dump.zst.age")];
    insta::assert_snapshot!(told(custom, &names, "/srv/backups/shop/backup-20261121-130000"), @r#"
    # Backup backup-20261121-130000 of shop, PostgreSQL 15.20.
    # Needed: bash, age, zstd, psql, createdb and pg_restore of PostgreSQL 15 or later.
    # Put these lines into a file, fill in the variables and run it with bash. It stops at the first error.
    set -euo pipefail
    KEY=/path/to/key # the file with the secret key of `offsite`
    echo '5ha  /srv/backups/shop/backup-20261121-130000/globals.sql.zst.age' | sha256sum -c -
    echo '5ha  /srv/backups/shop/backup-20261121-130000/shop.dump.zst.age' | sha256sum -c -
    # psql and the others connect by PGHOST, PGPORT, PGUSER and the like.
    DB=shop_restored # the new database
    # Roles and tablespaces. Leave this out on a server that has them: it sets their passwords and attributes again. That a role exists already is no harm.
    age -d -i "$KEY" < /srv/backups/shop/backup-20261121-130000/globals.sql.zst.age | zstd -dc | psql -X -q -v ON_ERROR_STOP=0 -d postgres
    createdb -T template0 -- "$DB"
    age -d -i "$KEY" < /srv/backups/shop/backup-20261121-130000/shop.dump.zst.age | zstd -dc | pg_restore --exit-on-error -d "dbname='$DB'"
    # Or under its old name, which must be free, with what belongs to the database itself (owner, encoding, `alter database … set`):
    #   age -d -i "$KEY" < /srv/backups/shop/backup-20261121-130000/shop.dump.zst.age | zstd -dc | pg_restore --exit-on-error --create -d postgres
    "#);
    let directory = dump(&source, DumpFormat::Directory, "gzip", Some(EncryptionMethod::Aes256));
    let names = [(Role::Part, "parts/toc.dat.gz.enc")];
    insta::assert_snapshot!(told(directory, &names, "s3://offsite/shop/backup-20261121-130000"), @r#"
    # Backup backup-20261121-130000 of shop, PostgreSQL 15.20.
    # Needed: bash, aws (with --endpoint-url where it is not AWS), openssl, gzip, psql, createdb and pg_restore of PostgreSQL 15 or later.
    # Put these lines into a file, fill in the variables and run it with bash. It stops at the first error.
    set -euo pipefail
    KEY=/path/to/key # the file with the passphrase of `offsite`
    # psql and the others connect by PGHOST, PGPORT, PGUSER and the like.
    DB=shop_restored # the new database
    aws s3 cp --recursive s3://offsite/shop/backup-20261121-130000/parts/ stored
    (cd stored; printf '%s  %s\n' \
      5ha toc.dat.gz.enc \
      | sha256sum -c --quiet -)
    mkdir parts
    for FILE in stored/*.gz.enc; do openssl enc -d -aes-256-ctr -pbkdf2 -pass file:"$KEY" < "$FILE" | gzip -dc > "parts/$(basename "$FILE" '.gz.enc')"; done
    createdb -T template0 -- "$DB"
    pg_restore -F d -j 4 --exit-on-error -d "dbname='$DB'" parts
    # Or under its old name, which must be free, with what belongs to the database itself (owner, encoding, `alter database … set`):
    #   pg_restore -F d -j 4 --exit-on-error --create -d postgres parts
    "#);
}

#[tokio::test]
async fn a_look_tells_server_tool_migrations_and_what_the_dump_will_lack() {
    let lab = lab_with_shop();
    let source = dumper(&lab, "postgres", DumpFormat::Plain).look(&Stop::never()).await.unwrap();
    assert!(source.server.starts_with("PostgreSQL 1") && !source.server.contains('('), "{source:?}");
    assert_eq!(source.source, "shop");
    assert!(source.size > 1_000_000 && source.system_id.len() > 10, "{source:?}");
    let migrations = source.migrations.unwrap();
    assert_eq!(
        (migrations.framework.as_str(), migrations.last_migration.unwrap().as_str()),
        ("alembic", "ae1027a6acf")
    );
    assert_eq!(source.warnings.len(), 1, "{:?}", source.warnings);
    assert!(source.warnings[0].contains("settings work_mem"), "{:?}", source.warnings);
}

#[tokio::test]
async fn a_role_from_which_rows_are_hidden_is_refused_and_one_without_passwords_is_not() {
    let lab = lab_with_shop();
    let schemas = r#"public, "Ünï cødé""#;
    let grant =
        format!("grant usage on schema {schemas} to app; grant select on all tables in schema {schemas} to app");
    lab.run(&format!("psql -X -q -d shop -c '{grant}'"));
    let dumper = dumper(&lab, "app", DumpFormat::Custom);
    let failure = dumper.look(&Stop::never()).await.unwrap_err();
    assert_eq!((failure.class, failure.exit), (ErrorClass::Config, ExitCode::Configuration));
    assert!(failure.message.contains("guarded"), "{failure:?}");

    lab.sql("alter role app bypassrls");
    let source = dumper.look(&Stop::never()).await.unwrap();
    assert!(source.limits.hides_passwords && source.warnings[0].contains("pg_authid"), "{source:?}");
    let globals = dumper.makings(&source, "/nowhere".as_ref()).unwrap().remove(0);
    let answer = run(&globals).await;
    assert!(answer.ok(), "{}", answer.stderr);
    assert_eq!(judge(globals.inspect.unwrap(), &answer.stdout), Ok(()));
}

#[tokio::test]
async fn a_lock_that_somebody_holds_is_waited_for_and_then_named() {
    let lab = lab_with_shop();
    let mut database = database(&lab, "shop", "postgres", DumpFormat::Custom);
    database.dump.lock_timeout = std::time::Duration::from_millis(200);
    let dumper = Dumper::of(&database).unwrap().unwrap();
    let source = dumper.look(&Stop::never()).await.unwrap();
    let making = dumper.makings(&source, "/nowhere".as_ref()).unwrap().pop().unwrap();
    lab.run("(psql -X -q -d shop -c 'begin' -c 'lock table empty' -c 'select pg_sleep(600)' > /dev/null 2>&1 & )");
    let held = "select count(*) from pg_locks where mode = 'AccessExclusiveLock' and granted and database = (select oid from pg_database where datname = 'shop')";
    until_true("the lock is held", || lab.sql(held) == "1");
    let answer = run(&making).await;
    let tail: Vec<String> = answer.stderr.lines().map(str::to_owned).collect();
    let failure = dumper.explain(Role::Data, &answer.ending, &tail);
    assert_eq!((failure.class, failure.exit), (ErrorClass::Transient, ExitCode::Busy), "{failure:?}");
    assert!(failure.message.contains("LOCK TABLE public.empty"), "{failure:?}");
}

#[tokio::test]
async fn a_dump_that_ends_early_is_found_out_wherever_it_ends() {
    let lab = lab_with_shop();
    for format in [DumpFormat::Plain, DumpFormat::Custom] {
        let dumper = dumper(&lab, "postgres", format);
        let source = dumper.look(&Stop::never()).await.unwrap();
        for (role, name, bytes) in make(&dumper, &source, "/nowhere".as_ref()).await {
            let whole = bytes.trim_ascii_end().len().max(if format == DumpFormat::Custom { bytes.len() } else { 0 });
            let whole = if role == Role::Globals { bytes.trim_ascii_end().len() } else { whole };
            let early = (0..400).chain((400..whole).step_by(997)).chain(whole.saturating_sub(2000)..whole);
            for end in early.filter(|end| *end < whole) {
                let judged = judge(inspector(&dumper, &source, role), &bytes[..end]);
                assert!(judged.is_err(), "{name} of {} bytes ends at {end}", bytes.len());
            }
        }
    }
}

#[tokio::test]
async fn a_tool_that_is_killed_leaves_no_whole_dump() {
    let lab = lab_with_shop();
    for format in [DumpFormat::Plain, DumpFormat::Custom] {
        let dumper = dumper(&lab, "postgres", format);
        let source = dumper.look(&Stop::never()).await.unwrap();
        let making = dumper.makings(&source, "/nowhere".as_ref()).unwrap().pop().unwrap();
        let out = lab.path("half");
        // What is left is more than the pipe holds, so the tool still waits for its reader when it is killed.
        sh(&format!(
            "cd {}; mkfifo pipe; {} > pipe & exec 3< pipe; head -c 20000 <&3 > half; kill -9 $!; \
             wait $! 2> /dev/null || true; cat <&3 >> half; rm pipe",
            lab.dir().display(),
            making.command.display()
        ));
        let half = fs::read(&out).unwrap();
        assert!(half.len() >= 20_000, "{} bytes", half.len());
        assert!(judge(making.inspect.unwrap(), &half).is_err());
        let failure = dumper.explain(Role::Data, &Ending::Signalled(9), &[]);
        assert!(failure.remedy.unwrap().contains("memory"));
    }
}

#[tokio::test]
async fn a_standby_is_dumped_without_the_content_of_unlogged_tables() {
    let lab = lab_with_shop();
    lab.run(
        "pg_basebackup -D standby -R -X stream -c fast; \
         setsid pg_ctl -D standby -o '-p 5433' -l standby.log -w -s start < /dev/null",
    );
    for format in [DumpFormat::Custom, DumpFormat::Directory] {
        let mut database = database(&lab, "shop", "postgres", format);
        database.connection = database.connection.map(|connection| format!("{connection} port=5433"));
        let dumper = Dumper::of(&database).unwrap().unwrap();
        let source = dumper.look(&Stop::never()).await.unwrap();
        assert!(source.limits.is_standby, "{source:?}");
        assert!(source.warnings.iter().any(|warning| warning.contains("1 unlogged tables")), "{:?}", source.warnings);
        let scratch = tempfile::tempdir().unwrap();
        let files = make(&dumper, &source, scratch.path()).await;
        assert!(files.iter().any(|(role, ..)| *role == Role::Globals));
    }
}

#[tokio::test]
async fn a_staged_directory_that_lacks_something_is_not_stored() {
    let lab = lab_with_shop();
    let dumper = dumper(&lab, "postgres", DumpFormat::Directory);
    let source = dumper.look(&Stop::never()).await.unwrap();
    let damages = [
        "rm $(ls -S [0-9]*.dat | head -1)",
        "truncate -s -9 $(ls -S [0-9]*.dat | head -1)",
        "rm blob_4000000001.dat",
        "rm toc.dat",
        "truncate -s -1 toc.dat",
        "sed -i 's/PGDMP/PGDXX/' toc.dat",
    ];
    for damage in damages {
        let scratch = tempfile::tempdir().unwrap();
        let making = dumper.makings(&source, scratch.path()).unwrap().pop().unwrap();
        assert!(run(&making).await.ok());
        dumper.check_staged(&source, &making, &Stop::never()).await.unwrap();
        sh(&format!("cd {}/parts; {damage}", scratch.path().display()));
        let failure = dumper.check_staged(&source, &making, &Stop::never()).await.unwrap_err();
        assert_eq!((failure.class, failure.exit), (ErrorClass::Integrity, ExitCode::VerificationFailed), "{damage}");
    }
}
