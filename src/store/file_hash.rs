//! The SHA-1 of a growing file, which can be put away and continued.
//!
//! Every chunk row records the SHA-1 of all file octets in front of the chunk.
//! Hashing them anew at each open makes the cost of one new message grow with
//! what is stored; carrying the state makes it constant. What is put away is the
//! compression state at a multiple of 64 octets, so at most 63 octets are read
//! again.

use std::io;

use sha1::block_api::compress;

use super::disk::Disk;

/// FIPS 180-4, 5.3.1.
const INITIAL: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
const BLOCK: usize = 64;

/// A SHA-1 in progress.
#[derive(Clone, Debug)]
pub struct FileHash {
    words: [u32; 5],
    /// Octets hashed into `words`, a multiple of 64.
    hashed: u64,
    tail: Vec<u8>,
}

/// The state at a multiple of 64 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The five words of the compression state.
    pub words: [u32; 5],
    /// Octets hashed so far.
    pub hashed: u64,
}

impl Default for FileHash {
    fn default() -> FileHash {
        FileHash::resume(Checkpoint { words: INITIAL, hashed: 0 })
    }
}

impl FileHash {
    /// Continues from a state put away.
    pub fn resume(checkpoint: Checkpoint) -> FileHash {
        FileHash { words: checkpoint.words, hashed: checkpoint.hashed, tail: Vec::new() }
    }

    /// The state to put away: that of the last multiple of 64 octets.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { words: self.words, hashed: self.hashed }
    }

    /// Octets hashed in all.
    pub fn len(&self) -> u64 {
        self.hashed + self.tail.len() as u64
    }

    /// Whether nothing was hashed yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds octets.
    pub fn update(&mut self, mut data: &[u8]) {
        if !self.tail.is_empty() {
            let room = BLOCK - self.tail.len();
            let (head, rest) = data.split_at(room.min(data.len()));
            self.tail.extend_from_slice(head);
            data = rest;
            if self.tail.len() == BLOCK {
                let tail = std::mem::take(&mut self.tail);
                self.blocks(&tail);
            }
        }
        let whole = data.len() - data.len() % BLOCK;
        self.blocks(&data[..whole]);
        self.tail.extend_from_slice(&data[whole..]);
    }

    fn blocks(&mut self, data: &[u8]) {
        let (blocks, _) = data.as_chunks::<BLOCK>();
        compress(&mut self.words, blocks);
        self.hashed += data.len() as u64;
    }

    /// Adds the octets of `file` from where the hash stands up to `end`.
    pub fn update_from(&mut self, file: &dyn Disk, end: u64) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        while self.len() < end {
            let want = (end - self.len()).min(buffer.len() as u64) as usize;
            let got = file.read_at(&mut buffer[..want], self.len())?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.update(&buffer[..got]);
        }
        Ok(())
    }

    /// The SHA-1 of everything added, as 40 lower-case hex digits. The hash can
    /// go on.
    pub fn hex(&self) -> String {
        let mut last = self.tail.clone();
        last.push(0x80);
        while last.len() % BLOCK != BLOCK - 8 {
            last.push(0);
        }
        last.extend_from_slice(&(8 * self.len()).to_be_bytes());
        let mut words = self.words;
        compress(&mut words, last.as_chunks::<BLOCK>().0);
        words.iter().map(|word| format!("{word:08x}")).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use sha1::{Digest, Sha1};
    use std::io::Write;

    fn plain(data: &[u8]) -> String {
        Sha1::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn agrees_with_a_fresh_hash_at_every_length() {
        let data: Vec<u8> = (0..300u32).map(|i| (i * 7) as u8).collect();
        for len in 0..data.len() {
            let mut hash = FileHash::default();
            hash.update(&data[..len / 3]);
            hash.update(&data[len / 3..len]);
            assert_eq!(hash.hex(), plain(&data[..len]), "{len}");
            assert_eq!(hash.len(), len as u64);
        }
    }

    #[test]
    fn continues_from_a_checkpoint() {
        let data = vec![42u8; 100_000];
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&data).unwrap();
        let mut first = FileHash::default();
        first.update_from(&file, 70_001).unwrap();
        let mut second = FileHash::resume(first.checkpoint());
        assert_eq!(second.len(), 70_001 / 64 * 64);
        second.update_from(&file, 100_000).unwrap();
        assert_eq!(second.hex(), plain(&data));
        assert!(second.update_from(&file, 100_001).is_err());
    }
}
