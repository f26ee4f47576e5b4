//! backups.db between this program and Cyrus's own tools.
//!
//! Runs if `cyr_dbtool` of Cyrus IMAP is installed; otherwise it is skipped: see `machine`.
//! Started by root, the tools switch to the user `cyrus`.

#![allow(clippy::unwrap_used)]

mod machine;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cyrbk::store::catalog::{Catalog, Created};
use cyrbk::store::partition::SelectMode;
use cyrbk::store::placement::{Placement, Policy};
use cyrbk::store::twoskip::{Pairs, Twoskip, TwoskipError, WriteTxn};
use nix::unistd::{Uid, User};
use tempfile::TempDir;

const TOOL_DIRS: [&str; 3] = ["/usr/lib/cyrus/bin", "/usr/sbin", "/usr/lib/cyrus-imapd"];

/// A configuration directory that Cyrus's tools work on.
struct Site {
    top: TempDir,
    tools: PathBuf,
}

impl Site {
    /// `None`, loudly, if there is no Cyrus here.
    fn new() -> Option<Site> {
        let tools = TOOL_DIRS.map(PathBuf::from).into_iter();
        let Some(tools) = tools.into_iter().find(|dir| dir.join("cyr_dbtool").exists()) else {
            machine::missing(&format!("no cyr_dbtool in {TOOL_DIRS:?}; nothing was compared"));
            return None;
        };
        let site = Site { top: tempfile::tempdir().unwrap(), tools };
        let top = site.top.path().display();
        let conf = format!("configdirectory: {top}\nbackuppartition-one: {top}/one\n");
        fs::write(site.conf(), conf).unwrap();
        // The tool does not create a database unless told to.
        drop(WriteTxn::begin(&site.db()).unwrap());
        site.hand_over();
        Some(site)
    }

    fn conf(&self) -> PathBuf {
        self.top.path().join("imapd.conf")
    }

    fn db(&self) -> PathBuf {
        self.top.path().join("backups.db")
    }

