//! What is touched beside the result, and what must not be.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::store::data_file;
use crate::store::index::{Index, Open};

#[test]
fn nothing_is_left_beside_and_the_old_pair_on_request() {
    let site = Site::new();
    let end = site.write(&simple_history());
    fs::write(site.dir.path().join("data.new"), "stale").unwrap();
    fs::write(site.dir.path().join("data.index.new"), "stale").unwrap();
    site.compact(&site.policy(Some(end)));
    assert_eq!(site.files().into_iter().collect::<Vec<_>>(), ["data", "data.index"]);
    let octets = fs::read(&site.path).unwrap();
    let mut policy = site.policy(Some(end));
    policy.keep_previous = true;
    for time in ["4294967296", "4294967297"] {
        let (_, outcome) = site.compact(&policy);
        let Outcome::Done { previous, .. } = outcome else { panic!() };
        let previous = previous.unwrap();
        assert!(previous.ends_with(format!("data.{time}")), "{previous:?}");
        assert_eq!(fs::read(previous).unwrap(), octets);
        assert!(site.files().contains(&format!("data.index.{time}")));
    }
}

/// An index that goes away is not written to. One that stays knows its file again.
#[test]
fn a_moved_file_is_noted_in_the_index_that_stays() {
    let site = Site::new();
    let end = site.write(&simple_history());
    let (copy, index) = (site.dir.path().join("copy"), with_suffix(&site.path, ".index"));
    let move_away = || {
        fs::copy(&site.path, &copy).unwrap();
        fs::rename(&copy, &site.path).unwrap();
    };
    let is_noted = || {
        let state = Index::open(&index, Open::Read).unwrap().state().unwrap().unwrap();
        state.inode == fs::metadata(&site.path).unwrap().ino()
    };
    move_away();
    assert!(!is_noted());
    let mut policy = site.policy(Some(START));
    policy.force = false;
    assert_eq!(site.compact(&policy).1, Outcome::Skipped);
    assert!(is_noted());
    move_away();
    let before = fs::read(&index).unwrap();
    let mut policy = site.policy(Some(end));
    policy.keep_previous = true;
    assert!(matches!(site.compact(&policy).1, Outcome::Done { .. }));
    assert!(is_noted());
    assert!(fs::read(site.dir.path().join("data.index.4294967296")).unwrap() == before);
}

#[test]
fn a_dry_run_changes_nothing() {
    let site = Site::new();
    let end = site.write(&simple_history());
    let octets = fs::read(&site.path).unwrap();
    let mut policy = site.policy(Some(end));
    policy.dry_run = true;
    let (events, outcome) = site.compact(&policy);
    assert_eq!(events, ["Keeping([1, 2])"]);
    assert!(matches!(outcome, Outcome::Planned(figures) if figures.dropped == 1), "{outcome:?}");
    assert_eq!(fs::read(&site.path).unwrap(), octets);
    assert_eq!(site.files().len(), 2);
    // Nor does one that finds nothing to gain, which a real one makes a note of.
    let index = with_suffix(&site.path, ".index");
    let before = fs::read(&index).unwrap();
    policy.since = Some(START);
    policy.force = false;
    assert_eq!(site.compact(&policy).1, Outcome::Skipped);
    assert!(fs::read(&index).unwrap() == before);
    policy.dry_run = false;
    assert_eq!(site.compact(&policy).1, Outcome::Skipped);
    assert!(fs::read(&index).unwrap() != before);
}

#[test]
fn a_dry_run_builds_no_index() {
    let site = Site::new();
    let end = site.write(&simple_history());
    let index = with_suffix(&site.path, ".index");
    let mut policy = site.policy(Some(end));
    policy.dry_run = true;
    let sound = fs::read(&index).unwrap();
    let of_other_data = {
        let other = Site::new();
        other.write(&[simple_history(), simple_history()].concat());
        fs::read(with_suffix(&other.path, ".index")).unwrap()
    };
    for broken in [b"no index at all, however long one looks at it".to_vec(), of_other_data] {
        fs::write(&index, &broken).unwrap();
        let error = run(&site.path, &policy, 0, Wait::No, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("reindex"), "{error}");
        assert!(fs::read(&index).unwrap() == broken);
        assert_eq!(site.files().len(), 2);
    }
    fs::write(&index, &sound).unwrap();
    assert!(matches!(site.compact(&policy).1, Outcome::Planned(_)));
    assert!(fs::read(&index).unwrap() == sound);
}

/// An index that only Cyrus has written to has no tables for hints.
#[test]
fn a_dry_run_does_not_take_over_what_cyrus_has_written() {
    let site = Site::new();
    let source = "tests/fixtures/backups/main/one/c/carol_cesxQB";
    let index = with_suffix(&site.path, ".index");
    fs::copy(source, &site.path).unwrap();
    fs::copy(format!("{source}.index"), &index).unwrap();
    let before = fs::read(&index).unwrap();
    let mut policy = site.policy(Some(1 << 32));
    policy.dry_run = true;
    for force in [true, false] {
        policy.force = force;
        assert!(matches!(site.compact(&policy).1, Outcome::Planned(_)));
        assert!(fs::read(&index).unwrap() == before);
    }
}

#[test]
fn what_cannot_be_noted_is_no_failure() {
    let site = Site::new();
    site.write(&simple_history());
    let db = rusqlite::Connection::open(with_suffix(&site.path, ".index")).unwrap();
    db.execute_batch(
        "CREATE TRIGGER full BEFORE INSERT ON cyrbk_needed
         BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END",
    )
    .unwrap();
    drop(db);
    let mut policy = site.policy(Some(START));
    policy.force = false;
    assert_eq!(site.compact(&policy).1, Outcome::Skipped);
}

#[test]
fn a_locked_backup_is_left_alone() {
    let site = Site::new();
    site.write(&simple_history());
    let _held = data_file::open(&site.path, false, Wait::No).unwrap();
    let result = run(&site.path, &site.policy(None), 0, Wait::No, &mut |_| {});
    assert!(result.unwrap_err().to_string().ends_with("locked"));
}
