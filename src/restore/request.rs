//! What is wanted of a restore.

use std::collections::BTreeSet;

use crate::wire::Guid;

/// A restore from one backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which mailboxes and messages.
    pub what: What,
    /// Mailboxes below those named, too.
    pub recursive: bool,
    /// What becomes of messages that were expunged.
    pub expunged: Expunged,
    /// New mailboxes get the unique id, UIDVALIDITY, UIDs and modification sequences that they
    /// had.
    pub keep_ids: bool,
    /// Deleted mailboxes keep the names that they have had since.
    pub keep_deleted_names: bool,
    /// Everything goes into this mailbox, by its internal name.
    pub into: Option<Vec<u8>>,
    /// New mailboxes go to this partition of the mail server.
    pub partition: Option<Vec<u8>>,
    /// New mailboxes get this access control list, in internal form; the empty one stands for
    /// that of their parent.
    pub acl: Option<Vec<u8>>,
    /// Other servers of a murder are not told.
    pub local_only: bool,
    /// What is there already is restored once more.
    pub duplicates: bool,
    /// Besides mail.
    pub parts: Parts,
    /// Scripts, limits and annotations that are there are replaced.
    pub replace: bool,
}

impl Request {
    /// A request without any option.
    pub fn new(what: What) -> Request {
        Request {
            what,
            recursive: false,
            expunged: Expunged::AsTheyAre,
            keep_ids: false,
            keep_deleted_names: false,
            into: None,
            partition: None,
            acl: None,
            local_only: false,
            duplicates: false,
            parts: Parts::all(),
            replace: false,
        }
    }
}

/// Which mailboxes and messages of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Every mailbox, deleted ones too.
    All,
    /// Every mailbox that was there last.
    Living,
    /// These, in this order.
    Objects(Vec<Object>),
}

/// Something in a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A mailbox, by its unique id.
    Uniqueid(Vec<u8>),
    /// A mailbox, by its internal name.
    Mailbox {
        /// The internal name.
        name: Vec<u8>,
        /// The name as typed.
        typed: Vec<u8>,
    },
    /// A message, wherever it is.
    Message(Guid),
}

/// What becomes of messages that were expunged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expunged {
    /// They are restored as expunged, so that nobody sees them but `unexpunge`. One that is
    /// selected by its GUID and lives nowhere comes back to sight.
    #[default]
    AsTheyAre,
    /// They stay away.
    Without,
    /// They come back to sight, and nothing else does.
    Only,
}

/// Something that can be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Mailboxes and messages.
    Mail,
    /// Annotations of mailboxes.
    Annotations,
    /// What the user is subscribed to.
    Subscriptions,
    /// What the user has seen of other people's mailboxes.
    Seen,
    /// Sieve scripts, and which one is active.
    Sieve,
    /// Quota roots and their limits.
    Quota,
    /// Annotations of the server.
    Server,
}

impl Part {
    /// Each with its word.
    pub const WORDS: [(&'static str, Part); 7] = [
        ("mail", Part::Mail),
        ("annotations", Part::Annotations),
        ("subscriptions", Part::Subscriptions),
        ("seen", Part::Seen),
        ("sieve", Part::Sieve),
        ("quota", Part::Quota),
        ("server", Part::Server),
    ];
}

/// Some of what can be restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts(BTreeSet<Part>);

impl Parts {
    /// Everything.
    pub fn all() -> Parts {
        Parts(Part::WORDS.into_iter().map(|(_, part)| part).collect())
    }

    /// Mailboxes with their annotations and messages, and nothing about the user.
    pub fn mailboxes() -> Parts {
        Parts([Part::Mail, Part::Annotations].into())
    }

    /// Reads words separated by commas; the error is the word that is none.
    pub fn parse(words: &str) -> Result<Parts, String> {
        let part = |word: &str| {
            let known = Part::WORDS.into_iter().find(|(name, _)| *name == word);
            known.map(|(_, part)| part).ok_or_else(|| word.to_owned())
        };
        words.split(',').map(part).collect::<Result<_, _>>().map(Parts)
    }

    /// What is here and not in `others`.
    pub fn without(&self, others: &Parts) -> Parts {
        Parts(self.0.difference(&others.0).copied().collect())
    }

    /// Whether it is among them.
    pub fn has(&self, part: Part) -> bool {
        self.0.contains(&part)
    }

    /// Whether there is anything about the user or the server, mailboxes aside.
    pub fn has_state(&self) -> bool {
        self.0.iter().any(|part| !matches!(part, Part::Mail | Part::Annotations))
    }
}

impl Object {
    /// Reads an operand of `restore`. `internal` makes an internal name of an external one.
    pub fn parse(operand: &[u8], internal: impl FnOnce(&[u8]) -> Vec<u8>) -> Object {
        let is_id = |c: &u8| c.is_ascii_digit() || c.is_ascii_lowercase();
        match operand.len() {
            24 if operand.iter().all(is_id) => Object::Uniqueid(operand.to_vec()),
            36 if operand.iter().all(|c| is_id(c) || *c == b'-') => {
                Object::Uniqueid(operand.to_vec())
            }
            _ => match Guid::from_hex(operand) {
                Some(guid) => Object::Message(guid),
                None => Object::Mailbox { name: internal(operand), typed: operand.to_vec() },
            },
        }
    }

    /// As it was typed, or nearly so.
    pub fn text(&self) -> Vec<u8> {
        match self {
            Object::Uniqueid(id) => id.clone(),
            Object::Mailbox { typed, .. } => typed.clone(),
            Object::Message(guid) => guid.to_string().into_bytes(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn operands() {
        let parse = |text: &str| Object::parse(text.as_bytes(), <[u8]>::to_vec);
        let name = |text: &str| Object::Mailbox { name: text.into(), typed: text.into() };
        let id = "05xefzcyg5v02lv31wgjwn3d";
        assert_eq!(parse(id), Object::Uniqueid(id.into()));
        assert_eq!(parse(&id.to_uppercase()), name(&id.to_uppercase()));
        let uuid = "6a9f7f0e-7a11-4d0b-9d61-0a3e1c2b4d5f";
        assert_eq!(parse(uuid), Object::Uniqueid(uuid.into()));
        let guid = "84976990f3bc08fb48037b36fcc15832f019d92d";
        assert_eq!(parse(guid), parse(&guid.to_uppercase()));
        assert!(matches!(parse(guid), Object::Message(_)));
        assert_eq!(parse("user.tom"), name("user.tom"));
        assert_eq!(parse(""), name(""));
    }

    #[test]
    fn words_for_parts() {
        assert_eq!(Parts::parse("mail,annotations"), Ok(Parts::mailboxes()));
        assert_eq!(Parts::parse("mail,nothing"), Err("nothing".to_owned()));
        let rest = Parts::all().without(&Parts::mailboxes());
        assert!(rest.has_state() && rest.has(Part::Quota) && !rest.has(Part::Mail));
        assert!(!Parts::mailboxes().has_state());
    }
}
