//! The power goes while the server takes mail of several users.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::aftermath::{self, Tally};
use super::client::{Client, apply_message, guid};
use super::disk::Disk;
use super::outcomes::State;
use super::world::World;

pub(crate) const USERS: [&str; 4] = ["tom", "ann", "eve", "kim"];

/// What was promised about a user.
#[derive(Clone, Debug, Default)]
pub(crate) struct Promised {
    /// UID and message, of the one mailbox.
    records: BTreeMap<u32, String>,
    is_gone: bool,
}

/// Something was answered OK.
struct Promise {
    /// Replies sent, this one among them.
    replies: usize,
    /// By RESTART: all so far survives a power cut.
    is_durable: bool,
    users: BTreeMap<String, Promised>,
}

/// What was promised by and by.
pub(crate) struct Ledger {
    promises: Vec<Promise>,
    users: BTreeMap<String, Promised>,
    replies: usize,
}

/// A client that notes what it is promised.
struct Noting<'l> {
    client: Client,
    ledger: &'l mut Ledger,
}

impl Noting<'_> {
    fn log_in(address: SocketAddr, ledger: &mut Ledger) -> Noting<'_> {
        let client = Client::admin(address);
        // The banner, and the answer to the password.
        ledger.replies += 2;
        Noting { client, ledger }
    }

    fn order(&mut self, words: impl AsRef<[u8]>) {
        let answer = self.client.ask(words);
        assert!(answer.lines().last().unwrap().starts_with("OK "), "{answer}");
        self.ledger.replies += 1;
    }

    fn noted(&mut self, is_durable: bool) {
        let Ledger { promises, users, replies } = &mut *self.ledger;
        promises.push(Promise { replies: *replies, is_durable, users: users.clone() });
    }

    fn deliver(&mut self, user: &str) {
        self.deliver_near(user, &[]);
    }

    /// A message for a user, which others may want too.
    fn deliver_near(&mut self, user: &str, others: &[&str]) {
        let promised = self.ledger.users.entry(user.to_owned()).or_default();
        let uid = promised.records.len() as u32 + 1;
        let text = format!("Subject: {uid} to {user}\r\n\r\n{}\r\n", "Words. ".repeat(200));
        let hash = guid(text.as_bytes());
        promised.records.insert(uid, hash.clone());
        let promised = promised.clone();
        let users = others.iter().chain([&user]).map(|user| format!("user.{user}"));
        let users = users.collect::<Vec<_>>().join(" ");
        if !others.is_empty() {
            self.order(format!("GET MAILBOXES ({users})\r\n"));
        }
        self.order(format!(
            "APPLY RESERVE %(PARTITION default MBOXNAME ({users}) GUID ({hash}))\r\n"
        ));
        self.order(apply_message(text.as_bytes()));
        let records: Vec<String> = promised
            .records
            .iter()
            .map(|(uid, guid)| {
                format!(
                    "%(UID {uid} MODSEQ {uid} LAST_UPDATED 1 FLAGS () INTERNALDATE 1 SIZE {} \
                     GUID {guid})",
                    text.len()
                )
            })
            .collect();
        self.order(format!(
            "APPLY MAILBOX %(UNIQUEID id-{user} MBOXNAME user.{user} SYNC_CRC 0 \
             SYNC_CRC_ANNOT 0 LAST_UID {uid} HIGHESTMODSEQ {uid} RECENTUID 0 RECENTTIME 0 \
             LAST_APPENDDATE 0 POP3_LAST_LOGIN 0 POP3_SHOW_AFTER 0 UIDVALIDITY 7 \
             PARTITION default ACL \"\" OPTIONS P RECORD ({}))\r\n",
            records.join(" ")
        ));
        self.noted(false);
    }

    fn restart(&mut self) {
        self.order("RESTART\r\n");
        self.noted(true);
    }
}

