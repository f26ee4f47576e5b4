//! Whom to believe: histories of masters that tell all, some or something else.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::wire::apply::Apply;
use crate::wire::dlist::parse_item;

/// (uid, message, modseq, expunged)
type Told = (u32, u32, u64, bool);

fn apply(index: &Index, line: &str) {
    let (name, value) = parse_item(line.as_bytes()).unwrap();
    let at = Position { chunk_id: 1, ts: 9, offset: 0 };
    index.apply(at, &Apply::read(&name, &value).unwrap()).unwrap();
}

fn record(&(uid, message, modseq, expunged): &Told) -> String {
    let flags = if expunged { "\\Expunged" } else { "" };
    format!(
        "%(UID {uid} MODSEQ {modseq} LAST_UPDATED 1 FLAGS ({flags}) INTERNALDATE 1 SIZE 7 \
         GUID {message:040x})"
    )
}

fn crc(living: &[Told]) -> u32 {
    living.iter().filter(|told| !told.3).fold(0, |sum, &(uid, message, modseq, _)| {
        sum ^ crc32fast::hash(format!("{uid} {modseq} 1 (0) 1 {message:040x}").as_bytes())
    })
}

/// A line of a master that has `all`, and tells `told`.
fn mailbox(index: &Index, modseq: u64, since: Option<u64>, all: &[Told], told: &[Told]) {
    let last_uid = all.iter().map(|told| told.0).max().unwrap_or(0);
    line(index, (last_uid, modseq), since, Some(crc(all)), told);
}

/// A line with this LAST_UID, HIGHESTMODSEQ and checksum, if any.
fn line(
    index: &Index,
    (last_uid, modseq): (u32, u64),
    since: Option<u64>,
    crc: Option<u32>,
    told: &[Told],
) {
    let since = since.map_or(String::new(), |modseq| format!("SINCE_MODSEQ {modseq} "));
    let crc = crc
        .map_or(String::new(), |crc| format!("SYNC_CRC {crc} SYNC_CRC_ANNOT {ANNOT_OF_NOTHING} "));
    let records: Vec<String> = told.iter().map(record).collect();
    apply(
        index,
        &format!(
            "MAILBOX %(UNIQUEID u MBOXNAME user.a LAST_UID {last_uid} HIGHESTMODSEQ {modseq} \
             RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 0 POP3_LAST_LOGIN 0 UIDVALIDITY 1 \
             PARTITION d ACL \"\" OPTIONS P {crc}{since}RECORD ({}))",
            records.join(" ")
        ),
    );
}

fn index(messages: u32) -> Index {
    let index = Index::scratch().unwrap();
    index.start_chunk(1, 0, "").unwrap();
    for message in 1..=messages {
        apply(&index, &format!("MESSAGE (%{{d {message:040x} 7}}\r\n)"));
    }
    index
}

fn is_whole(index: &Index) -> bool {
    let row = index.mailbox_with_uniqueid(b"u").unwrap().unwrap();
    index.is_whole(&row).unwrap()
}

fn living(index: &Index) -> Vec<u32> {
    let row = index.mailbox_with_uniqueid(b"u").unwrap().unwrap();
    let records = index.true_records(row.id).unwrap();
    records.iter().filter(|r| r.expunged.is_none()).map(|r| r.uid).collect()
}

const ONE: Told = (1, 1, 1, false);
const TWO: Told = (2, 2, 2, false);

#[test]
fn changes_that_fit_raise_no_doubt() {
    let index = index(3);
    mailbox(&index, 2, None, &[ONE, TWO], &[ONE, TWO]);
    let (one, three) = ((1, 1, 3, true), (3, 3, 4, false));
    mailbox(&index, 4, Some(2), &[one, TWO, three], &[one, three]);
    assert_eq!(index.doubt(1).unwrap(), Doubt::Nothing);
    // The same record twice in a line.
    let again = (3, 3, 5, false);
    mailbox(&index, 5, Some(4), &[TWO, again], &[three, again]);
    assert_eq!(index.doubt(1).unwrap(), Doubt::Nothing);
    assert_eq!(living(&index), [2, 3]);
}

