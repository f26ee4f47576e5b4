//! What stays: a plan over the rows of the survey. Nothing is written here.

use std::collections::HashMap;
use std::ops::Range;

use super::survey::{Kind, Note, Survey};
use crate::store::index::{IndexError, MailboxRow};
use crate::wire::apply::Apply;
use crate::wire::dlist::parse_item;
use crate::wire::own::Own;

/// What stays of which chunk.
pub(super) struct Plan {
    /// In the order of the file.
    pub(super) kept: Vec<Kept>,
    /// Ids of chunks of which nothing stays.
    pub(super) dropped: Vec<i64>,
    /// Lines that will say something else than they do.
    pub(super) restated: HashMap<i64, Restated>,
    /// Something goes that a state between two lines depends on.
    pub(super) loses: bool,
}

/// What a line says of a mailbox that was renamed after it, without another MAILBOX
/// line since. Real and own `verify` look for a MAILBOX line with the name that the
/// mailbox has, and would find none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Restated {
    pub(super) mboxname: Vec<u8>,
    pub(super) partition: Option<Vec<u8>>,
    pub(super) uidvalidity: u32,
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
    /// SHA-1 of these, hex.
    pub(super) data_sha1: String,
    /// Its lines.
    pub(super) lines: Range<i64>,
    /// File offset behind it, if all of it stays as it is.
    pub(super) whole_until: Option<u64>,
}

impl Plan {
    /// Plans to drop what was deleted or expunged at `since` or before (`None`: nothing
    /// of that kind; as it was chosen in the survey's index), and what later lines have
    /// made obsolete.
    pub(super) fn of(survey: &Survey, since: Option<i64>) -> Result<Plan, IndexError> {
        Plan::with_names(survey, since, HashMap::new())
    }

    /// The same, but lines give mailboxes their present names, and RENAME lines go.
    /// Where names were handed round among mailboxes such lines may say something else,
    /// so the result is to be compared.
    pub(super) fn restating(survey: &Survey, since: Option<i64>) -> Result<Plan, IndexError> {
        Plan::with_names(survey, since, restate(survey)?)
    }

    fn with_names(
        survey: &Survey,
        since: Option<i64>,
        mut restated: HashMap<i64, Restated>,
    ) -> Result<Plan, IndexError> {
        let scratch = &survey.scratch;
        let mut has_expunge = false;
        for note in &survey.notes {
            if !is_needed(survey, note, since)? {
                continue;
            }
            match note.kind {
                Kind::Rename(_) if !restated.is_empty() => scratch.drop_line(note.line)?,
                _ => scratch.keep_line(note.line)?,
            }
            has_expunge |= matches!(note.kind, Kind::Expunge(_));
        }
        if has_expunge {
            restated.clear();
            keep_all_names(survey)?;
        }
        let plan = Plan::of_chunks(survey, restated)?;
        if !plan.loses {
            return Ok(plan);
        }
        // What a former compaction has dropped is less than what will be missing now.
        for line in &survey.records_of_compaction {
            scratch.drop_line(*line)?;
        }
        Ok(Plan { loses: true, ..Plan::of_chunks(survey, plan.restated)? })
    }

    fn of_chunks(survey: &Survey, restated: HashMap<i64, Restated>) -> Result<Plan, IndexError> {
        let scratch = &survey.scratch;
        let loses = !restated.is_empty();
        let mut plan = Plan { kept: Vec::new(), dropped: Vec::new(), restated, loses };
        for (i, source) in survey.chunks.iter().enumerate() {
            let next = survey.chunks.get(i + 1).map_or(survey.len_file, |next| next.row.offset);
            let Range { start, end } = source.lines;
            let wanted = scratch.wanted(start, end)?;
            let due = survey.with_effect(source).filter(|line| !wanted.lines.contains(line));
            plan.loses |= wanted.items() != source.items || due.count() > 0;
            if wanted.lines.is_empty() {
                plan.dropped.push(source.row.id);
                continue;
            }
            let all_stays = wanted.lines.len() as i64 == end - start
                && wanted.items() == source.items
                && !plan.restated.keys().any(|line| source.lines.contains(line));
            plan.kept.push(Kept {
                id: source.row.id,
                offset: source.row.offset,
                len_file: next.saturating_sub(source.row.offset),
                length: source.row.length,
                data_sha1: source.row.data_sha1.clone(),
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

/// The lines that can be restated: the last MAILBOX lines of renamed mailboxes, and the
/// UNMAILBOX lines behind those.
fn restate(survey: &Survey) -> Result<HashMap<i64, Restated>, IndexError> {
    let scratch = &survey.scratch;
    let mut renamed = HashMap::new();
    for note in &survey.notes {
        let Kind::Rename(ids) = &note.kind else { continue };
        for &id in ids {
            if scratch.is_kept_before(id, note.line)?
                && let Some(row) = scratch.mailbox_with_id(id)?
            {
                renamed.insert(id, row);
            }
        }
    }
    let mut restated = HashMap::new();
    for row in renamed.values() {
        restated.insert(row.last_chunk_id, Restated::of(row));
    }
    for note in survey.notes.iter().filter(|_| !renamed.is_empty()) {
        let Kind::Unmailbox(ids) = &note.kind else { continue };
        for id in ids {
            if let Some(row) = renamed.get(id)
                && row.last_chunk_id < note.line
            {
                restated.insert(note.line, Restated::of(row));
            }
        }
    }
    Ok(restated)
}

impl Restated {
    fn of(row: &MailboxRow) -> Restated {
        Restated {
            mboxname: row.mboxname.clone(),
            partition: row.partition.clone(),
            uidvalidity: row.uidvalidity,
        }
    }
}

/// An EXPUNGE line counts only if the mailbox had the name it says, when it was said. Only
/// data from elsewhere have such lines: then each line stays that gave a name.
fn keep_all_names(survey: &Survey) -> Result<(), IndexError> {
    let scratch = &survey.scratch;
    for &(line, id) in &survey.mailbox_lines {
        if scratch.is_kept_before(id, i64::MAX)? {
            scratch.keep_line(line)?;
        }
    }
    for note in &survey.notes {
        let (Kind::Rename(ids) | Kind::Unmailbox(ids)) = &note.kind else { continue };
        for &id in ids {
            if scratch.is_kept_before(id, i64::MAX)? {
                scratch.keep_line(note.line)?;
            }
        }
    }
    Ok(())
}

/// Whether the state at the end depends on this line.
fn is_needed(survey: &Survey, note: &Note, since: Option<i64>) -> Result<bool, IndexError> {
    let (scratch, line) = (&survey.scratch, note.line);
    match &note.kind {
        // A later MAILBOX line of the same mailbox says all of it again.
        Kind::Rename(ids) | Kind::Unmailbox(ids) => {
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
        // In doubt as long as the state at the end says so.
        Kind::Own(Own::Incomplete(uniqueid)) => scratch.is_to_be_resent(uniqueid),
        // The latest word on its subject counts.
        Kind::Own(own) => {
            let subject = own.anchor(b"");
            Ok(!survey.notes.iter().any(|later| {
                later.line > line
                    && matches!(&later.kind, Kind::Own(other) if other.anchor(b"") == subject)
            }))
        }
    }
}
