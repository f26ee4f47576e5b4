//! What belongs to a user and not to a mailbox: seen state, subscriptions, sieve scripts.

use super::Reject;
use super::fields::Fields;

/// `SEEN`
#[derive(Debug)]
pub struct Seen {
    /// Whose state it is.
    pub userid: Vec<u8>,
    /// The mailbox.
    pub uniqueid: Vec<u8>,
    /// Unix time, seconds.
    pub lastread: i64,
    /// Last UID at that time.
    pub lastuid: u32,
    /// Unix time, seconds.
    pub lastchange: i64,
    /// IMAP sequence set.
    pub seenuids: Vec<u8>,
}

/// `SUB`, `UNSUB`
#[derive(Debug)]
pub struct Subscription {
    /// Who subscribes.
    pub userid: Vec<u8>,
    /// Internal name; need not exist.
    pub mboxname: Vec<u8>,
}

/// `SIEVE`
#[derive(Debug)]
pub struct Sieve {
    /// Whose script.
    pub script: Script,
    /// Unix time, seconds.
    pub last_update: i64,
    /// The script's text.
    pub content: Vec<u8>,
}

/// A sieve script's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Whose script.
    pub userid: Vec<u8>,
    /// File name.
    pub filename: Vec<u8>,
}

impl Seen {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Seen, Reject> {
        Ok(Seen {
            userid: fields.text("USERID").map_err(|_| Reject::Protocol)?,
            uniqueid: fields.text("UNIQUEID")?,
            lastread: fields.time("LASTREAD")?,
            lastuid: fields.u32("LASTUID")?,
            lastchange: fields.time("LASTCHANGE")?,
            seenuids: fields.text("SEENUIDS")?,
        })
    }
}

impl Subscription {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Subscription, Reject> {
        Ok(Subscription {
            userid: fields.text("USERID").map_err(|_| Reject::Protocol)?,
            mboxname: fields.text("MBOXNAME").map_err(|_| Reject::Protocol)?,
        })
    }
}

impl Sieve {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Sieve, Reject> {
        Ok(Sieve {
            script: Script::read(fields)?,
            last_update: fields.time("LAST_UPDATE")?,
            content: fields.text("CONTENT")?,
        })
    }
}

impl Script {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Script, Reject> {
        Ok(Script {
            userid: fields.text("USERID").map_err(|_| Reject::Protocol)?,
            filename: fields.text("FILENAME")?,
        })
    }
}
