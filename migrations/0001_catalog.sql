-- The catalog begins: every table of the first release, so that later ones only add.
--
-- Times are integer unix milliseconds (UTC) and end in `_at`; lengths are integer milliseconds. Lists and maps are JSON text.
-- Words (states, kinds, types) are those of `src/record.rs`; the program checks them, so that a new word never rebuilds a table.

pragma application_id = 1112757328; -- 0x42535450, "BSTP"

-- Facts about the catalog itself: its instance, its birth, and since when and why it is in recovery mode.
create table meta (
    name  text not null primary key,
    value text not null
) strict, without rowid;

-- What should happen. An absent database or name is '', an absent repo is 0: nulls would be different from each other.
create table jobs (
    id            integer primary key,
    database      text    not null,
    kind          text    not null,
    repo          integer not null,
    name          text    not null,
    first_seen_at integer,  -- since when the policy has it, without a break; null: it was only ever run by hand
    schedule      text    not null default '',  -- its words; under new words no slot exists before `schedule_at`
    schedule_at   integer not null default 0,
    unique (database, kind, repo, name)
) strict;

-- When it is due. The unique key is what makes "exactly once" hold across restarts, two rings and a second process.
create table slots (
    id             integer primary key,
    job_id         integer not null references jobs (id),
    nominal_at     integer not null,
    state          text    not null,
    reason         text,
    missed_count   integer not null,
    returned_count integer not null default 0,  -- how often an interrupted run gave it back
    claimed_at     integer not null,
    unique (job_id, nominal_at)
) strict;

create index slots_open on slots (state) where state in ('due', 'claimed');
create index slots_not_run on slots (id) where state in ('skipped', 'superseded', 'coalesced');

-- One execution. Written before a child starts, closed after it ended; `owner_*` is the process that works on it.
create table runs (
    id                integer primary key,
    uuid              text    not null unique,
    job_id            integer not null references jobs (id),
    slot_id           integer references slots (id) on delete set null,
    nominal_at        integer,
    promoted_from     text,
    requested_by      text    not null,
    owner_pid         integer not null,
    owner_pgid        integer not null,
    owner_start_ticks integer not null,
    owner_boot_id     text    not null,
    policy_hash       text    not null,
    state             text    not null,
    started_at        integer not null,
    finished_at       integer,
    duration          integer,
    failure_class     text,
    failure_exit      integer,
    failure_message   text,
    failure_remedy    text,
    summary           text    not null default '',
    diagnosis         text    not null default '[]'
) strict;

-- The newest run of a job in a state is the newest row, whatever the clock did; so this index ends in the row number ...
create index runs_newest on runs (job_id, state);
-- ... while stretches of time (history since, success rate, pruning) are read from this one without touching the table.
create index runs_by_time on runs (job_id, state, started_at);
create index runs_by_slot on runs (slot_id) where slot_id is not null;
create index runs_open on runs (state) where state = 'running';

-- One try within a run. The four process columns recognise the tool's process after a restart of the daemon.
create table attempts (
    id              integer primary key,
    run_id          integer not null references runs (id) on delete cascade,
    number          integer not null,
    started_at      integer not null,
    finished_at     integer,
    duration        integer,
    pid             integer,
    pgid            integer,
    start_ticks     integer,
    boot_id         text,
    exit_code       integer,
    ending          text,
    failure_class   text,
    failure_exit    integer,
    failure_message text,
    failure_remedy  text,
    tail            text    not null default '[]',
    log_path        text,
    unique (run_id, number)
) strict;

-- Identities given out before the backup exists, so that two backups of one second differ.
create table backup_ids (
    id          text    not null primary key,
    reserved_at integer not null
) strict, without rowid;

-- What can be restored, and what could be once.
create table backups (
    id             text    not null primary key,
    database       text    not null,
    environment    text    not null,
    engine         text    not null,
    backup_type    text    not null,
    requested_type text    not null,
    label          text    not null,
    repo           integer not null,
    system_id      text    not null,
    server_version text    not null,
    tool_version   text    not null,
    name           text,
    reason         text,
    tags           text    not null,
    run_uuid       text,
    started_at     integer not null,
    stopped_at     integer not null,
    size           integer not null,
    delta          integer not null,
    repo_delta     integer,
    repo_size      integer,
    prior          text,
    "references"   text    not null,
    wal_start      text,
    wal_stop       text,
    lsn_stop       text,
    page_errors    integer,  -- null: not checked
    status         text    not null,
    status_reason  text,
    expired_at     integer,
    held           text,
    proven_at      integer,
    created_by     text    not null,
    unique (database, repo, system_id, label)
) strict;

