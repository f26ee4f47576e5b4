//! Finding things: the walk along list 0 and the descent through the lists.
//!
//! Nothing read from the file is trusted. Every pointer, length and checksum
//! is examined before use, and keys must grow strictly along every list, which
//! also ends any loop that pointers could form.

use super::ErrorKind;
use super::format::{
    DUMMY_AT, EMPTY_LEN, HEAD_LEN_MAX, HEADER_LEN, Head, Header, Kind, LEVEL_MAX, SMALL_LEN,
};
use super::medium::Medium;

/// One read brings a usual record whole: head, key and value.
const READ_LEN: usize = 512;

/// A record of the file, checked.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) at: u64,
    pub(super) head: Head,
    /// Key, value and padding.
    tail: Vec<u8>,
}

impl Record {
    pub(super) fn key(&self) -> &[u8] {
        &self.tail[..self.head.key_len as usize]
    }

    pub(super) fn value(&self) -> &[u8] {
        &self.tail[self.head.key_len as usize..][..self.head.value_len as usize]
    }
}

/// The place of a key on every list.
pub(super) struct Place {
    /// Offset of the last record before the key.
    pub(super) back: [u64; LEVEL_MAX as usize],
    /// Where that record's list goes on. On list 0 this may be a DELETE.
    pub(super) forward: [u64; LEVEL_MAX as usize],
    /// The key's own record.
    pub(super) found: Option<Record>,
}

/// The data of a file up to `end`.
pub(super) struct View<'m, M> {
    medium: &'m M,
    /// Data from here on is not part of what is seen.
    end: u64,
}

/// Reads and checks the header.
pub(super) fn header<M: Medium>(medium: &M) -> Result<Header, ErrorKind> {
    let mut bytes = [0; HEADER_LEN as usize];
    let len = medium.read_at(&mut bytes, 0).map_err(|e| ErrorKind::io("read", e))?;
    Header::decode(&bytes[..len])
}

/// Whether the file is as a finished transaction leaves it.
pub(super) fn is_clean<M: Medium>(medium: &M, header: &Header) -> Result<bool, ErrorKind> {
    let len = medium.len().map_err(|e| ErrorKind::io("examine", e))?;
    Ok(len == header.current_size && !header.is_dirty())
}

