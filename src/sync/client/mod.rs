//! A client of replication servers: of Cyrus's `sync_server`, of its IMAP server, of this one.
//!
//! A [`Client`] is one connection, logged in. Calls block, one command at a time, until the answer
//! is there or the time is up. It never connects again by itself: after an error that leaves
//! the connection unusable ([`ClientError::is_connection_usable`]) the caller makes a new client,
//! and asks what is there before it goes on.
//!
//! What OK means on the other side (Cyrus 3.6):
//!
//! * to `APPLY MESSAGE`: the message waits in a staging area that goes with the connection, or with
//!   [`Client::restart`]. It is stored only by the `MAILBOX` that has its record.
//! * to `APPLY MAILBOX` and `RESTORE MAILBOX`: done, and visible to everybody.
//!
//! The server is not trusted: lines, literals, nesting and whole replies are bounded
//! ([`ReplyLimits`]), and what it should not say ends the connection.

mod address;
mod connect;
mod error;
mod exchange;
pub mod imap;
mod login;
mod messages;
mod offer;
mod options;
mod read;
mod state;
mod stream;
mod talk;
mod tls;

use std::collections::HashSet;
use std::io::Write;
use std::time::Duration;

pub use address::{AddressError, Destination, Place};
pub use error::{Acknowledged, ClientError, Outcome, Refusal, RefusalCode};
pub use messages::{MESSAGE_AHEAD_MAX, MessageName, Messages};
pub use options::{
    Certificates, Compress, Login, Options, Password, Protocol, ReplyLimits, Timeouts, TlsMode,
    Verify,
};
pub use state::{
    AnnotationState, FullMailbox, MailboxState, QuotaState, ScriptState, SeenState, UserState,
};

use crate::wire::Guid;
use crate::wire::dlist::{Literals, Printer};
use exchange::Command;
use messages::Download;
use talk::Talk;

/// GUIDs in one RESERVE, and names in one GET MAILBOXES: about what Cyrus's own client sends.
const GUIDS_MAX: usize = 8192;
const NAMES_MAX: usize = 1024;

/// One connection to a replication server; see the module.
#[derive(Debug)]
pub struct Client {
    talk: Talk,
    peer: Peer,
    acknowledged: Acknowledged,
    reply_timeout: Duration,
    limits: ReplyLimits,
    /// Under way.
    command: Option<Command>,
    is_ended: bool,
}

/// What a connection came to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The address: `192.0.2.7:2005`, or the path of a Unix socket.
    pub address: String,
    /// Whether IMAP carries the commands.
    pub is_imap: bool,
    /// The greeting's text behind `OK`: name, kind and version of the server.
    pub greeting: String,
    /// Version of TLS, if it is used.
    pub tls: Option<String>,
    /// Whether the server's certificate was checked.
    pub is_verified: bool,
    /// The mechanism by which we logged in, if we did.
    pub mechanism: Option<String>,
    /// Whether the channel is compressed.
    pub is_compressed: bool,
    /// Whether the server takes `#sieve` mailboxes after [`Client::enable_sieve_mailbox`].
    pub has_sieve_mailbox: bool,
}

/// What a line of changes is sent as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Sets a state: unique ids, UIDs and modseqs are as given, or the line is refused.
    Apply,
    /// Adds to a mailbox, or creates it. Only `MAILBOX` and `LOCAL_MAILBOX`; `cyrbk serve` and
    /// `backupd` have none of it.
    Restore,
}

impl Client {
    /// Connects, logs in, and starts what was asked for and offered.
    pub fn connect(options: &Options) -> Result<Client, ClientError> {
        let (talk, peer) = connect::connect(options)?;
        Ok(Client {
            talk,
            peer,
            acknowledged: Acknowledged::default(),
            reply_timeout: options.timeouts.reply,
            limits: options.limits,
            command: None,
            is_ended: false,
        })
    }

    /// What the connection came to be.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The last thing that the server is known to have done.
    pub fn acknowledged(&self) -> &Acknowledged {
        &self.acknowledged
    }

    /// Whether commands can be sent: no error has ended the connection.
    pub fn is_usable(&self) -> bool {
        !self.is_ended
    }

    /// Tells the server that we know `#sieve` mailboxes; from then on it shows them, takes them,
    /// and leaves scripts out of `GET USER`. Whether it will.
    pub fn enable_sieve_mailbox(&mut self) -> Result<bool, ClientError> {
        const NAME: &[u8] = b"SIEVE-MAILBOX";
        if !self.peer.has_sieve_mailbox {
            return Ok(false);
        }
        let asked =
            self.ask_items("APPLY", b"CAPABILITIES (SIEVE-MAILBOX)", false, |is, name, v| {
                let mut enabled = v.as_list().items();
                *is |= name == b"ENABLED" && enabled.any(|item| item.as_text() == Some(NAME));
                Ok(())
            });
        match asked {
            Err(ClientError::Refused { .. }) => Ok(false),
            asked => asked,
        }
    }

