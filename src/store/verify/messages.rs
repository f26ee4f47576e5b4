//! Are the messages of a chunk where the index has them?

use std::collections::HashMap;

use super::finding::Fault;
use crate::store::index::{Index, IndexError, MessageRow};
use crate::wire::Guid;

/// Rows looked at at a time.
const PAGE: u32 = 512;

/// The messages that should be in a chunk, in the order of its lines.
pub(super) struct Messages<'i> {
    index: &'i Index,
    chunk_id: i64,
    /// Those that come next.
    page: std::vec::IntoIter<MessageRow>,
    /// Offset and row id of the last one that was looked at.
    last: (i64, i64),
    /// By row id.
    faults: Vec<(i64, Fault)>,
}

enum State {
    Missing,
    Damaged,
    Sound,
}

impl<'i> Messages<'i> {
    /// After [`Index::sort_by_chunk`].
    pub(super) fn of_chunk(index: &'i Index, chunk_id: i64) -> Messages<'i> {
        let page = Vec::new().into_iter();
        Messages { index, chunk_id, page, last: (i64::MIN, 0), faults: Vec::new() }
    }

    /// The MESSAGE line at `offset` has these bodies: what they claim to be, and what
    /// they are. Lines come in their order.
    pub(super) fn compare(
        &mut self,
        offset: u64,
        bodies: &[(Guid, Guid)],
    ) -> Result<(), IndexError> {
        // A line may hold many messages, all of them expected.
        let bodies: HashMap<Guid, Guid> = bodies.iter().copied().collect();
        while let Some(row) = self.next_until(offset)? {
            let content = row.guid.and_then(|guid| bodies.get(&guid));
            let state = match content {
                _ if row.offset < offset => State::Missing,
                Some(content) if Some(*content) == row.guid => State::Sound,
                Some(_) => State::Damaged,
                None => State::Missing,
            };
            self.conclude(row, state);
        }
        Ok(())
    }

    /// In the order of the rows.
    pub(super) fn faults(mut self) -> Result<Vec<Fault>, IndexError> {
        while let Some(row) = self.next_until(u64::MAX)? {
            self.conclude(row, State::Missing);
        }
        self.faults.sort_by_key(|(id, _)| *id);
        Ok(self.faults.into_iter().map(|(_, fault)| fault).collect())
    }

    /// The next one, if it is not behind `offset`.
    fn next_until(&mut self, offset: u64) -> Result<Option<MessageRow>, IndexError> {
        if self.page.as_slice().is_empty() {
            let rows = self.index.sorted_messages(self.chunk_id, self.last, PAGE)?;
            self.page = rows.into_iter();
        }
        match self.page.as_slice().first() {
            Some(row) if row.offset <= offset => {
                self.last = (row.offset as i64, row.id);
                Ok(self.page.next())
            }
            _ => Ok(None),
        }
    }

    fn conclude(&mut self, row: MessageRow, state: State) {
        let MessageRow { id: message_id, guid, offset, .. } = row;
        let fault = match state {
            State::Sound => return,
            State::Damaged => Fault::MessageContent { message_id, guid, offset },
            State::Missing => Fault::NoMessage { message_id, guid, offset },
        };
        self.faults.push((message_id, fault));
    }
}
