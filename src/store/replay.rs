//! Members of a data file to rows of an index.

mod again;
mod ahead;
mod scan;

use std::io;
use std::path::Path;

use sha1::{Digest, Sha1};

use super::chunk::{MemberError, MemberReader, is_in_one_go};
use super::disk::Disk;
use super::error::{Result, StoreError};
use super::file_hash::FileHash;
use super::helpers;
use super::index::{Index, Position, RestartPoint};
use super::log::{LogError, LogLine, LogReader, NoBodies};
use super::salvage::{self, Gap, Salvage, SavedLines};
use crate::wire::Guid;
use crate::wire::apply::Apply;
use crate::wire::dlist::FileHeader;
pub use again::Damage;
pub(super) use again::again;
pub(super) use scan::{
    Line, Lines, Scanned, member as scan_member, member_hashing as scan_member_hashing,
};

/// Enters members into an index, from the front of the file to its end.
pub(super) struct Replay<'a> {
    pub(super) disk: &'a dyn Disk,
    /// The data file, for messages.
    pub(super) path: &'a Path,
    pub(super) index: &'a Index,
    /// Of the octets in front of the last member looked at.
    pub(super) hash: FileHash,
    /// Newest time stamp so far.
    pub(super) last_ts: i64,
    /// Restart points that another index has, in the order of the file.
    pub(super) known: &'a [RestartPoint],
}

/// What a stretch of a data file is.
#[derive(Debug)]
pub enum Stretch {
    /// A whole member.
    Member {
        /// Its offset in the file.
        offset: u64,
    },
    /// The file ends inside this member; its complete lines are kept.
    Torn {
        /// Its offset in the file.
        offset: u64,
    },
    /// Octets that are no whole member.
    Damaged {
        /// Where they begin.
        offset: u64,
        /// Where the next readable member begins, or the end of the file.
        end: u64,
        /// Why they cannot be read.
        source: MemberError,
        /// What of it is lost.
        gaps: Vec<Gap>,
        /// Lines that could be read nevertheless; 0 if the file was cut.
        lines: u64,
    },
}

/// Accompanies a walk over members.
pub(super) trait Passing {
    /// The member at `offset` was entered.
    fn whole(&mut self, offset: u64);

    /// The one at `at` cannot be, for this reason. Returns where to go on; `None` if that was
    /// the end.
    fn broken(
        &mut self,
        replay: &mut Replay<'_>,
        at: u64,
        what: MemberError,
    ) -> Result<Option<u64>>;
}

/// What was found where a member should begin.
pub(super) enum Member {
    /// It was entered, and ends here.
    Complete { end: u64 },
    /// Nothing was entered.
    Broken(MemberError),
}

/// What a member, or the good part of one, holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Totals {
    /// File offset behind it.
    pub(super) end: u64,
    /// Inflated octets.
    pub(super) len_plain: u64,
    /// SHA-1 of these, hex.
    pub(super) data_sha1: String,
}

