//! A Berkeley DB hash file (versions 8 and 9 of the format, Berkeley DB 4.1 to 5.3), as far as
//! looking up one key goes.
//!
//! ```text
//! meta   page 0: magic at 12, version 16, page size 20, encryption 24, type 25, flags 26,
//!        last page 32, max bucket 72, high mask 76, low mask 80, hash check 92, spares 96
//! page   next page at 16, entries (u16) 20, type 25, offsets of entries (u16 each) from 26;
//!        entries lie from the page's end downwards, key and value in turn
//! entry  type, then: 1 the octets themselves
//!                    3 three octets unused, page and length (u32 each) of an overflow chain
//! chain  next page at 16, octets on this page (u16) 22, octets from 26
//! ```
//!
//! Integers have the byte order of the machine that made the file. The page of bucket B is
//! `B + spares[bits of B]`, where a bucket has a chain of pages. Nothing that a page says is
//! believed: every offset is checked, every walk is bounded.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const META_LEN: usize = 96 + 4 * SPARES;
const SPARES: usize = 32;
const PAGE_HEADER_LEN: usize = 26;
const MAGIC: u32 = 0x0006_1561;
const VERSIONS: std::ops::RangeInclusive<u32> = 8..=9;
const PAGE_SIZES: std::ops::RangeInclusive<usize> = 512..=65536;

const META: u8 = 8;
const HASH_UNSORTED: u8 = 2;
const HASH: u8 = 13;
const OVERFLOW: u8 = 7;
const INLINE: u8 = 1;
const OFF_PAGE: u8 = 3;

/// What the hash function makes of this text tells which function it is.
const HASH_CHECK: &[u8] = b"%$sniglet^&\0";
/// Pages that are read of one chain.
const CHAIN_MAX: usize = 1024;
/// The longest value: longer than any password that `saslpasswd2` takes.
const VALUE_MAX: usize = 16 * 1024;

/// Why a key cannot be looked up.
#[derive(Debug, thiserror::Error)]
pub(in crate::sync::auth) enum HashFileError {
    /// The kernel refused.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Another format.
    #[error("{0}; only a Berkeley DB hash can be read, as Debian's saslpasswd2 makes it")]
    Foreign(&'static str),
    /// A Berkeley DB hash that says what cannot be.
    #[error("damaged: {what} (page {page})")]
    Damaged {
        /// From 0.
        page: u32,
        /// What is wrong there.
        what: &'static str,
    },
}

/// An open file whose first page made sense.
pub(super) struct HashFile<'a> {
    file: &'a File,
    order: Order,
    page_size: usize,
    last_page: u32,
    max_bucket: u32,
    high_mask: u32,
    low_mask: u32,
    spares: [u32; SPARES],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

impl Order {
    fn u16(self, octets: &[u8], at: usize) -> Option<u16> {
        let octets = octets.get(at..at + 2)?.try_into().ok()?;
        Some(match self {
            Order::Little => u16::from_le_bytes(octets),
            Order::Big => u16::from_be_bytes(octets),
        })
    }

