//! `SYNC_CRC`: a checksum over the living messages of a mailbox.
//!
//! The XOR, from 0, of the CRC-32 of one text for each record without `\Expunged`:
//!
//! ```text
//! <uid> SP <modseq> SP <last_updated> SP "(" <flags> ")" SP <internaldate> SP <guid>
//! ```
//!
//! where `<flags>` is the XOR of the CRC-32 of each flag in lower case.

use super::Guid;
use super::dlist::{Value, parse_value};

/// What counts of one record.
#[derive(Clone, Copy, Debug)]
pub struct CrcRecord<'a> {
    /// UID in its mailbox.
    pub uid: u32,
    /// Modification sequence.
    pub modseq: u64,
    /// Unix time, seconds.
    pub last_updated: i64,
    /// Text of the list of flags, without `\Expunged`.
    pub flags: &'a [u8],
    /// Unix time, seconds.
    pub internaldate: i64,
    /// The message.
    pub guid: &'a Guid,
}

impl CrcRecord<'_> {
    /// What the record adds (by XOR) to the checksum of its mailbox.
    pub fn crc(&self) -> u32 {
        let flags = parse_value(self.flags).unwrap_or(Value::Nil).as_list();
        let flags = flags.items().fold(0, |sum, flag| {
            sum ^ crc32fast::hash(&flag.as_text().unwrap_or_default().to_ascii_lowercase())
        });
        let CrcRecord { uid, modseq, last_updated, internaldate, guid, .. } = self;
        let text = format!("{uid} {modseq} {last_updated} ({flags}) {internaldate} {guid}");
        crc32fast::hash(text.as_bytes())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn crc(uid: u32, modseq: u64, updated: i64, flags: &str, internaldate: i64, guid: &str) -> u32 {
        let guid = Guid::from_hex(guid.as_bytes()).unwrap();
        let flags = flags.as_bytes();
        CrcRecord { uid, modseq, last_updated: updated, flags, internaldate, guid: &guid }.crc()
    }

    /// As sent by Cyrus 3.6.1.
    #[test]
    fn known_answers() {
        const ONE: &str = "4eea1e78e5032625a64f9ba26611156942a8f86a";
        const TWO: &str = "b49f7cbd049f20e9b2a96ed9d6f681a791d90f6c";
        let first = crc(1, 2, 1_795_250_341, "(\\Seen)", 1_600_000_000, ONE);
        assert_eq!(first, 4_267_957_342);
        let second = crc(2, 3, 1_795_250_342, "()", 1_600_000_000, TWO);
        assert_eq!(first ^ second, 3_748_668_327);
        let flagged = crc(1, 4, 1_795_250_342, "(\\Flagged \\Seen $Junk)", 1_600_000_000, ONE);
        assert_eq!(flagged, 3_223_070_767);
        assert_eq!(
            crc(
                1,
                2,
                1_795_247_751,
                "(\\Answered \\Flagged $Work)",
                1_795_247_751,
                "22ac83988af3fe4a86b1a64b30b71c4893ff02a7"
            ),
            1_042_875_512
        );
    }
}
