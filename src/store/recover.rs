//! What to do at open with data that the index does not know, and with an index
//! that knows other data.
//!
//! The data file is the log, the index can be built from it: so an index that does
//! not fit is put aside and built again, from whatever is there. Complete members beyond
//! the index are entered. So is every complete line of a torn last member: the member
//! is ended properly, and only the octets after its last complete line are cut, after
//! they were kept in a file beside. Damage that is followed by good members stays
//! where it is; the lines in front of it are entered.
//!
//! Every step can be cut short and is then done again at the next open.
//! `docs/durability.md` lists the states that are met.

mod mend;

use std::io;
use std::path::Path;

use super::aside;
use super::backup::{index_path, with_suffix};
use super::chunk::MemberError;
use super::compact::complete_interrupted;
use super::data_file::{DataFile, sync_directory_of};
use super::disk::Disk;
use super::error::{Result, StoreError};
use super::file_hash::FileHash;
use super::index::{ChunkRow, Index, IndexError, Open, RestartPoint, State};
use super::replay::{self, Replay, Stretch};
use crate::lock::{self, Kind, Wait};
use mend::Mending;

/// A backup ready for appending: the index accounts for every octet of the file.
pub(super) struct Ready {
    pub(super) data: DataFile,
    pub(super) index: Index,
    /// Newest time stamp in the file, Unix time.
    pub(super) last_ts: i64,
    /// All of the file is as it was when it was hashed, see [`State`].
    pub(super) is_trusted: bool,
    /// What the index can say of a file that it knew by another inode number. Without that note
    /// all of the file is hashed again at the next open.
    pub(super) moved: Option<State>,
}

/// How data are taken in.
pub(super) struct Taking<'t> {
    /// Unix time.
    pub(super) now: i64,
    /// The file's octets in front of this are known to survive a power cut.
    pub(super) durable: u64,
    /// Restart points that an index which was there before has, in the order of the file.
    pub(super) known: &'t [RestartPoint],
    /// Is told of every stretch that is taken in.
    pub(super) told: &'t mut dyn FnMut(Stretch),
}

/// Brings data file and index of `path` into step, whatever state they are in.
/// The lock is held through `disk`.
pub(super) fn open(disk: Box<dyn Disk>, path: &Path, now: i64) -> Result<Ready> {
    let taking = &mut Taking { now, durable: 0, known: &[], told: &mut |_| {} };
    complete_interrupted(path, &*disk)?;
    let fitted =
        open_index(path).and_then(|index| Ok((take_in(&*disk, path, &index, taking)?, index)));
    let ready = match fitted {
        Ok((Fit::Fits(accounted), index)) => accounted.ready(disk, path, index),
        Ok((Fit::Misfit(what), index)) => {
            drop(index);
            rebuild(disk, path, &what, taking)?
        }
        Err(StoreError::Index { source, .. }) if source.is_damage() => {
            rebuild(disk, path, &source.to_string(), taking)?
        }
        Err(e) => return Err(e),
    };
    drop_unfinished_compaction(path);
    Ok(ready)
}

/// Builds an index of all that is there, at `new`, where there is none.
pub(super) fn build_index(
    disk: &dyn Disk,
    path: &Path,
    new: &Path,
    taking: &mut Taking<'_>,
) -> Result<()> {
    let index = Index::open(new, Open::Create).map_err(StoreError::index(path))?;
    match take_in(disk, path, &index, taking)? {
        Fit::Fits(_) => Ok(()),
        Fit::Misfit(what) => Err(StoreError::Inconsistent { path: path.to_owned(), what }),
    }
}

/// Enters what the index does not know, for a reader: `index` is one that cyrbk wrote.
/// What does not fit is left to whoever opens the backup for writing.
pub(super) fn take_in_for_reader(
    disk: &dyn Disk,
    path: &Path,
    index: &Index,
    now: i64,
) -> Result<()> {
    let len = disk.len_file().map_err(StoreError::io(path))?;
    let known = known_to_ours(index).map_err(StoreError::index(path))?;
    if known.is_none_or(|known| known == len) {
        return Ok(());
    }
    let mut taking = Taking { now, durable: 0, known: &[], told: &mut |_| {} };
    match take_in(disk, path, index, &mut taking)? {
        Fit::Fits(_) => Ok(()),
        Fit::Misfit(what) => Err(StoreError::Inconsistent { path: path.to_owned(), what }),
    }
}