    /// Gives everything to the user that the tools run as.
    fn hand_over(&self) {
        if !Uid::effective().is_root() {
            return;
        }
        let user = User::from_name("cyrus").unwrap().expect("user cyrus");
        let mut todo = vec![self.top.path().to_owned()];
        while let Some(path) = todo.pop() {
            chown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
            if path.is_dir() {
                todo.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(self.tools.join(name));
        command.arg("-C").arg(self.conf()).stdin(Stdio::null());
        command
    }

    /// Runs `cyr_dbtool`; its output, or a panic if it fails.
    fn dbtool(&self, words: &[&str]) -> String {
        self.hand_over();
        let mut command = self.tool("cyr_dbtool");
        command.arg(self.db()).arg("twoskip").args(words);
        let out = command.output().unwrap();
        assert!(out.status.success(), "{words:?}: {out:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    /// What each side reads must be `model`.
    fn compare(&self, model: &BTreeMap<String, String>) {
        let mut shown = String::new();
        let mut pairs = Pairs::new();
        for (key, value) in model {
            shown.push_str(&format!("{key}\t{value}\n"));
            pairs.push((key.clone().into(), value.clone().into()));
        }
        assert_eq!(Twoskip::read_all(&self.db()).unwrap(), pairs);
        assert_eq!(self.dbtool(&["show"]), shown);
        assert_eq!(self.dbtool(&["consistent"]), "Yes, consistent\n");
    }

    fn update(&self, change: impl FnOnce(&mut WriteTxn)) {
        Twoskip::update(&self.db(), |txn| -> Result<(), TwoskipError> {
            change(txn);
            Ok(())
        })
        .unwrap();
    }
}

/// A repeatable row of numbers below `limit`.
fn numbers(limit: u64) -> impl FnMut() -> u64 {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % limit
    }
}

#[test]
fn both_sides_write_in_turn() {
    let Some(site) = Site::new() else { return };
    let mut number = numbers(40);
    let mut model = BTreeMap::new();
    for round in 0..60 {
        let key = format!("user{:02}", number());
        let value = format!("{}/one/u/{key}_{round:06}", site.top.path().display());
        let (delete, theirs) = (number() < 12, number() < 20);
        match (delete, theirs) {
            (true, true) => drop(site.dbtool(&["delete", &key])),
            (true, false) => site.update(|txn| txn.delete(key.as_bytes())),
            (false, true) => drop(site.dbtool(&["set", &key, &value])),
            (false, false) => site.update(|txn| txn.set(key.as_bytes(), value.as_bytes())),
        }
        if delete {
            model.remove(&key);
        } else {
            model.insert(key, value);
        }
        if round % 5 == 4 {
            site.compare(&model);
        }
    }
    site.dbtool(&["repack"]);
    site.compare(&model);
    site.update(|txn| txn.set(b"after", b"/repack"));
    model.insert("after".to_owned(), "/repack".to_owned());
    site.compare(&model);
}

#[test]
fn large_transactions_and_repacks_are_consistent() {
    let Some(site) = Site::new() else { return };
    let mut model = BTreeMap::new();
    for round in 0..4 {
        site.update(|txn| {
            for n in 0..300 {
                let key = format!("user{:04}", n * 7919 % 1000 + round);
                let value = format!("/srv/backup/{round}/{key}");
                txn.set(key.as_bytes(), value.as_bytes());
                if n % 3 == 0 {
                    txn.delete(key.as_bytes());
                    model.remove(&key);
                } else {
                    model.insert(key, value);
                }
            }
        });
        site.compare(&model);
    }
    let header = fs::read(site.db()).unwrap();
    assert!(header[31] > 1, "never repacked");
}

#[test]
fn long_keys_and_values_are_understood() {
    let Some(site) = Site::new() else { return };
    let mut model = BTreeMap::new();
    for len in [65_534, 65_535, 65_536, 70_000] {
        let (ours, theirs) = ("o".repeat(len), "t".repeat(len));
        let value = format!("/{}", "v".repeat(len));
        site.update(|txn| txn.set(ours.as_bytes(), value.as_bytes()));
        site.dbtool(&["set", &theirs, &value]);
        model.insert(ours, value.clone());
        model.insert(theirs, value);
    }
    site.compare(&model);
}

#[test]
fn a_transaction_that_the_tool_broke_off_is_repaired() {
    let Some(site) = Site::new() else { return };
    let mut model = BTreeMap::from([("bob".to_owned(), "/b".to_owned())]);
    site.dbtool(&["set", "bob", "/b"]);
    let committed = fs::read(site.db()).unwrap();
    let mut tool = site.tool("cyr_dbtool");
    let died = tool.arg(site.db()).args(["twoskip", "damage"]).output().unwrap();
    assert!(!died.status.success(), "{died:?}");
    let broken = fs::read(site.db()).unwrap();
    assert_ne!(broken, committed);
    let read = Twoskip::read_all(&site.db()).unwrap();
    assert_eq!(read, [(b"bob".to_vec(), b"/b".to_vec())]);
    assert_eq!(fs::read(site.db()).unwrap(), broken, "a reader wrote");
    site.update(|_| ());
    assert_eq!(fs::read(site.db()).unwrap(), committed);
    site.update(|txn| txn.set(b"carol", b"/c"));
    model.insert("carol".to_owned(), "/c".to_owned());
    site.compare(&model);
}

#[test]
fn a_write_transaction_keeps_the_tool_out() {
    let Some(site) = Site::new() else { return };
    site.dbtool(&["set", "bob", "/b"]);
    let mut txn = WriteTxn::begin(&site.db()).unwrap();
    let mut tool = site.tool("cyr_dbtool");
    tool.arg(site.db()).args(["twoskip", "set", "bob", "/theirs"]);
    let mut waiting = tool.spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(waiting.try_wait().unwrap().is_none(), "the tool did not wait");
    assert_eq!(txn.get(b"bob").unwrap().unwrap(), b"/b");
    txn.set(b"bob", b"/ours");
    txn.commit().unwrap();
    assert!(waiting.wait().unwrap().success());
    site.compare(&BTreeMap::from([("bob".to_owned(), "/theirs".to_owned())]));
}

#[test]
fn new_backups_are_listed_by_the_tools() {
    let Some(site) = Site::new() else { return };
    let placement = Placement::new(Policy {
        partitions: BTreeMap::from([("one".to_owned(), site.top.path().join("one"))]),
        mode: SelectMode::Random,
        umask: 0o077,
        ..Policy::default()
    });
    let catalog = Catalog::open(site.db());
    for userid in ["alice", "", "Bob@virt.example"] {
        let made = catalog.lookup_or_create(userid.as_bytes(), &placement).unwrap();
        assert_eq!(made.1, Created::New);
    }
    site.hand_over();
    let out = site.tool("ctl_backups").arg("list").output().unwrap();
    assert!(out.status.success(), "{out:?}");
    let text = String::from_utf8(out.stdout).unwrap();
    let listed: Vec<_> =
        text.lines().map(|line| line.split('\t').skip(2).collect::<Vec<_>>()).collect();
    let ours = catalog.list().unwrap();
    let expected: Vec<Vec<&str>> = ours
        .iter()
        .map(|entry| vec![str::from_utf8(&entry.userid).unwrap(), path_text(&entry.path)])
        .collect();
    assert_eq!(listed, expected);
}

fn path_text(path: &Path) -> &str {
    path.to_str().unwrap()
}