impl Replay<'_> {
    /// Enters the member at `at`, if it is complete before `len`.
    pub(super) fn member(&mut self, at: u64, len: u64) -> Result<Member> {
        let scanned = scan::member(self.disk, at, len);
        self.scanned(at, scanned)
    }

    /// Enters the members in `from..len`, several of which are read at a time.
    pub(super) fn members(&mut self, from: u64, len: u64, passing: &mut dyn Passing) -> Result<()> {
        let (disk, path) = (self.disk, self.path);
        // `None`: there is no more.
        let mut next = Some(from);
        let marks = ahead::Marks::new(disk, from, len).map(|at| at.map_err(StoreError::io(path)));
        helpers::in_order(
            marks,
            || (),
            |(), mark| (mark, scan::chunk(disk, mark, len)),
            |(mark, scanned)| {
                while let Some(at) = next.filter(|&at| at < mark) {
                    next = self.pass(at, scan::member(disk, at, len), passing)?;
                }
                if next == Some(mark) {
                    let scanned = match scanned.transpose() {
                        Some(scanned) => scanned,
                        None => scan::member(disk, mark, len),
                    };
                    next = self.pass(mark, scanned, passing)?;
                }
                Ok(())
            },
        )?;
        while let Some(at) = next.filter(|&at| at < len) {
            next = self.pass(at, scan::member(disk, at, len), passing)?;
        }
        Ok(())
    }

    /// Enters a member, and returns where the next one begins.
    fn pass(
        &mut self,
        at: u64,
        scanned: std::result::Result<Scanned, MemberError>,
        passing: &mut dyn Passing,
    ) -> Result<Option<u64>> {
        match self.scanned(at, scanned)? {
            Member::Complete { end } => {
                passing.whole(at);
                Ok(Some(end))
            }
            Member::Broken(what) => passing.broken(self, at, what),
        }
    }

    fn scanned(
        &mut self,
        at: u64,
        scanned: std::result::Result<Scanned, MemberError>,
    ) -> Result<Member> {
        let Scanned { totals, points, lines, .. } = match scanned {
            Ok(scanned) => scanned,
            Err(MemberError::Io { source, .. }) => return Err(StoreError::io(self.path)(source)),
            Err(what) => return Ok(Member::Broken(what)),
        };
        let end = totals.end;
        if is_in_one_go(self.disk, at, totals.len_plain, end).map_err(self.io())? {
            self.index.expect_missing_lines();
        }
        match lines {
            Lines::Held(lines, fault) => {
                let mut chunk = self.chunk(at)?;
                lines.iter().try_for_each(|line| self.line(&mut chunk, &line.line))?;
                fault.iter().for_each(|fault| self.tell_unreadable(at, fault));
                self.end(&chunk, &totals, points)?;
            }
            Lines::TooLong => self.enter(at, &totals, points)?,
        }
        Ok(Member::Complete { end })
    }

    /// What can be read of the damaged member at `at`, as if the file ended at `len`.
    pub(super) fn salvage(&self, at: u64, len: u64) -> Result<Salvage> {
        Salvage::of_member(self.disk, at, len, self.known).map_err(self.io())
    }

    /// Enters the lines of the damaged member at `at`.
    pub(super) fn saved(&mut self, at: u64, salvage: &Salvage) -> Result<()> {
        let mut chunk = self.chunk(at)?;
        let mut lines = SavedLines::new(self.disk, salvage);
        // Nobody knows that of the whole chunk.
        let mut sha1 = Sha1::new();
        loop {
            let line = lines.next_line(&mut NoBodies).map_err(|error| self.log(error))?;
            if lines.take_gap() {
                self.index.miss_lines().map_err(StoreError::index(self.path))?;
            }
            match line {
                Some(line) => {
                    sha1.update(line.text());
                    if !lines.is_sure() && !self.is_credible(&line)? {
                        continue;
                    }
                    let at = self.position(&mut chunk, &line)?;
                    match lines.are_sound().contains(&false) {
                        false => self.enter_line(&line, at)?,
                        true => self.enter_sound(&line, at, lines.are_sound())?,
                    }
                }
                None => break,
            }
        }
        let end = salvage.runs.last().map_or(at, |run| run.end);
        let len_plain = salvage.end_plain();
        let data_sha1 = hex(sha1);
        self.end(&chunk, &Totals { end, len_plain, data_sha1 }, salvage.points().collect())
    }

    /// Enters the lines of a member one by one.
    fn enter(&mut self, at: u64, totals: &Totals, points: Vec<RestartPoint>) -> Result<()> {
        let member = MemberReader::open_until(self.disk, at, totals.end);
        let mut reader = LogReader::over(member.map_err(|e| self.log(e.into()))?);
        let mut chunk = self.chunk(at)?;
        while let Some(line) = self.next_line(&mut reader, at)? {
            self.line(&mut chunk, &line)?;
        }
        self.end(&chunk, totals, points)
    }

    /// A chunk that begins at `at`; it has no row before it has a line.
    fn chunk(&mut self, at: u64) -> Result<Chunk> {
        self.hash.update_from(self.disk, at).map_err(self.io())?;
        Ok(Chunk { at, id: None })
    }

    fn line(&mut self, chunk: &mut Chunk, line: &LogLine) -> Result<()> {
        let at = self.position(chunk, line)?;
        self.enter_line(line, at)
    }

    fn position(&mut self, chunk: &mut Chunk, line: &LogLine) -> Result<Position> {
        let id = match chunk.id {
            Some(id) => id,
            None => {
                let id = self.index.start_chunk(line.ts, chunk.at, &self.hash.hex());
                *chunk.id.insert(id.map_err(StoreError::index(self.path))?)
            }
        };
        self.last_ts = self.last_ts.max(line.ts);
        Ok(Position { chunk_id: id, ts: line.ts, offset: line.offset })
    }

    fn is_credible(&self, line: &LogLine) -> Result<bool> {
        let Ok((name, value)) = line.item() else { return Ok(false) };
        let Ok(apply) = Apply::read(&name, &value) else { return Ok(false) };
        salvage::is_credible(self.index, &apply).map_err(StoreError::index(self.path))
    }

    /// Enters those messages of a line that are what they should be.
    fn enter_sound(&self, line: &LogLine, at: Position, are_sound: &[bool]) -> Result<()> {
        let Some(files) = sound_messages(line, are_sound) else { return Ok(()) };
        let entered = self.index.apply(at, &Apply::Message(files));
        entered.map_err(StoreError::index(self.path))
    }

    fn end(&self, chunk: &Chunk, totals: &Totals, points: Vec<RestartPoint>) -> Result<()> {
        let Some(id) = chunk.id else { return Ok(()) };
        points
            .into_iter()
            .try_for_each(|point| self.index.add_restart_point(id, point))
            .and_then(|()| {
                self.index.end_chunk(id, self.last_ts, totals.len_plain, &totals.data_sha1)
            })
            .map_err(StoreError::index(self.path))
    }

    /// `None` at the end, and where nothing more can be understood.
    fn next_line(&self, reader: &mut LogReader<'_>, at: u64) -> Result<Option<LogLine>> {
        match reader.next_line(&mut NoBodies) {
            Ok(line) => Ok(line),
            Err(error @ LogError::Member(MemberError::Io { .. })) => Err(self.log(error)),
            Err(error) => {
                self.tell_unreadable(at, &error);
                Ok(None)
            }
        }
    }

    fn tell_unreadable(&self, at: u64, error: &LogError) {
        tracing::error!(file = %self.path.display(), member = at, %error,
            "rest of the chunk is not readable");
    }

    /// A line that cannot be indexed was refused when it came in; Cyrus leaves
    /// such lines in the file.
    pub(super) fn enter_line(&self, line: &LogLine, at: Position) -> Result<()> {
        let (name, value) = match line.item() {
            Ok(item) => item,
            Err(error) => {
                tracing::warn!(file = %self.path.display(), %error, "line passed over");
                return Ok(());
            }
        };
        match Apply::read(&name, &value) {
            Ok(apply) => self.index.apply(at, &apply).map_err(StoreError::index(self.path)),
            Err(reject) => {
                tracing::warn!(file = %self.path.display(), offset = line.offset, %reject,
                    "line passed over");
                Ok(())
            }
        }
    }

    fn io(&self) -> impl FnOnce(io::Error) -> StoreError {
        StoreError::io(self.path)
    }

    fn log(&self, error: LogError) -> StoreError {
        StoreError::log(self.path)(error)
    }
}

