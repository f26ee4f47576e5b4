//! The grammar of dlist text: a cursor that knows where a value ends.

use std::borrow::Cow;

use super::read::{KvList, List, Value};
use super::{DEPTH_MAX, FIELDS_MAX, FileHeader, SyntaxError, number};

/// A place in a text that is being read.
#[derive(Clone, Debug)]
pub(super) struct Scanner<'a> {
    text: &'a [u8],
    pub(super) at: usize,
    /// What is inside lists was looked at before: their ends are all that is wanted.
    is_checked: bool,
}

impl<'a> Scanner<'a> {
    /// At the beginning of a text that nobody has looked at.
    pub(super) fn new(text: &'a [u8]) -> Scanner<'a> {
        Scanner { text, at: 0, is_checked: false }
    }

    /// At the beginning of what another one has found to be well formed.
    pub(super) fn checked(text: &'a [u8]) -> Scanner<'a> {
        Scanner { text, at: 0, is_checked: true }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    pub(super) fn at_end(&self) -> bool {
        self.at >= self.text.len()
    }

    fn error<T>(&self, what: &'static str) -> Result<T, SyntaxError> {
        Err(SyntaxError { what, at: self.at })
    }

    pub(super) fn eat(&mut self, expected: &[u8]) -> bool {
        let found = self.text[self.at..].starts_with(expected);
        if found {
            self.at += expected.len();
        }
        found
    }

    pub(super) fn skip_space(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
    }

    pub(super) fn end(&mut self) -> Result<(), SyntaxError> {
        self.skip_space();
        if self.at_end() { Ok(()) } else { self.error("unexpected text behind the value") }
    }

    pub(super) fn key_value(
        &mut self,
        depth: usize,
    ) -> Result<(Cow<'a, [u8]>, Value<'a>), SyntaxError> {
        let start = self.at;
        let is_bare = !matches!(self.peek(), Some(b'"' | b'{'));
        let key = self.string()?;
        // The name of a list is printed as it is: one that could not stand bare would read
        // as something else, a line of its own for one.
        let is_name = |key: &[u8]| {
            !key.contains(&0) && (is_bare || key.iter().all(|&c| c > b' ' && !is_special(c)))
        };
        if !self.is_checked && !is_name(&key) {
            return Err(SyntaxError { what: "a name that is no atom", at: start });
        }
        self.skip_space();
        Ok((key, self.value(depth)?))
    }

    pub(super) fn value(&mut self, depth: usize) -> Result<Value<'a>, SyntaxError> {
        if depth > DEPTH_MAX {
            return self.error("nested too deeply");
        }
        match self.peek() {
            Some(b'(') => {
                self.at += 1;
                let span = match self.is_checked {
                    true => self.skim(false)?,
                    false => self.span(|scanner| scanner.value(depth + 1).map(drop))?,
                };
                Ok(Value::List(List { span }))
            }
            Some(b'%') if self.eat(b"%(") => {
                let span = match self.is_checked {
                    true => self.skim(true)?,
                    false => {
                        let mut left = FIELDS_MAX;
                        self.span(|scanner| match left.checked_sub(1) {
                            None => scanner.error("too many fields"),
                            Some(rest) => {
                                left = rest;
                                scanner.key_value(depth + 1).map(drop)
                            }
                        })?
                    }
                };
                Ok(Value::KvList(KvList { span }))
            }
            Some(b'%') if self.text[self.at..].starts_with(b"%{") => self.file(),
            Some(b'%') => self.error("% without a list"),
            Some(b'\\') => {
                let start = self.at;
                self.at += 1;
                self.atom_run();
                Ok(Value::Flag(&self.text[start..self.at]))
            }
            Some(b'{' | b'"') => Ok(Value::Atom(self.string()?)),
            _ => match self.string()? {
                Cow::Borrowed(b"NIL") => Ok(Value::Nil),
                text => Ok(Value::Atom(text)),
            },
        }
    }

    /// Reads elements up to the closing bracket; the span is what they cover.
    fn span(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), SyntaxError>,
    ) -> Result<&'a [u8], SyntaxError> {
        let start = self.at;
        loop {
            self.skip_space();
            match self.peek() {
                None => return self.error("list without an end"),
                Some(b')') => {
                    self.at += 1;
                    return Ok(&self.text[start..self.at - 1]);
                }
                Some(_) => element(self)?,
            }
        }
    }

