//! What a master is shown after damage, behind compactions, is what it once had.

use std::collections::BTreeMap;

use super::*;
use crate::store::reindex;
use history::{checksum, list, mailbox, record};

#[derive(Clone, Copy, Debug)]
enum Step {
    Append(u32),
    /// Which of the messages.
    Flag(usize),
    Expunge(usize),
    /// The master forgets one, and says so with its next line: it tells all.
    Purge(usize),
    TellAll,
    EndChunk,
    Compact(Option<i64>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1u32..4).prop_map(Step::Append),
        3 => (0usize..9).prop_map(Step::Flag),
        1 => (0usize..9).prop_map(Step::Expunge),
        1 => (0usize..9).prop_map(Step::Purge),
        1 => Just(Step::TellAll),
        5 => Just(Step::EndChunk),
        2 => prop::option::of(0i64..90).prop_map(Step::Compact),
    ];
    prop::collection::vec(step, 4..24)
}

/// A master of one mailbox, and its backup.
struct Master {
    site: Site,
    writer: Option<Writer>,
    now: i64,
    last_uid: u32,
    /// Its messages, as last told.
    living: BTreeMap<u32, String>,
    /// What it had at each HIGHESTMODSEQ that it told.
    had: BTreeMap<i64, BTreeMap<u32, String>>,
}

impl Master {
    fn new() -> Master {
        let (living, had) = (BTreeMap::new(), BTreeMap::new());
        Master { site: Site::new(), writer: None, now: START, last_uid: 0, living, had }
    }

    fn step(&mut self, step: Step) {
        // Not evenly: a checksum is linear, and would not tell two changes of like digits apart.
        self.now += 10 + self.now * 7 % 83;
        let at = |which: usize| self.living.keys().nth(which % self.living.len().max(1)).copied();
        match step {
            Step::Append(count) => {
                let new: Vec<u32> = (1..=count).map(|i| self.last_uid + i).collect();
                self.last_uid += count;
                self.store(&new);
                self.change(&new, false);
            }
            Step::Flag(which) => self.change(at(which).as_slice(), false),
            Step::Expunge(which) => self.change(at(which).as_slice(), true),
            Step::Purge(which) => {
                at(which).map(|uid| self.living.remove(&uid));
                self.tell(None, &list(self.living.values().cloned()));
            }
            Step::TellAll => self.tell(None, &list(self.living.values().cloned())),
            Step::EndChunk => drop(self.writer.take().map(|mut writer| writer.finish(self.now))),
            Step::Compact(back) => {
                self.step(Step::EndChunk);
                if self.site.path.exists() {
                    self.site.compact(&self.site.policy(back.map(|back| self.now - back)));
                }
            }
        }
    }

    fn store(&mut self, messages: &[u32]) {
        let writer = writer(&mut self.writer, &self.site, self.now);
        self.site.message(writer, self.now, messages);
    }

    fn change(&mut self, uids: &[u32], is_gone: bool) {
        let records: Vec<_> =
            uids.iter().map(|uid| (*uid, record(*uid, *uid, is_gone, self.now))).collect();
        let since = self.had.keys().next_back().copied();
        let told = list(records.iter().map(|(_, record)| record.clone()));
        self.living.extend(records);
        self.living.retain(|uid, _| !(is_gone && uids.contains(uid)));
        self.tell(since, &told);
    }

    fn tell(&mut self, since: Option<i64>, records: &str) {
        let mut state = checksum(&list(self.living.values().cloned()));
        state.extend(since.map(|modseq| format!("SINCE_MODSEQ {modseq} ")));
        let line = mailbox(0, 0, self.last_uid, records, &state, self.now);
        let writer = writer(&mut self.writer, &self.site, self.now);
        self.site.append(writer, self.now, &line, &[], &[]);
        self.had.insert(self.now, self.living.clone());
    }

    /// The messages that a client is shown, and what its master had then; unless it is shown none.
    fn shown(&self) -> Option<(BTreeMap<u32, i64>, BTreeMap<u32, i64>)> {
        let backup = Backup::open(&self.site.path, Wait::No).unwrap();
        let row = backup.index().mailbox_with_uniqueid(b"u0").unwrap()?;
        if !backup.index().is_whole(&row).unwrap() {
            return None;
        }
        let records = backup.index().true_records(row.id).unwrap();
        let living = records.iter().filter(|record| record.expunged.is_none());
        let shown = living.map(|record| (record.uid, record.modseq as i64)).collect();
        let modseq = |record: &String| {
            record.split(' ').skip_while(|word| *word != "MODSEQ").nth(1).unwrap().parse().unwrap()
        };
        let had = &self.had[&(row.highestmodseq as i64)];
        Some((shown, had.iter().map(|(uid, record)| (*uid, modseq(record))).collect()))
    }
}

fn writer<'w>(writer: &'w mut Option<Writer>, site: &Site, now: i64) -> &'w mut Writer {
    writer.get_or_insert_with(|| Writer::open(&site.path, now).unwrap())
}

/// Reads the log anew, in one way or another.
fn read_anew(site: &Site, compacts: bool) {
    if compacts {
        assert!(matches!(site.compact(&site.policy(None)).1, Outcome::Done { .. }));
    } else {
        reindex::run(&site.path, Wait::No, false, 1 << 32, &mut |_| ()).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn what_is_shown_is_what_the_master_had(
        steps in steps(),
        which in any::<usize>(),
        compacts in any::<bool>(),
    ) {
        let mut master = Master::new();
        steps.into_iter().for_each(|step| master.step(step));
        master.step(Step::Append(1));
        master.step(Step::EndChunk);
        let (shown, had) = master.shown().expect("nothing is wrong");
        prop_assert_eq!(shown, had);
        master.site.lose_chunk(which);
        read_anew(&master.site, compacts);
        match master.shown() {
            Some((shown, had)) => prop_assert_eq!(shown, had),
            None => {
                // It sends all.
                let all: Vec<u32> = master.living.keys().copied().collect();
                master.store(&all);
                master.step(Step::TellAll);
                master.step(Step::EndChunk);
                let (shown, had) = master.shown().expect("it was sent whole");
                prop_assert_eq!(shown, had);
            }
        }
    }
}

/// A compaction has taken a record out of the line that the mailbox begins with.
#[test]
fn mail_lost_behind_a_compaction_is_missed() {
    for compacts in [false, true] {
        let mut master = Master::new();
        let add = [Step::Append(1), Step::EndChunk];
        let first = [Step::Append(3), Step::EndChunk, Step::Flag(0), Step::Compact(None)];
        [&first[..], &add, &add].concat().into_iter().for_each(|step| master.step(step));
        assert!(master.shown().is_some());
        let chunks = Backup::open(&master.site.path, Wait::No).unwrap().index().chunks().unwrap();
        master.site.lose_chunk(chunks.len() - 2);
        read_anew(&master.site, compacts);
        assert_eq!(master.shown(), None, "UID 4 is not there");
        if !compacts {
            read_anew(&master.site, true);
            assert_eq!(master.shown(), None);
        }
    }
}
