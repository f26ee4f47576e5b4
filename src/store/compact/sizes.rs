//! When a compaction is worth while, and where chunks are joined and split: Cyrus's
//! arithmetic. All sizes are inflated octets, header line included.

/// Sizes that chunks should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// `backup_compact_minsize`: smaller ones are joined to their successor; 0: never.
    pub min: u64,
    /// `backup_compact_maxsize`: larger ones are split; 0: never.
    pub max: u64,
    /// `backup_compact_work_threshold`: the least number of chunks with something to
    /// gain; 0 counts as 1.
    pub work_threshold: u64,
}

impl Sizes {
    /// Whether a chunk of `length`, so far, goes on with its successor.
    pub(super) fn combines(&self, length: u64, next: Option<u64>) -> bool {
        let Some(next) = next else { return false };
        if length >= self.min && next >= self.min {
            return false;
        }
        self.max == 0 || length.saturating_add(next) <= self.max
    }

    /// Whether a chunk is to be split at all.
    pub(super) fn splits(&self, length: u64) -> bool {
        self.max > 0 && length >= self.max.saturating_add(self.min)
    }

    /// Whether, in mid-chunk, what was `written` is enough for one. `written` may
    /// exceed `length` where chunks were joined; the difference wraps, as in Cyrus.
    pub(super) fn splits_here(&self, length: u64, written: u64) -> bool {
        self.splits(length) && written >= self.max && length.wrapping_sub(written) > self.min
    }

    /// Begins to add up what there is to gain.
    pub(super) fn gain(self) -> Gain {
        let contradictory = self.min > 0 && self.max > 0 && self.min >= self.max;
        let has_sizes = (self.min > 0 || self.max > 0) && !contradictory;
        Gain { sizes: self, has_sizes, dropped: 0, resized: 0, last: None }
    }
}

/// What there is to gain, chunk by chunk in their order.
pub(super) struct Gain {
    sizes: Sizes,
    has_sizes: bool,
    dropped: u64,
    resized: u64,
    /// Length of the last one that stays.
    last: Option<u64>,
}

impl Gain {
    /// A chunk of this length stays, or does not.
    pub(super) fn add(&mut self, length: u64, stays: bool) {
        if !stays {
            self.dropped += 1;
            return;
        }
        if let Some(last) = self.last.replace(length) {
            self.resized += u64::from(self.sizes.combines(last, Some(length)));
        }
        self.resized += u64::from(self.sizes.splits(length));
    }

    /// Whether that is worth the work.
    pub(super) fn is_worth_it(&self) -> bool {
        let resized = if self.has_sizes { self.resized } else { 0 };
        self.dropped + resized >= self.sizes.work_threshold.max(1)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sizes(min: u64, max: u64, work_threshold: u64) -> Sizes {
        Sizes { min, max, work_threshold }
    }

    #[test]
    fn joined_below_the_minimum_and_up_to_the_maximum() {
        let small = sizes(100, 0, 1);
        assert!(small.combines(99, Some(500)) && small.combines(500, Some(99)));
        assert!(!small.combines(100, Some(100)) && !small.combines(1, None));
        let both = sizes(100, 150, 1);
        assert!(both.combines(50, Some(100)));
        assert!(!both.combines(51, Some(100)));
        assert!(!sizes(0, 0, 1).combines(1, Some(1)));
    }

    #[test]
    fn split_where_enough_is_left() {
        let s = sizes(10, 100, 1);
        assert!(!s.splits(109) && s.splits(110));
        assert!(s.splits_here(300, 100) && !s.splits_here(300, 99));
        assert!(s.splits_here(300, 289) && !s.splits_here(300, 290));
        assert!(s.splits_here(300, 301), "the difference wraps");
        assert!(!sizes(10, 0, 1).splits(1 << 40));
    }

    fn is_worth_it(sizes: Sizes, dropped: usize, kept: &[u64]) -> bool {
        let mut gain = sizes.gain();
        (0..dropped).for_each(|_| gain.add(1000, false));
        kept.iter().for_each(|&length| gain.add(length, true));
        gain.is_worth_it()
    }

    #[test]
    fn worth_it() {
        let lengths = [50, 200, 30];
        assert!(is_worth_it(sizes(0, 0, 1), 1, &lengths));
        assert!(!is_worth_it(sizes(0, 0, 0), 0, &lengths));
        assert!(!is_worth_it(sizes(0, 0, 2), 1, &lengths));
        // Two pairs to join.
        assert!(is_worth_it(sizes(60, 0, 2), 0, &lengths));
        assert!(!is_worth_it(sizes(60, 0, 3), 0, &lengths));
        // Two chunks to split.
        assert!(is_worth_it(sizes(0, 50, 2), 0, &lengths));
        // Sizes that contradict each other count for nothing.
        assert!(!is_worth_it(sizes(60, 60, 1), 0, &lengths));
        assert!(is_worth_it(sizes(60, 60, 1), 1, &lengths));
    }
}
