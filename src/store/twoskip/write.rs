//! Changing things: the transaction of the format, in place.
//!
//! Order of a transaction, which decides what survives a crash:
//!
//! 1. header with DIRTY, sync;
//! 2. records appended, heads before them rewritten, COMMIT appended, sync;
//! 3. header with the new size and without DIRTY, sync.
//!
//! Up to 3 a crash leaves the old state (list 0 keeps its committed pointers),
//! from 3 on the new one. A header and a rewritten head lie within one disk
//! sector and are taken to reach the disk whole or not at all.

use super::format::{
    DUMMY_AT, FIELD_LEN_MAX, HEADER_LEN, Head, Header, Kind, LEVEL_MAX, blanks, encode_tail,
};
use super::medium::Medium;
use super::read::{Record, View};
use super::recover::write_header;
use super::{ErrorKind, Levels};

/// A clean file and its header, ready for one transaction.
pub(super) struct Writer<M> {
    medium: M,
    header: Header,
    /// Where the next record goes; the end of what this transaction sees.
    end: u64,
}

/// The bytes of an empty database.
pub(super) fn empty_image(generation: u64) -> Vec<u8> {
    let mut image = Header::empty(generation).encode().to_vec();
    image.extend(Head::dummy().encode());
    image
}

/// The bytes of a new database with the live records of `source`, as a
/// checkpoint of the reference writes them.
///
/// # Errors
///
/// Also if the number of records is not the one in `header`: a repack of such
/// a file would destroy what could explain it.
pub(super) fn repacked_image<M: Medium>(
    source: &M,
    header: &Header,
    levels: &mut dyn Levels,
) -> Result<Vec<u8>, ErrorKind> {
    let fresh = empty_image(header.generation.wrapping_add(1));
    let mut writer = Writer::new(fresh, Header::empty(header.generation.wrapping_add(1)));
    View::new(source, header.current_size).walk(|record| {
        writer.store(record.key(), record.value(), levels)?;
        Ok(())
    })?;
    if writer.header.records != header.records {
        return Err(ErrorKind::damaged(32, "wrong number of records in the header"));
    }
    writer.header.repack_size = writer.end;
    writer.commit()?;
    Ok(writer.medium)
}

/// Refuses what [`View::load`] would refuse to read back.
pub(super) fn check_lengths(key: &[u8], value: &[u8]) -> Result<(), ErrorKind> {
    match [key.len(), value.len()].into_iter().max() {
        Some(len) if len as u64 > FIELD_LEN_MAX => Err(ErrorKind::TooLong(len)),
        _ => Ok(()),
    }
}

impl<M: Medium> Writer<M> {
    /// Works on `medium`, which is clean and has `header`.
    pub(super) fn new(medium: M, header: Header) -> Writer<M> {
        let end = header.current_size;
        Writer { medium, header, end }
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn medium(&self) -> &M {
        &self.medium
    }

    pub(super) fn view(&self) -> View<'_, M> {
        View::new(&self.medium, self.end)
    }

    /// Gives `key` a value. Storing what is there already writes nothing.
    pub(super) fn store(
        &mut self,
        key: &[u8],
        value: &[u8],
        levels: &mut dyn Levels,
    ) -> Result<(), ErrorKind> {
        check_lengths(key, value)?;
        let mut place = self.view().find(key)?;
        let mut lists = 0;
        if let Some(old) = &place.found {
            if old.value() == value {
                return Ok(());
            }
            lists = self.bypass(old, &mut place.forward)?;
        }
        let added = place.found.is_none();
        let level = levels.level().clamp(1, LEVEL_MAX);
        let mut head = Head::small(Kind::Record, 0);
        head.level = level;
        head.key_len = key.len() as u64;
        head.value_len = value.len() as u64;
        for list in 0..level {
            head.pointers[usize::from(list) + 1] = place.forward[usize::from(list)];
        }
        let tail = encode_tail(key, value);
        head.tail_crc = crc32fast::hash(&tail);
        let at = self.append(&head, &tail)?;
        place.forward[..usize::from(level)].fill(at);
        self.relink(&place.back, &place.forward, level.max(lists))?;
        self.header.records += u64::from(added);
        Ok(())
    }

    /// Removes `key`; that it is not there is no error.
    pub(super) fn delete(&mut self, key: &[u8]) -> Result<(), ErrorKind> {
        let mut place = self.view().find(key)?;
        let Some(old) = &place.found else {
            return Ok(());
        };
        let lists = self.bypass(old, &mut place.forward)?;
        let successor = self.view().live(place.forward[0])?;
        let pointer = successor.map_or(0, |record| record.at);
        place.forward[0] = self.append(&Head::small(Kind::Delete, pointer), b"")?;
        self.relink(&place.back, &place.forward, lists)?;
        self.header.records = self.header.records.saturating_sub(1);
        Ok(())
    }

    /// Ends the transaction; durable on return. A transaction without changes
    /// writes nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InDoubt`] if the new header may or may not be on disk;
    /// after any other error the old state holds.
    pub(super) fn commit(&mut self) -> Result<(), ErrorKind> {
        let start = self.header.current_size;
        if self.end == start {
            return Ok(());
        }
        self.append(&Head::small(Kind::Commit, start), b"")?;
        self.medium.sync().map_err(|e| ErrorKind::io("write", e))?;
        self.header.current_size = self.end;
        self.header.set_dirty(false);
        match write_header(&mut self.medium, &self.header) {
            Err(ErrorKind::Io { source, .. }) => Err(ErrorKind::InDoubt(source)),
            other => other,
        }
    }

    /// Makes `forward` lead past `old`. Returns how many lists `old` is on.
    fn bypass(
        &self,
        old: &Record,
        forward: &mut [u64; LEVEL_MAX as usize],
    ) -> Result<u8, ErrorKind> {
        for list in 0..old.head.level {
            let slot = usize::from(list);
            if list > 0 && forward[slot] != old.at {
                return Err(ErrorKind::damaged(old.at, "record missing on one of its lists"));
            }
            forward[slot] = old.head.next(list, self.end);
        }
        Ok(old.head.level)
    }

    /// Points the first `lists` lists from `back` to `forward`.
    fn relink(
        &mut self,
        back: &[u64; LEVEL_MAX as usize],
        forward: &[u64; LEVEL_MAX as usize],
        lists: u8,
    ) -> Result<(), ErrorKind> {
        for list in 0..lists {
            let slot = usize::from(list);
            let mut record = self.view().load(back[slot])?;
            record.head.set_next(list, forward[slot], self.header.current_size);
            self.write(&record.head.encode(), record.at)?;
        }
        Ok(())
    }

    /// Appends a record behind the filler that it needs. Returns its offset.
    fn append(&mut self, head: &Head, tail: &[u8]) -> Result<u64, ErrorKind> {
        if !self.header.is_dirty() {
            self.header.set_dirty(true);
            write_header(&mut self.medium, &self.header)?;
        }
        let mut bytes = blanks(self.end, head.len());
        let at = self.end + bytes.len() as u64;
        bytes.extend(head.encode());
        bytes.extend(tail);
        self.write(&bytes, self.end)?;
        self.end += bytes.len() as u64;
        Ok(at)
    }

    fn write(&mut self, bytes: &[u8], at: u64) -> Result<(), ErrorKind> {
        debug_assert!(at >= DUMMY_AT && at >= HEADER_LEN, "over the header");
        self.medium.write_at(bytes, at).map_err(|e| ErrorKind::io("write", e))
    }
}
