//! The identity of a message: the SHA-1 of its octets.

use std::fmt;

/// SHA-1 of a message as stored, printed as 40 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid([u8; 20]);

impl Guid {
    /// Reads exactly 40 hex digits, of either case.
    pub fn from_hex(text: &[u8]) -> Option<Guid> {
        let mut bytes = [0u8; 20];
        if text.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let (high, low) = (hex_digit(pair[0])?, hex_digit(pair[1])?);
            *byte = high << 4 | low;
        }
        Some(Guid(bytes))
    }

    /// Its 40 lower-case hex digits.
    pub fn hex(&self) -> [u8; 40] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 40];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        text
    }

    /// The 20 octets.
    pub fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }
}

impl From<[u8; 20]> for Guid {
    fn from(bytes: [u8; 20]) -> Guid {
        Guid(bytes)
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.hex()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guid({self})")
    }
}

fn hex_digit(c: u8) -> Option<u8> {
    char::from(c).to_digit(16).map(|d| d as u8)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn prints_lower_case_and_reads_either() {
        let text = "4EEA1e78e5032625a64f9ba26611156942a8f86a";
        let guid = Guid::from_hex(text.as_bytes()).unwrap();
        assert_eq!(guid.to_string(), text.to_lowercase());
    }

    #[test]
    fn refuses_other_lengths_and_letters() {
        let good = [b'a'; 40];
        assert!(Guid::from_hex(&good).is_some());
        assert!(Guid::from_hex(&good[..39]).is_none());
        assert!(Guid::from_hex(&[b'a'; 41]).is_none());
        assert!(Guid::from_hex(&[b'g'; 40]).is_none());
        assert!(Guid::from_hex(b"").is_none());
    }
}
