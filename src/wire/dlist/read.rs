//! Reading dlist text without building a tree.

use std::borrow::Cow;

use super::{DEPTH_MAX, FileHeader, SyntaxError, number};
use crate::wire::Guid;

/// A value, borrowing from the text it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// `NIL`, bare and in upper case.
    Nil,
    /// A string, number, date, GUID or buffer: these look alike.
    Atom(Cow<'a, [u8]>),
    /// With its backslash.
    Flag(&'a [u8]),
    /// `( ... )`
    List(List<'a>),
    /// `%( ... )`
    KvList(KvList<'a>),
    /// The header of a message; its body travels beside the line.
    File(FileHeader),
}

impl<'a> Value<'a> {
    /// The text of an atom or flag.
    pub fn as_text(&self) -> Option<&[u8]> {
        match self {
            Value::Atom(text) => Some(text),
            Value::Flag(text) => Some(text),
            _ => None,
        }
    }

    /// A number: digits only, 64 bits.
    pub fn as_number(&self) -> Option<u64> {
        match self {
            Value::Atom(text) => number(text),
            _ => None,
        }
    }

    /// A GUID: 40 hex digits.
    pub fn as_guid(&self) -> Option<Guid> {
        match self {
            Value::Atom(text) => Guid::from_hex(text),
            _ => None,
        }
    }

    /// A list; any other kind counts as an empty one.
    pub fn as_list(&self) -> List<'a> {
        match self {
            Value::List(list) => *list,
            _ => List { span: b"" },
        }
    }
}

/// The inside of a checked `( ... )`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List<'a> {
    span: &'a [u8],
}

impl<'a> List<'a> {
    /// Its elements in order.
    pub fn items(&self) -> Items<'a> {
        Items { reader: Reader::checked(self.span) }
    }

    /// All that is in it at any depth, in order.
    pub(super) fn tokens(&self) -> Tokens<'a> {
        Tokens { reader: Reader::checked(self.span), kv: 0, key: 0 }
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.items().next().is_none()
    }
}

/// The inside of a checked `%( ... )`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvList<'a> {
    span: &'a [u8],
}

impl<'a> KvList<'a> {
    /// Keys and values in order.
    pub fn pairs(&self) -> Pairs<'a> {
        Pairs { reader: Reader::checked(self.span) }
    }

    /// All that is in it at any depth, in order.
    pub(super) fn tokens(&self) -> Tokens<'a> {
        Tokens { reader: Reader::checked(self.span), kv: 1, key: 1 }
    }

    /// All fields, for looking up several of them.
    pub fn fields(&self) -> Fields<'a> {
        // Records have nine, mailboxes some twenty.
        let mut pairs = Vec::with_capacity(12);
        pairs.extend(self.pairs());
        Fields { pairs }
    }
}

/// The fields of a kvlist. Names are case-sensitive, the first match wins.
#[derive(Clone, Debug, Default)]
pub struct Fields<'a> {
    pairs: Vec<(Cow<'a, [u8]>, Value<'a>)>,
}

impl<'a> Fields<'a> {
    /// The value of `name`, `NIL` included.
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.pairs.iter().find(|(key, _)| key[..] == *name.as_bytes()).map(|(_, value)| value)
    }

    /// All of them, in order.
    pub fn pairs(&self) -> impl Iterator<Item = (&[u8], &Value<'a>)> {
        self.pairs.iter().map(|(key, value)| (&key[..], value))
    }

    /// A field that is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.as_number()
    }

    /// A field that is text.
    pub fn text(&self, name: &str) -> Option<&[u8]> {
        self.get(name)?.as_text()
    }
}

/// Elements of a list.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;

    // The span was checked when it was cut out, so an error cannot come up; it
    // would end the walk.
    fn next(&mut self) -> Option<Value<'a>> {
        self.reader.skip_space();
        if self.reader.at_end() {
            return None;
        }
        self.reader.value(0).ok()
    }
}

/// Keys and values of a kvlist.
#[derive(Clone, Debug)]
pub struct Pairs<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (Cow<'a, [u8]>, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.reader.skip_space();
        if self.reader.at_end() {
            return None;
        }
        self.reader.key_value(0).ok()
    }
}

/// A list with all lists in it, in one walk.
#[derive(Clone, Debug)]
pub(super) struct Tokens<'a> {
    reader: Reader<'a>,
    /// A bit for each list that is open, the innermost one lowest: it is a kvlist.
    kv: u64,
    /// What comes next in it is a key. In a key, `%` is a letter like any other.
    key: u64,
}

