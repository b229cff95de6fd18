//! What the storages say about dumps, put together: the part of `backstop catalog rebuild` that decides.
//!
//! A directory with a manifest that fits its place is a backup; the same backup in several storages is one with several
//! copies. What does not fit is named and never touched: it may be of another Backstop, or the rest of an upload.
//! Presence and size are all that a listing proves; `verify` reads the bytes.
//!
//! A newcomer would take a storage that could not be asked for an empty one; a copy in it is unknown, not missing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};

use super::dumps::{standing, trouble};
use crate::{
    manifest::Manifest,
    record::{Backup, BackupCopy, BackupStatus, CopyState, Dump, HOLD, MANIFEST},
    storage::Stored,
};

/// What one storage told; one that could not be asked has none.
#[derive(Debug, Default)]
pub struct Inventory {
    /// The storage's name in the policy.
    pub storage: String,
    /// Everything that lies in it.
    pub files: Vec<Stored>,
    /// The manifests by their paths, or why one is of no use.
    pub manifests: BTreeMap<String, Result<Manifest, String>>,
    /// The reasons and the ends of holds by the directories of their backups.
    pub holds: BTreeMap<String, (String, Option<DateTime<Utc>>)>,
}

/// Something in a storage that is no part of a backup of ours.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Stranger {
    /// The storage.
    pub storage: String,
    /// The file or directory.
    pub path: String,
    /// Why it is not taken for ours.
    pub why: String,
}

/// What the storages say, put together.
#[derive(Debug, Default)]
pub struct Rebuilt {
    /// The dumps, each with the state of every copy.
    pub dumps: Vec<Backup>,
    /// What is not ours.
    pub strangers: Vec<Stranger>,
}

/// Whether a path is where a manifest would be: `DATABASE/BACKUP-ID/manifest.json`.
pub fn is_manifest(path: &str) -> bool {
    place(path).is_some_and(|(_, name)| name == MANIFEST)
}

/// Puts together what the storages told. `known` is what the catalog knows of dumps: a copy that was read and found
/// damaged is no better because its size is right, and a backup that somebody ended stays ended.
///
/// Whoever may write to a storage may write a manifest, so a manifest tells how a backup was made and nothing that only
/// we could find out later: proofs, verifications and holds are not taken from it.
pub fn rebuild(inventories: &[Inventory], known: &[Backup], now: DateTime<Utc>) -> Rebuilt {
    let known: HashMap<&str, &Backup> = known.iter().map(|backup| (backup.id.as_str(), backup)).collect();
    let mut rebuilt = Rebuilt::default();
    let shelves: Vec<Shelf<'_>> = inventories.iter().map(Shelf::of).collect();
    let mut found: BTreeMap<&str, Vec<(&Shelf<'_>, &Manifest)>> = BTreeMap::new();
    for shelf in &shelves {
        for (directory, manifest) in backups_of(shelf.inventory, now, &mut rebuilt.strangers) {
            found.entry(directory).or_default().push((shelf, manifest));
        }
    }
    let mut ids = BTreeSet::new();
    for (directory, copies) in found {
        let backup = &copies[0].1.backup;
        let known = known.get(backup.id.as_str());
        if known.is_none_or(|known| known.database == backup.database) && ids.insert(&backup.id) {
            let mut dump = assemble(backup, &copies, inventories, now);
            remember(&mut dump, known.and_then(|known| known.dump.as_ref()));
            judge(&mut dump, known.copied(), now);
            rebuilt.dumps.push(dump);
        } else {
            let why = format!("another database has a backup `{}` too", backup.id);
            let (storage, path) = (copies[0].0.inventory.storage.clone(), directory.to_owned());
            rebuilt.strangers.push(Stranger { storage, path, why });
        }
    }
    rebuilt
}

/// What is to be said of the copies of dumps that the catalog knows and no storage shows.
pub fn vanished(
    known: &[Backup],
    rebuilt: &Rebuilt,
    asked: &[Inventory],
    now: DateTime<Utc>,
) -> Vec<(String, Vec<BackupCopy>)> {
    let seen: BTreeSet<&str> = rebuilt.dumps.iter().map(|backup| backup.id.as_str()).collect();
    let is_asked = |copy: &&BackupCopy| asked.iter().any(|inventory| inventory.storage == copy.storage);
    let was_there = |copy: &&BackupCopy| !matches!(copy.state, CopyState::Failed | CopyState::Deleted);
    let unseen = known.iter().filter(|backup| !seen.contains(backup.id.as_str()));
    let told = unseen.filter_map(|backup| {
        let copies = backup.dump.as_ref()?.copies.iter().filter(is_asked).filter(was_there);
        let copies: Vec<BackupCopy> = copies.map(|copy| missing(copy.clone(), now)).collect();
        (!copies.is_empty()).then(|| (backup.id.clone(), copies))
    });
    told.collect()
}

/// An inventory in which a file is found by its path.
struct Shelf<'a> {
    inventory: &'a Inventory,
    sizes: HashMap<&'a str, u64>,
}

