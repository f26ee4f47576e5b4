//! Collects the message bodies of one line: in memory up to a limit, beyond
//! it piece by piece for the staging file.

use crate::wire::Body;

/// Octets gathered before they go to the staging file.
const PIECE: usize = 1 << 20;
/// Octets of a body that room is made for before they come.
const EXPECTED_MAX: usize = 64 * 1024;

/// The bodies of the line that is being received.
#[derive(Debug)]
pub(super) struct Spool {
    memory_max: usize,
    bodies: Vec<Body>,
    /// Octets of the current body that are in memory.
    buffer: Vec<u8>,
    /// Octets held in memory for this line.
    in_memory: usize,
    /// Octets staged for this line.
    staged: u64,
    /// Where the current body begins in the staging file, if it is staged.
    staged_from: Option<u64>,
}

impl Spool {
    pub(super) fn new(memory_max: usize) -> Spool {
        Spool {
            memory_max,
            bodies: Vec::new(),
            buffer: Vec::new(),
            in_memory: 0,
            staged: 0,
            staged_from: None,
        }
    }

    /// Octets of this line that were given out to be staged.
    pub(super) fn staged(&self) -> u64 {
        self.staged
    }

    /// A body begins, of `len` octets if its header can be believed.
    pub(super) fn start(&mut self, len: u64) {
        let len = usize::try_from(len).unwrap_or(PIECE).min(EXPECTED_MAX);
        self.buffer = Vec::with_capacity(len);
        self.staged_from = None;
    }

    /// Octets of it. What is returned is to be staged before anything else.
    #[must_use]
    pub(super) fn add(&mut self, octets: &[u8]) -> Option<Vec<u8>> {
        self.buffer.extend_from_slice(octets);
        if self.staged_from.is_none() {
            self.in_memory += octets.len();
            if self.in_memory > self.memory_max {
                self.in_memory -= self.buffer.len();
                self.staged_from = Some(self.staged);
            }
        }
        let is_due = self.staged_from.is_some() && self.buffer.len() >= PIECE;
        is_due.then(|| self.take_piece())
    }

    /// It is complete; as for `add`.
    #[must_use]
    pub(super) fn end(&mut self) -> Option<Vec<u8>> {
        let Some(offset) = self.staged_from.take() else {
            self.bodies.push(Body::Memory(std::mem::take(&mut self.buffer)));
            return None;
        };
        let piece = (!self.buffer.is_empty()).then(|| self.take_piece());
        self.bodies.push(Body::Staged { offset, len: self.staged - offset });
        piece
    }

    /// The bodies of the complete line.
    pub(super) fn take(&mut self) -> Vec<Body> {
        let bodies = std::mem::take(&mut self.bodies);
        *self = Spool::new(self.memory_max);
        bodies
    }

    fn take_piece(&mut self) -> Vec<u8> {
        self.staged += self.buffer.len() as u64;
        std::mem::take(&mut self.buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds bodies in pieces; returns what stays and what was staged.
    fn run(memory_max: usize, bodies: &[&[u8]], piece: usize) -> (Vec<Body>, Vec<u8>) {
        let mut spool = Spool::new(memory_max);
        let mut staged = Vec::new();
        for body in bodies {
            spool.start(body.len() as u64);
            for octets in body.chunks(piece) {
                staged.extend(spool.add(octets).into_iter().flatten());
            }
            staged.extend(spool.end().into_iter().flatten());
        }
        (spool.take(), staged)
    }

    #[test]
    fn small_bodies_stay_in_memory_up_to_the_limit() {
        let (bodies, staged) = run(8, &[b"abcd", b"", b"efgh"], 3);
        assert!(staged.is_empty());
        assert_eq!(bodies, [b"abcd".to_vec(), Vec::new(), b"efgh".to_vec()].map(Body::Memory));
    }

    #[test]
    fn beyond_the_limit_bodies_are_staged_one_behind_the_other() {
        let (bodies, staged) = run(8, &[b"abcd", b"efghi", b"jk", b"lmn"], 2);
        assert_eq!(
            bodies,
            [
                Body::Memory(b"abcd".to_vec()),
                Body::Staged { offset: 0, len: 5 },
                Body::Memory(b"jk".to_vec()),
                Body::Staged { offset: 5, len: 3 },
            ]
        );
        assert_eq!(staged, b"efghilmn");
    }

    #[test]
    fn large_bodies_leave_piece_by_piece() {
        let large: Vec<u8> = (0..3 * PIECE + 7).map(|i| i as u8).collect();
        let (bodies, staged) = run(100, &[&large, &large], 100_000);
        let len = large.len() as u64;
        assert_eq!(bodies, [Body::Staged { offset: 0, len }, Body::Staged { offset: len, len }]);
        assert_eq!(staged, [&large[..], &large[..]].concat());
    }

    #[test]
    fn the_next_line_begins_anew() {
        let mut spool = Spool::new(2);
        spool.start(9);
        assert!(spool.add(b"abc").is_none());
        assert_eq!(spool.end().as_deref(), Some(&b"abc"[..]));
        assert_eq!(spool.take().len(), 1);
        spool.start(9);
        assert!(spool.add(b"ab").is_none());
        assert!(spool.end().is_none());
        assert_eq!(spool.take(), [Body::Memory(b"ab".to_vec())]);
    }
}
