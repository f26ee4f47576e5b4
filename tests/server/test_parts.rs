//! A mailbox in doubt, and a rolling client of before 3.4, which sends a large one in parts.

use cyrbk::wire::apply::Record;
use cyrbk::wire::dlist::parse_value;

use crate::client::{Client, apply_message, guid};
use crate::site::{Options, Site};

const ANNOT_OF_NOTHING: u32 = 12_345_678;

fn message(uid: u32) -> Vec<u8> {
    format!("Subject: {uid}\r\n\r\ntext\r\n").into_bytes()
}

fn records(uids: std::ops::RangeInclusive<u32>) -> String {
    let record = |uid| {
        format!(
            "%(UID {uid} MODSEQ {uid} LAST_UPDATED 1 FLAGS () INTERNALDATE 1 SIZE {} GUID {})",
            message(uid).len(),
            guid(&message(uid))
        )
    };
    format!("({})", uids.map(record).collect::<Vec<_>>().join(" "))
}

fn crc(uids: std::ops::RangeInclusive<u32>) -> u32 {
    let text = records(uids);
    let list = parse_value(text.as_bytes()).unwrap().as_list();
    Record::all_of(list).fold(0, |crc, record| crc ^ record.unwrap().crc())
}

/// A line with the LAST_UID `last`, and a checksum if there is one.
fn mailbox(last: u32, checksum: Option<u32>, records: &str) -> String {
    let (crc, annot) = checksum.map_or((0, 0), |crc| (crc, ANNOT_OF_NOTHING));
    format!(
        "APPLY MAILBOX %(UNIQUEID id MBOXNAME user.tom SYNC_CRC {crc} SYNC_CRC_ANNOT {annot} \
         LAST_UID {last} HIGHESTMODSEQ {last} RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 0 \
         POP3_LAST_LOGIN 0 POP3_SHOW_AFTER 0 UIDVALIDITY 7 PARTITION default ACL \"\" OPTIONS P \
         RECORD {records})\r\n"
    )
}

/// The client goes on only behind what it is shown: it would send the first part for ever.
#[test]
fn a_mailbox_in_doubt_that_comes_in_parts_comes_to_an_end() {
    let site = Site::start(Options::default());
    let mut client = Client::admin(site.address);
    let ok = |reply: String| assert!(reply.starts_with("OK"), "{reply}");
    let shown = |client: &mut Client| {
        let found = client.ask("GET USER tom\r\n");
        let row = found.lines().find(|line| line.starts_with("* MAILBOX"))?.to_owned();
        let at = row.find(" LAST_UID ")? + " LAST_UID ".len();
        row[at..].split(' ').next()?.parse::<u32>().ok()
    };
    assert_eq!(shown(&mut client), None);
    (1..=6).for_each(|uid| ok(client.ask(apply_message(&message(uid)))));
    ok(client.ask(mailbox(6, Some(crc(1..=6)), &records(1..=6))));
    assert_eq!(shown(&mut client), Some(6));
    // As behind lost changes: what is here does not lead to this checksum.
    ok(client.ask(mailbox(6, Some(crc(1..=3)), "()")));
    assert_eq!(shown(&mut client), None);
    ok(client.ask("RESTART\r\n"));
    for (uids, checksum) in [(1..=2, None), (3..=4, None), (5..=6, Some(crc(1..=6)))] {
        let last = *uids.end();
        ok(client.ask(mailbox(last, checksum, &records(uids))));
        assert_eq!(shown(&mut client), Some(last));
    }
}
