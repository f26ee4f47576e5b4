//! Many stored messages in one go: each chunk is inflated once, however many are
//! wanted from it. Messages come in the order in which they are stored.
//!
//! [`gather`] says which messages of which mailboxes are wanted, a [`Sink`] is the form
//! that they are given: [`mbox`], [`maildir`], [`eml`], [`tar`].

mod directory;
pub mod eml;
pub mod folder;
pub mod item;
pub mod maildir;
pub mod mbox;
pub mod tar;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};
use tempfile::SpooledTempFile;

use super::backup::Backup;
use super::error::{Result, StoreError};
use super::index::{ChunkRow, RestartPoint};
use super::log::{BodySink, LogError, LogReader};
use super::message::MessageError;
use super::salvage;
use super::staging::naming;
use crate::wire::Guid;
use crate::wire::dlist::FileHeader;
pub use item::{Gathered, Item, Selection, gather};

/// The bodies of one line wait in memory up to this many octets, beyond it in a file.
const MEMORY_MAX: usize = 4 << 20;

/// Takes a message: its GUID, and its octets, which have been checked.
pub type Taker<'t> = dyn FnMut(&Guid, &mut dyn Read) -> io::Result<()> + 't;
/// The same; the number is how many octets there are.
pub type SizedTaker<'t> = dyn FnMut(&Guid, u64, &mut dyn Read) -> io::Result<()> + 't;

/// A form in which messages are written.
pub trait Sink {
    /// Writes one message of `size` octets, which have been checked.
    fn message(&mut self, item: &Item, size: u64, octets: &mut dyn Read) -> io::Result<()>;

    /// Makes sure that all is there.
    fn finish(&mut self) -> io::Result<()>;
}

/// Writes items to `sink`. A message that cannot be had is told with its reason, the others
/// are written. Memory does not grow with the messages, only with the number of items.
pub fn write(
    backup: &Backup,
    items: &[Item],
    staging: &Path,
    sink: &mut dyn Sink,
) -> std::result::Result<Vec<MessageError>, ExportError> {
    let mut by_guid: HashMap<Guid, Vec<&Item>> = HashMap::new();
    for item in items {
        by_guid.entry(item.guid).or_default().push(item);
    }
    let guids = by_guid.keys().copied();
    let failed = sized_messages(backup, guids, staging, &mut |guid, size, octets| match by_guid
        .get(guid)
        .map(Vec::as_slice)
    {
        None => Ok(()),
        Some([item]) => sink.message(item, size, octets),
        Some(items) => {
            let mut copy = tempfile::spooled_tempfile_in(MEMORY_MAX, staging);
            if size > MEMORY_MAX as u64 {
                std::fs::create_dir_all(staging)?;
            }
            io::copy(octets, &mut copy)?;
            items.iter().try_for_each(|item| {
                copy.rewind()?;
                sink.message(item, size, &mut copy)
            })
        }
    })?;
    sink.finish()?;
    Ok(failed)
}

/// Why not all messages were exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The backup's index cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A message could not be staged, or the taker failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Hands the messages to `take`, in the order in which they are stored. Returns why
/// some could not be had; no octet of these was handed over. `staging` is
/// `backup_staging_path`.
pub fn messages(
    backup: &Backup,
    guids: impl IntoIterator<Item = Guid>,
    staging: &Path,
    take: &mut Taker<'_>,
) -> std::result::Result<Vec<MessageError>, ExportError> {
    sized_messages(backup, guids, staging, &mut |guid, _, octets| take(guid, octets))
}

/// [`messages`], for those who must know the size first.
pub fn sized_messages(
    backup: &Backup,
    guids: impl IntoIterator<Item = Guid>,
    staging: &Path,
    take: &mut SizedTaker<'_>,
) -> std::result::Result<Vec<MessageError>, ExportError> {
    let mut failed = Vec::new();
    let chunks = by_place(backup, guids, &mut failed)?;
    for (chunk_id, mut due) in chunks {
        let chunk = backup.index().chunk(chunk_id).map_err(StoreError::index(backup.path()))?;
        let read = match &chunk {
            Some(chunk) => chunk_messages(backup, chunk, &mut due, staging, take),
            None => Ok(()),
        };
        match read {
            Ok(()) => {}
            Err(ChunkError::Io(error)) => return Err(error.into()),
            Err(ChunkError::Log(error)) => {
                failed.push(MessageError::Store(StoreError::log(backup.path())(error)));
            }
        }
        failed.extend(due.into_iter().map(|((offset, guid), found)| match found {
            None => MessageError::Absent { guid, chunk_id, offset },
            Some(found) => MessageError::Damaged { guid, chunk_id, offset, found },
        }));
    }
    Ok(failed)
}

