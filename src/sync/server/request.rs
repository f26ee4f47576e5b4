//! Text behind GET and APPLY to typed requests, and the final lines of replies.

use crate::store::StoreError;
use crate::store::catalog::CatalogError;
use crate::wire::Guid;
use crate::wire::apply::{Reject, Script};
use crate::wire::dlist::{List, SyntaxError, Value, parse_item};

/// Names in one request. A name of one letter takes two octets in a line, and fifty in memory. A
/// client names a thousand mailboxes, or from 3.12 all of one user.
const NAMES_MAX: usize = 1 << 20;

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Get {
    User(Vec<u8>),
    Mailboxes(Vec<Vec<u8>>),
    UniqueIds(Vec<Vec<u8>>),
    FullMailbox(Vec<u8>),
    Meta(Vec<u8>),
    /// Limits of a quota root.
    Quota(Vec<u8>),
    /// Annotations of a mailbox, or of the server (`""`).
    Annotation(Vec<u8>),
    /// A stored message.
    Fetch(Message),
    /// A stored script.
    FetchSieve(Script),
}

/// What `GET FETCH` asks for; the other fields do not matter here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) mboxname: Vec<u8>,
    pub(super) guid: Guid,
}

/// Why a request got no `OK`.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("protocol error")]
    Protocol,
    #[error("bad parameters")]
    BadParameters,
    #[error("no such mailbox")]
    Nonexistent,
    #[error("locked")]
    Locked,
    /// The line tells changes to another state than the one here.
    #[error("changed since last sync")]
    Changed,
    /// The line was stored, and contradicts what is here otherwise.
    #[error("checksum failure")]
    Checksum,
    /// The backup cannot be used; the reason is in the log. A client is told that it is locked:
    /// it tries this user again later. Any other answer makes a rolling client give up its
    /// round and begin it again at once, for ever, and nobody is backed up.
    #[error("unavailable")]
    Unavailable,
    /// The reason is in the log.
    #[error("internal error")]
    Internal,
    /// The line is not a dlist.
    #[error("syntax error: {error}")]
    Syntax { command: &'static str, error: SyntaxError },
}

impl Refusal {
    /// The final line, without line end.
    pub(super) fn status(&self) -> String {
        match self {
            Refusal::Protocol => "NO IMAP_PROTOCOL_ERROR Protocol error".into(),
            Refusal::BadParameters => "NO IMAP_PROTOCOL_BAD_PARAMETERS Bad parameters".into(),
            Refusal::Nonexistent => "NO IMAP_MAILBOX_NONEXISTENT No Such Mailbox".into(),
            Refusal::Locked | Refusal::Unavailable => {
                "NO IMAP_MAILBOX_LOCKED Mailbox locked".into()
            }
            Refusal::Changed => "NO IMAP_SYNC_CHANGED Changed since last sync".into(),
            Refusal::Checksum => "NO IMAP_SYNC_CHECKSUM Checksum Failure".into(),
            Refusal::Internal => "NO Unknown error".into(),
            Refusal::Syntax { command, error } if error.what.starts_with("unexpected text") => {
                format!("BAD Unexpected extra arguments to {command}")
            }
            Refusal::Syntax { command, .. } => {
                format!("BAD Missing required argument to {command}")
            }
        }
    }
}

impl From<Reject> for Refusal {
    fn from(reject: Reject) -> Refusal {
        match reject {
            Reject::Protocol => Refusal::Protocol,
            Reject::BadParameters => Refusal::BadParameters,
            Reject::BadRecord => Refusal::Internal,
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        if matches!(error, StoreError::Locked(_)) {
            return Refusal::Locked;
        }
        tracing::error!("{error}");
        match error {
            StoreError::TooLong { .. } => Refusal::Protocol,
            _ => Refusal::Unavailable,
        }
    }
}

impl From<CatalogError> for Refusal {
    fn from(error: CatalogError) -> Refusal {
        tracing::error!("{error}");
        Refusal::Unavailable
    }
}

impl Get {
    /// Reads `NAME value`; names of GET are not case-sensitive.
    pub(super) fn read(text: &[u8]) -> Result<Get, Refusal> {
        let (name, value) = item("Get", text)?;
        match name.to_ascii_uppercase().as_slice() {
            b"USER" => Ok(Get::User(atom(&value)?)),
            b"META" => Ok(Get::Meta(atom(&value)?)),
            b"FULLMAILBOX" => Ok(Get::FullMailbox(atom(&value)?)),
            b"MAILBOXES" => match names(&value)? {
                names if names.is_empty() => Err(Refusal::Protocol),
                names => Ok(Get::Mailboxes(names)),
            },
            b"UNIQUEIDS" => Ok(Get::UniqueIds(names(&value)?)),
            b"QUOTA" => Ok(Get::Quota(atom(&value)?)),
            b"ANNOTATION" => Ok(Get::Annotation(atom(&value)?)),
            b"FETCH" => Ok(Get::Fetch(Message {
                mboxname: field(&value, "MBOXNAME")?,
                guid: Guid::from_hex(&field(&value, "GUID")?).ok_or(Refusal::BadParameters)?,
            })),
            b"FETCH_SIEVE" => Ok(Get::FetchSieve(Script {
                userid: field(&value, "USERID")?,
                filename: field(&value, "FILENAME")?,
            })),
            _ => Err(Refusal::Protocol),
        }
    }
}

/// Reads `NAME value` of a command.
pub(super) fn item<'a>(
    command: &'static str,
    text: &'a [u8],
) -> Result<(std::borrow::Cow<'a, [u8]>, Value<'a>), Refusal> {
    // Cyrus takes anything behind the value, even a space, for an extra argument.
    if text.ends_with(b" ") {
        let error = SyntaxError { what: "unexpected text behind the value", at: text.len() };
        return Err(Refusal::Syntax { command, error });
    }
    parse_item(text).map_err(|error| Refusal::Syntax { command, error })
}

