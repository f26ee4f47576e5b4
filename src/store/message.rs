//! One stored message, by its GUID.

use std::io::{self, Read, Seek, Write};
use std::path::Path;

use sha1::{Digest, Sha1};
use tempfile::SpooledTempFile;

use super::backup::Backup;
use super::error::StoreError;
use super::index::{ChunkRow, RestartPoint};
use super::log::{BodySink, LogError, LogReader};
use super::salvage;
use super::staging::naming;
use crate::wire::Guid;
use crate::wire::dlist::FileHeader;

/// Messages above this many octets wait in a file until their SHA-1 is known.
const MEMORY_MAX: usize = 1 << 20;

/// Why a message could not be had.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The index does not know it.
    #[error("message {guid} is not in the backup")]
    Unknown {
        /// Which message.
        guid: Guid,
    },
    /// The index is wrong about its place. The offset is in inflated octets.
    #[error("message {guid} is not in chunk {chunk_id} at offset {offset}")]
    Absent {
        /// Which message.
        guid: Guid,
        /// Row of the chunk.
        chunk_id: i64,
        /// Of the line.
        offset: u64,
    },
    /// What is stored has another SHA-1. The offset is in inflated octets.
    #[error(
        "message {guid} in chunk {chunk_id} at offset {offset} is damaged: its SHA-1 is {found}"
    )]
    Damaged {
        /// Which message.
        guid: Guid,
        /// Row of the chunk.
        chunk_id: i64,
        /// Of the line.
        offset: u64,
        /// SHA-1 of what is stored.
        found: Guid,
    },
    /// The backup cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The octets could not be kept while they were checked.
    #[error("cannot stage message {guid}: {source}")]
    Stage {
        /// Which message.
        guid: Guid,
        /// Why.
        source: io::Error,
    },
}

/// A message whose octets hash to its GUID.
pub struct StoredMessage {
    octets: SpooledTempFile,
}

impl StoredMessage {
    /// Reads the message `guid`. No octet of it can be had before all of them were
    /// checked; meanwhile they are in memory, or in a nameless file in `staging`
    /// (`backup_staging_path`, made if it is missing).
    pub fn read(
        backup: &Backup,
        guid: &Guid,
        staging: &Path,
    ) -> Result<StoredMessage, MessageError> {
        let row = backup.index().message(guid).map_err(StoreError::index(backup.path()))?;
        let row = row.ok_or(MessageError::Unknown { guid: *guid })?;
        let chunk = backup.index().chunk(row.chunk_id).map_err(StoreError::index(backup.path()))?;
        let (guid, chunk_id, offset) = (*guid, row.chunk_id, row.offset);
        let absent = MessageError::Absent { guid, chunk_id, offset };
        let Some(chunk) = chunk else { return Err(absent) };
        let mut spool = Spool::new(guid, staging);
        let point = backup.index().restart_point(chunk_id, offset);
        let point = point.map_err(StoreError::index(backup.path()))?;
        // A restart point is a hint: what is not found from there is looked for from
        // the beginning of the chunk.
        let near = point.map(|point| find(backup, chunk.offset, Some(point), offset, &mut spool));
        let found = match near {
            Some(Ok(true)) => true,
            _ => {
                spool = Spool::new(guid, staging);
                match find(backup, chunk.offset, None, offset, &mut spool) {
                    Ok(true) => true,
                    _ if behind_damage(backup, &chunk, offset, &mut spool)? => true,
                    read => read.map_err(StoreError::log(backup.path()))?,
                }
            }
        };
        match spool.finish().map_err(|source| MessageError::Stage { guid, source })? {
            Some((octets, content)) if found && content == guid => Ok(StoredMessage { octets }),
            Some((_, content)) if found => {
                Err(MessageError::Damaged { guid, chunk_id, offset, found: content })
            }
            _ => Err(absent),
        }
    }

    /// Writes the octets.
    pub fn write_to(mut self, out: &mut dyn Write) -> io::Result<()> {
        self.octets.rewind()?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match self.octets.read(&mut buffer)? {
                0 => return Ok(()),
                len => out.write_all(&buffer[..len])?,
            }
        }
    }
}

/// Reads up to the line at `offset`; whether there is one.
fn find(
    backup: &Backup,
    offset_file: u64,
    point: Option<RestartPoint>,
    offset: u64,
    spool: &mut Spool<'_>,
) -> Result<bool, LogError> {
    let mut reader = LogReader::open_near(backup.file(), offset_file, point)?;
    while let Some(line) = reader.next_line(spool)? {
        if line.offset >= offset {
            return Ok(line.offset == offset);
        }
        // The same message, stored again later: the index means that one.
        spool.take = None;
    }
    Ok(false)
}

