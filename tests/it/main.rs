//! The real binary against real PostgreSQL and real pgBackRest, each test in a lab of its own.
//!
//! [`harness`] brings up the labs and listens to the binary; every other module is a group of scenarios whose names are
//! claims. `tests/README.md` says how to run a part. A newcomer would wait for a length of time: here one waits for a
//! state, with a deadline, by [`harness::until`].

mod harness;

mod agreement;
mod backup;
mod bad_input;
mod catalog;
mod clock;
mod crash;
mod damage;
mod delete;
mod dump;
mod dump_faults;
mod dump_life;
mod dump_pg;
mod forecast;
mod gfs;
mod locks;
mod owner;
mod people;
mod policy;
mod reload;
mod retention;
mod schedule;
mod secrets;
mod stand_in;
mod stop;
mod storage;
mod systemd;
mod test_restore;
mod wal;
