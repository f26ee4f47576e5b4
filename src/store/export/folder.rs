//! Names of mailboxes as paths of folders.
//!
//! ```text
//! user.alice               the inbox, no component
//! user.alice.Work.2026     Work, 2026
//! dom!user.alice.Work      Work
//! DELETED.user.alice.Work.5F000000     DELETED, Work, 5F000000
//! news.comp                news, comp
//! ```
//!
//! Components stay as they are stored: modified UTF-7, `^` for a dot. What could lead out of
//! a directory, or not be a name of a file, is written `%XX`.

use std::collections::HashSet;

use super::super::index::MailboxRow;

/// A mailbox as a place for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// Components of its path; none for the inbox.
    pub path: Vec<String>,
    /// Its identity.
    pub uniqueid: Vec<u8>,
    /// Internal name.
    pub mboxname: Vec<u8>,
}

/// First component of what is gone.
const DELETED: &str = "DELETED";

impl Folder {
    /// The folders of all mailboxes of a user; no two have one path.
    pub fn of_all(mailboxes: &[MailboxRow]) -> Vec<Folder> {
        let mut paths = HashSet::new();
        let mut folders: Vec<Folder> = Vec::with_capacity(mailboxes.len());
        for row in mailboxes {
            let mut path = components(&row.mboxname);
            if let Some(deleted) = row.deleted.filter(|_| !is_deleted_name(&row.mboxname)) {
                path.insert(0, DELETED.to_owned());
                path.push(format!("{deleted:08X}"));
            }
            let (uniqueid, mboxname) = (row.uniqueid.clone(), row.mboxname.clone());
            folders.push(Folder { path, uniqueid, mboxname });
        }
        for folder in &mut folders {
            while !paths.insert(folder.path.clone()) {
                folder
                    .path
                    .push(String::from_utf8_lossy(&folder.uniqueid).replace(['/', '.'], "_"));
            }
        }
        folders
    }

    /// The same as the place where everything goes, whatever its name.
    pub fn at_root(self) -> Folder {
        Folder { path: Vec::new(), ..self }
    }
}

/// Since when the mailbox is not there for its user: it was deleted, or put aside under a name
/// that ends in the time, to be deleted later.
pub(in crate::store) fn gone_since(row: &MailboxRow) -> Option<i64> {
    let put_aside = || {
        let name = is_deleted_name(&row.mboxname).then_some(&row.mboxname)?;
        let stamp = name.rsplit(|&c| c == b'.').next()?;
        let time =
            std::str::from_utf8(stamp).ok().and_then(|hex| i64::from_str_radix(hex, 16).ok());
        Some(time.unwrap_or_default())
    };
    row.deleted.or_else(put_aside)
}

/// Whether Cyrus has put the mailbox aside, to delete it later.
fn is_deleted_name(mboxname: &[u8]) -> bool {
    local_part(mboxname)
        .strip_prefix(DELETED.as_bytes())
        .is_some_and(|rest| rest.first() == Some(&b'.'))
}

fn local_part(mboxname: &[u8]) -> &[u8] {
    let domain = mboxname.iter().position(|&c| c == b'!');
    domain.map_or(mboxname, |at| &mboxname[at + 1..])
}

fn components(mboxname: &[u8]) -> Vec<String> {
    let mut parts: Vec<&[u8]> = local_part(mboxname).split(|&c| c == b'.').collect();
    let user_at = usize::from(is_deleted_name(mboxname));
    if parts.len() > user_at + 1 && parts[user_at] == b"user" {
        parts.drain(user_at..user_at + 2);
    }
    parts.into_iter().map(safe).collect()
}

/// A name for a file.
fn safe(component: &[u8]) -> String {
    let is_dots = component.iter().all(|&c| c == b'.');
    let mut name = String::new();
    for &c in component {
        match c {
            b'/' | b'%' | 0..=0x1f | 0x7f.. => name.push_str(&format!("%{c:02X}")),
            b'.' if is_dots => name.push_str("%2E"),
            _ => name.push(char::from(c)),
        }
    }
    if name.is_empty() { "%".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> String {
        components(name.as_bytes()).join("|")
    }

    #[test]
    fn paths() {
        for (name, expected) in [
            ("user.alice", ""),
            ("user.alice.Work.2026", "Work|2026"),
            ("dom.org!user.alice.Work", "Work"),
            ("DELETED.user.alice.Work.5F000000", "DELETED|Work|5F000000"),
            ("DELETED.user.alice.5F000000", "DELETED|5F000000"),
            ("news.comp", "news|comp"),
            ("user", "user"),
            ("user.a^b.c^d", "c^d"),
            ("user.a.&AOQ-", "&AOQ-"),
            ("user.a.x/../../etc", "x%2F|%|%2F|%|%2Fetc"),
            ("user.a.x%y", "x%25y"),
            ("user.a..b", "%|b"),
        ] {
            assert_eq!(path(name), expected, "{name}");
        }
    }
}