impl<'m, M: Medium> View<'m, M> {
    pub(super) fn new(medium: &'m M, end: u64) -> View<'m, M> {
        View { medium, end }
    }

    /// The DUMMY record, where every list begins.
    pub(super) fn dummy(&self) -> Result<Record, ErrorKind> {
        let dummy = self.load(DUMMY_AT)?;
        if dummy.head.kind != Kind::Dummy || dummy.head.len() != EMPTY_LEN - DUMMY_AT {
            return Err(ErrorKind::damaged(DUMMY_AT, "the first record is not DUMMY"));
        }
        Ok(dummy)
    }

    /// The record at `at`, with every check that can be made on it alone.
    pub(super) fn load(&self, at: u64) -> Result<Record, ErrorKind> {
        if at < DUMMY_AT || at >= self.end || !at.is_multiple_of(8) {
            return Err(ErrorKind::damaged(at, "pointer to where no record can be"));
        }
        const { assert!(READ_LEN >= HEAD_LEN_MAX) };
        let mut buf = [0; READ_LEN];
        let got = self.read(&mut buf, at)?;
        let head = Head::decode(&buf[..got], at)?;
        let tail_at = head.len() as usize;
        let tail_len = head.tail_len() as usize;
        let tail = match buf[..got].get(tail_at..tail_at + tail_len) {
            Some(tail) => tail.to_vec(),
            None => self.read_tail(at, tail_at as u64, tail_len)?,
        };
        if crc32fast::hash(&tail) != head.tail_crc {
            return Err(ErrorKind::damaged(at, "checksum mismatch in a key or value"));
        }
        Ok(Record { at, head, tail })
    }

    /// The live record that a pointer of list 0 leads to, past a DELETE.
    pub(super) fn live(&self, mut at: u64) -> Result<Option<Record>, ErrorKind> {
        for _ in 0..=self.end / SMALL_LEN {
            if at == 0 {
                return Ok(None);
            }
            let record = self.load(at)?;
            match record.head.kind {
                Kind::Record => return Ok(Some(record)),
                Kind::Delete => at = record.head.next(0, self.end),
                Kind::Dummy | Kind::Commit => {
                    return Err(ErrorKind::damaged(at, "list leads to a wrong kind of record"));
                }
            }
        }
        Err(ErrorKind::damaged(at, "DELETE records form a loop"))
    }

    /// Hands every live record to `visit`, in key order.
    pub(super) fn walk(
        &self,
        mut visit: impl FnMut(&Record) -> Result<(), ErrorKind>,
    ) -> Result<(), ErrorKind> {
        let mut last = self.dummy()?;
        // Live records do not overlap: without this a forged file could have
        // one long value returned many times.
        let mut room = self.end;
        while let Some(record) = self.live(last.head.next(0, self.end))? {
            self.check_order(&last, &record)?;
            room = room
                .checked_sub(record.head.len() + record.head.tail_len())
                .ok_or_else(|| ErrorKind::damaged(record.at, "records overlap"))?;
            visit(&record)?;
            last = record;
        }
        Ok(())
    }

    /// Descends from the topmost list to where `key` is or would be.
    pub(super) fn find(&self, key: &[u8]) -> Result<Place, ErrorKind> {
        let mut place = Place {
            back: [DUMMY_AT; LEVEL_MAX as usize],
            forward: [0; LEVEL_MAX as usize],
            found: None,
        };
        let mut last = self.dummy()?;
        // Known not to come before the key: need not be read again.
        let mut beyond: Option<Record> = None;
        for list in (0..LEVEL_MAX).rev() {
            let slot = usize::from(list);
            loop {
                place.forward[slot] = last.head.next(list, self.end);
                let Some(record) = self.follow(list, place.forward[slot], &mut beyond)? else {
                    break;
                };
                if record.key() >= key {
                    beyond = Some(record);
                    break;
                }
                self.check_order(&last, &record)?;
                last = record;
            }
            place.back[slot] = last.at;
        }
        let next = self.follow(0, place.forward[0], &mut beyond)?;
        place.found = next.filter(|record| record.key() == key);
        Ok(place)
    }

    /// The record on `list` at `at`, taken from `known` if it is that one.
    fn follow(
        &self,
        list: u8,
        at: u64,
        known: &mut Option<Record>,
    ) -> Result<Option<Record>, ErrorKind> {
        if let Some(record) = known.take_if(|record| record.at == at) {
            return Ok(Some(record));
        }
        if list == 0 {
            return self.live(at);
        }
        if at == 0 {
            return Ok(None);
        }
        let record = self.load(at)?;
        if record.head.kind != Kind::Record || record.head.level <= list {
            return Err(ErrorKind::damaged(at, "record on a list that it is too low for"));
        }
        Ok(Some(record))
    }

    fn check_order(&self, before: &Record, after: &Record) -> Result<(), ErrorKind> {
        if before.at == DUMMY_AT || before.key() < after.key() {
            return Ok(());
        }
        Err(ErrorKind::damaged(after.at, "keys out of order"))
    }

    /// Reads at `at`, but nothing from the end of the data on.
    fn read(&self, buf: &mut [u8], at: u64) -> Result<usize, ErrorKind> {
        let room = usize::try_from(self.end - at).unwrap_or(usize::MAX);
        let len = buf.len().min(room);
        self.medium.read_at(&mut buf[..len], at).map_err(|e| ErrorKind::io("read", e))
    }

    fn read_tail(&self, at: u64, tail_at: u64, len: usize) -> Result<Vec<u8>, ErrorKind> {
        let cut = || ErrorKind::damaged(at, "record reaches beyond the end of the data");
        let start = at + tail_at;
        let size = self.medium.len().map_err(|e| ErrorKind::io("examine", e))?;
        if start + len as u64 > self.end.min(size) {
            return Err(cut());
        }
        let mut tail = vec![0; len];
        if self.read(&mut tail, start)? < len {
            return Err(cut());
        }
        Ok(tail)
    }
}
