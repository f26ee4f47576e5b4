//! How much of one client is dealt with before others get their turn.

use std::io::{Read, Write};
use std::path::Path;

use super::super::lease::tests::lease;
use super::*;
use crate::sync::{Door, SessionSettings};
use crate::wire::frame::Limits;

fn settings() -> SessionSettings {
    SessionSettings {
        server_name: "host".into(),
        mechanisms: vec!["PLAIN"],
        mechanisms_private: vec!["PLAIN"],
        mechanisms_bound: Vec::new(),
        offers_external: false,
        limits: Limits { line: 1000, literal: 1000, body: 1000, bodies: 10 },
        spool_memory: 1000,
    }
}

/// Turns that a stream takes which inflates to 8 MiB, all of it one line.
fn turns(door: Door) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let session = Session::new(Arc::new(settings()), door);
    let socket = Stream::Unix(mio::net::UnixStream::from_std(ours));
    let now = Instant::now();
    let mut conn = Conn::new(socket, Peer::local(), session, lease(dir.path()), None, now);
    let limits = ServerLimits::default();
    let mut scratch = vec![0; 256 * 1024];
    let mut zip = flate2::Compress::new(flate2::Compression::best(), false);
    let mut bomb = Vec::with_capacity(1 << 16);
    let mut line = vec![b'z'; 8 << 20];
    line.extend_from_slice(b"\r\n");
    zip.compress_vec(&line, &mut bomb, flate2::FlushCompress::Sync).unwrap();
    theirs.write_all(b"COMPRESS DEFLATE\r\n").unwrap();
    theirs.write_all(&bomb).unwrap();
    let mut count = 0;
    loop {
        count += 1;
        match conn.pump(now, &limits, &mut scratch) {
            Next::Again => {}
            Next::Wait => break,
            other => panic!("{other:?}"),
        }
    }
    let mut said = [0; 1000];
    let len = theirs.read(&mut said).unwrap();
    let plain = b"OK DEFLATE active\r\n";
    let at = said.windows(plain.len()).position(|window| window == plain).unwrap();
    let packed = &said[at + plain.len()..len];
    let mut reply = Vec::with_capacity(1000);
    let mut unzip = flate2::Decompress::new(false);
    unzip.decompress_vec(packed, &mut reply, flate2::FlushDecompress::Sync).unwrap();
    assert!(reply.ends_with(b" octets\r\n"), "{}", reply.escape_ascii());
    count
}

#[test]
fn strangers_have_small_turns() {
    let trusted = Door { is_trusted: true, ..Door::default() };
    let (known, unknown) = (turns(trusted), turns(Door::default()));
    assert!((8..16).contains(&known), "{known}");
    assert!((256..300).contains(&unknown), "{unknown}");
}

/// A connection that holds what this work needs and has nothing to do.
fn idle_behind(work: Work, dir: &Path) -> (Conn, Instant, ServerLimits) {
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let door = Door { is_trusted: true, ..Door::default() };
    let session = Session::new(Arc::new(settings()), door);
    let socket = Stream::Unix(mio::net::UnixStream::from_std(ours));
    let mut lease = lease(dir);
    lease.run(work);
    assert!(!lease.is_empty());
    let now = Instant::now();
    let mut conn = Conn::new(socket, Peer::local(), session, lease, None, now);
    while conn.session.poll_action().is_some() {}
    (conn, now, ServerLimits::default())
}

/// A compaction in between would drop messages that no mailbox names yet.
#[test]
fn who_has_stored_something_keeps_its_backups_for_longer() {
    let dir = tempfile::tempdir().unwrap();
    let store = Work::Apply(b"SUB %(USERID tom MBOXNAME user.tom)".to_vec(), Vec::new());
    let (mut conn, now, limits) = idle_behind(store, dir.path());
    assert!(conn.timeout(now + ASKED, &limits).is_none());
    let later = now + limits.lease_time;
    assert!(matches!(conn.timeout(later, &limits), Some(Work::Release)));
}

/// The lease would be on its way when the command wants it: the command would never be answered.
#[test]
fn backups_are_not_taken_from_a_client_whose_command_is_about_to_be_done() {
    let dir = tempfile::tempdir().unwrap();
    let (mut conn, now, limits) = idle_behind(Work::Get(b"USER tom".to_vec()), dir.path());
    let later = now + ASKED;
    assert!(matches!(conn.timeout(later, &limits), Some(Work::Release)));
    conn.session.handle_input(&mut &b"GET USER tom\r\n"[..]);
    assert!(conn.timeout(later, &limits).is_none());
    assert!(matches!(conn.session.poll_action(), Some(Action::Submit(_))));
}

/// A connection of a client that does not read what it is to be sent.
fn unread(dir: &Path) -> (Conn, std::os::unix::net::UnixStream, Instant) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let door = Door { is_trusted: true, ..Door::default() };
    let session = Session::new(Arc::new(settings()), door);
    let socket = Stream::Unix(mio::net::UnixStream::from_std(ours));
    let now = Instant::now();
    let mut conn = Conn::new(socket, Peer::local(), session, lease(dir), None, now);
    conn.transport.send(&vec![b'x'; 4 << 20]);
    let limits = ServerLimits::default();
    assert!(matches!(conn.pump(now, &limits, &mut [0; 1000]), Next::Wait));
    (conn, theirs, now)
}

/// A reply may take longer than `sync_timeout`, as long as the client goes on reading.
#[test]
fn who_reads_slowly_is_not_idle() {
    let dir = tempfile::tempdir().unwrap();
    let limits = ServerLimits::default();
    let (mut conn, mut theirs, now) = unread(dir.path());
    let mut when = now;
    for _ in 0..3 {
        when += limits.idle_time - Duration::from_secs(1);
        theirs.read_exact(&mut [0; 50_000]).unwrap();
        assert!(matches!(conn.pump(when, &limits, &mut [0; 1000]), Next::Wait));
        assert!(conn.timeout(when, &limits).is_none());
        assert!(!conn.is_closing);
    }
    // That is all it reads.
    conn.timeout(when + limits.idle_time, &limits);
    assert!(conn.is_closing);
}

/// Whatever is due has to wait until the worker is done.
#[test]
fn nothing_is_due_while_a_worker_is_at_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut conn, now, limits) = idle_behind(Work::Get(b"USER tom".to_vec()), dir.path());
    assert_eq!(conn.deadline(&limits), Some(now + ASKED));
    let lease = conn.start_job();
    conn.shut_down(now);
    assert_eq!(conn.deadline(&limits), None);
    conn.done(now + ASKED, lease, Some(Done::Released));
    assert_eq!(conn.deadline(&limits), Some(now));
}