/// It was restored from a state with UID 1 only, and has since got other mail.
#[test]
fn a_master_that_went_back_and_on_is_found_out() {
    let index = index(4);
    mailbox(&index, 2, None, &[ONE, TWO], &[ONE, TWO]);
    let (other, new) = ((2, 3, 2, false), (3, 4, 3, false));
    mailbox(&index, 3, Some(2), &[ONE, other, new], &[new]);
    assert!(!is_whole(&index));
    mailbox(&index, 3, None, &[ONE, other, new], &[ONE, other, new]);
    assert!(is_whole(&index));
    assert_eq!(living(&index), [1, 2, 3]);
}

#[test]
fn what_a_whole_line_leaves_out_is_gone() {
    let index = index(2);
    mailbox(&index, 2, None, &[ONE, TWO], &[ONE, TWO]);
    mailbox(&index, 1, Some(2), &[ONE], &[]);
    mailbox(&index, 2, None, &[TWO], &[TWO]);
    assert!(is_whole(&index));
    assert_eq!(living(&index), [2]);
}

/// A deleted mailbox that comes back does not bring its old mail with it.
#[test]
fn a_mailbox_that_comes_back_is_what_its_line_says() {
    let index = index(2);
    mailbox(&index, 2, None, &[ONE, TWO], &[ONE, TWO]);
    apply(&index, "UNMAILBOX user.a");
    mailbox(&index, 3, None, &[TWO], &[TWO]);
    assert!(is_whole(&index));
    assert_eq!(living(&index), [2]);
}

#[test]
fn a_message_that_never_came_keeps_the_mailbox_in_doubt() {
    let index = index(1);
    mailbox(&index, 2, None, &[ONE, TWO], &[ONE, TWO]);
    assert!(!is_whole(&index));
    apply(&index, &format!("MESSAGE (%{{d {:040x} 7}}\r\n)", 2));
    assert!(is_whole(&index));
    // Nor does one matter that is expunged.
    mailbox(&index, 4, Some(2), &[ONE, TWO], &[(3, 9, 4, true)]);
    assert_eq!(index.doubt(1).unwrap(), Doubt::Nothing);
}

#[test]
fn doubts_can_turn_out_unfounded() {
    let index = index(2);
    mailbox(&index, 2, None, &[ONE, TWO], &[ONE, TWO]);
    mailbox(&index, 1, Some(2), &[ONE, TWO], &[]);
    assert_eq!(index.doubt(1).unwrap(), Doubt::Suspected);
    assert!(is_whole(&index));
    assert_eq!(index.doubt(1).unwrap(), Doubt::Nothing);
}

#[test]
fn a_mailbox_to_be_sent_whole_is_not_compared() {
    let index = index(2);
    mailbox(&index, 2, None, &[ONE, TWO], &[ONE, TWO]);
    apply(&index, "RESERVE %(CYRBK %(INCOMPLETE u))");
    assert!(!is_whole(&index));
    mailbox(&index, 2, Some(2), &[ONE, TWO], &[]);
    assert!(!is_whole(&index));
    mailbox(&index, 2, None, &[ONE, TWO], &[ONE, TWO]);
    assert!(is_whole(&index));
}

