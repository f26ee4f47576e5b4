//! What is on disk, read by the library and by the real Cyrus tools.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use cyrbk::lock::Wait;
use cyrbk::store::log::{BodySink, LogReader};
use cyrbk::store::{Backup, Catalog, Writer};
use cyrbk::wire::Guid;
use cyrbk::wire::dlist::FileHeader;
use rusqlite::Connection;
use rusqlite::types::Value;
use sha1::{Digest, Sha1};

use crate::client::Ledger;
use crate::machine;
use crate::server::Server;

const REAL_TOOLS: &str = "/usr/lib/cyrus/bin";

/// Every message that was answered OK is where the index says and has its SHA-1; the index
/// is the one that the data give.
pub(crate) fn check(server: &Server, ledger: &Ledger) {
    let catalog = Catalog::open(server.catalog());
    let Some(path) = catalog.lookup(ledger.user.as_bytes()).unwrap() else {
        assert_eq!(ledger.acknowledged(), 0, "{}: no backup", ledger.user);
        return;
    };
    let backup = Backup::open(&path, Wait::No).unwrap();
    let stored = stored(&backup);
    for guid in &ledger.messages {
        let row = backup.index().message(guid).unwrap().unwrap();
        assert_eq!(stored.get(guid), Some(&(row.chunk_id, row.offset)), "{guid}");
    }
    drop(backup);
    let copy = tempfile::tempdir().unwrap();
    let data = copy.path().join("data");
    std::fs::copy(&path, &data).unwrap();
    drop(Writer::open(&data, 0).unwrap());
    assert_eq!(dump(&path), dump(&data), "{}", ledger.user);
}

/// Chunk and line of every message, each of which has its SHA-1.
fn stored(backup: &Backup) -> BTreeMap<Guid, (i64, u64)> {
    let mut stored = BTreeMap::new();
    for chunk in backup.index().chunks().unwrap() {
        let mut reader = LogReader::open(backup.file(), chunk.offset).unwrap();
        let mut bodies = Bodies::default();
        while let Some(line) = reader.next_line(&mut bodies).unwrap() {
            for guid in std::mem::take(&mut bodies.found) {
                stored.insert(guid, (chunk.id, line.offset));
            }
        }
    }
    stored
}

/// The messages in a user's backup, by its data; the index knows the same.
pub(crate) fn messages(server: &Server, user: &str) -> BTreeSet<Guid> {
    let path = Catalog::open(server.catalog()).lookup(user.as_bytes()).unwrap();
    let Some(path) = path else { return BTreeSet::new() };
    let backup = Backup::open(&path, Wait::Yes).unwrap();
    let stored = stored(&backup);
    assert_eq!(backup.index().messages().unwrap().len(), stored.len(), "{user}");
    for (guid, at) in &stored {
        let row = backup.index().message(guid).unwrap().unwrap();
        assert_eq!((row.chunk_id, row.offset), *at, "{user}: {guid}");
    }
    stored.into_keys().collect()
}

#[derive(Default)]
struct Bodies {
    current: Option<(Guid, Sha1)>,
    found: Vec<Guid>,
}

impl BodySink for Bodies {
    fn start(&mut self, header: &FileHeader) {
        self.current = Some((header.guid, Sha1::new()));
    }
    fn data(&mut self, octets: &[u8]) {
        self.current.as_mut().unwrap().1.update(octets);
    }
    fn end(&mut self) {
        let (guid, sha1) = self.current.take().unwrap();
        assert_eq!(guid, Guid::from(<[u8; 20]>::from(sha1.finalize())));
        self.found.push(guid);
    }
}

/// A session notes as the end of a chunk when it was closed, a rebuild the time of its
/// last line: that column is left out.
pub(crate) fn dump(path: &Path) -> Vec<String> {
    let db = Connection::open(format!("{}.index", path.display())).unwrap();
    let mut rows = Vec::new();
    for table in [
        "(SELECT id, ts_start, offset, length, file_sha1, data_sha1 FROM chunk)",
        "message",
        "mailbox",
        "mailbox_message",
        "subscription",
        "cyrbk_record",
        "cyrbk_gone",
        "cyrbk_mailbox",
    ] {
        let mut statement = db.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2")).unwrap();
        let columns = statement.column_count();
        let mut found = statement.query([]).unwrap();
        while let Some(row) = found.next().unwrap() {
            let values: Vec<Value> = (0..columns).map(|i| row.get(i).unwrap()).collect();
            rows.push(format!("{table} {values:?}"));
        }
    }
    rows
}

/// Runs a tool of ours over all backups, with which nothing may be wrong.
pub(crate) fn run(server: &Server, verb: &str, words: &[&str]) {
    let output = server.command(verb).arg("--all").args(words).output().unwrap();
    let shown = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success(), "{verb}: {}: {shown}", output.status);
}

/// Where a tool of the real Cyrus is, if it can look at the result.
pub(crate) fn real_tool(name: &str) -> Option<PathBuf> {
    let dir = Path::new(REAL_TOOLS);
    match machine::is_cyrus_3_6(dir) {
        Ok(()) => Some(dir.join(name)),
        Err(reason) => {
            machine::missing(&reason);
            None
        }
    }
}

/// The real tools verify every backup, index it anew, and verify that. They find fault with a
/// mailbox that was renamed and not mentioned since (quirk 10), which there may be.
pub(crate) fn check_with_cyrus(server: &Server, may_be_renamed: bool) {
    let Some(ctl_backups) = real_tool("ctl_backups") else { return };
    for verb in ["list", "verify", "reindex", "verify"] {
        let output = Command::new("timeout")
            .arg("120")
            .arg(&ctl_backups)
            .arg("-C")
            .arg(server.imapd_conf())
            .args(if verb == "list" { vec![verb] } else { vec![verb, "-A"] })
            .output()
            .unwrap();
        let shown = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
        let is_renamed = |line: &&str| line.contains(" missing mailbox data for id-");
        let renamed = shown.lines().filter(is_renamed).count();
        if verb == "verify" && may_be_renamed && renamed > 0 {
            let others = shown.lines().filter(|line| !is_renamed(line));
            let is_as_told = |line: &str| line.ends_with(": ok") || line.contains(": failed (");
            assert!(
                output.status.code() == Some(75) && others.into_iter().all(is_as_told),
                "{shown}"
            );
            continue;
        }
        assert!(output.status.success(), "{verb}: {}: {shown}", output.status);
        assert!(verb != "verify" || !shown.contains("mismatch"), "{shown}");
    }
    eprintln!("the real ctl_backups accepts the result, and its own index of it");
}
