//! Which messages are like each other.
//!
//! Deflate finds what was said before no farther back than 32 KiB, some six messages. Those of one
//! list and one sender share their header, their signature and what they quote: side by side they
//! take an eighth less space. The order of messages within a line of the log means nothing.

/// Octets of a message in which its header is looked at.
pub(super) const HEAD: usize = 8 * 1024;
/// Octets of a value that count.
const VALUE: usize = 64;

/// By what to sort messages, given their first octets.
pub(super) fn key(head: &[u8]) -> Vec<u8> {
    let (mut list, mut from) = (None, None);
    for line in head.split(|&octet| octet == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        let value = |name| value_of(line, name);
        list = list.or_else(|| value(b"list-id:"));
        from = from.or_else(|| value(b"from:"));
    }
    let mut key = list.unwrap_or_default().to_ascii_lowercase();
    key.push(0);
    key.extend_from_slice(&from.unwrap_or_default().to_ascii_lowercase());
    key
}

/// What the field of this name says, in small letters, on its first line.
fn value_of<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    let value = &value[..value.len().min(VALUE)];
    start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_and_sender() {
        let text = b"Received: x\r\n\tFrom: nobody\r\nFROM:  Tom <t@x>\r\nList-ID: <a.b>\r\n\r\n\
                     List-Id: other\r\n";
        assert_eq!(key(text), b"<a.b>\0tom <t@x>");
        assert_eq!(key(b"From: a\nfrom: b\n\n"), b"\0a");
        assert_eq!(key(b"From"), b"\0");
        assert_eq!(key(b"\r\nFrom: a\r\n"), b"\0");
        assert_eq!(key(&[b"From:", &[b'x'; 900][..]].concat()).len(), 1 + VALUE);
    }
}
