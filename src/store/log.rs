//! Reading the lines of one chunk.
//!
//! ```text
//! chunk = "# cyrus backup: chunk start" CRLF *line
//! line  = ts SP "APPLY" SP name SP value CRLF     ts: Unix time, decimal seconds
//! ```

use sha1::{Digest, Sha1};

use super::chunk::{MemberError, MemberReader, hex};
use super::disk::Disk;
use super::index::RestartPoint;
use crate::wire::Guid;
use crate::wire::dlist::{FileHeader, SyntaxError, Value, number, parse_item};
use crate::wire::frame::{Event, Framer, Limits, Poison};

/// Octets inflated at a time.
const BUFFER: usize = 64 * 1024;
/// So many times as much is made room for as is read at a time: to have the large buffer for each
/// of many small chunks costs more than to inflate these.
const PACKED: usize = 8;

/// Takes the message bodies of a line as they are read.
pub trait BodySink {
    /// The next body begins.
    fn start(&mut self, header: &FileHeader);
    /// Octets of it.
    fn data(&mut self, octets: &[u8]);
    /// It is complete.
    fn end(&mut self);
}

/// A sink for readers that do not want bodies.
pub struct NoBodies;

impl BodySink for NoBodies {
    fn start(&mut self, _: &FileHeader) {}
    fn data(&mut self, _: &[u8]) {}
    fn end(&mut self) {}
}

/// A sink that hashes bodies.
#[derive(Default)]
pub(super) struct Hashed {
    sha1: Sha1,
    /// What each body claims to be, and what it is: zeros until it is complete.
    pub(super) found: Vec<(Guid, Guid)>,
}

impl BodySink for Hashed {
    fn start(&mut self, header: &FileHeader) {
        self.sha1 = Sha1::new();
        self.found.push((header.guid, Guid::from([0; 20])));
    }

    fn data(&mut self, octets: &[u8]) {
        self.sha1.update(octets);
    }

    fn end(&mut self) {
        if let Some((_, content)) = self.found.last_mut() {
            *content = Guid::from(<[u8; 20]>::from(self.sha1.finalize_reset()));
        }
    }
}

/// Why a line cannot be read. Offsets without other note are inflated octets
/// from the beginning of the chunk.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The member is torn or damaged.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// The chunk ends inside a line that begins at this offset.
    #[error("the chunk ends inside the line at offset {offset}")]
    Incomplete {
        /// Of the line.
        offset: u64,
    },
    /// The line is not one of a backup.
    #[error("line at offset {offset}: {source}")]
    Syntax {
        /// Of the line.
        offset: u64,
        /// What is wrong.
        source: SyntaxError,
    },
    /// The line is longer than anything that is read.
    #[error("line at offset {offset}: {source}")]
    TooLong {
        /// Of the line.
        offset: u64,
        /// Which bound.
        source: Poison,
    },
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Inflated octets in front of it: where its time stamp begins.
    pub offset: u64,
    /// Unix time, seconds.
    pub ts: i64,
    /// `name value`, message bodies left out.
    text: Vec<u8>,
}

impl LogLine {
    /// `name value`, message bodies left out.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The command's name and value.
    pub fn item(&self) -> Result<(Vec<u8>, Value<'_>), LogError> {
        match parse_item(&self.text) {
            Ok((name, value)) => Ok((name.to_ascii_uppercase(), value)),
            Err(source) => Err(LogError::Syntax { offset: self.offset, source }),
        }
    }

    /// Whether a line, body octets left out, is one that a writer may have written.
    pub(super) fn is_sound(line: &[u8]) -> bool {
        line.first() == Some(&b'#')
            || matches!(LogLine::parse(0, line), Ok(Some(line)) if line.item().is_ok())
    }