/// Offset of the line and identity, for each message that is still due; with what
/// was found in its place, if anything.
type Due = BTreeMap<(u64, Guid), Option<Guid>>;

fn by_place(
    backup: &Backup,
    guids: impl IntoIterator<Item = Guid>,
    failed: &mut Vec<MessageError>,
) -> Result<BTreeMap<i64, Due>> {
    let mut chunks: BTreeMap<i64, Due> = BTreeMap::new();
    for guid in guids {
        let row = backup.index().message(&guid).map_err(StoreError::index(backup.path()))?;
        match row {
            Some(row) => {
                chunks.entry(row.chunk_id).or_default().insert((row.offset, guid), None);
            }
            None => failed.push(MessageError::Unknown { guid }),
        }
    }
    Ok(chunks)
}

enum ChunkError {
    Log(LogError),
    Io(io::Error),
}

/// Takes what is handed over out of `due`. A restart point in front of the first message is
/// a hint: what is not found from there is looked for from the beginning of the chunk.
fn chunk_messages(
    backup: &Backup,
    chunk: &ChunkRow,
    due: &mut Due,
    staging: &Path,
    take: &mut SizedTaker<'_>,
) -> std::result::Result<(), ChunkError> {
    let first = due.keys().next().map_or(0, |(offset, _)| *offset);
    if let Ok(Some(point)) = backup.index().restart_point(chunk.id, first) {
        match read_messages(backup, chunk, Some(point), u64::MAX, due, staging, take) {
            Ok(()) | Err(ChunkError::Log(_)) if !due.is_empty() => {}
            result => return result,
        }
    }
    let read = read_messages(backup, chunk, None, u64::MAX, due, staging, take);
    if due.is_empty() || matches!(read, Err(ChunkError::Io(_))) {
        return read;
    }
    behind_damage(backup, chunk, due, staging, take)?;
    if due.is_empty() { Ok(()) } else { read }
}

/// Behind damage a place is known by the restart point in front of it.
fn behind_damage(
    backup: &Backup,
    chunk: &ChunkRow,
    due: &mut Due,
    staging: &Path,
    take: &mut SizedTaker<'_>,
) -> std::result::Result<(), ChunkError> {
    let points = match backup.index().restart_points(chunk.id) {
        Ok(points) if !points.is_empty() => points,
        // Cyrus's index has none.
        Ok(_) => salvage::points(backup, chunk).map_err(ChunkError::Io)?,
        Err(_) => return Ok(()),
    };
    for (i, point) in points.iter().enumerate() {
        let until = points.get(i + 1).map_or(u64::MAX, |next| next.offset_plain);
        if !due.keys().any(|(offset, _)| (point.offset_plain..until).contains(offset)) {
            continue;
        }
        match read_messages(backup, chunk, Some(*point), until, due, staging, take) {
            Ok(()) | Err(ChunkError::Log(_)) => {}
            error => return error,
        }
    }
    Ok(())
}

fn read_messages(
    backup: &Backup,
    chunk: &ChunkRow,
    point: Option<RestartPoint>,
    until: u64,
    due: &mut Due,
    staging: &Path,
    take: &mut SizedTaker<'_>,
) -> std::result::Result<(), ChunkError> {
    let wanted = due.keys().map(|(_, guid)| *guid).collect();
    let mut spool = LineSpool::new(staging, wanted);
    let mut reader =
        LogReader::open_near(backup.file(), chunk.offset, point).map_err(ChunkError::Log)?;
    while !due.is_empty() {
        let Some(line) = reader.next_line(&mut spool).map_err(ChunkError::Log)? else { break };
        if line.offset >= until {
            break;
        }
        for body in spool.take_line().map_err(ChunkError::Io)? {
            let Some(state) = due.get_mut(&(line.offset, body.guid)) else { continue };
            if body.content != body.guid {
                *state = Some(body.content);
                continue;
            }
            due.remove(&(line.offset, body.guid));
            spool.hand_over(&body, take).map_err(ChunkError::Io)?;
        }
        spool.clear().map_err(ChunkError::Io)?;
    }
    Ok(())
}

/// The wanted bodies of the line that is being read, one behind the other.
struct LineSpool {
    directory: PathBuf,
    wanted: HashSet<Guid>,
    octets: SpooledTempFile,
    len: u64,
    bodies: Vec<Spooled>,
    /// Of the body being read, if it is wanted.
    hash: Option<Sha1>,
    error: Option<io::Error>,
}

