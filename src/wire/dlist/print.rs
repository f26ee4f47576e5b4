//! Printing values in the one canonical form.

use std::io::Write as _;

use super::tokens::{Token, Tokens};
use super::{FileHeader, Value};
use crate::wire::Guid;

/// Strings of this many octets and more are literals.
const STRING_MAX: usize = 1024;

/// How a literal's length is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Literals {
    /// `{n}`: what clients expect in answers.
    Sync,
    /// `{n+}`: what servers expect, and what the log holds.
    NonSync,
}

/// Gathers canonical text.
#[derive(Debug)]
pub struct Printer {
    literals: Literals,
    out: Vec<u8>,
    bodies: Vec<usize>,
}

impl Printer {
    /// A printer that adds to `out`.
    pub fn new(literals: Literals, out: Vec<u8>) -> Printer {
        Printer { literals, out, bodies: Vec::new() }
    }

    /// The text.
    pub fn into_text(self) -> Vec<u8> {
        self.out
    }

    /// The text, and the offsets in it at which message bodies belong.
    pub fn into_parts(self) -> (Vec<u8>, Vec<usize>) {
        (self.out, self.bodies)
    }

    /// Text that needs no quoting: keywords, separators, numbers.
    pub fn raw(&mut self, text: &[u8]) -> &mut Self {
        self.out.extend_from_slice(text);
        self
    }

    /// A decimal number.
    pub fn number(&mut self, number: u64) -> &mut Self {
        // Writing to a vector cannot fail.
        let _ = write!(self.out, "{number}");
        self
    }

    /// A message identity.
    pub fn guid(&mut self, guid: &Guid) -> &mut Self {
        self.raw(&guid.hex())
    }

    /// A string: bare, quoted or a literal, whichever comes first.
    pub fn string(&mut self, text: &[u8]) -> &mut Self {
        if text.is_empty() {
            return self.raw(b"\"\"");
        }
        if is_bare(text) {
            self.raw(text)
        } else if is_literal(text) {
            let plus: &[u8] = if self.literals == Literals::NonSync { b"+" } else { b"" };
            self.raw(b"{").number(text.len() as u64).raw(plus).raw(b"}\r\n").raw(text)
        } else {
            self.raw(b"\"").raw(text).raw(b"\"")
        }
    }

    /// `NIL`, or a string.
    pub fn nstring(&mut self, text: Option<&[u8]>) -> &mut Self {
        match text {
            Some(text) => self.string(text),
            None => self.raw(b"NIL"),
        }
    }

    /// The header of a message; the body belongs right behind it.
    pub fn file(&mut self, file: &FileHeader) -> &mut Self {
        self.raw(b"%{").string(&file.partition).raw(b" ").guid(&file.guid).raw(b" ");
        self.number(file.size).raw(b"}\r\n");
        self.bodies.push(self.out.len());
        self
    }

    /// `key value`.
    pub fn item(&mut self, key: &[u8], value: &Value<'_>) -> &mut Self {
        match value {
            // Cyrus prints the name of a list as it is.
            Value::List(_) | Value::KvList(_) => self.raw(key),
            _ => self.string(key),
        };
        self.raw(b" ").value(value)
    }

    /// Any value, as it was read.
    pub fn value(&mut self, value: &Value<'_>) -> &mut Self {
        match value {
            Value::Nil => self.raw(b"NIL"),
            Value::Atom(text) => self.string(text),
            Value::Flag(text) => self.raw(text),
            Value::File(file) => self.file(file),
            Value::List(list) => self.raw(b"(").tokens(list.tokens()).raw(b")"),
            Value::KvList(kv) => self.raw(b"%(").tokens(kv.tokens()).raw(b")"),
        }
    }

