//! What a change costs, without a clock: calls of the disk, octets, statements and steps of the
//! database. None of it may grow with what is stored.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::Writer;
use super::super::index::work::Work;
use super::lines::{Step, fast_dir, guid_of};
use super::random::Random;
use super::sim::{Asked, Image, SimDisk};
use crate::wire::Guid;

/// One mailbox of random messages, in sessions of ten.
struct Store {
    disk: SimDisk,
    path: PathBuf,
    random: Random,
    guids: Vec<Guid>,
}

impl Store {
    fn new(dir: &Path) -> Store {
        let path = dir.join("data");
        fs::write(&path, b"").unwrap();
        let disk = SimDisk::over(Image::default(), path.clone());
        Store { disk, path, random: Random::new(5), guids: Vec::new() }
    }

    /// A session that brings `count` messages of 3,000 octets, in one line.
    fn session(&mut self, count: usize) -> (Asked, Work) {
        let bodies: Vec<Vec<u8>> = (0..count).map(|_| self.random.octets(3_000)).collect();
        let first = self.guids.len() as u32 + 1;
        self.guids.extend(bodies.iter().map(|body| guid_of(body)));
        let new = &self.guids[first as usize - 1..];
        let records: Vec<_> =
            (first..).zip(new).map(|(uid, guid)| (uid, 9, false, *guid)).collect();
        let last = self.guids.len() as u32;
        self.run(&[Step::message(&bodies), Step::mailbox("a", last, &records)])
    }

    /// One that changes a message in the middle.
    fn touch(&mut self) -> (Asked, Work) {
        let (last, middle) = (self.guids.len() as u32, self.guids.len() / 2);
        let record = (middle as u32 + 1, 10, false, self.guids[middle]);
        self.run(&[Step::mailbox("a", last, &[record])])
    }

    fn run(&mut self, steps: &[Step]) -> (Asked, Work) {
        let _ = (self.disk.take_asked(), Work::take());
        let mut writer = Writer::open_on(Box::new(self.disk.clone()), &self.path, 1_000).unwrap();
        steps.iter().for_each(|step| step.append_to(&mut writer, 1_000).unwrap());
        writer.finish(1_000).unwrap();
        (self.disk.take_asked(), Work::take())
    }
}

#[test]
fn one_message_more_costs_the_same_at_any_size() {
    let dir = fast_dir();
    let mut store = Store::new(dir.path());
    store.session(10);
    let (small, small_work) = store.session(1);
    let (_, small_touch) = store.touch();
    for _ in 0..60 {
        store.session(20);
    }
    let (large, large_work) = store.session(1);
    let (_, large_touch) = store.touch();

    // The rest of a block of the running SHA-1.
    for asked in [small, large] {
        assert!(asked.reads <= 1 && asked.octets_read < 64, "{asked:?}");
        // Two lines, and the end of the member.
        assert_eq!((asked.writes, asked.syncs), (3, 1), "{asked:?}");
        assert!((3_000..3_700).contains(&asked.octets_written), "{asked:?}");
    }
    assert_eq!(small_work.statements, large_work.statements);
    assert!(large_work.statements < 45, "{large_work:?}");
    assert!(large_work.steps < small_work.steps + 50, "{small_work:?} {large_work:?}");
    assert_eq!(small_touch.statements, large_touch.statements);
    assert_eq!((large_work.prepared_anew, large_touch.prepared_anew), (0, 0));
    assert!(large_touch.steps < small_touch.steps + 50, "{small_touch:?} {large_touch:?}");
}

#[test]
fn messages_and_records_of_a_line_cost_a_few_statements_each() {
    let dir = fast_dir();
    let mut store = Store::new(dir.path());
    let (_, one) = store.session(1);
    let (asked, many) = store.session(401);
    let statements = many.statements - one.statements;
    // A message is one. A record: its message, what is known of it twice, and its row.
    assert!(statements < 400 * 5 + 20, "{statements} for 400");
    let steps = (many.steps - one.steps) / 400;
    assert!(steps < 200, "{steps} each");
    assert!(asked.writes < 12, "{asked:?}");
    assert_eq!(many.prepared_anew, 0);
    assert_eq!(asked.syncs, 1);
}
