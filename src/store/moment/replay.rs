//! The lines up to a moment, entered into an index of their own.

use super::super::backup::Backup;
use super::super::chunk::{MemberError, MemberReader};
use super::super::error::{Result, StoreError};
use super::super::exact::Damage;
use super::super::file_hash::FileHash;
use super::super::index::{ChunkRow, Index, IndexError, Position};
use super::super::log::{LogError, LogLine, LogReader, NoBodies};
use super::super::replay::Replay;
use super::super::torn;

/// What the lines up to a moment say.
pub(super) struct Found {
    /// In a transaction that is not committed yet.
    pub(super) index: Index,
    /// File offset behind what was read of.
    pub(super) end: u64,
    /// Time stamp of the last line that counts.
    pub(super) last_ts: Option<i64>,
    pub(super) damages: Vec<Damage>,
    pub(super) clock_went_back: bool,
}

/// Enters the lines in front of the first one that is younger than `moment`. `chunks` are
/// those of the backup's index, in the order of the file.
pub(super) fn until(backup: &Backup, chunks: &[ChunkRow], moment: i64) -> Result<Found> {
    let mut damages = Vec::new();
    // Lines in front of a damage were entered before it was met, and not all of them count.
    // Damage is rare: the work is begun anew, with what is now known.
    loop {
        let mut reading = Reading { backup, moment, damages, found: Found::new(backup)? };
        match reading.chunks(chunks)? {
            Some(damage) => {
                damages = reading.damages;
                damages.push(damage);
            }
            None => {
                reading.found.damages.append(&mut reading.damages);
                return Ok(reading.found);
            }
        }
    }
}

impl Found {
    fn new(backup: &Backup) -> Result<Found> {
        let index = Index::scratch().map_err(StoreError::index(backup.path()))?;
        index.begin().map_err(StoreError::index(backup.path()))?;
        let damages = Vec::new();
        Ok(Found { index, end: 0, last_ts: None, damages, clock_went_back: false })
    }
}

struct Reading<'a> {
    backup: &'a Backup,
    moment: i64,
    /// Broken members known from earlier tries.
    damages: Vec<Damage>,
    found: Found,
}

/// How far a chunk was read.
enum Ended {
    /// All of it counts.
    Whole { end: u64 },
    /// A younger line begins there.
    Younger { offset_plain: u64, offset_file: u64 },
    /// It is damaged.
    Damaged(String),
}

