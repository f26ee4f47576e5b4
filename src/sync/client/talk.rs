//! Lines of either dialect: tags, status words, continuations.
//!
//! ```text
//!           csync                      IMAP
//! command   "APPLY MAILBOX ..."        "S7 SYNCAPPLY MAILBOX ..."
//! data      "* NAME value"             "* NAME value"
//! final     ("OK"/"NO"/"BAD") text     "S7 " ("OK"/"NO"/"BAD") text
//! going     "BYE" text                 "* BYE" text
//! ```

use std::io;
use std::time::{Duration, Instant};

use super::stream::{Patience, Stream};
use super::{Acknowledged, ClientError};
use crate::wire::dlist::lossy;

/// Longest line of a greeting or of a log-in, in octets.
const LINE_MAX: usize = 32 * 1024;
/// Most lines of one answer before the log-in is over.
const LINES_MAX: usize = 100;

/// The word in a final line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    No,
    Bad,
}

/// What a line of the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// Behind `* `.
    Data(&'a [u8]),
    /// Behind `+ `.
    Continue(&'a [u8]),
    /// Ends an answer; the text behind the word.
    Final(Status, &'a [u8]),
    /// The server goes away, and says why.
    Ended(&'a [u8]),
    /// A status that answers nothing (IMAP).
    Remark,
    /// Nothing of the kind.
    Strange,
}

/// Reads a line. `tag` is that of the command under way; csync has none.
pub(super) fn classify<'a>(line: &'a [u8], tag: Option<&str>) -> Line<'a> {
    let (first, rest) = split_word(line);
    if first == b"*" {
        let (second, text) = split_word(rest);
        return match (status(second), tag) {
            _ if second.eq_ignore_ascii_case(b"BYE") => Line::Ended(text),
            _ if second == b"Fatal" && text.starts_with(b"error") => Line::Ended(rest),
            (Some(_), Some(_)) => Line::Remark,
            _ => Line::Data(rest),
        };
    }
    if first == b"+" {
        return Line::Continue(rest);
    }
    let (word, text) = match tag {
        Some(tag) if first.eq_ignore_ascii_case(tag.as_bytes()) => split_word(rest),
        Some(_) => return Line::Strange,
        None => (first, rest),
    };
    match status(word) {
        Some(status) => Line::Final(status, text),
        None if word.eq_ignore_ascii_case(b"BYE") => Line::Ended(text),
        None => Line::Strange,
    }
}

fn status(word: &[u8]) -> Option<Status> {
    [(&b"OK"[..], Status::Ok), (b"NO", Status::No), (b"BAD", Status::Bad)]
        .into_iter()
        .find_map(|(name, status)| word.eq_ignore_ascii_case(name).then_some(status))
}

fn split_word(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|&c| c == b' ') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, b""),
    }
}

/// Text of the server for people: one line, of bearable length.
pub(super) fn shown(text: &[u8]) -> String {
    const SHOWN_MAX: usize = 300;
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    lossy(text).chars().take(SHOWN_MAX).map(clean).collect::<String>().trim().to_owned()
}

/// A dialogue in lines, as it is until the log-in is over.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) stream: Stream,
    pub(super) is_imap: bool,
    tag: u32,
}

/// The final line of an answer, and the data lines before it, whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) text: String,
    pub(super) data: Vec<String>,
}

impl Talk {
    pub(super) fn new(stream: Stream) -> Talk {
        Talk { stream, is_imap: false, tag: 0 }
    }

    /// The time for the next step as a whole.
    pub(super) fn allow(&mut self, time: Duration) {
        self.stream.set_patience(Patience::Until(Instant::now() + time));
    }

    /// A tag for the next command, if there are tags.
    pub(super) fn next_tag(&mut self) -> Option<String> {
        if !self.is_imap {
            return None;
        }
        let tag = format!("S{}", self.tag);
        self.tag += 1;
        Some(tag)
    }

    /// Sends a line at once.
    pub(super) fn send(&mut self, tag: Option<&str>, line: &str) -> io::Result<()> {
        let tag = tag.map(|tag| format!("{tag} ")).unwrap_or_default();
        self.stream.write(format!("{tag}{line}\r\n").as_bytes())?;
        self.stream.flush()
    }