struct Spooled {
    guid: Guid,
    content: Guid,
    start: u64,
    len: u64,
}

impl LineSpool {
    fn new(directory: &Path, wanted: HashSet<Guid>) -> LineSpool {
        LineSpool {
            directory: directory.to_owned(),
            wanted,
            octets: tempfile::spooled_tempfile_in(MEMORY_MAX, directory),
            len: 0,
            bodies: Vec::new(),
            hash: None,
            error: None,
        }
    }

    fn take_line(&mut self) -> io::Result<Vec<Spooled>> {
        match self.error.take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut self.bodies)),
        }
    }

    fn hand_over(&mut self, body: &Spooled, take: &mut SizedTaker<'_>) -> io::Result<()> {
        self.octets.seek(SeekFrom::Start(body.start))?;
        take(&body.guid, body.len, &mut (&mut self.octets).take(body.len))
    }

    /// Room for the next line.
    fn clear(&mut self) -> io::Result<()> {
        if self.len > 0 {
            self.octets.set_len(0)?;
            self.octets.rewind()?;
            self.len = 0;
        }
        Ok(())
    }

    fn keep(&mut self, octets: &[u8]) -> io::Result<()> {
        self.len += octets.len() as u64;
        if self.len > MEMORY_MAX as u64 && !self.octets.is_rolled() {
            std::fs::create_dir_all(&self.directory).map_err(naming(&self.directory))?;
        }
        self.octets.write_all(octets).map_err(naming(&self.directory))
    }
}

impl BodySink for LineSpool {
    fn start(&mut self, header: &FileHeader) {
        self.hash = self.wanted.contains(&header.guid).then(Sha1::new);
        if self.hash.is_some() {
            let content = Guid::from([0; 20]);
            self.bodies.push(Spooled { guid: header.guid, content, start: self.len, len: 0 });
        }
    }

    fn data(&mut self, octets: &[u8]) {
        let Some(hash) = &mut self.hash else { return };
        hash.update(octets);
        if self.error.is_none()
            && let Err(error) = self.keep(octets)
        {
            self.error = Some(error);
        }
    }

    fn end(&mut self) {
        if let (Some(hash), Some(body)) = (self.hash.take(), self.bodies.last_mut()) {
            body.content = Guid::from(<[u8; 20]>::from(hash.finalize()));
            body.len = self.len - body.start;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod pass_tests {
    use super::*;
    use crate::lock::Wait;

    fn fixture() -> (tempfile::TempDir, Backup) {
        let dir = tempfile::tempdir().unwrap();
        let source = "tests/fixtures/backups/main/one/a/alice_EPfRmx";
        let path = dir.path().join("data");
        std::fs::copy(source, &path).unwrap();
        std::fs::copy(format!("{source}.index"), dir.path().join("data.index")).unwrap();
        let backup = Backup::open(&path, Wait::No).unwrap();
        (dir, backup)
    }

    #[test]
    fn all_messages_come_once_and_whole() {
        let (dir, backup) = fixture();
        let rows = backup.index().messages().unwrap();
        let mut came = Vec::new();
        let failed = messages(
            &backup,
            rows.iter().filter_map(|row| row.guid),
            dir.path(),
            &mut |guid, octets| {
                let mut content = Vec::new();
                octets.read_to_end(&mut content)?;
                assert_eq!(Guid::from(<[u8; 20]>::from(Sha1::digest(&content))), *guid);
                came.push(*guid);
                Ok(())
            },
        );
        assert!(failed.unwrap().is_empty());
        let mut expected: Vec<Guid> = rows.iter().filter_map(|row| row.guid).collect();
        came.sort_unstable();
        expected.sort_unstable();
        assert_eq!(came, expected);
    }

    #[test]
    fn what_cannot_be_had_is_named_and_the_rest_comes() {
        let (dir, backup) = fixture();
        let rows = backup.index().messages().unwrap();
        let index = rusqlite::Connection::open(dir.path().join("data.index")).unwrap();
        index.execute_batch("UPDATE message SET offset = 31 WHERE id = 1").unwrap();
        let unknown = Guid::from([7; 20]);
        let wanted = rows.iter().filter_map(|row| row.guid).chain([unknown]);
        let mut count = 0;
        let mut take = |_: &Guid, _: &mut dyn Read| {
            count += 1;
            Ok(())
        };
        let failed = messages(&backup, wanted, dir.path(), &mut take).unwrap();
        assert!(
            matches!(failed[..], [MessageError::Unknown { guid }, MessageError::Absent { .. }]
                if guid == unknown),
            "{failed:?}"
        );
        assert_eq!(count, rows.len() - 1);
    }
}
