//! What a verification tells, and what can be wrong.

use std::path::PathBuf;

use crate::store::index::Table;
use crate::store::log::LogError;
use crate::store::salvage::Gap;
use crate::wire::Guid;

/// A group of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Of the file in front of a chunk and of its text.
    Checksums,
    /// The messages stored in a chunk.
    Messages,
    /// The mailboxes and records last seen in a chunk.
    MailboxLinks,
    /// What the index says of the whole backup, against what the log says.
    Rows,
    /// What the figures of the chunk table, of headers and of trailers say.
    Structure,
    /// The files beside the data file.
    Beside,
}

/// A part of [`Check::Checksums`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// SHA-1 of the file in front of the chunk.
    FileChecksum,
    /// Inflated length.
    DataLength,
    /// SHA-1 of the inflated text.
    DataChecksum,
}

/// What a sink is told, in this order for each check: `Begin`, `Step`s and
/// `Finding`s, `End`.
#[derive(Debug)]
pub enum Event<'a> {
    /// A check begins.
    Begin {
        /// Row of the chunk, if it is about one.
        chunk_id: Option<i64>,
        /// Which check.
        check: Check,
    },
    /// A part of it begins.
    Step(Step),
    /// Something is wrong, or worth knowing.
    Finding(&'a Finding),
    /// The check is done.
    End {
        /// Whether nothing was wrong; notes do not count.
        sound: bool,
    },
}

/// Takes events.
pub type Sink<'s> = dyn FnMut(Event<'_>) + 's;

/// Something that is wrong with a backup.
#[derive(Debug)]
pub struct Finding {
    /// Row of the chunk, if it is about one.
    pub chunk_id: Option<i64>,
    /// Where in the data file that begins, if that is known.
    pub offset_file: Option<u64>,
    /// What it is.
    pub fault: Fault,
    /// Where the message that it is about is filed. Told by [`super::deep`] only.
    pub filed: Vec<Filed>,
}

/// A message in a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filed {
    /// Internal name of the mailbox.
    pub mboxname: Vec<u8>,
    /// UID of the message there.
    pub uid: u32,
}

/// What a row of the index is about; what does not apply is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Internal name of the mailbox; of a subscription, its mailbox.
    pub mboxname: Option<Vec<u8>>,
    /// Identity of the mailbox.
    pub uniqueid: Option<Vec<u8>>,
    /// UID.
    pub uid: Option<u32>,
    /// Of the message.
    pub guid: Option<Guid>,
    /// Name of anything else: a script, a quota root, an annotation.
    pub name: Option<Vec<u8>>,
}

/// How index and log differ about a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The log says something that the index lacks.
    NotInIndex,
    /// The index holds something that the log never said.
    NotInLog,
    /// These columns have other values.
    Columns(Vec<String>),
}

/// A file that stands beside a data file and does not belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// `.new`: of a compaction that was interrupted, or that is at work.
    Compaction,
    /// `.moving`, `.forward`: of a move that was interrupted.
    Move,
    /// `.cut.<time>.<offset>`: what recovery cut off.
    Cut,
    /// `.<time>`: the files as they were before a compaction or a rebuild.
    Previous,
}

/// What can be wrong with a backup. Offsets without other note are inflated octets
/// from the start of the chunk.
#[derive(Debug)]
pub enum Fault {
    /// The file in front of the chunk has another SHA-1 (hex).
    FileChecksum {
        /// That of the file.
        disk: String,
        /// The recorded one.
        index: String,
    },
    /// The chunk has another inflated length, in octets.
    DataLength {
        /// What could be inflated.
        disk: u64,
        /// The recorded one.
        index: u64,
    },
    /// The text of the chunk has another SHA-1 (hex).
    DataChecksum {
        /// That of the text.
        disk: String,
        /// The recorded one.
        index: String,
    },
    /// The chunk, which begins at this offset of the file, cannot be read to its end.
    Unreadable {
        /// In octets.
        offset_file: u64,
        /// Why.
        source: LogError,
    },
    /// Octets of a damaged chunk that cannot be read; what is behind them can.
    Gap {
        /// Where, in the file and in the chunk.
        gap: Gap,
        /// How many lines of the chunk can be read.
        lines: u64,
    },
    /// No line with the message is where the index has it.
    NoMessage {
        /// Row of the message.
        message_id: i64,
        /// Its identity.
        guid: Option<Guid>,
        /// Where it should be.
        offset: u64,
    },
    /// The octets of the message do not hash to its GUID.
    MessageContent {
        /// Row of the message.
        message_id: i64,
        /// What it should be.
        guid: Option<Guid>,
        /// Of its line.
        offset: u64,
    },
    /// No line gives the mailbox the values that the index has.
    NoMailbox {
        /// Its identity.
        uniqueid: Vec<u8>,
        /// Its internal name.
        mboxname: Vec<u8>,
    },
    /// No record gives the message in its mailbox the values that the index has.
    NoRecord {
        /// Of the mailbox.
        uniqueid: Vec<u8>,
        /// Of the message.
        uid: u32,
    },
    /// Lines of the data file that no row of the chunk table speaks for.
    Unindexed {
        /// Where they begin, in the file.
        offset_file: u64,
        /// Where they end.
        end: u64,
        /// How many lines can be read there.
        lines: u64,
    },
    /// Octets between or behind the chunks that are no readable member. (note)
    Garbage {
        /// Where they begin, in the file.
        offset_file: u64,
        /// Where they end.
        end: u64,
    },
    /// A row of the index, and what the log says of it.
    Row {
        /// Of which table.
        table: Table,
        /// What it is about.
        subject: Subject,
        /// How they differ.
        difference: Difference,
    },
    /// A mailbox that belongs to somebody else.
    Stranger {
        /// Its internal name.
        mboxname: Vec<u8>,
        /// To whom.
        owner: Vec<u8>,
    },
    /// The figures contradict each other: what they are, in words.
    Structure(String),
    /// Messages that no record refers to: kept until the next compaction. (note)
    Orphans {
        /// How many.
        count: u64,
        /// Their octets.
        octets: u64,
    },
    /// A record that lives, whose message never came. (note)
    Unsent {
        /// What it is about.
        subject: Subject,
    },
    /// A file beside the data file. (note)
    Leftover {
        /// Which.
        path: PathBuf,
        /// What kind of file.
        kind: Leftover,
    },
}

