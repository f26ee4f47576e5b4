//! What a session promises, and to whose backup its messages go.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::super::Site;
use super::*;
use crate::store::Catalog;
use crate::store::placement::{Placement, Policy};
use crate::sync::auth::{AuthConfig, Authenticator, NamePolicy, PasswordSources};
use crate::wire::{Body, Guid};

/// A session of a site of its own.
pub(in crate::sync::server) fn lease(root: &Path) -> Lease {
    let partitions = [("one".to_owned(), root.join("one"))].into();
    let names = NamePolicy {
        virtdomains: false,
        defaultdomain: None,
        loginrealms: Vec::new(),
        username_tolower: true,
    };
    let site = Site {
        catalog: Catalog::open(root.join("backups.db")),
        placement: Placement::new(Policy { partitions, umask: 0o077, ..Policy::default() }),
        names: Default::default(),
        authenticator: Authenticator::new(AuthConfig {
            mechs: None,
            sources: PasswordSources::file(root.join("passwd")),
            admins: Vec::new(),
            allow_plaintext: true,
            names,
            service: "csync".into(),
            failed_login_pause: Duration::ZERO,
            minimum_layer: 0,
        }),
        staging_path: root.join("staging"),
        open_backups_max: 2,
    };
    Lease::new(Arc::new(site), Peer::local())
}

pub(super) fn ask(lease: &mut Lease, work: Work) -> String {
    match lease.run(work) {
        Done::Reply(reply) => String::from_utf8(reply).unwrap(),
        _ => panic!("no reply"),
    }
}

fn subscribe(lease: &mut Lease, user: &str, name: &str) -> String {
    let text = format!("SUB %(USERID {user} MBOXNAME user.{name})");
    ask(lease, Work::Apply(text.into_bytes(), Vec::new()))
}

/// Lines until the index is full.
fn fill(lease: &mut Lease, user: &str) {
    lease.open[0].writer.index().limit_growth(0).unwrap();
    let refused = (0..10_000).find(|number| {
        let name = format!("{number}{}", "x".repeat(90));
        !subscribe(lease, user, &name).starts_with("OK")
    });
    assert!(refused.is_some_and(|number| number > 0));
}

#[test]
fn restart_promises_nothing_after_a_backup_was_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut lease = lease(dir.path());
    assert!(subscribe(&mut lease, "tom", "first").starts_with("OK"));
    fill(&mut lease, "tom");
    assert!(lease.is_empty(), "let go of");
    assert_eq!(ask(&mut lease, Work::Restart), "NO Unknown error\r\n");
    // The next open takes in what was acknowledged, and makes it durable.
    assert!(subscribe(&mut lease, "tom", "second").starts_with("OK"));
    let held = &lease.open[0];
    let names = held.writer.index().subscriptions().unwrap();
    assert!(names.contains(&b"user.first".to_vec()));
    assert!(names.contains(&b"user.second".to_vec()));
    assert_eq!(ask(&mut lease, Work::Restart), "OK Restarting\r\n");
}

#[test]
fn a_backup_lingers_after_restart_for_the_same_session_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut lease = lease(dir.path());
    assert!(subscribe(&mut lease, "tom", "first").starts_with("OK"));
    let path = lease.open[0].writer.path().to_owned();
    assert_eq!(ask(&mut lease, Work::Restart), "OK Restarting\r\n");
    assert!(lease.is_lingering());
    assert!(matches!(Writer::open(&path, 1), Err(StoreError::Locked(_))));
    assert!(subscribe(&mut lease, "tom", "second").starts_with("OK"));
    assert!(!lease.is_lingering());
    assert_eq!(ask(&mut lease, Work::Restart), "OK Restarting\r\n");
    // Another one is asked for: this one is let go of.
    assert!(subscribe(&mut lease, "ann", "first").starts_with("OK"));
    lease.closing.wait();
    let names = Writer::open(&path, 1).unwrap().index().subscriptions().unwrap();
    assert_eq!(names, [b"user.first".to_vec(), b"user.second".to_vec()]);
    // The time that others wait is over.
    assert_eq!(ask(&mut lease, Work::Restart), "OK Restarting\r\n");
    assert!(matches!(lease.run(Work::Release), Done::Released));
    assert!(lease.is_empty());
    assert!(subscribe(&mut lease, "ann", "second").starts_with("OK"));
    lease.open[0].since -= HOLD_MAX;
    assert_eq!(ask(&mut lease, Work::Restart), "OK Restarting\r\n");
    lease.closing.wait();
    assert!(lease.is_empty());
}

