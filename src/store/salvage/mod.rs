//! What can be read of a damaged member: its lines, with gaps.
//!
//! A damaged chunk costs what is unreadable and no more. In front of damage everything that
//! [`walk`] relies upon is kept; behind it reading begins again at the next place where deflate
//! needs nothing of what is lost ([`search`]), and so on to the end of the member.
//!
//! An index says of a message's place how many inflated octets of the chunk are in front of it.
//! How many a gap had is known in two cases: an index has the restart point behind it, or the run
//! behind it ends with the member, whose last octets say how many there were in all. Else a number
//! is made up: the least that is possible. It is as good as the true one, for it goes into the
//! index's table of restart points, through which alone that place can be read; and it is
//! found there again by everybody who reads the chunk later.
//!
//! `docs/durability.md` says what this relies upon.

mod read;
mod search;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_backup;
mod walk;

use std::io;

use super::backup::Backup;
use super::chunk::{MEMBER_HEADER, MemberError, MemberReader};
use super::disk::Disk;
use super::index::{ChunkRow, Index, IndexError, RestartPoint};
use super::torn;
use crate::wire::apply::Apply;
pub(super) use read::SavedLines;
use search::Search;
use walk::{Good, Walk};

/// Octets of a trailer: CRC-32 and length.
const TRAILER: u64 = 8;
/// What deflate makes of an octet at most, and then some.
const EXPANSION: u64 = 1100;

/// What can be read of a member.
#[derive(Debug, Default)]
pub(super) struct Salvage {
    /// Lines that follow each other, in the order of the file.
    pub(super) runs: Vec<Run>,
    /// What lies between, in front of and behind them, of this member.
    pub(super) gaps: Vec<Gap>,
    /// Where the next readable member begins.
    pub(super) next: Option<u64>,
}

/// Lines that can be read without a gap.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// File offset at which inflating begins.
    pub(super) start: u64,
    /// Inflated octets of the chunk in front of that.
    pub(super) offset_plain: u64,
    /// File offset behind what is needed for the last line.
    pub(super) end: u64,
    /// Inflated octets of the chunk up to the end of the last line.
    pub(super) end_plain: u64,
    /// It begins with the member.
    is_head: bool,
    pub(super) lines: u64,
    /// Lines in front of this offset may be something inside a message.
    sure_from: u64,
    /// Inflated octets in front of it, if an index knows.
    by_index: Option<u64>,
    /// Further places in it where reading can begin.
    points: Vec<RestartPoint>,
    /// File offset behind the last block, if this run goes on up to there.
    member_end: Option<u64>,
    /// Inflated octets of the whole member, if this run ends with it.
    total: Option<u64>,
}

/// Octets of a member that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// File offset of the first.
    pub from: u64,
    /// File offset behind the last.
    pub to: u64,
    /// Inflated octets of the chunk in front of it, and up to its end, if that is known.
    pub plain: (u64, Option<u64>),
}

/// Where a chunk at `offset` ends at the latest, if the index has the one behind it at `next`.
pub(super) fn limit(offset: u64, next: Option<u64>) -> u64 {
    next.filter(|&next| next > offset).unwrap_or(u64::MAX)
}

/// Places in a damaged chunk where reading can begin again, for who reads by an index without
/// restart points, which Cyrus's is. What is in front of them is known as far as the chunk's end
/// says it.
pub(super) fn points(backup: &Backup, chunk: &ChunkRow) -> io::Result<Vec<RestartPoint>> {
    let mut next = backup.index().chunks_by_offset().filter_map(|row| row.ok());
    let next = next.find(|row| row.offset > chunk.offset).map(|row| row.offset);
    let len = backup.len_file().map_err(io::Error::other)?;
    let until = limit(chunk.offset, next).min(len);
    let salvage = Salvage::of_member(backup.file(), chunk.offset, until, &[])?;
    Ok(salvage.points().collect())
}

impl Salvage {
    /// Looks for what can be read of the damaged member at `offset` of a file of `len` octets.
    /// `known` are restart points that an index has for it, in the order of the file.
    pub(super) fn of_member(
        disk: &dyn Disk,
        offset: u64,
        len: u64,
        known: &[RestartPoint],
    ) -> io::Result<Salvage> {
        let (mut runs, mut from) = (Vec::new(), offset + 1);
        // A member that goes on to the end of the file was torn, and nothing follows.
        let mut is_damaged = true;
        match MemberReader::open_until(disk, offset, len) {
            Ok(member) => {
                let start = member.offset_file();
                let mut walk = Walk::new(false, known, 0, Some(0));
                search::run(&mut walk, disk, start, len)?;
                is_damaged = walk.has_stopped();
                let (good, points) = walk.finish();
                from = good.end.max(start);
                let run = Run::new(disk, start, good, points)?;
                runs.push(Run { is_head: true, ..run });
            }
            Err(MemberError::Io { source, .. }) => return Err(source),
            Err(_) => {}
        }
        let mut search = Search::new(disk, len, known);
        let mut next = torn::next_member(disk, from, len)?;
        if next.is_none() && is_damaged {
            next = next_torn(disk, from, len)?;
        }
        while !ends_member(disk, &runs, len, &mut next)?
            && let Some(start) = search.next(from, next.unwrap_or(len))?
        {
            from = start.good.end;
            runs.push(Run::new(disk, start.at, start.good, start.points)?);
            // What lies inside a message is no member.
            if next.is_some_and(|next| next < from) {
                next = torn::next_member(disk, from, len)?;
            }
        }
        let mut salvage = Salvage { runs, gaps: Vec::new(), next };
        salvage.place(known);
        salvage.find_gaps(offset, len);
        salvage.runs.retain(|run| run.lines > 0);
        Ok(salvage)
    }

