//! What a compaction has found in a log, chunk by chunk and line by line, beside the rows of
//! [`super::provenance`]: in tables, so that memory does not grow with the log.

use std::ops::Range;

use rusqlite::{OptionalExtension, Row, params};

use super::{Index, Result, octets};

/// A chunk as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its row in the index of the backup.
    pub id: i64,
    /// File offset.
    pub offset: u64,
    /// Inflated octets.
    pub length: u64,
    /// SHA-1 of these, hex.
    pub data_sha1: String,
    /// Its lines.
    pub lines: Range<i64>,
    /// Messages and records in them.
    pub items: u64,
    /// File offset behind it, if it is whole and what its row says.
    pub end: Option<u64>,
}

/// A chunk of which something stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its place among all chunks.
    pub number: i64,
    /// The chunk.
    pub source: Source,
    /// File offset behind it, if all of it stays as it is.
    pub whole_until: Option<u64>,
}

/// A line that changes or ends what earlier ones have said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Its number.
    pub line: i64,
    /// Unix time.
    pub ts: i64,
    /// What it is.
    pub kind: NoteKind,
    /// What it is about: the name of the script, or the text of the line.
    pub text: Vec<u8>,
}

/// Kinds of notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteKind {
    /// RENAME.
    Rename,
    /// UNMAILBOX.
    Unmailbox,
    /// UNSIEVE.
    Script,
    /// EXPUNGE.
    Expunge,
    /// Something that Cyrus's log cannot say.
    Own,
}

const KINDS: [NoteKind; 5] =
    [NoteKind::Rename, NoteKind::Unmailbox, NoteKind::Script, NoteKind::Expunge, NoteKind::Own];

impl Index {
    pub(super) fn prepare_sources(&self) -> Result<()> {
        Ok(self.db.execute_batch(
            "CREATE TABLE source(number INTEGER PRIMARY KEY, id INTEGER, offset INTEGER, length \
             INTEGER, data_sha1 TEXT, first INTEGER, behind INTEGER, items INTEGER, until INTEGER);
             CREATE TABLE kept_source(number INTEGER PRIMARY KEY, whole_until INTEGER);
             CREATE TABLE idle_line(line INTEGER PRIMARY KEY);
             CREATE TABLE naming_line(mailbox_id INTEGER NOT NULL, line INTEGER NOT NULL, \
             is_rename INTEGER NOT NULL, PRIMARY KEY (mailbox_id, line)) WITHOUT ROWID;
             CREATE TABLE note(line INTEGER PRIMARY KEY, ts INTEGER NOT NULL, kind INTEGER NOT \
             NULL, text BLOB NOT NULL, subject BLOB);
             CREATE INDEX note_subject ON note(subject) WHERE subject IS NOT NULL;
             CREATE TABLE note_mailbox(line INTEGER NOT NULL, mailbox_id INTEGER NOT NULL, \
             PRIMARY KEY (line, mailbox_id)) WITHOUT ROWID;",
        )?)
    }

