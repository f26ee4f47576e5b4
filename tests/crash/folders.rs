//! What a user does besides getting mail: folders are made, renamed and removed, messages flagged
//! and expunged, subscriptions come and go. Each is one command: a server that is killed meanwhile
//! has done it or not.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use cyrbk::wire::Guid;

use crate::Random;
use crate::client::Client;

/// What a replica tells of a user, but for the INBOX.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shown {
    folders: BTreeMap<String, Folder>,
    subscriptions: BTreeSet<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Folder {
    uniqueid: String,
    /// By UID, without those that are expunged.
    records: BTreeMap<u32, Record>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    guid: Guid,
    flags: String,
}

/// What one client has made of it.
#[derive(Default)]
pub(crate) struct Folders {
    /// All that was answered OK is in there.
    known: Shown,
    /// The same and what was sent last, which was not answered.
    maybe: Option<Shown>,
    /// For names, ids and modification numbers that were never there.
    count: u32,
    /// How often each was answered OK.
    pub(crate) done: BTreeMap<&'static str, usize>,
}

/// What is done.
pub(crate) const DEEDS: [&str; 7] =
    ["MAILBOX", "flags", "expunge", "RENAME", "UNMAILBOX", "SUB", "UNSUB"];
const EXPUNGED: &str = "\\Expunged";
/// So many folders at a time, and messages in each.
const FOLDERS: usize = 3;
const MESSAGES: usize = 4;

impl Folders {
    /// Does one thing; messages are those that are stored, with their sizes.
    pub(crate) fn change(
        &mut self,
        client: &mut Client,
        user: &str,
        messages: &BTreeMap<Guid, usize>,
        random: &mut Random,
    ) -> io::Result<()> {
        self.count += 1;
        let mut next = self.known.clone();
        let (deed, order) = self.deed(&mut next, user, messages, random);
        self.maybe = Some(next);
        client.order(format!("APPLY {order}\r\n").as_bytes())?;
        self.known = self.maybe.take().unwrap();
        *self.done.entry(deed).or_default() += 1;
        Ok(())
    }

    /// Something that can be done, and the words for it.
    fn deed(
        &self,
        next: &mut Shown,
        user: &str,
        messages: &BTreeMap<Guid, usize>,
        random: &mut Random,
    ) -> (&'static str, String) {
        let count = self.count;
        let nth = |many: usize, random: &mut Random| random.below(many as u64) as usize;
        let wanted = DEEDS[nth(DEEDS.len(), random)];
        if wanted == "SUB" {
            let name = format!("user.{user}.s{}", random.below(3));
            next.subscriptions.insert(name.clone());
            return ("SUB", format!("SUB %(USERID {user} MBOXNAME {name})"));
        }
        if wanted == "UNSUB" && !next.subscriptions.is_empty() {
            let name = next.subscriptions.pop_first().unwrap();
            return ("UNSUB", format!("UNSUB %(USERID {user} MBOXNAME {name})"));
        }
        let some = next.folders.keys().nth(nth(next.folders.len().max(1), random)).cloned();
        let Some(name) = some.filter(|_| wanted != "MAILBOX" || next.folders.len() >= FOLDERS)
        else {
            return ("MAILBOX", self.make(next, user, messages, random));
        };
        if ["UNMAILBOX", "MAILBOX"].contains(&wanted) {
            next.folders.remove(&name);
            return ("UNMAILBOX", format!("UNMAILBOX {name}"));
        }
        if wanted == "RENAME" {
            let new = format!("user.{user}.f{count}");
            let folder = next.folders.remove(&name).unwrap();
            next.folders.insert(new.clone(), folder);
            let words = format!("OLDMBOXNAME {name} NEWMBOXNAME {new}");
            return ("RENAME", format!("RENAME %({words} PARTITION default UIDVALIDITY 7)"));
        }
        let folder = next.folders.get_mut(&name).unwrap();
        let Some((uid, mut record)) = folder.records.pop_last() else {
            next.folders.remove(&name);
            return ("UNMAILBOX", format!("UNMAILBOX {name}"));
        };
        let deed = if wanted == "expunge" { wanted } else { "flags" };
        if deed == "flags" {
            record.flags = format!("\\Flagged flag{}", count % 50);
            folder.records.insert(uid, record.clone());
        } else {
            record.flags = EXPUNGED.into();
        }
        (deed, mailbox(&name, folder, count, &BTreeMap::from([(uid, record)]), messages))
    }

