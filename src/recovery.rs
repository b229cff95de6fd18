//! To which moments a database can be recovered: what the archive's listing proves, and what it does not.
//!
//! Nothing in pgBackRest sees a segment that is missing in the middle of the archive, and recovery simply ends there,
//! green. So we look ourselves. The parts: `wal.rs` is positions and segment names, `lineage.rs` is timelines,
//! `gap.rs` is holes and their age, `archive.rs` puts a listing, the backups and the samples together.
//!
//! How we know a moment: a sample `(t, L)` says that every commit before `t` lies below `L`. If a backup is consistent
//! and the archive is whole from it up to `L`, then everything that was committed before `t` comes back. The start of
//! each backup is such a sample too, by the database host's own clock. We do not read commit times out of the WAL:
//! that would be exact, but costs a download of each segment, and an idle database has none.
//!
//! A newcomer would say "recoverable to now" when the newest segment is there; what was not sampled is not claimed.

mod archive;
mod gap;
mod lineage;
mod wal;

pub use self::{
    archive::{Archive, Conflict, Hole, Listing, Run, analyse},
    gap::{Gap, first_seen, persistent},
    lineage::History,
    wal::{BadWal, Lsn, Segment, SegmentSize},
};