/// What [`Tokens`] meets.
#[derive(Debug)]
pub(super) enum Token<'a> {
    /// `(`
    Open,
    /// `%(`
    OpenKv,
    /// `)`
    Close,
    /// The name of what comes next.
    Key(Cow<'a, [u8]>),
    /// Neither list nor kvlist.
    Leaf(Value<'a>),
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let reader = &mut self.reader;
        reader.skip_space();
        let c = reader.peek()?;
        if c == b')' {
            reader.at += 1;
            self.kv >>= 1;
            self.key = self.key >> 1 ^ self.kv & 1;
            return Some(Token::Close);
        }
        if self.key & 1 == 1 {
            self.key ^= 1;
            return reader.string().ok().map(Token::Key);
        }
        if c == b'(' {
            reader.at += 1;
            (self.kv, self.key) = (self.kv << 1, self.key << 1);
            return Some(Token::Open);
        }
        if c == b'%' && reader.eat(b"%(") {
            (self.kv, self.key) = (self.kv << 1 | 1, self.key << 1 | 1);
            return Some(Token::OpenKv);
        }
        self.key ^= self.kv & 1;
        reader.value(0).ok().map(Token::Leaf)
    }
}

/// Reads a named value, `key value`, and nothing behind it.
pub fn parse_item(text: &[u8]) -> Result<(Cow<'_, [u8]>, Value<'_>), SyntaxError> {
    let mut reader = Reader::new(text);
    reader.skip_space();
    let item = reader.key_value(0)?;
    reader.end()?;
    Ok(item)
}

/// Reads a single value and nothing behind it.
pub fn parse_value(text: &[u8]) -> Result<Value<'_>, SyntaxError> {
    let mut reader = Reader::new(text);
    reader.skip_space();
    let value = reader.value(0)?;
    reader.end()?;
    Ok(value)
}

#[derive(Clone, Debug)]
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    /// What is inside lists was looked at before: their ends are all that is wanted.
    is_checked: bool,
}

impl<'a> Reader<'a> {
    fn new(text: &'a [u8]) -> Reader<'a> {
        Reader { text, at: 0, is_checked: false }
    }

    fn checked(text: &'a [u8]) -> Reader<'a> {
        Reader { text, at: 0, is_checked: true }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn at_end(&self) -> bool {
        self.at >= self.text.len()
    }

    fn error<T>(&self, what: &'static str) -> Result<T, SyntaxError> {
        Err(SyntaxError { what, at: self.at })
    }

    fn eat(&mut self, expected: &[u8]) -> bool {
        let found = self.text[self.at..].starts_with(expected);
        if found {
            self.at += expected.len();
        }
        found
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
    }

    fn end(&mut self) -> Result<(), SyntaxError> {
        self.skip_space();
        if self.at_end() { Ok(()) } else { self.error("unexpected text behind the value") }
    }

    fn key_value(&mut self, depth: usize) -> Result<(Cow<'a, [u8]>, Value<'a>), SyntaxError> {
        let start = self.at;
        let is_bare = !matches!(self.peek(), Some(b'"' | b'{'));
        let key = self.string()?;
        // The name of a list is printed as it is: one that could not stand bare would read
        // as something else, a line of its own for one.
        if key.contains(&0) || !(is_bare || key.iter().all(|&c| c > b' ' && !is_special(c))) {
            return Err(SyntaxError { what: "a name that is no atom", at: start });
        }
        self.skip_space();
        Ok((key, self.value(depth)?))
    }

    fn value(&mut self, depth: usize) -> Result<Value<'a>, SyntaxError> {
        if depth > DEPTH_MAX {
            return self.error("nested too deeply");
        }
        match self.peek() {
            Some(b'(') => {
                self.at += 1;
                let span = match self.is_checked {
                    true => self.skim(false)?,
                    false => self.span(|reader| reader.value(depth + 1).map(drop))?,
                };
                Ok(Value::List(List { span }))
            }
            Some(b'%') if self.eat(b"%(") => {
                let span = match self.is_checked {
                    true => self.skim(true)?,
                    false => self.span(|reader| reader.key_value(depth + 1).map(drop))?,
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
    fn string(&mut self) -> Result<Cow<'a, [u8]>, SyntaxError> {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
