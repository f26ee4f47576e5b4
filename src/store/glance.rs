//! What a listing tells of a backup, for as little as possible.
//!
//! Under the lock under which [`Backup::open`] reads. Of a backup that is in order two rows of the
//! index are read; anything else is opened as ever, which sets it right or says what is wrong.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::backup::{Backup, index_path, with_suffix};
use super::data_file;
use super::disk::Disk;
use super::error::{Result, StoreError};
use super::index::{ChunkRow, last_rows};
use super::verify::{self, LastChunk, Sink};
use crate::lock::Wait;

/// A backup that is being looked at. Its lock is held until this is dropped.
pub struct Glance(Seen);

enum Seen {
    InOrder(InOrder),
    Opened(Box<Backup>),
}

struct InOrder {
    path: PathBuf,
    file: File,
    len_file: u64,
    last_chunk: Option<ChunkRow>,
    is_trusted: bool,
}

impl Glance {
    /// Looks at the backup at `path`, under its exclusive lock. Errors: those of
    /// [`Backup::open`].
    pub fn open(path: &Path, wait: Wait) -> Result<Glance> {
        let (file, _) = data_file::open_to_read(path, wait).map_err(StoreError::lock(path))?;
        if let Some(seen) = in_order(path, file).map_err(StoreError::io(path))? {
            return Ok(Glance(Seen::InOrder(seen)));
        }
        Ok(Glance(Seen::Opened(Box::new(Backup::open(path, wait)?))))
    }

    /// Checks the last chunk, see [`verify::quick`].
    pub fn check(&self, sink: &mut Sink<'_>) -> Result<bool> {
        let seen = match &self.0 {
            Seen::Opened(backup) => return verify::quick(backup, sink),
            Seen::InOrder(seen) => seen,
        };
        let Some(chunk) = &seen.last_chunk else { return Ok(true) };
        let InOrder { path, file, len_file, is_trusted, .. } = seen;
        let last = LastChunk { chunk, len_file: *len_file, is_trusted: *is_trusted };
        verify::last_chunk(path, file, &last, sink)
    }

    /// Octets of the data file.
    pub fn len_file(&self) -> Result<u64> {
        match &self.0 {
            Seen::InOrder(seen) => Ok(seen.len_file),
            Seen::Opened(backup) => backup.len_file(),
        }
    }

    /// When the last chunk ended, Unix time; `None` if there is none.
    pub fn ts_end(&self) -> Result<Option<i64>> {
        match &self.0 {
            Seen::InOrder(seen) => Ok(seen.last_chunk.as_ref().map(|chunk| chunk.ts_end)),
            Seen::Opened(backup) => {
                let last = backup.index().last_chunk().map_err(StoreError::index(backup.path()))?;
                Ok(last.map(|chunk| chunk.ts_end))
            }
        }
    }
}

/// `None` if there is something to be set right, or to be noted in the index.
fn in_order(path: &Path, file: File) -> std::io::Result<Option<InOrder>> {
    if with_suffix(path, ".index.new").exists() {
        return Ok(None);
    }
    let Some(rows) = last_rows(&index_path(path)) else { return Ok(None) };
    let data = file.look()?;
    let is_behind = match &rows.state {
        Some(state) => state.len_file != data.len,
        None => rows.is_ours && rows.last_chunk.is_none() && data.len > 0,
    };
    let is_trusted = rows.state.is_some_and(|state| state.fits(&data));
    if is_behind || (!is_trusted && data.len >= verify::WORTH_NOTING) {
        return Ok(None);
    }
    let last_chunk = rows.last_chunk;
    let path = path.to_owned();
    Ok(Some(InOrder { path, file, len_file: data.len, last_chunk, is_trusted }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::staging::Staging;
    use crate::store::{Line, Writer};
    use crate::wire::apply::Apply;
    use crate::wire::dlist::parse_item;

    fn writer_with_a_line(path: &Path, now: i64) -> Writer {
        let text = b"SUB %(USERID tom MBOXNAME user.tom)";
        let (name, value) = parse_item(text).unwrap();
        let apply = Apply::read(&name, &value).unwrap();
        let mut writer = Writer::open(path, now).unwrap();
        let line = Line { text, body_at: &[], bodies: &[], apply: &apply };
        writer.append(now, &line, &Staging::new(path.with_extension("staging"))).unwrap();
        writer
    }

    /// What is seen, and whether at a glance.
    fn look(path: &Path) -> (u64, Option<i64>, bool) {
        let seen = Glance::open(path, Wait::No).unwrap();
        assert!(seen.check(&mut |_| {}).unwrap());
        assert!(matches!(Glance::open(path, Wait::No), Err(StoreError::Locked(_))));
        let is_in_order = matches!(seen.0, Seen::InOrder(_));
        (seen.len_file().unwrap(), seen.ts_end().unwrap(), is_in_order)
    }

    #[test]
    fn what_is_in_order_is_glanced_at_and_what_is_not_is_set_right() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let len = || std::fs::metadata(&path).unwrap().len();
        assert!(matches!(Glance::open(&path, Wait::No), Err(StoreError::Missing(_))));
        // A user who never sent anything has no index, and gets one.
        std::fs::write(&path, "").unwrap();
        assert_eq!(look(&path), (0, None, false));
        assert_eq!(look(&path), (0, None, true));
        writer_with_a_line(&path, 1_000).finish(1_001).unwrap();
        assert_eq!(look(&path), (len(), Some(1_001), true));
        // Lines that a killed server has left are taken in.
        drop(writer_with_a_line(&path, 2_000));
        assert_eq!(look(&path), (len(), Some(2_000), false));
        assert_eq!(look(&path), (len(), Some(2_000), true));
        std::fs::copy(index_path(&path), with_suffix(&path, ".index.new")).unwrap();
        assert_eq!(look(&path), (len(), Some(2_000), false));
        std::fs::write(index_path(&path), "").unwrap();
        assert!(matches!(Glance::open(&path, Wait::No), Err(StoreError::NoIndex(_))));
    }

    #[test]
    fn a_backup_of_cyrus_is_seen_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (source, path) = ("tests/fixtures/backups/main/two/b/bob_5xHD5K", dir.path().join("d"));
        std::fs::copy(source, &path).unwrap();
        std::fs::copy(format!("{source}.index"), index_path(&path)).unwrap();
        let last = Backup::open(&path, Wait::No).unwrap().index().last_chunk().unwrap().unwrap();
        let len = std::fs::metadata(&path).unwrap().len();
        assert_eq!(look(&path), (len, Some(last.ts_end), true));
        // Damage in front of the last chunk.
        let mut octets = std::fs::read(&path).unwrap();
        octets[last.offset as usize - 9] ^= 1;
        std::fs::write(&path, octets).unwrap();
        let seen = Glance::open(&path, Wait::No).unwrap();
        assert!(!seen.check(&mut |_| {}).unwrap());
    }
}
