//! Finding the places inside a member where reading can begin.
//!
//! Cyrus ends every line with a full flush, cyrbk only some; a sync flush leaves the
//! same mark. What tells them apart is whether anything behind the mark refers to
//! something in front of it: so each candidate is tried, by inflating from it
//! without what came before.

#[cfg(test)]
use std::io;

use flate2::{Decompress, FlushDecompress, Status};

use super::chunk::RESTART_EVERY;
#[cfg(test)]
use super::chunk::{MemberError, MemberReader};
#[cfg(test)]
use super::disk::Disk;
use super::index::RestartPoint;
#[cfg(test)]
use super::replay::Totals;
#[cfg(test)]
use super::torn::{Pieces, Walk};

/// How far back deflate data can refer, in inflated octets (RFC 1951, 2).
const WINDOW: u64 = 32 * 1024;

/// Restart points of the member at `offset`, about one in every [`RESTART_EVERY`]
/// inflated octets, in the order of their offsets.
#[cfg(test)]
pub(super) fn find(disk: &dyn Disk, offset: u64, totals: &Totals) -> io::Result<Vec<RestartPoint>> {
    if totals.len_plain < RESTART_EVERY {
        return Ok(Vec::new());
    }
    let start = match MemberReader::open_until(disk, offset, totals.end) {
        Ok(member) => member.offset_file(),
        Err(MemberError::Io { source, .. }) => return Err(source),
        Err(_) => return Ok(Vec::new()),
    };
    let mut pieces = Pieces::new(disk, start, totals.end);
    let mut walk = Walk::default();
    let mut finder = Finder::default();
    while let Some(piece) = pieces.next_piece()? {
        finder.before(piece.octets);
        if !walk.feed(piece.octets) {
            break;
        }
        if walk.is_between_lines(&piece) {
            let (offset_plain, offset_file) = (walk.len_plain, piece.end);
            finder.behind(RestartPoint { offset_plain, offset_file });
        }
    }
    Ok(finder.into_points())
}

/// Finds restart points, for whoever inflates a member.
#[derive(Default)]
pub(super) struct Finder {
    points: Vec<RestartPoint>,
    trial: Option<Trial>,
}

impl Finder {
    /// To be told of all deflate data, in pieces, in front of what is told of them.
    pub(super) fn before(&mut self, packed: &[u8]) {
        match self.trial.as_mut().map(|trial| trial.feed(packed)) {
            Some(Verdict::Holds) => self.points.extend(self.trial.take().map(|trial| trial.point)),
            Some(Verdict::Fails) => self.trial = None,
            Some(Verdict::Undecided) | None => {}
        }
    }

    /// To be told where a line and a piece have ended, and a flush with them.
    pub(super) fn behind(&mut self, point: RestartPoint) {
        let last = self.points.last().map_or(0, |point| point.offset_plain);
        if self.trial.is_none() && point.offset_plain - last >= RESTART_EVERY {
            self.trial = Some(Trial::new(point));
        }
    }

    /// The points, in the order of their offsets.
    pub(super) fn into_points(self) -> Vec<RestartPoint> {
        self.points
    }
}

/// Inflates from a candidate on, until nothing can refer back to behind it.
struct Trial {
    point: RestartPoint,
    inflate: Decompress,
    buffer: Vec<u8>,
}

enum Verdict {
    Undecided,
    Holds,
    Fails,
}

impl Trial {
    fn new(point: RestartPoint) -> Trial {
        Trial { point, inflate: Decompress::new(false), buffer: vec![0; WINDOW as usize] }
    }

    fn feed(&mut self, mut packed: &[u8]) -> Verdict {
        loop {
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(packed, &mut self.buffer, FlushDecompress::None);
            packed = &packed[(self.inflate.total_in() - before_in) as usize..];
            let produced = (self.inflate.total_out() - before_out) as usize;
            match status {
                Err(_) => return Verdict::Fails,
                Ok(Status::StreamEnd) => return Verdict::Holds,
                Ok(_) if self.inflate.total_out() >= WINDOW => return Verdict::Holds,
                Ok(_) if packed.is_empty() && produced < self.buffer.len() => {
                    return Verdict::Undecided;
                }
                Ok(_) => {}
            }
        }
    }
}
