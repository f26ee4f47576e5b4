//! Mail that was displaced, because its mail server went back to an earlier state, stays as long
//! as what was expunged.

use super::*;
use crate::store::backup::index_path;
use crate::store::exact;
use crate::store::export::{Selection, gather};
use crate::store::moment;
use crate::store::search::{self, Query};
use crate::wire::mboxname::NameRules;

/// UIDs 1 to 5, of which one is expunged; ten seconds later the server has gone back to UID 2 and
/// on to 3.
fn went_back() -> Vec<(u32, Op)> {
    let five = (1..=5).map(|number| (number, number, false)).collect();
    vec![
        (0, Op::Message(vec![1, 2, 3, 4, 5])),
        (0, Op::Mailbox(0, 0, 5, five)),
        (0, Op::EndChunk),
        (5, Op::Mailbox(0, 0, 5, vec![(5, 5, true)])),
        (0, Op::EndChunk),
        (5, Op::Message(vec![6])),
        (0, Op::Mailbox(0, 0, 3, vec![(3, 6, false)])),
    ]
}

/// What was displaced: UID, message, whether it is still known.
fn gone(site: &Site) -> Vec<u32> {
    site.seen(None).gone_uids()
}

fn living_at(site: &Site, at: i64) -> Vec<(u32, crate::wire::Guid)> {
    let backup = Backup::open(&site.path, Wait::No).unwrap();
    let view = moment::open(backup, at, &NameRules::default()).unwrap();
    let records = exact::all_records(view.backup(), b"u0").unwrap();
    let living = records.into_iter().filter(|row| row.expunged.is_none());
    living.map(|row| (row.uid, row.guid.unwrap())).collect()
}

fn five() -> Vec<(u32, crate::wire::Guid)> {
    (1..=5).map(|number| (number, history::guid(number))).collect()
}

#[test]
fn displaced_mail_stays_as_long_as_expunged_mail() {
    for (since, uids, messages) in
        [(START + 4, &[3, 4, 5][..], 6), (START + 9, &[3, 4], 5), (START + 10, &[], 3)]
    {
        let site = Site::new();
        site.write(&went_back());
        assert_eq!(gone(&site), [3, 4, 5]);
        for _ in 0..2 {
            site.compact(&site.policy(Some(since)));
            let seen = site.seen(None);
            assert_eq!((seen.uids(), seen.gone_uids()), (vec![1, 2, 3], uids.to_vec()), "{since}");
            assert_eq!(seen.message_count(), messages, "{since}");
            assert!(is_sound(&site));
            assert_eq!(
                Rows::of(Backup::open(&site.path, Wait::No).unwrap().index()),
                rebuilt(&site)
            );
        }
    }
}

/// The lines that displace something hold nothing else.
#[test]
fn chunks_of_displaced_mail_are_known_without_reading_the_log() {
    let site = Site::new();
    let mut history = went_back();
    history.push((5, Op::EndChunk));
    history.push((5, Op::Mailbox(0, 0, 3, vec![(3, 6, false)])));
    site.write(&history);
    let unforced = |since| {
        let policy = site.policy(Some(since));
        site.compact(&Policy { force: false, ..policy }).1
    };
    assert_eq!(unforced(START + 4), Outcome::Skipped);
    assert_eq!(dead_chunks(&site, START + 4), 0);
    assert!(dead_chunks(&site, START + 10) > 0);
    assert!(matches!(unforced(START + 10), Outcome::Done { .. }));
    assert_eq!(gone(&site), []);
    assert_eq!(dead_chunks(&site, START + 10), 0);
}

#[test]
fn displaced_mail_is_there_before_it_was_displaced() {
    let site = Site::new();
    let mut history = went_back();
    // The lines from before it are superseded.
    let again = (1..=4).map(|number| (number, number, false)).collect();
    history.insert(5, (3, Op::Mailbox(0, 0, 5, again)));
    site.write(&history);
    let before = living_at(&site, START + 4);
    assert_eq!(before, five());
    let then = living_at(&site, START + 9);
    assert_eq!(then, five()[..4]);
    site.compact(&site.policy(Some(START + 4)));
    assert_eq!(living_at(&site, START + 4), before);
    assert_eq!(living_at(&site, START + 9), then);
}

/// A line whose records have UIDs above its own LAST_UID, and one in between that has none.
#[test]
fn uids_above_the_last_one_are_displaced_at_the_same_line() {
    let site = Site::new();
    site.write(&[
        (0, Op::Message(vec![1, 2])),
        (0, Op::Mailbox(0, 0, 3, vec![(1, 1, false), (7, 2, false)])),
        (1, Op::Mailbox(0, 0, 6, vec![])),
        (1, Op::Mailbox(0, 0, 4, vec![])),
        (1, Op::Mailbox(0, 0, 8, vec![])),
    ]);
    assert_eq!(gone(&site), [7]);
    site.compact(&site.policy(Some(START + 1)));
    assert_eq!(gone(&site), [7]);
    assert!(is_sound(&site));
    site.compact(&site.policy(Some(START + 2)));
    assert_eq!(gone(&site), []);
}

