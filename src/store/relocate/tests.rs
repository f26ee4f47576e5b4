//! Moves, cut short at each step and run again.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::store::staging::Staging;
use crate::store::{Line, Writer, survey, verify};
use crate::wire::apply::Apply;
use crate::wire::dlist::parse_item;
use crate::wire::mboxname::NameRules;

struct Site {
    top: tempfile::TempDir,
    catalog: Catalog,
    partitions: Vec<PathBuf>,
}

impl Site {
    fn new() -> Site {
        let top = tempfile::tempdir().unwrap();
        let source = "tests/fixtures/backups/main/one/c/carol_cesxQB";
        fs::create_dir_all(top.path().join("one/c")).unwrap();
        let data = top.path().join("one/c/carol_cesxQB");
        fs::copy(source, &data).unwrap();
        fs::copy(format!("{source}.index"), index_path(&data)).unwrap();
        let catalog = Catalog::open(top.path().join("backups.db"));
        catalog.set(b"carol", &data).unwrap();
        let partitions = ["one", "two"].map(|name| top.path().join(name)).to_vec();
        Site { top, catalog, partitions }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    fn wanted<'s>(&'s self, partition: &'s Path) -> Move<'s> {
        let partitions = &self.partitions;
        Move { userid: b"carol", partition, partitions, fulldirhash: false, umask: 0o077 }
    }

    fn to(&self, partition: &str) -> Result<Moved> {
        run(&self.catalog, &self.wanted(&self.path(partition)), Wait::No)
    }

    /// The backup is in `partition` only, whole, and the old path leads to it.
    fn check(&self, partition: &str, other: &str) {
        let path = self.path(partition).join("c/carol_cesxQB");
        assert_eq!(self.catalog.lookup(b"carol").unwrap().as_ref(), Some(&path));
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        assert!(verify::full(&Backup::open(&path, Wait::No).unwrap(), &mut |_| {}).unwrap());
        let old = self.path(other).join("c/carol_cesxQB");
        for (old, new) in [(index_path(&old), index_path(&path)), (old, path)] {
            assert_eq!(fs::read_link(&old).unwrap(), new);
        }
        for name in walk(self.top.path()) {
            assert!(!name.ends_with(MOVING) && !name.ends_with(FORWARD), "{name}");
        }
    }
}

fn walk(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.path().to_str().unwrap().to_owned());
        if entry.file_type().unwrap().is_dir() {
            names.append(&mut walk(&entry.path()));
        }
    }
    names
}

#[test]
fn there_and_back_again() {
    let site = Site::new();
    assert!(matches!(site.to("two").unwrap(), Moved::Done { .. }));
    site.check("two", "one");
    assert!(
        matches!(site.to("two").unwrap(), Moved::Already { removed, .. } if removed.is_empty())
    );
    site.to("one").unwrap();
    site.check("one", "two");
}

#[test]
fn whoever_comes_late_to_the_old_path_is_led_on() {
    let site = Site::new();
    let old = site.path("one/c/carol_cesxQB");
    site.to("two").unwrap();
    let writer = Writer::open(&old, 1_800_000_000).unwrap();
    assert!(matches!(site.to("one"), Err(MoveError::Store(StoreError::Locked(_)))));
    drop(writer);
    site.check("two", "one");
}

#[test]
fn cut_short_before_the_catalog() {
    let site = Site::new();
    let new = site.path("two/c/carol_cesxQB");
    fs::create_dir_all(site.path("two/c")).unwrap();
    // Half a copy; then a whole one that has become old; then its index alone.
    fs::write(with_suffix(&new, MOVING), "half").unwrap();
    fs::write(with_suffix(&index_path(&new), MOVING), "half").unwrap();
    let data = fs::read(site.path("one/c/carol_cesxQB")).unwrap();
    fs::write(&new, &data[..data.len() - 55]).unwrap();
    fs::write(index_path(&new), "an index of then").unwrap();
    site.to("two").unwrap();
    site.check("two", "one");
}

