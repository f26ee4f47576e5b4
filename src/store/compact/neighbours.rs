//! What a chunk has beside it: whether it can be copied depends on that.

use super::sizes::Sizes;
use crate::store::index::{IndexError, Kept};

/// A chunk with the lengths of the one in front of it and the one behind it, and the id of that.
pub(super) struct Neighbour {
    before: Option<u64>,
    pub(super) chunk: Kept,
    pub(super) next: Option<(i64, u64)>,
}

impl Neighbour {
    /// Whether it will go on as it is, as far as can be foreseen.
    pub(super) fn goes_on(&self, sizes: Sizes) -> bool {
        let length = self.chunk.source.length;
        let is_joined = sizes.combines(length, self.next.map(|(_, next)| next))
            || self.before.is_some_and(|before| sizes.combines(before, Some(length)));
        self.chunk.whole_until.is_some() && !is_joined && !sizes.splits(length)
    }
}

/// Finds the neighbours of chunks.
pub(super) struct Neighbours<I: Iterator> {
    chunks: std::iter::Peekable<I>,
    before: Option<u64>,
}

impl<I: Iterator<Item = Result<Kept, IndexError>>> Neighbours<I> {
    pub(super) fn new(chunks: I) -> Neighbours<I> {
        Neighbours { chunks: chunks.peekable(), before: None }
    }
}

impl<I: Iterator<Item = Result<Kept, IndexError>>> Iterator for Neighbours<I> {
    type Item = Result<Neighbour, IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        let chunk = match self.chunks.next()? {
            Ok(chunk) => chunk,
            Err(error) => return Some(Err(error)),
        };
        // An error there comes next.
        let next = self.chunks.peek().and_then(|next| next.as_ref().ok());
        let next = next.map(|next| (next.source.id, next.source.length));
        let before = self.before.replace(chunk.source.length);
        Some(Ok(Neighbour { before, chunk, next }))
    }
}