    /// The inside of a list: one walk over all lists in it, and not one for each depth.
    fn tokens(&mut self, tokens: Tokens<'_>) -> &mut Self {
        let mut is_first = true;
        // Printed once it is known of what.
        let mut key = None;
        for token in tokens {
            if matches!(token, Token::Close) {
                self.raw(b")");
                is_first = false;
                continue;
            }
            if !is_first && key.is_none() {
                self.raw(b" ");
            }
            is_first = false;
            match token {
                Token::Key(name) => key = Some(name),
                Token::Leaf(value) => {
                    if let Some(name) = key.take() {
                        self.string(&name).raw(b" ");
                    }
                    self.value(&value);
                }
                Token::Open | Token::OpenKv | Token::Close => {
                    // Cyrus prints the name of a list as it is.
                    if let Some(name) = key.take() {
                        self.raw(&name).raw(b" ");
                    }
                    self.raw(if matches!(token, Token::Open) { b"(" } else { b"%(" });
                    is_first = true;
                }
            }
        }
        self
    }

    /// The space in front of every element but the first.
    pub fn separator(&mut self, index: usize) -> &mut Self {
        if index > 0 { self.raw(b" ") } else { self }
    }
}

fn is_bare(text: &[u8]) -> bool {
    text.len() < STRING_MAX && text.iter().all(|&c| FITS_BARE[usize::from(c)]) && text != b"NIL"
}

/// Whether a string is printed as a literal.
pub(super) fn is_literal(text: &[u8]) -> bool {
    !is_bare(text) && (text.len() >= STRING_MAX || !text.iter().all(|&c| fits_quoted(c)))
}

const FITS_BARE: [bool; 256] = {
    let mut table = [false; 256];
    let mut c = 0;
    while c < 256 {
        table[c] = fits_bare(c as u8);
        c += 1;
    }
    table
};

const fn fits_bare(c: u8) -> bool {
    c >= 0x1f && c < 0x7f && !matches!(c, b' ' | b'{' | b'(' | b')' | b'"' | b'%' | b'*' | b'\\')
}

