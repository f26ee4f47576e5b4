//! How much of one client is dealt with before others get their turn.

use std::io::{Read, Write};

use super::super::lease::tests::lease;
use super::*;
use crate::sync::{Door, SessionSettings};
use crate::wire::frame::Limits;

/// Turns that a stream takes which inflates to 8 MiB, all of it one line.
fn turns(door: Door) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let settings = SessionSettings {
        server_name: "host".into(),
        mechanisms: vec!["PLAIN"],
        mechanisms_private: vec!["PLAIN"],
        mechanisms_bound: Vec::new(),
        offers_external: false,
        limits: Limits { line: 1000, literal: 1000, body: 1000, bodies: 10 },
        spool_memory: 1000,
    };
    let session = Session::new(Arc::new(settings), door);
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