    fn u32(self, octets: &[u8], at: usize) -> Option<u32> {
        let octets = octets.get(at..at + 4)?.try_into().ok()?;
        Some(match self {
            Order::Little => u32::from_le_bytes(octets),
            Order::Big => u32::from_be_bytes(octets),
        })
    }
}

impl<'a> HashFile<'a> {
    /// Reads the first page.
    pub(super) fn open(file: &'a File) -> Result<HashFile<'a>, HashFileError> {
        let mut meta = [0; META_LEN];
        match file.read_exact_at(&mut meta, 0) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(HashFileError::Foreign("too short for a data base"));
            }
            other => other?,
        }
        let order = match (Order::Little.u32(&meta, 12), Order::Big.u32(&meta, 12)) {
            (Some(MAGIC), _) => Order::Little,
            (_, Some(MAGIC)) => Order::Big,
            _ => return Err(HashFileError::Foreign(foreign(&meta))),
        };
        let damaged = |what| HashFileError::Damaged { page: 0, what };
        let field = |at| order.u32(&meta, at).ok_or(damaged("the header is cut off"));
        let page_size = usize::try_from(field(20)?).unwrap_or(usize::MAX);
        if !VERSIONS.contains(&field(16)?) {
            return Err(HashFileError::Foreign("a Berkeley DB hash of another version"));
        }
        if meta[24] != 0 || meta[26] != 0 {
            return Err(HashFileError::Foreign(
                "a Berkeley DB with encryption, checksums or parts",
            ));
        }
        if meta[25] != META || !PAGE_SIZES.contains(&page_size) || !page_size.is_power_of_two() {
            return Err(damaged("impossible header"));
        }
        if field(92)? != hash(HASH_CHECK) {
            return Err(HashFileError::Foreign("a Berkeley DB hash with another hash function"));
        }
        let mut spares = [0; SPARES];
        for (i, spare) in spares.iter_mut().enumerate() {
            *spare = field(96 + 4 * i)?;
        }
        Ok(HashFile {
            file,
            order,
            page_size,
            last_page: field(32)?,
            max_bucket: field(72)?,
            high_mask: field(76)?,
            low_mask: field(80)?,
            spares,
        })
    }

