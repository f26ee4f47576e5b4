//! Damage and forgery: right data or an error, never a panic or a loop.

#![allow(clippy::unwrap_used)]

use std::fs;

use super::tests::{BOB, SHARED, file_of, fixture, pairs};
use super::*;

/// What a reader and a writer make of a file: the right pairs or an error.
fn check_hostile(bytes: &[u8], right: &Pairs, what: &str) {
    let (_dir, path) = file_of(bytes);
    if let Ok(got) = Twoskip::read_all(&path) {
        assert_eq!(&got, right, "{what}");
    }
    for key in ["%SHARED", "alice", "bob"] {
        if let Ok(got) = Twoskip::lookup(&path, key.as_bytes()) {
            let wanted = right.iter().find(|(k, _)| k == key.as_bytes());
            assert_eq!(got.as_ref(), wanted.map(|(_, v)| v), "{what}: {key}");
        }
    }
    let Ok(mut txn) = WriteTxn::begin(&path) else {
        assert_eq!(fs::read(&path).unwrap(), bytes, "{what}: a refused file was changed");
        return;
    };
    txn.set(b"carol", b"/c");
    let done = txn.commit().map(|()| Twoskip::read_all(&path));
    if let Ok(Ok(mut got)) = done {
        got.retain(|(key, _)| key != b"carol");
        assert_eq!(&got, right, "{what}: after a write");
    }
}

#[test]
fn any_flipped_byte_gives_right_data_or_an_error() {
    let right = pairs(&[SHARED, BOB]);
    let whole = fixture("step5.db");
    for at in 0..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            check_hostile(&bytes, &right, &format!("byte {at:#x} ^ {flip:#x}"));
        }
    }
}

#[test]
fn any_truncation_gives_right_data_or_an_error() {
    let right = pairs(&[SHARED, BOB]);
    let whole = fixture("step5.db");
    // Length 0 is an empty database, which nothing can tell from a new one.
    for len in 1..whole.len() {
        check_hostile(&whole[..len], &right, &format!("{len} bytes"));
    }
}

/// A file in memory whose records were changed by somebody who also made the
/// checksums right.
fn forged(change: impl Fn(u64, &mut format::Head)) -> Vec<u8> {
    let mut bytes = fixture("nine-users.db");
    let mut at = format::DUMMY_AT;
    while let Some(rest) = bytes.get(at as usize..).filter(|rest| !rest.is_empty()) {
        let Ok(mut head) = format::Head::decode(rest, at) else {
            at += 8;
            continue;
        };
        let len = head.len() + head.tail_len();
        change(at, &mut head);
        let encoded = head.encode();
        bytes[at as usize..][..encoded.len()].copy_from_slice(&encoded);
        at += len;
    }
    bytes
}

#[test]
fn forged_pointers_end_in_an_error() {
    type Forgery = fn(u64, &mut format::Head);
    let cases: [(&str, Forgery); 8] = [
        ("to itself", |at, head| head.pointers.fill(at)),
        ("to the first record", |_, head| head.pointers.fill(format::EMPTY_LEN)),
        ("to DUMMY", |_, head| head.pointers.fill(format::DUMMY_AT)),
        ("records to themselves", |at, head| {
            if head.kind == format::Kind::Record {
                head.pointers.fill(at);
            }
        }),
        ("DELETE to itself", |at, head| match head.kind {
            format::Kind::Delete => head.pointers[0] = at,
            _ => head.pointers.fill(0x600),
        }),
        ("beyond the file", |_, head| head.pointers.fill(u64::MAX - 7)),
        ("between records", |_, head| head.pointers.iter_mut().for_each(|p| *p += 8)),
        ("unaligned", |_, head| head.pointers.iter_mut().for_each(|p| *p |= 1)),
    ];
    for (name, forgery) in cases {
        let (_dir, path) = file_of(&forged(forgery));
        assert!(Twoskip::read_all(&path).is_err(), "{name}");
        assert!(Twoskip::lookup(&path, b"zoe").is_err(), "{name}");
        let mut txn = WriteTxn::begin(&path).unwrap();
        txn.set(b"zoe", b"/z");
        assert!(txn.commit().is_err(), "{name}");
        assert_eq!(fs::read(&path).unwrap(), forged(forgery), "{name}: written to");
    }
}

#[test]
fn forged_lengths_and_sizes_allocate_nothing() {
    let long = forged(|_, head| head.value_len = format::FIELD_LEN_MAX);
    let (_dir, path) = file_of(&long);
    assert!(Twoskip::read_all(&path).is_err());
    // A committed size far beyond the file, all live records still in it.
    let mut bytes = fixture("step5.db");
    let mut header = read::header(&bytes).unwrap();
    header.current_size = 1 << 60;
    bytes[..64].copy_from_slice(&header.encode());
    let (_dir, path) = file_of(&bytes);
    assert_eq!(Twoskip::read_all(&path).unwrap(), pairs(&[SHARED, BOB]));
    assert!(WriteTxn::begin(&path).is_err());
    assert_eq!(fs::read(&path).unwrap(), bytes);
}
