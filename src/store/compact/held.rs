//! What the survey has read of chunks, for when they are copied: they need not be inflated again.

use std::collections::{HashMap, HashSet};

use crate::store::replay::{Line, Lines, Scanned};

/// Octets of chunks that are held; of further chunks nothing is.
const LINES_MAX: usize = 16 << 20;

/// Chunks by their rows.
#[derive(Default)]
pub(super) struct Held {
    chunks: HashMap<i64, Scanned>,
    octets: usize,
}

impl Held {
    /// Holds a chunk, if there is room for it.
    pub(super) fn add(&mut self, id: i64, scanned: Scanned) {
        let Lines::Held(lines, _) = &scanned.lines else { return };
        let size =
            |line: &Line| line.line.text().len() + size_of_val(&*line.bodies) + size_of::<Line>();
        let octets = self.octets + size_of::<Scanned>() + lines.iter().map(size).sum::<usize>();
        if octets <= LINES_MAX {
            self.octets = octets;
            self.chunks.insert(id, scanned);
        }
    }

    /// Lets go of all other chunks.
    pub(super) fn keep_only(&mut self, ids: &HashSet<i64>) {
        self.chunks.retain(|id, _| ids.contains(id));
    }

    /// What is held of a chunk.
    pub(super) fn get(&self, id: i64) -> Option<&Scanned> {
        self.chunks.get(&id)
    }
}
