//! What must hold after any compaction, at whatever point it is cut short, and on
//! damage.

#![allow(clippy::unwrap_used)]

mod accidents;
mod beside;
mod displaced;
pub(in crate::store) mod history;
mod master;
mod of_cyrus;
mod whole;
mod windows;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use proptest::prelude::*;

use super::plan::{Plan, Terms};
use super::replace::die_at;
use super::survey::Survey;
use super::{Outcome, Policy, Sizes, run, write};
use crate::lock::Wait;
use crate::store::append::Writer;
use crate::store::backup::{Backup, with_suffix};
use crate::store::verify;
use crate::wire::own::{Compacted, Own};
use history::{Op, Rows, START, Site};

/// Whether index and log agree in both directions.
fn is_exact(site: &Site) -> bool {
    let backup = Backup::open(&site.path, Wait::No).unwrap();
    let how = verify::Deep { jobs: 2, owner: None };
    verify::deep(&backup, &how, &mut |event| {
        if let verify::Event::Finding(finding) = event
            && !finding.fault.is_note()
        {
            println!("{finding:?}");
        }
    })
    .unwrap()
}

fn is_sound(site: &Site) -> bool {
    if !is_exact(site) {
        return false;
    }
    let backup = Backup::open(&site.path, Wait::No).unwrap();
    let mut findings = Vec::new();
    verify::full(&backup, &mut |event| {
        if let verify::Event::Finding(finding) = event {
            findings.push(format!("{finding:?}"));
        }
    })
    .unwrap();
    drop(backup);
    // Where names were handed round among mailboxes; see docs/quirks.md.
    let has_rename = || text(site).contains(" APPLY RENAME ");
    findings.is_empty()
        || findings.iter().all(|finding| finding.contains("NoMailbox")) && has_rename()
}

/// The index that a rebuild from the same data makes.
fn rebuilt(site: &Site) -> Rows {
    let other = Site::new();
    fs::copy(&site.path, &other.path).unwrap();
    let writer = Writer::open(&other.path, 1 << 32).unwrap();
    Rows::of(writer.index())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn nothing_changes_but_what_is_past_its_retention(
        ops in history::ops(),
        back in prop::option::of(0i64..400),
        sizes in prop_oneof![Just((0, 0)), Just((600, 0)), Just((0, 900)), Just((300, 1500))],
    ) {
        let site = Site::new();
        let end = site.write(&ops);
        let since = back.map(|seconds| end - seconds);
        let before = site.seen(since);
        prop_assert!(is_exact(&site));
        let mut policy = site.policy(since);
        policy.sizes = Sizes { min: sizes.0, max: sizes.1, work_threshold: 1 };
        let (_, outcome) = site.compact(&policy);
        let Outcome::Done { damages, .. } = outcome else { panic!("{outcome:?}") };
        prop_assert!(damages.is_empty(), "{damages:?}");
        prop_assert_eq!(&site.seen(since), &before);
        prop_assert!(is_sound(&site));
        let backup = Backup::open(&site.path, Wait::No).unwrap();
        prop_assert_eq!(Rows::of(backup.index()), rebuilt(&site));
        drop(backup);
        // The same again changes nothing, once sizes have settled.
        for _ in 0..2 {
            site.compact(&policy);
        }
        let octets = fs::read(&site.path).unwrap();
        site.compact(&policy);
        prop_assert!(fs::read(&site.path).unwrap() == octets, "not idempotent");
        policy.force = false;
        prop_assert_eq!(site.compact(&policy).1, Outcome::Skipped);
        prop_assert_eq!(site.seen(since), before);
    }
}

fn simple_history() -> Vec<(u32, Op)> {
    vec![
        (0, Op::Message(vec![1, 2, 3])),
        (0, Op::Mailbox(0, 0, 5, vec![(1, 1, false), (2, 2, false), (3, 3, false)])),
        (0, Op::Mailbox(1, 1, 5, vec![(1, 3, false)])),
        (0, Op::Sub(0, true)),
        (0, Op::Sieve(0, 1)),
        (0, Op::EndChunk),
        (10, Op::Mailbox(0, 0, 5, vec![(2, 2, true)])),
        (0, Op::EndChunk),
        (10, Op::Unmailbox(1)),
        (0, Op::Unsieve(0)),
        (0, Op::EndChunk),
    ]
}

#[test]
fn retention_is_honoured_to_the_second() {
    for (since, uids, messages, names) in [
        (START + 9, &[1, 2, 3, 1][..], 3, 2),
        (START + 10, &[1, 3, 1], 2, 2),
        (START + 19, &[1, 3, 1], 2, 2),
        (START + 20, &[1, 3], 2, 1),
    ] {
        let site = Site::new();
        site.write(&simple_history());
        site.compact(&site.policy(Some(since)));
        // Everything that is there is seen.
        let seen = site.seen(None);
        assert_eq!(seen.uids(), uids, "{since}");
        assert_eq!(seen.message_count(), messages, "{since}");
        assert_eq!(seen.mailbox_names().len(), names, "{since}");
    }
}

