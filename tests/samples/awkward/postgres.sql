-- What makes dumps go wrong: names that need quotes, every kind of object, values that look like syntax.
create role "Röle ""quoted""" nologin;
alter role "Röle ""quoted""" set work_mem = '7MB';
create schema "Scheme with space" authorization "Röle ""quoted""";
create type "Scheme with space".mood as enum ('sad', 'o''k', 'glücklich');
create domain positive as numeric check (value > 0);

create table "Scheme with space"."Tâble ""x""" (
    "Cölumn" int primary key,
    "from" text,
    mood "Scheme with space".mood default 'o''k',
    constraint "no; semicolon" check ("from" <> ';')
);
comment on table "Scheme with space"."Tâble ""x""" is E'two\nlines -- and a ''quote''';
insert into "Scheme with space"."Tâble ""x""" values
    (1, E'tab\there, newline\nthere, backslash \\ and \\.'), (2, null), (3, ''), (4, '\N'), (5, '🐘 ''; drop table x; --'),
    (6, repeat('ß', 100000));

create table bytes (id int generated always as identity, content bytea);
insert into bytes (content) select decode(string_agg(lpad(to_hex(b), 2, '0'), ''), 'hex') from generate_series(0, 255) b;
insert into bytes (content) values (''), (null);

select lo_from_bytea(4711, decode(repeat('00ff5c2e0a', 50000), 'hex'));
comment on large object 4711 is 'a large object';
select lo_from_bytea(4712, '');

create table measures (id bigint, at timestamptz not null, room text, value double precision) partition by range (at);
create table measures_2025 partition of measures for values from ('2025-01-01') to ('2026-01-01') partition by list (room);
create table measures_2025_kitchen partition of measures_2025 for values in ('kitchen');
create table measures_2025_rest partition of measures_2025 default;
create table measures_rest partition of measures default;
create index on measures (at, room);
insert into measures select n, '2025-06-01'::timestamptz + n * interval '7 hours', (array['kitchen', 'hall'])[1 + n % 2], n / 7.0
    from generate_series(1, 2000) n;
insert into measures values (0, 'infinity', 'void', 'NaN'), (-1, '-infinity', null, '-Infinity');

create table boxes (w int, h int, area int generated always as (w * h) stored, label text collate "C");
insert into boxes values (3, 4), (0, 0), (-1, 5);
create unique index on boxes (lower(label)) where label is not null;

create table tenants (id int primary key, owner text, secret text);
insert into tenants values (1, 'alice', 'a'), (2, 'bob', 'b');
alter table tenants enable row level security;
create policy own on tenants using (owner = current_user);
grant select on tenants to "Röle ""quoted""";

create table nothing (a int, b text);
create table no_columns ();

create sequence odd increment by -3 minvalue -1000 maxvalue 1000 start 100 cycle;
select nextval('odd'), nextval('odd');

create function twice(n int) returns int language sql immutable as $$ select n * 2 $$;
create function touch() returns trigger language plpgsql as $body$
begin
    new.label := coalesce(new.label, 'a "$$" label');
    return new;
end $body$;
create trigger touch before insert on boxes for each row execute function touch();
insert into boxes values (9, 9);

create view big as select * from boxes where area > 10;
create materialized view totals as select room, count(*) as n from measures group by room;
create unique index on totals (room);
create materialized view unfilled as select 1 as one with no data;
create statistics "both" on w, h from boxes;
alter table boxes add constraint w_h check (w >= -1) not valid;
create table child (parent int references "Scheme with space"."Tâble ""x""" on delete cascade deferrable initially deferred);
insert into child values (1), (null);
create table wide (doc jsonb, span tstzrange, tags text[], addr inet, n positive, big numeric);
insert into wide values ('{"a": [1, null, "\u00e9"]}', '[2026-01-01,infinity)', '{"a,b","c\"d",null}', '::1/64', 1.5, 1e100);

create table _prisma_migrations (
    id varchar(36) primary key, checksum varchar(64) not null, finished_at timestamptz, migration_name varchar(255) not null,
    logs text, rolled_back_at timestamptz, started_at timestamptz not null default now(), applied_steps_count integer not null default 0
);
insert into _prisma_migrations (id, checksum, finished_at, migration_name, started_at, applied_steps_count) values
    ('1', 'x', '2026-01-01', '20260101000000_init', '2026-01-01', 1),
    ('2', 'y', '2026-02-01', '20260201000000_add_orders', '2026-02-01', 1);
insert into _prisma_migrations (id, checksum, rolled_back_at, migration_name, started_at) values
    ('3', 'z', '2026-03-01', '20260301000000_failed', '2026-03-01');
