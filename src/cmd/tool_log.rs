//! What tools tell syslog: Cyrus's own lines, for whoever watches for them.

use std::io;
use std::path::Path;

use crate::store::StoreError;
use crate::store::backup::index_path;
use crate::store::index::IndexError;
use crate::sync::server::NOTICE;
use crate::wire::dlist::lossy;

/// That a backup cannot be opened. Of backups that are missing or in use nothing is said.
pub(super) fn store_error(error: &StoreError) {
    match error {
        StoreError::NoIndex(path) => tracing::error!(
            "IOERROR: reindex needed: filename=<{}> syserror=<No such file or directory> \
             func=<backup_real_open>",
            index_path(path).display()
        ),
        StoreError::Index { path, source } => {
            let (what, error) = match source {
                IndexError::Unusable { what, .. } => ("get user version failed", what.clone()),
                error => ("query failed", error.to_string()),
            };
            let index = index_path(path);
            let index = index.display();
            tracing::error!("DBERROR: {what}: fname=<{index}> error=<{error}> func=<sqldb_open>");
        }
        StoreError::Io { path, source } if source.kind() != io::ErrorKind::NotFound => {
            tracing::error!("IOERROR: {}: {source}", path.display());
        }
        StoreError::Log { path, source } => {
            tracing::error!("IOERROR: {}: {source}", path.display());
        }
        _ => {}
    }
}

/// That an index is made.
pub(super) fn creating_index(index: &Path) {
    tracing::info!(target: NOTICE, "creating sql_db {}", index.display());
}

/// That a chunk cannot be read: its offset in the file, and that in its text.
pub(super) fn unreadable(path: &Path, offset_file: u64, offset_plain: u64) {
    tracing::error!(
        "IOERROR: {}: error reading chunk at offset {offset_file}, byte {offset_plain}: \
         Input/output error",
        path.display()
    );
}

/// Why `cyr_backup` ends; the text that stands on standard error.
pub(super) fn backup_error(label: &[u8], text: &str) {
    tracing::error!("backup error {}: {text}", lossy(label));
}

/// That a deep check has found faults.
pub(super) fn faults(label: &[u8], status: &str) {
    tracing::error!("verify {}: {status}", lossy(label));
}
