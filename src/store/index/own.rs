//! What lines of [`crate::wire::own`] say, in tables that Cyrus ignores.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::doubt::Doubt;
use super::schema::SchemaError;
use super::{Index, Position, Result, Text, octets};
use crate::wire::own::{Compacted, Own, Subject};

/// The script that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveRow {
    /// As clients name it: `main.bc` for `main.script`.
    pub filename: Vec<u8>,
    /// When it was made active, Unix time.
    pub since: i64,
}

/// An annotation of the server or of a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnotationRow {
    /// What it is about.
    pub subject: Subject,
    /// Its value.
    pub value: Vec<u8>,
}

pub(super) fn create(db: &Connection) -> std::result::Result<(), SchemaError> {
    Ok(db.execute_batch(
        "CREATE TABLE IF NOT EXISTS cyrbk_quota( root TEXT PRIMARY KEY, fields TEXT NOT NULL );
         CREATE TABLE IF NOT EXISTS cyrbk_active_sieve( id INTEGER PRIMARY KEY CHECK (id = 1), \
         filename TEXT NOT NULL, since INTEGER NOT NULL );
         CREATE TABLE IF NOT EXISTS cyrbk_annotation( mboxname TEXT NOT NULL, entry TEXT NOT \
         NULL, userid TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (mboxname, entry, userid) \
         ) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS cyrbk_compacted( id INTEGER PRIMARY KEY CHECK (id = 1), at \
         INTEGER NOT NULL, since INTEGER );",
    )?)
}

const ANNOTATION: &str = "SELECT mboxname, entry, userid, value FROM cyrbk_annotation";

fn annotation_row(row: &Row<'_>) -> rusqlite::Result<AnnotationRow> {
    let text = |column| octets(row, column).map(Option::unwrap_or_default);
    let subject = Subject { mboxname: text(0)?, entry: text(1)?, userid: text(2)? };
    Ok(AnnotationRow { subject, value: text(3)? })
}

impl Index {
    pub(super) fn enter_own(&self, at: Position, own: &Own) -> Result<()> {
        match own {
            Own::Quota(quota) => self.run(
                "INSERT OR REPLACE INTO cyrbk_quota (root, fields) VALUES (?1, ?2)",
                params![Text(&quota.root), Text(&quota.fields)],
            ),
            Own::Unquota(root) => {
                self.run("DELETE FROM cyrbk_quota WHERE root = ?1", params![Text(root)])
            }
            Own::Annotation(subject, value) => self.run(
                "INSERT OR REPLACE INTO cyrbk_annotation (mboxname, entry, userid, value)
                 VALUES (?1, ?2, ?3, ?4)",
                params![
                    Text(&subject.mboxname),
                    Text(&subject.entry),
                    Text(&subject.userid),
                    value
                ],
            ),
            Own::Unannotation(subject) => self.run(
                "DELETE FROM cyrbk_annotation WHERE mboxname = ?1 AND entry = ?2 AND userid = ?3",
                params![Text(&subject.mboxname), Text(&subject.entry), Text(&subject.userid)],
            ),
            Own::ActivateSieve(script) => self.run(
                "INSERT OR REPLACE INTO cyrbk_active_sieve (id, filename, since)
                 VALUES (1, ?1, ?2)",
                params![Text(&script.filename), at.ts],
            ),
            Own::UnactivateSieve(_) => self.run("DELETE FROM cyrbk_active_sieve", params![]),
            Own::Incomplete(uniqueid) => match self.mailbox_with_uniqueid(uniqueid)? {
                Some(row) => self.set_doubt(row.id, Doubt::Resend),
                None => Ok(()),
            },
            Own::Compacted(Compacted { at, since }) => {
                self.doubt_misfits()?;
                self.run(
                    "INSERT OR REPLACE INTO cyrbk_compacted (id, at, since) VALUES (1, ?1, ?2)",
                    params![at, since],
                )
            }
        }
    }

    fn run(&self, sql: &str, params: impl rusqlite::Params) -> Result<()> {
        self.db.prepare_cached(sql)?.execute(params)?;
        Ok(())
    }