impl<'a> Shelf<'a> {
    fn of(inventory: &'a Inventory) -> Self {
        Self { inventory, sizes: inventory.files.iter().map(|file| (file.path.as_str(), file.size)).collect() }
    }
}

/// The backups of one storage by their directories; everything else becomes a stranger.
fn backups_of<'a>(
    inventory: &'a Inventory,
    now: DateTime<Utc>,
    strangers: &mut Vec<Stranger>,
) -> BTreeMap<&'a str, &'a Manifest> {
    let mut stranger = |path: &str, why: String| {
        strangers.push(Stranger { storage: inventory.storage.clone(), path: path.to_owned(), why });
    };
    let (mut ours, mut refused) = (BTreeMap::new(), BTreeSet::new());
    for (path, read) in &inventory.manifests {
        let Some((directory, _)) = place(path) else { continue };
        let fitting = |manifest| fits(manifest, directory, now).map(|()| manifest);
        match read.as_ref().map_err(Clone::clone).and_then(fitting) {
            Ok(manifest) => drop(ours.insert(directory, manifest)),
            Err(why) => {
                refused.insert(directory);
                stranger(path, why);
            }
        }
    }
    for file in &inventory.files {
        match place(&file.path) {
            None => stranger(&file.path, "it is not where a backup would be".to_owned()),
            Some((directory, name)) => match ours.get(directory) {
                Some(manifest) if !belongs(manifest, name) => {
                    stranger(&file.path, "the backup's manifest does not name it".to_owned());
                }
                Some(_) => {}
                None if refused.insert(directory) => {
                    stranger(directory, "there is no manifest: unfinished, or not ours".to_owned());
                }
                None => {}
            },
        }
    }
    ours
}

/// The directory of a backup and the file within it.
fn place(path: &str) -> Option<(&str, &str)> {
    let (database, rest) = path.split_once('/')?;
    let (id, name) = rest.split_once('/')?;
    let directory = &path[..database.len() + 1 + id.len()];
    [database, id, name].iter().all(|part| !part.is_empty()).then_some((directory, name))
}

/// Whether a manifest is of the directory it lies in, names nothing outside it, and was made before now: one from the
/// future would be the newest backup for ever, and push the others out.
fn fits(manifest: &Manifest, directory: &str, now: DateTime<Utc>) -> Result<(), String> {
    let backup = &manifest.backup;
    let Some(dump) = &backup.dump else { return Err("its manifest is not of a dump".to_owned()) };
    let own = format!("{}/{}", backup.database, backup.id);
    let is_itself = dump.directory == own && backup.engine.is_dump() && backup.label == backup.id && backup.repo == 0;
    if own != directory || !is_itself {
        return Err(format!("its manifest is of `{own}`"));
    }
    let latest = backup.started_at.max(backup.stopped_at);
    if latest > now {
        return Err(format!("its manifest is of {}, which is in the future", latest.format("%F %T UTC")));
    }
    let stays = |name: &str| name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    match dump.artifacts.iter().find(|artifact| !stays(&artifact.name)) {
        Some(artifact) => Err(format!("its manifest names `{}`, which is outside", artifact.name)),
        None => Ok(()),
    }
}

