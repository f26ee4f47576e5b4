//! Connections that can go on without an event, each once, the longest waiting first.

use std::collections::{HashSet, VecDeque};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ready {
    queue: VecDeque<usize>,
    queued: HashSet<usize>,
}

impl Ready {
    /// Puts a connection at the end, unless it is waiting already.
    pub(super) fn push(&mut self, token: usize) {
        if self.queued.insert(token) {
            self.queue.push_back(token);
        }
    }

    pub(super) fn pop(&mut self) -> Option<usize> {
        let token = self.queue.pop_front()?;
        self.queued.remove(&token);
        Some(token)
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_waits_once() {
        let mut ready = Ready::default();
        for token in [3, 1, 3, 2, 1] {
            ready.push(token);
        }
        assert_eq!((ready.len(), ready.pop()), (3, Some(3)));
        // Whoever had a turn may wait for another one.
        ready.push(3);
        assert_eq!(
            [ready.pop(), ready.pop(), ready.pop(), ready.pop()],
            [1, 2, 3, 0].map(|n| { Some(n).filter(|n| *n > 0) })
        );
        assert!(ready.is_empty() && ready.queued.is_empty());
    }
}