/// There is no checksum to go on from: what came without one may be gone by now.
#[test]
fn behind_a_part_without_checksum_all_is_compared() {
    let index = index(3);
    line(&index, (1, 2), None, None, &[ONE]);
    line(&index, (2, 3), Some(2), Some(crc(&[TWO])), &[TWO]);
    assert!(!is_whole(&index), "{:?}", living(&index));
    // Above LAST_UID, and another message since.
    let index = super::tests::index(3);
    line(&index, (1, 2), None, None, &[TWO]);
    let other = (2, 3, 3, false);
    line(&index, (2, 3), Some(2), Some(crc(&[other])), &[other]);
    assert_eq!(index.doubt(1).unwrap(), Doubt::Suspected);
    assert!(is_whole(&index));
    assert_eq!(index.true_records(1).unwrap().len(), 1, "one record of a UID");
    // All is there.
    let index = super::tests::index(3);
    line(&index, (1, 2), None, None, &[ONE]);
    line(&index, (2, 3), Some(2), Some(crc(&[ONE, TWO])), &[TWO]);
    assert!(is_whole(&index));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Whatever a master tells and does not tell, with UIDs above LAST_UID and twice in a
    /// line: what is shown has the checksum that it told last.
    #[test]
    fn what_is_shown_has_the_checksum_of_its_master(
        lines in prop::collection::vec((
            (0u32..7, 1u64..4, prop::option::of(Just(1u64))),
            (prop::bool::weighted(0.7), prop::bool::weighted(0.3)),
            prop::collection::vec((1u32..7, 1u32..5, 1u64..3, any::<bool>()), 0..4),
        ), 1..5),
    ) {
        let index = index(4);
        let mut master = BTreeMap::new();
        for ((last_uid, modseq, since), (has_crc, forgets), told) in &lines {
            if *forgets {
                master.clear();
            }
            master.extend(told.iter().map(|&told| (told.0, told)));
            let all: Vec<Told> = master.values().copied().collect();
            let sum = has_crc.then(|| crc(&all));
            line(&index, (*last_uid, *modseq), *since, sum, told);
            let row = index.mailbox_with_uniqueid(b"u").unwrap().unwrap();
            if index.doubt(row.id).unwrap() == Doubt::Nothing && *has_crc {
                let records = index.true_records(row.id).unwrap();
                let living = records.iter().filter(|record| record.expunged.is_none());
                let found = living.fold(0, |crc, record| crc ^ record.crc());
                prop_assert_eq!(found, row.sync_crc);
            }
        }
    }
}

/// An update without a checksum proves nothing, and takes nothing away.
#[test]
fn a_missing_checksum_is_not_that_of_nothing() {
    let index = index(2);
    mailbox(&index, 2, None, &[ONE, TWO], &[ONE, TWO]);
    apply(
        &index,
        "MAILBOX %(UNIQUEID u MBOXNAME user.a LAST_UID 2 HIGHESTMODSEQ 2 RECENTUID 0 \
         RECENTTIME 0 LAST_APPENDDATE 0 POP3_LAST_LOGIN 0 UIDVALIDITY 1 PARTITION d ACL \"\" \
         OPTIONS P RECORD ())",
    );
    assert_eq!(living(&index), [1, 2]);
}

/// Better no comparison than to ask for everything each time.
#[test]
fn checksums_that_are_not_understood_raise_no_doubt() {
    let index = index(3);
    mailbox(&index, 2, None, &[TWO], &[ONE, TWO]);
    assert_eq!(index.doubt(1).unwrap(), Doubt::Unverifiable);
    mailbox(&index, 3, Some(2), &[TWO], &[(3, 3, 3, false)]);
    assert!(is_whole(&index));
    assert_eq!(living(&index), [1, 2, 3]);
    assert_eq!(index.doubt(1).unwrap(), Doubt::Unverifiable);
}

#[test]
fn a_sender_that_is_understood_later_is_compared_from_then_on() {
    for told in [&[ONE, TWO][..], &[TWO]] {
        let index = index(3);
        mailbox(&index, 2, None, &[TWO], &[ONE, TWO]);
        assert_eq!(index.doubt(1).unwrap(), Doubt::Unverifiable);
        // By a line that tells all, or one that leads to what it should.
        let since = (told.len() < 2).then_some(2);
        mailbox(&index, 2, since, &[ONE, TWO], told);
        assert!(is_whole(&index));
        assert_eq!(index.doubt(1).unwrap(), Doubt::Nothing, "{told:?}");
        mailbox(&index, 3, Some(2), &[ONE], &[]);
        assert_eq!(index.doubt(1).unwrap(), Doubt::Suspected, "{told:?}");
    }
}

const COMPACTED: &str = "RESERVE %(CYRBK %(COMPACTED %(AT 9)))";
const INCOMPLETE: &str = "RESERVE %(CYRBK %(INCOMPLETE u))";

/// A compaction drops records from the line that a mailbox begins with.
#[test]
fn behind_a_compaction_a_misfit_is_no_proof() {
    let index = index(3);
    mailbox(&index, 2, None, &[ONE, TWO], &[TWO]);
    assert_eq!(index.doubt(1).unwrap(), Doubt::Unverifiable);
    apply(&index, COMPACTED);
    assert_eq!(index.doubt(1).unwrap(), Doubt::Suspected);
    // The line that told of UID 1 since is lost.
    let three = (3, 3, 3, false);
    mailbox(&index, 3, Some(2), &[ONE, TWO, three], &[three]);
    assert!(!is_whole(&index));
    mailbox(&index, 3, None, &[ONE, TWO, three], &[ONE, TWO, three]);
    assert!(is_whole(&index));
}

