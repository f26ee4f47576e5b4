//! Messages that are put in front of lines they came behind.

use super::super::Policy;
use super::*;

/// What each line is, and its time stamp.
fn words(site: &Site) -> Vec<String> {
    let mut words = Vec::new();
    for line in state(site).split("\r\n") {
        // Nothing that messages say looks like that.
        if let [ts, "APPLY", what, ..] = line.split(' ').collect::<Vec<_>>()[..] {
            words.push(format!("{ts} {what}"));
        }
    }
    words
}

fn joining(site: &Site, since: Option<i64>) -> Policy {
    let sizes = Sizes { min: 1 << 20, max: 0, work_threshold: 1 };
    Policy { sizes, ..site.policy(since) }
}

/// Messages that came one at a time, a session each, and are marked as seen later.
fn grown(count: u32) -> Vec<(u32, Op)> {
    let one = |number: u32| {
        let records = vec![(number, number, false)];
        [
            (10, Op::Message(vec![number])),
            (0, Op::Mailbox(0, 0, number, records)),
            (0, Op::EndChunk),
        ]
    };
    let mut history: Vec<_> = (1..=count).flat_map(one).collect();
    history.push((0, Op::Mailbox(0, 0, count, (1..=count).map(|i| (i, i, false)).collect())));
    history
}

#[test]
fn messages_of_joined_chunks_lie_side_by_side() {
    let site = Site::new();
    let mut history = grown(3);
    history.extend([(5, Op::Sub(0, true)), (0, Op::Message(vec![0]))]);
    // A mailbox whose lines all stay.
    history.push((0, Op::Mailbox(1, 1, 5, vec![(1, 0, false)])));
    history.insert(2, (0, Op::Mailbox(1, 1, 5, vec![(2, 1, false)])));
    site.write(&history);
    let before = site.seen(None);
    let policy = joining(&site, None);
    site.compact(&policy);
    assert_eq!(site.seen(None), before);
    let due = ["1010 MESSAGE", "1010 MAILBOX", "1030 MAILBOX", "1035 SUB", "1035 MAILBOX"];
    assert_eq!(words(&site), due);
    assert!(is_sound(&site));
    // What it says of itself is joined the next time.
    let policy = Policy { force: false, ..policy };
    site.compact(&policy);
    let octets = fs::read(&site.path).unwrap();
    assert_eq!(site.compact(&policy).1, Outcome::Skipped);
    assert_eq!(fs::read(&site.path).unwrap(), octets);
}

/// 10,000 octets of messages.
#[test]
fn there_are_several_windows_if_there_is_much() {
    let site = Site::new();
    let mut history = Vec::new();
    for number in 1..14 {
        history.push((1, Op::Message(vec![number])));
        history.push((0, Op::Mailbox(number, number, 1, vec![(1, number, false)])));
        history.push((0, Op::EndChunk));
    }
    site.write(&history);
    let before = site.seen(None);
    let policy = joining(&site, None);
    site.compact(&policy);
    assert_eq!(site.seen(None), before);
    let lines = words(&site).iter().filter(|word| word.ends_with("MESSAGE")).count();
    assert!((5..13).contains(&lines), "{:?}", words(&site));
    assert!(is_sound(&site));
    assert_eq!(site.compact(&Policy { force: false, ..policy }).1, Outcome::Skipped);
}

/// In Cyrus's tables a message that is expunged once is so for ever, and its compact drops it.
#[test]
fn a_message_stays_behind_a_record_of_it() {
    let site = Site::new();
    site.write(&[
        (0, Op::Sub(0, true)),
        (0, Op::Mailbox(0, 0, 5, vec![(1, 1, true)])),
        (1, Op::Message(vec![2])),
        (0, Op::Mailbox(0, 0, 5, vec![(4, 2, false)])),
        (1, Op::Message(vec![1, 3])),
        (0, Op::Mailbox(0, 0, 6, vec![(5, 1, false), (6, 3, false)])),
        // Not all stays.
        (0, Op::Sub(0, true)),
    ]);
    let records = |site: &Site| {
        let backup = Backup::open(&site.path, Wait::No).unwrap();
        let rows = backup.index().records(1).unwrap();
        let mut uids: Vec<_> = rows.iter().map(|row| (row.uid, row.expunged.is_some())).collect();
        uids.sort_unstable();
        uids
    };
    let due = [(4, false), (5, false), (6, false)];
    assert_eq!(records(&site), due);
    let before = site.seen(None);
    site.compact(&site.policy(None));
    assert_eq!(records(&site), due);
    assert_eq!(site.seen(None), before);
    let messages = ["1000 MESSAGE", "1000 MAILBOX", "1001 MAILBOX", "1002 MESSAGE"];
    assert_eq!(words(&site)[..4], messages);
}

/// What is long is written in parts, and what is read of it is the same.
#[test]
fn splitting_counts_what_is_held() {
    for max in [700, 2_000, 5_000] {
        let site = Site::new();
        site.write(&grown(12));
        let before = site.seen(None);
        site.compact(&joining(&site, None));
        let sizes = Sizes { min: 100, max, work_threshold: 1 };
        let policy = Policy { sizes, ..site.policy(None) };
        site.compact(&policy);
        assert_eq!(site.seen(None), before);
        assert!(is_sound(&site));
        let backup = Backup::open(&site.path, Wait::No).unwrap();
        let lengths: Vec<u64> =
            backup.index().chunks().unwrap().iter().map(|chunk| chunk.length).collect();
        // No more than a line longer.
        assert!(lengths.iter().all(|&length| length < max + 3_000), "{max}: {lengths:?}");
        assert!(max > 2_000 || lengths.len() > 1, "{max}: {lengths:?}");
    }
}

/// A chunk that ought to be split, and cannot: two compressors may make other octets of it, which
/// are no gain.
#[test]
fn the_same_in_other_octets_is_no_gain() {
    let site = Site::new();
    site.write(&grown(12));
    let sizes = Sizes { min: 10, max: 100, work_threshold: 1 };
    let policy = Policy { sizes, force: false, ..site.policy(None) };
    while site.compact(&policy).1 != Outcome::Skipped {}
    let backup = Backup::open(&site.path, Wait::No).unwrap();
    let mut other = Vec::new();
    for chunk in backup.index().chunks().unwrap() {
        let mut text = Vec::new();
        crate::store::dump::write_chunk(&backup, &chunk, &mut text).unwrap();
        let mut writer = crate::store::chunk::MemberWriter::start(&mut other).unwrap();
        text.chunks(50).for_each(|piece| {
            writer.write(piece, &mut other).unwrap();
            let _ = writer.end_line(&mut other).unwrap();
        });
        let _ = writer.finish(&mut other).unwrap();
    }
    drop(backup);
    assert!(fs::read(&site.path).unwrap() != other);
    fs::write(&site.path, &other).unwrap();
    fs::remove_file(with_suffix(&site.path, ".index")).unwrap();
    crate::store::reindex::run(&site.path, Wait::No, false, START, &mut |_| ()).unwrap();
    assert_eq!(site.compact(&policy).1, Outcome::Skipped);
    assert!(fs::read(&site.path).unwrap() == other);
}