    /// All that the server has of a user. A user that it does not know has no mailboxes.
    ///
    /// A backup server creates a backup for an unknown user, and locks it until
    /// [`Client::restart`].
    pub fn get_user(&mut self, userid: &[u8]) -> Result<UserState, ClientError> {
        let mut printer = text("USER ");
        printer.string(userid);
        self.get_state(printer)
    }

    /// The mailboxes of these names that exist.
    pub fn get_mailboxes(&mut self, names: &[&[u8]]) -> Result<Vec<MailboxState>, ClientError> {
        self.get_listed("MAILBOXES ", names)
    }

    /// The mailboxes of these unique ids that exist, under whatever name.
    pub fn get_uniqueids(&mut self, ids: &[&[u8]]) -> Result<Vec<MailboxState>, ClientError> {
        self.get_listed("UNIQUEIDS ", ids)
    }

    fn get_listed(
        &mut self,
        name: &str,
        listed: &[&[u8]],
    ) -> Result<Vec<MailboxState>, ClientError> {
        let mut found = Vec::new();
        for part in listed.chunks(NAMES_MAX) {
            let mut printer = text(name);
            list(&mut printer, part);
            found.extend(self.get_state(printer)?.mailboxes);
        }
        Ok(found)
    }

    fn get_state(&mut self, request: Printer) -> Result<UserState, ClientError> {
        self.ask_items("GET", &request.into_text(), UserState::default(), read::add)
    }

    /// A mailbox with all its records, expunged ones too; `None` if there is none of that name.
    pub fn get_fullmailbox(&mut self, name: &[u8]) -> Result<Option<FullMailbox>, ClientError> {
        let mut printer = text("FULLMAILBOX ");
        printer.string(name);
        let reply = match self.ask("GET", &printer.into_text()) {
            Err(error) if error.refusal() == Some(RefusalCode::MailboxNonexistent) => {
                return Ok(None);
            }
            reply => reply?,
        };
        let line = reply.data.into_iter().find(|line| line.starts_with(b"MAILBOX "));
        match line.map(FullMailbox::new).transpose() {
            Ok(found) => Ok(found),
            Err(what) => Err(self.malformed(&what)),
        }
    }

    /// Subscriptions, seen state and scripts of a user.
    pub fn get_meta(&mut self, userid: &[u8]) -> Result<UserState, ClientError> {
        let mut printer = text("META ");
        printer.string(userid);
        self.get_state(printer)
    }

    /// The limits of a quota root; `None` if there is no such root.
    pub fn get_quota(&mut self, root: &[u8]) -> Result<Option<QuotaState>, ClientError> {
        let mut printer = text("QUOTA ");
        printer.string(root);
        Ok(self.get_state(printer)?.quotas.pop())
    }

    /// The annotations of a mailbox, or with an empty name those of the server.
    pub fn get_annotations(
        &mut self,
        mboxname: &[u8],
    ) -> Result<Vec<AnnotationState>, ClientError> {
        let mut printer = text("ANNOTATION ");
        printer.string(mboxname);
        self.ask_items("GET", &printer.into_text(), Vec::new(), |found, name, value| {
            if name == b"ANNOTATION" {
                found.push(read::annotation(value)?);
            }
            Ok(())
        })
    }

    /// The text of a sieve script; `None` if there is none of that file name, which must end in
    /// `.script`: `sync_server` dies of shorter names.
    pub fn get_sieve(
        &mut self,
        userid: &[u8],
        filename: &[u8],
    ) -> Result<Option<Vec<u8>>, ClientError> {
        if filename.len() <= b".script".len() || !filename.ends_with(b".script") {
            return Ok(None);
        }
        let mut printer = text("FETCH_SIEVE %(USERID ");
        printer.string(userid).raw(b" FILENAME ").string(filename).raw(b")");
        let found = self.ask_items("GET", &printer.into_text(), None, |found, name, value| {
            if name == b"SIEVE" {
                *found = Some(read::script_text(value)?);
            }
            Ok(())
        });
        match found {
            Err(ClientError::Refused { .. }) => Ok(None),
            found => found,
        }
    }

