-- What makes dumps go wrong: names that need quotes, every kind of object, values that look like syntax.
set names utf8mb4;
set sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION';
create table `tâble ``x`` "y"` (`cölumn` int primary key, `from` text, mood enum('sad', 'o''k', 'glücklich') default 'o''k') comment 'a ''quoted'' one';
insert into `tâble ``x`` "y"` values (1, 'tab\there, newline\nthere, backslash \\', 'sad'), (2, null, null), (3, '', 'glücklich'),
    (4, '🐬 ''; drop table x; -- ', 'o''k'), (5, repeat('ß', 20000), 'sad');
create table bytes (id int auto_increment primary key, content longblob, flag bit(7), kind binary(4));
insert into bytes (content, flag, kind) values (unhex('00ff5c270a0d1a22'), b'1010101', unhex('00010203')), ('', b'0', null), (null, null, '');
create table measures (id bigint not null, at datetime(6) not null, value double, primary key (id, at))
    partition by range columns (at) (partition p2025 values less than ('2026-01-01'), partition rest values less than (maxvalue));
insert into measures select seq, '2025-12-31 22:00:00' + interval seq minute, seq / 7 from seq_1_to_500;
create table boxes (w int, h int, area int generated always as (w * h) stored, half double as (area / 2) virtual, label varchar(20), unique key (label));
insert into boxes (w, h, label) values (3, 4, 'a'), (0, 0, null), (-1, 5, 'b');
create table nothing (a int, b text) engine = InnoDB;
create table child (parent int, constraint fk foreign key (parent) references `tâble ``x`` "y"` (`cölumn`) on delete cascade) engine = InnoDB;
insert into child values (1), (null);
create table moments (d date, t time, ts timestamp null, y year, n decimal(60, 20));
insert into moments values ('2026-02-28', '-838:59:59', '2026-06-01 12:00:00', 2026, 1e30 / 3);
create sequence odd start with 100 increment by -3 minvalue -1000 maxvalue 1000 cycle;
select nextval(odd), nextval(odd);
create view big as select w, h, area from boxes where area > 10;
delimiter //
create function twice(n int) returns int deterministic return n * 2//
create procedure fill(in n int) begin declare i int default 0; while i < n do set i = i + 1; insert into nothing values (i, 'a; "b"'); end while; end//
create trigger touch before insert on boxes for each row begin if new.label = '' then set new.label = 'a ''label'''; end if; end//
create event tidy on schedule every 1 day starts '2026-01-01 03:00:00' disable do delete from nothing where a < 0//
delimiter ;
create table knex_migrations (id int unsigned auto_increment primary key, name varchar(255), batch int, migration_time timestamp null);
insert into knex_migrations (name, batch, migration_time) values ('20260101_init.js', 1, '2026-01-01 10:00:00'), ('20260201_orders.js', 2, '2026-02-01 10:00:00');
