//! Backstop schedules, watches and proves database backups.
//!
//! ```text
//! backstop.toml ─▶ policy ─▶ schedule ─▶ job ─▶ engine ─▶ storage ─▶ catalog
//!    (say)         (check)    (decide)   (do)    (do)       (do)     (remember)
//!                                ▲                                       │
//!                                └───── history: the only feedback ──────┤
//!                                                                        ├─▶ retention ─▶ expire
//!                                                                        ├─▶ recovery  ─▶ test restore ─▶ proof
//!                                                                        └─▶ objective ─▶ status, alarms
//! ```
//!
//! pgBackRest keeps its own repositories; dumps go through `stream` into the storages of the policy.
//!
//! Say → decide → do → remember → compose → enter. A module uses only its own group and the groups above it.
//! Deciding is pure: policy, history and `now` go in, a plan with reasons comes out. Doing runs a plan and returns
//! facts. Remembering writes facts. The daemon, the command line and a start after a crash take the same path.

// The ground: time, nouns, errors.
pub mod clock;
pub mod cron;
pub mod error;
pub mod human;
pub mod record;

// Say.
pub mod policy;

// Decide.
pub mod forecast;
pub mod objective;
pub mod recovery;
pub mod retention;
pub mod schedule;

// Do.
pub mod dump;
pub mod engine;
pub mod lock;
pub mod manifest;
pub mod mysql;
pub mod postgres;
pub mod process;
pub mod sandbox;
pub mod sqlite;
pub mod storage;
pub mod stream;

// Remember.
pub mod catalog;

// Compose.
pub mod diagnose;
pub mod job;
pub mod report;
pub mod settle;

// Enter.
pub mod cli;
pub mod daemon;
