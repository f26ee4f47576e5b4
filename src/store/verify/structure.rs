//! What can be said of a backup without inflating it: in time that grows with the number
//! of its chunks.

use super::beside::leftovers;
use super::finding::{Check, Event, Fault, Finding, Sink};
use crate::store::backup::Backup;
use crate::store::error::{Result, StoreError};
use crate::store::index::ChunkRow;

/// Octets with which every chunk begins: a gzip member, deflated.
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// The shortest member: header, an empty block, trailer.
const MEMBER_MIN: u64 = 20;

/// Checks that the chunk table is plausible, that a chunk begins where each of its rows
/// says, that the last one ends as it says, and what stands beside. Returns whether
/// nothing was wrong; an error means that it could not be found out.
pub fn structure(backup: &Backup, sink: &mut Sink<'_>) -> Result<bool> {
    sink(Event::Begin { chunk_id: None, check: Check::Structure });
    let findings = check(backup)?;
    let sound = findings.is_empty();
    findings.iter().for_each(|finding| sink(Event::Finding(finding)));
    sink(Event::End { sound });
    beside(backup, sink)?;
    Ok(sound)
}

/// Tells what stands beside.
pub(super) fn beside(backup: &Backup, sink: &mut Sink<'_>) -> Result<()> {
    sink(Event::Begin { chunk_id: None, check: Check::Beside });
    for (path, kind) in leftovers(backup.path()).map_err(StoreError::io(backup.path()))? {
        sink(Event::Finding(&Finding::of_backup(Fault::Leftover { path, kind })));
    }
    sink(Event::End { sound: true });
    Ok(())
}

/// What is wrong with the chunk table.
pub(super) fn check(backup: &Backup) -> Result<Vec<Finding>> {
    let fault = || StoreError::index(backup.path());
    let state = backup.index().state().map_err(fault())?;
    let len_file = backup.len_file()?;
    let mut findings = Vec::new();
    let mut before: Option<ChunkRow> = None;
    for chunk in backup.index().chunks_by_id() {
        let chunk = chunk.map_err(fault())?;
        if let Some(what) = row(backup, &chunk, before.as_ref(), len_file)? {
            findings.push(about(&chunk, what));
        }
        before = Some(chunk);
    }
    if let (Some(last), Some(state)) = (&before, state)
        && findings.is_empty()
        && state.len_file == len_file
        && let Some(what) = end(backup, last, len_file)?
    {
        findings.push(about(last, what));
    }
    Ok(findings)
}

fn about(chunk: &ChunkRow, what: String) -> Finding {
    Finding {
        chunk_id: Some(chunk.id),
        offset_file: Some(chunk.offset),
        fault: Fault::Structure(what),
        filed: Vec::new(),
    }
}

fn row(
    backup: &Backup,
    chunk: &ChunkRow,
    before: Option<&ChunkRow>,
    len_file: u64,
) -> Result<Option<String>> {
    let (offset, least) = (chunk.offset, before.map_or(0, |row| row.offset + MEMBER_MIN));
    let is_hex = |text: &str| text.len() == 40 && text.bytes().all(|c| c.is_ascii_hexdigit());
    Ok(if offset < least {
        Some(format!("offset {offset} is inside or in front of the chunk before"))
    } else if offset.saturating_add(MEMBER_MIN) > len_file {
        Some(format!("offset {offset} is beyond the end of the data file, {len_file} octets"))
    } else if chunk.length == 0 {
        Some("it has no length: it was never finished".into())
    } else if chunk.ts_end < chunk.ts_start {
        Some(format!("it ends at {} and begins at {}", chunk.ts_end, chunk.ts_start))
    } else if !is_hex(&chunk.file_sha1) || !is_hex(&chunk.data_sha1) {
        Some("a checksum is missing".into())
    } else if read::<3>(backup, offset)? != MAGIC {
        Some(format!("no gzip member begins at offset {offset}"))
    } else {
        None
    })
}

/// The last chunk must end with the file, if the index speaks for all of it: unless an
/// empty one without a row follows.
fn end(backup: &Backup, last: &ChunkRow, len_file: u64) -> Result<Option<String>> {
    let len = u64::from(u32::from_le_bytes(read(backup, len_file - 4)?));
    let header_only = crate::store::chunk::CHUNK_HEADER.len() as u64;
    // Old compression libraries end an empty chunk without its header.
    if len == last.length % (1 << 32) || len == header_only || len == 0 {
        return Ok(None);
    }
    Ok(Some(format!("{} octets long, but its trailer says {len}", last.length)))
}

fn read<const N: usize>(backup: &Backup, at: u64) -> Result<[u8; N]> {
    let mut octets = [0; N];
    std::os::unix::fs::FileExt::read_exact_at(backup.file(), &mut octets, at)
        .map_err(StoreError::io(backup.path()))?;
    Ok(octets)
}