/// Whether an index that cyrbk wrote does not speak for all data, so that
/// [`take_in_for_reader`] has something to do.
pub(super) fn is_behind(disk: &dyn Disk, path: &Path, index: &Index) -> Result<bool> {
    let len = disk.len_file().map_err(StoreError::io(path))?;
    let known = known_to_ours(index).map_err(StoreError::index(path))?;
    Ok(known.is_some_and(|known| known != len))
}

/// Octets that an index of cyrbk's own speaks for: none if its first session was never
/// finished. `None` for an index of Cyrus's.
fn known_to_ours(index: &Index) -> std::result::Result<Option<u64>, IndexError> {
    index.at_once(|index| match index.state()? {
        Some(state) => Ok(Some(state.len_file)),
        None if index.is_ours()? && index.last_chunk()?.is_none() => Ok(Some(0)),
        None => Ok(None),
    })?
}

fn open_index(path: &Path) -> Result<Index> {
    Index::open(&index_path(path), Open::Create).map_err(StoreError::index(path))
}

/// Puts the index aside and builds it from the data.
fn rebuild(disk: Box<dyn Disk>, path: &Path, what: &str, taking: &mut Taking<'_>) -> Result<Ready> {
    let kept = aside::put_index_aside(path, taking.now).map_err(StoreError::io(path))?;
    tracing::error!(file = %path.display(), kept = %kept.display(), %what,
        "the index is unusable: building it again from the data");
    let index = open_index(path)?;
    match take_in(&*disk, path, &index, taking)? {
        Fit::Fits(accounted) => Ok(accounted.ready(disk, path, index)),
        Fit::Misfit(what) => Err(StoreError::Inconsistent { path: path.to_owned(), what }),
    }
}

/// A compaction that was killed leaves `.new` files, which are copies: the data file
/// and an index that fits it are complete at every instant. Whoever is at work on
/// them holds the lock on `<data>.new`, and so on what it becomes.
fn drop_unfinished_compaction(path: &Path) {
    let data = with_suffix(path, ".new");
    let index = with_suffix(path, ".index.new");
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true);
    let _lock = match lock::open_locked(&data, &options, Kind::Exclusive, Wait::No) {
        Ok(file) => Some(file),
        Err(lock::LockError::Io(e)) if e.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(file = %data.display(), %error, "left alone");
            return;
        }
    };
    for stale in [with_suffix(&index, "-journal"), index, data] {
        match std::fs::remove_file(&stale) {
            Ok(()) => tracing::warn!(file = %stale.display(),
                "removed what an interrupted compaction left"),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(file = %stale.display(), %error, "cannot remove it"),
        }
    }
}

enum Fit {
    Fits(Accounted),
    /// The index speaks of other data; nothing was done.
    Misfit(String),
}

struct Accounted {
    hash: FileHash,
    last_ts: i64,
    is_trusted: bool,
    moved: Option<State>,
}

impl Accounted {
    fn ready(self, disk: Box<dyn Disk>, path: &Path, index: Index) -> Ready {
        let Accounted { hash, last_ts, is_trusted, moved } = self;
        let data = DataFile::new(disk, path.to_owned(), hash);
        Ready { data, index, last_ts, is_trusted, moved }
    }
}

