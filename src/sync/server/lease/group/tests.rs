//! What becomes of messages that wait: at the end of their group, and when their process dies.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::super::adopter::adopt_all;
use super::super::super::request::Refusal;
use super::super::tests::{
    ALL, OF_BOB, OF_BOTH, OF_NOBODY, OF_TOM, ask, guid, lease, mailbox, reserve_all, send, stored,
};
use super::super::{Lease, Peer, Work};
use crate::store::Writer;
use crate::store::waiting::leftovers;

fn waiting(root: &Path) -> Vec<PathBuf> {
    leftovers(&root.join("staging")).unwrap()
}

/// A session of the same site.
fn other(lease: &Lease) -> Lease {
    Lease::new(Arc::clone(&lease.site), Peer::local())
}

/// As a process dies: its locks go, nothing is stored.
fn die(mut lease: Lease) {
    lease.pending.leave();
    lease.open.clear();
    lease.lingering.clear();
}

fn ends() -> [Work; 6] {
    [
        Work::Restart,
        Work::Exit,
        Work::Get(b"USER tom".to_vec()),
        Work::Get(b"META bob".to_vec()),
        Work::Get(b"MAILBOXES (user.ann)".to_vec()),
        Work::Close,
    ]
}

#[test]
fn messages_that_no_mailbox_has_named_are_stored_when_their_group_ends() {
    for end in ends() {
        let dir = tempfile::tempdir().unwrap();
        let mut lease = lease(dir.path());
        assert_eq!(reserve_all(&mut lease), "4");
        assert_eq!(send(&mut lease, &ALL), "OK Success\r\n");
        assert_eq!(mailbox(&mut lease, "bob", &[OF_BOB]), "OK Success\r\n");
        assert_eq!(waiting(dir.path()).len(), 1);
        let _ = lease.run(end);
        assert!(lease.pending.is_empty());
        assert_eq!(waiting(dir.path()).len(), 0);
        assert!(!lease.is_in_doubt);
        // In the first of those that lacked them, and what was claimed in no other one.
        assert_eq!(stored(&mut lease, "tom", &ALL), [1, 0, 1, 1]);
        assert_eq!(stored(&mut lease, "bob", &ALL), [0, 1, 0, 0]);
    }
}

#[test]
fn so_they_are_when_the_session_is_dropped_and_after_a_pause() {
    let dir = tempfile::tempdir().unwrap();
    let mut lease = lease(dir.path());
    reserve_all(&mut lease);
    assert_eq!(send(&mut lease, &ALL), "OK Success\r\n");
    lease.run(Work::Release);
    assert!(lease.is_empty() && !lease.is_done());
    let mut next = other(&lease);
    assert_eq!(stored(&mut next, "tom", &ALL), [0; 4]);
    next.run(Work::Close);
    drop(lease);
    assert_eq!(waiting(dir.path()).len(), 0);
    assert_eq!(stored(&mut next, "tom", &ALL), [1; 4]);
    assert_eq!(stored(&mut next, "bob", &ALL), [0; 4]);
}

#[test]
fn nothing_is_left_and_nothing_is_added_if_every_message_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut lease = lease(dir.path());
    reserve_all(&mut lease);
    assert_eq!(send(&mut lease, &[OF_TOM, OF_BOB, OF_BOTH]), "OK Success\r\n");
    assert_eq!(mailbox(&mut lease, "bob", &[OF_BOB, OF_BOTH]), "OK Success\r\n");
    assert_eq!(mailbox(&mut lease, "tom", &[OF_TOM, OF_BOTH]), "OK Success\r\n");
    assert_eq!(ask(&mut lease, Work::Restart), "OK Restarting\r\n");
    assert_eq!(waiting(dir.path()).len(), 0);
    assert_eq!(stored(&mut lease, "tom", &ALL), [1, 0, 1, 0]);
    assert_eq!(stored(&mut lease, "bob", &ALL), [0, 1, 1, 0]);
}

/// The first backup is another session's: what was acknowledged stays in its file, nothing is
/// promised, and the next time it is taken in.
#[test]
fn what_cannot_be_stored_stays_in_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut lease = lease(dir.path());
    reserve_all(&mut lease);
    assert_eq!(send(&mut lease, &ALL), "OK Success\r\n");
    lease.run(Work::Release);
    let path = lease.site.catalog.lookup(b"tom").unwrap().unwrap();
    let held = Writer::open(&path, 1).unwrap();
    assert_eq!(ask(&mut lease, Work::Restart), "NO Unknown error\r\n");
    assert_eq!(ask(&mut lease, Work::Restart), "OK Restarting\r\n");
    assert_eq!(waiting(dir.path()).len(), 1);
    adopt_all(&lease.site);
    assert_eq!(waiting(dir.path()).len(), 1, "locked still");
    drop(held);
    adopt_all(&lease.site);
    assert_eq!(waiting(dir.path()).len(), 0);
    assert_eq!(stored(&mut lease, "tom", &ALL), [1; 4]);
}