/// What mends a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The data are good: the index is to be built again.
    Reindex,
    /// Data are lost: what can be read is to be kept, and the mail server sends the rest.
    CompactAndSync,
    /// The mail server is to send it.
    Sync,
    /// Somebody has to look whose it is.
    Reconstruct,
    /// The next compaction.
    Compact,
    /// The next session or tool that opens the backup.
    Open,
    /// The same move again.
    MoveAgain,
    /// To be removed once nobody wants it any more.
    Remove,
}

impl Fault {
    /// Whether nothing is wrong: only worth knowing.
    pub fn is_note(&self) -> bool {
        matches!(
            self,
            Fault::Garbage { .. }
                | Fault::Orphans { .. }
                | Fault::Unsent { .. }
                | Fault::Leftover { .. }
        )
    }

    /// One word for machines.
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::FileChecksum { .. } => "file-checksum",
            Fault::DataLength { .. } => "data-length",
            Fault::DataChecksum { .. } => "data-checksum",
            Fault::Unreadable { .. } => "unreadable",
            Fault::Gap { .. } => "gap",
            Fault::NoMessage { .. } => "message-missing",
            Fault::MessageContent { .. } => "message-damaged",
            Fault::NoMailbox { .. } => "mailbox-missing",
            Fault::NoRecord { .. } => "record-missing",
            Fault::Unindexed { .. } => "unindexed",
            Fault::Garbage { .. } => "garbage",
            Fault::Row { difference: Difference::NotInIndex, .. } => "not-in-index",
            Fault::Row { difference: Difference::NotInLog, .. } => "not-in-log",
            Fault::Row { .. } => "differs",
            Fault::Stranger { .. } => "stranger",
            Fault::Structure(_) => "structure",
            Fault::Orphans { .. } => "orphans",
            Fault::Unsent { .. } => "unsent",
            Fault::Leftover { .. } => "leftover",
        }
    }

    /// What mends it. That a chunk or a message is damaged cannot be undone.
    pub fn remedy(&self) -> Remedy {
        match self {
            Fault::FileChecksum { .. }
            | Fault::DataLength { .. }
            | Fault::DataChecksum { .. }
            | Fault::NoMessage { .. }
            | Fault::NoMailbox { .. }
            | Fault::NoRecord { .. }
            | Fault::Unindexed { .. }
            | Fault::Row { .. }
            | Fault::Structure(_) => Remedy::Reindex,
            Fault::Unreadable { .. } | Fault::Gap { .. } | Fault::MessageContent { .. } => {
                Remedy::CompactAndSync
            }
            Fault::Unsent { .. } => Remedy::Sync,
            Fault::Stranger { .. } => Remedy::Reconstruct,
            Fault::Garbage { .. } | Fault::Orphans { .. } => Remedy::Compact,
            Fault::Leftover { kind, .. } => match kind {
                Leftover::Compaction => Remedy::Open,
                Leftover::Move => Remedy::MoveAgain,
                Leftover::Cut | Leftover::Previous => Remedy::Remove,
            },
        }
    }
}

impl Finding {
    /// About the whole backup.
    pub(super) fn of_backup(fault: Fault) -> Finding {
        Finding { chunk_id: None, offset_file: None, fault, filed: Vec::new() }
    }
}
