//! Cyrus's tables, and what to do with each version of them.

use std::collections::HashSet;

use rusqlite::Connection;

use super::Open;

/// Version stamped on a new index. Its tables are those of version 4; Cyrus has
/// stamped 3 on them since 3.0.0-beta5, and only 3 is left alone by every
/// release.
const VERSION: i64 = 3;
/// Newest version that is understood.
pub(super) const VERSION_MAX: i64 = 4;

/// A reader can do without the others, which older versions did not have.
pub(super) const NEEDED_TABLES: [&str; 4] = ["chunk", "message", "mailbox", "mailbox_message"];

/// The tables that every index must have, with the indexes that are of use. Cyrus also makes a
/// second index of each of four columns that are `UNIQUE`, and so have one: it goes on with
/// whichever there are, and they are a sixth of its file.
const TABLES: [(&str, &str); 7] = [
    (
        "chunk",
        "CREATE TABLE chunk( id INTEGER PRIMARY KEY ASC, ts_start INTEGER, ts_end INTEGER, \
         offset INTEGER unique, length INTEGER, file_sha1 TEXT, data_sha1 TEXT );",
    ),
    (
        "message",
        "CREATE TABLE message( id INTEGER PRIMARY KEY ASC, guid CHAR UNIQUE NOT NULL, partition \
         CHAR, chunk_id INTEGER REFERENCES chunk(id), offset INTEGER, size INTEGER );",
    ),
    (
        "mailbox",
        "CREATE TABLE mailbox( id INTEGER PRIMARY KEY ASC, last_chunk_id INTEGER NOT NULL \
         REFERENCES chunk(id), uniqueid CHAR UNIQUE NOT NULL, mboxname CHAR NOT NULL, mboxtype \
         CHAR, last_uid INTEGER, highestmodseq INTEGER, recentuid INTEGER, recenttime INTEGER, \
         last_appenddate INTEGER, pop3_last_login INTEGER, pop3_show_after INTEGER, uidvalidity \
         INTEGER, partition CHAR, acl CHAR, options CHAR, sync_crc INTEGER, sync_crc_annot \
         INTEGER, quotaroot CHAR, xconvmodseq INTEGER, annotations CHAR, deleted INTEGER );",
    ),
    (
        "mailbox_message",
        "CREATE TABLE mailbox_message( id INTEGER PRIMARY KEY ASC, mailbox_id INTEGER NOT NULL \
         REFERENCES mailbox(id), message_id INTEGER NOT NULL REFERENCES message(id), \
         last_chunk_id INTEGER NOT NULL REFERENCES chunk(id), uid INTEGER NOT NULL, modseq \
         INTEGER, last_updated INTEGER, flags CHAR, internaldate INTEGER, annotations CHAR, \
         expunged INTEGER, UNIQUE (mailbox_id, message_id) );
         CREATE INDEX IF NOT EXISTS idx_mbr_uid ON mailbox_message(uid);",
    ),
    (
        "subscription",
        "CREATE TABLE subscription( id INTEGER PRIMARY KEY ASC, last_chunk_id INTEGER NOT NULL \
         REFERENCES chunk(id), mboxname CHAR UNIQUE NOT NULL, unsubscribed INTEGER );",
    ),
    (
        "seen",
        "CREATE TABLE seen( id INTEGER PRIMARY KEY ASC, last_chunk_id INTEGER NOT NULL \
         REFERENCES chunk(id), uniqueid CHAR UNIQUE NOT NULL, lastread INTEGER, lastuid INTEGER, \
         lastchange INTEGER, seenuids CHAR );",
    ),
    (
        "sieve",
        "CREATE TABLE sieve( id INTEGER PRIMARY KEY ASC, chunk_id INTEGER NOT NULL REFERENCES \
         chunk(id), last_update INTEGER, filename CHAR NOT NULL, guid CHAR NOT NULL, offset \
         INTEGER, deleted INTEGER );
         CREATE INDEX IF NOT EXISTS idx_siv_fn ON sieve(filename);",
    ),
];

/// What is wrong with an index.
#[derive(Debug, thiserror::Error)]
pub(super) enum SchemaError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("index version {0} is newer than the newest known, {VERSION_MAX}")]
    Newer(i64),
    #[error("tables of a backup, but no version: rebuild it with `ctl_backups reindex`")]
    NoVersion,
    #[error("it has no table `{0}`: rebuild it with `ctl_backups reindex`")]
    NoTable(&'static str),
    #[error("it is empty: rebuild it with `ctl_backups reindex`")]
    Empty,
}

