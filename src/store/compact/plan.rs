//! What stays: a plan over the rows of the survey. Nothing is written here.

use std::collections::HashMap;

use super::sizes::Sizes;
use super::survey::Survey;
use crate::store::index::{Index, IndexError, Kept, MailboxRow, Note, NoteKind};
use crate::wire::apply::Apply;
use crate::wire::dlist::parse_item;
use crate::wire::own::Own;

/// Notes and chunks looked at at a time.
const PAGE: u32 = 256;

/// What stays. Of which chunk, the survey's index says: see [`kept`].
pub(super) struct Plan {
    /// Ids of chunks of which something stays.
    pub(super) kept_ids: Vec<i64>,
    /// Chunks of which nothing stays.
    pub(super) dropped: usize,
    /// Chunks of which all stays as it is.
    pub(super) unchanged: usize,
    /// Whether there is something to gain.
    pub(super) is_worth_it: bool,
    /// Octets of the chunks of which something stays.
    pub(super) len_file: u64,
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

/// What to plan for.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    /// What was deleted or expunged then or before goes; `None`: nothing of that kind. As it was
    /// chosen in the survey's index.
    pub(super) since: Option<i64>,
    pub(super) sizes: Sizes,
    /// Octets of the data file.
    pub(super) len_file: u64,
}

impl Plan {
    /// Plans to drop what is past its time, and what later lines have made obsolete.
    pub(super) fn of(survey: &Survey, terms: Terms) -> Result<Plan, IndexError> {
        Plan::with_names(survey, terms, HashMap::new())
    }

    /// The same, but lines give mailboxes their present names, and RENAME lines go.
    /// Where names were handed round among mailboxes such lines may say something else,
    /// so the result is to be compared.
    pub(super) fn restating(survey: &Survey, terms: Terms) -> Result<Plan, IndexError> {
        Plan::with_names(survey, terms, restate(survey)?)
    }

    fn with_names(
        survey: &Survey,
        terms: Terms,
        mut restated: HashMap<i64, Restated>,
    ) -> Result<Plan, IndexError> {
        let scratch = &survey.scratch;
        if keep_expunges(scratch, terms.since, &restated)? {
            restated.clear();
        }
        each_note(scratch, |note| {
            if note.kind == NoteKind::Expunge || !is_needed(scratch, note, terms.since)? {
                return Ok(());
            }
            match note.kind {
                NoteKind::Rename if !restated.is_empty() => scratch.drop_line(note.line)?,
                _ => scratch.keep_line(note.line)?,
            }
            if matches!(note.kind, NoteKind::Unmailbox | NoteKind::Script) {
                scratch.hold_line(note.line, note.ts)?;
            }
            Ok(())
        })?;
        let plan = Plan::of_chunks(scratch, terms, restated)?;
        if !plan.loses {
            return Ok(plan);
        }
        // What a former compaction has dropped is less than what will be missing now.
        for line in &survey.records_of_compaction {
            scratch.drop_line(*line)?;
        }
        Ok(Plan { loses: true, ..Plan::of_chunks(scratch, terms, plan.restated)? })
    }

    fn of_chunks(
        scratch: &Index,
        terms: Terms,
        restated: HashMap<i64, Restated>,
    ) -> Result<Plan, IndexError> {
        let loses = !restated.is_empty();
        let mut plan = Plan {
            kept_ids: Vec::new(),
            dropped: 0,
            unchanged: 0,
            is_worth_it: false,
            len_file: 0,
            restated,
            loses,
        };
        let mut gain = terms.sizes.gain();
        scratch.keep_no_source()?;
        let mut chunks = Pages::new(|after| scratch.sources(after, PAGE), |of| of.0).peekable();
        while let Some((number, source)) = chunks.next().transpose()? {
            let (lines, gone) = scratch.count_lines(&source.lines)?;
            let items = scratch.count_items(&source.lines)?;
            plan.loses |= items != source.items || gone > 0;
            gain.add(source.length, lines > 0);
            if lines == 0 {
                plan.dropped += 1;
                continue;
            }
            let all_stays = lines as i64 == source.lines.end - source.lines.start
                && items == source.items
                && !scratch.is_to_say_more(&source.lines)?
                && !plan.restated.keys().any(|line| source.lines.contains(line));
            let whole_until = source.end.filter(|_| all_stays);
            scratch.keep_source(number, whole_until)?;
            plan.kept_ids.push(source.id);
            plan.unchanged += usize::from(whole_until.is_some());
            let next = match chunks.peek() {
                Some(Ok((_, next))) => next.offset,
                _ => terms.len_file,
            };
            plan.len_file += next.saturating_sub(source.offset);
        }
        plan.is_worth_it = gain.is_worth_it();
        Ok(plan)
    }
}

/// Remembers in `index` which of its chunks stay for lines that no row of it points at.
pub(super) fn remember(scratch: &Index, index: &Index) -> Result<(), IndexError> {
    index.begin()?;
    let noted = kept(scratch).try_for_each(|kept| {
        let source = kept?.source;
        index.need_chunk(source.id, &scratch.held_times(&source.lines)?)
    });
    if noted.is_err() {
        index.rollback()?;
    }
    noted.and_then(|()| index.commit())
}

