//! A replication client that remembers what it was promised.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cyrbk::wire::Guid;
use sha1::{Digest, Sha1};

use crate::Random;
use crate::folders::Folders;
use crate::server::{ADMIN, PASSWORD};

/// Never waited for unless something hangs.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What one user's client has sent, and what of it was answered OK.
pub(crate) struct Ledger {
    pub(crate) user: String,
    /// Of messages answered OK.
    pub(crate) messages: BTreeSet<Guid>,
    /// UID to message, of records answered OK.
    pub(crate) records: BTreeMap<u32, Guid>,
    /// The same, of all that were sent.
    pub(crate) sent: BTreeMap<u32, Guid>,
    /// Of messages answered OK, as `messages`.
    sizes: BTreeMap<Guid, usize>,
    pub(crate) folders: Folders,
    last_uid: u32,
    /// How often all of this was found on the server.
    pub(crate) checks: usize,
}

impl Ledger {
    pub(crate) fn new(user: &str) -> Ledger {
        Ledger {
            user: user.to_owned(),
            messages: BTreeSet::new(),
            records: BTreeMap::new(),
            sent: BTreeMap::new(),
            sizes: BTreeMap::new(),
            folders: Folders::default(),
            last_uid: 0,
            checks: 0,
        }
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.messages.len()
    }
}

pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn log_in(port: u16) -> io::Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        let mut client = Client { stream: BufReader::new(stream) };
        while !client.line()?.starts_with("* OK") {}
        let login = BASE64_STANDARD.encode(format!("\0{ADMIN}\0{PASSWORD}"));
        client.order(format!("AUTHENTICATE PLAIN {login}\r\n").as_bytes())?;
        Ok(client)
    }

    /// Everything that was answered OK is here; nothing is here that was never sent.
    pub(crate) fn check(&mut self, ledger: &mut Ledger) -> io::Result<()> {
        let user = &ledger.user;
        if !ledger.messages.is_empty() {
            let guids: Vec<String> = ledger.messages.iter().map(Guid::to_string).collect();
            let missing = self.order(
                format!(
                    "APPLY RESERVE %(PARTITION default MBOXNAME (user.{user}) GUID ({}))\r\n",
                    guids.join(" ")
                )
                .as_bytes(),
            )?;
            assert!(!missing.contains("MISSING"), "{user}: acknowledged, but {missing}");
        }
        if !ledger.records.is_empty() {
            let reply = self.order(format!("GET FULLMAILBOX user.{user}\r\n").as_bytes())?;
            let found: BTreeMap<u32, Guid> = reply.split("%(UID ").skip(1).map(record).collect();
            for (uid, guid) in &ledger.records {
                assert_eq!(found.get(uid), Some(guid), "{user}: acknowledged, but not there");
            }
            for (uid, guid) in &found {
                assert_eq!(ledger.sent.get(uid), Some(guid), "{user}: never sent");
            }
        }
        ledger.folders.check(self, user)
    }

    /// Sends new messages and their records, and changes of folders, with a RESTART now and then,
    /// until the server is gone.
    pub(crate) fn load(&mut self, ledger: &mut Ledger, mut random: Random) -> io::Result<()> {
        ledger.checks += 1;
        loop {
            self.batch(ledger, &mut random)?;
            for _ in 0..random.below(4) {
                let Ledger { user, sizes, folders, .. } = &mut *ledger;
                folders.change(self, user, sizes, &mut random)?;
            }
            if random.below(4) == 0 {
                self.order(b"RESTART\r\n")?;
            }
        }
    }

    pub(crate) fn leave(&mut self) -> io::Result<()> {
        self.order(b"EXIT\r\n").map(drop)
    }

    fn batch(&mut self, ledger: &mut Ledger, random: &mut Random) -> io::Result<()> {
        let user = ledger.user.clone();
        let bodies: Vec<Vec<u8>> = (0..random.below(4) + 1)
            .map(|_| {
                let len = if random.below(12) == 0 { 400_000 } else { 3_000 };
                body(&user, random, len)
            })
            .collect();
        let guids: Vec<Guid> = bodies.iter().map(|body| guid_of(body)).collect();
        let list: Vec<String> = guids.iter().map(Guid::to_string).collect();
        let list = list.join(" ");
        self.order(
            format!("APPLY RESERVE %(PARTITION default MBOXNAME (user.{user}) GUID ({list}))\r\n")
                .as_bytes(),
        )?;
        self.order(&apply_message(&bodies))?;
        ledger.messages.extend(&guids);
        ledger.sizes.extend(guids.iter().copied().zip(bodies.iter().map(Vec::len)));

        let first = ledger.last_uid + 1;
        let new: BTreeMap<u32, Guid> = (first..).zip(guids).collect();
        ledger.last_uid += new.len() as u32;
        ledger.sent.extend(&new);
        self.order(&mailbox(ledger, &new))?;
        ledger.records.extend(new);
        Ok(())
    }

    /// Sends a command; its reply up to the final line, which must be OK.
    pub(crate) fn order(&mut self, command: &[u8]) -> io::Result<String> {
        self.stream.get_mut().write_all(command)?;
        let mut reply = String::new();
        loop {
            let line = self.line()?;
            reply.push_str(&line);
            if !line.starts_with("* ") {
                let shown = &command[..command.len().min(60)];
                assert!(line.starts_with("OK"), "{}: {reply}", shown.escape_ascii());
                return Ok(reply);
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        if line.ends_with('\n') { Ok(line) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

pub(crate) fn guid_of(octets: &[u8]) -> Guid {
    Guid::from(<[u8; 20]>::from(Sha1::digest(octets)))
}

pub(crate) fn apply_message(bodies: &[Vec<u8>]) -> Vec<u8> {
    let mut command = b"APPLY MESSAGE (".to_vec();
    for (i, body) in bodies.iter().enumerate() {
        let space = if i == 0 { "" } else { " " };
        let header = format!("{space}%{{default {} {}}}\r\n", guid_of(body), body.len());
        command.extend_from_slice(header.as_bytes());
        command.extend_from_slice(body);
    }
    command.extend_from_slice(b")\r\n");
    command
}

fn mailbox(ledger: &Ledger, records: &BTreeMap<u32, Guid>) -> Vec<u8> {
    let (user, last_uid) = (&ledger.user, ledger.last_uid);
    let records: Vec<String> = records
        .iter()
        .map(|(uid, guid)| {
            format!(
                "%(UID {uid} MODSEQ {uid} LAST_UPDATED 1700000000 FLAGS () INTERNALDATE \
                 1600000000 SIZE {} GUID {guid})",
                ledger.sizes[guid]
            )
        })
        .collect();
    format!(
        "APPLY MAILBOX %(UNIQUEID id-{user} MBOXNAME user.{user} SYNC_CRC 0 LAST_UID {last_uid} \
         HIGHESTMODSEQ {last_uid} RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 0 POP3_LAST_LOGIN 0 \
         UIDVALIDITY 7 PARTITION default ACL \"{user} lrswipkxtecda \" OPTIONS P RECORD ({}))\r\n",
        records.join(" ")
    )
    .into_bytes()
}

/// Half prose, half noise: deflate compresses one and stores the other.
pub(crate) fn body(user: &str, random: &mut Random, len_max: u64) -> Vec<u8> {
    let mut body = format!("Subject: to {user}, {}\r\n\r\n", random.below(1 << 50)).into_bytes();
    let len = random.below(len_max);
    while (body.len() as u64) < len {
        body.extend_from_slice(b"The quick brown fox jumps over the lazy dog.\r\n");
        body.extend((0..64).map(|_| random.below(256) as u8));
    }
    body
}

/// UID and message of a record, of which the text begins behind `%(UID `.
fn record(text: &str) -> (u32, Guid) {
    let uid = text.split(' ').next().unwrap().parse().unwrap();
    let guid = text.split("GUID ").nth(1).unwrap().get(..40).unwrap();
    (uid, Guid::from_hex(guid.as_bytes()).unwrap())
}