/// NUL cannot be quoted: a quoted string is text.
fn fits_quoted(c: u8) -> bool {
    c < 0x80 && !matches!(c, 0 | b'\r' | b'\n' | b'"' | b'%' | b'\\')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{parse_item, parse_value};
    use super::*;
    use proptest::prelude::*;

    fn string(text: &[u8]) -> String {
        let mut printer = Printer::new(Literals::NonSync, Vec::new());
        printer.string(text);
        String::from_utf8_lossy(&printer.into_text()).into_owned()
    }

    /// `key value`, by walking each list alone.
    fn by_element(key: &[u8], value: &Value<'_>, out: &mut Vec<u8>) {
        match value {
            Value::List(_) | Value::KvList(_) => out.extend_from_slice(key),
            _ => out.extend_from_slice(string(key).as_bytes()),
        }
        out.push(b' ');
        element(value, out);
    }

    fn element(value: &Value<'_>, out: &mut Vec<u8>) {
        match value {
            Value::List(list) => {
                out.push(b'(');
                for (i, item) in list.items().enumerate() {
                    out.extend_from_slice(if i > 0 { b" " } else { b"" });
                    element(&item, out);
                }
                out.push(b')');
            }
            Value::KvList(kv) => {
                out.extend_from_slice(b"%(");
                for (i, (key, value)) in kv.pairs().enumerate() {
                    out.extend_from_slice(if i > 0 { b" " } else { b"" });
                    by_element(&key, &value, out);
                }
                out.push(b')');
            }
            leaf => {
                let mut printer = Printer::new(Literals::NonSync, Vec::new());
                printer.value(leaf);
                out.extend_from_slice(&printer.into_text());
            }
        }
    }

    #[test]
    fn strings_take_the_first_form_that_fits() {
        for (text, expected) in [
            ("", "\"\""),
            ("NIL", "\"NIL\""),
            ("nil", "nil"),
            ("a]b", "a]b"),
            ("a}b", "a}b"),
            ("\x1f", "\x1f"),
            ("\x1e", "\"\x1e\""),
            ("\x7f", "\"\x7f\""),
            ("a*b", "\"a*b\""),
            ("a\tb", "\"a\tb\""),
            ("50%", "{3+}\r\n50%"),
            ("it\"s", "{4+}\r\nit\"s"),
            ("a\\b", "{3+}\r\na\\b"),
            ("a\r\n", "{3+}\r\na\r\n"),
            ("\u{e9}", "{2+}\r\n\u{e9}"),
            ("\0", "{1+}\r\n\0"),
        ] {
            assert_eq!(string(text.as_bytes()), expected);
        }
        assert_eq!(string(&[b'a'; 1023]), "a".repeat(1023));
        assert_eq!(string(&[b'a'; 1024]), format!("{{1024+}}\r\n{}", "a".repeat(1024)));
        assert_eq!(string(&[b' '; 1023]), format!("\"{}\"", " ".repeat(1023)));
        assert!(string(&[b' '; 1024]).starts_with("{1024+}"));
    }

    #[test]
    fn a_message_line_remembers_where_bodies_belong() {
        let guid = "4eea1e78e5032625a64f9ba26611156942a8f86a";
        let text = format!("MESSAGE (%{{d {guid} 3}}\r\n %{{d {guid} 0}}\r\n)");
        let (key, value) = parse_item(text.as_bytes()).unwrap();
        let mut printer = Printer::new(Literals::NonSync, Vec::new());
        printer.item(&key, &value);
        let (out, bodies) = printer.into_parts();
        assert_eq!(out, text.as_bytes());
        assert_eq!(bodies.len(), 2);
        assert!(bodies.iter().all(|&at| out[..at].ends_with(b"}\r\n")));
    }

    #[test]
    fn other_spellings_become_canonical() {
        let (key, value) =
            parse_item(b"X  %( A \"x\"  B( {1+}\r\ny NIL \\Seen ()%() ) C 0123 )").unwrap();
        let mut printer = Printer::new(Literals::NonSync, Vec::new());
        printer.item(&key, &value);
        assert_eq!(printer.into_text(), b"X %(A x B (y NIL \\Seen () %()) C 0123)");
    }

    proptest! {
        #[test]
        fn strings_survive(text in prop::collection::vec(any::<u8>(), 0..1100)) {
            for literals in [Literals::Sync, Literals::NonSync] {
                let mut printer = Printer::new(literals, Vec::new());
                printer.string(&text);
                let printed = printer.into_text();
                let value = parse_value(&printed).unwrap();
                prop_assert_eq!(value.as_text().unwrap(), &text[..]);
            }
        }

        #[test]
        fn lists_are_printed_element_by_element(text in "X [(%][%(){}a-z0-9 \\\\\"+]{0,60}") {
            if let Ok((key, value)) = parse_item(text.as_bytes()) {
                let mut printer = Printer::new(Literals::NonSync, Vec::new());
                printer.item(&key, &value);
                let mut expected = Vec::new();
                by_element(&key, &value, &mut expected);
                prop_assert_eq!(printer.into_text(), expected);
            }
        }

        #[test]
        fn every_header_that_is_read_is_printed_on_one_line(
            partition in prop_oneof!["[ -~\u{e9}]{0,9}", "\"[ -~\u{e9}]{0,9}\"", "p{1020,1026}"],
        ) {
            let guid = "4eea1e78e5032625a64f9ba26611156942a8f86a";
            let text = format!("%{{{partition} {guid} 3}}");
            if let Some(file) = FileHeader::parse(text.as_bytes()) {
                let mut printer = Printer::new(Literals::NonSync, Vec::new());
                printer.file(&file);
                let printed = printer.into_text();
                let again = FileHeader::parse(printed.trim_ascii_end());
                prop_assert_eq!(again.as_ref(), Some(&file));
                prop_assert_eq!(printed.iter().filter(|c| **c == b'\n').count(), 1);
            }
        }

        #[test]
        fn printing_what_was_read_is_stable(text in "X [%(){}a-z0-9 \\\\\"+]{0,60}") {
            if let Ok((key, value)) = parse_item(text.as_bytes()) {
                let mut once = Printer::new(Literals::NonSync, Vec::new());
                once.item(&key, &value);
                let once = once.into_text();
                let (key, value) = parse_item(&once).unwrap();
                let mut twice = Printer::new(Literals::NonSync, Vec::new());
                twice.item(&key, &value);
                prop_assert_eq!(twice.into_text(), once);
            }
        }
    }
}
