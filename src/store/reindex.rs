//! Building the index of a backup again from its data.
//!
//! The new index is built beside the old one, as `<data>.index.new`, and the data are taken in
//! exactly as at an open that finds no index: everything readable is indexed, damage is passed
//! over, a torn tail is mended. Only when that is committed does the new index take the place of
//! the old one. Killed at any instant, it leaves the one or the other in its place; whoever opens
//! the backup next removes an unfinished `.index.new`, or gives a finished one its place
//! and keeps the old one aside ([`complete_interrupted`]).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::aside;
use super::backup::{index_path, with_suffix};
use super::compact::{adopt_index, complete_interrupted};
use super::data_file::{self, remove_if_there, sync_directory_of};
use super::disk::Disk;
use super::error::{Result, StoreError};
use super::index::{Index, Open, RestartPoint};
use super::recover::{self, Taking};
pub use super::replay::Stretch;
pub use super::salvage::Gap;
use crate::lock::Wait;

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reindexed {
    /// Damaged stretches that were passed over.
    pub damaged: u64,
    /// Where the old index was left, if it was.
    pub kept: Option<PathBuf>,
}

/// Rebuilds the index of the backup at `path`, under its lock. What the file
/// consists of goes to `sink`, as it is found. The old index stays as `<index>.<now>` if
/// `keep_previous`, or if damage was found: it may know more. On an error it stays in its place.
///
/// Errors: [`StoreError::Missing`], [`StoreError::Locked`] (only with [`Wait::No`]),
/// and what reading or writing brings.
pub fn run(
    path: &Path,
    wait: Wait,
    keep_previous: bool,
    now: i64,
    sink: &mut dyn FnMut(Stretch),
) -> Result<Reindexed> {
    let file = data_file::open(path, false, wait).map_err(StoreError::lock(path))?;
    complete_interrupted(path, &file)?;
    let (durable, known) = old_knowledge(&file, path);
    let mut damaged = 0;
    let mut told = |stretch| {
        damaged += u64::from(matches!(stretch, Stretch::Damaged { .. }));
        sink(stretch);
    };
    let new = with_suffix(path, ".index.new");
    let mut taking = Taking { now, durable, known: &known, told: &mut told };
    if let Err(error) = recover::build_index(&file, path, &new, &mut taking) {
        // Nothing depends on it; the next open tries again.
        let _ =
            remove_if_there(&new).and_then(|()| remove_if_there(&with_suffix(&new, "-journal")));
        return Err(error.of_making(new));
    }
    let kept = put_in_place(path, &new, (keep_previous || damaged > 0).then_some(now));
    Ok(Reindexed { damaged, kept: kept.map_err(StoreError::io(index_path(path)))? })
}

/// Puts the new index in the place of the old one, which stays beside with `keep`, a time;
/// returns where.
fn put_in_place(path: &Path, new: &Path, keep: Option<i64>) -> io::Result<Option<PathBuf>> {
    let kept = match keep.map(|now| aside::put_index_aside(path, now)).transpose() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        kept => kept?,
    };
    adopt_index(path, new)?;
    sync_directory_of(path)?;
    Ok(kept)
}

