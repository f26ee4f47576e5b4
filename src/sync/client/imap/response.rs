//! One response of an IMAP server, of those that are asked for here.
//!
//! ```text
//! response = "*" SP *( word / quoted / literal / "(" / ")" / SP ) CRLF
//! literal  = "{" number "}" CRLF *OCTET
//! ```
//!
//! Brackets belong to the word in front of them, up to the closing one: `BODY[HEADER.FIELDS
//! (MESSAGE-ID)]`.

use std::io;

use jiff::fmt::strtime;

use super::super::talk::Talk;
use super::{Identity, Names};

/// Octets of a response, literals included. Headers that are asked for are short.
const RESPONSE_MAX: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Open,
    Close,
    Word(Vec<u8>),
    /// Quoted, or a literal.
    Text(Vec<u8>),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Response {
    tokens: Vec<Token>,
}

/// Reads a response whose first line was read, with its literals.
pub(super) fn read(mut line: Vec<u8>, talk: &mut Talk) -> io::Result<Response> {
    let mut response = Response::default();
    let mut total = line.len();
    loop {
        let Some(len) = response.add(&line)? else { return Ok(response) };
        total = total.saturating_add(len);
        if total > RESPONSE_MAX {
            return Err(broken("a response without end"));
        }
        let mut literal = Vec::with_capacity(len);
        while literal.len() < len {
            let input = talk.stream.input()?;
            let taken = input.len().min(len - literal.len());
            literal.extend_from_slice(&input[..taken]);
            talk.stream.skip(taken);
        }
        response.tokens.push(Token::Text(literal));
        line = talk.read_line()?;
        total += line.len();
    }
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Response {
    /// Adds the tokens of a line; the length of the literal that follows it, if one does.
    fn add(&mut self, line: &[u8]) -> io::Result<Option<usize>> {
        let mut rest = line;
        loop {
            rest = rest.trim_ascii_start();
            let Some(&first) = rest.first() else { return Ok(None) };
            rest = match first {
                b'(' => self.push(Token::Open, &rest[1..]),
                b')' => self.push(Token::Close, &rest[1..]),
                b'"' => {
                    let (text, behind) = quoted(&rest[1..])?;
                    self.push(Token::Text(text), behind)
                }
                b'{' if rest.ends_with(b"}") => {
                    let digits = std::str::from_utf8(&rest[1..rest.len() - 1]).ok();
                    let len = digits.and_then(|digits| digits.parse().ok());
                    return len.map(Some).ok_or_else(|| broken("bad length of a literal"));
                }
                _ => {
                    let end = word_end(rest);
                    self.push(Token::Word(rest[..end].to_vec()), &rest[end..])
                }
            };
        }
    }

    fn push<'l>(&mut self, token: Token, rest: &'l [u8]) -> &'l [u8] {
        self.tokens.push(token);
        rest
    }

    fn word(&self, at: usize) -> Option<&[u8]> {
        match self.tokens.get(at)? {
            Token::Word(word) => Some(word),
            _ => None,
        }
    }

    fn is(&self, at: usize, name: &str) -> bool {
        self.word(at).is_some_and(|word| word.eq_ignore_ascii_case(name.as_bytes()))
    }

    fn text(&self, at: usize) -> Option<&[u8]> {
        match self.tokens.get(at)? {
            Token::Text(text) => Some(text),
            _ => None,
        }
    }

    fn number(&self, at: usize) -> Option<u64> {
        std::str::from_utf8(self.word(at)?).ok()?.parse().ok()
    }

    /// `* n EXISTS`
    pub(super) fn exists(&self) -> Option<u64> {
        if self.is(2, "EXISTS") { self.number(1) } else { None }
    }

    /// `* LIST (flags) "/" ""`
    pub(super) fn separator(&self) -> Option<char> {
        let close = self.tokens.iter().position(|token| *token == Token::Close)?;
        let text = self.text(close + 1).filter(|_| self.is(1, "LIST"))?;
        text.first().filter(|c| c.is_ascii_graphic()).map(|c| char::from(*c))
    }

    /// `* NAMESPACE (("INBOX." ".")) ...`: the first one of the user's own.
    pub(super) fn namespace(&self) -> Option<Names> {
        let is_list = self.tokens.get(2..4) == Some(&[Token::Open, Token::Open]);
        if !self.is(1, "NAMESPACE") || !is_list {
            return None;
        }
        let prefix = std::str::from_utf8(self.text(4)?).ok()?;
        let separator = self.text(5).and_then(|text| text.first());
        let separator = separator.filter(|c| c.is_ascii_graphic()).map(|c| char::from(*c));
        Some(Names { prefix: prefix.to_owned(), separator })
    }

    /// `* n FETCH (... RFC822.SIZE n INTERNALDATE "date" BODY[HEADER.FIELDS (MESSAGE-ID)] text)`
    pub(super) fn identity(&self) -> Option<Identity> {
        if !self.is(2, "FETCH") {
            return None;
        }
        let at = |name: &str| (3..self.tokens.len()).find(|at| self.is(*at, name));
        let size = self.number(at("RFC822.SIZE")? + 1)?;
        let date = at("INTERNALDATE").and_then(|at| unix(self.text(at + 1)?)).unwrap_or_default();
        let is_header = |at: &usize| {
            self.word(*at).is_some_and(|word| word.to_ascii_uppercase().starts_with(b"BODY["))
        };
        let header = (3..self.tokens.len()).find(is_header);
        let head = header.and_then(|at| self.text(at + 1)).unwrap_or_default();
        Some(Identity::of(head, size, date))
    }
}

