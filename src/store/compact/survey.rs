//! Reads the whole log once: which line does which part of the state come from, and
//! what cannot be read.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;

use super::Damage;
use super::ahead::{self, Chunk};
use super::held::Held;
use crate::store::chunk::{CHUNK_HEADER, MemberError, MemberReader, is_in_one_go};
use crate::store::error::{Result, StoreError};
use crate::store::helpers;
use crate::store::index::{ChunkRow, Index, IndexError, Note, NoteKind, Position, Source};
use crate::store::log::{Hashed, LogError, LogLine};
use crate::store::replay::{Line, Lines, Scanned};
use crate::store::salvage::{Salvage, SavedLines, is_credible};
use crate::wire::Guid;
use crate::wire::apply::Apply;
use crate::wire::dlist::FileHeader;
use crate::wire::own::Own;

/// What the log says. Whatever grows with it is in `scratch`.
pub(super) struct Survey {
    /// The state after all lines, by line, and all that there is to know of chunks and lines.
    pub(super) scratch: Index,
    /// Lines that say what a compaction has dropped, and their anchors.
    pub(super) records_of_compaction: Vec<i64>,
    pub(super) damages: Vec<Damage>,
    /// What can be read of damaged chunks, by their rows.
    pub(super) salvages: HashMap<i64, Salvage>,
    /// Mailboxes that are not what their master last had, and the log does not say so.
    pub(super) doubtful: Vec<Vec<u8>>,
    /// What was read of chunks that are as they should be.
    pub(super) held: Held,
}

impl Survey {
    /// Reads all chunks of `index` in `file`.
    pub(super) fn of(file: &File, path: &Path, index: &Index) -> Result<Survey> {
        let fault = || StoreError::index(path);
        let scratch = Index::scratch().map_err(fault())?;
        scratch.prepare_provenance().and_then(|()| scratch.begin()).map_err(fault())?;
        let (damages, records_of_compaction) = (Vec::new(), Vec::new());
        let (salvages, doubtful, held) = (HashMap::new(), Vec::new(), Held::default());
        let survey = Survey { scratch, records_of_compaction, damages, salvages, doubtful, held };
        let mut reading =
            Reading { file, path, survey, next_line: 1, offset_plain: 0, is_sure: true };
        let mut end = 0;
        let mut rows = index.chunks_by_offset().peekable();
        let rows = std::iter::from_fn(|| {
            let row = rows.next()?;
            let next = rows.peek().and_then(|next| next.as_ref().ok()).map(|next| next.offset);
            Some(row.map(|row| (next.filter(|&next| next > row.offset), row)))
        });
        helpers::in_order(
            rows.map(|row| {
                let (next, row) = row.map_err(fault())?;
                let known = index.restart_points(row.id).map_err(fault())?;
                Ok((row, next.unwrap_or(u64::MAX), known))
            }),
            || (),
            |(), (row, until, known)| {
                let chunk = ahead::read(file, row.offset, until, &known);
                (row, chunk)
            },
            |(row, chunk)| {
                reading.gap(end, row.offset)?;
                let chunk = chunk.map_err(LogError::from).map_err(StoreError::log(path))?;
                end = reading.chunk(row, chunk)?;
                Ok::<(), StoreError>(())
            },
        )?;
        let mut survey = reading.survey;
        if !survey.damages.is_empty() {
            survey.find_lost(index).map_err(fault())?;
        }
        survey.doubtful = survey.newly_doubtful().map_err(fault())?;
        Ok(survey)
    }

    /// Mailboxes that are not what their master last had, which is not to be seen any more when
    /// lines have gone. Of others the log says so, and that line stays.
    fn newly_doubtful(&self) -> std::result::Result<Vec<Vec<u8>>, IndexError> {
        let mut new = Vec::new();
        for uniqueid in self.scratch.doubtful_mailboxes()? {
            if !self.scratch.is_to_be_resent(&uniqueid)? {
                new.push(uniqueid);
            }
        }
        Ok(new)
    }