    /// Copies a message to `out`, and checks that it is what its GUID says. Its octets; `None`
    /// if it is not there.
    pub fn get_message(
        &mut self,
        which: &MessageName<'_>,
        out: &mut dyn Write,
    ) -> Result<Option<u64>, ClientError> {
        let mut printer = text("FETCH %(MBOXNAME ");
        printer.string(which.mboxname).raw(b" PARTITION ").string(which.partition);
        printer.raw(b" UNIQUEID ").string(which.uniqueid).raw(b" GUID ").guid(&which.guid);
        printer.raw(b" UID ").number(which.uid.into()).raw(b")");
        let text = printer.into_text();
        self.begin("GET", exchange::label("GET", &text))?;
        self.put(b" ")?;
        self.put(&text)?;
        let mut download = Download::new(out);
        match self.finish(Some(&mut download)) {
            Err(error) if error.refusal() == Some(RefusalCode::MailboxNonexistent) => Ok(None),
            Err(error) => Err(error),
            Ok(_) => download.end(&which.guid),
        }
    }

    /// Which of these messages the server has nowhere that it looked, in the order of asking.
    /// It looks in the mailboxes named, and keeps what it found until [`Client::restart`]. Asks
    /// for any number, in several commands if need be.
    pub fn reserve(
        &mut self,
        partition: &[u8],
        mboxnames: &[&[u8]],
        guids: &[Guid],
    ) -> Result<Vec<Guid>, ClientError> {
        let mut missing = HashSet::new();
        for part in guids.chunks(GUIDS_MAX) {
            let mut printer = text("RESERVE %(PARTITION ");
            printer.string(partition).raw(b" MBOXNAME ");
            list(&mut printer, mboxnames);
            printer.raw(b" GUID (");
            for (i, guid) in part.iter().enumerate() {
                printer.separator(i).guid(guid);
            }
            printer.raw(b"))");
            missing =
                self.ask_items("APPLY", &printer.into_text(), missing, |all, name, value| {
                    if name == b"MISSING" {
                        all.extend(value.as_list().items().filter_map(|item| item.as_guid()));
                    }
                    Ok(())
                })?;
        }
        Ok(guids.iter().filter(|guid| missing.contains(guid)).copied().collect())
    }

    /// Begins to send messages for a partition, which must exist there: `sync_server` dies of one
    /// that does not.
    pub fn messages<'a>(&'a mut self, partition: &[u8]) -> Messages<'a> {
        Messages::new(self, partition)
    }

    /// Sends a line of changes: `MAILBOX %(...)`, `SUB %(...)`, in canonical text with
    /// [`Literals::NonSync`] and without messages.
    pub fn send(&mut self, verb: Verb, line: &[u8]) -> Result<(), ClientError> {
        self.ask(verb.word(), line).map(drop)
    }

    /// [`Client::send`] with `APPLY`.
    pub fn apply(&mut self, line: &[u8]) -> Result<(), ClientError> {
        self.send(Verb::Apply, line)
    }

    /// [`Client::send`] with `RESTORE`.
    pub fn restore(&mut self, line: &[u8]) -> Result<(), ClientError> {
        self.send(Verb::Restore, line)
    }

    /// [`Client::send`] for a line that is too long to be made at once: the pieces together are
    /// the line. The first one must have its name, for messages to people.
    pub fn send_pieces(
        &mut self,
        verb: Verb,
        pieces: &mut dyn Iterator<Item = Vec<u8>>,
    ) -> Result<(), ClientError> {
        let first = pieces.next().unwrap_or_default();
        self.begin(verb.word(), exchange::label(verb.word(), &first))?;
        self.put(b" ")?;
        self.put(&first)?;
        for piece in pieces {
            self.put(&piece)?;
        }
        self.finish(None).map(drop)
    }

    /// Ends a unit of work: the server lets go of locks and of messages that wait.
    pub fn restart(&mut self) -> Result<(), ClientError> {
        self.ask("RESTART", b"").map(drop)
    }

    /// Asks for an answer, to see whether the connection still lives.
    pub fn noop(&mut self) -> Result<(), ClientError> {
        self.ask("NOOP", b"").map(drop)
    }

    /// Says good-bye and waits for the answer. A client that is dropped just closes.
    pub fn exit(mut self) -> Result<(), ClientError> {
        let answer = self.ask("EXIT", b"");
        self.talk.stream.close();
        match answer {
            // IMAP says it in this way.
            Err(ClientError::Ended { .. }) if self.peer.is_imap => Ok(()),
            answer => answer.map(drop),
        }
    }
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Verb::Apply => "APPLY",
            Verb::Restore => "RESTORE",
        }
    }
}

fn text(start: &str) -> Printer {
    Printer::new(Literals::NonSync, start.as_bytes().to_vec())
}

fn list(printer: &mut Printer, names: &[&[u8]]) {
    printer.raw(b"(");
    for (i, name) in names.iter().enumerate() {
        printer.separator(i).string(name);
    }
    printer.raw(b")");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
