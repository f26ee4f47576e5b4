//! From a place where inflating can begin, as far as what comes out can be relied upon.
//!
//! A damaged member has no CRC-32 that helps. A line counts if it is well formed, its messages
//! have their GUIDs, and a flush mark or another such line follows it: what deflate makes of
//! damaged octets, before it notices, does not get so far. A message that is not what it should
//! be, or a line that no index takes, costs only itself if the flush mark behind the line is where
//! it should be.

use flate2::{Decompress, FlushDecompress, Status};
use sha1::{Digest, Sha1};

use super::search::known_at;
use crate::store::index::RestartPoint;
use crate::store::log::LogLine;
use crate::store::restart::Finder;
use crate::store::torn::{Piece, has_lost_sector};
use crate::wire::Guid;
use crate::wire::apply::Apply;
use crate::wire::frame::{Event, Framer, Limits};

/// Octets inflated at a time.
const BUFFER: usize = 64 * 1024;
/// Lines between two marks, where each line ends with one: the chunk's first line has none.
const LINES_BETWEEN_MARKS: u32 = 2;

/// Inflates and frames. Inflated octets are counted from where it began.
pub(super) struct Walk<'a> {
    inflate: Decompress,
    framer: Framer,
    buffer: Vec<u8>,
    finder: Finder,
    /// Restart points that an index has.
    known: &'a [RestartPoint],
    /// What comes out is sure from this file offset on.
    sure_at: u64,
    body: Option<(Guid, Sha1)>,
    len: u64,
    /// It has a message that is not what it should be, or no index takes it.
    is_line_bad: bool,
    /// Such a line has ended: before anything else there must be a mark.
    is_mark_due: bool,
    /// A sector of zeros that no message has accounted for.
    is_sector_lost: bool,
    /// The first line must be one that an index takes.
    is_first_strict: bool,
    lines_since_mark: u32,
    /// It came to an end before the file did.
    has_stopped: bool,
    /// Lines so far, without comments.
    lines: u64,
    good: Good,
    /// What will be good if another good line follows.
    pending: Option<Good>,
}

/// What counts of a walk.
#[derive(Clone, Debug, Default)]
pub(super) struct Good {
    /// File offset behind the deflate data that are needed for it.
    pub(super) end: u64,
    /// Inflated octets up to the end of its last line.
    pub(super) len: u64,
    pub(super) lines: u64,
    /// Inflated octets of the chunk in front of where it began, if the index knows.
    pub(super) offset_plain: Option<u64>,
    /// Lines from this offset on are sure.
    pub(super) sure_from: Option<u64>,
    /// File offset behind the last block, if the walk came there between two lines.
    pub(super) member_end: Option<u64>,
}

/// How a piece was taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fed {
    More,
    /// Damage, or the end of the member.
    Stop,
}