/// Brings the index up to the end of the file, and the end of the file into order.
fn take_in(disk: &dyn Disk, path: &Path, index: &Index, taking: &mut Taking<'_>) -> Result<Fit> {
    let len = disk.len_file().map_err(StoreError::io(path))?;
    let known = index.at_once(|index| Ok((index.state()?, index.last_chunk()?)));
    let (state, last) = known.flatten().map_err(StoreError::index(path))?;
    // Nothing was ever committed to it: a power cut may have left any part of an empty index.
    if state.is_none() && last.is_none() {
        let is_intact = index.is_intact().map_err(StoreError::index(path))?;
        if !is_intact {
            return Ok(Fit::Misfit("it was not finished when it was made".into()));
        }
    }
    let last_ts = last.as_ref().map_or(0, |chunk| chunk.ts_end.max(chunk.ts_start));
    let (hash, known) = (FileHash::default(), taking.known);
    let replay = Replay { disk, path, index, hash, last_ts, known };
    let is_trusted = match &state {
        Some(state) => state.vouches_for(disk).map_err(StoreError::io(path))?,
        None => len == 0,
    };
    let mut scan = Scan { replay, taking, moved: None };
    let accounted = match scan.accounted(state, last.as_ref(), len)? {
        Ok(accounted) => accounted,
        Err(misfit) => return Ok(Fit::Misfit(misfit)),
    };
    let is_foreign = last.is_some_and(|chunk| state.is_none_or(|s| chunk.offset >= s.len_file));
    if is_foreign {
        scan.rebuild_truth(accounted)?;
    } else if index.lacks_gone().map_err(StoreError::index(path))? {
        scan.find_gone(accounted)?;
    }
    if accounted < len {
        scan.take_in_tail(accounted)?;
    }
    let Scan { replay: Replay { mut hash, last_ts, .. }, moved, .. } = scan;
    let len = disk.len_file().map_err(StoreError::io(path))?;
    hash.update_from(disk, len).map_err(StoreError::io(path))?;
    Ok(Fit::Fits(Accounted { hash, last_ts, is_trusted, moved }))
}

struct Scan<'a, 't> {
    replay: Replay<'a>,
    taking: &'a mut Taking<'t>,
    /// See [`Ready`].
    moved: Option<State>,
}

impl Scan<'_, '_> {
    /// The end of what the index speaks for, or why it does not fit.
    fn accounted(
        &mut self,
        state: Option<State>,
        last: Option<&ChunkRow>,
        len: u64,
    ) -> Result<std::result::Result<u64, String>> {
        let end = state.as_ref().map_or(0, |state| state.len_file);
        if end > len {
            return Ok(Err(format!("it speaks for {end} octets, the data file has {len}")));
        }
        if let Some(state) = state {
            let inode = self.inode()?;
            if state.inode != inode {
                if !self.is_prefix(&state)? {
                    return Ok(Err("the data file is another one".into()));
                }
                self.moved = Some(State { inode, modified: None, ..state });
            }
            self.replay.hash = FileHash::resume(state.checkpoint);
        }
        match last {
            // Written by Cyrus after, or without, us: trust only what fits.
            Some(chunk) if chunk.offset >= end => self.check_chunk(chunk, len),
            _ => Ok(Ok(end)),
        }
    }

    /// Whether the file begins as the one did that the state was taken of. Reads all
    /// of it: moved files are rare.
    fn is_prefix(&self, state: &State) -> Result<bool> {
        let mut hash = FileHash::default();
        hash.update_from(self.replay.disk, state.checkpoint.hashed).map_err(self.io())?;
        Ok(hash.checkpoint() == state.checkpoint)
    }

    /// Checks the file in front of a chunk and the chunk itself against its row,
    /// and returns the chunk's end.
    fn check_chunk(
        &mut self,
        chunk: &ChunkRow,
        len: u64,
    ) -> Result<std::result::Result<u64, String>> {
        let (id, offset) = (chunk.id, chunk.offset);
        if offset > len {
            return Ok(Err(format!("chunk {id} begins at offset {offset}, the file has {len}")));
        }
        self.replay.hash.update_from(self.replay.disk, offset).map_err(self.io())?;
        let found = self.replay.hash.hex();
        if found != chunk.file_sha1 {
            let known = &chunk.file_sha1;
            return Ok(Err(format!(
                "file checksum mismatch for chunk {id}: {found} on disk, {known} in index"
            )));
        }
        match replay::totals(self.replay.disk, offset, len) {
            Ok(totals)
                if (totals.len_plain, &totals.data_sha1) == (chunk.length, &chunk.data_sha1) =>
            {
                Ok(Ok(totals.end))
            }
            Ok(totals) => Ok(Err(format!(
                "data mismatch for chunk {id}: {} octets {} on disk, {} octets {} in index",
                totals.len_plain, totals.data_sha1, chunk.length, chunk.data_sha1
            ))),
            Err(MemberError::Io { source, .. }) => Err(self.io()(source)),
            Err(damage) => Ok(Err(format!("chunk {id}: {damage}"))),
        }
    }