/// Mail for several users, some of them new, in one session and another.
pub(crate) fn talk(address: SocketAddr) -> Ledger {
    let mut ledger = Ledger { promises: Vec::new(), users: BTreeMap::new(), replies: 0 };
    let mut one = Noting::log_in(address, &mut ledger);
    one.deliver("tom");
    one.deliver("tom");
    one.restart();
    one.deliver("tom");
    one.deliver("ann");
    one.restart();
    one.order("GET USER eve\r\n");
    one.restart();
    one.deliver("tom");
    one.order("APPLY UNUSER ann\r\n");
    one.ledger.users.get_mut("ann").unwrap().is_gone = true;
    one.noted(false);
    one.order("EXIT\r\n");
    one.noted(true);
    let mut two = Noting::log_in(address, &mut ledger);
    two.deliver("eve");
    two.deliver_near("tom", &["eve"]);
    two.restart();
    two.order(
        "APPLY RENAME %(OLDMBOXNAME user.eve NEWMBOXNAME user.kim PARTITION default \
         UIDVALIDITY 7)\r\n",
    );
    let eve = two.ledger.users["eve"].clone();
    two.ledger.users.insert("kim".to_owned(), eve);
    two.ledger.users.get_mut("eve").unwrap().is_gone = true;
    two.noted(false);
    two.order("EXIT\r\n");
    two.noted(true);
    ledger
}

impl Ledger {
    /// Whether the trace has as many replies as there were.
    pub(crate) fn fits(&self, disk: &Disk) {
        assert_eq!(disk.cuts.last().unwrap().replies, self.replies);
    }

    /// What must be there in a state.
    pub(crate) fn at(&self, state: &State) -> BTreeMap<String, Promised> {
        let holds = |promise: &&Promise| {
            promise.replies <= state.replies && (state.has_all || promise.is_durable)
        };
        let last = self.promises.iter().rfind(holds);
        last.map(|promise| promise.users.clone()).unwrap_or_default()
    }

    /// Whether the order that ends a user was sent: it is the next one to be answered, or was.
    fn may_be_gone(&self, user: &str, state: &State) -> bool {
        let ends = |promise: &Promise| promise.users.get(user).is_some_and(|user| user.is_gone);
        let end = self.promises.iter().find(|promise| ends(promise));
        end.is_some_and(|promise| promise.replies <= state.replies + 1)
    }
}

/// Everything promised is there, and every user's mail goes on being taken.
pub(crate) fn check(world: &World, ledger: &Ledger, state: &State, way: usize, tally: &mut Tally) {
    let promised = ledger.at(state);
    for user in USERS {
        if way % 2 == 1
            && let Some(path) = aftermath::path_of(world, user)
        {
            aftermath::first_look(world, &path, &BTreeSet::new(), tally);
        }
        let answers = aftermath::ask(world, user).concat();
        let path = aftermath::path_of(world, user).expect("the entry that GET USER has made");
        let look = |when: &str| {
            let (messages, faults) = aftermath::read(world, &path).expect(when);
            assert_eq!(faults, BTreeSet::new(), "{user}, {when}");
            messages
        };
        let messages = look("opened by the server");
        if let Some(promised) = promised.get(user) {
            for (uid, guid) in &promised.records {
                assert!(messages.contains(guid), "{user}: message {uid} is missing");
                let record = format!("%(UID {uid} MODSEQ {uid} ");
                let is_there = answers.contains(&record) && answers.contains(guid);
                // What was ordered may be there before it is promised.
                let may_be_gone = ledger.may_be_gone(user, state)
                    && !answers.contains(&format!("MBOXNAME user.{user} "));
                assert!(
                    promised.is_gone || may_be_gone || is_there,
                    "{user}: record {uid}: {answers}"
                );
            }
            let is_there = answers.contains(&format!("MBOXNAME user.{user} "));
            assert!(!promised.is_gone || !is_there, "{user}: is back: {answers}");
        }
        let new = aftermath::append(world, user, 1);
        let messages = look("one more message");
        assert!(messages.contains(&new));
    }
}
