//! What comes after a power cut in real life, and what must be true then.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use cyrbk::lock::Wait;
use cyrbk::store::backup::index_path;
use cyrbk::store::compact::{self, Outcome, Policy, Sizes};
use cyrbk::store::message::StoredMessage;
use cyrbk::store::verify::{self, Deep, Event};
use cyrbk::store::{Backup, Catalog, StoreError, reindex};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use super::client::{Client, apply_message, guid};
use super::world::World;

const NOW: i64 = 1_900_000_000;

/// What a backup has to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The answers to what a replication client asks.
    pub(crate) answers: Vec<String>,
    /// Messages that can be read, and have their SHA-1.
    pub(crate) messages: BTreeSet<String>,
    /// What is wrong with it.
    pub(crate) faults: BTreeSet<&'static str>,
}

/// How many states were met in which something was refused before the first write.
#[derive(Debug, Default)]
pub(crate) struct Tally(pub(crate) BTreeMap<&'static str, usize>);

impl Tally {
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }
}

pub(crate) fn path_of(world: &World, user: &str) -> Option<PathBuf> {
    Catalog::open(world.catalog()).lookup(user.as_bytes()).unwrap()
}

/// Looks at a user's backup, first as a client does.
pub(crate) fn look(world: &World, user: &str) -> Seen {
    let answers = ask(world, user);
    let path = path_of(world, user).unwrap();
    let (messages, faults) = read(world, &path).unwrap();
    Seen { answers, messages, faults }
}

/// What a replication client is told of all mailboxes but those of [`append`].
pub(crate) fn ask(world: &World, user: &str) -> Vec<String> {
    let mut client = Client::admin(world.site.address);
    let listing = client.ask(format!("GET USER {user}\r\n"));
    assert!(listing.ends_with("OK Success\r\n"), "{user}: {listing}");
    let words = |line: &str| line.split_once("MBOXNAME ").map(|(_, rest)| rest.to_owned());
    let mailboxes = listing.lines().filter(|line| line.starts_with("* MAILBOX ")).filter_map(words);
    let name = |rest: String| match rest.strip_prefix('"') {
        Some(quoted) => format!("\"{}\"", quoted.split('"').next().unwrap()),
        None => rest.split(' ').next().unwrap().to_owned(),
    };
    let names: BTreeSet<String> =
        mailboxes.map(name).filter(|name| !name.contains("after.")).collect();
    let mut answers: Vec<String> = listing
        .split_inclusive("\r\n")
        .filter(|line| !line.contains(".after."))
        .map(str::to_owned)
        .collect();
    for name in names {
        let answer = client.ask(format!("GET FULLMAILBOX {name}\r\n"));
        assert!(answer.ends_with("OK Success\r\n"), "{name}: {answer}");
        answers.push(answer);
    }
    assert_eq!(client.ask("EXIT\r\n"), "OK Finished\r\n");
    // In whatever order.
    answers.sort();
    answers
}

/// One more message in a mailbox of its own.
pub(crate) fn append(world: &World, user: &str, number: usize) -> String {
    let text = format!("Subject: after all\r\n\r\nNumber {number}.\r\n");
    let (hash, name) = (guid(text.as_bytes()), format!("user.{user}.after.n{number}"));
    let mut client = Client::admin(world.site.address);
    let mut order = |words: Vec<u8>, answer: &str| {
        let found = client.ask(words);
        assert_eq!(found.lines().last(), Some(answer), "{user}: {found}");
    };
    let reserve = format!("APPLY RESERVE %(PARTITION default MBOXNAME ({name}) GUID ({hash}))\r\n");
    order(reserve.into_bytes(), "OK Success");
    order(apply_message(text.as_bytes()), "OK Success");
    let mailbox = format!(
        "APPLY MAILBOX %(UNIQUEID id-{name} MBOXNAME {name} SYNC_CRC 0 SYNC_CRC_ANNOT 0 \
         LAST_UID 1 HIGHESTMODSEQ 1 RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 0 \
         POP3_LAST_LOGIN 0 POP3_SHOW_AFTER 0 UIDVALIDITY 7 PARTITION default ACL \"\" OPTIONS P \
         RECORD (%(UID 1 MODSEQ 1 LAST_UPDATED 1 FLAGS () INTERNALDATE 1 SIZE {} \
         GUID {hash})))\r\n",
        text.len()
    );
    order(mailbox.into_bytes(), "OK Success");
    order(b"RESTART\r\n".to_vec(), "OK Restarting");
    order(b"EXIT\r\n".to_vec(), "OK Finished");
    hash
}

/// Reads and verifies everything, as the tools do.
pub(crate) fn read(
    world: &World,
    path: &Path,
) -> Result<(BTreeSet<String>, BTreeSet<&'static str>), StoreError> {
    let backup = Backup::open_shared(path, Wait::Yes)?;
    let rows = backup.index().messages().map_err(|source| index_error(path, source))?;
    let staging = world.path().join("staging");
    let is_whole = |guid: &_| StoredMessage::read(&backup, guid, &staging).is_ok();
    let guids = rows.into_iter().filter_map(|row| row.guid);
    let messages = guids.filter(is_whole).map(|guid| guid.to_string()).collect();
    let mut faults = BTreeSet::new();
    let mut sink = |event: Event<'_>| {
        if let Event::Finding(finding) = event
            && !finding.fault.is_note()
        {
            faults.insert(finding.fault.kind());
        }
    };
    verify::full(&backup, &mut sink)?;
    verify::deep(&backup, &Deep { jobs: 1, owner: None }, &mut sink)?;
    Ok((messages, faults))
}

