//! Cuts a byte stream into lines.
//!
//! A line ends at CRLF (or LF) outside a literal and outside a message body:
//!
//! ```text
//! literal = "{" number ["+"] "}" CRLF *OCTET          stays in the line
//! file    = "%{" astring SP guid SP number "}" CRLF *OCTET
//!           the header stays in the line, the octets (the body) do not
//! ```
//!
//! Both are recognised only where a value may begin. The framer knows no
//! other grammar; it reads the replication socket and the log alike. What is
//! too large is *poisoned*: read to its end, so that both sides stay in step
//! and no content can be taken for a command, and then refused.

use super::dlist::FileHeader;

/// Bounds on what one line may hold, in octets.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A line with its literals and its CR, without message bodies.
    pub line: usize,
    /// One literal.
    pub literal: u64,
    /// One message body.
    pub body: u64,
    /// Message bodies in one line (a count).
    pub bodies: usize,
}

impl Limits {
    /// What any line of a stored log may hold.
    pub const LOG: Limits =
        Limits { line: 1 << 30, literal: 1 << 30, body: u32::MAX as u64, bodies: 1 << 20 };
}

/// Why a line is refused although its end was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Poison {
    /// The line is longer than [`Limits::line`].
    #[error("line longer than {0} octets")]
    Line(usize),
    /// A literal is longer than [`Limits::literal`].
    #[error("literal of {0} octets exceeds the limit")]
    Literal(u64),
    /// A message is longer than [`Limits::body`].
    #[error("message of {0} octets exceeds the limit")]
    Body(u64),
    /// The header of a message names no GUID.
    #[error("bad message header")]
    Header,
    /// More message bodies than [`Limits::bodies`].
    #[error("more than {0} messages in one line")]
    Bodies(usize),
}

/// What [`Framer::next`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The input is used up; come back with more.
    More,
    /// The peer waits for `+` before it sends a literal (`{n}` without plus).
    Continue,
    /// A message body of so many octets follows, as its header says.
    BodyStart(FileHeader),
    /// The next octets of the body.
    Body(&'a [u8]),
    /// The body is complete.
    BodyEnd,
    /// A line is complete: see [`Framer::take_line`].
    Line,
    /// A length that cannot be true was announced: the end of the line cannot
    /// be known, the connection must be closed.
    Lost,
}

/// Announced lengths above this are never believed: message sizes are 32-bit.
const LENGTH_MAX: u64 = u32::MAX as u64;
/// Longest header of a message body: partition, guid and size.
const FILE_HEADER_MAX: usize = 4096;
/// `{`, twenty digits, `+`, `}`, CR.
const LITERAL_HEADER_MAX: usize = 24;
/// Room for lines that is kept for later ones, in octets.
const ROOM_MAX: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Where a value may begin.
    Start,
    /// A `%` was read where a value may begin.
    Percent,
    /// Inside an atom, or behind a value.
    Word,
    Quoted,
    QuotedEscape,
    /// Behind `{`; the text is gathered in `header`.
    LiteralHeader,
    Literal {
        left: u64,
    },
    /// Behind `%{`; the text is gathered in `header`.
    FileHeader {
        quoted: bool,
        /// Behind a backslash in a quoted text.
        escaped: bool,
    },
    Body {
        left: u64,
    },
}

/// The state of one stream; see the module.
#[derive(Debug)]
pub struct Framer {
    limits: Limits,
    line: Vec<u8>,
    header: Vec<u8>,
    state: State,
    poison: Option<Poison>,
    bodies: usize,
}

impl Framer {
    /// A framer at the start of a line.
    pub fn new(limits: Limits) -> Framer {
        Framer {
            limits,
            line: Vec::new(),
            header: Vec::new(),
            state: State::Start,
            poison: None,
            bodies: 0,
        }
    }

    /// Changes the bounds from the next octet on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Whether nothing of a next line was read yet.
    pub fn at_line_start(&self) -> bool {
        self.line.is_empty() && self.state == State::Start && self.poison.is_none()
    }

    /// Why the line under way will be refused, for those who need not stay in step.
    pub fn poisoned(&self) -> Option<Poison> {
        self.poison
    }

