//! What a server says that it has.

use super::read;
use crate::wire::Guid;
use crate::wire::apply::{Record, Reject};
use crate::wire::dlist::{List, Value, parse_item};

/// The answer to `GET USER` and `GET META`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserState {
    /// Every mailbox of the user, deleted and intermediate ones too, without records. Empty
    /// for a user that the server does not know, and in the answer to `GET META`.
    pub mailboxes: Vec<MailboxState>,
    /// Limits.
    pub quotas: Vec<QuotaState>,
    /// Internal names of the mailboxes that the user is subscribed to.
    pub subscriptions: Vec<Vec<u8>>,
    /// What the user has seen of other users' and shared mailboxes.
    pub seen: Vec<SeenState>,
    /// Sieve scripts.
    pub scripts: Vec<ScriptState>,
}

/// One mailbox without its records. Times are Unix times in seconds; what the server left out is
/// 0, empty or `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct MailboxState {
    /// Identity over renames.
    pub uniqueid: Vec<u8>,
    /// Internal name.
    pub mboxname: Vec<u8>,
    /// Type letters; none for a plain mailbox.
    pub mboxtype: Option<Vec<u8>>,
    pub partition: Option<Vec<u8>>,
    /// Internal form: `user TAB rights TAB` ...
    pub acl: Option<Vec<u8>>,
    /// Option letters.
    pub options: Vec<u8>,
    pub last_uid: u32,
    pub highestmodseq: u64,
    pub uidvalidity: u32,
    pub recentuid: u32,
    pub recenttime: i64,
    pub last_appenddate: i64,
    pub pop3_last_login: i64,
    pub pop3_show_after: i64,
    pub sync_crc: u32,
    pub sync_crc_annot: u32,
    pub quotaroot: Option<Vec<u8>>,
    pub createdmodseq: u64,
    pub foldermodseq: u64,
    pub xconvmodseq: u64,
    pub raclmodseq: u64,
    pub annotations: Vec<AnnotationState>,
}

impl MailboxState {
    /// Whether it exists in name only: an intermediate (`i`) or a tombstone (`d`).
    pub fn is_placeholder(&self) -> bool {
        self.mboxtype.as_ref().is_some_and(|letters| letters.iter().any(|c| b"id".contains(c)))
    }
}

/// Limits of a quota root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaState {
    /// Internal name of the mailbox at which it begins.
    pub root: Vec<u8>,
    /// Resource and limit, as sent: `STORAGE` in KiB, `MESSAGE`, `X-NUM-FOLDERS` ...; `LIMIT`
    /// repeats `STORAGE`. 4294967295 stands for no limit.
    pub limits: Vec<(Vec<u8>, u64)>,
    /// Modification sequence, if sent.
    pub modseq: Option<u64>,
}

/// What a user has seen of a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenState {
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

/// A sieve script without its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptState {
    /// `main.script`; the active one is listed as `main.bc` too.
    pub filename: Vec<u8>,
    /// Unix time, seconds.
    pub last_update: i64,
    /// SHA-1 of the text; `None` if not sent, or all zeroes.
    pub guid: Option<Guid>,
    /// Whether it is the one that runs; set on the `.bc` entry.
    pub is_active: bool,
}

/// An annotation of the server, of a mailbox, or of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnotationState {
    /// Entry name.
    pub entry: Vec<u8>,
    /// Whose; empty if shared.
    pub userid: Vec<u8>,
    /// Modification sequence; 0 unless of a message.
    pub modseq: u64,
    /// The value.
    pub value: Vec<u8>,
}

/// A mailbox and its records, in the text in which they came.
#[derive(Debug)]
pub struct FullMailbox {
    /// All but the records.
    pub state: MailboxState,
    text: Vec<u8>,
}

impl FullMailbox {
    /// Reads `MAILBOX %(...)`.
    pub(super) fn new(text: Vec<u8>) -> Result<FullMailbox, String> {
        let (_, value) = parse_item(&text).map_err(|error| error.to_string())?;
        let state = read::mailbox(&value)?;
        Ok(FullMailbox { state, text })
    }

    /// The records in the order sent: ascending UIDs. Read one by one from the text.
    pub fn records(&self) -> impl Iterator<Item = Result<Record, Reject>> {
        self.list().into_iter().flat_map(Record::all_of)
    }

    fn list(&self) -> Option<List<'_>> {
        let (_, Value::KvList(kv)) = parse_item(&self.text).ok()? else { return None };
        kv.pairs().find(|(name, _)| &name[..] == b"RECORD").map(|(_, value)| value.as_list())
    }
}