    /// A new folder with some messages.
    fn make(
        &self,
        next: &mut Shown,
        user: &str,
        messages: &BTreeMap<Guid, usize>,
        random: &mut Random,
    ) -> String {
        let name = format!("user.{user}.f{}", self.count);
        let mut any =
            || *messages.keys().nth(random.below(messages.len() as u64) as usize).unwrap();
        let records = (0..MESSAGES).map(|_| Record { guid: any(), flags: String::new() });
        let records = (1..).zip(records).collect();
        let folder = Folder { uniqueid: format!("id-{user}-{}", self.count), records };
        let line = mailbox(&name, &folder, self.count, &folder.records, messages);
        next.folders.insert(name, folder);
        line
    }

    /// What the server tells is what it was told, but for what it did not answer.
    pub(crate) fn check(&mut self, client: &mut Client, user: &str) -> io::Result<()> {
        let mut shown = Shown::default();
        let listing = client.order(format!("GET USER {user}\r\n").as_bytes())?;
        let prefix = format!("user.{user}.f");
        for line in listing.lines() {
            if let Some(names) = line.strip_prefix("* LSUB (") {
                let names = names.trim_end_matches(')').split(' ');
                shown.subscriptions.extend(names.map(str::to_owned));
            } else if line.starts_with("* MAILBOX ") && field(line, "MBOXNAME").starts_with(&prefix)
            {
                let name = field(line, "MBOXNAME");
                let all = client.order(format!("GET FULLMAILBOX {name}\r\n").as_bytes())?;
                let records = all.split("%(UID ").skip(1).map(record).collect::<Vec<_>>();
                let records = records.into_iter().filter(|(_, it)| !it.flags.contains(EXPUNGED));
                let uniqueid = field(line, "UNIQUEID").to_owned();
                shown.folders.insert(name.into(), Folder { uniqueid, records: records.collect() });
            }
        }
        let is_known = shown == self.known || self.maybe.as_ref() == Some(&shown);
        assert!(is_known, "{user}: {shown:#?}\nacknowledged: {:#?}\n{:#?}", self.known, self.maybe);
        (self.known, self.maybe) = (shown, None);
        Ok(())
    }
}

/// A line about a folder, with some of its records.
fn mailbox(
    name: &str,
    folder: &Folder,
    modseq: u32,
    records: &BTreeMap<u32, Record>,
    sizes: &BTreeMap<Guid, usize>,
) -> String {
    let records = records.iter().map(|(uid, record)| {
        format!(
            "%(UID {uid} MODSEQ {modseq} LAST_UPDATED 1700000000 FLAGS ({}) INTERNALDATE \
             1600000000 SIZE {} GUID {})",
            record.flags, sizes[&record.guid], record.guid
        )
    });
    format!(
        "MAILBOX %(UNIQUEID {} MBOXNAME {name} SYNC_CRC 0 LAST_UID {MESSAGES} HIGHESTMODSEQ \
         {modseq} RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 0 POP3_LAST_LOGIN 0 UIDVALIDITY 7 \
         PARTITION default ACL \"\" OPTIONS P RECORD ({}))",
        folder.uniqueid,
        records.collect::<Vec<_>>().join(" ")
    )
}

/// The word behind another one.
fn field<'l>(line: &'l str, name: &str) -> &'l str {
    line.split(' ').skip_while(|word| word.trim_start_matches("%(") != name).nth(1).unwrap()
}

/// A record, of which the text begins behind `%(UID `.
fn record(text: &str) -> (u32, Record) {
    let uid = text.split(' ').next().unwrap().parse().unwrap();
    let guid = text.split("GUID ").nth(1).unwrap().get(..40).unwrap();
    let flags = text.split("FLAGS (").nth(1).unwrap().split(')').next().unwrap();
    let guid = Guid::from_hex(guid.as_bytes()).unwrap();
    (uid, Record { guid, flags: flags.to_owned() })
}
