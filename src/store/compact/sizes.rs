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

    /// Whether `dropped` chunks that go, and chunks of these lengths that stay, are
    /// worth the work.
    pub(super) fn is_worth_it(&self, dropped: usize, kept: &[u64]) -> bool {
        let threshold = self.work_threshold.max(1);
        let mut gain = dropped as u64;
        let contradictory = self.min > 0 && self.max > 0 && self.min >= self.max;
        if gain < threshold && (self.min > 0 || self.max > 0) && !contradictory {
            for (i, &length) in kept.iter().enumerate() {
                gain += u64::from(self.combines(length, kept.get(i + 1).copied()));
                gain += u64::from(self.splits(length));
            }
        }
        gain >= threshold
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

    #[test]
    fn worth_it() {
        let lengths = [50, 200, 30];
        assert!(sizes(0, 0, 1).is_worth_it(1, &lengths));
        assert!(!sizes(0, 0, 0).is_worth_it(0, &lengths));
        assert!(!sizes(0, 0, 2).is_worth_it(1, &lengths));
        // Two pairs to join.
        assert!(sizes(60, 0, 2).is_worth_it(0, &lengths));
        assert!(!sizes(60, 0, 3).is_worth_it(0, &lengths));
        // Two chunks to split.
        assert!(sizes(0, 50, 2).is_worth_it(0, &lengths));
        // Sizes that contradict each other count for nothing.
        assert!(!sizes(60, 60, 1).is_worth_it(0, &lengths));
        assert!(sizes(60, 60, 1).is_worth_it(1, &lengths));
    }
}