    /// Whether a line would change nothing.
    pub fn says_already(&self, own: &Own) -> Result<bool> {
        Ok(match own {
            Own::Quota(quota) => self.quota(&quota.root)?.as_ref() == Some(&quota.fields),
            Own::Unquota(root) => self.quota(root)?.is_none(),
            Own::Annotation(subject, value) => self.annotation(subject)?.as_ref() == Some(value),
            Own::Unannotation(subject) => self.annotation(subject)?.is_none(),
            Own::ActivateSieve(script) => {
                self.active_script()?.is_some_and(|active| active.filename == script.filename)
            }
            Own::UnactivateSieve(_) => self.active_script()?.is_none(),
            Own::Incomplete(uniqueid) => match self.mailbox_with_uniqueid(uniqueid)? {
                Some(row) => self.doubt(row.id)? == Doubt::Resend,
                None => true,
            },
            Own::Compacted(compacted) => self.compacted()? == Some(*compacted),
        })
    }

    /// What the last compaction by cyrbk has dropped, if one has dropped anything.
    pub fn compacted(&self) -> Result<Option<Compacted>> {
        if !self.db.table_exists(None, "cyrbk_compacted")? {
            return Ok(None);
        }
        let mut statement = self.db.prepare_cached("SELECT at, since FROM cyrbk_compacted")?;
        let row = statement
            .query_row([], |row| Ok(Compacted { at: row.get(0)?, since: row.get(1)? }))
            .optional()?;
        Ok(row)
    }

    /// Canonical text of what QUOTA said of a root.
    pub fn quota(&self, root: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut statement =
            self.db.prepare_cached("SELECT fields FROM cyrbk_quota WHERE root = ?1")?;
        Ok(statement.query_row([Text(root)], |row| octets(row, 0)).optional()?.flatten())
    }

    /// The same of all roots, in the order of their names.
    pub fn quotas(&self) -> Result<Vec<Vec<u8>>> {
        let query = "SELECT fields FROM cyrbk_quota ORDER BY root";
        self.rows(query, [], |row| Ok(octets(row, 0)?.unwrap_or_default()))
    }

    /// Names of the quota roots.
    pub fn quota_roots(&self) -> Result<Vec<Vec<u8>>> {
        let query = "SELECT root FROM cyrbk_quota ORDER BY root";
        self.rows(query, [], |row| Ok(octets(row, 0)?.unwrap_or_default()))
    }

    /// The script that runs, if one does.
    pub fn active_script(&self) -> Result<Option<ActiveRow>> {
        let mut statement =
            self.db.prepare_cached("SELECT filename, since FROM cyrbk_active_sieve")?;
        let row = statement.query_row([], |row| {
            Ok(ActiveRow { filename: octets(row, 0)?.unwrap_or_default(), since: row.get(1)? })
        });
        Ok(row.optional()?)
    }

    /// The annotations of a mailbox, or of the server (`""`), sorted by entry and user.
    pub fn annotations(&self, mboxname: &[u8]) -> Result<Vec<AnnotationRow>> {
        let query = format!("{ANNOTATION} WHERE mboxname = ?1 ORDER BY entry, userid");
        self.rows(&query, [Text(mboxname)], annotation_row)
    }

    fn annotation(&self, subject: &Subject) -> Result<Option<Vec<u8>>> {
        let rows = self.annotations(&subject.mboxname)?;
        Ok(rows.into_iter().find(|row| row.subject == *subject).map(|row| row.value))
    }

