//! Members looked for ahead of those before them, so that several can be read at a time.
//!
//! Where a member ends is known once it is inflated. But each begins with a mark, and what else
//! has these octets is soon found out: so every mark is taken for the beginning of a member, and
//! what was read from there counts only if the member in front of it turns out to end there.

use std::io;

use memchr::memmem;

use crate::store::chunk::MEMBER_HEADER;
use crate::store::disk::Disk;

/// Octets looked through at a time.
const WINDOW: usize = 256 * 1024;
/// What every member begins with: magic number and deflate.
const MARK: &[u8] = MEMBER_HEADER.split_at(3).0;

/// Offsets at which members may begin.
pub(super) struct Marks<'f> {
    disk: &'f dyn Disk,
    /// Where `window` begins.
    at: u64,
    len: u64,
    window: Vec<u8>,
    /// Octets of it that were looked through.
    used: usize,
}

impl<'f> Marks<'f> {
    /// Those in `from..len`.
    pub(super) fn new(disk: &'f dyn Disk, from: u64, len: u64) -> Marks<'f> {
        Marks { disk, at: from, len, window: Vec::new(), used: 0 }
    }

    /// Reads on; `false` at the end.
    fn refill(&mut self) -> io::Result<bool> {
        self.window.drain(..self.used);
        self.at += self.used as u64;
        self.used = 0;
        let known = self.window.len();
        let left = self.len.saturating_sub(self.at + known as u64);
        self.window.resize(known + left.min(WINDOW as u64) as usize, 0);
        let got = self.disk.read_at(&mut self.window[known..], self.at + known as u64)?;
        self.window.truncate(known + got);
        Ok(got > 0)
    }
}

impl Iterator for Marks<'_> {
    type Item = io::Result<u64>;

    fn next(&mut self) -> Option<io::Result<u64>> {
        loop {
            let rest = &self.window[self.used..];
            if let Some(at) = memmem::find(rest, MARK) {
                self.used += at + 1;
                return Some(Ok(self.at + self.used as u64 - 1));
            }
            // A mark may have begun.
            self.used = self.window.len() - rest.len().min(MARK.len() - 1);
            match self.refill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn marks_are_found_wherever_they_lie() {
        let places = [0, 3, 700, WINDOW - 2, WINDOW + 5, 2 * WINDOW - 1, 3 * WINDOW - 3];
        let mut octets = vec![0x1f; 3 * WINDOW];
        for at in places {
            octets[at..at + 3].copy_from_slice(MARK);
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&octets).unwrap();
        let marks = |from, len| -> Vec<usize> {
            Marks::new(&file, from, len).map(|at| at.unwrap() as usize).collect()
        };
        assert_eq!(marks(0, octets.len() as u64), places);
        assert_eq!(marks(1, 703), [3, 700]);
        assert_eq!(marks(1, 702), [3]);
        assert!(marks(5, 5).is_empty());
    }
}
