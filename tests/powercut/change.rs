//! What changes files and names, and how much of it there may be.

use std::path::PathBuf;

use super::Random;
use super::disk::Names;

/// Power goes sector by sector.
const SECTOR: usize = 512;

/// A change that a power cut may take back.
#[derive(Debug)]
pub(crate) enum Change {
    Write { file: usize, at: usize, octets: Vec<u8> },
    Cut { file: usize, len: usize },
    Name(Vec<Edit>),
}

/// A name that has another meaning, or none, from now on.
#[derive(Debug)]
pub(crate) struct Edit {
    pub(crate) path: PathBuf,
    pub(crate) was: Option<usize>,
    pub(crate) is: Option<usize>,
}

impl Edit {
    /// Makes it, as far as there is something to change.
    pub(crate) fn make(&self, names: &mut Names) {
        match self.is {
            Some(number) => drop(names.insert(self.path.clone(), number)),
            None if names.get(&self.path).copied() == self.was => drop(names.remove(&self.path)),
            None => {}
        }
    }

    /// The name and number of what it puts there.
    pub(crate) fn made(&self) -> Option<(PathBuf, usize)> {
        Some((self.path.clone(), self.is?))
    }
}

impl Change {
    pub(crate) fn file(&self) -> Option<usize> {
        match self {
            Change::Write { file, .. } | Change::Cut { file, .. } => Some(*file),
            Change::Name(_) => None,
        }
    }

    pub(crate) fn make(&self, octets: &mut Vec<u8>) {
        match self {
            Change::Write { at, octets: written, .. } => put(octets, *at, written),
            Change::Cut { len, .. } => octets.resize(*len, 0),
            Change::Name(_) => {}
        }
    }

    /// What it does to names.
    pub(crate) fn shown(&self) -> Option<String> {
        let Change::Name(edits) = self else { return None };
        let name = |edit: &Edit| {
            let sign = if edit.is.is_some() { '+' } else { '-' };
            format!("{sign}{}", edit.path.file_name().unwrap_or_default().display())
        };
        Some(edits.iter().map(name).collect::<Vec<_>>().join(" "))
    }

    pub(crate) fn lengthen(&self, octets: &mut Vec<u8>) {
        match self {
            Change::Write { at, octets: written, .. } => {
                octets.resize(octets.len().max(at + written.len()), 0);
            }
            _ => self.make(octets),
        }
    }

    /// Makes it, but for one of `loss` sectors.
    pub(crate) fn scatter(&self, octets: &mut Vec<u8>, random: &mut Random, loss: u64) {
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

fn put(octets: &mut Vec<u8>, at: usize, written: &[u8]) {
    octets.resize(octets.len().max(at), 0);
    // What goes on behind the end need not be filled first: unoptimised, that takes its time.
    let (over, behind) = written.split_at(written.len().min(octets.len() - at));
    octets[at..at + over.len()].copy_from_slice(over);
    octets.extend_from_slice(behind);
}