/// Octets of the file that the old index knows to survive a power cut, and its restart points.
/// Without the former, all octets are written once more before they are synced.
fn old_knowledge(file: &File, path: &Path) -> (u64, Vec<RestartPoint>) {
    let old = Index::open(&index_path(path), Open::Read);
    let known = old.and_then(|index| Ok((index.state()?, index.all_restart_points()?)));
    match (known, Disk::inode(file)) {
        (Ok((Some(state), points)), Ok(inode)) if state.inode == inode => (state.len_file, points),
        _ => (0, Vec::new()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::{Backup, verify};

    const NOW: i64 = 1_800_000_000;

    fn fixture() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let source = "tests/fixtures/backups/main/one/c/carol_cesxQB";
        let path = dir.path().join("data");
        fs::copy(source, &path).unwrap();
        fs::copy(format!("{source}.index"), dir.path().join("data.index")).unwrap();
        (dir, path)
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn reindex(path: &Path, keep: bool) -> (Result<Reindexed>, String) {
        let mut told = String::new();
        let result = run(path, Wait::No, keep, NOW, &mut |stretch| {
            told += &match stretch {
                Stretch::Member { offset } => format!("{offset} "),
                Stretch::Torn { offset } => format!("torn {offset} "),
                Stretch::Damaged { offset, end, .. } => format!("damaged {offset}-{end} "),
            }
        });
        (result, told)
    }

    fn is_sound(path: &Path) -> bool {
        verify::full(&Backup::open(path, Wait::No).unwrap(), &mut |_| {}).unwrap()
    }

    #[test]
    fn the_old_index_goes_unless_it_is_to_be_kept() {
        let (dir, path) = fixture();
        let (result, told) = reindex(&path, false);
        assert_eq!(result.unwrap(), Reindexed { damaged: 0, kept: None });
        assert!(told.starts_with("0 18000 22661 22716 "), "{told}");
        assert_eq!(names(dir.path()), ["data", "data.index"]);
        assert!(is_sound(&path));
        for name in ["data.index.1800000000", "data.index.1800000000.1"] {
            let kept = reindex(&path, true).0.unwrap().kept.unwrap();
            assert_eq!(kept, dir.path().join(name));
        }
        assert!(is_sound(&path));
    }

    #[test]
    fn an_index_missing_empty_or_unusable_is_no_obstacle() {
        let (dir, path) = fixture();
        let index = dir.path().join("data.index");
        fs::remove_file(&index).unwrap();
        reindex(&path, false).0.unwrap();
        assert!(is_sound(&path));
        for content in ["", "this is no database, however much you look at it, and at it"] {
            fs::write(&index, content).unwrap();
            fs::write(dir.path().join("data.index-journal"), "nor is this a journal").unwrap();
            reindex(&path, false).0.unwrap();
            assert!(is_sound(&path));
            assert_eq!(names(dir.path()), ["data", "data.index"]);
        }
    }

    #[test]
    fn damage_costs_what_is_damaged_and_keeps_the_old_index() {
        let (dir, path) = fixture();
        let mut octets = fs::read(&path).unwrap();
        octets[19_000] ^= 1;
        fs::write(&path, &octets).unwrap();
        let (result, told) = reindex(&path, false);
        let result = result.unwrap();
        assert_eq!((result.damaged, result.kept.is_some()), (1, true));
        assert!(told.starts_with("0 damaged 18000-22661 22661 "), "{told}");
        // The lines in front of the damage are entered too, as part of a chunk that
        // verification rightly finds damaged; header-only chunks have no row.
        let backup = Backup::open(&path, Wait::No).unwrap();
        let chunks = backup.index().chunks().unwrap();
        let offsets: Vec<u64> = chunks.iter().map(|chunk| chunk.offset).collect();
        assert_eq!(offsets, [0, 18_000, 22_716, 26_265, 28_330]);
        let mut findings = Vec::new();
        let sound = verify::full(&backup, &mut |event| {
            if let verify::Event::Finding(finding) = event {
                findings.push(finding.chunk_id);
            }
        });
        assert!(!sound.unwrap());
        assert_eq!(findings, [Some(chunks[1].id)]);
        assert_eq!(fs::read(&path).unwrap(), octets);
        drop(dir);
    }

    #[test]
    fn a_torn_tail_is_no_damage() {
        let (_dir, path) = fixture();
        let octets = fs::read(&path).unwrap();
        fs::write(&path, &octets[..20_000]).unwrap();
        let (result, told) = reindex(&path, false);
        assert_eq!(result.unwrap().damaged, 0);
        assert!(told.ends_with("torn 18000 "), "{told}");
        assert!(is_sound(&path));
    }

    /// Killed anywhere, it leaves the old index in its place, and nothing that the next one does
    /// not remove.
    #[test]
    fn killed_at_any_place_it_leaves_nothing_behind() {
        let (dir, path) = fixture();
        reindex(&path, false).0.unwrap();
        let before = fs::read(index_path(&path)).unwrap();
        for place in 0.. {
            let mut left = place;
            let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                run(&path, Wait::No, false, NOW, &mut |_| {
                    assert!(left > 0, "killed");
                    left -= 1;
                })
            }));
            if killed.is_ok() {
                assert!(place > 5);
                break;
            }
            assert!(names(dir.path()).contains(&"data.index.new".into()));
            assert!(fs::read(index_path(&path)).unwrap() == before);
            match place % 3 {
                0 => assert!(reindex(&path, false).0.is_ok()),
                1 => drop(Backup::open_shared(&path, Wait::No).unwrap()),
                _ => {}
            }
            assert!(place % 3 == 2 || names(dir.path()) == ["data", "data.index"]);
        }
        assert_eq!(names(dir.path()), ["data", "data.index"]);
        assert!(is_sound(&path));
    }

    /// Killed between its renames: the new index is complete, the old one in its place, aside,
    /// or gone. In its place it goes on being there: what is damaged it alone knows.
    #[test]
    fn a_finished_index_gets_its_place() {
        let (dir, path) = fixture();
        reindex(&path, false).0.unwrap();
        let (index, new) = (index_path(&path), with_suffix(&path, ".index.new"));
        let finished = fs::read(&index).unwrap();
        for old in [Some("that of somebody else, with a journal"), None] {
            fs::write(&new, &finished).unwrap();
            match old {
                Some(old) => fs::write(&index, old).unwrap(),
                None => fs::remove_file(&index).unwrap(),
            }
            fs::write(with_suffix(&index, "-journal"), "not of the new one").unwrap();
            drop(Backup::open_shared(&path, Wait::No).unwrap());
            assert!(fs::read(&index).unwrap() == finished);
            let kept = names(dir.path()).split_off(2);
            match (old, &*kept) {
                (Some(old), [kept]) => {
                    assert_eq!(fs::read_to_string(dir.path().join(kept)).unwrap(), old);
                }
                (None, []) => {}
                _ => panic!("{kept:?}"),
            }
            kept.iter().for_each(|name| fs::remove_file(dir.path().join(name)).unwrap());
            assert!(is_sound(&path));
        }
    }

    #[test]
    fn after_a_failure_the_old_index_is_still_there() {
        let (dir, path) = fixture();
        let before = fs::read(index_path(&path)).unwrap();
        // The new one cannot be made.
        fs::create_dir(with_suffix(&path, ".index.new-journal")).unwrap();
        let result = reindex(&path, false).0;
        assert!(matches!(result, Err(StoreError::Index { .. })), "{result:?}");
        fs::remove_dir(with_suffix(&path, ".index.new-journal")).unwrap();
        assert_eq!(fs::read(index_path(&path)).unwrap(), before);
        assert_eq!(names(dir.path()), ["data", "data.index"]);
    }

    #[test]
    fn locked_missing_and_empty() {
        let (dir, path) = fixture();
        let held = Backup::open(&path, Wait::No).unwrap();
        assert!(matches!(reindex(&path, false).0, Err(StoreError::Locked(_))));
        drop(held);
        let missing = dir.path().join("nothing");
        assert!(matches!(reindex(&missing, false).0, Err(StoreError::Missing(_))));
        assert_eq!(names(dir.path()), ["data", "data.index"]);
        fs::write(&path, "").unwrap();
        assert_eq!(reindex(&path, false).0.unwrap().damaged, 0);
        assert!(is_sound(&path));
    }
}
