//! Which message is which, on two servers that number them differently.

use sha1::{Digest, Sha1};

/// What tells a message from all others in its mailbox: its Message-ID and size; or its
/// internal date and size, if it has no Message-ID. Copies have one identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity([u8; 20]);

impl Identity {
    /// Of a message that begins with `head`. `internaldate`: Unix time, seconds.
    pub fn of(head: &[u8], size: u64, internaldate: i64) -> Identity {
        Identity::new(message_id(head).as_deref(), size, internaldate)
    }

    fn new(message_id: Option<&[u8]>, size: u64, internaldate: i64) -> Identity {
        let mut hash = Sha1::new();
        hash.update(size.to_be_bytes());
        match message_id {
            Some(id) => {
                hash.update(b"i");
                hash.update(id);
            }
            None => {
                hash.update(b"d");
                hash.update(internaldate.to_be_bytes());
            }
        }
        Identity(hash.finalize().into())
    }
}

/// The first Message-ID of a header, without any white space. `None` if there is none.
fn message_id(head: &[u8]) -> Option<Vec<u8>> {
    const NAME: &[u8] = b"message-id";
    let mut found: Option<Vec<u8>> = None;
    for line in head.split_inclusive(|&c| c == b'\n') {
        let text = line.trim_ascii();
        if text.is_empty() {
            break;
        }
        let is_folded = matches!(line.first(), Some(b' ' | b'\t'));
        if let Some(id) = &mut found {
            if !is_folded {
                break;
            }
            id.extend(text.iter().filter(|c| !c.is_ascii_whitespace()));
        } else if let Some(colon) = text.iter().position(|&c| c == b':')
            && !is_folded
            && text[..colon].trim_ascii().eq_ignore_ascii_case(NAME)
        {
            let value = &text[colon + 1..];
            found = Some(value.iter().filter(|c| !c.is_ascii_whitespace()).copied().collect());
        }
    }
    found.filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_however_they_are_written() {
        let expected = Some(b"<a@b>".to_vec());
        for head in [
            "Message-ID: <a@b>\r\nX: y\r\n\r\n",
            "X: y\r\nmessage-id:<a@b>  \n",
            "MESSAGE-ID:\r\n <a@\r\n\tb>\r\nMessage-ID: <c@d>\r\n",
        ] {
            assert_eq!(message_id(head.as_bytes()), expected, "{head:?}");
        }
        for head in ["", "\r\nMessage-ID: <a@b>\r\n", "Message-ID:\r\n\r\n", "X: Message-ID: <a>"] {
            assert_eq!(message_id(head.as_bytes()), None, "{head:?}");
        }
    }

    #[test]
    fn a_date_counts_only_without_an_id() {
        let with = b"Message-ID: <a@b>\r\n\r\n";
        assert_eq!(Identity::of(with, 5, 1), Identity::of(with, 5, 2));
        assert_ne!(Identity::of(with, 5, 1), Identity::of(with, 6, 1));
        assert_ne!(Identity::of(b"", 5, 1), Identity::of(b"", 5, 2));
    }
}
