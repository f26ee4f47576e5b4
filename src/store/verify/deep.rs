//! Everything that can be wrong with a backup, in one pass over its data.
//!
//! Chunks are read by several threads. Their lines are entered, in order, into an index of
//! this run's own, as the server enters them; in the end that is what the backup's index
//! should be. Memory does not grow with the backup except by what is wrong with it: the
//! run's own index is a temporary file.

use super::compare::{self, BadBody};
use super::finding::{Check, Event, Fault, Finding, Sink, Step};
use super::pass::{self, Content, Piece, Taken};
use super::{gap, structure};
use crate::store::backup::Backup;
use crate::store::error::{Result, StoreError};
use crate::store::file_hash::FileHash;
use crate::store::index::{ChunkRow, Index, Position};
use crate::store::replay::sound_messages;
use crate::store::salvage::is_credible;
use crate::wire::apply::Apply;
use crate::wire::mboxname::NameRules;

/// Memory for pages of the backup's index.
const CACHE_KIB: u32 = 4 * 1024;

/// How to check.
#[derive(Clone, Copy, Debug)]
pub struct Deep<'d> {
    /// Threads that read; 1: none but the caller's.
    pub jobs: usize,
    /// Whose the backup is, if that is known, and the rules by which mailboxes have owners.
    pub owner: Option<(&'d [u8], &'d NameRules)>,
}

/// Checks everything. Returns whether nothing was wrong; an error means that it could
/// not be found out.
pub fn deep(backup: &Backup, how: &Deep<'_>, sink: &mut Sink<'_>) -> Result<bool> {
    let index = backup.index();
    index.work_on_disk(CACHE_KIB).map_err(StoreError::index(backup.path()))?;
    let sound = index.at_once(|_| everything(backup, how, sink));
    sound.map_err(StoreError::index(backup.path()))?
}

fn everything(backup: &Backup, how: &Deep<'_>, sink: &mut Sink<'_>) -> Result<bool> {
    let fault = || StoreError::index(backup.path());
    let scratch = Index::scratch().map_err(fault())?;
    scratch.begin().map_err(fault())?;
    let mut run = Run {
        backup,
        scratch,
        sink,
        len_file: backup.len_file()?,
        hash: FileHash::default(),
        is_hash_wrong: false,
        end: Some(0),
        bad_bodies: Vec::new(),
        sound: true,
    };
    run.structure()?;
    let mut rows = backup.index().chunks_by_offset();
    loop {
        let page = rows.by_ref().take(pass::PAGE).collect::<std::result::Result<Vec<_>, _>>();
        let page = page.map_err(fault())?;
        if page.is_empty() {
            break;
        }
        run.chunks(&page, how.jobs)?;
    }
    run.gap(run.len_file)?;
    run.rows(how)?;
    structure::beside(backup, run.sink)?;
    Ok(run.sound)
}

struct Run<'a, 's> {
    backup: &'a Backup,
    /// What the index should be.
    scratch: Index,
    sink: &'a mut Sink<'s>,
    len_file: u64,
    hash: FileHash,
    /// From a difference on, all later checksums of the file differ too.
    is_hash_wrong: bool,
    /// Where the chunk before ended, if it did.
    end: Option<u64>,
    bad_bodies: Vec<BadBody>,
    sound: bool,
}

impl Run<'_, '_> {
    fn structure(&mut self) -> Result<()> {
        self.begin(None, Check::Structure);
        let findings = structure::check(self.backup)?;
        self.end(findings);
        Ok(())
    }

    fn chunks(&mut self, chunks: &[ChunkRow], jobs: usize) -> Result<()> {
        let offsets: Vec<u64> = chunks.iter().map(|chunk| chunk.offset).collect();
        let mut current = None;
        let known = pass::known(self.backup, chunks)?;
        let source = pass::Source { file: self.backup.file(), known: &known };
        pass::chunks(source, &offsets, jobs, &mut |i, piece| {
            if current != Some(i) {
                current = Some(i);
                self.begin_chunk(&chunks[i])?;
            }
            match piece {
                Piece::Lines(lines) => {
                    lines.iter().try_for_each(|taken| self.line(&chunks[i], taken))?;
                }
                Piece::End(content) => self.end_chunk(&chunks[i], content)?,
            }
            Ok::<_, StoreError>(true)
        })
    }

    /// Makes room for its lines.
    fn begin_chunk(&mut self, chunk: &ChunkRow) -> Result<()> {
        self.gap(chunk.offset)?;
        self.scratch.copy_chunk(chunk).map_err(StoreError::index(self.backup.path()))
    }