/// Makes the tables of a new index, adds those that an old version lacks (when
/// writing), and refuses what is not understood.
pub(super) fn prepare(db: &Connection, mode: Open) -> Result<(), SchemaError> {
    let (version, present) = look(db)?;
    if version > VERSION_MAX {
        return Err(SchemaError::Newer(version));
    }
    let missing: Vec<_> = TABLES.iter().filter(|(name, _)| !present.contains(*name)).collect();
    match (version, mode) {
        (0, _) if missing.len() < TABLES.len() => Err(SchemaError::NoVersion),
        (0, Open::Read | Open::Write) => Err(SchemaError::Empty),
        (_, Open::Read) => match missing.first() {
            Some((name, _)) if NEEDED_TABLES.contains(name) => Err(SchemaError::NoTable(name)),
            _ => Ok(()),
        },
        _ if missing.is_empty() && version >= VERSION && has_own_tables(&present) => Ok(()),
        _ => {
            let is_new = missing.len() == TABLES.len();
            let mut script = String::new();
            missing.iter().for_each(|(_, sql)| script.push_str(sql));
            if version < VERSION {
                script.push_str(&format!("PRAGMA user_version = {VERSION};"));
            }
            // Nothing is lost with a new index that a power cut breaks.
            if is_new {
                db.execute_batch("PRAGMA synchronous = OFF")?;
            }
            db.execute_batch(&format!("BEGIN IMMEDIATE; {script}"))?;
            own_tables(db)?;
            db.execute_batch("COMMIT")?;
            if mode == Open::Build {
                return Ok(());
            }
            if is_new {
                // One sync for all of it, before anything is promised: what is left of it is
                // an index, for whoever reads it before the first session was committed.
                db.execute_batch(&format!(
                    "PRAGMA journal_mode = MEMORY; PRAGMA synchronous = NORMAL;
                     PRAGMA user_version = {VERSION}; PRAGMA journal_mode = DELETE;"
                ))?;
            }
            Ok(db.execute_batch("PRAGMA synchronous = FULL")?)
        }
    }
}

/// The version and the names of all tables, in one transaction: each statement by itself would
/// lock the file and look at it anew.
fn look(db: &Connection) -> rusqlite::Result<(i64, HashSet<String>)> {
    let transaction = db.unchecked_transaction()?;
    let version = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    // A state that lacks the column which came later is made, or completed, as if it were not
    // there.
    let mut statement = db.prepare(
        "SELECT name FROM sqlite_master WHERE type = 'table'
         AND (name <> 'cyrbk_state' OR sql LIKE '%mtime%')",
    )?;
    let names = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    drop(statement);
    transaction.commit()?;
    Ok((version, names))
}

/// The tables that [`own_tables`] makes.
const OWN_TABLES: [&str; 11] = [
    "cyrbk_active_sieve",
    "cyrbk_annotation",
    "cyrbk_compacted",
    "cyrbk_doubt",
    "cyrbk_gone",
    "cyrbk_mailbox",
    "cyrbk_needed",
    "cyrbk_quota",
    "cyrbk_record",
    "cyrbk_restart",
    "cyrbk_state",
];

fn has_own_tables(present: &HashSet<String>) -> bool {
    OWN_TABLES.iter().all(|name| present.contains(*name))
}

fn own_tables(db: &Connection) -> Result<(), SchemaError> {
    super::state::create(db)?;
    super::truth::create(db)?;
    super::gone::create(db)?;
    super::own::create(db)?;
    super::doubt::create(db)?;
    super::needed::create(db)?;
    super::restart::create(db)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_own_table_is_looked_for() {
        let db = Connection::open_in_memory().unwrap();
        prepare(&db, Open::Create).unwrap();
        let (version, mut present) = look(&db).unwrap();
        assert_eq!(version, VERSION);
        present.retain(|name| name.starts_with("cyrbk_"));
        assert_eq!(present, OWN_TABLES.map(str::to_owned).into());
    }

    #[test]
    fn a_state_of_an_older_version_is_completed() {
        let db = Connection::open_in_memory().unwrap();
        prepare(&db, Open::Create).unwrap();
        db.execute_batch("ALTER TABLE cyrbk_state DROP COLUMN mtime").unwrap();
        prepare(&db, Open::Read).unwrap();
        assert!(!db.column_exists(None, "cyrbk_state", "mtime").unwrap());
        prepare(&db, Open::Write).unwrap();
        assert!(db.column_exists(None, "cyrbk_state", "mtime").unwrap());
        assert!(has_own_tables(&look(&db).unwrap().1));
    }

    #[test]
    fn a_lacking_table_is_added_to_an_index_in_use() {
        let db = Connection::open_in_memory().unwrap();
        prepare(&db, Open::Create).unwrap();
        db.execute_batch("DROP TABLE cyrbk_doubt; DROP TABLE seen; PRAGMA user_version = 2")
            .unwrap();
        prepare(&db, Open::Read).unwrap();
        prepare(&db, Open::Write).unwrap();
        let (version, present) = look(&db).unwrap();
        assert_eq!(version, VERSION);
        assert!(present.contains("cyrbk_doubt") && present.contains("seen"));
        let synchronous: i64 = db.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap();
        assert_eq!(synchronous, 2, "a commit survives a power cut");
    }
}
