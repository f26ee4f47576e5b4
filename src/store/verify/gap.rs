//! What lies between the chunks that the index knows, and behind them.

use std::path::Path;

use super::finding::Fault;
use crate::store::chunk::{MemberError, MemberReader};
use crate::store::disk::Disk;
use crate::store::error::{Result, StoreError};
use crate::store::log::{LogError, LogReader, NoBodies};
use crate::store::torn;

/// Looks at the octets from `from` to `to`. Members without lines mean nothing.
pub(super) fn look(file: &dyn Disk, path: &Path, from: u64, to: u64) -> Result<Vec<Fault>> {
    let (mut faults, mut at) = (Vec::new(), from);
    while at < to {
        let (lines, end) = lines_at(file, at, to).map_err(StoreError::log(path))?;
        let next = match end {
            Some(end) => end.min(to),
            None => {
                let next = torn::next_behind(file, at, to).map_err(StoreError::io(path))?;
                next.map_or(to, |next| next.min(to))
            }
        };
        // Whatever is read, it goes forward.
        let next = next.max(at + 1);
        match (lines, end) {
            (0, Some(_)) => {}
            (0, None) => faults.push(Fault::Garbage { offset_file: at, end: next }),
            _ => faults.push(Fault::Unindexed { offset_file: at, end: next, lines }),
        }
        at = next;
    }
    Ok(faults)
}

/// Lines from `from` to `to`, behind the last chunk of an index, which knows none of them.
pub(in crate::store) fn unindexed_lines(
    file: &dyn Disk,
    path: &Path,
    from: u64,
    to: u64,
) -> Result<u64> {
    let lines = |fault: &Fault| match fault {
        Fault::Unindexed { lines, .. } => *lines,
        _ => 0,
    };
    Ok(look(file, path, from, to)?.iter().map(lines).sum())
}

/// How many lines of a member can be read, and where it ends if it is whole.
fn lines_at(
    file: &dyn Disk,
    at: u64,
    to: u64,
) -> std::result::Result<(u64, Option<u64>), LogError> {
    let mut reader = match MemberReader::open_until(file, at, to) {
        Ok(member) => LogReader::over(member),
        Err(error @ MemberError::Io { .. }) => return Err(error.into()),
        Err(_) => return Ok((0, None)),
    };
    let mut lines = 0;
    loop {
        match reader.next_line(&mut NoBodies) {
            Ok(Some(_)) => lines += 1,
            Ok(None) => return Ok((lines, Some(reader.offset_file()))),
            Err(error @ LogError::Member(MemberError::Io { .. })) => return Err(error),
            Err(_) => return Ok((lines, None)),
        }
    }
}