    /// A line that cannot be indexed was refused when it came in.
    fn line(&mut self, chunk: &ChunkRow, taken: &Taken) -> Result<()> {
        let offset = taken.line.offset;
        for (guid, _) in taken.bodies.iter().copied().filter(|(guid, found)| guid != found) {
            self.bad_bodies.push(BadBody { guid, chunk_id: chunk.id, offset });
        }
        let Ok((name, value)) = taken.line.item() else { return Ok(()) };
        let Ok(mut apply) = Apply::read(&name, &value) else { return Ok(()) };
        let are_sound: Vec<bool> = taken.bodies.iter().map(|(guid, found)| guid == found).collect();
        if taken.is_saved && are_sound.contains(&false) {
            // As a rebuild of the index takes it.
            let sound = sound_messages(&taken.line, &are_sound).unwrap_or_default();
            apply = Apply::Message(sound);
        }
        let fault = || StoreError::index(self.backup.path());
        if !taken.is_sure && !is_credible(&self.scratch, &apply).map_err(fault())? {
            return Ok(());
        }
        let at = Position { chunk_id: chunk.id, ts: taken.line.ts, offset };
        self.scratch.apply(at, &apply).map_err(StoreError::index(self.backup.path()))
    }

    fn end_chunk(&mut self, chunk: &ChunkRow, content: Content) -> Result<()> {
        self.begin(Some(chunk.id), Check::Checksums);
        let mut faults = Vec::new();
        faults.extend(self.file_checksum(chunk)?);
        self.step(Step::DataLength);
        self.step(Step::DataChecksum);
        self.end = content.member.is_ok().then_some(content.end);
        let offset_file = chunk.offset;
        match content.member {
            Err(source) => {
                faults.push(Fault::Unreadable { offset_file, source: source.into() });
                // What follows cannot have the recorded checksum either.
                self.is_hash_wrong = true;
            }
            Ok(()) if content.len_plain != chunk.length => {
                faults.push(Fault::DataLength { disk: content.len_plain, index: chunk.length });
            }
            Ok(()) if content.data_sha1 != chunk.data_sha1 => {
                let (disk, index) = (content.data_sha1, chunk.data_sha1.clone());
                faults.push(Fault::DataChecksum { disk, index });
            }
            Ok(()) => {}
        }
        let lines = content.saved;
        faults.extend(content.gaps.into_iter().map(|gap| Fault::Gap { gap, lines }));
        if let Err(source) = content.lines {
            faults.push(Fault::Unreadable { offset_file, source });
        }
        let about = |fault| Finding {
            chunk_id: Some(chunk.id),
            offset_file: Some(chunk.offset),
            fault,
            filed: Vec::new(),
        };
        self.end(faults.into_iter().map(about).collect());
        Ok(())
    }

    /// Chunks come in the order of their offsets: the hash only goes forward.
    fn file_checksum(&mut self, chunk: &ChunkRow) -> Result<Option<Fault>> {
        self.step(Step::FileChecksum);
        let end = chunk.offset.min(self.len_file);
        self.hash
            .update_from(self.backup.file(), end)
            .map_err(StoreError::io(self.backup.path()))?;
        let (disk, index) = (self.hash.hex(), chunk.file_sha1.clone());
        let is_first = disk != index && !self.is_hash_wrong;
        self.is_hash_wrong |= is_first;
        Ok(is_first.then_some(Fault::FileChecksum { disk, index }))
    }

    /// Looks at what lies between the chunk before and `to`.
    fn gap(&mut self, to: u64) -> Result<()> {
        let Some(from) = self.end.replace(to).filter(|from| *from < to) else { return Ok(()) };
        let faults = gap::look(self.backup.file(), self.backup.path(), from, to)?;
        if !faults.is_empty() {
            self.begin(None, Check::Structure);
            self.end(faults.into_iter().map(Finding::of_backup).collect());
        }
        Ok(())
    }

    /// Compares the index with what it should be.
    fn rows(&mut self, how: &Deep<'_>) -> Result<()> {
        self.begin(None, Check::Rows);
        let bad_bodies = std::mem::take(&mut self.bad_bodies);
        let findings = compare::check(self.backup, &self.scratch, bad_bodies, how.owner, how.jobs)?;
        self.end(findings);
        Ok(())
    }

    fn begin(&mut self, chunk_id: Option<i64>, check: Check) {
        (self.sink)(Event::Begin { chunk_id, check });
    }

    fn step(&mut self, step: Step) {
        (self.sink)(Event::Step(step));
    }

    fn end(&mut self, findings: Vec<Finding>) {
        let sound = findings.iter().all(|finding| finding.fault.is_note());
        findings.iter().for_each(|finding| (self.sink)(Event::Finding(finding)));
        self.sound &= sound;
        (self.sink)(Event::End { sound });
    }
}
