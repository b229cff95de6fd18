-- What makes copies go wrong: names that need quotes, every kind of object, values that look like syntax.
pragma page_size = 4096;
pragma user_version = 42;
pragma journal_mode = wal;
create table "tâble ""x"" 'y'" ("cölumn" integer primary key, "from" text, check ("from" <> ';'));
insert into "tâble ""x"" 'y'" values (1, 'tab	here, newline
there, backslash \'), (2, null), (3, ''), (4, '🪶 ''; drop table x; --'), (5, printf('%.*c', 100000, 'ß'));
create table bytes (id integer primary key autoincrement, content blob, real_one real, any_one);
insert into bytes (content, real_one, any_one) values (x'00ff5c270a0d1a22', 1.0 / 3, 9223372036854775807), (x'', 1e308 * 10, 'text'), (zeroblob(70000), null, x'00');
delete from bytes where id = 2;
create table keyed (a text, b int, c int as (b * 2) stored, d int as (c + 1), primary key (a, b)) without rowid, strict;
insert into keyed (a, b) values ('x', 1), ('x', 2);
create table rowid_matters (note text);
insert into rowid_matters (rowid, note) values (7, 'seven'), (70, 'seventy');
create virtual table pages using fts5 (title, body);
insert into pages values ('backup', 'what nobody restored is no backup'), ('restore', 'a proof');
create table "nothing" (a, b);
create table parent (id integer primary key);
create table child (id integer primary key, parent references parent on delete cascade deferrable initially deferred);
insert into parent values (1);
insert into child values (1, 1);
create index partial on bytes (any_one) where real_one is not null;
create index expression on keyed (lower(a));
create view big as select a, c from keyed where c > 2;
create trigger touch after insert on parent begin insert into "nothing" values (new.id, 'a "label"'); end;
insert into parent values (2);
create table django_migrations (id integer not null primary key autoincrement, app varchar(255) not null, name varchar(255) not null, applied datetime not null);
insert into django_migrations (app, name, applied) values ('shop', '0001_initial', '2026-01-01 10:00:00'), ('shop', '0002_orders', '2026-02-01 10:00:00');
