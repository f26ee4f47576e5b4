//! Reads the whole log once: which line does which part of the state come from, and
//! what cannot be read.

use std::collections::HashSet;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

use super::Damage;
use super::ahead::{self, Bodies, Chunk, End, Line};
use crate::store::chunk::{CHUNK_HEADER, MemberError, MemberReader};
use crate::store::error::{Result, StoreError};
use crate::store::helpers;
use crate::store::index::{ChunkRow, Index, IndexError, Position};
use crate::store::log::{LogError, LogLine};
use crate::store::salvage::{Salvage, SavedLines, is_credible};
use crate::wire::Guid;
use crate::wire::apply::Apply;
use crate::wire::dlist::FileHeader;
use crate::wire::own::Own;

/// What the log says.
pub(super) struct Survey {
    /// The state after all lines, by line.
    pub(super) scratch: Index,
    /// The chunks that the index knows, in the order of the file.
    pub(super) chunks: Vec<Source>,
    /// Lines that are needed or not depending on the state at the end.
    pub(super) notes: Vec<Note>,
    /// Lines that change nothing, in order.
    pub(super) without_effect: Vec<i64>,
    /// Lines that say what a compaction has dropped, and their anchors.
    pub(super) records_of_compaction: Vec<i64>,
    /// All MAILBOX lines, each with the row of its mailbox.
    pub(super) mailbox_lines: Vec<(i64, i64)>,
    pub(super) damages: Vec<Damage>,
    /// Mailboxes that may not be what their master last had, because of damage.
    pub(super) doubtful: Vec<Vec<u8>>,
    /// Octets of the data file.
    pub(super) len_file: u64,
}

/// A chunk as it is.
pub(super) struct Source {
    pub(super) row: ChunkRow,
    /// Its lines.
    pub(super) lines: Range<i64>,
    /// Messages and records in them.
    pub(super) items: u64,
    /// File offset behind it, if it is whole and what its row says.
    pub(super) end: Option<u64>,
    /// What can be read of it, if it is damaged.
    pub(super) salvage: Option<Salvage>,
}

/// A line that changes or ends what earlier ones have said.
pub(super) struct Note {
    pub(super) line: i64,
    pub(super) ts: i64,
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    /// RENAME of these mailboxes.
    Rename(Vec<i64>),
    /// UNMAILBOX of these mailboxes.
    Unmailbox(Vec<i64>),
    /// UNSIEVE of this script.
    Script(Vec<u8>),
    /// EXPUNGE; its text.
    Expunge(Vec<u8>),
    /// Something that Cyrus's log cannot say.
    Own(Own),
}

impl Survey {
    /// Reads all chunks of `index` in `file`.
    pub(super) fn of(file: &File, path: &Path, index: &Index) -> Result<Survey> {
        let fault = || StoreError::index(path);
        let scratch = Index::scratch().map_err(fault())?;
        scratch.prepare_provenance().and_then(|()| scratch.begin()).map_err(fault())?;
        let known = index.all_restart_points().map_err(fault())?;
        let mut rows = index.chunks().map_err(fault())?;
        rows.sort_by_key(|row| row.offset);
        let len_file = file.metadata().map_err(StoreError::io(path))?.len();
        let (chunks, notes, damages) = (Vec::new(), Vec::new(), Vec::new());
        let mailbox_lines = Vec::new();
        let (without_effect, records_of_compaction) = (Vec::new(), Vec::new());
        let survey = Survey {
            scratch,
            chunks,
            notes,
            without_effect,
            records_of_compaction,
            mailbox_lines,
            damages,
            doubtful: Vec::new(),
            len_file,
        };
        let mut reading =
            Reading { file, path, survey, next_line: 1, offset_plain: 0, is_sure: true };
        let mut end = 0;
        helpers::in_order(
            rows.into_iter().map(Ok),
            || (),
            |(), row| {
                let chunk = ahead::read(file, row.offset, &known);
                (row, chunk)
            },
            |(row, chunk)| {
                reading.gap(end, row.offset)?;
                end = reading.chunk(row, chunk)?;
                Ok::<(), StoreError>(())
            },
        )?;
        let mut survey = reading.survey;
        if !survey.damages.is_empty() {
            survey.find_lost(index).map_err(fault())?;
            survey.doubtful = survey.scratch.doubtful_mailboxes().map_err(fault())?;
        }
        Ok(survey)
    }

    /// The lines of a chunk that change something.
    pub(super) fn with_effect(&self, source: &Source) -> impl Iterator<Item = i64> {
        let is_idle = |line: &i64| self.without_effect.binary_search(line).is_ok();
        source.lines.clone().filter(move |line| !is_idle(line))
    }

