//! What is read back is what was stored, whatever the session did before, and whatever lies
//! elsewhere in the chunk.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use super::super::Lease;
use super::super::tests::{apply, ask, guid, lease, mailbox, send, stored};
use super::*;
use crate::sync::{Done, Work};

/// More than a batch holds in memory.
fn large(text: &str) -> String {
    text.repeat(MEMORY_MAX / text.len() + 1)
}

/// Stores messages of tom's, and makes them durable.
fn store(lease: &mut Lease, messages: &[&str]) {
    assert_eq!(ask(lease, Work::Get(b"USER tom".to_vec())), "OK Success\r\n");
    for message in messages {
        assert_eq!(send(lease, &[message]), "OK Success\r\n");
    }
    assert_eq!(mailbox(lease, "tom", messages), "OK Success\r\n");
    assert_eq!(ask(lease, Work::Restart), "OK Restarting\r\n");
}

/// Whether a message is given back as it is.
fn is_fetched(lease: &mut Lease, user: &str, message: &str) -> bool {
    let text = format!("FETCH %(MBOXNAME user.{user} GUID {})", guid(message));
    let reply = ask(lease, Work::Get(text.into_bytes()));
    reply.ends_with("OK Success\r\n") && reply.contains(&format!("}}\r\n{message}"))
}

/// What a line does that never gets further.
fn stage(lease: &mut Lease) {
    let work = Work::Stage { octets: b"left behind".to_vec(), is_first: true };
    assert_eq!(lease.run(work), Done::Staged(true));
}

#[test]
fn what_a_refused_line_has_staged_is_not_taken_for_a_message() {
    let dir = tempfile::tempdir().unwrap();
    let mut lease = lease(dir.path());
    let message = large("0123456789abcde\n");
    store(&mut lease, &[&message]);
    stage(&mut lease);
    assert!(is_fetched(&mut lease, "tom", &message));
    stage(&mut lease);
    let rename = "RENAME %(OLDMBOXNAME user.tom NEWMBOXNAME user.bob PARTITION d UIDVALIDITY 1)";
    assert_eq!(apply(&mut lease, rename), "OK Success\r\n");
    assert_eq!(stored(&mut lease, "bob", &[&message]), [1]);
    assert!(is_fetched(&mut lease, "bob", &message));
}

/// One that is damaged fails a command halfway.
#[test]
fn nor_what_a_damaged_message_has() {
    let dir = tempfile::tempdir().unwrap();
    let mut lease = lease(dir.path());
    let (damaged, sound) = (large("damaged\n"), large("sound\n"));
    store(&mut lease, &[&damaged, &sound]);
    let path = lease.open(b"tom").map(|at| lease.open[at].writer.path().to_owned()).unwrap();
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0; 64], 2000).unwrap();
    assert!(!is_fetched(&mut lease, "tom", &damaged));
    assert!(is_fetched(&mut lease, "tom", &sound));
}

/// A message is read from the restart point in front of it: what lies further in front does not
/// matter.
#[test]
fn one_message_is_read_without_those_in_front_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut lease = lease(dir.path());
    let message = "a long one\n".repeat(100_000);
    store(&mut lease, &["a short one", &message]);
    let at = lease.open(b"tom").unwrap();
    let path = lease.open[at].writer.path().to_owned();
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0; 10], 0).unwrap();
    assert!(!is_fetched(&mut lease, "tom", "a short one"));
    assert!(is_fetched(&mut lease, "tom", &message));
}

#[test]
fn a_restart_point_is_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let mut lease = lease(dir.path());
    let messages = ["first\n", "second\n"].map(|text| text.repeat(100_000));
    store(&mut lease, &[&messages[0], &messages[1]]);
    let at = lease.open(b"tom").unwrap();
    let index = lease.open[at].writer.index();
    for message in &messages {
        let guid = Guid::from_hex(guid(message).as_bytes()).unwrap();
        let row = index.message(&guid).unwrap().unwrap();
        // Nothing begins here.
        let point = RestartPoint { offset_plain: row.offset, offset_file: 77 };
        index.add_restart_point(row.chunk_id, point).unwrap();
    }
    for message in &messages {
        assert!(is_fetched(&mut lease, "tom", message));
    }
}
