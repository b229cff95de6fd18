-- Dumps: how each was made, the two checksums of its files, and the state of each copy.
--
-- What every backup has stays in `backups`; a row here exists for dumps only, so a pgBackRest backup costs nothing more.
-- No release wrote into `artifacts` and `copies` before this.

-- How a dump was made, and what its manifest tells about the source.
create table dumps (
    backup_id         text    not null primary key references backups (id) on delete cascade,
    format            text    not null,
    compression       text    not null,  -- method and level, e.g. zstd:3
    encryption_key    text,              -- the key's name in the policy; null: not encrypted
    encryption_method text,
    directory         text    not null,  -- within each storage
    server            text    not null,
    source            text    not null,
    migrations        text,              -- null: no tool was recognised
    retention_days    integer,           -- null: kept by the rules
    expires_at        integer,
    warnings          text    not null,
    verified_at       integer            -- when every byte of a copy was last read and right
) strict, without rowid;

-- `size` and `sha256` are of what lies in the storage; these are of what the tool wrote.
alter table artifacts add column raw_size   integer not null default 0;
alter table artifacts add column raw_sha256 text    not null default '';
alter table artifacts add column hmac       text;

-- One row a copy, not one a file: a copy is as good as the worst of its files, and `detail` names those that are not
-- good. A directory of 10,000 parts in three storages would take 30,000 rows to say the same.
drop table copies;
create table copies (
    id           integer primary key,
    backup_id    text    not null references backups (id) on delete cascade,
    storage      text    not null,
    state        text    not null,
    detail       text,
    checked_at   integer not null,
    locked_until integer,
    unique (backup_id, storage)
) strict;
