//! Lines that tell a whole mailbox, and what they do not mention.

use super::*;

/// UID 2 is not in the second line, which tells all.
fn left_out() -> Vec<(u32, Op)> {
    let all = [1, 2, 3].map(|uid| (uid, uid, false));
    vec![
        (0, Op::Message(vec![1, 2, 3])),
        (0, Op::Whole(0, 0, 5, all.to_vec())),
        (0, Op::EndChunk),
        (10, Op::Whole(0, 0, 5, vec![all[0], all[2]])),
        (0, Op::EndChunk),
    ]
}

/// UIDs of a mailbox, and since when they are expunged.
fn records(site: &Site) -> Vec<(u32, Option<i64>)> {
    let backup = Backup::open(&site.path, Wait::No).unwrap();
    let rows = backup.index().true_records(1).unwrap();
    rows.into_iter().map(|row| (row.uid, row.expunged)).collect()
}

#[test]
fn what_a_whole_line_leaves_out_stays_for_its_time() {
    let further = [
        vec![],
        // The second line loses a record, and is to get one.
        vec![(5, Op::Mailbox(0, 0, 5, vec![(1, 1, false)])), (0, Op::EndChunk)],
    ];
    for further in further {
        let site = Site::new();
        site.write(&[left_out(), further].concat());
        for _ in 0..2 {
            let before = site.seen(None);
            site.compact(&site.policy(Some(START + 9)));
            assert_eq!(site.seen(None), before);
            assert_eq!(records(&site), [(1, None), (2, Some(START + 10)), (3, None)]);
            assert!(is_sound(&site));
        }
        assert!(state(&site).contains("FLAGS (\\Seen \\Expunged)"));
        site.compact(&site.policy(Some(START + 10)));
        assert_eq!(records(&site), [(1, None), (3, None)]);
        assert_eq!(site.seen(None).message_count(), 2);
    }
}

/// It came without FLAGS, with which alone a line can say that it is expunged.
#[test]
fn a_record_without_flags_can_be_left_out() {
    let site = Site::new();
    let mut writer = Writer::open(&site.path, START).unwrap();
    site.op(&mut writer, START, &Op::Message(vec![1]));
    let line = |crc: u32, records: &str| {
        format!(
            "MAILBOX %(UNIQUEID u MBOXNAME user.a SYNC_CRC {crc} SYNC_CRC_ANNOT 12345678 LAST_UID \
             1 HIGHESTMODSEQ 1 RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 0 POP3_LAST_LOGIN 0 \
             UIDVALIDITY 1 PARTITION p ACL \"\" OPTIONS P RECORD ({records}))"
        )
    };
    let guid = history::guid(1);
    let crc = crc32fast::hash(format!("1 1 1 (0) 1 {guid}").as_bytes());
    let record = format!("%(UID 1 MODSEQ 1 LAST_UPDATED 1 INTERNALDATE 1 GUID {guid})");
    for text in [line(crc, &record), line(0, "")] {
        site.append(&mut writer, START + 10, &text, &[], &[]);
    }
    writer.finish(START + 10).unwrap();
    drop(writer);
    assert_eq!(records(&site), [(1, Some(START + 10))]);
    site.compact(&site.policy(None));
    assert_eq!(records(&site), [(1, Some(START + 10))]);
}