#[test]
fn users_in_turn_find_their_backups_as_they_left_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut lease = lease(dir.path());
    for number in 0..5 {
        for user in ["tom", "ann", "bob", "tom", "eve"] {
            assert!(subscribe(&mut lease, user, &format!("{number}")).starts_with("OK"));
            assert_eq!(ask(&mut lease, Work::Restart), "OK Restarting\r\n");
        }
    }
    assert_eq!(ask(&mut lease, Work::Exit), "OK Finished\r\n");
    assert!(lease.is_empty());
    for user in ["tom", "ann", "bob", "eve"] {
        let path = lease.site.catalog.lookup(user.as_bytes()).unwrap().unwrap();
        let writer = Writer::open(&path, 1).unwrap();
        assert_eq!(writer.index().subscriptions().unwrap().len(), 5, "{user}");
    }
}

#[test]
fn a_session_waits_for_one_that_lingers() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = lease(dir.path());
    assert!(subscribe(&mut one, "tom", "first").starts_with("OK"));
    assert_eq!(ask(&mut one, Work::Restart), "OK Restarting\r\n");
    let mut other = lease(dir.path());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(LOCK_RETRY);
            one.run(Work::Release);
        });
        assert!(subscribe(&mut other, "tom", "second").starts_with("OK"));
    });
}

#[test]
fn nor_after_one_could_not_be_finished_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let mut lease = lease(dir.path());
    assert!(subscribe(&mut lease, "tom", "first").starts_with("OK"));
    lease.open[0].writer.index().rollback().unwrap();
    assert!(matches!(lease.run(Work::Release), Done::Released));
    assert_eq!(ask(&mut lease, Work::Exit), "NO Unknown error\r\n");
    assert_eq!(ask(&mut lease, Work::Exit), "OK Finished\r\n");
}

pub(super) fn guid(octets: &str) -> String {
    use sha1::Digest;
    Guid::from(<[u8; 20]>::from(sha1::Sha1::digest(octets.as_bytes()))).to_string()
}

pub(super) fn apply(lease: &mut Lease, text: &str) -> String {
    ask(lease, Work::Apply(text.as_bytes().to_vec(), Vec::new()))
}

/// What a client sends for messages, whose bodies come beside the line.
pub(super) fn send(lease: &mut Lease, messages: &[&str]) -> String {
    let file = |text: &&str| format!("%{{default {} {}}}\r\n", guid(text), text.len());
    let files: Vec<String> = messages.iter().map(file).collect();
    let bodies = messages.iter().map(|text| Body::Memory(text.as_bytes().to_vec())).collect();
    ask(lease, Work::Apply(format!("MESSAGE ({})", files.join(" ")).into_bytes(), bodies))
}

pub(super) fn mailbox(lease: &mut Lease, user: &str, messages: &[&str]) -> String {
    let record = |(i, text): (usize, &&str)| {
        format!(
            "%(UID {} MODSEQ 1 LAST_UPDATED 1 FLAGS () INTERNALDATE 1 SIZE {} GUID {})",
            i + 1,
            text.len(),
            guid(text)
        )
    };
    let records: Vec<String> = messages.iter().enumerate().map(record).collect();
    let text = format!(
        "MAILBOX %(UNIQUEID id-{user} MBOXNAME user.{user} LAST_UID {} HIGHESTMODSEQ 1 RECENTUID 0 \
         RECENTTIME 0 LAST_APPENDDATE 0 POP3_LAST_LOGIN 0 UIDVALIDITY 1 PARTITION d ACL \"\" \
         OPTIONS P RECORD ({}))",
        messages.len(),
        records.join(" ")
    );
    apply(lease, &text)
}

/// Which of these messages the backup of a user holds, each with the count of its copies.
pub(super) fn stored(lease: &mut Lease, user: &str, messages: &[&str]) -> Vec<usize> {
    let at = lease.open(user.as_bytes()).unwrap();
    let path = lease.open[at].writer.path().to_owned();
    let is_indexed: Vec<bool> = messages
        .iter()
        .map(|text| {
            let guid = Guid::from_hex(guid(text).as_bytes()).unwrap();
            lease.open[at].writer.index().message(&guid).unwrap().is_some()
        })
        .collect();
    assert!(ask(lease, Work::Restart).starts_with("OK"));
    let mut text = Vec::new();
    let file = std::fs::File::open(path).unwrap();
    // Nothing at all is no gzip file.
    if file.metadata().unwrap().len() > 0 {
        flate2::read::MultiGzDecoder::new(file).read_to_end(&mut text).unwrap();
    }
    let copies = |message: &&str| {
        let header = format!("{} {}}}\r\n{message}", guid(message), message.len());
        text.windows(header.len()).filter(|window| *window == header.as_bytes()).count()
    };
    let copies: Vec<usize> = messages.iter().map(copies).collect();
    for (is_indexed, copies) in is_indexed.iter().zip(&copies) {
        assert_eq!(*is_indexed, *copies > 0);
    }
    copies
}

