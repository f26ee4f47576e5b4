//! What to do at open with data that the index does not know.
//!
//! Complete members beyond the index are indexed. So is every complete line of a
//! torn last member: the member is ended properly, and only the octets after its
//! last complete line are cut, after they were kept in a file beside. Damage that
//! is followed by good members is left where it is and passed over.
//!
//! Every step can be cut short and is then done again at the next open.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use sha1::{Digest, Sha1};

use super::backup::with_suffix;
use super::chunk::MemberError;
use super::data_file::{DataFile, sync_directory_of};
use super::error::{Result, StoreError};
use super::file_hash::FileHash;
use super::index::{ChunkRow, Index, Position, State};
use super::log::{LogError, LogReader, NoBodies};
use super::torn;
use crate::wire::apply::Apply;

/// Brings the index up to the end of `file`, and the end of `file` into order.
/// Returns the file ready for appending, and the newest time stamp in it.
pub(super) fn take_in(file: File, path: &Path, index: &Index, now: i64) -> Result<(DataFile, i64)> {
    let len = file.metadata().map_err(StoreError::io(path))?.len();
    let state = index.state().map_err(StoreError::index(path))?;
    let last = index.last_chunk().map_err(StoreError::index(path))?;
    let last_ts = last.as_ref().map_or(0, |chunk| chunk.ts_end.max(chunk.ts_start));
    let mut scan = Scan { file, path, index, hash: FileHash::default(), last_ts, now };
    let accounted = scan.accounted(state, last.as_ref(), len)?;
    let is_foreign = last.is_some_and(|chunk| state.is_none_or(|s| chunk.offset >= s.len_file));
    if is_foreign {
        scan.rebuild_truth(accounted)?;
    }
    if accounted < len {
        scan.take_in_tail(accounted, len)?;
    }
    scan.hash.update_from(&scan.file, scan.len()?).map_err(StoreError::io(path))?;
    Ok((DataFile::new(scan.file, path.to_owned(), scan.hash), scan.last_ts))
}

struct Scan<'a> {
    file: File,
    path: &'a Path,
    index: &'a Index,
    hash: FileHash,
    last_ts: i64,
    now: i64,
}

