//! Which partition a new backup goes to: the options `partition_select_*`.
//!
//! Weights come from the free space of the partitions and are computed once,
//! or again after every so many choices. The arithmetic is the reference's,
//! including its fallback: if the space of any partition cannot be told, all
//! are equally likely.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};

use super::placement::create_dirs;

/// Weight of every partition when the choice is random.
const QUOTA_EQUAL: f64 = 50.0;

/// Option `partition_select_mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SelectMode {
    /// All partitions alike.
    Random,
    /// Most free bytes.
    #[default]
    FreespaceMost,
    /// Highest share of free space.
    FreespacePercentMost,
    /// As likely as its share of free space.
    FreespacePercentWeighted,
    /// As likely as its share exceeds the lowest one.
    FreespacePercentWeightedDelta,
}

impl SelectMode {
    /// The mode of this name in imapd.conf; names are case-sensitive.
    pub fn from_option(name: &str) -> Option<SelectMode> {
        Some(match name {
            "random" => SelectMode::Random,
            "freespace-most" => SelectMode::FreespaceMost,
            "freespace-percent-most" => SelectMode::FreespacePercentMost,
            "freespace-percent-weighted" => SelectMode::FreespacePercentWeighted,
            "freespace-percent-weighted-delta" => SelectMode::FreespacePercentWeightedDelta,
            _ => return None,
        })
    }

    /// One best partition is chosen, so those on one file system are one.
    fn is_most(self) -> bool {
        matches!(self, SelectMode::FreespaceMost | SelectMode::FreespacePercentMost)
    }
}

/// Space of the file system that a partition is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    /// Free to ordinary users, in KiB.
    available: u64,
    /// In KiB.
    total: u64,
    file_system: u64,
}

/// Asks for the space at `dir`, which is created if it does not exist.
pub(super) fn space_of(dir: &Path, umask: u32) -> Option<Space> {
    let stat = match rustix::fs::statvfs(dir) {
        Err(rustix::io::Errno::NOENT) => {
            create_dirs(dir, umask).ok()?;
            rustix::fs::statvfs(dir).ok()?
        }
        other => other.ok()?,
    };
    Some(Space {
        available: stat.f_bavail.saturating_mul(stat.f_frsize) / 1024,
        total: stat.f_blocks.saturating_mul(stat.f_frsize) / 1024,
        file_system: stat.f_fsid,
    })
}

/// The partitions with their weights; immutable once computed.
#[derive(Debug)]
pub(super) struct Weights {
    items: Vec<Item>,
    rule: Rule,
}

#[derive(Debug)]
struct Item {
    dir: PathBuf,
    /// KiB.
    available: u64,
    /// 0 is never chosen. What it means beyond that depends on the rule.
    quota: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    Equal,
    MostAvailable,
    HighestQuota,
    Weighted,
}

impl Weights {
    /// Computes the weights of `dirs`. `space` tells the space of each one,
    /// `None` if it cannot be told. `soft_usage_limit` is in percent used.
    pub(super) fn compute(
        dirs: Vec<PathBuf>,
        mode: SelectMode,
        soft_usage_limit: i32,
        space: impl Fn(&Path) -> Option<Space>,
    ) -> Weights {
        let spaces: Vec<_> = match mode {
            SelectMode::Random => vec![None; dirs.len()],
            _ => dirs.iter().map(|dir| space(dir)).collect(),
        };
        let quotas = quotas(&spaces, mode, soft_usage_limit);
        let rule = match mode {
            _ if quotas.is_none() => Rule::Equal,
            SelectMode::Random => Rule::Equal,
            SelectMode::FreespaceMost => Rule::MostAvailable,
            SelectMode::FreespacePercentMost => Rule::HighestQuota,
            SelectMode::FreespacePercentWeighted | SelectMode::FreespacePercentWeightedDelta => {
                Rule::Weighted
            }
        };
        let quotas = quotas.unwrap_or_else(|| vec![QUOTA_EQUAL; dirs.len()]);
        let item = |((dir, space), quota): ((PathBuf, Option<Space>), f64)| Item {
            dir,
            available: space.map_or(0, |space| space.available),
            quota,
        };
        let items = dirs.into_iter().zip(spaces).zip(quotas).map(item).collect();
        Weights { items, rule }
    }

    /// The partition to use. `draw` is a random number.
    pub(super) fn choose(&self, draw: u64) -> Option<&Path> {
        let open: Vec<&Item> = self.items.iter().filter(|item| item.quota > 0.0).collect();
        let last = *open.last()?;
        let chosen = match self.rule {
            Rule::Equal => open[(draw % open.len() as u64) as usize],
            Rule::MostAvailable => best(&open, |item| item.available as f64)?,
            Rule::HighestQuota => best(&open, |item| item.quota)?,
            Rule::Weighted => {
                let sum: f64 = open.iter().map(|item| item.quota).sum();
                // 53 bits, as many as a float holds.
                let mut left = (draw >> 11) as f64 / (1_u64 << 53) as f64 * sum;
                let mut hit = |item: &&&Item| {
                    left -= item.quota;
                    left < 0.0
                };
                open.iter().find(|item| hit(item)).copied().unwrap_or(last)
            }
        };
        Some(&chosen.dir)
    }
}