/// The chunks of which something stays, in the order of the file.
pub(super) fn kept(scratch: &Index) -> impl Iterator<Item = Result<Kept, IndexError>> {
    Pages::new(|after| scratch.kept_sources(after, PAGE), |kept| kept.number)
}

fn each_note(
    scratch: &Index,
    mut look: impl FnMut(&Note) -> Result<(), IndexError>,
) -> Result<(), IndexError> {
    Pages::new(|after| scratch.notes(after, PAGE), |note| note.line)
        .try_for_each(|note| look(&note?))
}

/// Rows that come page by page, in the order of numbers greater than 0.
struct Pages<T, F, N> {
    load: F,
    number: N,
    page: std::vec::IntoIter<T>,
    last: i64,
}

impl<T, F, N> Pages<T, F, N>
where
    F: FnMut(i64) -> Result<Vec<T>, IndexError>,
    N: Fn(&T) -> i64,
{
    fn new(load: F, number: N) -> Pages<T, F, N> {
        Pages { load, number, page: Vec::new().into_iter(), last: 0 }
    }
}

impl<T, F, N> Iterator for Pages<T, F, N>
where
    F: FnMut(i64) -> Result<Vec<T>, IndexError>,
    N: Fn(&T) -> i64,
{
    type Item = Result<T, IndexError>;

    fn next(&mut self) -> Option<Result<T, IndexError>> {
        if self.page.as_slice().is_empty() {
            match (self.load)(self.last) {
                Ok(page) => self.page = page.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
        let next = self.page.next()?;
        self.last = (self.number)(&next);
        Some(Ok(next))
    }
}

/// The lines that can be restated: the last MAILBOX lines of renamed mailboxes, and the
/// UNMAILBOX lines behind those.
fn restate(survey: &Survey) -> Result<HashMap<i64, Restated>, IndexError> {
    let scratch = &survey.scratch;
    let mut renamed = HashMap::new();
    each_note(scratch, |note| {
        if note.kind != NoteKind::Rename {
            return Ok(());
        }
        for id in scratch.mailboxes_of_note(note.line)? {
            if scratch.is_kept_before(id, note.line)?
                && let Some(row) = scratch.mailbox_with_id(id)?
            {
                renamed.insert(id, row);
            }
        }
        Ok(())
    })?;
    let mut restated = HashMap::new();
    if renamed.is_empty() {
        return Ok(restated);
    }
    for row in renamed.values() {
        restated.insert(row.last_chunk_id, Restated::of(row));
    }
    each_note(scratch, |note| {
        if note.kind != NoteKind::Unmailbox {
            return Ok(());
        }
        for id in scratch.mailboxes_of_note(note.line)? {
            if let Some(row) = renamed.get(&id)
                && row.last_chunk_id < note.line
            {
                restated.insert(note.line, Restated::of(row));
            }
        }
        Ok(())
    })?;
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

/// Keeps the EXPUNGE lines that are needed, which older versions have stored. They count only if
/// the mailbox had the name they say when it was said: the lines from which it had that name stay
/// too. Returns whether one of these would go, or say something else, if lines are restated.
fn keep_expunges(
    scratch: &Index,
    since: Option<i64>,
    restated: &HashMap<i64, Restated>,
) -> Result<bool, IndexError> {
    let mut is_restated = false;
    each_note(scratch, |note| {
        if note.kind != NoteKind::Expunge || !is_needed(scratch, note, since)? {
            return Ok(());
        }
        let mut lines = vec![note.line];
        for id in scratch.mailboxes_of_note(note.line)? {
            let names = scratch.naming_lines(id, note.line)?;
            // All but the last one are RENAMEs.
            is_restated |= names.len() > 1 || names.iter().any(|line| restated.contains_key(line));
            lines.extend(names);
        }
        for line in lines {
            scratch.keep_line(line)?;
            scratch.hold_line(line, note.ts)?;
        }
        Ok(())
    })?;
    Ok(is_restated)
}

/// Whether the state at the end depends on this line.
fn is_needed(scratch: &Index, note: &Note, since: Option<i64>) -> Result<bool, IndexError> {
    let Note { line, ts, kind, text } = note;
    match kind {
        // A later MAILBOX line of the same mailbox says all of it again.
        NoteKind::Rename | NoteKind::Unmailbox => {
            for id in scratch.mailboxes_of_note(*line)? {
                if scratch.is_kept_before(id, *line)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        NoteKind::Script => scratch.is_unsieve_needed(text, *line, *ts, since),
        NoteKind::Expunge | NoteKind::Own => {
            let Ok((name, value)) = parse_item(text) else { return Ok(false) };
            match Apply::read(&name.to_ascii_uppercase(), &value) {
                Ok(Apply::Expunge(expunge)) => scratch.is_expunge_needed(&expunge, *line, *ts),
                // In doubt as long as the state at the end says so.
                Ok(Apply::Own(Own::Incomplete(uniqueid))) => scratch.is_to_be_resent(&uniqueid),
                // The latest word on its subject counts.
                Ok(Apply::Own(own)) => Ok(!scratch.has_later_note(&own.anchor(b""), *line)?),
                _ => Ok(false),
            }
        }
    }
}
