//! The states that a power cut may leave.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use super::Random;
use super::disk::{Change, Cut, Disk, Made, Names, Node, put};

/// Power goes sector by sector.
const SECTOR: usize = 512;
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

/// All states of a history that differ.
pub(crate) fn of(disk: &Disk, effort: Effort) -> Vec<State> {
    let mut seen = HashSet::new();
    let mut states = Vec::new();
    for (number, cut) in disk.cuts.iter().enumerate() {
        let done = || disk.history.iter().filter(|made| made.at <= cut.at);
        let pending: Vec<&Made> = done().filter(|made| made.durable > cut.at).collect();
        let is_name = |made: &&&Made| matches!(made.change, Change::Name(_));
        let names: Vec<usize> = pending.iter().filter(is_name).map(|made| made.at).collect();
        let files: Vec<usize> = pending.iter().filter_map(|made| made.change.file()).collect();
        let files: Vec<usize> = BTreeSet::from_iter(files).into_iter().collect();
        for kept in combinations(&names) {
            for fates in fates(&files, effort, number as u64) {
                let has_all = kept.len() == names.len()
                    && fates.values().all(|fate| matches!(fate, Fate::All));
                let state = state(disk, cut, &kept, &fates, has_all);
                if seen.insert(state.hash()) {
                    states.push(state);
                }
            }
        }
    }
    states
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

fn state(
    disk: &Disk,
    cut: &Cut,
    kept: &BTreeSet<usize>,
    fates: &BTreeMap<usize, Fate>,
    has_all: bool,
) -> State {
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
    State { what, replies: cut.replies, has_all, names, nodes }
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

impl Change {
    fn scatter(&self, octets: &mut Vec<u8>, random: &mut Random, loss: u64) {
        match self {
            Change::Write { at, octets: written, .. } => {
                let mut from = 0;
                while from < written.len() {
                    let to = written.len().min(((at + from) / SECTOR + 1) * SECTOR - at);
                    if random.below(loss) > 0 {
                        put(octets, at + from, &written[from..to]);
                    }
                    from = to;
                }
            }
            _ if random.below(2) == 0 => {}
            _ => self.make(octets),
        }
    }
}

impl State {
    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.replies, &self.names, &self.nodes).hash(&mut hasher);
        hasher.finish()
    }
}