/// RFC 3501, `date-time`, to Unix time.
fn unix(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let parsed = strtime::parse("%d-%b-%Y %H:%M:%S %z", text).ok()?;
    Some(parsed.to_timestamp().ok()?.as_second())
}

fn quoted(rest: &[u8]) -> io::Result<(Vec<u8>, &[u8])> {
    let mut text = Vec::new();
    let mut octets = rest.iter().enumerate();
    while let Some((at, c)) = octets.next() {
        match c {
            b'"' => return Ok((text, &rest[at + 1..])),
            b'\\' => text.extend(octets.next().map(|(_, c)| *c)),
            c => text.push(*c),
        }
    }
    Err(broken("a quoted string without end"))
}

/// Where a word ends; what stands in brackets belongs to it.
fn word_end(rest: &[u8]) -> usize {
    let mut depth = 0u32;
    for (at, c) in rest.iter().enumerate() {
        match c {
            b'[' => depth += 1,
            b']' => depth = depth.saturating_sub(1),
            b' ' | b'(' | b')' if depth == 0 => return at,
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn response(lines: &[&str]) -> Response {
        let mut response = Response::default();
        for line in lines {
            match line.strip_prefix("literal ") {
                Some(text) => response.tokens.push(Token::Text(text.as_bytes().to_vec())),
                None => drop(response.add(line.as_bytes()).unwrap()),
            }
        }
        response
    }

    #[test]
    fn what_is_asked_for_is_found() {
        assert_eq!(response(&["* 17 EXISTS"]).exists(), Some(17));
        assert_eq!(response(&["* 17 RECENT"]).exists(), None);
        assert_eq!(response(&["* LIST (\\Noselect) \"/\" \"\""]).separator(), Some('/'));
        assert_eq!(response(&["* LIST (\\Noselect) \".\" \"\""]).separator(), Some('.'));
        assert_eq!(response(&["* LIST (\\Noselect) NIL \"\""]).separator(), None);
        let names = response(&["* NAMESPACE ((\"INBOX.\" \".\")) NIL ((\"\" \".\"))"]).namespace();
        assert_eq!(names, Some(Names { prefix: "INBOX.".into(), separator: Some('.') }));
        assert_eq!(response(&["* NAMESPACE NIL NIL NIL"]).namespace(), None);
    }

    #[test]
    fn messages_are_the_same_on_both_sides() {
        let there = response(&[
            "* 1 FETCH (UID 7 RFC822.SIZE 42 INTERNALDATE \" 1-Nov-2026 12:00:00 +0100\" \
             BODY[HEADER.FIELDS (MESSAGE-ID)] {21}",
            "literal Message-ID: <a@b>\r\n\r\n",
            " FLAGS (\\Seen))",
        ]);
        let here = Identity::of(b"Subject: x\r\nMessage-Id: <a@b>\r\n\r\nbody", 42, 5);
        assert_eq!(there.identity(), Some(here));
        let there =
            response(&["* 1 FETCH (RFC822.SIZE 42 INTERNALDATE \"21-Nov-2026 08:52:06 +0100\" \
             BODY[HEADER.FIELDS (\"MESSAGE-ID\")] \"\")"]);
        assert_eq!(there.identity(), Some(Identity::of(b"", 42, 1_795_247_526)));
        assert_eq!(response(&["* 1 FETCH (FLAGS ())"]).identity(), None);
    }

    #[test]
    fn broken_responses_are_refused() {
        for line in ["* X {12x}", "* X {99999999999999999999}", "* X \"abc", "* X \"abc\\"] {
            assert!(Response::default().add(line.as_bytes()).is_err(), "{line}");
        }
        for line in ["", "*", "* ", "* )(", "* 1 FETCH", "* NAMESPACE ((", "* LIST )"] {
            let response = response(&[line]);
            assert_eq!(response.identity(), None, "{line}");
            assert_eq!((response.exists(), response.separator()), (None, None));
            assert_eq!(response.namespace(), None);
        }
    }
}