impl Reading<'_> {
    /// Damage that was not known yet ends it.
    fn chunks(&mut self, chunks: &[ChunkRow]) -> Result<Option<Damage>> {
        for (i, chunk) in chunks.iter().enumerate() {
            if chunk.ts_start > self.moment {
                self.look_behind(&chunks[i..]);
                break;
            }
            self.found.index.add_chunk(chunk).map_err(self.fault())?;
            match self.chunk(chunk)? {
                Ended::Whole { end } => self.found.end = end,
                Ended::Younger { offset_plain, offset_file } => {
                    self.cut(chunk, offset_plain, offset_file)?;
                    self.look_behind(&chunks[i + 1..]);
                    break;
                }
                Ended::Damaged(what) => {
                    let (chunk_id, offset_file) = (chunk.id, chunk.offset);
                    return Ok(Some(Damage { chunk_id, offset_file, what }));
                }
            }
            self.restart_points(chunk, u64::MAX)?;
        }
        Ok(None)
    }

    /// Chunks that are not read, although some of their lines may be old enough.
    fn look_behind(&mut self, chunks: &[ChunkRow]) {
        self.found.clock_went_back |= chunks.iter().any(|chunk| chunk.ts_start <= self.moment);
    }

    fn chunk(&mut self, chunk: &ChunkRow) -> Result<Ended> {
        let is_damaged = self.damages.iter().any(|damage| damage.offset_file == chunk.offset);
        if is_damaged { self.lines_before_damage(chunk) } else { self.lines(chunk) }
    }

    fn lines(&mut self, chunk: &ChunkRow) -> Result<Ended> {
        let mut reader = match LogReader::open(self.backup.file(), chunk.offset) {
            Ok(reader) => reader,
            Err(error) => return self.damaged(error),
        };
        let mut younger = None;
        loop {
            match reader.next_line(&mut NoBodies) {
                Ok(None) => break,
                Ok(Some(line)) if younger.is_some() => {
                    self.found.clock_went_back |= line.ts <= self.moment;
                }
                Ok(Some(line)) if line.ts > self.moment => {
                    younger = Some((line.offset, reader.offset_file()));
                }
                Ok(Some(line)) => self.enter(chunk, &line)?,
                Err(error @ LogError::Member(_)) => return self.damaged(error),
                // Not a line: nothing more counts. The rest is read to learn whether the
                // member is sound.
                Err(error) => {
                    if let Err(error) = reader.skip_rest() {
                        return self.damaged(error.into());
                    }
                    if younger.is_none() {
                        let (chunk_id, offset_file) = (chunk.id, chunk.offset);
                        let what = error.to_string();
                        self.found.damages.push(Damage { chunk_id, offset_file, what });
                    }
                    break;
                }
            }
        }
        Ok(match younger {
            Some((offset_plain, offset_file)) => Ended::Younger { offset_plain, offset_file },
            None => Ended::Whole { end: reader.offset_file() },
        })
    }

    /// As a rebuild of the index takes them: up to the last flush in front of the damage.
    fn lines_before_damage(&mut self, chunk: &ChunkRow) -> Result<Ended> {
        let file = self.backup.file();
        let len = self.backup.len_file()?;
        let io = || StoreError::io(self.backup.path());
        let kept = torn::last_complete_line(file, chunk.offset, len).map_err(io())?;
        let end = kept.map_or(chunk.offset, |kept| kept.end);
        let member = MemberReader::open_until(file, chunk.offset, end);
        let mut count = 0;
        if let Ok(member) = member {
            let mut reader = LogReader::over(member);
            while let Ok(Some(line)) = reader.next_line(&mut NoBodies) {
                if line.ts > self.moment {
                    let (offset_plain, offset_file) = (line.offset, reader.offset_file());
                    return Ok(Ended::Younger { offset_plain, offset_file });
                }
                self.enter(chunk, &line)?;
                count += 1;
            }
        }
        if count == 0 {
            self.found.index.remove_chunk(chunk.id).map_err(self.fault())?;
        }
        Ok(Ended::Whole { end })
    }

    fn enter(&mut self, chunk: &ChunkRow, line: &LogLine) -> Result<()> {
        let (disk, path, index) = (self.backup.file(), self.backup.path(), &self.found.index);
        let replay =
            Replay { disk, path, index, hash: FileHash::default(), last_ts: 0, known: &[] };
        let at = Position { chunk_id: chunk.id, ts: line.ts, offset: line.offset };
        replay.enter_line(line, at)?;
        self.found.last_ts = Some(line.ts);
        Ok(())
    }

    /// The row of a chunk whose later lines do not count.
    fn cut(&mut self, chunk: &ChunkRow, offset_plain: u64, offset_file: u64) -> Result<()> {
        self.restart_points(chunk, offset_plain)?;
        let index = &self.found.index;
        let ts = self.found.last_ts.unwrap_or(chunk.ts_start);
        // What is in front of a cut has no checksum that anybody knows.
        index.end_chunk(chunk.id, ts, offset_plain, "").map_err(self.fault())?;
        self.found.end = offset_file;
        Ok(())
    }

    fn restart_points(&self, chunk: &ChunkRow, end: u64) -> Result<()> {
        let points = self.backup.index().restart_points(chunk.id).map_err(self.fault())?;
        points
            .into_iter()
            .filter(|point| point.offset_plain <= end)
            .try_for_each(|point| self.found.index.add_restart_point(chunk.id, point))
            .map_err(self.fault())
    }

    /// An error of the disk is none of the data.
    fn damaged(&self, error: LogError) -> Result<Ended> {
        match error {
            LogError::Member(MemberError::Io { source, .. }) => {
                Err(StoreError::io(self.backup.path())(source))
            }
            error => Ok(Ended::Damaged(error.to_string())),
        }
    }

    fn fault(&self) -> impl FnOnce(IndexError) -> StoreError + use<'_> {
        StoreError::index(self.backup.path())
    }
}