    /// The line that [`Event::Line`] announced, without its line end, bodies left
    /// out. The framer is then at the start of the next line.
    pub fn take_line(&mut self) -> Result<Vec<u8>, Poison> {
        let line = std::mem::take(&mut self.line);
        self.begin_line().map(|()| line)
    }

    /// The same for who only looks at it: its room is used for the next one.
    pub fn read_line<T>(&mut self, read: impl FnOnce(&[u8]) -> T) -> Result<T, Poison> {
        let result = read(&self.line);
        self.line.clear();
        self.line.shrink_to(ROOM_MAX);
        self.begin_line().map(|()| result)
    }

    /// Ends a line; why it is refused, if it is.
    fn begin_line(&mut self) -> Result<(), Poison> {
        self.state = State::Start;
        self.bodies = 0;
        self.poison.take().map_or(Ok(()), Err)
    }

    /// Consumes from `input` up to the next event.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Event<'a> {
        loop {
            match self.state {
                State::Body { left } => match self.body(left, input) {
                    Some(event) => return event,
                    None => continue,
                },
                State::Literal { left: 0 } => self.state = State::Word,
                State::Literal { left } => {
                    let piece = take(input, left);
                    self.keep(piece);
                    self.state = State::Literal { left: left - piece.len() as u64 };
                    if piece.is_empty() {
                        return Event::More;
                    }
                    continue;
                }
                State::Start | State::Word => self.words(input),
                State::Quoted => self.quoted_run(input),
                _ => {}
            }
            let Some((&c, rest)) = input.split_first() else {
                return Event::More;
            };
            *input = rest;
            if c != b'\n' {
                self.octet(c);
            } else if let Some(event) = self.line_feed() {
                return event;
            }
        }
    }

    /// Takes words and what separates them.
    fn words(&mut self, input: &mut &[u8]) {
        let mut may_begin = self.state == State::Start;
        let ends = |&c: &u8| {
            match CLASSES[usize::from(c)] {
                Class::Letter => may_begin = false,
                Class::Separator => may_begin = true,
                Class::Return => {}
                Class::Opening => return may_begin,
                Class::End => return true,
            }
            false
        };
        let len = input.iter().position(ends).unwrap_or(input.len());
        let run = take(input, len as u64);
        self.keep(run);
        self.state = if may_begin { State::Start } else { State::Word };
    }

    /// Takes what cannot end a quoted string.
    fn quoted_run(&mut self, input: &mut &[u8]) {
        let ends = |c: &u8| matches!(c, b'"' | b'\\' | b'\n');
        let len = input.iter().position(ends).unwrap_or(input.len());
        let run = take(input, len as u64);
        self.keep(run);
    }

    /// `None`: nothing to tell (the body belongs to a poisoned line), go on.
    fn body<'a>(&mut self, left: u64, input: &mut &'a [u8]) -> Option<Event<'a>> {
        let piece = take(input, left);
        self.state = State::Body { left: left - piece.len() as u64 };
        if left == 0 {
            // The next value may follow without a space.
            self.state = State::Start;
            return self.poison.is_none().then_some(Event::BodyEnd);
        }
        if piece.is_empty() {
            return Some(Event::More);
        }
        self.poison.is_none().then_some(Event::Body(piece))
    }

    fn octet(&mut self, c: u8) {
        self.keep(&[c]);
        self.state = match self.state {
            State::QuotedEscape => State::Quoted,
            State::Quoted if c == b'\\' => State::QuotedEscape,
            State::Quoted if c != b'"' => State::Quoted,
            State::Quoted => State::Word,
            State::LiteralHeader if in_literal_header(c) => {
                self.gather(c, LITERAL_HEADER_MAX, State::LiteralHeader)
            }
            State::FileHeader { quoted, escaped } => {
                let quoted = quoted ^ (c == b'"' && !escaped);
                let escaped = quoted && !escaped && c == b'\\';
                self.gather(c, FILE_HEADER_MAX, State::FileHeader { quoted, escaped })
            }
            State::Percent if c == b'{' => {
                self.header = b"%{".to_vec();
                State::FileHeader { quoted: false, escaped: false }
            }
            State::Percent if c == b'(' => State::Start,
            State::Start if c == b'{' => {
                self.header = b"{".to_vec();
                State::LiteralHeader
            }
            State::Start if c == b'%' => State::Percent,
            _ => match c {
                b' ' | b'\t' | b'(' | b')' => State::Start,
                b'"' => State::Quoted,
                _ => State::Word,
            },
        };
    }

    fn gather(&mut self, c: u8, max: usize, state: State) -> State {
        self.header.push(c);
        if self.header.len() < max { state } else { State::Word }
    }

    /// A line feed ends the line, unless it ends the header of a literal or of
    /// a body.
    fn line_feed(&mut self) -> Option<Event<'static>> {
        match self.state {
            State::LiteralHeader => {
                if let Some((length, waits)) = literal_header(&self.header) {
                    return self.literal_start(length, waits);
                }
            }
            State::FileHeader { quoted: false, .. } => {
                let text = without_cr(&self.header);
                if let Some(header) = FileHeader::parse(text) {
                    return self.body_start(header);
                }
                if let Some(text) = text.strip_suffix(b"}") {
                    return self.bad_header(FileHeader::size_of(text));
                }
            }
            _ => {}
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        Some(Event::Line)
    }

    fn literal_start(&mut self, length: u64, waits: bool) -> Option<Event<'static>> {
        if length > LENGTH_MAX {
            return Some(Event::Lost);
        }
        self.keep(b"\n");
        if length > self.limits.literal {
            self.poison(Poison::Literal(length));
        }
        self.state = State::Literal { left: length };
        waits.then_some(Event::Continue)
    }

    fn body_start(&mut self, header: FileHeader) -> Option<Event<'static>> {
        if header.size > LENGTH_MAX {
            return Some(Event::Lost);
        }
        self.keep(b"\n");
        self.bodies += 1;
        if header.size > self.limits.body {
            self.poison(Poison::Body(header.size));
        } else if self.bodies > self.limits.bodies {
            self.poison(Poison::Bodies(self.limits.bodies));
        }
        self.state = State::Body { left: header.size };
        self.poison.is_none().then_some(Event::BodyStart(header))
    }

    /// A header that is wrong but tells how many octets follow is read past.
    fn bad_header(&mut self, size: Option<u64>) -> Option<Event<'static>> {
        match size.filter(|size| *size <= LENGTH_MAX) {
            Some(size) => {
                self.poison(Poison::Header);
                self.state = State::Body { left: size };
                None
            }
            None => Some(Event::Lost),
        }
    }

    fn keep(&mut self, piece: &[u8]) {
        if self.line.len() + piece.len() > self.limits.line {
            self.poison(Poison::Line(self.limits.line));
        }
        if self.poison.is_none() {
            self.line.extend_from_slice(piece);
        }
    }

    fn poison(&mut self, poison: Poison) {
        self.poison.get_or_insert(poison);
        self.line = Vec::new();
    }
}