    /// Adds the next chunk.
    pub fn add_source(&self, source: &Source) -> Result<()> {
        let Source { id, offset, length, data_sha1, lines, items, end } = source;
        self.db
            .prepare_cached(
                "INSERT INTO source (id, offset, length, data_sha1, first, behind, items, until)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                id,
                *offset as i64,
                *length as i64,
                data_sha1,
                lines.start,
                lines.end,
                *items as i64,
                end.map(|end| end as i64),
            ])?;
        Ok(())
    }

    /// The chunks behind number `after`, at most `limit`, with their numbers.
    pub fn sources(&self, after: i64, limit: u32) -> Result<Vec<(i64, Source)>> {
        let query = "SELECT number, id, offset, length, data_sha1, first, behind, items, until
                     FROM source WHERE number > ?1 ORDER BY number LIMIT ?2";
        self.rows(query, params![after, limit], |row| Ok((row.get(0)?, source_row(row)?)))
    }

    /// Nothing stays of any chunk.
    pub fn keep_no_source(&self) -> Result<()> {
        Ok(self.db.execute_batch("DELETE FROM kept_source")?)
    }

    /// Something stays of a chunk; all of it, if it is known where that ends.
    pub fn keep_source(&self, number: i64, whole_until: Option<u64>) -> Result<()> {
        self.db
            .prepare_cached("INSERT INTO kept_source VALUES (?1, ?2)")?
            .execute(params![number, whole_until.map(|end| end as i64)])?;
        Ok(())
    }

    /// The chunks behind number `after` of which something stays, at most `limit`.
    pub fn kept_sources(&self, after: i64, limit: u32) -> Result<Vec<Kept>> {
        let query = "SELECT number, id, offset, length, data_sha1, first, behind, items, until,
                     whole_until FROM kept_source JOIN source USING (number)
                     WHERE number > ?1 ORDER BY number LIMIT ?2";
        self.rows(query, params![after, limit], |row| {
            let whole_until = row.get::<_, Option<i64>>(9)?.map(|end| end as u64);
            Ok(Kept { number: row.get(0)?, source: source_row(row)?, whole_until })
        })
    }

    /// A line changes nothing.
    pub fn add_idle_line(&self, line: i64) -> Result<()> {
        let mut statement =
            self.db.prepare_cached("INSERT OR IGNORE INTO idle_line VALUES (?1)")?;
        statement.execute([line])?;
        Ok(())
    }

    /// How many of these lines stay, and how many that change something do not.
    pub fn count_lines(&self, lines: &Range<i64>) -> Result<(u64, u64)> {
        let range = [lines.start, lines.end];
        let count = |query: &str| -> Result<i64> {
            Ok(self.db.prepare_cached(query)?.query_row(range, |row| row.get(0))?)
        };
        let kept = count("SELECT count(*) FROM kept_line WHERE line >= ?1 AND line < ?2")?;
        let idle = count("SELECT count(*) FROM idle_line WHERE line >= ?1 AND line < ?2")?;
        let both = count(
            "SELECT count(*) FROM idle_line JOIN kept_line USING (line) WHERE line >= ?1
             AND line < ?2",
        )?;
        let gone = (lines.end - lines.start) - kept - (idle - both);
        Ok((kept as u64, gone as u64))
    }

    /// How many messages and records of these lines stay.
    pub fn count_items(&self, lines: &Range<i64>) -> Result<u64> {
        let query = "SELECT (SELECT count(*) FROM kept_message WHERE line >= ?1 AND line < ?2) +
                     (SELECT count(*) FROM kept_item WHERE line >= ?1 AND line < ?2)";
        let mut statement = self.db.prepare_cached(query)?;
        Ok(statement.query_row([lines.start, lines.end], |row| row.get::<_, i64>(0))? as u64)
    }

    /// Whether one of these lines is to have records that it does not have, or no longer to tell
    /// all of its mailbox.
    pub fn is_to_say_more(&self, lines: &Range<i64>) -> Result<bool> {
        let query = "SELECT 1 FROM kept_left_out WHERE line >= ?1 AND line < ?2
             UNION ALL SELECT 1 FROM not_whole WHERE line >= ?1 AND line < ?2";
        Ok(self.db.prepare_cached(query)?.exists([lines.start, lines.end])?)
    }

    /// A MAILBOX line, or a RENAME, and the row of a mailbox that has a name from it.
    pub fn add_naming_line(&self, line: i64, mailbox_id: i64, is_rename: bool) -> Result<()> {
        self.db
            .prepare_cached("INSERT INTO naming_line VALUES (?1, ?2, ?3)")?
            .execute(params![mailbox_id, line, is_rename])?;
        Ok(())
    }

    /// The lines from which a mailbox has the name that it has in front of `line`, the last one
    /// first: any number of RENAMEs and the MAILBOX line in front of them.
    pub fn naming_lines(&self, mailbox_id: i64, line: i64) -> Result<Vec<i64>> {
        let mut statement = self.db.prepare_cached(
            "SELECT line, is_rename FROM naming_line WHERE mailbox_id = ?1 AND line < ?2
             ORDER BY line DESC",
        )?;
        let mut rows = statement.query([mailbox_id, line])?;
        let mut lines = Vec::new();
        while let Some(row) = rows.next()? {
            lines.push(row.get(0)?);
            if !row.get::<_, bool>(1)? {
                break;
            }
        }
        Ok(lines)
    }

    /// Adds a note, with the mailboxes that it is about. Of those with one `subject` the latest
    /// counts.
    pub fn add_note(&self, note: &Note, mailboxes: &[i64], subject: Option<&[u8]>) -> Result<()> {
        let Note { line, ts, kind, text } = note;
        self.db
            .prepare_cached("INSERT INTO note VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![line, ts, *kind as i64, text, subject])?;
        let mut insert =
            self.db.prepare_cached("INSERT OR IGNORE INTO note_mailbox VALUES (?1, ?2)")?;
        mailboxes.iter().try_for_each(|id| insert.execute([line, id]).map(drop))?;
        Ok(())
    }

    /// The notes behind `line`, at most `limit`.
    pub fn notes(&self, line: i64, limit: u32) -> Result<Vec<Note>> {
        let query = "SELECT line, ts, kind, text FROM note WHERE line > ?1 ORDER BY line LIMIT ?2";
        self.rows(query, params![line, limit], |row| {
            Ok(Note {
                line: row.get(0)?,
                ts: row.get(1)?,
                kind: KINDS[row.get::<_, u8>(2)? as usize % KINDS.len()],
                text: octets(row, 3)?.unwrap_or_default(),
            })
        })
    }

    /// The mailboxes that a note is about.
    pub fn mailboxes_of_note(&self, line: i64) -> Result<Vec<i64>> {
        let query = "SELECT mailbox_id FROM note_mailbox WHERE line = ?1 ORDER BY 1";
        self.rows(query, [line], |row| row.get(0))
    }

    /// Whether a note behind `line` is about the same subject.
    pub fn has_later_note(&self, subject: &[u8], line: i64) -> Result<bool> {
        let query = "SELECT 1 FROM note WHERE subject = ?1 AND line > ?2";
        let mut statement = self.db.prepare_cached(query)?;
        Ok(statement.query_row(params![subject, line], |_| Ok(())).optional()?.is_some())
    }
}

