//! A tar stream (POSIX.1-2001, `pax`): `<folder>/<folder>/<uid>.eml`, with the time of the
//! message.
//!
//! ```text
//! entry  = [ extended ] header octets padding      all in blocks of 512 octets
//! header = name[100] mode[8] uid[8] gid[8] size[12] mtime[12] checksum[8] type[1]
//!          linkname[100] "ustar" NUL "00" ...      numbers octal, checksum with blanks in itself
//! extended = header of type x, then lines of: length SP key "=" value LF
//! ```

use std::io::{self, Read, Write};

use super::Sink;
use super::item::Item;

const BLOCK: usize = 512;
/// Octets of a name that fit into the header.
const NAME_MAX: usize = 100;
/// Largest size that does, in 11 octal digits.
const SIZE_MAX: u64 = (1 << 33) - 1;

/// Writes entries to a stream.
pub struct Tar<'o> {
    out: &'o mut dyn Write,
}

impl<'o> Tar<'o> {
    /// Writes to `out`.
    pub fn new(out: &'o mut dyn Write) -> Tar<'o> {
        Tar { out }
    }

    fn pad(&mut self, len: u64) -> io::Result<()> {
        let over = (len % BLOCK as u64) as usize;
        if over == 0 { Ok(()) } else { self.out.write_all(&[0; BLOCK][over..]) }
    }

    /// What does not fit into a header goes in front of it.
    fn extended(&mut self, name: &str, size: u64, time: i64) -> io::Result<()> {
        let mut text = String::new();
        if name.len() > NAME_MAX {
            text.push_str(&record("path", name));
        }
        if size > SIZE_MAX {
            text.push_str(&record("size", &size.to_string()));
        }
        if time < 0 || time as u64 > SIZE_MAX {
            text.push_str(&record("mtime", &time.to_string()));
        }
        if text.is_empty() {
            return Ok(());
        }
        let len = text.len() as u64;
        self.out.write_all(&header(b"extended", len, 0, b'x'))?;
        self.out.write_all(text.as_bytes())?;
        self.pad(len)
    }
}

impl Sink for Tar<'_> {
    fn message(&mut self, item: &Item, size: u64, octets: &mut dyn Read) -> io::Result<()> {
        let mut name: String = item.folder.directories().map(|part| part + "/").collect();
        name.push_str(&format!("{}.eml", item.stem()));
        self.extended(&name, size, item.internaldate)?;
        let short = &name.as_bytes()[..name.len().min(NAME_MAX)];
        self.out.write_all(&header(short, size, item.internaldate, b'0'))?;
        let copied = io::copy(octets, self.out)?;
        if copied != size {
            return Err(io::Error::other(format!("{copied} octets of {size} came")));
        }
        self.pad(size)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()
    }
}

/// `length key=value`, the length that of the whole record.
fn record(key: &str, value: &str) -> String {
    let body = key.len() + value.len() + 3;
    let mut len = body;
    while len != body + len.to_string().len() {
        len = body + len.to_string().len();
    }
    format!("{len} {key}={value}\n")
}

fn header(name: &[u8], size: u64, time: i64, kind: u8) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, name);
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", size.min(SIZE_MAX)).as_bytes());
    put(136, format!("{:011o}\0", (time.max(0) as u64).min(SIZE_MAX)).as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|&c| u32::from(c)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}
