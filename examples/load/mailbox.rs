//! A mailbox of the mail server and the commands that replicate it.

use std::fmt::Write as _;

use cyrbk::wire::Guid;
use cyrbk::wire::sync_crc::CrcRecord;

use crate::mail::Message;

/// `sync_client` puts no more messages into one APPLY MESSAGE.
const MESSAGES_PER_LINE: usize = 1024;
/// Nor more into one RESERVE.
const GUIDS_PER_RESERVE: usize = 8193;
/// Unix time of everything that happens here.
const NOW: i64 = 1_795_250_341;
/// `SYNC_CRC_ANNOT` of no annotations.
const ANNOT_OF_NOTHING: u32 = 12_345_678;

/// What the client knows of one mailbox, and of what the server has of it.
pub(crate) struct Mailbox {
    pub(crate) name: String,
    uniqueid: String,
    owner: String,
    last_uid: u32,
    crc: u32,
    crc_annot: u32,
    /// Messages that this run put in.
    pub(crate) guids: Vec<Guid>,
}

/// A command, and how many messages and octets of messages it carries.
pub(crate) struct Command {
    pub(crate) octets: Vec<u8>,
    pub(crate) messages: usize,
    pub(crate) message_octets: usize,
}

impl Command {
    pub(crate) fn plain(text: impl Into<Vec<u8>>) -> Self {
        Self { octets: text.into(), messages: 0, message_octets: 0 }
    }
}

impl Mailbox {
    /// A mailbox of which the server has nothing.
    pub(crate) fn new(owner: &str, name: String) -> Self {
        // As Cyrus makes them: 24 letters and digits.
        let hash = crc32fast::hash(name.as_bytes());
        let uniqueid = format!("{hash:08x}{:08x}load0000", !hash);
        Self {
            name,
            uniqueid,
            owner: owner.to_owned(),
            last_uid: 0,
            crc: 0,
            crc_annot: ANNOT_OF_NOTHING,
            guids: Vec::new(),
        }
    }

    /// Takes up where the server's `* MAILBOX` line says it is.
    pub(crate) fn resume(&mut self, line: &str) -> Option<()> {
        self.uniqueid = field(line, "UNIQUEID")?.to_owned();
        self.last_uid = field(line, "LAST_UID")?.parse().ok()?;
        self.crc = field(line, "SYNC_CRC")?.parse().ok()?;
        self.crc_annot = field(line, "SYNC_CRC_ANNOT")?.parse().ok()?;
        Some(())
    }

    /// The APPLY MAILBOX that adds `messages` behind what is there.
    pub(crate) fn add(&mut self, messages: &[Message]) -> Command {
        let mut records = String::with_capacity(messages.len() * 330);
        for (index, message) in messages.iter().enumerate() {
            self.last_uid += 1;
            let flags = ["\\Seen", "", "\\Answered \\Seen", "\\Seen $Work"][index % 4];
            let record = Record { uid: self.last_uid, flags, message };
            self.crc ^= record.crc();
            self.crc_annot ^= record.crc_annot();
            if index > 0 {
                records.push(' ');
            }
            record.print(&mut records);
            self.guids.push(message.guid);
        }
        let Self { name, uniqueid, owner, last_uid, crc, crc_annot, .. } = self;
        Command::plain(format!(
            "APPLY MAILBOX %(UNIQUEID {uniqueid} MBOXNAME {name} SYNC_CRC {crc} SYNC_CRC_ANNOT \
             {crc_annot} LAST_UID {last_uid} HIGHESTMODSEQ {} RECENTUID 0 RECENTTIME 0 \
             LAST_APPENDDATE {NOW} POP3_LAST_LOGIN 0 POP3_SHOW_AFTER 0 UIDVALIDITY {NOW} PARTITION \
             default ACL \"{owner}\tlrswipkxtecdan\t\" OPTIONS P QUOTAROOT user.{owner} \
             CREATEDMODSEQ 1 FOLDERMODSEQ 1 RECORD ({records}))\r\n",
            u64::from(*last_uid) + 1
        ))
    }

    /// The RESERVE commands for `messages`.
    pub(crate) fn reserve(&self, messages: &[Message]) -> Vec<Command> {
        let portions = messages.chunks(GUIDS_PER_RESERVE);
        portions
            .map(|portion| {
                let guids: Vec<String> =
                    portion.iter().map(|message| message.guid.to_string()).collect();
                Command::plain(format!(
                    "APPLY RESERVE %(PARTITION default MBOXNAME ({}) GUID ({}))\r\n",
                    self.name,
                    guids.join(" ")
                ))
            })
            .collect()
    }
}

/// The APPLY MESSAGE commands for `messages`.
pub(crate) fn upload(messages: &[Message]) -> Vec<Command> {
    messages.chunks(MESSAGES_PER_LINE).map(upload_line).collect()
}

fn upload_line(messages: &[Message]) -> Command {
    let message_octets = messages.iter().map(|message| message.octets.len()).sum();
    let mut octets = Vec::with_capacity(message_octets + 80 * messages.len() + 20);
    octets.extend_from_slice(b"APPLY MESSAGE (");
    for (index, Message { octets: body, guid }) in messages.iter().enumerate() {
        let blank = if index > 0 { " " } else { "" };
        let head = format!("{blank}%{{default {guid} {}}}\r\n", body.len());
        octets.extend_from_slice(head.as_bytes());
        octets.extend_from_slice(body);
    }
    octets.extend_from_slice(b")\r\n");
    Command { octets, messages: messages.len(), message_octets }
}

struct Record<'a> {
    uid: u32,
    flags: &'static str,
    message: &'a Message,
}

impl Record<'_> {
    fn modseq(&self) -> u64 {
        u64::from(self.uid) + 1
    }

    fn crc(&self) -> u32 {
        let flags = format!("({})", self.flags);
        CrcRecord {
            uid: self.uid,
            modseq: self.modseq(),
            last_updated: NOW,
            flags: flags.as_bytes(),
            internaldate: NOW,
            guid: &self.message.guid,
        }
        .crc()
    }

    /// The annotations that every record of Cyrus 3.6 has.
    fn annotations(&self) -> [(&'static str, u64); 2] {
        [
            ("/vendor/cmu/cyrus-imapd/savedate", NOW.cast_unsigned()),
            ("/vendor/cmu/cyrus-imapd/createdmodseq", self.modseq()),
        ]
    }

    fn crc_annot(&self) -> u32 {
        self.annotations().iter().fold(0, |sum, (entry, value)| {
            sum ^ crc32fast::hash(format!("{} {entry}  {value}", self.uid).as_bytes())
        })
    }

    fn print(&self, out: &mut String) {
        let Self { uid, flags, message } = self;
        let [savedate, created] = self
            .annotations()
            .map(|(entry, value)| format!("%(ENTRY {entry} USERID \"\" MODSEQ 0 VALUE {value})"));
        let _ = write!(
            out,
            "%(UID {uid} MODSEQ {} LAST_UPDATED {NOW} FLAGS ({flags}) INTERNALDATE {NOW} SIZE {} \
             GUID {} ANNOTATIONS ({savedate} {created}))",
            self.modseq(),
            message.octets.len(),
            message.guid,
        );
    }
}

/// The atom behind ` NAME ` in a line.
pub(crate) fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let at = line.find(&format!("{name} "))? + name.len() + 1;
    line[at..].split([' ', ')']).next()
}
