//! What can go wrong between a client and a server, and what it means for the caller.

use std::fmt;
use std::io;

use super::AddressError;
use crate::wire::Guid;

/// Why something failed. [`ClientError::is_connection_usable`] tells whether the client can go on.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not an address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The name could not be looked up.
    #[error("{host}: {source}")]
    Lookup {
        /// Host and port.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// Nobody answers there.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The last address that was tried.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// A file with certificates, or the handshake; certificates of others too.
    #[error("TLS: {0}")]
    Tls(String),
    /// TLS is required and the server has none, or will not.
    #[error("TLS is required, and the server does not offer it{}", detail(.0))]
    NoTls(String),
    /// Compression is required and the server has none, or will not.
    #[error("compression is required, and the server does not offer it{}", detail(.0))]
    NoCompression(String),
    /// There is no way to log in that both sides know.
    #[error("no usable mechanism to log in (the server offers {})", offers(.0))]
    NoMechanism(Vec<String>),
    /// A log-in is needed and there are no credentials.
    #[error("the server wants a log-in, and no name and password are configured")]
    NoCredentials,
    /// Wrong name or password.
    #[error("log-in refused ({mechanism}): {text}")]
    LoginRefused {
        /// The mechanism tried last.
        mechanism: String,
        /// The server's words.
        text: String,
    },
    /// The server could not show that it knows the password.
    #[error("log-in by {mechanism}: the server did not prove who it is")]
    NotTheServer {
        /// The mechanism.
        mechanism: String,
    },
    /// An IMAP server that does not replicate, or not for this user.
    #[error("the IMAP server offers no replication to this user")]
    NoReplication,
    /// The connection broke before it was of use, or nothing came in time.
    #[error("{during}: {source}")]
    NotEstablished {
        /// At which step.
        during: String,
        /// Why.
        source: io::Error,
    },
    /// Both protocols were tried.
    #[error("IMAP: {imap}; csync: {csync}")]
    Both {
        /// With IMAP.
        imap: Box<ClientError>,
        /// With csync.
        csync: Box<ClientError>,
    },
    /// The server said NO or BAD. The connection is still usable.
    #[error("{command}: {refusal}")]
    Refused {
        /// What was asked, in short.
        command: String,
        /// The answer.
        refusal: Refusal,
    },
    /// The server said NO to messages. The connection is given up: who knows how many of their
    /// octets it has read.
    #[error(
        "{command}: the server did not take the messages ({refusal}): its disk may be full, \
         its log should say why"
    )]
    NotTaken {
        /// What was asked, in short.
        command: String,
        /// The answer.
        refusal: Refusal,
    },
    /// The server is going away: BYE, or a fatal error of its own.
    #[error("{during}: the server ended the connection: {text}; {acknowledged}")]
    Ended {
        /// What was asked, in short.
        during: String,
        /// The server's words.
        text: String,
        /// What is known to be done.
        acknowledged: Acknowledged,
    },
    /// The connection broke, or nothing came in time.
    #[error("{during}: connection lost ({outcome}): {source}; {acknowledged}")]
    Lost {
        /// What was asked, in short.
        during: String,
        /// What may have come of it.
        outcome: Outcome,
        /// What is known to be done.
        acknowledged: Acknowledged,
        /// Why.
        source: io::Error,
    },
    /// The server said what no server of this protocol says. The connection is given up.
    #[error("{during}: the server's answer is malformed: {what}")]
    Malformed {
        /// What was asked, in short.
        during: String,
        /// What is wrong.
        what: String,
    },
    /// A message could not be read to its end, or is not what its GUID says. If it was long,
    /// a part of it was under way and the connection had to be given up.
    #[error("message {guid}: {what}")]
    Message {
        /// Which.
        guid: Guid,
        /// Why.
        what: String,
        /// Nothing of it was sent.
        is_connection_usable: bool,
    },
    /// What was to be sent cannot be said in this protocol.
    #[error("{0}")]
    Invalid(String),
    /// An earlier error has ended this connection.
    #[error("the connection has ended")]
    Closed,
}

impl ClientError {
    /// Whether the client can be used for further commands.
    pub fn is_connection_usable(&self) -> bool {
        match self {
            ClientError::Refused { .. } | ClientError::Invalid(_) => true,
            ClientError::Message { is_connection_usable, .. } => *is_connection_usable,
            _ => false,
        }
    }

    /// Whether a new connection may bring another result: it broke, or the server went. A fatal
    /// error of the server's own will be the same the next time.
    pub fn is_worth_a_retry(&self) -> bool {
        match self {
            ClientError::Lost { .. } => true,
            ClientError::Ended { text, .. } => !text.starts_with("Fatal error"),
            ClientError::Lookup { .. } | ClientError::Connect { .. } => true,
            ClientError::NotEstablished { .. } => true,
            ClientError::Both { imap, csync } => {
                imap.is_worth_a_retry() || csync.is_worth_a_retry()
            }
            _ => false,
        }
    }

    /// The code of a refusal.
    pub fn refusal(&self) -> Option<RefusalCode> {
        match self {
            ClientError::Refused { refusal, .. } => Some(refusal.code),
            _ => None,
        }
    }
}

fn detail(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

fn offers(mechanisms: &[String]) -> String {
    if mechanisms.is_empty() { "none".to_owned() } else { mechanisms.join(" ") }
}

/// A final `NO` or `BAD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What it means.
    pub code: RefusalCode,
    /// The server's words.
    pub text: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The meaning of a `NO`, which Cyrus puts in front of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    /// `IMAP_INVALID_USER`
    InvalidUser,
    /// `IMAP_MAILBOX_NONEXISTENT`
    MailboxNonexistent,
    /// `IMAP_MAILBOX_LOCKED`: may go away.
    MailboxLocked,
    /// `IMAP_MAILBOX_MOVED`: name and unique id do not belong together there.
    MailboxMoved,
    /// `IMAP_MAILBOX_NOTSUPPORTED`
    NotSupported,
    /// `IMAP_PERMISSION_DENIED`, and what an account that is no administrator gets.
    PermissionDenied,
    /// `IMAP_SYNC_CHECKSUM`
    SyncChecksum,
    /// `IMAP_SYNC_CHANGED`
    SyncChanged,
    /// `IMAP_SYNC_BADSIEVE`
    BadSieve,
    /// `IMAP_PROTOCOL_ERROR`
    ProtocolError,
    /// `IMAP_PROTOCOL_BAD_PARAMETERS`
    BadParameters,
    /// Any other NO; mostly `Unknown error`.
    Other,
    /// BAD: the server does not know the command, or could not read it.
    Bad,
}

/// The last thing that the server is known to have done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// Commands that were answered OK on this connection.
    pub commands: u64,
    /// The last of them, in short: `APPLY MAILBOX user.tom`.
    pub last: Option<String>,
}

impl fmt::Display for Acknowledged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.last {
            Some(last) => write!(f, "last acknowledged: {last}"),
            None => f.write_str("nothing was acknowledged"),
        }
    }
}

/// What may have come of a command whose answer never came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was not sent to its end, so it was not carried out; messages that are complete may
    /// have arrived.
    NotDone,
    /// It was sent to its end. Ask the server what is there.
    Unknown,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::NotDone => "the command was not sent to its end",
            Outcome::Unknown => "the command may have been carried out",
        })
    }
}
