//! Are the messages of a chunk where the index has them?

use std::collections::HashMap;

use sha1::{Digest, Sha1};

use super::Fault;
use crate::store::index::{Index, IndexError, MessageRow};
use crate::store::log::BodySink;
use crate::wire::Guid;
use crate::wire::dlist::FileHeader;

/// The messages that should be in a chunk; hashes the bodies of its lines.
pub(super) struct Messages {
    rows: Vec<(MessageRow, State)>,
    /// Offset of a line to the rows that point at it.
    at_offset: HashMap<u64, Vec<usize>>,
    hash: Sha1,
    /// Bodies of the line being read: what they claim to be and what they are.
    bodies: Vec<(Guid, Guid)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Missing,
    Damaged,
    Sound,
}

impl Messages {
    pub(super) fn of_chunk(index: &Index, chunk_id: i64) -> Result<Messages, IndexError> {
        let mut at_offset: HashMap<u64, Vec<usize>> = HashMap::new();
        let rows = index.messages_of_chunk(chunk_id)?.into_iter();
        let rows: Vec<_> = rows.map(|row| (row, State::Missing)).collect();
        for (i, (row, _)) in rows.iter().enumerate() {
            at_offset.entry(row.offset).or_default().push(i);
        }
        Ok(Messages { rows, at_offset, hash: Sha1::new(), bodies: Vec::new() })
    }

    /// The line whose bodies were last taken stands at `offset`.
    pub(super) fn end_line(&mut self, offset: u64, is_message: bool) {
        let bodies = std::mem::take(&mut self.bodies);
        let Some(expected) = self.at_offset.get(&offset).filter(|_| is_message) else {
            return;
        };
        // A line may hold many messages, all of them expected.
        let bodies: HashMap<Guid, Guid> = bodies.into_iter().collect();
        for &i in expected {
            let (row, state) = &mut self.rows[i];
            let content = row.guid.and_then(|guid| bodies.get(&guid));
            *state = match content {
                Some(content) if Some(*content) == row.guid => State::Sound,
                Some(_) => State::Damaged,
                None => State::Missing,
            };
        }
    }

    /// In the order of the rows.
    pub(super) fn faults(self) -> Vec<Fault> {
        let fault = |(row, state): (MessageRow, State)| match state {
            State::Sound => None,
            State::Damaged => Some(Fault::MessageContent { message_id: row.id }),
            State::Missing => Some(Fault::NoMessage { message_id: row.id, offset: row.offset }),
        };
        self.rows.into_iter().filter_map(fault).collect()
    }
}

impl BodySink for Messages {
    fn start(&mut self, header: &FileHeader) {
        self.hash = Sha1::new();
        // Zeros until the body is complete.
        self.bodies.push((header.guid, Guid::from([0; 20])));
    }

    fn data(&mut self, octets: &[u8]) {
        self.hash.update(octets);
    }

    fn end(&mut self) {
        if let Some((_, content)) = self.bodies.last_mut() {
            *content = Guid::from(<[u8; 20]>::from(self.hash.finalize_reset()));
        }
    }
}
