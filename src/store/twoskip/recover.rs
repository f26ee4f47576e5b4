//! Repair of a file whose last transaction did not end.
//!
//! This is the first stage of the reference's recovery: what is committed is
//! kept as it is, everything else goes. There is no second stage. The
//! reference's one replays all records of a file that lost some, and brings
//! deleted keys back while it loses their neighbours; here such a file is
//! reported and left as it was found.

use super::ErrorKind;
use super::format::{DUMMY_AT, Head, Header, LEVEL_MAX};
use super::medium::Medium;
use super::read::View;

/// How many bytes a repair may add to a file that is shorter than its
/// committed size, in zeros. Usually the last COMMIT is what is missing.
const EXTEND_MAX: u64 = 1 << 20;

/// Brings the file back to its last committed state: cuts what was not
/// committed, takes back its list-0 pointers and links the other lists anew.
///
/// Durable on return. The file is not touched before all of its live records
/// have been read and found good. The caller holds the exclusive lock.
/// Returns how many records had to be linked anew.
pub(super) fn repair<M: Medium>(medium: &mut M, header: &mut Header) -> Result<usize, ErrorKind> {
    let end = header.current_size;
    let heads = live_heads(medium, end)?;
    let len = medium.len().map_err(|e| ErrorKind::io("examine", e))?;
    if end.saturating_sub(len) > EXTEND_MAX {
        return Err(ErrorKind::damaged(len, "the file lost committed data"));
    }
    header.set_dirty(true);
    write_header(medium, header)?;
    // DUMMY is not counted.
    header.records = heads.len() as u64 - 1;
    let fixed = relink(medium, heads, end)?;
    medium.set_len(end).and_then(|()| medium.sync()).map_err(|e| ErrorKind::io("write", e))?;
    header.set_dirty(false);
    write_header(medium, header)?;
    Ok(fixed)
}

/// Writes the header and waits until it is durable.
pub(super) fn write_header<M: Medium>(medium: &mut M, header: &Header) -> Result<(), ErrorKind> {
    medium
        .write_at(&header.encode(), 0)
        .and_then(|()| medium.sync())
        .map_err(|e| ErrorKind::io("write", e))
}

/// DUMMY and all live records, in key order, with their offsets.
fn live_heads<M: Medium>(medium: &M, end: u64) -> Result<Vec<(u64, Head)>, ErrorKind> {
    let view = View::new(medium, end);
    let mut heads = vec![(DUMMY_AT, view.dummy()?.head)];
    view.walk(|record| {
        heads.push((record.at, record.head.clone()));
        Ok(())
    })?;
    Ok(heads)
}

/// Rewrites those heads whose pointers are not what the committed list 0
/// makes them. Returns how many that were.
fn relink<M: Medium>(
    medium: &mut M,
    heads: Vec<(u64, Head)>,
    end: u64,
) -> Result<usize, ErrorKind> {
    // From the back, so that the follower on each list is known.
    let mut followers = [0; LEVEL_MAX as usize];
    let mut fixed = 0;
    for (at, mut head) in heads.into_iter().rev() {
        let before = head.pointers;
        for pointer in &mut head.pointers[..2] {
            if *pointer >= end {
                *pointer = 0;
            }
        }
        for list in 1..head.level {
            head.pointers[usize::from(list) + 1] = followers[usize::from(list)];
        }
        if at != DUMMY_AT {
            followers[..usize::from(head.level)].fill(at);
        }
        if head.pointers != before {
            medium.write_at(&head.encode(), at).map_err(|e| ErrorKind::io("write", e))?;
            fixed += 1;
        }
    }
    Ok(fixed)
}