    /// Cyrus has written to this index: what its tables cannot say is found out from
    /// the chunks that it knows, which lie in front of `end`.
    fn rebuild_truth(&mut self, end: u64) -> Result<()> {
        let Replay { disk, path, index, .. } = self.replay;
        let (replayed, _) = replay::again(disk, path, index, end)?;
        self.replay.hash.update_from(disk, end).map_err(self.io())?;
        let state = self.state()?;
        (|| {
            index.begin()?;
            index.take_truth_from(&replayed)?;
            index.set_state(&state)?;
            index.commit()
        })()
        .map_err(StoreError::index(path))?;
        self.moved = None;
        Ok(())
    }

    /// An older version has made this index: what was displaced, by the chunks in front of `end`,
    /// is found out from them.
    fn find_gone(&self, end: u64) -> Result<()> {
        let Replay { disk, path, index, .. } = self.replay;
        tracing::info!(file = %path.display(), "looking for displaced mail, this once");
        let (replayed, _) = replay::again(disk, path, index, end)?;
        (|| {
            index.begin()?;
            index.take_gone_from(&replayed)?;
            index.commit()
        })()
        .map_err(StoreError::index(path))
    }

    /// Indexes what lies behind `from`, in one transaction that is committed after
    /// the file was synced.
    fn take_in_tail(&mut self, from: u64) -> Result<()> {
        let Replay { path, index, disk, .. } = self.replay;
        let len = self.len()?;
        tracing::info!(file = %path.display(), offset = from, octets = len - from,
            "data beyond the index: taking them in");
        index.begin().map_err(StoreError::index(path))?;
        let Taking { now, durable, .. } = *self.taking;
        let mut mending = Mending { now, durable, told: &mut *self.taking.told };
        self.replay.members(from, len, &mut mending)?;
        self.make_durable(from)?;
        let len = self.len()?;
        self.replay.hash.update_from(disk, len).map_err(self.io())?;
        let state = self.state()?;
        index.set_state(&state).and_then(|()| index.commit()).map_err(StoreError::index(path))?;
        self.moved = None;
        Ok(())
    }

    /// Makes everything behind `from` survive a power cut, even if a sync of it has
    /// failed before: pages that the kernel could not write count as written
    /// afterwards, so they are written again.
    fn make_durable(&self, from: u64) -> Result<()> {
        let disk = self.replay.disk;
        let len = self.len()?;
        let mut buffer = vec![0; 1 << 18];
        let mut at = from.max(self.taking.durable);
        while at < len {
            let want = (len - at).min(buffer.len() as u64) as usize;
            let got = disk.read_at(&mut buffer[..want], at).map_err(self.io())?;
            if got == 0 {
                return Err(self.io()(io::ErrorKind::UnexpectedEof.into()));
            }
            disk.write_at(&buffer[..got], at).map_err(self.io())?;
            at += got as u64;
        }
        disk.sync().map_err(self.io())?;
        // Whoever made the file may have died before its name was durable.
        sync_directory_of(self.replay.path).map_err(self.io())
    }

    /// What the index can say once everything hashed is entered.
    fn state(&self) -> Result<State> {
        let hash = &self.replay.hash;
        let (len_file, checkpoint) = (hash.len(), hash.checkpoint());
        Ok(State { len_file, inode: self.inode()?, checkpoint, modified: None })
    }

    fn len(&self) -> Result<u64> {
        self.replay.disk.len_file().map_err(self.io())
    }

    fn inode(&self) -> Result<u64> {
        self.replay.disk.inode().map_err(self.io())
    }

    fn io(&self) -> impl FnOnce(io::Error) -> StoreError {
        StoreError::io(self.replay.path)
    }
}
