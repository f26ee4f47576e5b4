//! Which backups lack the messages that a client was told are missing.

use std::collections::HashMap;

use crate::wire::Guid;

/// Who lacks a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lacking {
    /// This backup alone.
    One(Vec<u8>),
    /// More than one; see [`Reserved::keys`].
    Several(Set),
}

/// Some of the backups of a [`Reserved`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Set(usize);

/// A backup's place in a [`Reserved`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(usize);

const EMPTY: Set = Set(0);

/// The messages that are missing.
///
/// As a rule a whole group of messages is missing in the same backups: sets share what they
/// have in common. Each is another one and a key behind all of that one's.
#[derive(Debug, Default)]
pub(super) struct Reserved {
    /// In the order in which they were named.
    keys: Vec<Vec<u8>>,
    places: HashMap<Vec<u8>, Key>,
    /// What [`Set`] n + 1 consists of.
    sets: Vec<(Set, Key)>,
    known: HashMap<(usize, Key), Set>,
    lacking: HashMap<Guid, Set>,
}

impl Reserved {
    /// The place of a backup; one that was not named yet comes behind the others.
    pub(super) fn key(&mut self, key: &[u8]) -> Key {
        if let Some(place) = self.places.get(key) {
            return *place;
        }
        let place = Key(self.keys.len());
        self.keys.push(key.to_vec());
        self.places.insert(key.to_vec(), place);
        place
    }

    /// The backup lacks the message.
    pub(super) fn add(&mut self, key: Key, guid: Guid) {
        let set = self.lacking.get(&guid).copied().unwrap_or(EMPTY);
        let set = self.with(set, key);
        self.lacking.insert(guid, set);
    }

    /// Who lacks it; `None` if it was not reserved.
    pub(super) fn lacking(&self, guid: &Guid) -> Option<Lacking> {
        let set = *self.lacking.get(guid)?;
        Some(match self.parts(set) {
            Some((EMPTY, key)) => Lacking::One(self.keys.get(key.0)?.clone()),
            _ => Lacking::Several(set),
        })
    }

    /// The backups of a set, in the order in which they were named.
    pub(super) fn keys(&self, mut set: Set) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        while let Some((rest, key)) = self.parts(set) {
            keys.extend(self.keys.get(key.0).cloned());
            set = rest;
        }
        keys.reverse();
        keys
    }

    /// It has come.
    pub(super) fn remove(&mut self, guid: &Guid) {
        self.lacking.remove(guid);
    }

    fn parts(&self, set: Set) -> Option<(Set, Key)> {
        self.sets.get(set.0.checked_sub(1)?).copied()
    }

    fn with(&mut self, set: Set, key: Key) -> Set {
        let mut front = set;
        let mut behind = Vec::new();
        while let Some((rest, last)) = self.parts(front).filter(|(_, last)| *last >= key) {
            if last == key {
                return set;
            }
            behind.push(last);
            front = rest;
        }
        let front = self.joined(front, key);
        behind.into_iter().rev().fold(front, |set, key| self.joined(set, key))
    }

    fn joined(&mut self, front: Set, key: Key) -> Set {
        let sets = &mut self.sets;
        *self.known.entry((front.0, key)).or_insert_with(|| {
            sets.push((front, key));
            Set(sets.len())
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn guid(number: u8) -> Guid {
        Guid::from([number; 20])
    }

    #[test]
    fn who_lacks_what() {
        let mut reserved = Reserved::default();
        let (tom, bob, ann) = (reserved.key(b"tom"), reserved.key(b"bob"), reserved.key(b"ann"));
        assert_eq!(reserved.key(b"bob"), bob);
        let mut keys = |keys: &[Key], number| {
            keys.iter().for_each(|key| reserved.add(*key, guid(number)));
            match reserved.lacking(&guid(number)) {
                Some(Lacking::Several(set)) => reserved.keys(set).join(&b' '),
                Some(Lacking::One(key)) => [b"only ", &key[..]].concat(),
                None => Vec::new(),
            }
        };
        assert_eq!(keys(&[], 1), b"");
        assert_eq!(keys(&[tom, tom], 1), b"only tom");
        assert_eq!(keys(&[ann], 2), b"only ann");
        // In the order in which the backups were named, whichever was looked at first.
        assert_eq!(keys(&[tom], 2), b"tom ann");
        assert_eq!(keys(&[bob, tom, ann], 2), b"tom bob ann");
        assert_eq!(keys(&[tom, bob, ann], 3), b"tom bob ann");
        assert_eq!(keys(&[ann, bob], 1), b"tom bob ann");
        let set = |number| reserved.lacking(&guid(number));
        assert!(set(1) == set(2) && set(2) == set(3), "shared");
        assert_eq!(reserved.sets.len(), 5);
        reserved.remove(&guid(2));
        assert_eq!(reserved.lacking(&guid(2)), None);
    }
}