/// Reads up to the line at `offset` from the last place in front of it where reading can begin
/// again; whether there is one.
fn behind_damage(
    backup: &Backup,
    chunk: &ChunkRow,
    offset: u64,
    spool: &mut Spool<'_>,
) -> Result<bool, StoreError> {
    let points = salvage::points(backup, chunk).map_err(StoreError::io(backup.path()))?;
    let Some(point) = points.into_iter().rfind(|point| point.offset_plain <= offset) else {
        return Ok(false);
    };
    *spool = Spool::new(spool.guid, spool.directory);
    Ok(find(backup, chunk.offset, Some(point), offset, spool).unwrap_or(false))
}

/// Keeps the body that claims to be the wanted message.
struct Spool<'p> {
    guid: Guid,
    directory: &'p Path,
    take: Option<Taken>,
    /// The body being read is the wanted one.
    wanted: bool,
    error: Option<io::Error>,
}

struct Taken {
    octets: SpooledTempFile,
    hash: Sha1,
}

impl<'p> Spool<'p> {
    fn new(guid: Guid, directory: &'p Path) -> Spool<'p> {
        Spool { guid, directory, take: None, wanted: false, error: None }
    }

    fn keep(&mut self, octets: &[u8]) -> io::Result<()> {
        let Some(taken) = &mut self.take else { return Ok(()) };
        taken.hash.update(octets);
        if taken.octets.stream_position()? as usize + octets.len() > MEMORY_MAX {
            std::fs::create_dir_all(self.directory).map_err(naming(self.directory))?;
        }
        taken.octets.write_all(octets).map_err(naming(self.directory))
    }

    fn finish(self) -> io::Result<Option<(SpooledTempFile, Guid)>> {
        if let Some(error) = self.error {
            return Err(error);
        }
        Ok(self
            .take
            .map(|taken| (taken.octets, Guid::from(<[u8; 20]>::from(taken.hash.finalize())))))
    }
}

impl BodySink for Spool<'_> {
    fn start(&mut self, header: &FileHeader) {
        self.wanted = header.guid == self.guid;
        if self.wanted {
            let octets = tempfile::spooled_tempfile_in(MEMORY_MAX, self.directory);
            self.take = Some(Taken { octets, hash: Sha1::new() });
        }
    }

    fn data(&mut self, octets: &[u8]) {
        if self.wanted
            && self.error.is_none()
            && let Err(error) = self.keep(octets)
        {
            self.error = Some(error);
        }
    }

    fn end(&mut self) {}
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::lock::Wait;

    fn fixture(name: &str) -> (tempfile::TempDir, Backup) {
        let dir = tempfile::tempdir().unwrap();
        let source = format!("tests/fixtures/backups/main/{name}");
        let path = dir.path().join("data");
        std::fs::copy(&source, &path).unwrap();
        std::fs::copy(format!("{source}.index"), dir.path().join("data.index")).unwrap();
        let backup = Backup::open(&path, Wait::No).unwrap();
        (dir, backup)
    }

    /// Every message of a backup with literals, copies and several chunks.
    #[test]
    fn every_message_hashes_to_its_guid() {
        let (dir, backup) = fixture("one/a/alice_EPfRmx");
        let rows = backup.index().messages().unwrap();
        assert!(rows.len() > 10);
        for row in rows {
            let guid = row.guid.unwrap();
            let mut octets = Vec::new();
            let message = StoredMessage::read(&backup, &guid, dir.path()).unwrap();
            message.write_to(&mut octets).unwrap();
            assert_eq!(octets.len() as u64, row.size);
            assert_eq!(Guid::from(<[u8; 20]>::from(Sha1::digest(&octets))), guid);
        }
    }

    #[test]
    fn an_index_that_is_wrong_about_the_place_is_found_out() {
        let (dir, backup) = fixture("two/b/bob_5xHD5K");
        let guid = backup.index().messages().unwrap()[0].guid.unwrap();
        let index = rusqlite::Connection::open(dir.path().join("data.index")).unwrap();
        let read = || StoredMessage::read(&backup, &guid, dir.path()).err().unwrap();
        for change in ["offset = 31", "offset = 1000000", "chunk_id = 2, offset = 29"] {
            index.execute_batch(&format!("UPDATE message SET {change} WHERE id = 1")).unwrap();
            assert!(matches!(read(), MessageError::Absent { .. }), "{change}");
        }
        let unknown = Guid::from([7; 20]);
        let unknown = StoredMessage::read(&backup, &unknown, dir.path()).err().unwrap();
        assert!(matches!(unknown, MessageError::Unknown { .. }));
    }
}