fn belongs(manifest: &Manifest, name: &str) -> bool {
    let artifacts = manifest.backup.dump.iter().flat_map(|dump| &dump.artifacts);
    matches!(name, MANIFEST | HOLD) || artifacts.into_iter().any(|artifact| artifact.name == name)
}

/// One backup with the state of each of its copies.
fn assemble(first: &Backup, found: &[(&Shelf<'_>, &Manifest)], asked: &[Inventory], now: DateTime<Utc>) -> Backup {
    let mut backup = first.clone();
    let Some(dump) = backup.dump.as_mut() else { return backup };
    let mut copies: Vec<BackupCopy> =
        found.iter().map(|(shelf, manifest)| copy_in(shelf, dump, manifest.backup == *first, now)).collect();
    let is_told = |copy: &BackupCopy, copies: &[BackupCopy]| copies.iter().any(|told| told.storage == copy.storage);
    let others: Vec<BackupCopy> = dump.copies.iter().filter(|copy| !is_told(copy, &copies)).cloned().collect();
    let is_asked = |copy: &BackupCopy| asked.iter().any(|inventory| inventory.storage == copy.storage);
    copies.extend(others.into_iter().map(|copy| match copy.state {
        CopyState::Failed | CopyState::Deleted => copy,
        _ if is_asked(&copy) => missing(copy, now),
        _ => BackupCopy { state: CopyState::Unknown, detail: Some("it could not be asked".to_owned()), ..copy },
    }));
    dump.copies = copies;
    dump.verified_at = None;
    let hold = found.iter().find_map(|(shelf, _)| shelf.inventory.holds.get(&dump.directory).cloned());
    (backup.held, backup.held_until) = hold.map_or((None, None), |(why, until)| (Some(why), until));
    backup.proven_at = None;
    backup
}

/// Adds what only reading every byte can tell, and a listing cannot.
fn remember(backup: &mut Backup, known: Option<&Dump>) {
    let (Some(dump), Some(known)) = (backup.dump.as_mut(), known) else { return };
    dump.verified_at = known.verified_at;
    for copy in dump.copies.iter_mut().filter(|copy| copy.state == CopyState::Good) {
        let damaged = |old: &&BackupCopy| old.storage == copy.storage && old.state == CopyState::Damaged;
        if let Some(old) = known.copies.iter().find(damaged) {
            copy.clone_from(old);
        }
    }
}

/// Gives a backup the status that its copies make of it; one that was ended stays so, however much of it is there.
fn judge(backup: &mut Backup, known: Option<&Backup>, now: DateTime<Utc>) {
    if let Some(ended) = known.filter(|known| known.status == BackupStatus::Expired) {
        backup.status = ended.status;
        backup.expired_reason.clone_from(&ended.expired_reason);
        backup.expired_at = ended.expired_at;
        return;
    }
    let Some(dump) = &backup.dump else { return };
    let status = standing(&dump.copies).unwrap_or(BackupStatus::Good);
    backup.expired_reason = (status != BackupStatus::Good).then(|| trouble(&dump.copies));
    backup.expired_at = (status == BackupStatus::Lost).then_some(now);
    backup.status = status;
}

/// What a listing proves of a copy's artifacts, and what is wrong with them.
pub fn listed(dump: &Dump, sizes: &HashMap<&str, u64>) -> (CopyState, Vec<String>) {
    let mut wrong = Vec::new();
    let mut state = CopyState::Good;
    for artifact in &dump.artifacts {
        match sizes.get(dump.path(artifact).as_str()) {
            Some(size) if *size == artifact.stored.size => {}
            Some(size) => {
                state = CopyState::Damaged;
                wrong.push(format!("`{}` has {size} bytes instead of {}", artifact.name, artifact.stored.size));
            }
            None => {
                state = if state == CopyState::Damaged { state } else { CopyState::Missing };
                wrong.push(format!("`{}` is missing", artifact.name));
            }
        }
    }
    (state, wrong)
}

/// What the listing of a storage proves of the copy in it.
fn copy_in(shelf: &Shelf<'_>, dump: &Dump, agrees: bool, now: DateTime<Utc>) -> BackupCopy {
    let (mut state, mut wrong) = listed(dump, &shelf.sizes);
    if !agrees {
        state = CopyState::Damaged;
        wrong.push("its manifest differs from that of another copy".to_owned());
    }
    let storage = &shelf.inventory.storage;
    let known = dump.copies.iter().find(|copy| copy.storage == *storage);
    BackupCopy {
        storage: storage.clone(),
        state,
        detail: (!wrong.is_empty()).then(|| wrong.join(", ")),
        checked_at: now,
        locked_until: known.and_then(|copy| copy.locked_until),
    }
}

fn missing(copy: BackupCopy, now: DateTime<Utc>) -> BackupCopy {
    BackupCopy { state: CopyState::Missing, detail: Some("it is not there".to_owned()), checked_at: now, ..copy }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing::{at, copy, dump};

    /// A storage with these backups, each whole.
    fn inventory(storage: &str, backups: &[&Backup]) -> Inventory {
        let mut told = Inventory { storage: storage.to_owned(), ..Inventory::default() };
        for backup in backups {
            let dump = backup.dump.as_ref().unwrap();
            let files = dump.artifacts.iter().map(|a| Stored { path: dump.path(a), size: a.stored.size });
            told.files.extend(files);
            told.files.push(Stored { path: dump.manifest_path(), size: 9 });
            told.manifests.insert(dump.manifest_path(), Ok(Manifest::new((*backup).clone(), Vec::new())));
        }
        told
    }

    fn states(backup: &Backup) -> Vec<(&str, CopyState, Option<&str>)> {
        let copies = &backup.dump.as_ref().unwrap().copies;
        copies.iter().map(|copy| (copy.storage.as_str(), copy.state, copy.detail.as_deref())).collect()
    }

    fn strangers(rebuilt: &Rebuilt) -> Vec<String> {
        rebuilt.strangers.iter().map(|s| format!("{} {}: {}", s.storage, s.path, s.why)).collect()
    }

    #[test]
    fn copies_of_one_backup_in_several_storages_are_one_backup() {
        let made = dump("shop", "backup-1", 500);
        let rebuilt = rebuild(&[inventory("local", &[&made]), inventory("offsite", &[&made])], &[], at(900));
        assert_eq!(rebuilt.strangers, []);
        assert_eq!(rebuilt.dumps.len(), 1);
        let mut found = rebuilt.dumps[0].clone();
        assert_eq!(states(&found), [("local", CopyState::Good, None), ("offsite", CopyState::Good, None)]);
        found.dump.as_mut().unwrap().copies = made.dump.as_ref().unwrap().copies.clone();
        assert_eq!(found, made, "all but the copies is as the manifest says");
    }

    #[test]
    fn a_storage_that_was_not_asked_is_unknown_and_one_without_it_lacks_it() {
        let made = dump("shop", "backup-1", 500);
        let alone = rebuild(&[inventory("local", &[&made])], &[], at(900));
        let asked_in_vain = ("offsite", CopyState::Unknown, Some("it could not be asked"));
        assert_eq!(states(&alone.dumps[0]), [("local", CopyState::Good, None), asked_in_vain]);
        let empty = rebuild(&[inventory("local", &[&made]), inventory("offsite", &[])], &[], at(900));
        assert_eq!(states(&empty.dumps[0])[1], ("offsite", CopyState::Missing, Some("it is not there")));
        let mut failed = made.clone();
        failed.dump.as_mut().unwrap().copies[0] = copy("offsite", CopyState::Failed, 500);
        let rebuilt = rebuild(&[inventory("local", &[&failed]), inventory("offsite", &[])], &[], at(900));
        assert_eq!(states(&rebuilt.dumps[0])[1], ("offsite", CopyState::Failed, None), "it never was there");
    }

    #[test]
    fn a_file_that_is_missing_or_of_another_size_is_seen_in_the_listing() {
        let made = dump("shop", "backup-1", 500);
        let (mut short, mut lacking) = (inventory("local", &[&made]), inventory("offsite", &[&made]));
        short.files[1].size = 199;
        lacking.files.remove(0);
        let rebuilt = rebuild(&[short, lacking], &[], at(900));
        let damaged = ("local", CopyState::Damaged, Some("`shop.dump.zst` has 199 bytes instead of 200"));
        let missing = ("offsite", CopyState::Missing, Some("`globals.sql.zst` is missing"));
        assert_eq!(states(&rebuilt.dumps[0]), [damaged, missing]);
        assert_eq!(rebuilt.dumps[0].status, BackupStatus::Damaged);
        let why = "local: `shop.dump.zst` has 199 bytes instead of 200; offsite: `globals.sql.zst` is missing";
        assert_eq!(rebuilt.dumps[0].expired_reason.as_deref(), Some(why));
    }

    #[test]
    fn what_is_not_ours_is_named_and_nothing_else_is_done_about_it() {
        let made = dump("shop", "backup-1", 500);
        let moved = dump("shop", "backup-2", 600);
        let mut outside = dump("shop", "backup-4", 600);
        outside.dump.as_mut().unwrap().artifacts[0].name = "../backup-1/shop.dump.zst".to_owned();
        let mut told = inventory("local", &[&made]);
        for path in ["README", "shop/notes.txt", "shop/backup-1/extra", "shop/backup-9/a", "shop/backup-9/parts/b"] {
            told.files.push(Stored { path: path.to_owned(), size: 1 });
        }
        let manifests = [
            ("shop/backup-3/manifest.json", Ok(Manifest::new(moved, Vec::new()))),
            ("shop/backup-4/manifest.json", Ok(Manifest::new(outside, Vec::new()))),
            ("shop/backup-5/manifest.json", Err("its HMAC is wrong".to_owned())),
        ];
        for (path, manifest) in manifests {
            told.files.push(Stored { path: path.to_owned(), size: 1 });
            told.manifests.insert(path.to_owned(), manifest);
        }
        let rebuilt = rebuild(&[told], &[], at(900));
        assert_eq!(rebuilt.dumps.len(), 1);
        insta::assert_snapshot!(strangers(&rebuilt).join("\n"), @r"
        local shop/backup-3/manifest.json: its manifest is of `shop/backup-2`
        local shop/backup-4/manifest.json: its manifest names `../backup-1/shop.dump.zst`, which is outside
        local shop/backup-5/manifest.json: its HMAC is wrong
        local README: it is not where a backup would be
        local shop/notes.txt: it is not where a backup would be
        local shop/backup-1/extra: the backup's manifest does not name it
        local shop/backup-9: there is no manifest: unfinished, or not ours
        ");
    }

    #[test]
    fn an_id_belongs_to_one_database() {
        let (one, two) = (dump("crm", "backup-1", 500), dump("shop", "backup-1", 500));
        let rebuilt = rebuild(&[inventory("local", &[&one, &two])], &[], at(900));
        assert_eq!(rebuilt.dumps.iter().map(|backup| backup.database.as_str()).collect::<Vec<_>>(), ["crm"]);
        assert_eq!(strangers(&rebuilt), ["local shop/backup-1: another database has a backup `backup-1` too"]);
    }

    #[test]
    fn manifests_that_contradict_each_other_leave_one_good_copy() {
        let made = dump("shop", "backup-1", 500);
        let changed = Backup { reason: Some("another".to_owned()), ..made.clone() };
        let rebuilt = rebuild(&[inventory("local", &[&made]), inventory("offsite", &[&changed])], &[], at(900));
        let differs = Some("its manifest differs from that of another copy");
        assert_eq!(states(&rebuilt.dumps[0])[1], ("offsite", CopyState::Damaged, differs));
        assert_eq!(rebuilt.dumps[0].status, BackupStatus::Good);
    }

    #[test]
    fn a_hold_beside_a_backup_holds_it_again() {
        let made = dump("shop", "backup-1", 500);
        let mut told = inventory("local", &[&made]);
        told.files.push(Stored { path: "shop/backup-1/hold.json".to_owned(), size: 1 });
        told.holds.insert("shop/backup-1".to_owned(), ("audit (by ada)".to_owned(), Some(at(900))));
        let rebuilt = rebuild(&[told], &[], at(900));
        assert_eq!((rebuilt.dumps[0].held.as_deref(), rebuilt.strangers.len()), (Some("audit (by ada)"), 0));
        assert_eq!(rebuilt.dumps[0].held_until, Some(at(900)));
    }

    #[test]
    fn a_copy_that_was_read_and_found_damaged_stays_so_however_long_it_is() {
        let made = dump("shop", "backup-1", 500);
        let mut known = made.clone();
        let bad = BackupCopy { detail: Some("another checksum".to_owned()), ..copy("local", CopyState::Damaged, 600) };
        let dump = known.dump.as_mut().unwrap();
        (dump.copies, dump.verified_at) = (vec![bad], Some(at(600)));
        let both = [inventory("local", &[&made]), inventory("offsite", &[&made])];
        let rebuilt = rebuild(&both, &[known.clone()], at(900));
        assert_eq!(states(&rebuilt.dumps[0])[0], ("local", CopyState::Damaged, Some("another checksum")));
        assert_eq!(rebuilt.dumps[0].dump.as_ref().unwrap().verified_at, Some(at(600)));
        let alone = rebuild(&both[..1], &[known.clone()], at(900));
        assert_eq!(alone.dumps[0].status, BackupStatus::Good, "the other copy could not be asked");
        let elsewhere = Backup { database: "crm".parse().unwrap(), ..known };
        assert_eq!(rebuild(&both, &[elsewhere], at(900)).dumps, []);
    }

    #[test]
    fn a_manifest_tells_nothing_that_only_we_could_find_out_later() {
        let mut made = dump("shop", "backup-1", 500);
        (made.proven_at, made.held) = (Some(at(600)), Some("for ever".to_owned()));
        made.dump.as_mut().unwrap().verified_at = Some(at(600));
        let found = rebuild(&[inventory("local", &[&made])], &[], at(900)).dumps.remove(0);
        assert_eq!((found.proven_at, found.held, found.dump.unwrap().verified_at), (None, None, None));
    }

    #[test]
    fn a_manifest_from_the_future_is_refused() {
        let made = dump("shop", "backup-1", 901);
        let rebuilt = rebuild(&[inventory("local", &[&made])], &[], at(900));
        assert_eq!(rebuilt.dumps, []);
        assert_eq!(
            strangers(&rebuilt),
            ["local shop/backup-1/manifest.json: its manifest is of 2026-01-02 00:15:01 UTC, which is in the future"]
        );
        assert_eq!(rebuild(&[inventory("local", &[&made])], &[], at(901)).dumps.len(), 1);
    }

    #[test]
    fn what_somebody_ended_stays_ended_and_its_copies_are_told() {
        let made = dump("shop", "backup-1", 500);
        let mut known = made.clone();
        known.status = BackupStatus::Expired;
        (known.expired_reason, known.expired_at) = (Some("by ada".to_owned()), Some(at(700)));
        known.dump.as_mut().unwrap().copies = vec![copy("local", CopyState::Deleted, 700)];
        let found = rebuild(&[inventory("local", &[&made])], &[known], at(900)).dumps.remove(0);
        let ended = (BackupStatus::Expired, Some("by ada".to_owned()), Some(at(700)));
        assert_eq!(states(&found)[0], ("local", CopyState::Good, None));
        assert_eq!((found.status, found.expired_reason, found.expired_at), ended);
    }

    #[test]
    fn what_the_catalog_knows_and_no_storage_shows_is_missing_where_it_was_asked() {
        let (gone, there) = (dump("shop", "backup-1", 500), dump("shop", "backup-2", 600));
        let asked = [inventory("local", &[&there])];
        let rebuilt = rebuild(&asked, &[], at(900));
        let told = vanished(&[gone, there], &rebuilt, &asked, at(900));
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].0.as_str(), told[0].1.len()), ("backup-1", 1));
        assert_eq!((told[0].1[0].storage.as_str(), told[0].1[0].state), ("local", CopyState::Missing));
    }
}
