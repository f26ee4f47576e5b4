//! The lines of a damaged member, one by one.

use sha1::{Digest, Sha1};

use super::{Run, Salvage};
use crate::store::chunk::{MemberError, MemberReader};
use crate::store::disk::Disk;
use crate::store::log::{BodySink, LogError, LogLine, LogReader};
use crate::wire::Guid;
use crate::wire::dlist::FileHeader;

/// Reads what was found, in the order of the file.
pub(in crate::store) struct SavedLines<'f> {
    file: &'f dyn Disk,
    runs: std::vec::IntoIter<Run>,
    reader: Option<LogReader<'f>>,
    /// Of each message of the line read last: whether it is what it should be.
    are_sound: Vec<bool>,
    /// Lines from this offset on are sure.
    sure_from: u64,
    is_sure: bool,
    /// A run has begun behind a gap since that was asked last.
    has_passed_gap: bool,
    /// There is a gap behind the last run.
    has_gap_at_end: bool,
}

impl<'f> SavedLines<'f> {
    /// All lines that can be read.
    pub(in crate::store) fn new(file: &'f dyn Disk, salvage: &Salvage) -> SavedLines<'f> {
        SavedLines {
            file,
            runs: salvage.runs.clone().into_iter(),
            reader: None,
            are_sound: Vec::new(),
            sure_from: 0,
            is_sure: true,
            has_passed_gap: false,
            has_gap_at_end: !salvage.has_end(),
        }
    }

    /// The next line; `None` at the end. See [`LogReader::next_line`]. Its messages may be
    /// damaged, see [`SavedLines::are_sound`].
    pub(in crate::store) fn next_line(
        &mut self,
        sink: &mut dyn BodySink,
    ) -> Result<Option<LogLine>, LogError> {
        self.are_sound.clear();
        loop {
            if let Some(reader) = &mut self.reader {
                let guid = Guid::from([0; 20]);
                let are_sound = &mut self.are_sound;
                match reader.next_line(&mut Check { sink, guid, sha1: Sha1::new(), are_sound }) {
                    Ok(Some(line)) => {
                        self.is_sure = line.offset >= self.sure_from;
                        return Ok(Some(line));
                    }
                    // The octets of a run end behind its last line.
                    Ok(None) | Err(LogError::Member(MemberError::Torn { .. })) => {}
                    Err(error) => return Err(error),
                }
                self.reader = None;
            }
            let Some(run) = self.runs.next() else {
                self.has_passed_gap |= std::mem::take(&mut self.has_gap_at_end);
                return Ok(None);
            };
            self.has_passed_gap |= !run.is_head;
            let Run { start, offset_plain, end, .. } = run;
            self.sure_from = run.sure_from;
            let member = MemberReader::open_at_until(self.file, start, offset_plain, end);
            self.reader = Some(LogReader::within(member, run.end_plain));
        }
    }

    /// Whether the line read last is sure to be one: else see [`super::is_credible`].
    pub(in crate::store) fn is_sure(&self) -> bool {
        self.is_sure
    }

    /// Of each message of the line read last, in order: whether it has its GUID.
    pub(in crate::store) fn are_sound(&self) -> &[bool] {
        &self.are_sound
    }

    /// Whether octets that cannot be read lie in front of the line that was read last, or at the
    /// end behind it, and have not been told yet.
    pub(in crate::store) fn take_gap(&mut self) -> bool {
        std::mem::take(&mut self.has_passed_gap)
    }
}

/// Hashes messages on their way.
struct Check<'s> {
    sink: &'s mut dyn BodySink,
    guid: Guid,
    sha1: Sha1,
    are_sound: &'s mut Vec<bool>,
}

impl BodySink for Check<'_> {
    fn start(&mut self, header: &FileHeader) {
        self.guid = header.guid;
        self.sha1 = Sha1::new();
        self.are_sound.push(false);
        self.sink.start(header);
    }

    fn data(&mut self, octets: &[u8]) {
        self.sha1.update(octets);
        self.sink.data(octets);
    }

    fn end(&mut self) {
        let found = Guid::from(<[u8; 20]>::from(self.sha1.finalize_reset()));
        if let Some(is_sound) = self.are_sound.last_mut() {
            *is_sound = found == self.guid;
        }
        self.sink.end();
    }
}