create index backups_live on backups (database, stopped_at) where status not in ('lost', 'expired');
create index backups_known on backups (database, stopped_at) where status <> 'expired';
create index backups_by_time on backups (stopped_at);

-- The files of a dump. pgBackRest's files are its own affair, so its backups have none here.
create table artifacts (
    id        integer primary key,
    backup_id text    not null references backups (id) on delete cascade,
    role      text    not null,  -- data, globals, part, manifest
    path      text    not null,
    size      integer not null,
    sha256    text    not null,
    unique (backup_id, path)
) strict;

-- Where each artifact lies and in which state. A pgBackRest backup is its own only copy: the row in `backups`.
create table copies (
    artifact_id integer not null references artifacts (id) on delete cascade,
    storage     text    not null,
    state       text    not null,
    checked_at  integer not null,
    primary key (artifact_id, storage)
) strict, without rowid;

-- Restores that were really done and checked.
create table proofs (
    id            integer primary key,
    run_id        integer not null references runs (id),
    database      text    not null,
    backup_id     text    not null references backups (id),
    repo          integer not null,
    started_at    integer not null,
    finished_at   integer not null,
    passed        integer not null,
    isolation     text    not null,
    recovered_to  integer,
    reached_lsn   text,
    expected_lsn  text,
    recovery_time integer not null,
    size          integer not null,
    wal_segments  integer not null
) strict;

create index proofs_by_database on proofs (database, passed);
create index proofs_by_run on proofs (run_id);
create index proofs_by_backup on proofs (backup_id);

create table proof_steps (
    proof_id integer not null references proofs (id) on delete cascade,
    position integer not null,
    name     text    not null,
    outcome  text    not null,
    detail   text    not null,
    duration integer not null,
    primary key (proof_id, position)
) strict, without rowid;

-- What each WAL check saw; uneventful ones are thinned out with age.
create table wal_samples (
    id                integer primary key,
    database          text    not null,
    sampled_at        integer not null,
    timeline          integer,
    current_lsn       text,
    last_archived_wal text,
    last_archived_at  integer,
    failed_count      integer,
    last_failed_at    integer,
    ready_count       integer,
    contiguous_to     text    not null,
    gaps              text    not null,
    problems          text    not null
) strict;

create index wal_samples_by_time on wal_samples (database, sampled_at);

-- To which moments a database can be recovered, as of the last look at the archive.
create table windows (
    database text    not null,
    repo     integer not null,
    position integer not null,
    label    text    not null,
    from_at  integer not null,
    to_at    integer not null,
    primary key (database, repo, position)
) strict, without rowid;

-- What is or was alarming; an absent database is ''.
create table alerts (
    id          integer primary key,
    database    text    not null,
    kind        text    not null,
    message     text    not null,
    raised_at   integer not null,
    repeated_at integer not null,
    count       integer not null,
    cleared_at  integer
) strict;

create unique index alerts_open on alerts (database, kind) where cleared_at is null;

-- Who did what. Each row's hash covers the row and the hash before it, so that a change shows from there to the head.
create table audit (
    seq       integer primary key,
    at        integer not null,
    actor     text    not null,
    action    text    not null,
    object    text    not null,
    detail    text    not null,
    prev_hash text    not null,
    hash      text    not null
) strict;

create trigger audit_is_never_changed before update on audit
begin
    select raise(abort, 'audit entries are never changed');
end;

create trigger audit_is_never_deleted before delete on audit
begin
    select raise(abort, 'audit entries are never deleted');
end;

-- The policies that were accepted, newest last; the text stays so that reading verbs go on when the file is broken.
create table policies (
    id          integer primary key,
    hash        text    not null,
    accepted_at integer not null,
    files       text    not null
) strict;