    /// Lines that count.
    pub(super) fn lines(&self) -> u64 {
        self.runs.iter().map(|run| run.lines).sum()
    }

    /// Inflated octets up to the end of the last line.
    pub(super) fn end_plain(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.end_plain)
    }

    /// Whether the last run ends with the member.
    pub(super) fn has_end(&self) -> bool {
        self.runs.last().is_some_and(|run| run.member_end.is_some())
    }

    /// Places where reading can begin: in front of each run behind a gap at least.
    pub(super) fn points(&self) -> impl Iterator<Item = RestartPoint> {
        self.runs.iter().flat_map(|run| {
            let (offset_plain, offset_file) = (run.offset_plain, run.start);
            let first = RestartPoint { offset_plain, offset_file };
            (!run.is_head).then_some(first).into_iter().chain(run.points.iter().copied())
        })
    }

    /// Gives each run its place in the chunk.
    fn place(&mut self, known: &[RestartPoint]) {
        let mut end: Option<(u64, u64)> = None;
        for run in &mut self.runs {
            let (end_file, end_plain) = end.unwrap_or_default();
            let by_index = search::known_at(known, run.start).map(|point| point.offset_plain);
            let most = EXPANSION.saturating_mul(run.start - end_file).saturating_add(1 << 16);
            let by_total = run.total.and_then(|total| total.checked_sub(run.end_plain));
            let exact = by_index.or(run.by_index).or(by_total);
            let is_possible = |at: &u64| *at > end_plain && *at - end_plain <= most;
            if !run.is_head {
                run.move_by(exact.filter(is_possible).unwrap_or(end_plain + 1));
            }
            end = Some((run.end, run.end_plain));
        }
    }

    fn find_gaps(&mut self, offset: u64, len: u64) {
        let (mut from, mut plain) = (offset, 0);
        for run in &self.runs {
            if !run.is_head && run.start > from {
                let plain = (plain, Some(run.offset_plain));
                self.gaps.push(Gap { from, to: run.start, plain });
            }
            (from, plain) = (run.end, run.end_plain);
        }
        if !self.has_end() {
            let to = self.next.unwrap_or(len);
            self.gaps.push(Gap { from, to, plain: (plain, None) });
        }
    }
}

impl Run {
    /// A run that begins at inflated octet 0, wherever that is.
    fn new(disk: &dyn Disk, start: u64, good: Good, points: Vec<RestartPoint>) -> io::Result<Run> {
        let Good { end, len, lines, offset_plain, sure_from, member_end } = good;
        let total = member_end.map(|end| length_at(disk, end + TRAILER / 2)).transpose()?;
        let total = total.flatten().filter(|total| *total >= len);
        Ok(Run {
            start,
            offset_plain: 0,
            end,
            end_plain: len,
            is_head: false,
            lines,
            points,
            sure_from: sure_from.unwrap_or(len),
            by_index: offset_plain,
            member_end,
            total,
        })
    }

    fn move_by(&mut self, offset: u64) {
        self.offset_plain += offset;
        self.end_plain += offset;
        self.sure_from += offset;
        self.points.iter_mut().for_each(|point| point.offset_plain += offset);
    }
}

/// Whether what a line says is to be believed although it may be something inside a message: a
/// message is what its GUID says; of a mailbox that is known, whoever wrote it knew its identity;
/// one that is new takes the place of none.
pub(super) fn is_credible(index: &Index, apply: &Apply<'_>) -> Result<bool, IndexError> {
    match apply {
        Apply::Message(_) => Ok(true),
        Apply::Mailbox(line) => {
            let row = index.mailbox_with_uniqueid(&line.uniqueid)?;
            Ok(match row {
                Some(row) => row.mboxname == line.mboxname,
                None => index.mailboxes_called(&line.mboxname)?.is_empty(),
            })
        }
        Apply::Seen(line) => Ok(index.mailbox_with_uniqueid(&line.uniqueid)?.is_some()),
        _ => Ok(false),
    }
}

/// The torn last member of the file, unless it may be something inside a message.
fn next_torn(disk: &dyn Disk, from: u64, len: u64) -> io::Result<Option<u64>> {
    let Some(next) = torn::next_torn(disk, from, len)? else { return Ok(None) };
    let is_sure = !search::may_be_stored(disk, from, next + TRAILER / 2)?;
    Ok(is_sure.then_some(next))
}

/// Whether the last run ends with the member: if the file ends there, or if another begins, which
/// is then the next one whether it can be read or not.
fn ends_member(
    disk: &dyn Disk,
    runs: &[Run],
    len: u64,
    next: &mut Option<u64>,
) -> io::Result<bool> {
    let Some(end) = runs.last().and_then(|run| run.member_end) else { return Ok(false) };
    let end = end + TRAILER;
    if end >= len {
        *next = None;
        return Ok(true);
    }
    let is_member = search::has_octets(disk, end, &MEMBER_HEADER[..3])?;
    if is_member {
        *next = Some(end);
    }
    Ok(is_member)
}

/// What the last octets of a member say of its length, modulo 2^32.
fn length_at(disk: &dyn Disk, at: u64) -> io::Result<Option<u64>> {
    let mut octets = [0; 4];
    let got = search::read(disk, &mut octets, at, u64::MAX)?;
    Ok((got == octets.len()).then(|| u32::from_le_bytes(octets).into()))
}