pub(super) const OF_TOM: &str = "for tom";
pub(super) const OF_BOB: &str = "for bob";
pub(super) const OF_BOTH: &str = "for both";
pub(super) const OF_NOBODY: &str = "for nobody";
pub(super) const ALL: [&str; 4] = [OF_TOM, OF_BOB, OF_BOTH, OF_NOBODY];

pub(super) fn reserve_all(lease: &mut Lease) -> String {
    let guids: Vec<String> = ALL.iter().map(|text| guid(text)).collect();
    let names = "(user.tom user.bob)";
    assert!(ask(lease, Work::Get(format!("MAILBOXES {names}").into())).ends_with("OK Success\r\n"));
    let reply = apply(
        lease,
        &format!("RESERVE %(PARTITION default MBOXNAME {names} GUID ({}))", guids.join(" ")),
    );
    let missing = reply.strip_suffix("OK Success\r\n").unwrap();
    let count = ALL.iter().filter(|text| missing.contains(&guid(text))).count();
    count.to_string()
}

#[test]
fn a_message_of_a_group_goes_to_whom_it_is_for_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut lease = lease(dir.path());
    assert_eq!(reserve_all(&mut lease), "4");
    // As the client does it: what the first mailbox holds, the first mailbox, and what else the
    // second one holds. Sending twice does no harm.
    assert_eq!(send(&mut lease, &[OF_TOM, OF_BOTH, OF_TOM]), "OK Success\r\n");
    assert_eq!(mailbox(&mut lease, "tom", &[OF_TOM, OF_BOTH, OF_BOTH]), "OK Success\r\n");
    assert_eq!(send(&mut lease, &[OF_BOB, OF_NOBODY, OF_TOM]), "OK Success\r\n");
    // A pause lets go of the backups, and of nothing else.
    assert!(matches!(lease.run(Work::Release), Done::Released));
    assert_eq!(mailbox(&mut lease, "bob", &[OF_BOB, OF_BOTH]), "OK Success\r\n");
    assert_eq!(mailbox(&mut lease, "tom", &[OF_TOM, OF_BOTH]), "OK Success\r\n");
    assert_eq!(ask(&mut lease, Work::Restart), "OK Restarting\r\n");
    // What nobody claimed is not forgotten.
    assert_eq!(stored(&mut lease, "tom", &ALL), [1, 0, 1, 1]);
    assert_eq!(stored(&mut lease, "bob", &ALL), [0, 1, 1, 0]);
    // What one of two has may be for the other.
    assert_eq!(reserve_all(&mut lease), "3");
    assert_eq!(send(&mut lease, &[OF_TOM, OF_BOB]), "OK Success\r\n");
    assert_eq!(stored(&mut lease, "tom", &ALL), [1, 1, 1, 1]);
    assert_eq!(stored(&mut lease, "bob", &ALL), [1, 1, 1, 0]);
}

#[test]
fn messages_that_nobody_reserved_are_of_whom_the_latest_get_spoke() {
    let dir = tempfile::tempdir().unwrap();
    let mut lease = lease(dir.path());
    assert_eq!(send(&mut lease, &[OF_TOM]), "NO IMAP_PROTOCOL_ERROR Protocol error\r\n");
    assert_eq!(ask(&mut lease, Work::Get(b"USER bob".to_vec())), "OK Success\r\n");
    assert_eq!(ask(&mut lease, Work::Get(b"USER tom".to_vec())), "OK Success\r\n");
    for _ in 0..2 {
        assert_eq!(send(&mut lease, &[OF_TOM, OF_TOM]), "OK Success\r\n");
    }
    assert_eq!(stored(&mut lease, "tom", &ALL), [1, 0, 0, 0]);
    assert_eq!(stored(&mut lease, "bob", &ALL), [0; 4]);
}

/// However many users a request is about.
#[test]
fn reservations_keep_no_backup_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut lease = lease(dir.path());
    let names: Vec<String> = (0..7).map(|i| format!("user.u{i}")).collect();
    let text = format!("MAILBOXES ({})", names.join(" "));
    assert_eq!(ask(&mut lease, Work::Get(text.into())), "OK Success\r\n");
    let guid = guid(OF_TOM);
    let text = format!("RESERVE %(PARTITION d MBOXNAME ({}) GUID ({guid}))", names.join(" "));
    assert!(apply(&mut lease, &text).contains(&guid));
    assert_eq!(lease.open.len(), 2);
    assert_eq!(send(&mut lease, &[OF_TOM]), "OK Success\r\n");
    assert_eq!(mailbox(&mut lease, "u3", &[OF_TOM]), "OK Success\r\n");
    assert_eq!(stored(&mut lease, "u3", &[OF_TOM]), [1]);
    assert_eq!(stored(&mut lease, "u4", &[OF_TOM]), [0]);
}
