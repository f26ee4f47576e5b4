//! A list and all that is in it, in one walk.

use std::borrow::Cow;

use super::read::{KvList, List, Value};
use super::scan::Scanner;

impl<'a> List<'a> {
    /// All that is in it at any depth, in order.
    pub(super) fn tokens(&self) -> Tokens<'a> {
        Tokens { scanner: Scanner::checked(self.span), kv: 0, key: 0 }
    }
}

impl<'a> KvList<'a> {
    /// All that is in it at any depth, in order.
    pub(super) fn tokens(&self) -> Tokens<'a> {
        Tokens { scanner: Scanner::checked(self.span), kv: 1, key: 1 }
    }
}

/// A list with all lists in it, in one walk.
#[derive(Clone, Debug)]
pub(super) struct Tokens<'a> {
    scanner: Scanner<'a>,
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
        let scanner = &mut self.scanner;
        scanner.skip_space();
        let c = scanner.peek()?;
        if c == b')' {
            scanner.at += 1;
            self.kv >>= 1;
            self.key = self.key >> 1 ^ self.kv & 1;
            return Some(Token::Close);
        }
        if self.key & 1 == 1 {
            self.key ^= 1;
            return scanner.string().ok().map(Token::Key);
        }
        if c == b'(' {
            scanner.at += 1;
            (self.kv, self.key) = (self.kv << 1, self.key << 1);
            return Some(Token::Open);
        }
        if c == b'%' && scanner.eat(b"%(") {
            (self.kv, self.key) = (self.kv << 1 | 1, self.key << 1 | 1);
            return Some(Token::OpenKv);
        }
        self.key ^= self.kv & 1;
        scanner.value(0).ok().map(Token::Leaf)
    }
}