#[test]
fn messages_that_a_dead_process_has_left_are_taken_in_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut lease = lease(dir.path());
    let mut next = other(&lease);
    reserve_all(&mut lease);
    assert_eq!(send(&mut lease, &[OF_TOM, OF_BOTH]), "OK Success\r\n");
    assert_eq!(send(&mut lease, &[OF_BOB, OF_NOBODY, OF_TOM]), "OK Success\r\n");
    assert_eq!(mailbox(&mut lease, "bob", &[OF_BOB, OF_BOTH]), "OK Success\r\n");
    adopt_all(&lease.site);
    assert_eq!(waiting(dir.path()).len(), 1, "its owner is alive");
    die(lease);
    let file = waiting(dir.path()).pop().unwrap();
    let content = std::fs::read(&file).unwrap();
    for _ in 0..2 {
        adopt_all(&next.site);
        assert_eq!(waiting(dir.path()).len(), 0);
        // Bob has his, though his index did not know it any more.
        assert_eq!(stored(&mut next, "tom", &ALL), [1, 0, 0, 1]);
        assert_eq!(stored(&mut next, "bob", &ALL), [0, 1, 1, 0]);
        next.run(Work::Close);
        // As if it had died between the last write and the removal of the file.
        std::fs::write(&file, &content).unwrap();
        chmod(&file);
    }
}

fn chmod(file: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn two_who_start_at_once_take_in_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let lease = lease(dir.path());
    let mut next = other(&lease);
    let mut sessions: Vec<Lease> = (0..3).map(|_| other(&lease)).collect();
    for session in &mut sessions {
        reserve_all(session);
        assert_eq!(send(session, &ALL), "OK Success\r\n");
        session.run(Work::Release);
    }
    sessions.into_iter().for_each(die);
    assert_eq!(waiting(dir.path()).len(), 3);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !waiting(dir.path()).is_empty() {
                    adopt_all(&lease.site);
                }
            });
        }
    });
    assert_eq!(stored(&mut next, "tom", &ALL), [1; 4]);
    assert_eq!(stored(&mut next, "bob", &ALL), [0; 4]);
}

/// A message goes to another one that lacked it, or stays aside: no backup is made anew.
#[test]
fn a_deleted_backup_does_not_come_back() {
    for deleted in [&["tom"][..], &["tom", "bob"]] {
        let dir = tempfile::tempdir().unwrap();
        let mut lease = lease(dir.path());
        let mut next = other(&lease);
        reserve_all(&mut lease);
        assert_eq!(send(&mut lease, &[OF_BOTH]), "OK Success\r\n");
        die(lease);
        for key in deleted {
            next.site.catalog.remove(key.as_bytes()).unwrap();
        }
        adopt_all(&next.site);
        assert!(next.site.catalog.lookup(b"tom").unwrap().is_none());
        assert_eq!(waiting(dir.path()).len(), 0);
        let kept = std::fs::read_dir(dir.path().join("staging")).unwrap().count();
        if deleted.len() == 1 {
            assert_eq!((kept, stored(&mut next, "bob", &[OF_BOTH])), (0, vec![1]));
        } else {
            assert_eq!(kept, 1);
            assert!(next.site.catalog.lookup(b"bob").unwrap().is_none());
        }
    }
}

/// What stands in front of the broken place is taken in; the file is kept.
#[test]
fn a_broken_file_is_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let mut lease = lease(dir.path());
    let mut next = other(&lease);
    reserve_all(&mut lease);
    assert_eq!(send(&mut lease, &[OF_TOM]), "OK Success\r\n");
    die(lease);
    let file = waiting(dir.path()).pop().unwrap();
    let mut content = std::fs::read(&file).unwrap();
    content.extend_from_slice(b"\0\0\0\0\r\n");
    std::fs::write(&file, &content).unwrap();
    adopt_all(&next.site);
    assert_eq!(waiting(dir.path()).len(), 0);
    let kept = file.with_extension("broken");
    assert_eq!(std::fs::read(kept).unwrap(), content);
    assert_eq!(stored(&mut next, "tom", &ALL), [1, 0, 0, 0]);
}

/// A full disk: those that wait go on to do so, this one is refused, and is not stored later.
#[test]
fn what_cannot_be_kept_is_refused_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut lease = lease(dir.path());
    reserve_all(&mut lease);
    assert_eq!(send(&mut lease, &[OF_TOM]), "OK Success\r\n");
    let files = format!("MESSAGE (%{{default {} 7}}\r\n)", guid(OF_BOB));
    let gone = crate::wire::Body::Staged { offset: 0, len: 7 };
    let refused = ask(&mut lease, Work::Apply(files.into_bytes(), vec![gone]));
    assert_eq!(refused, format!("{}\r\n", Refusal::Internal.status()));
    assert_eq!(mailbox(&mut lease, "tom", &[OF_TOM]), "OK Success\r\n");
    assert_eq!(stored(&mut lease, "tom", &ALL), [1, 0, 0, 0]);
    let path = lease.site.catalog.lookup(b"tom").unwrap().unwrap();
    lease.run(Work::Close);
    assert_eq!(Writer::open(&path, 1).unwrap().index().messages().unwrap().len(), 1);
}
