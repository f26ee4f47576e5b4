//! The logical content of an index, for comparing two stores of the same replication.
//!
//! Row ids and chunk numbers differ between stores, and so do the moments at which a server learnt
//! of a deletion. Rows are therefore joined through GUIDs and unique ids, and such moments become
//! "is set".

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

const QUERIES: [(&str, &str); 6] = [
    // The real backupd stores a message with every user that a request is about; of those who
    // are not concerned no mailbox holds it.
    (
        "message",
        "SELECT guid, partition, size FROM message \
         WHERE id IN (SELECT message_id FROM mailbox_message)",
    ),
    (
        "mailbox",
        "SELECT uniqueid, mboxname, mboxtype, last_uid, highestmodseq, recentuid, recenttime, \
         last_appenddate, pop3_last_login, pop3_show_after, uidvalidity, partition, acl, options, \
         sync_crc, sync_crc_annot, quotaroot, xconvmodseq, annotations, deleted IS NOT NULL \
         FROM mailbox",
    ),
    (
        "mailbox_message",
        "SELECT b.uniqueid, m.guid, l.uid, l.modseq, l.last_updated, l.flags, l.internaldate, \
         l.annotations, l.expunged IS NOT NULL \
         FROM mailbox_message l JOIN mailbox b ON b.id = l.mailbox_id \
         JOIN message m ON m.id = l.message_id",
    ),
    ("subscription", "SELECT mboxname, unsubscribed IS NOT NULL FROM subscription"),
    // Rows of cyrbk's own keep a chunk alive; see docs/format.md.
    (
        "seen",
        "SELECT uniqueid, lastread, lastuid, lastchange, seenuids FROM seen \
         WHERE uniqueid NOT LIKE 'cyrbk-%'",
    ),
    ("sieve", "SELECT filename, guid, last_update, deleted IS NOT NULL FROM sieve"),
];

/// Panics with the difference unless both indexes say the same, have the same tables and columns,
/// and the same schema version. Own tables of the server under test are named `cyrbk_...`; real
/// tools do not mind them. `label` names the user.
pub(crate) fn assert_same(label: &str, real: &Path, tested: &Path) {
    let [real_rows, tested_rows] = [real, tested].map(logical_rows);
    let missing: Vec<_> = real_rows.difference(&tested_rows).collect();
    let surplus: Vec<_> = tested_rows.difference(&real_rows).collect();
    if missing.is_empty() && surplus.is_empty() {
        return;
    }
    let mut text = format!("the index of {label} differs from the real backupd's\n");
    for row in missing {
        text += &format!("- {row}\n");
    }
    for row in surplus {
        text += &format!("+ {row}\n");
    }
    panic!("{text}(- real: {}, + tested: {})", real.display(), tested.display());
}

/// The number of rows of a table that are `condition`.
pub(crate) fn count(index: &Path, table: &str, condition: &str) -> i64 {
    let query = format!("SELECT count(*) FROM {table} WHERE {condition}");
    open(index).query_row(&query, [], |row| row.get(0)).unwrap()
}

/// Every logical row and every column definition as one line of text.
fn logical_rows(index: &Path) -> BTreeSet<String> {
    let connection = open(index);
    let mut rows = BTreeSet::new();
    let mut collect = |name: &str, query: &str| {
        let mut statement = connection.prepare(query).unwrap();
        let width = statement.column_count();
        let mut found = statement.query([]).unwrap();
        while let Some(row) = found.next().unwrap() {
            let values = (0..width).map(|column| shown(row.get_ref(column).unwrap()));
            let line = format!("{name}: {}", values.collect::<Vec<_>>().join(" | "));
            // A set would hide a row that is there twice.
            let mut unique = line.clone();
            for copy in 2.. {
                if rows.insert(unique) {
                    break;
                }
                unique = format!("{line} (row {copy})");
            }
        }
    };
    for (table, query) in QUERIES {
        collect(table, query);
    }
    collect("version", "PRAGMA user_version");
    collect(
        "column",
        "SELECT t.name, c.cid, c.name, c.type, c.\"notnull\", c.pk \
         FROM sqlite_master t, pragma_table_info(t.name) c \
         WHERE t.type = 'table' AND t.name NOT LIKE 'cyrbk~_%' ESCAPE '~'",
    );
    collect(
        "named index",
        "SELECT name, tbl_name FROM sqlite_master WHERE type = 'index' \
         AND tbl_name NOT LIKE 'cyrbk~_%' ESCAPE '~'
         -- Columns that are UNIQUE have an index already.
         AND name NOT IN ('idx_msg_guid', 'idx_bmb_uid', 'idx_sub_mbx', 'idx_seen_unq')",
    );
    rows
}

/// Types show: real tools insist on INTEGER or TEXT. Text need not be UTF-8.
fn shown(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".into(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Text(text) => format!("\"{}\"", text.escape_ascii()),
        other => format!("{other:?}"),
    }
}

fn open(index: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(index, flags)
        .unwrap_or_else(|error| panic!("{}: {error}", index.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = "
        CREATE TABLE message(id INTEGER PRIMARY KEY, guid, partition, size);
        CREATE TABLE mailbox(id INTEGER PRIMARY KEY, uniqueid, mboxname, mboxtype, last_uid,
            highestmodseq, recentuid, recenttime, last_appenddate, pop3_last_login,
            pop3_show_after, uidvalidity, partition, acl, options, sync_crc, sync_crc_annot,
            quotaroot, xconvmodseq, annotations, deleted);
        CREATE TABLE mailbox_message(id INTEGER PRIMARY KEY, mailbox_id, message_id, uid, modseq,
            last_updated, flags, internaldate, annotations, expunged);
        CREATE TABLE subscription(mboxname, unsubscribed);
        CREATE TABLE seen(uniqueid, lastread, lastuid, lastchange, seenuids);
        CREATE TABLE sieve(filename, guid, last_update, deleted);";

    fn rows_of(sql: &str) -> BTreeSet<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let connection = Connection::open(file.path()).unwrap();
        connection.execute_batch(&format!("{SCHEMA}{sql}")).unwrap();
        drop(connection);
        logical_rows(file.path())
    }

    #[test]
    fn ids_and_times_do_not_count() {
        let one = "INSERT INTO message VALUES (1, 'g1', 'p', 5), (2, 'g2', 'p', 6);
            INSERT INTO mailbox(id, uniqueid, deleted) VALUES (1, 'u', 100);
            INSERT INTO mailbox_message(mailbox_id, message_id, uid) VALUES (1, 2, 9);";
        let other = "INSERT INTO message VALUES (7, 'g2', 'p', 6), (8, 'g1', 'p', 5);
            INSERT INTO mailbox(id, uniqueid, deleted) VALUES (4, 'u', 200);
            INSERT INTO mailbox_message(mailbox_id, message_id, uid) VALUES (4, 7, 9);";
        assert_eq!(rows_of(one), rows_of(other));
    }

    #[test]
    fn values_types_and_counts_do() {
        let base = "INSERT INTO subscription VALUES ('a', NULL);";
        for other in [
            "",
            "INSERT INTO subscription VALUES ('a', 1);",
            "INSERT INTO subscription VALUES ('b', NULL);",
            "INSERT INTO subscription VALUES (x'61', NULL);",
            "INSERT INTO subscription VALUES ('a', NULL), ('a', NULL);",
            "INSERT INTO subscription VALUES ('a', NULL); PRAGMA user_version = 3;",
            "INSERT INTO subscription VALUES ('a', NULL); ALTER TABLE seen ADD COLUMN x;",
        ] {
            assert_ne!(rows_of(base), rows_of(other), "{other}");
        }
    }
}
