//! Are the messages of a chunk where the index has them?

use std::collections::HashMap;

use super::finding::Fault;
use crate::store::index::{Index, IndexError, MessageRow};
use crate::wire::Guid;

/// The messages that should be in a chunk.
pub(super) struct Messages {
    rows: Vec<(MessageRow, State)>,
    /// Offset of a line to the rows that point at it.
    at_offset: HashMap<u64, Vec<usize>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Missing,
    Damaged,
    Sound,
}

impl Messages {
    /// After [`Index::sort_by_chunk`].
    pub(super) fn of_chunk(index: &Index, chunk_id: i64) -> Result<Messages, IndexError> {
        let mut at_offset: HashMap<u64, Vec<usize>> = HashMap::new();
        let rows = index.sorted_messages(chunk_id)?.into_iter();
        let rows: Vec<_> = rows.map(|row| (row, State::Missing)).collect();
        for (i, (row, _)) in rows.iter().enumerate() {
            at_offset.entry(row.offset).or_default().push(i);
        }
        Ok(Messages { rows, at_offset })
    }

    /// The MESSAGE line at `offset` has these bodies: what they claim to be, and what
    /// they are.
    pub(super) fn compare(&mut self, offset: u64, bodies: &[(Guid, Guid)]) {
        let Some(expected) = self.at_offset.get(&offset) else { return };
        // A line may hold many messages, all of them expected.
        let bodies: HashMap<Guid, Guid> = bodies.iter().copied().collect();
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
        let fault = |(row, state): (MessageRow, State)| {
            let MessageRow { id: message_id, guid, offset, .. } = row;
            match state {
                State::Sound => None,
                State::Damaged => Some(Fault::MessageContent { message_id, guid, offset }),
                State::Missing => Some(Fault::NoMessage { message_id, guid, offset }),
            }
        };
        self.rows.into_iter().filter_map(fault).collect()
    }
}