fn source_row(row: &Row<'_>) -> rusqlite::Result<Source> {
    let number = |column| row.get::<_, i64>(column).map(|number| number as u64);
    Ok(Source {
        id: row.get(1)?,
        offset: number(2)?,
        length: number(3)?,
        data_sha1: row.get(4)?,
        lines: row.get(5)?..row.get(6)?,
        items: number(7)?,
        end: row.get::<_, Option<i64>>(8)?.map(|end| end as u64),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn index() -> Index {
        let index = Index::scratch().unwrap();
        index.prepare_provenance().unwrap();
        index
    }

    #[test]
    fn chunks_come_page_by_page() {
        let index = index();
        let source = |id: i64| Source {
            id,
            offset: 100 * id as u64,
            length: 7,
            data_sha1: "x".into(),
            lines: id..id + 1,
            items: 3,
            end: (id != 2).then_some(5),
        };
        (1..=5).for_each(|id| index.add_source(&source(id)).unwrap());
        let page = index.sources(1, 2).unwrap();
        assert_eq!(page, [(2, source(2)), (3, source(3))]);
        index.keep_source(4, Some(9)).unwrap();
        index.keep_source(2, None).unwrap();
        let kept = |number, whole_until| Kept { number, source: source(number), whole_until };
        assert_eq!(index.kept_sources(0, 9).unwrap(), [kept(2, None), kept(4, Some(9))]);
        assert_eq!(index.kept_sources(2, 9).unwrap(), [kept(4, Some(9))]);
        index.keep_no_source().unwrap();
        assert_eq!(index.kept_sources(0, 9).unwrap(), []);
    }

    #[test]
    fn notes_of_each_kind() {
        let index = index();
        let note = |(i, kind): (usize, NoteKind)| Note {
            line: i as i64 + 1,
            ts: 9,
            kind,
            text: b"t".to_vec(),
        };
        let notes: Vec<Note> = KINDS.into_iter().enumerate().map(note).collect();
        for note in &notes {
            index.add_note(note, &[4, 2, 4], (note.line == 3).then_some(b"s")).unwrap();
        }
        assert_eq!(index.notes(0, 9).unwrap(), notes);
        assert_eq!(index.notes(1, 2).unwrap(), notes[1..3]);
        assert_eq!(index.mailboxes_of_note(2).unwrap(), [2, 4]);
        assert!(index.has_later_note(b"s", 2).unwrap() && !index.has_later_note(b"s", 3).unwrap());
        assert!(!index.has_later_note(b"other", 0).unwrap());
    }

    #[test]
    fn a_name_comes_from_a_mailbox_line_and_the_renames_since() {
        let index = index();
        let lines =
            [(1, 5, false), (2, 5, true), (3, 6, false), (4, 5, false), (6, 5, true), (7, 5, true)];
        for (line, mailbox_id, is_rename) in lines {
            index.add_naming_line(line, mailbox_id, is_rename).unwrap();
        }
        let names = |line| index.naming_lines(5, line).unwrap();
        assert_eq!([names(1), names(3), names(4)], [vec![], vec![2, 1], vec![2, 1]]);
        assert_eq!([names(6), names(7), names(9)], [vec![4], vec![6, 4], vec![7, 6, 4]]);
    }

    #[test]
    fn lines_are_counted() {
        let index = index();
        index.choose(None).unwrap();
        [2, 3].into_iter().for_each(|line| index.keep_line(line).unwrap());
        [3, 4].into_iter().for_each(|line| index.add_idle_line(line).unwrap());
        assert_eq!(index.count_lines(&(1..6)).unwrap(), (2, 2));
        assert_eq!(index.count_lines(&(3..4)).unwrap(), (1, 0));
        assert_eq!(index.count_items(&(1..6)).unwrap(), 0);
    }
}
