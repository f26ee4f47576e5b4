//! Whether a message says what is looked for.

use std::io::{self, Read};

use mailparse::{MailHeader, ParsedMail, parse_headers};

use super::decode::Decoder;
use super::{HEADER_MAX, Query, Summary};

/// Octets of a message in which a text is looked for.
const TEXT_MAX: u64 = 16 << 20;

/// Texts in lower case.
pub(super) struct Needle {
    headers: Vec<(String, String)>,
    text: Option<String>,
}

impl Needle {
    pub(super) fn of(query: &Query) -> Needle {
        let lower = |(name, text): &(String, String)| (name.clone(), text.to_lowercase());
        Needle {
            headers: query.headers.iter().map(lower).collect(),
            text: query.text.as_ref().map(|text| text.to_lowercase()),
        }
    }

    /// Reads no more than it must; `None` if the message does not say so.
    pub(super) fn find(&self, octets: &mut dyn Read) -> io::Result<Option<Summary>> {
        let max = if self.text.is_some() { TEXT_MAX } else { HEADER_MAX };
        let mut message = Vec::new();
        octets.take(max).read_to_end(&mut message)?;
        Ok(self.find_in(&message))
    }

    fn find_in(&self, message: &[u8]) -> Option<Summary> {
        // What has no header at all can still be found by its text.
        let headers = parse_headers(message).map(|(headers, _)| headers).unwrap_or_default();
        let decoder = Decoder::new();
        let has = |(name, text): &(String, String)| {
            let named =
                headers.iter().filter(|header| header.get_key_ref().eq_ignore_ascii_case(name));
            named.into_iter().any(|header| decoder.value(header).to_lowercase().contains(text))
        };
        let is_found = self.headers.iter().all(has)
            && self.text.as_ref().is_none_or(|text| says(message, &headers, text, &decoder));
        is_found.then(|| Summary::from(&headers[..]))
    }
}

fn says(message: &[u8], headers: &[MailHeader<'_>], text: &str, decoder: &Decoder) -> bool {
    let in_header = |header: &MailHeader<'_>| {
        let has = |words: String| words.to_lowercase().contains(text);
        has(decoder.value(header)) || has(header.get_key())
    };
    if headers.iter().any(in_header) {
        return true;
    }
    match decoder.parts(message) {
        Some(mail) => mail.parts().any(|part| says_part(part, text)),
        None => String::from_utf8_lossy(message).to_lowercase().contains(text),
    }
}

fn says_part(part: &ParsedMail<'_>, text: &str) -> bool {
    part.subparts.is_empty()
        && part.ctype.mimetype.starts_with("text/")
        && part.get_body().is_ok_and(|body| body.to_lowercase().contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finds(query: &Query, message: &[u8]) -> bool {
        Needle::of(query).find_in(message).is_some()
    }

    #[test]
    fn headers_are_decoded_and_case_does_not_count() {
        let message = b"From: =?utf-8?q?J=C3=9Crgen?= <j@example.org>\r\nSubject: \
            =?iso-8859-1?Q?caf=E9?=\r\n au lait\r\n\r\nbody";
        let header = |name: &str, text: &str| Query {
            headers: vec![(name.to_owned(), text.to_owned())],
            ..Query::default()
        };
        for (name, text, expected) in [
            ("from", "j\u{fc}rgen", true),
            ("FROM", "example.org", true),
            ("subject", "CAF\u{c9} au", true),
            ("subject", "body", false),
            ("to", "", false),
        ] {
            assert_eq!(finds(&header(name, text), message), expected, "{name} {text}");
        }
    }

    #[test]
    fn texts_are_found_behind_their_encodings() {
        let text = |text: &str| Query { text: Some(text.to_owned()), ..Query::default() };
        let message = b"Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\
            Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n\
            R3LDvMOfZSBhdXMgV2llbg==\r\n--b\r\nContent-Type: application/pdf\r\n\r\nsecret\r\n\
            --b--\r\n";
        assert!(finds(&text("gr\u{fc}\u{df}e aus"), message));
        assert!(!finds(&text("secret"), message));
        assert!(finds(&text("mixed"), message));
        assert!(finds(&text("no header"), b"there is no header here"));
        assert!(!finds(&text("else"), b""));
    }

    /// Each of these took the decoder hours.
    #[test]
    fn marks_without_end_cost_no_time() {
        let text = |text: &str| Query { text: Some(text.to_owned()), ..Query::default() };
        let marks = " =?".repeat(1 << 20);
        let rest = "\r\nSubject: =?utf-8?q?J=C3=BCrgen?=\r\n\r\nThe body.\r\n";
        for name in ["X", "Content-Type", "content-transfer-encoding"] {
            let message = format!("{name}:{marks} last{rest}");
            assert!(finds(&text("last"), message.as_bytes()), "{name}");
            assert!(finds(&text("the body"), message.as_bytes()), "{name}");
            let headers = vec![("subject".to_owned(), "j".to_owned())];
            let query = Query { headers, ..Query::default() };
            assert!(finds(&query, message.as_bytes()), "{name}");
        }
        let folded = format!("Subject:{}\r\n\r\n", "\r\n =?x?= =?".repeat(1 << 18));
        assert!(!finds(&text("nothing"), folded.as_bytes()));
        let words = format!("Subject: {}\r\n\r\n", "=?utf-8?q?x?= ".repeat(1 << 16));
        assert!(!finds(&text("nothing"), words.as_bytes()));
    }
}
