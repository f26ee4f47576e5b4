//! What a compaction of Cyrus's has dropped, and nobody says.

use super::*;
use crate::store::chunk::{CHUNK_HEADER, MemberWriter};

/// A mailbox of two messages, as its master told it; one record and its message are left.
fn log() -> String {
    let text = |uid: u32| format!("{uid} 1 1 (0) 1 {}", history::guid(uid));
    let crc = [1, 2].map(|uid| crc32fast::hash(text(uid).as_bytes()));
    let (guid, body) = (history::guid(1), history::body(1));
    format!(
        "1000 APPLY MESSAGE (%{{p {guid} {len}}}\r\n{body})\r\n1000 APPLY MAILBOX %(UNIQUEID u \
         MBOXNAME user.a SYNC_CRC {crc} SYNC_CRC_ANNOT 0 LAST_UID 2 HIGHESTMODSEQ 1 RECENTUID 0 \
         RECENTTIME 0 LAST_APPENDDATE 0 POP3_LAST_LOGIN 0 UIDVALIDITY 1 PARTITION p ACL \"\" \
         OPTIONS P RECORD (%(UID 1 MODSEQ 1 LAST_UPDATED 1 FLAGS () INTERNALDATE 1 SIZE {len} \
         GUID {guid})))\r\n",
        body = String::from_utf8(body.clone()).unwrap(),
        len = body.len(),
        crc = crc[0] ^ crc[1],
    )
}

fn site(is_session: bool) -> Site {
    let site = Site::new();
    let mut out = Vec::new();
    let mut member = MemberWriter::start(&mut out).unwrap();
    member.write(CHUNK_HEADER, &mut out).unwrap();
    member.write(log().as_bytes(), &mut out).unwrap();
    if is_session {
        member.end_line(&mut out).unwrap();
    }
    member.finish(&mut out).unwrap();
    fs::write(&site.path, out).unwrap();
    site
}

fn doubtful(site: &Site) -> Vec<Vec<u8>> {
    let writer = Writer::open(&site.path, 1 << 32).unwrap();
    writer.index().doubtful_mailboxes().unwrap()
}

/// Its rows count a message as expunged for ever that was expunged once: what came back is
/// dropped, by rewriting the lines that it is in. The mail server would never send it again.
#[test]
fn mail_that_cyrus_has_dropped_is_asked_for() {
    let site = site(false);
    assert_eq!(doubtful(&site), [b"u"]);
    // Nor is it forgotten when what tells Cyrus's compaction from a session is gone.
    let (_, outcome) = site.compact(&site.policy(None));
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    assert_eq!(doubtful(&site), [b"u"]);
    fs::remove_file(with_suffix(&site.path, ".index")).unwrap();
    assert_eq!(doubtful(&site), [b"u"]);
}

/// In a line that a client sent, nothing was dropped.
#[test]
fn a_sender_that_is_not_understood_is_believed() {
    assert!(doubtful(&site(true)).is_empty());
}
