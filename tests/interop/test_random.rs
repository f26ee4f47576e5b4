//! Random sessions of a client that does everything right, to the real `backupd` and to the server
//! under test: the same replies, the same rows, and the same words of both makers' tools. The seed
//! is fixed; `CYRBK_RANDOM_SEED` gives another.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::backup_server::{BackupServer, Maker};
use crate::cyrus::Cyrus;
use crate::index_rows;
use crate::mail::guid;
use crate::raw_csync::RawCsync;
use crate::site::{ADMIN, PASSWORD};
use crate::tools::{Tools, assert_same_output};

const USERS: [&str; 2] = ["tom", "ann.b"];
const SESSIONS: u32 = 6;
const COMMANDS: u32 = 30;
const FLAGS: [&str; 4] = ["\\Seen", "\\Flagged", "$Work", "NonJunk"];

#[test]
fn random_sessions_are_taken_alike() {
    let Some(cyrus) = Cyrus::find_or_skip("random_sessions_are_taken_alike") else { return };
    let seed = std::env::var("CYRBK_RANDOM_SEED").map_or(20_261_122, |text| text.parse().unwrap());
    println!("seed {seed}");
    let servers =
        [Maker::Cyrus, Maker::under_test()].map(|maker| BackupServer::start(&cyrus, maker, &[]));
    let tools = [Maker::Cyrus, Maker::under_test()].map(|maker| Tools::new(&cyrus, maker));
    let mut client =
        Client { random: Random(seed), users: USERS.map(User::new), asked: "", made: 0 };
    for _ in 0..SESSIONS {
        client.asked = "";
        let mut dialogues = servers.each_ref().map(|s| RawCsync::login(s.port, ADMIN, PASSWORD));
        for _ in 0..COMMANDS {
            for request in client.next() {
                let [real, tested] = dialogues.each_mut().map(|csync| answer(csync, &request));
                assert_eq!(real, tested, "seed {seed}: {request}");
            }
        }
        for (server, csync) in servers.iter().zip(&mut dialogues) {
            assert_eq!(csync.ask(b"EXIT\r\n"), "OK Finished\r\n");
            server.wait_until_closed();
        }
    }
    for user in USERS {
        let [real, tested] = servers.each_ref().map(|server| {
            let mut index = server.data_file(user).into_os_string();
            index.push(".index");
            std::path::PathBuf::from(index)
        });
        index_rows::assert_same(user, &real, &tested);
        for server in &servers {
            for words in [["list", "all"], ["json", "mailboxes"], ["json", "messages"]] {
                let args = [&[user], &words[..]].concat();
                let [real, tested] = tools.each_ref().map(|tools| tools.cyr_backup(server, &args));
                assert_same_output(&real, &tested);
            }
            let [real, tested] =
                tools.each_ref().map(|tools| tools.ctl_backups(server, &["-v", "verify", user]));
            assert_same_output(&real.success(), &tested);
        }
    }
}

/// The reply, in pieces whose order does not matter: it is cyrbk's that is by UID.
fn answer(csync: &mut RawCsync, request: &str) -> Vec<String> {
    let reply = csync.ask_whole(request.as_bytes());
    let pieces = reply.split("\r\n").flat_map(|line| line.split("%(UID "));
    let mut pieces: Vec<_> =
        pieces.map(|piece| piece.trim_end_matches([' ', ')']).to_owned()).collect();
    pieces.sort();
    pieces
}

struct Random(u64);

impl Random {
    /// Below `end`: xorshift, as of G. Marsaglia.
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }
}

struct Client {
    random: Random,
    users: [User; 2],
    /// About whom it has asked last, in this session.
    asked: &'static str,
    /// Mailboxes so far.
    made: u32,
}

struct User {
    id: &'static str,
    inbox: String,
    mailboxes: BTreeMap<String, Mailbox>,
}

impl User {
    fn new(id: &'static str) -> Self {
        Self { id, inbox: format!("user.{}", id.replace('.', "^")), mailboxes: BTreeMap::new() }
    }
}

struct Mailbox {
    uniqueid: String,
    last_uid: u32,
    modseq: u64,
    records: BTreeMap<u32, Record>,
}

struct Record {
    message: String,
    modseq: u64,
    flags: Vec<&'static str>,
}

impl Record {
    fn crc(&self, uid: u32) -> u32 {
        let crc = |text: &str| crc32fast::hash(text.as_bytes());
        if self.flags.contains(&"\\Expunged") {
            return 0;
        }
        let flags = self.flags.iter().fold(0, |sum, flag| sum ^ crc(&flag.to_lowercase()));
        let guid = guid(self.message.as_bytes());
        crc(&format!("{uid} {} 1 ({flags}) 1 {guid}", self.modseq))
    }
}

impl Mailbox {
    fn crc(&self) -> u32 {
        self.records.iter().fold(0, |sum, (uid, record)| sum ^ record.crc(*uid))
    }

