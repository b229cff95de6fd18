-- Holds that end by themselves, and the retention rules that were in force, so that a tighter policy does not end at
-- once what the former one kept.

alter table backups add column held_until integer;  -- null: until somebody releases it

-- One row for each set of rules that a database had; the one without `replaced_at` is in force.
create table retention_rules (
    id           integer not null primary key,
    database     text    not null,
    rules        text    not null,
    since        integer not null,
    replaced_at  integer,
    guards_until integer,            -- until then what these rules keep stays, whatever the present ones say
    accepted_by  text                -- who said before that it may go
) strict;

create unique index retention_rules_in_force on retention_rules (database) where replaced_at is null;
