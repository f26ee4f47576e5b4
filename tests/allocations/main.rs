//! How often memory is allocated, counted: a count is the same on a busy machine, so that a
//! change which costs more is seen at once. Upper bounds, a little above what is counted; and
//! what must not grow with what is stored is compared with a larger store.
#![allow(clippy::unwrap_used)]

mod counts;
mod server;

use std::path::Path;

use counts::{Cost, alone, cost, least_cost};
use cyrbk::lock::Wait;
use cyrbk::store::Backup;
use cyrbk::store::message::StoredMessage;
use cyrbk::wire::Guid;
use cyrbk::wire::apply::Apply;
use cyrbk::wire::dlist::parse_item;
use server::{Client, Server, guid, mailbox_line, message_line};

/// A message of a usual size.
fn message(number: u64) -> Vec<u8> {
    let words = "It compresses about as well as mail does. ".repeat(100);
    format!("Subject: {number:08}\r\n\r\n{words}{:x}\r\n", number.wrapping_mul(0x9e37_79b9_7f4a))
        .into_bytes()
}

/// The lines that bring some messages, the first of which has this UID.
fn lines(first_uid: u64, count: u64) -> [Vec<u8>; 2] {
    let messages: Vec<Vec<u8>> = (first_uid..first_uid + count).map(message).collect();
    [message_line(&messages), mailbox_line("tom", first_uid, &messages)]
}

/// Messages enough that one more has a UID of as many digits as many more.
const FIRST_UID: u64 = 1_000_000;

/// Messages that a client sends in one line.
const PORTION: u64 = 500;

/// Sends messages.
fn fill(client: &mut Client, first_uid: u64, count: u64) {
    client.ask(b"GET USER tom\r\n");
    for from in (first_uid..first_uid + count).step_by(PORTION as usize) {
        let count = (first_uid + count - from).min(PORTION);
        lines(from, count).iter().for_each(|line| client.ask(line));
    }
    client.ask(b"RESTART\r\n");
}

#[test]
fn one_new_message_in_a_session() {
    let _alone = alone();
    let server = Server::start();
    let mut client = server.log_in();
    let mut uid = FIRST_UID;
    let mut measure = |stored| {
        fill(&mut client, uid, stored);
        uid += stored;
        let rounds: Vec<_> = (0..ROUNDS).map(|round| lines(uid + round as u64, 1)).collect();
        uid += rounds.len() as u64;
        client.ask(b"GET USER tom\r\n");
        // The first one begins a chunk.
        lines(uid, 1).iter().for_each(|line| client.ask(line));
        uid += 1;
        let cost = least_cost(rounds.len(), |round| {
            rounds[round].iter().for_each(|line| client.ask(line));
        });
        client.ask(b"RESTART\r\n");
        cost
    };
    let (small, large) = (measure(20), measure(3_000));
    println!("one new message: {small:?}, with more stored: {large:?}");
    assert_within(small, NEW_MESSAGE);
    assert_flat(small, large);
}

#[test]
fn a_line_of_many_records() {
    let _alone = alone();
    let read = |line: &[u8]| {
        let text = line.strip_prefix(b"APPLY ").unwrap().strip_suffix(b"\r\n").unwrap();
        let (name, value) = parse_item(text).unwrap();
        let Apply::Mailbox(mailbox) = Apply::read(&name, &value).unwrap() else { panic!() };
        mailbox.records().map(|record| record.unwrap().uid as u64).sum::<u64>()
    };
    let one = mailbox_line("tom", FIRST_UID, &[message(1)]);
    let many: Vec<Vec<u8>> = (0..1_000).map(message).collect();
    let many = mailbox_line("tom", FIRST_UID, &many);
    let (one, _) = cost(|| read(&one));
    let (many, _) = cost(|| read(&many));
    let each = Cost {
        calls: (many.calls - one.calls).div_ceil(999),
        octets: (many.octets - one.octets).div_ceil(999),
    };
    println!("a mailbox: {one:?}, each record more: {each:?}");
    assert_within(one, MAILBOX);
    assert_within(each, RECORD);
}

#[test]
fn reading_one_message() {
    let _alone = alone();
    let server = Server::start();
    let mut client = server.log_in();
    let read = |path: &Path, guid: &Guid| {
        let backup = Backup::open(path, Wait::Yes).unwrap();
        let mut out = Vec::with_capacity(10_000);
        StoredMessage::read(&backup, guid, path.parent().unwrap())
            .unwrap()
            .write_to(&mut out)
            .unwrap();
        assert_eq!(out.len(), message(FIRST_UID).len());
    };
    let mut first_uid = FIRST_UID;
    let mut measure = |stored| {
        fill(&mut client, first_uid, stored);
        let wanted =
            Guid::from_hex(guid(&message(first_uid + stored / PORTION / 2 * PORTION)).as_bytes())
                .unwrap();
        first_uid += stored;
        // The server lets go of it.
        client.ask(b"GET USER others\r\n");
        client.ask(b"RESTART\r\n");
        let path = server.data_file("tom");
        least_cost(ROUNDS, |_| read(&path, &wanted))
    };
    // The message in the middle is the first one of its portion.
    let (small, large) = (measure(PORTION), measure(4 * PORTION));
    println!("reading one message: {small:?}, of more: {large:?}");
    assert_within(small, READ_MESSAGE);
    assert_flat(small, large);
}

/// Times that something is counted.
const ROUNDS: usize = 10;

/// The server's side of APPLY MESSAGE and APPLY MAILBOX, from the socket to the reply.
const NEW_MESSAGE: Cost = Cost { calls: 150, octets: 21_000 };
/// Reading a MAILBOX line with one record, and what each record adds.
const MAILBOX: Cost = Cost { calls: 21, octets: 4_800 };
const RECORD: Cost = Cost { calls: 9, octets: 2_100 };
/// Opening a backup and reading a message of one of its long lines.
const READ_MESSAGE: Cost = Cost { calls: 900, octets: 330_000 };

#[track_caller]
fn assert_within(counted: Cost, bound: Cost) {
    let is_within = counted.calls <= bound.calls && counted.octets <= bound.octets;
    assert!(is_within, "{counted:?}, at most {bound:?}");
}

/// The same, but for what a longer number or a deeper tree takes.
#[track_caller]
fn assert_flat(small: Cost, large: Cost) {
    let bound = Cost { calls: small.calls + 5, octets: small.octets + small.octets / 20 };
    assert_within(large, bound);
}