    /// The next line without its end.
    pub(super) fn read_line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            let input = self.stream.input()?;
            let end = input.iter().position(|&c| c == b'\n');
            let len = end.map_or(input.len(), |at| at + 1);
            line.extend_from_slice(&input[..len]);
            self.stream.skip(len);
            if line.len() > LINE_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line without end"));
            }
            if end.is_some() {
                line.pop();
                line.pop_if(|c| *c == b'\r');
                return Ok(line);
            }
        }
    }

    /// Sends a command and reads its answer.
    pub(super) fn ask(&mut self, command: &str) -> Result<Answer, ClientError> {
        let tag = self.next_tag();
        self.send(tag.as_deref(), command).map_err(|error| lost(command, error))?;
        let mut data = Vec::new();
        for _ in 0..LINES_MAX {
            let line = self.read_line().map_err(|error| lost(command, error))?;
            match classify(&line, tag.as_deref()) {
                Line::Final(status, text) => {
                    return Ok(Answer { status, text: shown_whole(text), data });
                }
                Line::Data(_) | Line::Remark => data.push(shown_whole(&line)),
                Line::Ended(text) => return Err(ended(command, text)),
                Line::Continue(_) | Line::Strange => return Err(strange(command, &line)),
            }
        }
        Err(malformed(command, "too many lines"))
    }
}

/// Like [`shown`], but nothing is cut off.
fn shown_whole(text: &[u8]) -> String {
    lossy(text).into_owned()
}

/// The connection broke before it was of use.
pub(super) fn lost(during: &str, source: io::Error) -> ClientError {
    ClientError::NotEstablished { during: during.to_owned(), source }
}

pub(super) fn ended(during: &str, text: &[u8]) -> ClientError {
    ClientError::Ended {
        during: during.to_owned(),
        text: shown(text),
        acknowledged: Acknowledged::default(),
    }
}

pub(super) fn malformed(during: &str, what: &str) -> ClientError {
    ClientError::Malformed { during: during.to_owned(), what: what.to_owned() }
}

pub(super) fn strange(during: &str, line: &[u8]) -> ClientError {
    malformed(during, &format!("unexpected `{}`", shown(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_csync() {
        for (line, expected) in [
            (&b"OK success"[..], Line::Final(Status::Ok, b"success")),
            (b"OK", Line::Final(Status::Ok, b"")),
            (b"no IMAP_MAILBOX_LOCKED Mailbox locked", {
                Line::Final(Status::No, b"IMAP_MAILBOX_LOCKED Mailbox locked")
            }),
            (b"BAD x", Line::Final(Status::Bad, b"x")),
            (b"BYE shutting down", Line::Ended(b"shutting down")),
            (b"* MISSING (a b)", Line::Data(b"MISSING (a b)")),
            (b"* OK %(A 1)", Line::Data(b"OK %(A 1)")),
            (b"* Fatal error: x", Line::Ended(b"Fatal error: x")),
            (b"* BYE x", Line::Ended(b"x")),
            (b"+ go ahead", Line::Continue(b"go ahead")),
            (b"+", Line::Continue(b"")),
            (b"S0 OK x", Line::Strange),
            (b"", Line::Strange),
        ] {
            assert_eq!(classify(line, None), expected, "{line:?}");
        }
    }

    #[test]
    fn lines_of_imap() {
        for (line, expected) in [
            (&b"S7 OK success"[..], Line::Final(Status::Ok, b"success")),
            (b"s7 BAD x", Line::Final(Status::Bad, b"x")),
            (b"S8 OK success", Line::Strange),
            (b"OK success", Line::Strange),
            (b"* OK [ALERT] x", Line::Remark),
            (b"* BYE LOGOUT received", Line::Ended(b"LOGOUT received")),
            (b"* SIEVE %(A 1)", Line::Data(b"SIEVE %(A 1)")),
            (b"S7 NOTHING", Line::Strange),
        ] {
            assert_eq!(classify(line, Some("S7")), expected, "{line:?}");
        }
    }

    #[test]
    fn what_is_shown_is_one_line() {
        assert_eq!(shown(b" a\x07b\r\nc\xff "), "a b  c\u{fffd}");
        assert_eq!(shown(&[b'x'; 1000]).len(), 300);
    }
}