#[test]
fn deletions_last_although_their_chunk_holds_nothing_else() {
    let site = Site::new();
    let end = site.write(&simple_history());
    let before = site.seen(None);
    let (events, _) = site.compact(&site.policy(Some(START)));
    assert_eq!(events, ["Keeping([1, 2, 3])"]);
    assert_eq!(site.seen(None), before);
    let (events, _) = site.compact(&site.policy(Some(end)));
    assert_eq!(events, ["Keeping([1, 2])"]);
    assert_eq!(site.seen(None).mailbox_names(), ["user.a.0"]);
}

/// How many chunks there are, as far as rows say, with nothing of the present state.
fn dead_chunks(site: &Site, since: i64) -> usize {
    let backup = Backup::open(&site.path, Wait::No).unwrap();
    let mut dead = 0;
    backup.index().live_chunks(Some(since), |_, is_live| dead += usize::from(!is_live)).unwrap();
    dead
}

#[test]
fn chunks_that_hold_only_deletions_are_known_without_reading_the_log() {
    let mut history = simple_history();
    // The same record again: the first one says since when it is expunged.
    history.push((5, Op::Mailbox(0, 0, 5, vec![(2, 2, true)])));
    let unforced = |site: &Site, since| {
        let policy = site.policy(Some(since));
        site.compact(&super::Policy { force: false, ..policy }).1
    };
    for (forced, dead) in [(true, 0), (false, 2)] {
        let site = Site::new();
        let end = site.write(&history);
        assert_eq!(dead_chunks(&site, START), 2);
        if forced {
            site.compact(&site.policy(Some(START)));
        }
        assert_eq!(dead_chunks(&site, START), dead);
        assert_eq!(unforced(&site, START), Outcome::Skipped);
        assert_eq!(dead_chunks(&site, START), 0);
        let before = fs::read(with_suffix(&site.path, ".index")).unwrap();
        assert_eq!(unforced(&site, START), Outcome::Skipped);
        assert!(fs::read(with_suffix(&site.path, ".index")).unwrap() == before);
        // As long as what they delete is there.
        assert_eq!(dead_chunks(&site, START + 10), 1);
        assert_eq!(dead_chunks(&site, end), 2);
        assert!(matches!(unforced(&site, end), Outcome::Done { .. }));
        assert_eq!(dead_chunks(&site, end), 0);
    }
    // A mailbox that is back is no reason to keep the line that deleted it.
    let site = Site::new();
    let mut history = simple_history();
    history.retain(|(_, op)| !matches!(op, Op::Unsieve(_)));
    site.write(&history);
    site.compact(&site.policy(Some(START)));
    assert_eq!(dead_chunks(&site, START), 0);
    site.write(&[(100, Op::Mailbox(1, 1, 5, vec![]))]);
    assert_eq!(dead_chunks(&site, START), 1);
}

#[test]
fn a_message_that_came_back_stays() {
    let site = Site::new();
    let end = site.write(&[
        (0, Op::Message(vec![1])),
        (0, Op::Mailbox(0, 0, 5, vec![(1, 1, false)])),
        (10, Op::Mailbox(0, 0, 5, vec![(1, 1, true)])),
        (10, Op::Mailbox(0, 0, 6, vec![(6, 1, false)])),
    ]);
    site.compact(&site.policy(Some(end)));
    let backup = Backup::open(&site.path, Wait::No).unwrap();
    // In Cyrus's own table too: it would drop the message otherwise.
    let records = backup.index().records(1).unwrap();
    assert_eq!(records.iter().map(|row| (row.uid, row.expunged)).collect::<Vec<_>>(), [(6, None)]);
}

#[test]
fn renamed_mailboxes_get_lines_with_their_names() {
    let site = Site::new();
    let end = site.write(&[
        (0, Op::Mailbox(0, 0, 5, vec![])),
        (1, Op::Rename(0, 1)),
        (1, Op::Unmailbox(1)),
        (1, Op::Mailbox(1, 1, 5, vec![])),
        (1, Op::Rename(1, 2)),
    ]);
    let before = site.seen(None);
    site.compact(&site.policy(None));
    assert_eq!(site.seen(None), before);
    let words = |text: String| -> Vec<String> {
        let second = |line: &str| line.split(' ').skip(2).take(5).collect::<Vec<_>>().join(" ");
        text.lines().map(second).collect()
    };
    let boxes = |id: u32| format!("MAILBOX %(UNIQUEID u{id} MBOXNAME user.a.2");
    assert_eq!(words(state(&site)), [boxes(0), "UNMAILBOX user.a.2".to_owned(), boxes(1)]);
    assert!(is_sound(&site));
    assert_eq!(site.seen(Some(end)).mailbox_names(), ["user.a.2"]);
}