    /// The value of `key`.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, HashFileError> {
        let mut number = self.first_page(key)?;
        for _ in 0..CHAIN_MAX {
            let page = self.page(number)?;
            // A bucket that was never used may have a page of zeros.
            if !matches!(page.kind(), HASH | HASH_UNSORTED | 0) {
                return Err(page.damaged("not a page of the hash"));
            }
            for at in (0..page.entries()?).step_by(2) {
                if self.is(&page, at, key)? {
                    return self.value(&page, at + 1).map(Some);
                }
            }
            number = page.next()?;
            if number == 0 {
                return Ok(None);
            }
        }
        Err(HashFileError::Damaged { page: number, what: "a chain of pages without an end" })
    }

    /// The first page of the bucket of `key`.
    fn first_page(&self, key: &[u8]) -> Result<u32, HashFileError> {
        let hash = hash(key);
        let bucket = match hash & self.high_mask {
            bucket if bucket > self.max_bucket => bucket & self.low_mask,
            bucket => bucket,
        };
        let spare = self.spares.get((u32::BITS - bucket.leading_zeros()) as usize);
        spare
            .and_then(|spare| bucket.checked_add(*spare))
            .ok_or(HashFileError::Damaged { page: 0, what: "impossible number of buckets" })
    }

    fn page(&self, number: u32) -> Result<Page, HashFileError> {
        let damaged = |what| HashFileError::Damaged { page: number, what };
        if number == 0 || number > self.last_page {
            return Err(damaged("no such page"));
        }
        let mut octets = vec![0; self.page_size];
        match self.file.read_exact_at(&mut octets, u64::from(number) * self.page_size as u64) {
            Ok(()) => Ok(Page { number, order: self.order, octets }),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(damaged("it is cut off")),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether entry `at` is `key`.
    fn is(&self, page: &Page, at: usize, key: &[u8]) -> Result<bool, HashFileError> {
        match page.entry(at)? {
            Entry::Inline(octets) => Ok(octets == key),
            Entry::OffPage { first, len } => Ok(len == key.len() && self.chain(first, len)? == key),
        }
    }

    fn value(&self, page: &Page, at: usize) -> Result<Vec<u8>, HashFileError> {
        match page.entry(at)? {
            Entry::Inline(octets) => Ok(octets.to_vec()),
            Entry::OffPage { len, .. } if len > VALUE_MAX => {
                Err(page.damaged("a value of unbelievable length"))
            }
            Entry::OffPage { first, len } => self.chain(first, len),
        }
    }

    /// The `len` octets of an overflow chain.
    fn chain(&self, first: u32, len: usize) -> Result<Vec<u8>, HashFileError> {
        let mut octets = Vec::new();
        let mut number = first;
        while octets.len() < len {
            let page = self.page(number)?;
            let piece = page.overflow()?;
            if piece.is_empty() || piece.len() > len - octets.len() {
                return Err(page.damaged("an overflow chain of another length"));
            }
            octets.extend_from_slice(piece);
            number = page.next()?;
        }
        Ok(octets)
    }
}

/// A page that was read.
struct Page {
    number: u32,
    order: Order,
    octets: Vec<u8>,
}

/// A key or a value.
enum Entry<'a> {
    Inline(&'a [u8]),
    OffPage { first: u32, len: usize },
}

impl Page {
    fn damaged(&self, what: &'static str) -> HashFileError {
        HashFileError::Damaged { page: self.number, what }
    }

    fn kind(&self) -> u8 {
        self.octets.get(25).copied().unwrap_or_default()
    }

    fn next(&self) -> Result<u32, HashFileError> {
        self.order.u32(&self.octets, 16).ok_or_else(|| self.damaged("no header"))
    }

    /// How many keys and values there are: an even number.
    fn entries(&self) -> Result<usize, HashFileError> {
        let entries = self.order.u16(&self.octets, 20).map(usize::from);
        entries
            .filter(|n| n % 2 == 0 && PAGE_HEADER_LEN + 2 * n <= self.octets.len())
            .ok_or_else(|| self.damaged("impossible number of entries"))
    }

    fn offset(&self, at: usize) -> Option<usize> {
        self.order.u16(&self.octets, PAGE_HEADER_LEN + 2 * at).map(usize::from)
    }

    /// Entry `at` ends where the one before it begins.
    fn entry(&self, at: usize) -> Result<Entry<'_>, HashFileError> {
        let end = match at.checked_sub(1) {
            Some(before) => self.offset(before),
            None => Some(self.octets.len()),
        };
        let octets = match (self.offset(at), end) {
            (Some(start), Some(end)) if start >= PAGE_HEADER_LEN => self.octets.get(start..end),
            _ => None,
        };
        let entry = match octets {
            Some([INLINE, rest @ ..]) => Some(Entry::Inline(rest)),
            Some(octets @ [OFF_PAGE, ..]) => self.off_page(octets),
            _ => None,
        };
        entry.ok_or_else(|| self.damaged("impossible entry"))
    }

    fn off_page(&self, entry: &[u8]) -> Option<Entry<'_>> {
        let first = self.order.u32(entry, 4)?;
        let len = usize::try_from(self.order.u32(entry, 8)?).ok()?;
        Some(Entry::OffPage { first, len })
    }

    /// The octets of this page of an overflow chain.
    fn overflow(&self) -> Result<&[u8], HashFileError> {
        let len = self.order.u16(&self.octets, 22).map(usize::from);
        len.filter(|_| self.kind() == OVERFLOW)
            .and_then(|len| self.octets.get(PAGE_HEADER_LEN..PAGE_HEADER_LEN + len))
            .ok_or_else(|| self.damaged("not a page of an overflow chain"))
    }
}

/// Fowler, Noll and Vo's function with the offset 0: multiply, then add without carry.
fn hash(key: &[u8]) -> u32 {
    key.iter().fold(0u32, |hash, &octet| hash.wrapping_mul(0x0100_0193) ^ u32::from(octet))
}

/// What a file without the magic number is.
fn foreign(meta: &[u8]) -> &'static str {
    let magic = |at| Order::Little.u32(meta, at).unwrap_or_default();
    let is = |found: u32, numbers: &[u32]| {
        numbers.contains(&found) || numbers.contains(&found.swap_bytes())
    };
    match () {
        () if is(magic(0), &[0x1357_9ace, 0x1357_9acd, 0x1357_9acf, 0x1357_9ad0, 0x1357_9ad1]) => {
            "a gdbm file"
        }
        () if is(magic(16), &[0xbeef_c0de]) => "an lmdb file",
        () if is(magic(12), &[0x0005_3162]) => "a Berkeley DB btree",
        () if is(magic(0), &[0x0006_1561, 0x0005_3162]) => "a Berkeley DB 1.85 file",
        () => "not a data base of saslpasswd2",
    }
}