impl Scan<'_> {
    fn len(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(StoreError::io(self.path))?.len())
    }

    /// The end of what the index speaks for.
    fn accounted(
        &mut self,
        state: Option<State>,
        last: Option<&ChunkRow>,
        len: u64,
    ) -> Result<u64> {
        let state = state.filter(|state| state.checkpoint.hashed <= state.len_file);
        let end = state.as_ref().map_or(0, |state| state.len_file);
        if end > len {
            return Err(self.inconsistent(format!(
                "the index speaks for {end} octets, the file has {len}: restore the data file or \
                 rebuild the index with `ctl_backups reindex`"
            )));
        }
        if let Some(state) = state {
            self.hash = FileHash::resume(state.checkpoint);
        }
        match last {
            // Written by Cyrus after, or without, us: trust only what fits.
            Some(chunk) if chunk.offset >= end => self.check_chunk(chunk),
            _ => Ok(end),
        }
    }

    /// Checks the file in front of a chunk and the chunk itself against its row,
    /// and returns the chunk's end.
    fn check_chunk(&mut self, chunk: &ChunkRow) -> Result<u64> {
        if chunk.offset > self.len()? {
            return Err(self.inconsistent(format!(
                "chunk {} begins at offset {}, behind the end of the file",
                chunk.id, chunk.offset
            )));
        }
        self.hash.update_from(&self.file, chunk.offset).map_err(StoreError::io(self.path))?;
        let found = self.hash.hex();
        if found != chunk.file_sha1 {
            return Err(self.inconsistent(format!(
                "file checksum mismatch for chunk {}: {found} on disk, {} in index",
                chunk.id, chunk.file_sha1
            )));
        }
        let (end, length, data_sha1) = totals(&self.file, chunk.offset)
            .map_err(LogError::Member)
            .map_err(StoreError::log(self.path))?;
        if (length, &data_sha1) != (chunk.length, &chunk.data_sha1) {
            return Err(self.inconsistent(format!(
                "chunk {} does not match its index: {length} octets {data_sha1} on disk, {} \
                 octets {} in index",
                chunk.id, chunk.length, chunk.data_sha1
            )));
        }
        Ok(end)
    }

    /// Cyrus has written to this index: what its tables cannot say is found out from
    /// all data up to `end`.
    fn rebuild_truth(&mut self, end: u64) -> Result<()> {
        let fault = || StoreError::index(self.path);
        let scratch = Index::scratch().map_err(fault())?;
        let file = self.file.try_clone().map_err(StoreError::io(self.path))?;
        let hash = FileHash::default();
        let mut replay =
            Scan { file, path: self.path, index: &scratch, hash, last_ts: 0, now: self.now };
        scratch.begin().map_err(fault())?;
        let mut at = 0;
        while at < end {
            at = match replay.member(at)? {
                Member::Complete { end } => end,
                Member::Broken { .. } => torn::next_member(&self.file, at + 1, end)
                    .map_err(StoreError::io(self.path))?
                    .unwrap_or(end),
            };
        }
        self.hash.update_from(&self.file, end).map_err(StoreError::io(self.path))?;
        let state = State { len_file: end, checkpoint: self.hash.checkpoint() };
        (|| {
            self.index.begin()?;
            self.index.take_truth_from(&scratch)?;
            self.index.set_state(&state)?;
            self.index.commit()
        })()
        .map_err(fault())
    }

    /// Indexes what lies between `at` and `len`, in one transaction that is
    /// committed after the file was synced.
    fn take_in_tail(&mut self, mut at: u64, len: u64) -> Result<()> {
        tracing::info!(file = %self.path.display(), offset = at, octets = len - at,
            "data beyond the index: taking them in");
        self.index.begin().map_err(StoreError::index(self.path))?;
        while at < self.len()? {
            at = match self.member(at)? {
                Member::Complete { end } => end,
                Member::Broken { what } => match torn::next_member(&self.file, at + 1, len)
                    .map_err(StoreError::io(self.path))?
                {
                    Some(next) => {
                        tracing::error!(file = %self.path.display(), offset = at, until = next,
                            %what, "damaged data passed over");
                        next
                    }
                    None => self.mend_last(at, &what)?,
                },
            };
        }
        self.file.sync_data().map_err(StoreError::io(self.path))?;
        self.hash.update_from(&self.file, self.len()?).map_err(StoreError::io(self.path))?;
        let state = State { len_file: self.hash.len(), checkpoint: self.hash.checkpoint() };
        self.index
            .set_state(&state)
            .and_then(|()| self.index.commit())
            .map_err(StoreError::index(self.path))
    }

    /// Indexes the member at `at`, if it is complete.
    fn member(&mut self, at: u64) -> Result<Member> {
        // First a look without effect: a row is made only for what is whole.
        let (end, length, data_sha1) = match totals(&self.file, at) {
            Ok(totals) => totals,
            Err(MemberError::Io { source, .. }) => return Err(StoreError::io(self.path)(source)),
            Err(e) => return Ok(Member::Broken { what: e.to_string() }),
        };
        self.hash.update_from(&self.file, at).map_err(StoreError::io(self.path))?;
        let file_sha1 = self.hash.hex();
        let mut chunk = None;
        let mut reader = LogReader::open(&self.file, at).map_err(StoreError::log(self.path))?;
        loop {
            let line = match reader.next_line(&mut NoBodies) {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(e) => {
                    tracing::error!(file = %self.path.display(), member = at, error = %e,
                        "rest of the chunk is not readable");
                    break;
                }
            };
            let id = match chunk {
                Some(id) => id,
                None => {
                    let id = self.index.start_chunk(line.ts, at, &file_sha1);
                    *chunk.insert(id.map_err(StoreError::index(self.path))?)
                }
            };
            self.last_ts = self.last_ts.max(line.ts);
            let position = Position { chunk_id: id, ts: line.ts, offset: line.offset };
            self.index_line(&line, position)?;
        }
        if let Some(id) = chunk {
            self.index
                .end_chunk(id, self.last_ts, length, &data_sha1)
                .map_err(StoreError::index(self.path))?;
        }
        Ok(Member::Complete { end })
    }

    /// A line that cannot be indexed was refused when it came in; Cyrus leaves
    /// such lines in the file.
    fn index_line(&self, line: &super::log::LogLine, at: Position) -> Result<()> {
        let (name, value) = match line.item() {
            Ok(item) => item,
            Err(e) => {
                tracing::warn!(file = %self.path.display(), error = %e, "line passed over");
                return Ok(());
            }
        };
        match Apply::read(&name, &value) {
            Ok(apply) => self.index.apply(at, &apply).map_err(StoreError::index(self.path)),
            Err(reject) => {
                tracing::warn!(file = %self.path.display(), offset = line.offset, %reject,
                    "line passed over");
                Ok(())
            }
        }
    }

    /// Ends a torn last member behind its last complete line, or takes it away if it
    /// holds none. Returns where to go on: at the mended member, or its end.
    fn mend_last(&mut self, at: u64, what: &str) -> Result<u64> {
        let io = |path: &Path| StoreError::io(path.to_owned());
        let len = self.len()?;
        let kept = torn::last_complete_line(&self.file, at, len).map_err(io(self.path))?;
        let cut = kept.as_ref().map_or(at, |kept| kept.end);
        tracing::warn!(file = %self.path.display(), member = at, cut, octets = len - cut, %what,
            "torn member: keeping its complete lines");
        self.keep_aside(cut, len).map_err(io(self.path))?;
        self.file.set_len(cut).map_err(io(self.path))?;
        if let Some(kept) = kept {
            // The file is in append mode.
            (&self.file).write_all(&kept.trailer()).map_err(io(self.path))?;
        }
        self.file.sync_data().map_err(io(self.path))?;
        Ok(at.min(self.len()?))
    }

    /// Copies what is about to be cut to a file beside the data file.
    fn keep_aside(&self, from: u64, to: u64) -> io::Result<()> {
        if from == to {
            return Ok(());
        }
        let path = with_suffix(self.path, &format!(".cut.{}.{from}", self.now));
        let mut aside =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let mut buffer = vec![0; 1 << 16];
        let mut at = from;
        while at < to {
            let want = (to - at).min(buffer.len() as u64) as usize;
            let got = self.file.read_at(&mut buffer[..want], at)?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            aside.write_all(&buffer[..got])?;
            at += got as u64;
        }
        aside.sync_all()?;
        sync_directory_of(&path)
    }

    fn inconsistent(&self, what: String) -> StoreError {
        StoreError::Inconsistent { path: self.path.to_owned(), what }
    }
}

enum Member {
    Complete { end: u64 },
    Broken { what: String },
}

/// End in the file, inflated length and SHA-1 of a complete member.
pub(super) fn totals(
    file: &File,
    offset: u64,
) -> std::result::Result<(u64, u64, String), MemberError> {
    let mut reader = super::chunk::MemberReader::open(file, offset)?;
    let mut sha1 = Sha1::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            len => sha1.update(&buffer[..len]),
        }
    }
    let digest = crate::wire::Guid::from(<[u8; 20]>::from(sha1.finalize()));
    Ok((reader.offset_file(), reader.len_plain(), digest.to_string()))
}
