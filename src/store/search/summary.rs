//! What a message says of itself at a glance.

use mailparse::{MailHeader, dateparse, parse_headers};

use super::decode::Decoder;

/// Octets of a message in which its header is looked for.
pub const HEADER_MAX: u64 = 256 * 1024;

/// What the header says, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Unix time, seconds.
    pub date: Option<i64>,
    /// Who sent it.
    pub from: String,
    /// What it is about.
    pub subject: String,
}

impl Summary {
    /// Of the beginning of a message.
    pub fn of(head: &[u8]) -> Summary {
        let parsed = parse_headers(head);
        parsed.map_or_else(|_| Summary::default(), |(headers, _)| Summary::from(&headers[..]))
    }
}

impl From<&[MailHeader<'_>]> for Summary {
    fn from(headers: &[MailHeader<'_>]) -> Summary {
        let decoder = Decoder::new();
        let text = |name| decoder.first(headers, name).unwrap_or_default();
        // The parser takes words that are no date for the epoch.
        let date = decoder.first(headers, "Date").and_then(|date| dateparse(&date).ok());
        Summary {
            date: date.filter(|date| *date != 0),
            from: text("From"),
            subject: text("Subject"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_decoded() {
        let head = b"From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>\r\nSubject: \
            =?iso-8859-1?Q?caf=E9?=\r\n folded\r\nDate: Sun, 1 Sep 2002 20:43:51 -0700\r\n\r\nx";
        let summary = Summary::of(head);
        assert_eq!(summary.from, "J\u{fc}rgen <j@example.org>");
        assert_eq!(summary.subject, "caf\u{e9} folded");
        assert_eq!(summary.date, Some(1_030_938_231));
    }

    #[test]
    fn what_has_no_header_has_no_summary() {
        for head in [&b""[..], b"\r\nbody", b"no header at all", b"\xff\xfe\0: \x80\r\n\r\n"] {
            assert_eq!(Summary::of(head).subject, "", "{head:?}");
        }
        assert_eq!(Summary::of(b"Date: when it was\r\n\r\n").date, None);
    }
}
