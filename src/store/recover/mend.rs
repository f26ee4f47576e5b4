//! What is done with a member that cannot be read to its end.

use std::io;

use super::super::aside;
use super::super::chunk::MemberError;
use super::super::error::{Result, StoreError};
use super::super::replay::{Member, Passing, Replay, Stretch};
use super::super::torn::{self, Kept};

/// Enters what is good of broken members, and mends the last one of a file.
pub(super) struct Mending<'t> {
    /// Unix time.
    pub(super) now: i64,
    /// The file's octets in front of this were synced, with whole members.
    pub(super) durable: u64,
    /// Is told of every stretch.
    pub(super) told: &'t mut dyn FnMut(Stretch),
}

impl Passing for Mending<'_> {
    fn whole(&mut self, offset: u64) {
        (self.told)(Stretch::Member { offset });
    }

    /// A member that others follow stays as it is, and so does one that was whole once. The last
    /// one is ended behind its last complete line, or taken away if it holds none: nobody knows
    /// that what is behind damage in it was ever promised.
    fn broken(
        &mut self,
        replay: &mut Replay<'_>,
        at: u64,
        what: MemberError,
    ) -> Result<Option<u64>> {
        let (disk, path) = (replay.disk, replay.path);
        let io = |source: io::Error| StoreError::io(path)(source);
        let len = disk.len_file().map_err(io)?;
        // What was synced ends there, whatever a session has left behind it.
        let end = if at < self.durable { self.durable.min(len) } else { len };
        let salvage = replay.salvage(at, end)?;
        match salvage.next.or((end < len).then_some(end)) {
            None if at >= self.durable => {
                let kept = torn::last_complete_line(disk, at, len).map_err(io)?;
                self.mend(replay, at, len, kept, &what)?;
                (self.told)(match what {
                    MemberError::Torn { .. } => Stretch::Torn { offset: at },
                    source => {
                        let gaps = Vec::new();
                        Stretch::Damaged { offset: at, end: len, source, gaps, lines: 0 }
                    }
                });
                Ok(None)
            }
            next => {
                replay.saved(at, &salvage)?;
                let (end, lines) = (next.unwrap_or(len), salvage.lines());
                tracing::error!(file = %path.display(), member = at, end, lines, %what,
                    "damaged data: its readable lines are entered");
                let gaps = salvage.gaps;
                for gap in &gaps {
                    tracing::error!(file = %path.display(), member = at, from = gap.from,
                        until = gap.to, "cannot be read");
                }
                (self.told)(Stretch::Damaged { offset: at, end, source: what, gaps, lines });
                Ok(next)
            }
        }
    }
}

impl Mending<'_> {
    /// What is cut was kept in a file beside before.
    fn mend(
        &self,
        replay: &mut Replay<'_>,
        at: u64,
        len: u64,
        kept: Option<Kept>,
        what: &MemberError,
    ) -> Result<()> {
        let (disk, path) = (replay.disk, replay.path);
        let io = |source: io::Error| StoreError::io(path)(source);
        let cut = kept.as_ref().map_or(at, |kept| kept.end);
        tracing::warn!(file = %path.display(), member = at, cut, octets = len - cut, %what,
            "torn member: keeping its complete lines");
        if cut < len {
            let copy = aside::keep_octets(disk, path, cut, len, self.now).map_err(io)?;
            tracing::warn!(file = %copy.display(), "kept what is cut");
            disk.cut(cut).map_err(io)?;
        }
        let Some(kept) = kept else { return Ok(()) };
        let trailer = kept.trailer();
        disk.write_at(&trailer, cut).map_err(io)?;
        match replay.member(at, cut + trailer.len() as u64)? {
            Member::Complete { .. } => Ok(()),
            Member::Broken(what) => {
                let what = format!("the member at offset {at} cannot be mended: {what}");
                Err(StoreError::Inconsistent { path: path.to_owned(), what })
            }
        }
    }
}