    /// All of it, or what has changed since that state.
    fn line(&self, name: &str, since: Option<(u64, u32)>) -> String {
        let records = self.records.iter().filter(|(_, r)| since.is_none_or(|s| r.modseq > s.0));
        let records: Vec<_> = records
            .map(|(uid, Record { message, modseq, flags })| {
                format!(
                    "%(UID {uid} MODSEQ {modseq} LAST_UPDATED 1 FLAGS ({}) INTERNALDATE 1 SIZE {} \
                     GUID {})",
                    flags.join(" "),
                    message.len(),
                    guid(message.as_bytes())
                )
            })
            .collect();
        let since = since.map_or(String::new(), |(modseq, crc)| {
            format!("SINCE_MODSEQ {modseq} SINCE_CRC {crc} SINCE_CRC_ANNOT 12345678 ")
        });
        format!(
            "APPLY MAILBOX %(UNIQUEID {} MBOXNAME {name} SYNC_CRC {} SYNC_CRC_ANNOT 12345678 \
             LAST_UID {} HIGHESTMODSEQ {} RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 1 \
             POP3_LAST_LOGIN 0 UIDVALIDITY 7 PARTITION default ACL \"tom\tlrs\t\" OPTIONS P \
             {since}RECORD ({}))\r\n",
            self.uniqueid,
            self.crc(),
            self.last_uid,
            self.modseq,
            records.join(" ")
        )
    }
}

impl Client {
    /// The requests of one step.
    fn next(&mut self) -> Vec<String> {
        let Self { random, users, asked, made } = self;
        let User { id, inbox, mailboxes } = &mut users[random.below(USERS.len())];
        let mut requests = Vec::new();
        // As a client does before it says anything else about a user. RESTART, because the real
        // one gives a message to each backup that is open.
        if std::mem::replace(asked, id) != *id {
            requests.push("RESTART\r\n".to_owned());
            requests.push(format!("GET USER {id}\r\n"));
        }
        let place = match mailboxes.is_empty() {
            true => inbox.clone(),
            false => format!("{inbox}.{}", random.below(5)),
        };
        let known = random.below(mailboxes.len().max(1));
        let Some((name, mailbox)) = mailboxes.iter_mut().nth(known) else {
            *made += 1;
            let uniqueid = format!("u{made}");
            let new = Mailbox { uniqueid, last_uid: 0, modseq: 1, records: BTreeMap::new() };
            requests.push(new.line(&place, None));
            mailboxes.insert(place, new);
            return requests;
        };
        let name = name.clone();
        let before = Some((mailbox.modseq, mailbox.crc()));
        match random.below(12) {
            0..4 => {
                let text = format!("Subject: {}\r\n\r\n", random.below(60));
                let guid = guid(text.as_bytes());
                if mailbox.records.values().any(|record| record.message == text) {
                    return requests;
                }
                requests.push(format!(
                    "APPLY RESERVE %(PARTITION default MBOXNAME ({name}) GUID ({guid}))\r\n"
                ));
                let len = text.len();
                requests.push(format!("APPLY MESSAGE (%{{default {guid} {len}}}\r\n{text})\r\n"));
                mailbox.last_uid += 1;
                mailbox.modseq += 1;
                let record = Record { message: text, modseq: mailbox.modseq, flags: Vec::new() };
                mailbox.records.insert(mailbox.last_uid, record);
                requests.push(mailbox.line(&name, before));
            }
            4..7 => {
                let chosen = random.below(mailbox.records.len().max(1));
                let Some(record) = mailbox.records.values_mut().nth(chosen) else {
                    return requests;
                };
                if !record.flags.contains(&"\\Expunged") {
                    mailbox.modseq += 1;
                    record.modseq = mailbox.modseq;
                    record.flags = FLAGS[..random.below(FLAGS.len())].to_vec();
                    if random.below(3) == 0 {
                        record.flags.push("\\Expunged");
                    }
                }
                requests.push(mailbox.line(&name, before));
            }
            7 => {
                *made += 1;
                let uniqueid = format!("u{made}");
                let new = Mailbox { uniqueid, last_uid: 0, modseq: 1, records: BTreeMap::new() };
                if let Entry::Vacant(entry) = mailboxes.entry(place) {
                    requests.push(new.line(entry.key(), None));
                    entry.insert(new);
                }
            }
            8 if name != *inbox => {
                let mut moved = mailboxes.remove(&name).unwrap();
                let gone = format!("DELETED.{name}.{:08X}", 0x6b01_0000 + *made);
                let is_deleted = mailboxes.contains_key(&place);
                let new = if is_deleted { gone } else { place };
                requests.push(format!(
                    "APPLY RENAME %(OLDMBOXNAME {name} NEWMBOXNAME {new} PARTITION default \
                     UIDVALIDITY 7)\r\n"
                ));
                let before = Some((moved.modseq, moved.crc()));
                moved.modseq += 1;
                requests.push(moved.line(&new, before));
                if is_deleted {
                    requests.push(format!("APPLY UNMAILBOX {new}\r\n"));
                } else {
                    mailboxes.insert(new, moved);
                }
            }
            9 => requests.push(format!("GET FULLMAILBOX {name}\r\n")),
            10 => requests.push("RESTART\r\n".to_owned()),
            _ => {
                let verb = ["SUB", "UNSUB"][random.below(2)];
                requests.push(format!("APPLY {verb} %(USERID {id} MBOXNAME {name})\r\n"));
                let (uniqueid, last) = (&mailbox.uniqueid, random.below(9));
                requests.push(format!(
                    "APPLY SEEN %(USERID {id} UNIQUEID {uniqueid} LASTREAD 1 LASTUID {last} \
                     LASTCHANGE 1 SEENUIDS 1:{last})\r\n"
                ));
                let (number, text) = (random.below(3), random.below(9));
                requests.push(format!(
                    "APPLY SIEVE %(USERID {id} FILENAME s{number}.script LAST_UPDATE {text} \
                     CONTENT keep{text})\r\n"
                ));
            }
        }
        requests
    }
}