    /// Messages that the index knows and that are not there any more.
    fn find_lost(&self, index: &Index) -> std::result::Result<(), IndexError> {
        index.each_message(|row| {
            if let Some(guid) = row.guid
                && self.scratch.message(&guid)?.is_none()
            {
                self.scratch.add_lost(&guid)?;
            }
            Ok(())
        })
    }
}

struct Reading<'a> {
    file: &'a File,
    path: &'a Path,
    survey: Survey,
    next_line: i64,
    /// Inflated octets of the chunk in front of what is read next.
    offset_plain: u64,
    /// The line that is entered is sure to be one.
    is_sure: bool,
}

impl Reading<'_> {
    /// Looks at what lies between two chunks: empty members, which mean nothing, or
    /// data that the index does not know, and that will not be taken over.
    fn gap(&mut self, from: u64, to: u64) -> Result<()> {
        let mut at = from;
        while at < to {
            let what = match skip_member(self.file, at) {
                Ok((end, len)) if len <= CHUNK_HEADER.len() as u64 && end <= to => {
                    at = end;
                    continue;
                }
                Ok(_) => "data that the index does not know".to_owned(),
                Err(MemberError::Io { source, .. }) => {
                    return Err(StoreError::io(self.path)(source));
                }
                Err(error) => error.to_string(),
            };
            self.survey.damages.push(Damage { offset_file: at, offset_plain: 0, what });
            break;
        }
        Ok(())
    }

    /// Returns the file offset behind the chunk; where it cannot be read, the offset
    /// of its beginning.
    fn chunk(&mut self, row: ChunkRow, chunk: Chunk) -> Result<u64> {
        let ChunkRow { id, offset, length, data_sha1, .. } = row;
        let lines = self.next_line..self.next_line;
        let mut source = Source { id, offset, length, data_sha1, lines, items: 0, end: None };
        let read = match chunk {
            Chunk::Damaged(damage, salvage) => self.saved(&mut source, damage, salvage),
            Chunk::Whole(scanned) => self.lines(&mut source, scanned),
        };
        let end = match read {
            Ok(end) => end,
            Err(Stop::Store(error)) => return Err(error),
            Err(Stop::Log(LogError::Member(MemberError::Io { source, .. }))) => {
                return Err(StoreError::io(self.path)(source));
            }
            Err(Stop::Log(error)) => {
                self.damage(&source, error.to_string());
                // What cannot be read has no end that is known.
                skip_member(self.file, offset).map_or(u64::MAX, |(end, _)| end)
            }
        };
        source.lines.end = self.next_line;
        self.survey.scratch.add_source(&source).map_err(StoreError::index(self.path))?;
        Ok(end)
    }

    fn damage(&mut self, source: &Source, what: String) {
        let (offset_file, offset_plain) = (source.offset, self.offset_plain);
        self.survey.damages.push(Damage { offset_file, offset_plain, what });
    }

    fn lines(&mut self, source: &mut Source, scanned: Scanned) -> std::result::Result<u64, Stop> {
        self.offset_plain = 0;
        let (file, offset) = (self.file, source.offset);
        let totals = &scanned.totals;
        let in_one_go = is_in_one_go(file, offset, totals.len_plain, totals.end);
        if in_one_go.map_err(|error| Stop::Store(StoreError::io(self.path)(error)))? {
            self.survey.scratch.expect_missing_lines();
        }
        let mut failed = None;
        let mut take = |Line { line, bodies, end_plain }: &Line| {
            self.offset_plain = line.offset;
            match self.line(source, line, bodies) {
                Ok(items) => {
                    source.items += items;
                    self.offset_plain = *end_plain;
                }
                Err(error) => failed = Some(error),
            }
            failed.is_none()
        };
        match &scanned.lines {
            Lines::Held(lines, _) => lines.iter().all(&mut take),
            Lines::TooLong => ahead::each(file, offset, take)?,
        };
        if let Some(error) = failed {
            return Err(error.into());
        }
        let (end, length, sha1) = (totals.end, totals.len_plain, &totals.data_sha1);
        if let Lines::Held(_, Some(fault)) = scanned.lines {
            return Err(fault.into());
        }
        if (length, sha1) == (source.length, &source.data_sha1) {
            source.end = Some(end);
            self.survey.held.add(source.id, scanned);
        } else {
            let index = format!("{} octets {} in index", source.length, source.data_sha1);
            self.damage(source, format!("{length} octets {sha1} on disk, {index}"));
        }
        Ok(end)
    }

    /// Enters what can be read of a damaged chunk. Its end is not known.
    fn saved(
        &mut self,
        source: &mut Source,
        damage: MemberError,
        salvage: Salvage,
    ) -> std::result::Result<u64, Stop> {
        let offset_file = source.offset;
        let tell = |(offset_plain, what)| Damage { offset_file, offset_plain, what };
        let gaps = salvage.gaps.iter().map(|gap| {
            let (from, to) = (gap.from, gap.to);
            (gap.plain.0, format!("{damage}: octets {from} to {to} of the file cannot be read"))
        });
        self.survey.damages.extend(gaps.map(tell));
        if salvage.gaps.is_empty() {
            self.survey.damages.push(tell((0, damage.to_string())));
        }
        let mut lines = SavedLines::new(self.file, &salvage);
        let mut bodies = Hashed::default();
        loop {
            let line = lines.next_line(&mut bodies)?;
            if lines.take_gap() {
                let missed = self.survey.scratch.miss_lines();
                missed.map_err(|error| Stop::Store(StoreError::index(self.path)(error)))?;
            }
            let Some(line) = line else { break };
            self.offset_plain = line.offset;
            self.is_sure = lines.is_sure();
            source.items += self.line(source, &line, &std::mem::take(&mut bodies.found))?;
        }
        self.is_sure = true;
        self.survey.salvages.insert(source.id, salvage);
        Ok(u64::MAX)
    }

    /// Enters a line; returns how many messages and records it has.
    fn line(&mut self, source: &Source, line: &LogLine, bodies: &[(Guid, Guid)]) -> Result<u64> {
        let fault = || StoreError::index(self.path);
        let id = self.survey.scratch.add_line(line.ts).map_err(fault())?;
        self.next_line = id + 1;
        let (name, value) = match line.item() {
            Ok(item) => item,
            Err(error) => {
                self.damage(source, error.to_string());
                return Ok(0);
            }
        };
        let scratch = &self.survey.scratch;
        // What was refused when it came in has no effect, and stays out.
        let Ok(apply) = Apply::read(&name, &value) else {
            scratch.add_idle_line(id).map_err(fault())?;
            return Ok(0);
        };
        // Nor does what may be something inside a message.
        if !self.is_sure && !is_credible(scratch, &apply).map_err(fault())? {
            scratch.add_idle_line(id).map_err(fault())?;
            return Ok(0);
        }
        if is_of_compaction(&apply) {
            self.survey.records_of_compaction.push(id);
        }
        if is_of_compaction(&apply) || matches!(apply, Apply::Reserve) {
            scratch.add_idle_line(id).map_err(fault())?;
        }
        if let Apply::Message(files) = &apply {
            self.messages(source, id, line, files, bodies)?;
            return Ok(files.len() as u64);
        }
        note(scratch, id, line, &apply).map_err(fault())?;
        let at = Position { chunk_id: id, ts: line.ts, offset: line.offset };
        scratch.apply(at, &apply).map_err(fault())?;
        let Apply::Mailbox(mailbox) = &apply else { return Ok(0) };
        if let Some(row) = scratch.mailbox_with_uniqueid(&mailbox.uniqueid).map_err(fault())? {
            scratch.add_naming_line(id, row.id, false).map_err(fault())?;
        }
        // Records of one UID stay or go together.
        let mut uids = HashSet::new();
        for record in mailbox.records().filter_map(std::result::Result::ok) {
            uids.insert(record.uid);
            if record.expunged {
                let added = scratch.add_expunged_item(id, line.ts, &mailbox.uniqueid, record.uid);
                added.map_err(fault())?;
            }
        }
        scratch.add_left_out(id, &uids).map_err(fault())?;
        Ok(uids.len() as u64)
    }

    /// Enters the first sound copy of each message: records that follow a later copy
    /// follow it too, those in between would precede the later one.
    fn messages(
        &mut self,
        source: &Source,
        id: i64,
        line: &LogLine,
        files: &[FileHeader],
        bodies: &[(Guid, Guid)],
    ) -> Result<()> {
        let at = Position { chunk_id: id, ts: line.ts, offset: line.offset };
        for (i, file) in files.iter().enumerate() {
            if bodies.get(i).is_some_and(|(_, content)| *content == file.guid) {
                let added = self.survey.scratch.add_first_copy(at, file);
                added.map_err(StoreError::index(self.path))?;
            } else {
                self.damage(source, format!("message {} is damaged", file.guid));
            }
        }
        Ok(())
    }
}