    /// Takes over the tables of this module from an index that was built from the same data.
    pub(super) fn take_own_from(&self, other: &Index) -> Result<()> {
        self.db.execute_batch(
            "DELETE FROM cyrbk_quota; DELETE FROM cyrbk_active_sieve;
             DELETE FROM cyrbk_annotation; DELETE FROM cyrbk_compacted;",
        )?;
        if let Some(compacted) = other.compacted()? {
            let at = Position { chunk_id: 0, ts: 0, offset: 0 };
            self.enter_own(at, &Own::Compacted(compacted))?;
        }
        for (root, fields) in other.rows("SELECT root, fields FROM cyrbk_quota", [], |row| {
            Ok((octets(row, 0)?.unwrap_or_default(), octets(row, 1)?.unwrap_or_default()))
        })? {
            self.run(
                "INSERT INTO cyrbk_quota (root, fields) VALUES (?1, ?2)",
                params![Text(&root), Text(&fields)],
            )?;
        }
        if let Some(active) = other.active_script()? {
            self.run(
                "INSERT INTO cyrbk_active_sieve (id, filename, since) VALUES (1, ?1, ?2)",
                params![Text(&active.filename), active.since],
            )?;
        }
        let query = format!("{ANNOTATION} ORDER BY mboxname");
        for AnnotationRow { subject, value } in other.rows(&query, [], annotation_row)? {
            let at = Position { chunk_id: 0, ts: 0, offset: 0 };
            self.enter_own(at, &Own::Annotation(subject, value))?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::apply::Apply;
    use crate::wire::dlist::parse_item;

    fn apply(index: &Index, line: &str) {
        let (name, value) = parse_item(line.as_bytes()).unwrap();
        let apply = Apply::read(&name, &value).unwrap();
        let at = Position { chunk_id: 1, ts: 7, offset: 0 };
        // What stands in the log is the carrier.
        let Apply::Own(own) = apply else { panic!("{line}") };
        let carrier = own.line();
        let (name, value) = parse_item(&carrier).unwrap();
        index.apply(at, &Apply::read(&name, &value).unwrap()).unwrap();
        assert!(index.says_already(&own).unwrap(), "{line}");
    }

    fn index() -> Index {
        let index = Index::scratch().unwrap();
        index.start_chunk(1, 0, "").unwrap();
        index
    }

    #[test]
    fn the_latest_word_counts_and_can_be_taken_over() {
        let index = index();
        apply(&index, "QUOTA %(ROOT user.tom LIMIT 1)");
        apply(&index, "QUOTA %(ROOT user.tom LIMIT 2 STORAGE 2)");
        apply(&index, "QUOTA %(ROOT user.tom.A LIMIT 3)");
        apply(&index, "UNQUOTA user.tom.A");
        apply(&index, "ACTIVATE_SIEVE %(USERID tom FILENAME a.bc)");
        apply(&index, "ACTIVATE_SIEVE %(USERID tom FILENAME b.bc)");
        apply(&index, "ANNOTATION %(MBOXNAME \"\" ENTRY /b USERID \"\" VALUE {4+}\r\n\0\u{e9}x)");
        apply(&index, "ANNOTATION %(MBOXNAME \"\" ENTRY /a USERID tom VALUE 2)");
        apply(&index, "ANNOTATION %(MBOXNAME \"\" ENTRY /a USERID \"\" VALUE 1)");
        apply(&index, "ANNOTATION %(MBOXNAME x ENTRY /a USERID \"\" VALUE 1)");
        apply(&index, "UNANNOTATION %(MBOXNAME x ENTRY /a USERID \"\")");
        for (at, since) in [(9, Some(1)), (10, None)] {
            let line = Own::Compacted(Compacted { at, since }).line();
            let (name, value) = parse_item(&line).unwrap();
            let at = Position { chunk_id: 1, ts: at, offset: 0 };
            index.apply(at, &Apply::read(&name, &value).unwrap()).unwrap();
        }
        let other = super::Index::scratch().unwrap();
        apply(&other, "QUOTA %(ROOT gone LIMIT 1)");
        other.take_own_from(&index).unwrap();
        for index in [&index, &other] {
            assert_eq!(index.compacted().unwrap(), Some(Compacted { at: 10, since: None }));
            assert_eq!(index.quotas().unwrap(), [b"%(ROOT user.tom LIMIT 2 STORAGE 2)"]);
            let active = ActiveRow { filename: b"b.bc".to_vec(), since: 7 };
            assert_eq!(index.active_script().unwrap(), Some(active));
            let values: Vec<Vec<u8>> =
                index.annotations(b"").unwrap().into_iter().map(|row| row.value).collect();
            assert_eq!(values, [&b"1"[..], b"2", b"\0\xc3\xa9x"]);
            assert_eq!(index.annotations(b"x").unwrap(), []);
        }
        apply(&index, "UNACTIVATE_SIEVE %(USERID tom)");
        assert_eq!(index.active_script().unwrap(), None);
    }
}