/// A name that passes from one mailbox to another: the lines stay as they are.
#[test]
fn names_that_are_handed_round_are_not_confused() {
    let site = Site::new();
    site.write(&[
        (0, Op::Mailbox(0, 0, 5, vec![])),
        (0, Op::Mailbox(1, 1, 5, vec![])),
        (1, Op::Unmailbox(0)),
        (1, Op::Rename(1, 0)),
        (1, Op::Sub(0, false)),
        (1, Op::Sub(0, true)),
    ]);
    let before = site.seen(None);
    site.compact(&site.policy(None));
    assert_eq!(site.seen(None), before);
    assert!(text(&site).contains(" RENAME ") && !text(&site).contains("UNSUB"));
}

#[test]
fn the_latest_word_on_a_quota_stays_and_reservations_go() {
    let site = Site::new();
    let ops = [
        (0, Op::Carrier(5)),
        (0, Op::Reserve),
        (0, Op::Carrier(7)),
        (0, Op::EndChunk),
        (0, Op::Reserve),
    ];
    let end = site.write(&ops);
    let (events, _) = site.compact(&site.policy(Some(end)));
    assert_eq!(events, ["Keeping([1])"]);
    let latest = "1000 APPLY RESERVE %(CYRBK %(QUOTA %(ROOT user.q1 LIMIT 7 STORAGE 7)))\r\n";
    assert_eq!(state(&site), latest);
}

/// The same without what compaction says of itself.
fn state(site: &Site) -> String {
    let anchor = String::from_utf8(Own::compaction_anchor()).unwrap();
    let of_compaction = |line: &str| line.contains(" %(COMPACTED ") || line.contains(&anchor);
    text(site).split_inclusive('\n').filter(|line| !of_compaction(line)).collect()
}

/// What was dropped is said once, whatever is compacted afterwards, and only if something was.
#[test]
fn what_was_dropped_is_said_in_the_log() {
    let site = Site::new();
    let end = site.write(&simple_history());
    let compacted = |site: &Site| {
        assert_eq!(text(site).matches("COMPACTED").count(), 1);
        let backup = Backup::open(&site.path, Wait::No).unwrap();
        backup.index().compacted().unwrap().unwrap()
    };
    let policy = site.policy(Some(START + 10));
    run(&site.path, &policy, end + 5, Wait::No, &mut |_| ()).unwrap();
    let said = Compacted { at: end + 5, since: Some(START + 10) };
    assert_eq!(compacted(&site), said);
    // Nothing more to drop: what was said holds.
    let policy = site.policy(Some(START + 10));
    run(&site.path, &policy, end + 50, Wait::No, &mut |_| ()).unwrap();
    assert_eq!(compacted(&site), said);
    let policy = site.policy(Some(START + 20));
    run(&site.path, &policy, end + 60, Wait::No, &mut |_| ()).unwrap();
    assert_eq!(compacted(&site), Compacted { at: end + 60, since: Some(START + 20) });
    // A rebuilt index knows too.
    let other = Site::new();
    fs::copy(&site.path, &other.path).unwrap();
    drop(Writer::open(&other.path, end + 70).unwrap());
    assert_eq!(compacted(&other), compacted(&site));
}

/// Reservations have no effect, joining none on what can be asked for.
#[test]
fn where_nothing_was_dropped_nothing_is_said() {
    let site = Site::new();
    let end = site.write(&[
        (0, Op::Message(vec![1])),
        (0, Op::Mailbox(0, 0, 5, vec![(1, 1, false)])),
        (0, Op::EndChunk),
        (0, Op::Reserve),
        (0, Op::Sub(0, true)),
    ]);
    let mut policy = site.policy(Some(end));
    policy.sizes = Sizes { min: 6000, max: 0, work_threshold: 1 };
    assert!(matches!(site.compact(&policy).1, Outcome::Done { .. }));
    assert!(!text(&site).contains("RESERVE"));
}

/// All lines of the data file, header lines left out.
fn text(site: &Site) -> String {
    let backup = Backup::open(&site.path, Wait::No).unwrap();
    let mut text = Vec::new();
    for chunk in backup.index().chunks().unwrap() {
        crate::store::dump::write_chunk(&backup, &chunk, &mut text).unwrap();
    }
    let header = String::from_utf8_lossy(crate::store::chunk::CHUNK_HEADER).into_owned();
    String::from_utf8_lossy(&text).replace(&header, "")
}