    /// Messages that the index knows and that are not there any more.
    fn find_lost(&self, index: &Index) -> std::result::Result<(), IndexError> {
        for row in index.messages()? {
            if let Some(guid) = row.guid
                && self.scratch.message(&guid)?.is_none()
            {
                self.scratch.add_lost(&guid)?;
            }
        }
        Ok(())
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
        let lines = self.next_line..self.next_line;
        let mut source = Source { lines, items: 0, end: None, row, salvage: None };
        let offset = source.row.offset;
        let read = match chunk {
            Chunk::Damaged(damage, salvage) => self.saved(&mut source, damage, salvage),
            chunk => self.lines(&mut source, chunk),
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
        self.survey.chunks.push(source);
        Ok(end)
    }

    fn damage(&mut self, source: &Source, what: String) {
        let (offset_file, offset_plain) = (source.row.offset, self.offset_plain);
        self.survey.damages.push(Damage { offset_file, offset_plain, what });
    }

    fn lines(&mut self, source: &mut Source, chunk: Chunk) -> std::result::Result<u64, Stop> {
        self.offset_plain = 0;
        let (file, offset) = (self.file, source.row.offset);
        let mut failed = None;
        let mut take = |Line { line, bodies, end_plain }: Line| {
            self.offset_plain = line.offset;
            match self.line(source, &line, &bodies) {
                Ok(items) => {
                    source.items += items;
                    self.offset_plain = end_plain;
                }
                Err(error) => failed = Some(error),
            }
            failed.is_none()
        };
        let end = match chunk {
            Chunk::Held(lines, end) => match lines.into_iter().all(&mut take) {
                true => end.map(Some),
                false => Ok(None),
            },
            Chunk::TooLong => ahead::each(file, offset, take),
            Chunk::Damaged(..) => Ok(None),
        };
        if let Some(error) = failed {
            return Err(error.into());
        }
        let Some(End { offset_file: end, length, sha1 }) = end? else { return Ok(u64::MAX) };
        if (length, &sha1) == (source.row.length, &source.row.data_sha1) {
            source.end = Some(end);
        } else {
            let row = &source.row;
            self.damage(
                source,
                format!(
                    "{length} octets {sha1} on disk, {} octets {} in index",
                    row.length, row.data_sha1
                ),
            );
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
        let offset_file = source.row.offset;
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
        let mut bodies = Bodies::default();
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
        source.salvage = Some(salvage);
        Ok(u64::MAX)
    }

    /// Enters a line; returns how many messages and records it has.
    fn line(&mut self, source: &Source, line: &LogLine, bodies: &[Guid]) -> Result<u64> {
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
            self.survey.without_effect.push(id);
            return Ok(0);
        };
        // Nor does what may be something inside a message.
        if !self.is_sure && !is_credible(scratch, &apply).map_err(fault())? {
            self.survey.without_effect.push(id);
            return Ok(0);
        }
        if is_of_compaction(&apply) {
            self.survey.records_of_compaction.push(id);
        }
        if is_of_compaction(&apply) || matches!(apply, Apply::Reserve) {
            self.survey.without_effect.push(id);
        }
        let mut items = 0;
        let kind = match &apply {
            Apply::Message(files) => {
                self.messages(source, id, line, files, bodies)?;
                return Ok(files.len() as u64);
            }
            Apply::Mailbox(mailbox) => {
                // Records of one UID stay or go together.
                let uids = mailbox.records().filter_map(|record| Some(record.ok()?.uid));
                items = uids.collect::<HashSet<u32>>().len() as u64;
                None
            }
            Apply::Unmailbox(name) => {
                Some(Kind::Unmailbox(scratch.mailboxes_called(name).map_err(fault())?))
            }
            Apply::Rename(rename) => {
                Some(Kind::Rename(scratch.mailboxes_called(&rename.from).map_err(fault())?))
            }
            Apply::Unsieve(script) => Some(Kind::Script(script.filename.clone())),
            Apply::Expunge(_) => Some(Kind::Expunge(line.text().to_vec())),
            Apply::Own(own) => Some(Kind::Own(own.clone())),
            _ => None,
        };
        let at = Position { chunk_id: id, ts: line.ts, offset: line.offset };
        scratch.apply(at, &apply).map_err(fault())?;
        if let Apply::Mailbox(mailbox) = &apply {
            let row = scratch.mailbox_with_uniqueid(&mailbox.uniqueid).map_err(fault())?;
            self.survey.mailbox_lines.extend(row.map(|row| (id, row.id)));
            scratch.add_expunged_items(id, line.ts, mailbox).map_err(fault())?;
        }
        if let Some(kind) = kind {
            self.survey.notes.push(Note { line: id, ts: line.ts, kind });
        }
        Ok(items)
    }

    /// Enters the first sound copy of each message: records that follow a later copy
    /// follow it too, those in between would precede the later one.
    fn messages(
        &mut self,
        source: &Source,
        id: i64,
        line: &LogLine,
        files: &[FileHeader],
        bodies: &[Guid],
    ) -> Result<()> {
        let fault = || StoreError::index(self.path);
        let mut sound = Vec::new();
        let mut damaged = Vec::new();
        for (i, file) in files.iter().enumerate() {
            if bodies.get(i) != Some(&file.guid) {
                damaged.push(file.guid);
            } else if self.survey.scratch.message(&file.guid).map_err(fault())?.is_none() {
                sound.push(file.clone());
            }
        }
        let at = Position { chunk_id: id, ts: line.ts, offset: line.offset };
        self.survey.scratch.apply(at, &Apply::Message(sound)).map_err(fault())?;
        for guid in damaged {
            self.damage(source, format!("message {guid} is damaged"));
        }
        Ok(())
    }
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