fn in_literal_header(c: u8) -> bool {
    c.is_ascii_digit() || matches!(c, b'+' | b'}' | b'\r')
}

/// `{n}` or `{n+}` with an optional CR behind it: the length, and whether the
/// peer waits for a go-ahead.
fn literal_header(text: &[u8]) -> Option<(u64, bool)> {
    let inner = without_cr(text).strip_prefix(b"{")?.strip_suffix(b"}")?;
    let (digits, waits) = match inner.strip_suffix(b"+") {
        Some(digits) => (digits, false),
        None => (inner, true),
    };
    Some((super::dlist::number(digits)?, waits))
}

fn without_cr(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"\r").unwrap_or(text)
}

fn take<'a>(input: &mut &'a [u8], at_most: u64) -> &'a [u8] {
    let len = usize::try_from(at_most).map_or(input.len(), |n| n.min(input.len()));
    let (piece, rest) = input.split_at(len);
    *input = rest;
    piece
}

/// What an octet is outside strings and headers.
#[derive(Clone, Copy)]
enum Class {
    Letter,
    /// A value may begin behind it.
    Separator,
    /// Changes nothing.
    Return,
    /// Where a value may begin it is not a letter.
    Opening,
    /// Of a run of words.
    End,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Letter; 256];
    let special = b" \t()\r{%\"\n";
    let mut i = 0;
    while i < special.len() {
        classes[special[i] as usize] = match special[i] {
            b'\r' => Class::Return,
            b'{' | b'%' => Class::Opening,
            b'"' | b'\n' => Class::End,
            _ => Class::Separator,
        };
        i += 1;
    }
    classes
};

#[cfg(test)]
mod tests;