/// Of the messages of a line those whose flag is set.
pub(super) fn sound_messages(line: &LogLine, are_sound: &[bool]) -> Option<Vec<FileHeader>> {
    let (name, value) = line.item().ok()?;
    let Ok(Apply::Message(files)) = Apply::read(&name, &value) else { return None };
    let sound = files.into_iter().zip(are_sound).filter(|(_, is_sound)| **is_sound);
    Some(sound.map(|(file, _)| file).collect())
}

/// A chunk whose lines are being entered.
struct Chunk {
    at: u64,
    id: Option<i64>,
}

/// What the complete member at `offset` holds, as if the file ended at `len`.
pub(super) fn totals(
    disk: &dyn Disk,
    offset: u64,
    len: u64,
) -> std::result::Result<Totals, MemberError> {
    let mut count = Count::default();
    let mut reader = MemberReader::open_until(disk, offset, len)?;
    count.read(&mut reader)?;
    Ok(count.totals(reader.offset_file()))
}

#[derive(Default)]
struct Count {
    len_plain: u64,
    sha1: Sha1,
}

impl Count {
    fn read(&mut self, reader: &mut MemberReader<'_>) -> std::result::Result<(), MemberError> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(()),
                len => {
                    self.len_plain += len as u64;
                    self.sha1.update(&buffer[..len]);
                }
            }
        }
    }

    fn totals(self, end: u64) -> Totals {
        Totals { end, len_plain: self.len_plain, data_sha1: hex(self.sha1) }
    }
}

fn hex(sha1: Sha1) -> String {
    Guid::from(<[u8; 20]>::from(sha1.finalize())).to_string()
}