#[test]
fn unchanged_chunks_are_taken_over_octet_for_octet() {
    let site = Site::new();
    let end = site.write(&[
        (0, Op::Reserve),
        (0, Op::EndChunk),
        (0, Op::Message(vec![1])),
        (0, Op::Mailbox(0, 0, 5, vec![(1, 1, false)])),
        (0, Op::EndChunk),
    ]);
    let before = fs::read(&site.path).unwrap();
    let (_, outcome) = site.compact(&site.policy(Some(end)));
    let Outcome::Done { figures, .. } = outcome else { panic!() };
    assert_eq!((figures.chunks, figures.dropped, figures.unchanged), (2, 1, 1));
    let after = fs::read(&site.path).unwrap();
    assert!(before.ends_with(&after) && after.len() < before.len());
}

/// Chunks are looked at page by page.
#[test]
fn numbers_of_chunks_around_a_page() {
    for count in [255, 256, 257] {
        let site = Site::new();
        let mut writer = Writer::open(&site.path, START).unwrap();
        for number in 1..=count {
            site.op(&mut writer, START, &Op::Message(vec![number]));
            site.op(&mut writer, START, &Op::Mailbox(0, 0, number, vec![(number, number, false)]));
            writer.sync(START).unwrap();
        }
        let gone = vec![(1, 1, true), (count, count, true)];
        site.op(&mut writer, START + 9, &Op::Mailbox(0, 0, count, gone));
        writer.finish(START + 9).unwrap();
        drop(writer);
        let before = site.seen(Some(START + 9));
        let (_, outcome) = site.compact(&site.policy(Some(START + 9)));
        let Outcome::Done { figures, damages, .. } = outcome else { panic!("{outcome:?}") };
        assert!(damages.is_empty(), "{damages:?}");
        assert_eq!(figures.chunks, count as usize + 1, "{figures:?}");
        assert_eq!(site.seen(Some(START + 9)), before);
        assert!(is_sound(&site), "{count}");
    }
}

/// As the client says it whose mail server has purged a message: [`Op::Expunge`], whose line counts
/// only if the mailbox has the name that it says.
fn purged(lines_in_front: &[(u32, Op)]) -> Vec<(u32, Op)> {
    let flagged =
        |seconds| [(seconds, Op::Mailbox(0, 1, 5, vec![(1, 1, false)])), (0, Op::EndChunk)];
    let mut history = vec![
        (0, Op::Message(vec![1, 2])),
        (0, Op::Mailbox(0, 0, 5, vec![(1, 1, false), (2, 2, false)])),
        (0, Op::EndChunk),
        (0, Op::Mailbox(1, 2, 5, vec![])),
        (0, Op::EndChunk),
    ];
    history.extend_from_slice(lines_in_front);
    history.extend([(5, Op::Expunge(0, 1, 2)), (0, Op::EndChunk)]);
    history.extend([flagged(1), flagged(1), flagged(1)].concat());
    history.extend([(0, Op::Mailbox(1, 2, 5, vec![])), (0, Op::EndChunk)]);
    history
}

#[test]
fn of_names_those_lines_stay_that_an_expunge_needs() {
    let mailbox = |name| (5, Op::Mailbox(0, name, 5, vec![]));
    for (lines_in_front, kept) in [
        // Without the first one the mailbox would not have the name yet.
        (vec![mailbox(0), mailbox(2), mailbox(1)], "[1, 5, 6, 9, 10]"),
        (vec![mailbox(0), mailbox(2), (0, Op::Rename(2, 1))], "[1, 4, 5, 6, 9, 10]"),
    ] {
        let site = Site::new();
        let lines_in_front = lines_in_front
            .into_iter()
            .flat_map(|line| [line, (0, Op::EndChunk)])
            .collect::<Vec<_>>();
        let end = site.write(&purged(&lines_in_front));
        let before = site.seen(None);
        let (events, _) = site.compact(&site.policy(None));
        assert_eq!(events, [format!("Keeping({kept})")]);
        assert_eq!(site.seen(None), before);
        assert!(is_sound(&site));
        // It is known that there is nothing more to gain.
        assert_eq!(dead_chunks(&site, START), 0);
        let (events, outcome) = site.compact(&Policy { force: false, ..site.policy(None) });
        assert_eq!((events, outcome), (vec![], Outcome::Skipped));
        // Until it is past its time.
        site.compact(&site.policy(Some(end)));
        assert!(!text(&site).contains(" EXPUNGE ") && !text(&site).contains(" RENAME "));
        assert_eq!(site.seen(None).uids(), [1]);
        assert!(is_sound(&site));
    }
}