    /// `None` if it is a comment, or of another verb.
    pub(super) fn parse(offset: u64, line: &[u8]) -> Result<Option<LogLine>, LogError> {
        let syntax = |what, at| LogError::Syntax { offset, source: SyntaxError { what, at } };
        if line.first() == Some(&b'#') {
            return Ok(None);
        }
        let mut words = line.splitn(3, |&c| c == b' ');
        let (Some(ts), Some(verb), Some(rest)) = (words.next(), words.next(), words.next()) else {
            return Err(syntax("not a line of a backup", 0));
        };
        let ts = number(ts).and_then(|n| i64::try_from(n).ok());
        let ts = ts.ok_or_else(|| syntax("no time stamp", 0))?;
        if verb != b"APPLY" {
            return Ok(None);
        }
        Ok(Some(LogLine { offset, ts, text: rest.to_vec() }))
    }
}

/// Reads a chunk line by line.
pub struct LogReader<'f> {
    member: MemberReader<'f>,
    framer: Framer,
    buffer: Box<[u8]>,
    used: usize,
    filled: usize,
    ended: bool,
    plain_sha1: Option<Sha1>,
    /// Lines from this offset on do not count.
    until: u64,
    /// Where to go on behind damage, the last one first.
    resume: Option<(&'f dyn Disk, Vec<RestartPoint>)>,
}

impl<'f> LogReader<'f> {
    /// Opens the chunk whose member begins at `offset_file`.
    pub fn open(file: &'f dyn Disk, offset_file: u64) -> Result<LogReader<'f>, LogError> {
        Ok(LogReader::over(MemberReader::open(file, offset_file)?))
    }

    /// Opens the same chunk at a restart point, see [`Index::restart_point`], or if
    /// there is none at its beginning: for a caller that wants a line behind it. The
    /// point is a hint; whoever does not find that line reads the chunk again from its
    /// beginning. The member's CRC-32 is not checked.
    ///
    /// [`Index::restart_point`]: super::index::Index::restart_point
    pub fn open_near(
        file: &'f dyn Disk,
        offset_file: u64,
        point: Option<RestartPoint>,
    ) -> Result<LogReader<'f>, LogError> {
        match point {
            Some(point) => {
                let (at, offset) = (point.offset_file, point.offset_plain);
                Ok(LogReader::over(MemberReader::open_at(file, at, offset)))
            }
            None => LogReader::open(file, offset_file),
        }
    }

