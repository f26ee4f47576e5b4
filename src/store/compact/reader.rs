//! Reads a chunk that is written anew.

use std::fs::File;

use super::survey::Survey;
use crate::store::index::Kept;
use crate::store::log::{BodySink, LogError, LogLine, LogReader};
use crate::store::salvage::SavedLines;

/// The lines that the survey has read, of a chunk that may be damaged.
pub(super) enum Reader<'f> {
    Whole(Box<LogReader<'f>>),
    Saved(Box<SavedLines<'f>>),
}

impl<'f> Reader<'f> {
    pub(super) fn open(
        file: &'f File,
        survey: &'f Survey,
        chunk: &Kept,
    ) -> Result<Reader<'f>, LogError> {
        let source = &chunk.source;
        Ok(match survey.salvages.get(&source.id) {
            Some(salvage) => Reader::Saved(Box::new(SavedLines::new(file, salvage))),
            None => Reader::Whole(Box::new(LogReader::open(file, source.offset)?)),
        })
    }

    pub(super) fn next_line(
        &mut self,
        sink: &mut dyn BodySink,
    ) -> Result<Option<LogLine>, LogError> {
        match self {
            Reader::Whole(reader) => reader.next_line(sink),
            Reader::Saved(reader) => reader.next_line(sink),
        }
    }
}