/// The first item with the highest positive measure.
fn best<'a>(items: &[&'a Item], measure: impl Fn(&Item) -> f64) -> Option<&'a Item> {
    let mut best = (0.0, None);
    for &item in items {
        if measure(item) > best.0 {
            best = (measure(item), Some(item));
        }
    }
    best.1
}

/// The weight of each partition, in percent of free space or derived from it.
/// `None` if that of any cannot be told.
fn quotas(spaces: &[Option<Space>], mode: SelectMode, soft_usage_limit: i32) -> Option<Vec<f64>> {
    let limit = f64::from(100_i32.saturating_sub(soft_usage_limit));
    let mut quotas = Vec::with_capacity(spaces.len());
    // Those that take part, which in the `most` modes leaves out all but the
    // first on a file system.
    let mut counted = Vec::with_capacity(spaces.len());
    for (index, space) in spaces.iter().enumerate() {
        let earlier = &spaces[..index];
        let same = |other: &Option<Space>| {
            other.map_or(0, |s| s.file_system) == space.map_or(0, |s| s.file_system)
        };
        if mode.is_most() && earlier.iter().any(same) {
            quotas.push(0.0);
            continue;
        }
        let space = (*space)?;
        let percent = 100.0 * space.available as f64 / space.total as f64;
        // Also false for the NaN of a file system without size.
        if !(0.0..=100.0).contains(&percent) {
            return None;
        }
        quotas.push(percent);
        counted.push(percent);
    }
    let above: Vec<f64> = counted.iter().copied().filter(|&q| q > limit).collect();
    let floor = if above.is_empty() {
        &counted
    } else {
        for quota in &mut quotas {
            if *quota <= limit {
                *quota = 0.0;
            }
        }
        &above
    };
    if mode == SelectMode::FreespacePercentWeightedDelta {
        let min = floor.iter().copied().fold(f64::INFINITY, f64::min);
        for quota in quotas.iter_mut().filter(|quota| **quota > 0.0) {
            *quota = (*quota - min + 0.5).max(0.0);
        }
    }
    Some(quotas)
}

/// A random number for one choice; not for secrets.
pub(super) fn draw() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::SelectMode::*;
    use super::*;

    fn space(available: u64, total: u64, file_system: u64) -> Option<Space> {
        Some(Space { available, total, file_system })
    }

    fn weights(mode: SelectMode, limit: i32, spaces: &[Option<Space>]) -> Weights {
        let dirs = (0..spaces.len()).map(|n| PathBuf::from(n.to_string()));
        Weights::compute(dirs.collect(), mode, limit, |dir| {
            spaces[dir.to_str().unwrap().parse::<usize>().unwrap()]
        })
    }

    /// How often each partition is chosen by 1000 draws, evenly spread.
    fn tally(weights: &Weights) -> Vec<usize> {
        let mut tally = vec![0; weights.items.len()];
        for n in 0..1000_u64 {
            let dir = weights.choose(n * (u64::MAX / 1000) + u64::MAX / 2000).unwrap();
            tally[dir.to_str().unwrap().parse::<usize>().unwrap()] += 1;
        }
        tally
    }

    #[test]
    fn most_takes_the_best_and_one_per_file_system() {
        let spaces = [space(50, 100, 1), space(70, 1000, 2), space(70, 100, 1)];
        assert_eq!(tally(&weights(FreespaceMost, 0, &spaces)), [0, 1000, 0]);
        assert_eq!(tally(&weights(FreespacePercentMost, 0, &spaces)), [1000, 0, 0]);
    }

    #[test]
    fn weighted_is_proportional() {
        let spaces = [space(20, 100, 1), space(60, 100, 2), space(20, 100, 2)];
        assert_eq!(tally(&weights(FreespacePercentWeighted, 0, &spaces)), [200, 600, 200]);
        let spaces = [space(20, 100, 1), space(21, 100, 2)];
        let delta = weights(FreespacePercentWeightedDelta, 0, &spaces);
        assert_eq!(tally(&delta), [250, 750]);
    }

    #[test]
    fn the_soft_limit_leaves_out_full_partitions_unless_all_are() {
        let spaces = [space(10, 100, 1), space(60, 100, 2)];
        let most = |limit| tally(&weights(FreespacePercentWeighted, limit, &spaces));
        assert_eq!(most(80), [0, 1000]);
        assert_eq!(most(0), [143, 857]);
        assert_eq!(most(20), [143, 857]);
        // Many bytes free do not help a partition beyond the limit.
        let spaces = [space(100, 1000, 1), space(60, 100, 2)];
        assert_eq!(tally(&weights(FreespaceMost, 80, &spaces)), [0, 1000]);
    }

    #[test]
    fn unknown_space_makes_all_alike() {
        for broken in [None, space(1, 0, 0), space(200, 100, 0)] {
            for mode in [FreespaceMost, FreespacePercentMost, FreespacePercentWeighted] {
                let spaces = [space(90, 100, 1), broken];
                let tally = tally(&weights(mode, 0, &spaces));
                assert!(tally.iter().all(|&n| n > 300), "{mode:?} {broken:?} {tally:?}");
            }
        }
    }

    #[test]
    fn full_disks_and_no_partitions_give_none() {
        assert!(weights(FreespaceMost, 0, &[space(0, 100, 1)]).choose(7).is_none());
        for mode in [Random, FreespaceMost, FreespacePercentWeighted] {
            assert!(weights(mode, 0, &[]).choose(7).is_none());
        }
    }
}
