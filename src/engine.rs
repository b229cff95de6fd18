//! The tools that make backups, and what each can do.
//!
//! An engine's file holds three things: what it needs, pure functions from a request to command lines, and pure
//! functions from captured output to facts. `process.rs` stands between. So a dry run prints exactly what would be run,
//! and recorded output tests the readers. A newcomer would spawn a child in here.

pub mod migration;
pub mod mysqldump;
pub mod pg_dump;
pub mod pgbackrest;
pub mod sqlite;

pub use self::pgbackrest::PgBackRest;
use crate::record::EngineKind;

/// What a tool can do, so that nobody needs to ask which tool it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Backups that build on others.
    pub incremental: bool,
    /// Recovery to any moment.
    pub pitr: bool,
    /// Several processes at once.
    pub parallel: bool,
}

/// What the tools of a kind can do.
pub const fn capabilities(kind: EngineKind) -> Capabilities {
    match kind {
        EngineKind::PgBackRest => Capabilities { incremental: true, pitr: true, parallel: true },
        EngineKind::PgDump => Capabilities { incremental: false, pitr: false, parallel: true },
        EngineKind::MySqlDump | EngineKind::Sqlite => Capabilities { incremental: false, pitr: false, parallel: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_incremental_can_be_recovered_to_a_moment() {
        for kind in EngineKind::ALL {
            let can = capabilities(*kind);
            assert!(can.pitr || !can.incremental, "{kind}");
        }
    }
}
