//! Getting messages to the destination: first it is asked what it has, then it gets the rest.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::store::Backup;
use crate::store::export::{self, ExportError};
use crate::store::index::RecordRow;
use crate::store::message::MessageError;
use crate::sync::client::{Client, ClientError};
use crate::wire::Guid;

/// What came of a batch of messages.
#[derive(Debug, Default)]
pub(super) struct Uploaded {
    /// Messages that had to be sent.
    pub(super) sent: u64,
    /// Their octets.
    pub(super) octets: u64,
    /// Messages that cannot be had from the backup, with the reason.
    pub(super) refused: HashMap<Guid, String>,
}

/// Why a batch did not arrive.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot read the backup: {0}")]
    Backup(String),
}

/// Sees to it that the destination has the messages of `records` staged for `partition`, which
/// must exist there. It looks for them in the mailboxes `names` first.
pub(super) fn upload(
    client: &mut Client,
    backup: &Backup,
    staging: &Path,
    partition: &[u8],
    names: &[&[u8]],
    records: &[RecordRow],
) -> Result<Uploaded, UploadError> {
    let mut seen = HashSet::new();
    let guids: Vec<Guid> =
        records.iter().filter_map(|record| record.guid).filter(|guid| seen.insert(*guid)).collect();
    let mut uploaded = Uploaded::default();
    if guids.is_empty() {
        return Ok(uploaded);
    }
    let missing = client.reserve(partition, names, &guids)?;
    if missing.is_empty() {
        return Ok(uploaded);
    }
    let mut due: HashSet<Guid> = missing.iter().copied().collect();
    let mut messages = client.messages(partition);
    let mut failure = None;
    let exported =
        export::sized_messages(backup, missing, staging, &mut |guid, size, octets| match messages
            .add(guid, size, octets)
        {
            Ok(()) => {
                due.remove(guid);
                uploaded.sent += 1;
                uploaded.octets += size;
                Ok(())
            }
            Err(error) if error.is_connection_usable() => {
                uploaded.refused.insert(*guid, error.to_string());
                Ok(())
            }
            Err(error) => {
                failure = Some(error);
                Err(std::io::ErrorKind::ConnectionAborted.into())
            }
        });
    let failed = match (exported, failure) {
        (_, Some(error)) => return Err(error.into()),
        (Err(ExportError::Store(error)), _) => return Err(UploadError::Backup(error.to_string())),
        (Err(ExportError::Io(error)), _) => return Err(UploadError::Backup(error.to_string())),
        (Ok(failed), None) => failed,
    };
    messages.finish()?;
    for error in failed {
        if let Some(guid) = guid_of(&error) {
            uploaded.refused.insert(guid, error.to_string());
        }
    }
    for guid in due {
        uploaded.refused.entry(guid).or_insert_with(|| "its octets are not in the backup".into());
    }
    Ok(uploaded)
}

fn guid_of(error: &MessageError) -> Option<Guid> {
    match error {
        MessageError::Absent { guid, .. }
        | MessageError::Damaged { guid, .. }
        | MessageError::Stage { guid, .. }
        | MessageError::Unknown { guid } => Some(*guid),
        MessageError::Store(_) => None,
    }
}
