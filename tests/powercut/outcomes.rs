//! The states that a power cut may leave.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use super::Random;
use super::change::Change;
use super::disk::{Disk, Made, Names, Node};

/// So many unsynced names are tried in every combination.
const COMBINED: usize = 5;

/// A file system after a power cut.
pub(crate) struct State {
    /// Which cut, and what was lost.
    pub(crate) what: String,
    pub(crate) replies: usize,
    /// Only the process has died: what it had written is there.
    pub(crate) has_all: bool,
    pub(crate) names: Names,
    /// What the numbers in `names` mean.
    pub(crate) nodes: BTreeMap<usize, Node>,
}

/// What becomes of the octets of a file that were not synced.
#[derive(Clone, Copy, Debug)]
enum Fate {
    All,
    None,
    /// The length is there, the octets are not.
    Zeros,
    /// All up to somewhere.
    Prefix(u64),
    /// Any sectors of any writes.
    Scattered(u64),
}

/// How many states are tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Random fates of each kind, at each cut.
    pub(crate) random: u64,
    /// Whether each fate is combined with each other one, of other files.
    pub(crate) combines_fates: bool,
}

/// A history, and what may be left of it.
pub(crate) struct Outcomes {
    disk: Disk,
    losses: Vec<Loss>,
}

/// What is there of the unsynced changes in front of a cut.
struct Loss {
    /// By its number.
    cut: usize,
    /// Names, by the moments at which they were made.
    kept: BTreeSet<usize>,
    fates: BTreeMap<usize, Fate>,
    /// Only the process has died: what it had written is there.
    has_all: bool,
}

impl Outcomes {
    pub(crate) fn of(disk: Disk, effort: Effort) -> Outcomes {
        let mut losses = Vec::new();
        for (number, cut) in disk.cuts.iter().enumerate() {
            let pending =
                || disk.history.iter().filter(|made| made.at <= cut.at && made.durable > cut.at);
            let is_name = |made: &&Made| matches!(made.change, Change::Name(_));
            let names: Vec<usize> = pending().filter(is_name).map(|made| made.at).collect();
            let files: BTreeSet<usize> = pending().filter_map(|made| made.change.file()).collect();
            let files: Vec<usize> = files.into_iter().collect();
            for kept in combinations(&names) {
                for fates in fates(&files, effort, number as u64) {
                    let all = fates.values().all(|fate| matches!(fate, Fate::All));
                    let has_all = kept.len() == names.len() && all;
                    losses.push(Loss { cut: number, kept: kept.clone(), fates, has_all });
                }
            }
        }
        Outcomes { disk, losses }
    }

    /// States that differ, evenly spread, at most about so many; with a number each.
    pub(crate) fn states(&self, most: usize) -> impl Iterator<Item = (usize, State)> {
        let mut seen = HashSet::new();
        let some = self.losses.iter().enumerate().step_by(self.losses.len().div_ceil(most).max(1));
        some.map(|(number, loss)| (number, state(&self.disk, loss)))
            .filter(move |(_, state)| seen.insert(state.hash()))
    }
}

/// Which of the unsynced names are there: every combination, or of many each prefix, each one
/// alone and all but each.
fn combinations(names: &[usize]) -> Vec<BTreeSet<usize>> {
    if names.len() <= COMBINED {
        let chosen = |mask: usize| {
            let bits = names.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1);
            bits.map(|(_, &name)| name).collect()
        };
        return (0..1 << names.len()).rev().map(chosen).collect();
    }
    let prefixes = (0..=names.len()).rev().map(|end| names[..end].iter().copied().collect());
    let alone = names.iter().map(|&name| BTreeSet::from([name]));
    let but_one =
        names.iter().map(|&name| names.iter().copied().filter(|&other| other != name).collect());
    prefixes.chain(alone).chain(but_one).collect()
}

fn fates(files: &[usize], effort: Effort, seed: u64) -> Vec<BTreeMap<usize, Fate>> {
    let all = |fate: Fate| files.iter().map(|&file| (file, fate)).collect::<BTreeMap<_, _>>();
    if files.is_empty() {
        return vec![BTreeMap::new()];
    }
    let mut found = vec![all(Fate::All), all(Fate::None), all(Fate::Zeros)];
    for number in 0..effort.random {
        found.push(all(Fate::Prefix(seed << 8 | number)));
        found.push(all(Fate::Scattered(seed << 8 | number)));
    }
    if files.len() > 1 {
        for &file in files {
            for (one, others) in [(Fate::All, Fate::None), (Fate::None, Fate::All)] {
                let mut mixed = all(others);
                mixed.insert(file, one);
                found.push(mixed);
            }
        }
    }
    if files.len() > 1 && effort.combines_fates {
        let kinds = [Fate::All, Fate::None, Fate::Zeros, Fate::Scattered(seed)];
        for number in 0..kinds.len().pow(files.len().min(4) as u32) {
            let nth = |place: usize| kinds[number / kinds.len().pow(place as u32) % kinds.len()];
            let fates = files.iter().enumerate();
            found.push(fates.map(|(place, &file)| (file, nth(place.min(3)))).collect());
        }
    }
    found
}

