//! What stays: a plan over the rows of the survey. Nothing is written here.

use std::ops::Range;

use super::survey::{Kind, Note, Survey, is_superseded};
use crate::store::index::IndexError;
use crate::wire::apply::Apply;
use crate::wire::dlist::parse_item;

/// What stays of which chunk.
pub(super) struct Plan {
    /// In the order of the file.
    pub(super) kept: Vec<Kept>,
    /// Ids of chunks of which nothing stays.
    pub(super) dropped: Vec<i64>,
}

/// A chunk of which something stays.
pub(super) struct Kept {
    pub(super) id: i64,
    /// File offset.
    pub(super) offset: u64,
    /// Octets of the file up to the next chunk.
    pub(super) len_file: u64,
    /// Inflated octets, as it is.
    pub(super) length: u64,
    /// Its lines.
    pub(super) lines: Range<i64>,
    /// File offset behind it, if all of it stays as it is.
    pub(super) whole_until: Option<u64>,
}

impl Plan {
    /// Plans to drop what was deleted or expunged at `since` or before (`None`:
    /// nothing of that kind), and what later lines have made obsolete.
    pub(super) fn of(survey: &Survey, since: Option<i64>) -> Result<Plan, IndexError> {
        let scratch = &survey.scratch;
        scratch.choose(since)?;
        for note in &survey.notes {
            if is_needed(survey, note, since)? {
                scratch.keep_line(note.line)?;
            }
        }
        let mut plan = Plan { kept: Vec::new(), dropped: Vec::new() };
        for (i, source) in survey.chunks.iter().enumerate() {
            let next = survey.chunks.get(i + 1).map_or(survey.len_file, |next| next.row.offset);
            let Range { start, end } = source.lines;
            let wanted = scratch.wanted(start, end)?;
            if wanted.lines.is_empty() {
                plan.dropped.push(source.row.id);
                continue;
            }
            let all_stays =
                wanted.lines.len() as i64 == end - start && wanted.items() == source.items;
            plan.kept.push(Kept {
                id: source.row.id,
                offset: source.row.offset,
                len_file: next.saturating_sub(source.row.offset),
                length: source.row.length,
                lines: source.lines.clone(),
                whole_until: source.end.filter(|_| all_stays),
            });
        }
        Ok(plan)
    }

    pub(super) fn kept_ids(&self) -> Vec<i64> {
        self.kept.iter().map(|chunk| chunk.id).collect()
    }
}

/// Whether the state at the end depends on this line.
fn is_needed(survey: &Survey, note: &Note, since: Option<i64>) -> Result<bool, IndexError> {
    let (scratch, line) = (&survey.scratch, note.line);
    match &note.kind {
        // A later MAILBOX line of the same mailbox says all of it again.
        Kind::Mailboxes(ids) => {
            for &id in ids {
                if scratch.is_kept_before(id, line)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Kind::Script(filename) => scratch.is_unsieve_needed(filename, line, note.ts, since),
        Kind::Expunge(text) => match parse_item(text).map(|(_, value)| value) {
            Ok(value) => match Apply::read(b"EXPUNGE", &value) {
                Ok(Apply::Expunge(expunge)) => scratch.is_expunge_needed(&expunge, line, note.ts),
                _ => Ok(false),
            },
            Err(_) => Ok(false),
        },
        Kind::Carrier(text) => Ok(!is_superseded(text)),
    }
}