impl<'a> Walk<'a> {
    /// From the beginning of a member (`is_first_strict`: from within one). `known` are restart
    /// points that an index has, in the order of the file; `sure_at` is the file offset from
    /// which on what comes out is sure.
    /// `offset_plain` is how many inflated octets of the chunk are in front, if that is known.
    pub(super) fn new(
        is_first_strict: bool,
        known: &'a [RestartPoint],
        sure_at: u64,
        offset_plain: Option<u64>,
    ) -> Walk<'a> {
        Walk {
            inflate: Decompress::new(false),
            framer: Framer::new(Limits::LOG),
            buffer: vec![0; BUFFER],
            finder: Finder::default(),
            known,
            sure_at,
            body: None,
            len: 0,
            is_line_bad: false,
            is_mark_due: false,
            is_sector_lost: false,
            is_first_strict,
            lines_since_mark: 0,
            has_stopped: false,
            lines: 0,
            good: Good { sure_from: (sure_at == 0).then_some(0), offset_plain, ..Good::default() },
            pending: None,
        }
    }

    /// Octets inflated, and of those read for it.
    pub(super) fn work(&self) -> u64 {
        self.inflate.total_in() + self.inflate.total_out()
    }

    /// What counts, and where reading can begin in it, as far as was fed.
    pub(super) fn finish(self) -> (Good, Vec<RestartPoint>) {
        let len = self.good.len;
        let points = self.finder.into_points().into_iter();
        (self.good, points.filter(|point| point.offset_plain < len).collect())
    }

    /// Whether there was damage, or the member's end, before the end of what was fed.
    pub(super) fn has_stopped(&self) -> bool {
        self.has_stopped
    }

    pub(super) fn feed(&mut self, piece: &Piece<'_>) -> Fed {
        let fed = self.inflate(piece);
        self.has_stopped = fed == Fed::Stop;
        fed
    }

    fn inflate(&mut self, piece: &Piece<'_>) -> Fed {
        self.finder.before(piece.octets);
        self.is_sector_lost |= has_lost_sector(piece);
        let start = piece.end - piece.octets.len() as u64;
        let mut packed = piece.octets;
        loop {
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let result = self.inflate.decompress(packed, &mut self.buffer, FlushDecompress::None);
            packed = &packed[(self.inflate.total_in() - before_in) as usize..];
            let produced = (self.inflate.total_out() - before_out) as usize;
            let buffer = std::mem::take(&mut self.buffer);
            let went_on = self.frame(&buffer[..produced], piece.end);
            self.buffer = buffer;
            let Ok(status) = result else { return Fed::Stop };
            if !went_on {
                return Fed::Stop;
            }
            if status == Status::StreamEnd {
                let end = start + (piece.octets.len() - packed.len()) as u64;
                self.ended(end);
                return Fed::Stop;
            }
            if packed.is_empty() && produced < BUFFER {
                break;
            }
        }
        // Inside a message its GUID will tell.
        if self.is_sector_lost && self.body.is_none() {
            return Fed::Stop;
        }
        if piece.ends_in_mark && self.framer.at_line_start() {
            self.settle(piece.end);
            let known = known_at(self.known, piece.end);
            if let Some(point) = known {
                let offset_plain = point.offset_plain.checked_sub(self.len);
                if self.good.offset_plain.is_some_and(|at| Some(at) != offset_plain) {
                    // Damage that went unnoticed has given more octets, or less.
                    return Fed::Stop;
                }
                self.good.offset_plain = offset_plain;
            }
            if self.good.sure_from.is_none() && piece.end >= self.sure_at {
                self.good.sure_from = Some(self.len);
            }
            let (offset_plain, offset_file) = (self.len, piece.end);
            self.finder.behind(RestartPoint { offset_plain, offset_file });
        }
        Fed::More
    }

    /// The member's last block has ended.
    fn ended(&mut self, end: u64) {
        if self.framer.at_line_start() && !self.is_sector_lost {
            self.settle(end);
            self.good.member_end = Some(end);
        }
    }

    /// A mark, or the end: what is in front of it counts.
    fn settle(&mut self, end: u64) {
        self.pending = None;
        self.is_mark_due = false;
        self.lines_since_mark = 0;
        self.good.end = end;
        self.good.len = self.len;
        self.good.lines = self.lines;
    }

    /// `false`: nothing behind this can be relied upon.
    fn frame(&mut self, plain: &[u8], piece_end: u64) -> bool {
        let mut rest = plain;
        let before = self.len;
        loop {
            if self.is_mark_due && !rest.is_empty() {
                return false;
            }
            let event = self.framer.next(&mut rest);
            self.len = before + (plain.len() - rest.len()) as u64;
            match event {
                Event::More => return true,
                Event::Continue => {}
                Event::Lost => return false,
                Event::BodyStart(header) => self.body = Some((header.guid, Sha1::new())),
                Event::Body(octets) => {
                    self.body.iter_mut().for_each(|(_, sha1)| sha1.update(octets));
                }
                Event::BodyEnd => {
                    if let Some((guid, sha1)) = self.body.take() {
                        let found = Guid::from(<[u8; 20]>::from(sha1.finalize()));
                        self.is_line_bad |= found != guid;
                    }
                    self.is_sector_lost = false;
                }
                Event::Line => {
                    let Ok(line) = self.framer.take_line() else { return false };
                    if !self.line(&line, piece_end) {
                        return false;
                    }
                }
            }
        }
    }

    fn line(&mut self, line: &[u8], piece_end: u64) -> bool {
        let is_comment = line.first() == Some(&b'#');
        let is_strict = std::mem::take(&mut self.is_first_strict);
        if !LogLine::is_sound(line) {
            return false;
        }
        let is_bad = std::mem::take(&mut self.is_line_bad) || !is_comment && !is_known(line);
        if is_strict && (is_bad || is_comment) {
            return false;
        }
        self.lines_since_mark += 1;
        self.lines += u64::from(!is_comment);
        // Where no marks are, this line proves the one in front of it.
        if let Some(good) = self.pending.take() {
            let Good { offset_plain, sure_from, .. } = self.good;
            self.good = Good { offset_plain, sure_from, ..good };
        }
        if is_bad {
            self.is_mark_due = self.lines_since_mark <= LINES_BETWEEN_MARKS;
            return true;
        }
        let (len, lines) = (self.len, self.lines);
        self.pending = Some(Good { end: piece_end, len, lines, ..Good::default() });
        true
    }
}

/// Whether an index takes the line.
fn is_known(line: &[u8]) -> bool {
    let Ok(Some(line)) = LogLine::parse(0, line) else { return false };
    let Ok((name, value)) = line.item() else { return false };
    Apply::read(&name, &value).is_ok()
}
