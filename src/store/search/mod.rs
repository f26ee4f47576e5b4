//! Finding messages again: by what their headers say, decoded, by flags, dates, and by when
//! they went.
//!
//! What the index knows is asked first; then the messages that are left are read in one pass
//! over the data, chunk by chunk.

mod decode;
mod matching;
mod summary;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::backup::Backup;
use super::error::StoreError;
use super::exact::{Damage, Truth};
use super::export::folder::gone_since;
use super::export::item::flags;
use super::export::{self, ExportError};
use super::index::RecordRow;
use super::message::MessageError;
use crate::wire::Guid;
use crate::wire::mboxname::NameRules;
pub use summary::{HEADER_MAX, Summary};

/// What is looked for; all of it must be so. Texts are found anywhere, in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// In these mailboxes, by unique id; `None`: in all.
    pub mailboxes: Option<HashSet<Vec<u8>>>,
    /// Header fields, by name, and what is in one of that name.
    pub headers: Vec<(String, String)>,
    /// In the header, or in a part that is text.
    pub text: Option<String>,
    /// Internal date, Unix time: then or later.
    pub since: Option<i64>,
    /// Internal date, Unix time: earlier.
    pub before: Option<i64>,
    /// Flags that it has. `\\` in front of a system flag may be left out.
    pub flags: Vec<String>,
    /// Gone then or later, Unix time: expunged, or deleted with its mailbox.
    pub deleted_since: Option<i64>,
}

/// A message in a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Internal name of the mailbox.
    pub mboxname: Vec<u8>,
    /// UID there.
    pub uid: u32,
    /// The message.
    pub guid: Guid,
    /// Unix time, seconds.
    pub internaldate: i64,
    /// When it went, itself or with its mailbox, Unix time; `None`: it lives there.
    pub expunged: Option<i64>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// Mailbox by mailbox, by UID.
    pub hits: Vec<Hit>,
    /// What their messages say of themselves.
    pub summaries: HashMap<Guid, Summary>,
    /// Why some messages could not be looked at.
    pub failed: Vec<MessageError>,
    /// What could not be read, and may have said that there is more.
    pub damages: Vec<Damage>,
}

/// Searches a backup. `staging` is `backup_staging_path`.
pub fn run(
    backup: &Backup,
    query: &Query,
    rules: &NameRules,
    staging: &Path,
) -> Result<Found, ExportError> {
    let truth = Truth::of(backup)?;
    let mut hits = candidates(&truth, query, rules)?;
    let guids: HashSet<Guid> = hits.iter().map(|hit| hit.guid).collect();
    let needle = matching::Needle::of(query);
    let mut summaries = HashMap::new();
    let failed = export::messages(backup, guids, staging, &mut |guid, octets| {
        if let Some(summary) = needle.find(octets)? {
            summaries.insert(*guid, summary);
        }
        Ok(())
    })?;
    hits.retain(|hit| summaries.contains_key(&hit.guid));
    Ok(Found { hits, summaries, failed, damages: truth.damages().to_vec() })
}

/// What the index does not rule out.
fn candidates(truth: &Truth<'_>, query: &Query, rules: &NameRules) -> Result<Vec<Hit>, StoreError> {
    let backup = truth.backup();
    let mailboxes = backup.index().mailboxes().map_err(StoreError::index(backup.path()))?;
    let mut hits = Vec::new();
    for row in &mailboxes {
        if query.mailboxes.as_ref().is_some_and(|wanted| !wanted.contains(&row.uniqueid)) {
            continue;
        }
        let gone = gone_since(row, rules);
        for record in truth.all_records(&row.uniqueid)? {
            let expunged = record.expunged.or(gone);
            let Some(guid) = record.guid.filter(|_| is_candidate(query, &record, expunged)) else {
                continue;
            };
            // What never came cannot be found.
            let known = backup.index().message(&guid).map_err(StoreError::index(backup.path()))?;
            if known.is_some() {
                let (mboxname, uid) = (row.mboxname.clone(), record.uid);
                let internaldate = record.internaldate;
                hits.push(Hit { mboxname, uid, guid, internaldate, expunged });
            }
        }
    }
    Ok(hits)
}

fn is_candidate(query: &Query, record: &RecordRow, expunged: Option<i64>) -> bool {
    let date = record.internaldate;
    query.since.is_none_or(|since| date >= since)
        && query.before.is_none_or(|before| date < before)
        && query.deleted_since.is_none_or(|since| expunged.is_some_and(|time| time >= since))
        && query.flags.iter().all(|wanted| {
            flags(&record.flags).any(|flag| {
                let plain = flag.strip_prefix(b"\\").unwrap_or(flag);
                let wanted = wanted.as_bytes();
                flag.eq_ignore_ascii_case(wanted) || plain.eq_ignore_ascii_case(wanted)
            })
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::lock::Wait;

    fn search(name: &str, query: &Query) -> Vec<(String, u32, bool)> {
        let dir = tempfile::tempdir().unwrap();
        let source = format!("tests/fixtures/backups/main/one/{name}");
        let path = dir.path().join("data");
        std::fs::copy(&source, &path).unwrap();
        std::fs::copy(format!("{source}.index"), dir.path().join("data.index")).unwrap();
        let backup = Backup::open(&path, Wait::No).unwrap();
        let found = run(&backup, query, &NameRules::default(), dir.path()).unwrap();
        assert!(found.failed.is_empty(), "{:?}", found.failed);
        let hits = found.hits.into_iter();
        let name = |hit: &Hit| String::from_utf8(hit.mboxname.clone()).unwrap();
        hits.map(|hit| (name(&hit), hit.uid, hit.expunged.is_some())).collect()
    }

    #[test]
    fn every_condition_narrows() {
        let all = search("a/alice_EPfRmx", &Query::default());
        assert!(all.len() > 10);
        let count = |query: Query| search("a/alice_EPfRmx", &query).len();
        let gone = Query { deleted_since: Some(0), ..Query::default() };
        let gone = search("a/alice_EPfRmx", &gone);
        assert!(!gone.is_empty() && gone.len() < all.len());
        assert!(gone.iter().all(|(_, _, expunged)| *expunged));
        assert_eq!(count(Query { deleted_since: Some(i64::MAX), ..Query::default() }), 0);
        assert_eq!(count(Query { since: Some(i64::MAX), ..Query::default() }), 0);
        assert_eq!(count(Query { before: Some(i64::MAX), ..Query::default() }), all.len());
        let seen = |flag: &str| count(Query { flags: vec![flag.into()], ..Query::default() });
        assert!(seen("seen") > 0 && seen("seen") < all.len());
        assert_eq!(seen("seen"), seen("\\SEEN"));
        assert_eq!(seen("nonsense"), 0);
        let header = |name: &str, text: &str| {
            let headers = vec![(name.to_owned(), text.to_owned())];
            count(Query { headers, ..Query::default() })
        };
        assert!(header("Subject", "") <= all.len() && header("subject", "") > 0);
        assert_eq!(header("X-Nobody-Has-This", ""), 0);
        let none = Some(HashSet::from([b"nothing".to_vec()]));
        assert_eq!(count(Query { mailboxes: none, ..Query::default() }), 0);
    }
}