/// It was sent whole, and did not fit: it never will.
#[test]
fn a_sender_that_is_not_understood_is_asked_once() {
    for doubt in [COMPACTED, INCOMPLETE, "gap"] {
        let index = index(3);
        mailbox(&index, 2, None, &[TWO], &[ONE, TWO]);
        match doubt {
            "gap" => {
                index.miss_lines().unwrap();
                index.misses_lines.set(false);
            }
            line => apply(&index, line),
        }
        assert!(!is_whole(&index), "{doubt}");
        mailbox(&index, 2, None, &[TWO], &[ONE, TWO]);
        assert!(is_whole(&index), "{doubt}");
        mailbox(&index, 3, Some(2), &[TWO], &[(3, 3, 3, false)]);
        assert_eq!(index.doubt(1).unwrap(), Doubt::Unverifiable, "{doubt}");
        // Which a compaction of Cyrus's may only seem to show.
        apply(&index, INCOMPLETE);
        index.expect_missing_lines();
        mailbox(&index, 3, None, &[TWO], &[ONE, TWO]);
        assert!(!is_whole(&index), "{doubt}");
    }
}

/// Clients that do not say what they go on from: a line that tells some is not taken for one that
/// tells all and is not understood.
#[test]
fn some_of_a_suspected_mailbox_is_not_all() {
    // It was shown, for nothing is wrong.
    let index = index(4);
    let all: Vec<Told> = (1..=4).map(|n| (n, n, n.into(), false)).collect();
    mailbox(&index, 2, None, &all[..2], &all[..2]);
    index.miss_lines().unwrap();
    index.misses_lines.set(false);
    mailbox(&index, 3, None, &all[..3], &all[2..3]);
    assert_eq!(index.doubt(1).unwrap(), Doubt::Nothing);
    // The last part; the one in front of it had no checksum.
    let index = super::tests::index(4);
    line(&index, (3, 3), None, None, &all[1..3]);
    index.set_doubt(1, Doubt::Suspected).unwrap();
    mailbox(&index, 4, None, &all, &all[3..]);
    assert!(!is_whole(&index), "UID 1 is not there");
}

/// The line that made a mailbox known may be among those that are missing.
#[test]
fn behind_missing_lines_nothing_is_taken_for_whole() {
    let index = index(3);
    mailbox(&index, 2, None, &[ONE, TWO], &[ONE, TWO]);
    index.miss_lines().unwrap();
    assert_eq!(index.doubt(1).unwrap(), Doubt::Suspected);
    assert!(is_whole(&index), "nothing was missing of this one");
    index.miss_lines().unwrap();
    let three = (3, 3, 4, false);
    mailbox(&index, 4, Some(3), &[ONE, (2, 2, 3, false), three], &[three]);
    assert!(!is_whole(&index), "the line that changed UID 2");
    assert_eq!(index.doubtful_mailboxes().unwrap(), [b"u"]);

    let index = super::tests::index(3);
    index.miss_lines().unwrap();
    mailbox(&index, 4, Some(3), &[ONE, TWO, three], &[three]);
    assert!(!is_whole(&index), "the line that made it known");
    mailbox(&index, 4, None, &[ONE, TWO, three], &[ONE, TWO, three]);
    assert!(is_whole(&index));
    assert!(index.doubtful_mailboxes().unwrap().is_empty());
}

/// Cyrus's compaction drops whole lines, and live mail with them: where the first line that is
/// left is a part, its checksum is understood all the same.
#[test]
fn a_part_that_comes_first_is_not_taken_for_whole() {
    let index = index(2);
    mailbox(&index, 2, Some(1), &[ONE, TWO], &[TWO]);
    assert_eq!(index.doubt(1).unwrap(), Doubt::Suspected);
    assert!(!is_whole(&index), "UID 1 is not there");
    mailbox(&index, 2, None, &[ONE, TWO], &[ONE, TWO]);
    assert!(is_whole(&index));
    // What was dropped was superseded.
    let index = super::tests::index(2);
    mailbox(&index, 2, Some(1), &[ONE, TWO], &[ONE, TWO]);
    assert!(is_whole(&index));
    assert_eq!(index.doubt(1).unwrap(), Doubt::Nothing);
}