fn state(disk: &Disk, loss: &Loss) -> State {
    let Loss { kept, fates, has_all, .. } = loss;
    let cut = &disk.cuts[loss.cut];
    let done = || disk.history.iter().filter(|made| made.at <= cut.at);
    let mut names = disk.names.clone();
    for made in done() {
        if let Change::Name(edits) = &made.change
            && (made.durable <= cut.at || kept.contains(&made.at))
        {
            edits.iter().for_each(|edit| edit.make(&mut names));
        }
    }
    drop_unreachable(disk, &mut names);
    let numbers: BTreeSet<usize> = names.values().copied().collect();
    let node = |number: usize| match &disk.nodes[number] {
        Node::File(octets) => {
            let mut octets = octets.clone();
            let of_file = || done().filter(|made| made.change.file() == Some(number));
            let durable = of_file().filter(|made| made.durable <= cut.at);
            durable.for_each(|made| made.change.make(&mut octets));
            let pending: Vec<_> = of_file().filter(|made| made.durable > cut.at).collect();
            let fate = fates.get(&number).copied().unwrap_or(Fate::None);
            fate.befall(&mut octets, &pending);
            Node::File(octets)
        }
        other => other.clone(),
    };
    let nodes = numbers.into_iter().map(|number| (number, node(number))).collect();
    let is_lost = |made: &&Made| made.durable > cut.at && !kept.contains(&made.at);
    let lost: Vec<String> = done().filter(is_lost).filter_map(|made| made.change.shown()).collect();
    let what = format!("{}; lost: {lost:?}; {fates:?}", cut.what);
    State { what, replies: cut.replies, has_all: *has_all, names, nodes }
}

/// What is in a directory that is not there is not there either.
fn drop_unreachable(disk: &Disk, names: &mut Names) {
    let made: HashSet<PathBuf> = disk.history.iter().flat_map(directories(disk)).collect();
    let gone: Vec<PathBuf> = made.into_iter().filter(|path| !names.contains_key(path)).collect();
    names.retain(|path, _| !gone.iter().any(|directory| path.starts_with(directory)));
}

fn directories(disk: &Disk) -> impl Fn(&Made) -> Vec<PathBuf> + '_ {
    |made| match &made.change {
        Change::Name(edits) => {
            let made = edits.iter().filter_map(|edit| edit.made());
            let made = made.filter(|(_, number)| disk.nodes[*number] == Node::Directory);
            made.map(|(path, _)| path).collect()
        }
        _ => Vec::new(),
    }
}

impl Fate {
    fn befall(self, octets: &mut Vec<u8>, pending: &[&Made]) {
        match self {
            Fate::None => {}
            Fate::All => pending.iter().for_each(|made| made.change.make(octets)),
            Fate::Zeros => pending.iter().for_each(|made| made.change.lengthen(octets)),
            Fate::Prefix(seed) => {
                let mut random = Random::new(seed);
                let end = random.below(pending.len() as u64 + 1) as usize;
                pending[..end].iter().for_each(|made| made.change.make(octets));
                if let Some(made) = pending.get(end) {
                    made.change.scatter(octets, &mut random, 2);
                }
            }
            Fate::Scattered(seed) => {
                let mut random = Random::new(seed);
                // Few losses are harder to see than many.
                let loss = [2, 8, 32][random.below(3) as usize];
                pending.iter().for_each(|made| made.change.scatter(octets, &mut random, loss));
                if random.below(2) == 0 {
                    pending.iter().for_each(|made| made.change.lengthen(octets));
                }
            }
        }
    }
}

impl State {
    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.replies, self.has_all, &self.names).hash(&mut hasher);
        for (number, node) in &self.nodes {
            match node {
                Node::File(octets) => {
                    (number, octets.len(), crc32fast::hash(octets)).hash(&mut hasher);
                }
                other => (number, other).hash(&mut hasher),
            }
        }
        hasher.finish()
    }
}