#[test]
fn cut_short_behind_the_catalog() {
    let site = Site::new();
    let (old, new) = (site.path("one/c/carol_cesxQB"), site.path("two/c/carol_cesxQB"));
    fs::create_dir_all(site.path("two/c")).unwrap();
    copy(&old, &new).unwrap();
    site.catalog.set(b"carol", &new).unwrap();
    // The server has gone on there.
    Writer::open(&new, 1_800_000_000).unwrap();
    assert_eq!(site.to("two").unwrap(), Moved::Already { path: new, removed: vec![old] });
    site.check("two", "one");
}

#[test]
fn nothing_strange_is_overwritten_or_removed() {
    let site = Site::new();
    let new = site.path("two/c/carol_cesxQB");
    fs::create_dir_all(site.path("two/c")).unwrap();
    fs::write(&new, "something else").unwrap();
    assert!(matches!(site.to("two"), Err(MoveError::InTheWay(_))));
    assert_eq!(fs::read(&new).unwrap(), b"something else");
    fs::remove_file(&new).unwrap();
    site.to("two").unwrap();
    // In the old place now: a file that is no copy.
    let old = site.path("one/c/carol_cesxQB");
    fs::remove_file(&old).unwrap();
    File::create(&old).unwrap().write_all(b"not ours").unwrap();
    assert!(
        matches!(site.to("two").unwrap(), Moved::Already { removed, .. } if removed.is_empty())
    );
    assert_eq!(fs::read(&old).unwrap(), b"not ours");
}

#[test]
fn locked_unknown_and_without_index() {
    let site = Site::new();
    let old = site.path("one/c/carol_cesxQB");
    let held = Backup::open(&old, Wait::No).unwrap();
    assert!(matches!(site.to("two"), Err(MoveError::Store(StoreError::Locked(_)))));
    drop(held);
    fs::remove_file(index_path(&old)).unwrap();
    assert!(matches!(site.to("two"), Err(MoveError::Store(StoreError::NoIndex(_)))));
    assert!(!site.path("two").exists());
    site.catalog.remove(b"carol").unwrap();
    assert!(matches!(site.to("two"), Err(MoveError::Unknown)));
}

/// The server looks up the path, and opens it some time later.
#[test]
fn no_acknowledged_line_is_lost_whoever_moves_meanwhile() {
    let site = Site::new();
    let rules = NameRules::default();
    let lines = |path: &Path| {
        let evidence = survey::read(&File::open(path).unwrap(), &rules).unwrap();
        evidence.owners[&b"carol".to_vec()]
    };
    let before = lines(&site.path("one/c/carol_cesxQB"));
    let moving = AtomicBool::new(true);
    let acknowledged = std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let mut acknowledged = 0;
            while moving.load(Ordering::SeqCst) {
                let path = site.catalog.lookup(b"carol").unwrap().unwrap();
                std::thread::sleep(Duration::from_millis(acknowledged % 4));
                match Writer::open(&path, 1_800_000_000) {
                    Ok(writer) => acknowledged += append_line(writer),
                    Err(StoreError::Locked(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            acknowledged
        });
        let mut moved = 0;
        while moved < 20 {
            let partition = ["two", "one"][moved % 2];
            match site.to(partition) {
                Ok(_) => moved += 1,
                Err(MoveError::Store(StoreError::Locked(_))) => {}
                Err(error) => panic!("{error}"),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        moving.store(false, Ordering::SeqCst);
        server.join().unwrap()
    });
    assert!(acknowledged > 0);
    site.check("one", "two");
    assert_eq!(lines(&site.path("one/c/carol_cesxQB")), before + acknowledged);
}

fn append_line(mut writer: Writer) -> u64 {
    let text = b"UNMAILBOX user.carol.gone";
    let (name, value) = parse_item(text).unwrap();
    let apply = Apply::read(&name, &value).unwrap();
    let line = Line { text, body_at: &[], bodies: &[], apply: &apply };
    let staging = Staging::new(std::env::temp_dir());
    writer.append(1_800_000_000, &line, &staging).unwrap();
    writer.finish(1_800_000_000).unwrap();
    1
}