fn atom(value: &Value<'_>) -> Result<Vec<u8>, Refusal> {
    value.as_text().map(<[u8]>::to_vec).ok_or(Refusal::BadParameters)
}

fn field(value: &Value<'_>, name: &str) -> Result<Vec<u8>, Refusal> {
    let Value::KvList(kv) = value else { return Err(Refusal::Protocol) };
    kv.fields().text(name).map(<[u8]>::to_vec).ok_or(Refusal::BadParameters)
}

fn names(value: &Value<'_>) -> Result<Vec<Vec<u8>>, Refusal> {
    bounded(value.as_list())?.items().map(|name| atom(&name)).collect()
}

/// A list of names, if it is one that a client may send.
pub(super) fn bounded(names: List<'_>) -> Result<List<'_>, Refusal> {
    match names.items().nth(NAMES_MAX) {
        None => Ok(names),
        Some(_) => Err(Refusal::BadParameters),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn status(text: &str) -> String {
        Get::read(text.as_bytes()).map_or_else(|e| e.status(), |get| format!("{get:?}"))
    }

    /// As recorded from backupd 3.6.1.
    #[test]
    fn refusals_are_cyruss() {
        for (text, expected) in [
            ("USER NIL", "NO IMAP_PROTOCOL_BAD_PARAMETERS Bad parameters"),
            ("USER ()", "NO IMAP_PROTOCOL_BAD_PARAMETERS Bad parameters"),
            ("USER tom ", "BAD Unexpected extra arguments to Get"),
            ("USER tom x", "BAD Unexpected extra arguments to Get"),
            ("USER \"tom", "BAD Missing required argument to Get"),
            ("MAILBOXES ()", "NO IMAP_PROTOCOL_ERROR Protocol error"),
            ("MAILBOXES x", "NO IMAP_PROTOCOL_ERROR Protocol error"),
            ("MAILBOXES (NIL)", "NO IMAP_PROTOCOL_BAD_PARAMETERS Bad parameters"),
            ("MAILBOXES (a))", "BAD Unexpected extra arguments to Get"),
            ("FULLMAILBOX NIL", "NO IMAP_PROTOCOL_BAD_PARAMETERS Bad parameters"),
            ("FETCH x", "NO IMAP_PROTOCOL_ERROR Protocol error"),
            ("FETCH %(UID 1)", "NO IMAP_PROTOCOL_BAD_PARAMETERS Bad parameters"),
            (
                "FETCH %(MBOXNAME user.tom GUID abc)",
                "NO IMAP_PROTOCOL_BAD_PARAMETERS Bad parameters",
            ),
            ("ANNOTATION NIL", "NO IMAP_PROTOCOL_BAD_PARAMETERS Bad parameters"),
            ("FOO x", "NO IMAP_PROTOCOL_ERROR Protocol error"),
        ] {
            assert_eq!(status(text), expected, "{text}");
        }
    }

    #[test]
    fn requests() {
        assert_eq!(Get::read(b"user tom").unwrap(), Get::User(b"tom".to_vec()));
        assert_eq!(
            Get::read(b"MAILBOXES(user.a {6+}\r\nuser.b)").unwrap(),
            Get::Mailboxes(vec![b"user.a".to_vec(), b"user.b".to_vec()])
        );
        assert_eq!(Get::read(b"ANNOTATION \"\"").unwrap(), Get::Annotation(Vec::new()));
    }

    #[test]
    fn a_request_names_no_more_than_any_client_would() {
        let names = |count: usize| format!("MAILBOXES ({})", "a ".repeat(count));
        let read = |count| Get::read(names(count).as_bytes());
        assert!(matches!(read(NAMES_MAX), Ok(Get::Mailboxes(names)) if names.len() == NAMES_MAX));
        assert!(matches!(read(NAMES_MAX + 1), Err(Refusal::BadParameters)));
    }
}