/// Notes a line that is needed or not depending on the state at the end, before it is entered.
fn note(
    scratch: &Index,
    id: i64,
    line: &LogLine,
    apply: &Apply<'_>,
) -> std::result::Result<(), IndexError> {
    let mut mailboxes = Vec::new();
    let mut subject = None;
    let (kind, text) = match apply {
        Apply::Unmailbox(name) => {
            mailboxes = scratch.mailboxes_called(name)?;
            (NoteKind::Unmailbox, Vec::new())
        }
        Apply::Rename(rename) => {
            mailboxes = scratch.mailboxes_called(&rename.from)?;
            let mut renamed = mailboxes.iter();
            renamed.try_for_each(|mailbox| scratch.add_naming_line(id, *mailbox, true))?;
            (NoteKind::Rename, Vec::new())
        }
        Apply::Unsieve(script) => (NoteKind::Script, script.filename.clone()),
        Apply::Expunge(expunge) => {
            let row = scratch.mailbox_with_uniqueid(&expunge.uniqueid)?;
            mailboxes.extend(row.map(|row| row.id));
            (NoteKind::Expunge, line.text().to_vec())
        }
        Apply::Own(own) => {
            subject = Some(own.anchor(b""));
            (NoteKind::Own, line.text().to_vec())
        }
        _ => return Ok(()),
    };
    let note = Note { line: id, ts: line.ts, kind, text };
    scratch.add_note(&note, &mailboxes, subject.as_deref())
}

/// Whether a line says what a compaction has dropped, or keeps such a line alive.
fn is_of_compaction(apply: &Apply<'_>) -> bool {
    match apply {
        Apply::Own(own) => matches!(own, Own::Compacted(_)),
        Apply::Seen(seen) => seen.uniqueid == Own::compaction_anchor(),
        _ => false,
    }
}

/// Why the reading of a chunk ended before its end.
enum Stop {
    Log(LogError),
    Store(StoreError),
}

impl From<LogError> for Stop {
    fn from(error: LogError) -> Stop {
        Stop::Log(error)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Stop {
        Stop::Store(error)
    }
}

/// File offset behind the member at `offset`, and its inflated length.
fn skip_member(file: &File, offset: u64) -> std::result::Result<(u64, u64), MemberError> {
    let mut reader = MemberReader::open(file, offset)?;
    let mut buffer = vec![0; 1 << 16];
    while reader.read(&mut buffer)? > 0 {}
    Ok((reader.offset_file(), reader.len_plain()))
}
