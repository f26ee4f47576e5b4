//! Crashes: every write and sync of a transaction and of a repair is a cut
//! point, and of the writes between two syncs any may be missing.

#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;

use super::medium::Medium;
use super::write::{Writer, empty_image};
use super::*;

/// What was done to a file.
#[derive(Clone, Debug)]
enum Event {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

/// A file in memory that keeps account of what is done to it, and whose
/// changing calls fail after some number of them.
#[derive(Default)]
struct Traced {
    bytes: Vec<u8>,
    events: Vec<Event>,
    fail_after: Option<Cell<usize>>,
}

impl Traced {
    fn over(bytes: Vec<u8>) -> Traced {
        Traced { bytes, ..Traced::default() }
    }

    fn note(&mut self, event: Event) -> io::Result<()> {
        if let Some(left) = &self.fail_after {
            left.set(left.get().checked_sub(1).ok_or(io::ErrorKind::StorageFull)?);
        }
        self.events.push(event);
        Ok(())
    }
}

impl Medium for Traced {
    fn len(&self) -> io::Result<u64> {
        Medium::len(&self.bytes)
    }
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        Medium::read_at(&self.bytes, buf, at)
    }
    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.note(Event::Write(at, bytes.to_vec()))?;
        self.bytes.write_at(bytes, at)
    }
    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.note(Event::SetLen(len))?;
        Medium::set_len(&mut self.bytes, len)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.note(Event::Sync)
    }
}

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn content<M: Medium>(medium: &M) -> Map {
    let header = read::header(medium).unwrap();
    let mut map = Map::new();
    View::new(medium, header.current_size)
        .walk(|record| {
            map.insert(record.key().to_vec(), record.value().to_vec());
            Ok(())
        })
        .unwrap();
    map
}

/// Levels that make all sorts of towers.
struct Cycle(u8);

impl Levels for Cycle {
    fn level(&mut self) -> u8 {
        self.0 = self.0 % 5 + 1;
        self.0
    }
}

fn set(writer: &mut Writer<impl Medium>, keys: &[&str], value: &str) -> Result<(), ErrorKind> {
    for key in keys {
        writer.store(key.as_bytes(), value.as_bytes(), &mut Cycle(key.len() as u8))?;
    }
    Ok(())
}

/// A file with some history.
fn before() -> Vec<u8> {
    let mut bytes = empty_image(1);
    for round in 0..3 {
        let header = read::header(&bytes).unwrap();
        let mut writer = Writer::new(std::mem::take(&mut bytes), header);
        set(&mut writer, &["a", "bb", "ccc", "dddd", "eeeee"], &format!("/{round}")).unwrap();
        writer.delete(b"bb").unwrap();
        writer.commit().unwrap();
        bytes = writer.medium().clone();
    }
    bytes
}

/// The transaction under test.
fn transaction(writer: &mut Writer<Traced>) -> Result<(), ErrorKind> {
    set(writer, &["ccc", "ff"], "/new")?;
    writer.delete(b"dddd")?;
    writer.delete(b"ff")?;
    writer.commit()
}

/// Every state in which a power cut may leave the file: all events up to the
/// last sync before the cut, and any of those after it.
fn power_cuts(start: &[u8], events: &[Event], mut check: impl FnMut(&[u8])) {
    let mut durable = start.to_vec();
    for epoch in events.split_inclusive(|event| matches!(event, Event::Sync)) {
        // With many writes between two syncs, a spread of the subsets.
        let subsets = 1_u64 << epoch.len().min(40);
        for subset in (0..subsets).step_by((subsets / 500).max(1) as usize | 1) {
            let mut image = durable.clone();
            for (bit, event) in epoch.iter().enumerate() {
                if subset >> bit & 1 == 1 {
                    replay(&mut image, event);
                }
            }
            check(&image);
        }
        for event in epoch {
            replay(&mut durable, event);
            check(&durable);
        }
    }
}

fn replay(image: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Write(at, bytes) => image.write_at(bytes, *at).unwrap(),
        Event::SetLen(len) => Medium::set_len(image, *len).unwrap(),
        Event::Sync => {}
    }
}

/// Reads the file as it is, repairs it, and writes to it.
fn survives(image: &[u8]) -> Map {
    let mut image = image.to_vec();
    let seen = content(&image);
    let mut header = read::header(&image).unwrap();
    if !read::is_clean(&image, &header).unwrap() {
        recover::repair(&mut image, &mut header).unwrap();
    }
    assert!(read::is_clean(&image, &header).unwrap());
    assert_eq!(content(&image), seen, "repair changed the content");
    assert_eq!(header.records, seen.len() as u64);
    let mut writer = Writer::new(image, header);
    for key in seen.keys() {
        let found = writer.view().find(key).unwrap().found.unwrap();
        assert_eq!(found.value(), seen[key]);
        writer.delete(key).unwrap();
    }
    set(&mut writer, &["zz"], "/z").unwrap();
    writer.commit().unwrap();
    assert_eq!(content(writer.medium()).len(), 1);
    seen
}

#[test]
fn a_power_cut_leaves_the_old_state_or_the_new_one() {
    let start = before();
    let old = content(&start);
    let header = read::header(&start).unwrap();
    let mut writer = Writer::new(Traced::over(start.clone()), header);
    transaction(&mut writer).unwrap();
    let new = content(writer.medium());
    let events = &writer.medium().events;
    assert_ne!(old, new);
    assert!(matches!(events.last(), Some(Event::Sync)), "not synced on return");
    let (mut olds, mut news) = (0, 0);
    power_cuts(&start, events, |image| match survives(image) {
        seen if seen == old => olds += 1,
        seen if seen == new => news += 1,
        seen => panic!("neither old nor new: {seen:?}"),
    });
    assert!(olds > 100 && news > 0, "{olds} old, {news} new");
    assert_eq!(survives(&writer.medium().bytes), new);
}

#[test]
fn a_power_cut_during_a_repair_loses_nothing() {
    let start = before();
    let old = content(&start);
    let header = read::header(&start).unwrap();
    let mut writer = Writer::new(Traced::over(start), header);
    transaction(&mut writer).unwrap();
    // Everything but the last header: all is written, nothing committed.
    let mut torn = before();
    let events = &writer.medium().events;
    for event in &events[..events.len() - 2] {
        replay(&mut torn, event);
    }
    let mut header = read::header(&torn).unwrap();
    assert!(header.is_dirty());
    let mut medium = Traced::over(torn.clone());
    recover::repair(&mut medium, &mut header).unwrap();
    power_cuts(&torn, &medium.events, |image| assert_eq!(survives(image), old));
}

#[test]
fn a_failed_write_or_sync_is_never_success() {
    let start = before();
    let old = content(&start);
    let header = read::header(&start).unwrap();
    for failing in 0.. {
        let mut medium = Traced::over(start.clone());
        medium.fail_after = Some(Cell::new(failing));
        let mut writer = Writer::new(medium, header.clone());
        match transaction(&mut writer) {
            Ok(()) => {
                assert!(failing > 10, "only {failing} calls");
                assert_ne!(survives(&writer.medium().bytes), old);
                break;
            }
            Err(ErrorKind::InDoubt(_)) => {
                survives(&writer.medium().bytes);
            }
            Err(_) => assert_eq!(survives(&writer.medium().bytes), old, "call {failing}"),
        }
    }
}
