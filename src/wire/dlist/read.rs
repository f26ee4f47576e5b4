//! Reading dlist text without building a tree.

use std::borrow::Cow;

use super::scan::Scanner;
use super::{FileHeader, SyntaxError, number};
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
    pub(super) span: &'a [u8],
}

impl<'a> List<'a> {
    /// Its elements in order.
    pub fn items(&self) -> Items<'a> {
        Items { scanner: Scanner::checked(self.span) }
    }

    /// The values of these names in each of its elements, of each name the first one: one walk over
    /// all of it, for lists of very many short kvlists. `None` for an element that is none.
    pub fn named<const N: usize>(&self, names: [&'static [u8]; N]) -> Named<'a, N> {
        Named { scanner: Scanner::checked(self.span), names }
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.items().next().is_none()
    }
}

/// The inside of a checked `%( ... )`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvList<'a> {
    pub(super) span: &'a [u8],
}

impl<'a> KvList<'a> {
    /// Keys and values in order.
    pub fn pairs(&self) -> Pairs<'a> {
        Pairs { scanner: Scanner::checked(self.span) }
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
    scanner: Scanner<'a>,
}

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;

    // The span was checked when it was cut out, so an error cannot come up; it
    // would end the walk.
    fn next(&mut self) -> Option<Value<'a>> {
        self.scanner.skip_space();
        if self.scanner.at_end() {
            return None;
        }
        self.scanner.value(0).ok()
    }
}

/// Some values of each element of a list, see [`List::named`].
#[derive(Clone, Debug)]
pub struct Named<'a, const N: usize> {
    scanner: Scanner<'a>,
    names: [&'static [u8]; N],
}

impl<'a, const N: usize> Iterator for Named<'a, N> {
    type Item = Option<[Option<Value<'a>>; N]>;

    // As for `Items`.
    fn next(&mut self) -> Option<Self::Item> {
        self.scanner.skip_space();
        if self.scanner.at_end() {
            return None;
        }
        if !self.scanner.eat(b"%(") {
            return self.scanner.value(0).ok().map(|_| None);
        }
        let mut values = [const { None }; N];
        loop {
            self.scanner.skip_space();
            if self.scanner.eat(b")") {
                return Some(Some(values));
            }
            let (key, value) = self.scanner.key_value(0).ok()?;
            if let Some(i) = self.names.iter().position(|name| **name == key[..]) {
                values[i].get_or_insert(value);
            }
        }
    }
}

/// Keys and values of a kvlist.
#[derive(Clone, Debug)]
pub struct Pairs<'a> {
    scanner: Scanner<'a>,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (Cow<'a, [u8]>, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.scanner.skip_space();
        if self.scanner.at_end() {
            return None;
        }
        self.scanner.key_value(0).ok()
    }
}

/// Reads a named value, `key value`, and nothing behind it.
pub fn parse_item(text: &[u8]) -> Result<(Cow<'_, [u8]>, Value<'_>), SyntaxError> {
    let mut scanner = Scanner::new(text);
    scanner.skip_space();
    let item = scanner.key_value(0)?;
    scanner.end()?;
    Ok(item)
}

/// Reads a single value and nothing behind it.
pub fn parse_value(text: &[u8]) -> Result<Value<'_>, SyntaxError> {
    let mut scanner = Scanner::new(text);
    scanner.skip_space();
    let value = scanner.value(0)?;
    scanner.end()?;
    Ok(value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