/// Five messages, sent anew in parts of two; their last line alone has a checksum.
fn send_in_parts(index: &Index, all: &[Told], knows_since: bool) {
    let mut since = None;
    for part in all.chunks(2) {
        let (last_uid, _, modseq, _) = part[part.len() - 1];
        let is_last = last_uid == all[all.len() - 1].0;
        line(index, (last_uid, modseq), since, is_last.then(|| crc(all)), part);
        assert!(is_whole(index), "the client goes on behind UID {last_uid} only if it sees it");
        since = knows_since.then_some(modseq);
    }
}

#[test]
fn a_mailbox_that_is_sent_again_in_parts_comes_to_an_end() {
    let all: Vec<Told> = (1..=5).map(|n| (n, n, n.into(), false)).collect();
    for knows_since in [true, false] {
        for doubt in [Doubt::Resend, Doubt::Suspected] {
            let index = index(7);
            let stale = [&all[..], &[(6, 6, 6, false), (7, 7, 7, false)]].concat();
            mailbox(&index, 7, None, &stale, &stale);
            index.set_doubt(1, doubt).unwrap();
            send_in_parts(&index, &all, knows_since);
            assert_eq!(living(&index), [1, 2, 3, 4, 5]);
            assert_eq!(index.doubt(1).unwrap(), Doubt::Nothing);
        }
    }
}

/// That it is the first part shows when it comes again.
#[test]
fn a_first_part_with_more_than_was_known_comes_twice() {
    let index = index(5);
    let all: Vec<Told> = (1..=5).map(|n| (n, n, n.into(), false)).collect();
    mailbox(&index, 2, None, &all[..2], &all[..2]);
    line(&index, (2, 2), Some(2), Some(crc(&all[2..3])), &[]);
    assert!(!is_whole(&index));
    line(&index, (4, 4), None, None, &all[..4]);
    assert!(!is_whole(&index));
    line(&index, (4, 4), None, None, &all[..4]);
    assert!(is_whole(&index));
    line(&index, (5, 5), Some(4), Some(crc(&all)), &all[4..]);
    assert!(is_whole(&index));
    assert_eq!(living(&index), [1, 2, 3, 4, 5]);
}

/// The end of an upload is still to come, and will be compared.
#[test]
fn a_part_without_a_checksum_that_comes_first_raises_no_doubt() {
    let all: Vec<Told> = (1..=4).map(|n| (n, n, n.into(), false)).collect();
    for lacks_first_part in [false, true] {
        let index = index(4);
        index.expect_missing_lines();
        if !lacks_first_part {
            line(&index, (2, 2), None, None, &all[..2]);
        }
        line(&index, (3, 3), Some(2), None, &all[2..3]);
        assert_eq!(index.doubt(1).unwrap(), Doubt::Nothing);
        line(&index, (4, 4), Some(3), Some(crc(&all)), &all[3..]);
        assert_eq!(is_whole(&index), !lacks_first_part);
    }
}

/// It is sent whole each time: better than to show what may not be the master's. Clients
/// since 3.0 send checksums.
#[test]
fn without_checksums_a_suspicion_stays() {
    let index = index(2);
    mailbox(&index, 2, None, &[ONE, TWO], &[ONE, TWO]);
    mailbox(&index, 1, Some(2), &[ONE], &[]);
    let line = format!(
        "MAILBOX %(UNIQUEID u MBOXNAME user.a LAST_UID 1 HIGHESTMODSEQ 1 RECENTUID 0 \
         RECENTTIME 0 LAST_APPENDDATE 0 POP3_LAST_LOGIN 0 UIDVALIDITY 1 PARTITION d ACL \"\" \
         OPTIONS P RECORD ({}))",
        record(&ONE)
    );
    apply(&index, &line);
    assert!(!is_whole(&index));
    mailbox(&index, 1, None, &[ONE], &[ONE]);
    assert!(is_whole(&index));
}