fn index_error(path: &Path, source: cyrbk::store::index::IndexError) -> StoreError {
    StoreError::Index { path: path.to_owned(), source }
}

/// Whether readers and tools may refuse, or find fault, until the next write: the index is missing,
/// or torn, as one is that was not synced; or it is of another data file, whose rename was lost.
pub(crate) fn index_is_lost(path: &Path) -> bool {
    // Without its journal, and unchanged.
    let uri = format!("file:{}?immutable=1", index_path(path).display());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let inode = || {
        let index = Connection::open_with_flags(&uri, flags)?;
        index.query_row("SELECT count(*) FROM chunk", [], |row| row.get::<_, i64>(0))?;
        let is_whole = index.query_row("PRAGMA quick_check", [], |row| row.get::<_, String>(0))?;
        if is_whole != "ok" {
            return Err(rusqlite::Error::InvalidQuery);
        }
        if !index.table_exists(None, "cyrbk_state")? {
            return Ok(None);
        }
        index.query_row("SELECT inode FROM cyrbk_state", [], |row| row.get(0)).optional()
    };
    match inode() {
        Ok(inode) => {
            inode.is_some_and(|inode: i64| inode != fs::metadata(path).unwrap().ino() as i64)
        }
        Err(_) => true,
    }
}

/// The messages that a reader finds who comes first; `None` if it refuses, or finds other faults
/// than those `known`, as it may where the index is lost.
pub(crate) fn first_look(
    world: &World,
    path: &Path,
    known: &BTreeSet<&str>,
    tally: &mut Tally,
) -> Option<BTreeSet<String>> {
    let is_lost = index_is_lost(path);
    match read(world, path) {
        Err(error) => {
            assert!(is_lost, "{}: a reader refuses: {error}", path.display());
            tally.count("readers refused");
            None
        }
        Ok((_, faults)) if is_lost && !faults.is_subset(known) => {
            tally.count("verify found something");
            None
        }
        Ok((messages, faults)) => {
            let path = path.display();
            assert!(faults.is_subset(known), "{path}: the first reader: {faults:?}");
            tally.count("readers content");
            Some(messages)
        }
    }
}

fn compact(
    world: &World,
    path: &Path,
    since: Option<i64>,
) -> Result<Outcome, compact::CompactError> {
    let policy = Policy {
        since,
        sizes: Sizes { min: 0, max: 0, work_threshold: 1 },
        force: true,
        keep_previous: false,
        dry_run: false,
        staging: world.path().join("staging"),
    };
    compact::run(path, &policy, NOW, Wait::Yes, &mut |_| {})
}

/// What is done first after the cut.
const WAYS: usize = 4;

/// Everything that was promised of a user's backup is there, in whatever order one goes on.
/// `before` and `after` is what it had to say before the program ran, and when it was done.
pub(crate) fn check(
    world: &World,
    user: &str,
    (before, after): (&Seen, &Seen),
    way: usize,
    tally: &mut Tally,
) {
    let path = path_of(world, user).expect("the entry in backups.db");
    let known: BTreeSet<&str> = before.faults.union(&after.faults).copied().collect();
    let is_known = |faults: &BTreeSet<&'static str>| faults.iter().all(|f| known.contains(f));
    // A look, or a tool, comes first.
    let is_lost = index_is_lost(&path);
    match way % WAYS {
        1 => {
            if let Some(messages) = first_look(world, &path, &known, tally) {
                assert!(has_all(&messages, before, after), "the first reader misses messages");
            }
        }
        2 => match compact(world, &path, None) {
            Err(error) => {
                assert!(is_lost, "compact refuses: {error}");
                tally.count("compact refused");
            }
            Ok(_) => tally.count("compact done"),
        },
        3 => {
            reindex::run(&path, Wait::Yes, false, NOW, &mut |_| {}).expect("reindex");
            let (messages, faults) = read(world, &path).expect("a look after reindex");
            assert!(is_known(&faults), "after reindex: {faults:?}");
            assert!(has_all(&messages, before, after), "after reindex messages are missing");
        }
        _ => {}
    }
    let looked = |when: &str| {
        let answers = ask(world, user);
        if answers != before.answers && answers != after.answers {
            let other = |these: &[String], those: &[String]| {
                these.iter().filter(|answer| !those.contains(answer)).cloned().collect::<String>()
            };
            let (more, less) = (other(&answers, &before.answers), other(&before.answers, &answers));
            panic!("{when}: a client is told {more:?} in place of {less:?}");
        }
        let (messages, faults) = read(world, &path).expect(when);
        assert!(is_known(&faults), "{when}: {faults:?}");
        assert!(has_all(&messages, before, after), "{when}: messages are missing");
        messages
    };
    looked("opened by the server");
    let new = append(world, user, 1);
    assert!(looked("one more message").contains(&new));
    if way.is_multiple_of(5) {
        compact(world, &path, None).expect("compact");
        assert!(looked("compacted").contains(&new));
        reindex::run(&path, Wait::Yes, false, NOW, &mut |_| {}).expect("reindex");
        assert!(looked("built again").contains(&new));
    }
}

fn has_all(messages: &BTreeSet<String>, before: &Seen, after: &Seen) -> bool {
    before.messages.intersection(&after.messages).all(|guid| messages.contains(guid))
}