/// It is expunged because a line that told all did not mention it, and displaced later.
#[test]
fn what_a_whole_line_left_out_is_displaced_with_its_time() {
    for (since, uids) in [(START + 9, &[2][..]), (START + 10, &[])] {
        let site = Site::new();
        let all = [1, 2, 3].map(|uid| (uid, uid, false));
        site.write(&[
            (0, Op::Message(vec![1, 2, 3, 4])),
            (0, Op::Whole(0, 0, 5, all.to_vec())),
            (0, Op::EndChunk),
            (10, Op::Whole(0, 0, 5, vec![all[0], all[2]])),
            (0, Op::EndChunk),
            (10, Op::Mailbox(0, 0, 5, vec![(2, 4, false)])),
        ]);
        assert_eq!(gone(&site), [2]);
        for _ in 0..2 {
            site.compact(&site.policy(Some(since)));
            assert_eq!(gone(&site), uids);
            assert!(is_sound(&site));
        }
    }
}

/// An older client sends a doubtful mailbox in parts, and dies; a compaction comes in between.
#[test]
fn what_the_next_part_is_to_bring_waits_for_it() {
    let site = Site::new();
    let all = [1, 2, 3, 4].map(|uid| (uid, uid, false));
    site.write(&[
        (0, Op::Message(vec![1, 2, 3, 4])),
        (0, Op::Mailbox(0, 0, 4, all.to_vec())),
        (0, Op::EndChunk),
        (10, Op::Mailbox(0, 0, 2, all[..2].to_vec())),
    ]);
    let living = |site: &Site| (site.seen(None).uids(), site.seen(None).gone_uids());
    assert_eq!(living(&site), (vec![1, 2], vec![3, 4]));
    site.compact(&site.policy(Some(START + 9)));
    assert_eq!(living(&site), (vec![1, 2], vec![3, 4]));
    let mut writer = Writer::open(&site.path, START + 20).unwrap();
    site.op(&mut writer, START + 20, &Op::Mailbox(0, 0, 4, all[2..].to_vec()));
    writer.finish(START + 20).unwrap();
    drop(writer);
    assert_eq!(living(&site), (vec![1, 2, 3, 4], vec![]));
    assert!(is_sound(&site));
}

#[test]
fn displaced_mail_is_found_and_exported_as_expunged() {
    let site = Site::new();
    site.write(&went_back());
    let backup = Backup::open(&site.path, Wait::No).unwrap();
    let query = Query { deleted_since: Some(START), ..Query::default() };
    let found = search::run(&backup, &query, &NameRules::default(), site.dir.path()).unwrap();
    let hits: Vec<_> = found.hits.iter().map(|hit| (hit.uid, hit.guid, hit.expunged)).collect();
    let since = |uid| Some(if uid == 5 { START + 5 } else { START + 10 });
    assert_eq!(hits, [3, 4, 5].map(|uid| (uid, history::guid(uid), since(uid))));
    let names = |selection| {
        let gathered = gather(&backup, &selection, &NameRules::default()).unwrap();
        assert_eq!(gathered.missing, []);
        gathered.items.iter().map(|item| item.stem()).collect::<Vec<_>>()
    };
    assert_eq!(names(Selection::default()), ["1", "2", "3"]);
    let displaced = |uid| format!("{uid}-{}", history::guid(uid));
    let all = Selection { expunged: true, ..Selection::default() };
    let expected = ["1".into(), "2".into(), "3".into(), displaced(3), displaced(4), displaced(5)];
    assert_eq!(names(all), expected);
    let one = Selection { guids: Some([history::guid(4)].into()), ..Selection::default() };
    assert_eq!(names(one), [displaced(4)]);
}

/// An index that an older version has written lacks the table.
#[test]
fn an_older_index_learns_what_was_displaced() {
    let site = Site::new();
    site.write(&went_back());
    let known = Rows::of(Backup::open(&site.path, Wait::No).unwrap().index());
    let change = |sql: &str| {
        let db = rusqlite::Connection::open(index_path(&site.path)).unwrap();
        db.execute_batch(sql).unwrap();
    };
    change("DROP TABLE cyrbk_gone");
    {
        // Whoever only reads has it worked out.
        let backup = Backup::open(&site.path, Wait::No).unwrap();
        assert!(!backup.index().knows_truth().unwrap());
        assert_eq!(exact::all_records(&backup, b"u0").unwrap().len(), 6);
    }
    assert!(is_exact(&site));
    drop(Writer::open(&site.path, START + 99).unwrap());
    assert_eq!(Rows::of(Backup::open(&site.path, Wait::No).unwrap().index()), known);
    assert!(is_sound(&site));
    // A compaction reads the log before it drops anything of it.
    change("DROP TABLE cyrbk_gone");
    site.compact(&site.policy(Some(START + 9)));
    assert_eq!(gone(&site), [3, 4]);
    // Without a row in `cyrbk_record` there is nothing to be looked for.
    let site = Site::new();
    site.write(&simple_history());
    let db = rusqlite::Connection::open(index_path(&site.path)).unwrap();
    db.execute_batch("DROP TABLE cyrbk_gone; DELETE FROM cyrbk_record").unwrap();
    drop(db);
    assert!(Backup::open(&site.path, Wait::No).unwrap().index().knows_truth().unwrap());
}