    pub(super) fn over(member: MemberReader<'f>) -> LogReader<'f> {
        let len_buffer = BUFFER.min(PACKED * (1 + member.len_buffer()));
        LogReader {
            member,
            framer: Framer::new(Limits::LOG),
            buffer: vec![0; len_buffer].into_boxed_slice(),
            used: 0,
            filled: 0,
            ended: false,
            plain_sha1: None,
            until: u64::MAX,
            resume: None,
        }
    }

    /// The same reader, for a caller that looks for what it can check: behind damage it goes on at
    /// the next of these restart points of the chunk.
    pub fn resuming(self, file: &'f dyn Disk, mut points: Vec<RestartPoint>) -> LogReader<'f> {
        points.reverse();
        LogReader { resume: Some((file, points)), ..self }
    }

    /// The lines in front of offset `until`.
    pub(super) fn within(member: MemberReader<'f>, until: u64) -> LogReader<'f> {
        LogReader { until, ..LogReader::over(member) }
    }

    /// The same, for a caller that wants to know [`LogReader::plain_sha1`] too.
    pub fn open_hashing(file: &'f dyn Disk, offset_file: u64) -> Result<LogReader<'f>, LogError> {
        Ok(LogReader::open(file, offset_file)?.hashing())
    }

    pub(super) fn hashing(self) -> LogReader<'f> {
        LogReader { plain_sha1: Some(Sha1::new()), ..self }
    }

    /// Goes to the chunk whose member begins at `offset_file`, wherever this reader is: with the
    /// same buffers. After an error nothing but this is to be called.
    pub(super) fn reopen(&mut self, offset_file: u64) -> Result<(), LogError> {
        self.framer = Framer::new(Limits::LOG);
        (self.used, self.filled, self.ended) = (0, 0, false);
        self.plain_sha1.iter_mut().for_each(Digest::reset);
        Ok(self.member.reopen(offset_file)?)
    }

    /// Inflates the rest of the member without looking at its lines; to be called
    /// after an unreadable line, or instead of reading any.
    pub fn skip_rest(&mut self) -> Result<(), MemberError> {
        while self.refill()? {}
        Ok(())
    }

    /// Inflated octets so far.
    pub fn len_plain(&self) -> u64 {
        self.member.len_plain()
    }

    /// SHA-1 of these, hex; empty unless opened with [`LogReader::open_hashing`].
    pub fn plain_sha1(&self) -> String {
        self.plain_sha1.as_ref().map(|sha1| hex(&sha1.clone().finalize())).unwrap_or_default()
    }

    /// Inflated octets consumed: after a line, the offset of the next one.
    pub fn offset_plain(&self) -> u64 {
        self.member.len_plain() - (self.filled - self.used) as u64
    }

    /// File offset behind the member, once `next_line` has returned `None`.
    pub fn offset_file(&self) -> u64 {
        self.member.offset_file()
    }

    /// The next APPLY line; `None` at the end of a complete member. Comments and
    /// lines of other verbs are passed over. Bodies go to `sink` before the line
    /// they belong to is returned.
    pub fn next_line(&mut self, sink: &mut dyn BodySink) -> Result<Option<LogLine>, LogError> {
        loop {
            let offset = self.offset_plain();
            if offset >= self.until {
                return Ok(None);
            }
            match self.any_line(offset, sink) {
                Ok(None) => return Ok(None),
                Ok(Some(Some(line))) => return Ok(Some(line)),
                Ok(Some(None)) => {}
                Err(error) if self.is_at_an_end(&error) || !self.goes_on_behind(offset) => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
    }

    /// Errors that no other place in the chunk helps against.
    fn is_at_an_end(&self, error: &LogError) -> bool {
        matches!(error, LogError::Member(MemberError::Io { .. } | MemberError::NotAMember { .. }))
    }

    /// Goes to the next restart point behind `offset`, if there is one.
    fn goes_on_behind(&mut self, offset: u64) -> bool {
        let Some((file, points)) = &mut self.resume else { return false };
        while let Some(point) = points.pop() {
            if point.offset_plain > offset {
                self.member = MemberReader::open_at(*file, point.offset_file, point.offset_plain);
                self.framer = Framer::new(Limits::LOG);
                (self.used, self.filled, self.ended) = (0, 0, false);
                return true;
            }
        }
        false
    }

    /// The next line, which counts or, inside, does not; `None` at the end.
    fn any_line(
        &mut self,
        offset: u64,
        sink: &mut dyn BodySink,
    ) -> Result<Option<Option<LogLine>>, LogError> {
        loop {
            if self.used == self.filled && !self.refill()? {
                let clean = self.framer.at_line_start();
                return if clean { Ok(None) } else { Err(LogError::Incomplete { offset }) };
            }
            let mut input = &self.buffer[self.used..self.filled];
            let event = self.framer.next(&mut input);
            let left = input.len();
            match event {
                Event::More | Event::Continue => {}
                Event::BodyStart(header) => sink.start(&header),
                Event::Body(octets) => sink.data(octets),
                Event::BodyEnd => sink.end(),
                Event::Line => {
                    self.used = self.filled - left;
                    let line = self.framer.read_line(|line| LogLine::parse(offset, line));
                    return line.map_err(|source| LogError::TooLong { offset, source })?.map(Some);
                }
                Event::Lost => {
                    let source = SyntaxError { what: "bad length", at: 0 };
                    return Err(LogError::Syntax { offset, source });
                }
            }
            self.used = self.filled - left;
        }
    }

    fn refill(&mut self) -> Result<bool, MemberError> {
        if self.ended {
            return Ok(false);
        }
        self.used = 0;
        self.filled = 0;
        self.filled = self.member.read(&mut self.buffer)?;
        self.ended = self.filled == 0;
        if let Some(sha1) = &mut self.plain_sha1 {
            sha1.update(&self.buffer[..self.filled]);
        }
        Ok(!self.ended)
    }
}