    /// The span of a list or kvlist that was checked before, found without looking at its
    /// elements: a line with 100,000 records is walked several times.
    fn skim(&mut self, is_kv: bool) -> Result<&'a [u8], SyntaxError> {
        let start = self.at;
        // A bit for each list that is open, the innermost one lowest: whether it is a kvlist, and
        // whether what comes next in it is a key. In a key, `%` is a letter like any other.
        let (mut kv, mut key) = (u64::from(is_kv), u64::from(is_kv));
        let mut depth = 1;
        loop {
            self.skip_space();
            let Some(c) = self.peek() else { return self.error("list without an end") };
            let may_nest = key & 1 == 0;
            match c {
                b')' => {
                    self.at += 1;
                    depth -= 1;
                    (kv, key) = (kv >> 1, key >> 1);
                    if depth == 0 {
                        return Ok(&self.text[start..self.at - 1]);
                    }
                }
                b'(' if depth <= DEPTH_MAX => {
                    self.at += 1;
                    depth += 1;
                    (kv, key) = (kv << 1, key << 1);
                    continue;
                }
                b'%' if may_nest && depth <= DEPTH_MAX && self.eat(b"%(") => {
                    depth += 1;
                    (kv, key) = (kv << 1 | 1, key << 1 | 1);
                    continue;
                }
                b'%' if may_nest && self.text[self.at..].starts_with(b"%{") => {
                    self.file()?;
                }
                b'"' => self.skim_quoted()?,
                b'{' => {
                    self.literal()?;
                }
                b'(' => return self.error("nested too deeply"),
                _ => self.atom_run(),
            }
            // A key or a value has ended.
            key ^= kv & 1;
        }
    }

    fn skim_quoted(&mut self) -> Result<(), SyntaxError> {
        let mut at = self.at + 1;
        while let Some(&c) = self.text.get(at) {
            match c {
                b'"' => {
                    self.at = at + 1;
                    return Ok(());
                }
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        self.error("quoted string without an end")
    }

    fn file(&mut self) -> Result<Value<'a>, SyntaxError> {
        let start = self.at;
        let Some(len) = self.text[start..].iter().position(|&c| c == b'\n') else {
            return self.error("message header without an end");
        };
        let text = &self.text[start..start + len];
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        match FileHeader::parse(text) {
            Some(header) => {
                self.at = start + len + 1;
                Ok(Value::File(header))
            }
            None => self.error("bad message header"),
        }
    }

    #[inline]
    pub(super) fn string(&mut self) -> Result<Cow<'a, [u8]>, SyntaxError> {
        match self.peek() {
            Some(b'"') => self.quoted(),
            Some(b'{') => self.literal().map(Cow::Borrowed),
            _ => {
                let start = self.at;
                self.atom_run();
                if self.at == start {
                    return self.error("a value is missing");
                }
                Ok(Cow::Borrowed(&self.text[start..self.at]))
            }
        }
    }

    fn atom_run(&mut self) {
        let rest = &self.text[self.at..];
        let len = rest.iter().position(|&c| ENDS_ATOM[usize::from(c)]).unwrap_or(rest.len());
        self.at += len;
    }

    fn quoted(&mut self) -> Result<Cow<'a, [u8]>, SyntaxError> {
        self.at += 1;
        let start = self.at;
        let mut unescaped: Option<Vec<u8>> = None;
        loop {
            let Some(mut c) = self.peek() else {
                return self.error("quoted string without an end");
            };
            if c == b'"' {
                let plain = &self.text[start..self.at];
                self.at += 1;
                return Ok(unescaped.map_or(Cow::Borrowed(plain), Cow::Owned));
            }
            if c == b'\\' {
                unescaped.get_or_insert_with(|| self.text[start..self.at].to_vec());
                self.at += 1;
                c = match self.peek() {
                    Some(c) => c,
                    None => return self.error("quoted string without an end"),
                };
            } else if matches!(c, b'\r' | b'\n') {
                return self.error("line end in a quoted string");
            }
            if let Some(text) = &mut unescaped {
                text.push(c);
            }
            self.at += 1;
        }
    }

    fn literal(&mut self) -> Result<&'a [u8], SyntaxError> {
        self.at += 1;
        let digits = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        let length = number(&self.text[digits..self.at]);
        self.eat(b"+");
        if !self.eat(b"}") || !(self.eat(b"\r\n") || self.eat(b"\n")) {
            return self.error("bad literal header");
        }
        let start = self.at;
        let end = length
            .and_then(|n| usize::try_from(n).ok())
            .and_then(|n| start.checked_add(n))
            .filter(|&end| end <= self.text.len());
        match end {
            Some(end) => {
                self.at = end;
                Ok(&self.text[start..end])
            }
            None => self.error("literal longer than the text"),
        }
    }
}

/// Octets at which an atom ends.
const ENDS_ATOM: [bool; 256] = {
    let mut table = [false; 256];
    let ends = b" \t\r\n()\"";
    let mut i = 0;
    while i < ends.len() {
        table[ends[i] as usize] = true;
        i += 1;
    }
    table
};

fn is_special(c: u8) -> bool {
    matches!(c, b'(' | b')' | b'{' | b'"' | b'%' | b'*' | b'\\' | 0x7f..)
}

fn is_space(c: u8) -> bool {
    matches!(c, b' ' | b'\t' | b'\r' | b'\n')
}
