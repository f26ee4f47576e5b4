//! Options as GNU `getopt_long` reads them, for tools that must accept what
//! existing scripts write.
//!
//! Options may stand before, between and behind operands; `--` ends them, and with
//! `POSIXLY_CORRECT` so does the first operand. Short ones cluster (`-vj`), their
//! argument is the rest of the word or the next word, whatever it looks like. Long
//! ones may be abbreviated as long as that is unambiguous. Those that Cyrus does not have
//! make none of its abbreviations ambiguous: they have no letter, but a number below the
//! printable ones.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Whether an option takes an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Argument {
    None,
    Required,
    /// Only as `--name=value`.
    Optional,
}

/// A long option: another name for a short one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Long {
    pub(super) name: &'static str,
    pub(super) argument: Argument,
    pub(super) short: u8,
}

impl Long {
    /// An option that takes no value.
    pub(super) const fn flag(name: &'static str, short: u8) -> Long {
        Long { name, argument: Argument::None, short }
    }

    /// `--name=value`, or `--name value`.
    pub(super) const fn with_value(name: &'static str, short: u8) -> Long {
        Long { name, argument: Argument::Required, short }
    }

    /// `--name`, or `--name=value`.
    pub(super) const fn with_optional_value(name: &'static str, short: u8) -> Long {
        Long { name, argument: Argument::Optional, short }
    }
}

/// The options of a tool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    /// Letters, each followed by `:` if it takes an argument.
    pub(super) short: &'static str,
    pub(super) long: &'static [Long],
}

/// One option found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its letter.
    pub(super) letter: u8,
    pub(super) value: Option<OsString>,
}

/// Why a word is no option. The text is that of the C library, without the
/// program's name in front.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OptionError {
    Unknown(u8),
    NoArgument(u8),
    UnknownLong(Vec<u8>),
    Ambiguous { word: Vec<u8>, names: Vec<&'static str> },
    NoArgumentLong(&'static str),
    UnwantedArgument(&'static str),
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionError::Unknown(letter) => {
                write!(f, "invalid option -- '{}'", String::from_utf8_lossy(&[*letter]))
            }
            OptionError::NoArgument(letter) => {
                let letter = char::from(*letter);
                write!(f, "option requires an argument -- '{letter}'")
            }
            OptionError::UnknownLong(word) => {
                write!(f, "unrecognized option '--{}'", String::from_utf8_lossy(word))
            }
            OptionError::Ambiguous { word, names } => {
                let word = String::from_utf8_lossy(word);
                write!(f, "option '--{word}' is ambiguous; possibilities:")?;
                names.iter().try_for_each(|name| write!(f, " '--{name}'"))
            }
            OptionError::NoArgumentLong(name) => {
                write!(f, "option '--{name}' requires an argument")
            }
            OptionError::UnwantedArgument(name) => {
                write!(f, "option '--{name}' doesn't allow an argument")
            }
        }
    }
}

/// A command line, sorted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// Options in order, bad ones included.
    pub(super) options: Vec<Result<Found, OptionError>>,
    /// Operands in order.
    pub(super) operands: Vec<OsString>,
}

/// Sorts `args` (without the program's name). `posixly_correct`: the first operand
/// ends the options.
pub(super) fn sort(args: &[OsString], spec: &Spec, posixly_correct: bool) -> Words {
    let mut words = Words::default();
    let mut rest = args.iter();
    while let Some(word) = rest.next() {
        match word.as_bytes() {
            b"--" => break,
            [b'-', b'-', long @ ..] => words.options.push(spec.long(long, &mut rest)),
            [b'-', cluster @ ..] if !cluster.is_empty() => {
                spec.cluster(cluster, &mut rest, &mut words.options);
            }
            _ => {
                words.operands.push(word.clone());
                if posixly_correct {
                    break;
                }
            }
        }
    }
    words.operands.extend(rest.cloned());
    words
}

type Rest<'a> = std::slice::Iter<'a, OsString>;

impl Spec {
    fn cluster(
        &self,
        cluster: &[u8],
        rest: &mut Rest<'_>,
        options: &mut Vec<Result<Found, OptionError>>,
    ) {
        for (i, &letter) in cluster.iter().enumerate() {
            match self.short(letter) {
                None => options.push(Err(OptionError::Unknown(letter))),
                Some(false) => options.push(Ok(Found { letter, value: None })),
                Some(true) => {
                    let value = match &cluster[i + 1..] {
                        [] => rest.next().cloned(),
                        attached => Some(OsString::from_vec(attached.to_vec())),
                    };
                    let value = value.ok_or(OptionError::NoArgument(letter));
                    options.push(value.map(|value| Found { letter, value: Some(value) }));
                    return;
                }
            }
        }
    }

    /// Whether the letter, if it is one, takes an argument.
    fn short(&self, letter: u8) -> Option<bool> {
        let letters = self.short.as_bytes();
        let at = letters.iter().position(|&c| c == letter && c != b':')?;
        Some(letters.get(at + 1) == Some(&b':'))
    }

    fn long(&self, word: &[u8], rest: &mut Rest<'_>) -> Result<Found, OptionError> {
        let mut parts = word.splitn(2, |&c| c == b'=');
        let name = parts.next().unwrap_or_default();
        let attached = parts.next().map(|value| OsStr::from_bytes(value).to_owned());
        let option = self.named(name, word)?;
        let value = match (option.argument, attached) {
            (Argument::None, Some(_)) => return Err(OptionError::UnwantedArgument(option.name)),
            (Argument::Required, None) => match rest.next() {
                None => return Err(OptionError::NoArgumentLong(option.name)),
                value => value.cloned(),
            },
            (_, attached) => attached,
        };
        Ok(Found { letter: option.short, value })
    }

    fn named(&self, name: &[u8], word: &[u8]) -> Result<&'static Long, OptionError> {
        if let Some(exact) = self.long.iter().find(|long| long.name.as_bytes() == name) {
            return Ok(exact);
        }
        let matches = self.long.iter().filter(|long| long.name.as_bytes().starts_with(name));
        let (cyrus, own): (Vec<_>, Vec<_>) = matches.partition(|long| long.short > b' ');
        let matches = if cyrus.is_empty() { own } else { cyrus };
        match matches[..] {
            [only] => Ok(only),
            [] => Err(OptionError::UnknownLong(word.to_vec())),
            _ => {
                let names = matches.iter().map(|long| long.name).collect();
                Err(OptionError::Ambiguous { word: word.to_vec(), names })
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SPEC: Spec = Spec {
        short: "AC:jt:v",
        long: &[
            Long { name: "all", argument: Argument::None, short: b'A' },
            Long { name: "stale", argument: Argument::Optional, short: b't' },
            Long { name: "stop", argument: Argument::None, short: b'S' },
            Long { name: "execute", argument: Argument::Required, short: b'x' },
            Long { name: "verb", argument: Argument::None, short: b'v' },
            Long { name: "verbose", argument: Argument::None, short: b'v' },
            Long { name: "alter", argument: Argument::None, short: 1 },
            Long { name: "alternate", argument: Argument::None, short: 2 },
        ],
    };

    /// Options as `x`, `x=value` or `!message`; operands behind a bar.
    fn sorted(line: &str, posixly_correct: bool) -> String {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let words = sort(&args, &SPEC, posixly_correct);
        let options = words.options.iter().map(|option| match option {
            Ok(Found { letter, value: None }) => char::from(*letter).to_string(),
            Ok(Found { letter, value: Some(value) }) => {
                format!("{}={}", char::from(*letter), value.to_str().unwrap())
            }
            Err(error) => format!("!{error}"),
        });
        let operands = words.operands.iter().map(|word| word.to_str().unwrap().to_owned());
        let (options, operands): (Vec<_>, Vec<_>) = (options.collect(), operands.collect());
        format!("{}|{}", options.join(" "), operands.join(" "))
    }

    #[test]
    fn options_stand_anywhere() {
        assert_eq!(sorted("list -C conf u -v", false), "C=conf v|list u");
        assert_eq!(sorted("-vvj list - u", false), "v v j|list - u");
        assert_eq!(sorted("-v -- -j list", false), "v|-j list");
        assert_eq!(sorted("list -v -- -j", false), "v|list -j");
        assert_eq!(sorted("-v list -C conf", true), "v|list -C conf");
        assert_eq!(sorted("-v -- -C conf", true), "v|-C conf");
    }

    #[test]
    fn arguments_are_taken_whatever_they_look_like() {
        assert_eq!(sorted("-t list -At24 u", false), "t=list A t=24|u");
        assert_eq!(sorted("-t -v", false), "t=-v|");
        assert_eq!(sorted("-vC -- x", false), "v C=--|x");
        assert_eq!(sorted("list -t", false), "!option requires an argument -- 't'|list");
    }

    #[test]
    fn unknown_letters() {
        assert_eq!(sorted("-vZ x", false), "v !invalid option -- 'Z'|x");
        assert_eq!(sorted("-:", false), "!invalid option -- ':'|");
    }

    #[test]
    fn long_options() {
        assert_eq!(sorted("--al --stal=3 --execute cmd x", false), "A t=3 x=cmd|x");
        assert_eq!(sorted("--stale 24 --verb", false), "t v|24");
        assert_eq!(sorted("--execute=", false), "x=|");
        assert_eq!(sorted("--a --al --alter --altern", false), "A A \u{1} \u{2}|");
        assert_eq!(sorted("--nosuch=1", false), "!unrecognized option '--nosuch=1'|");
        assert_eq!(sorted("--all=1", false), "!option '--all' doesn't allow an argument|");
        assert_eq!(sorted("--exec", false), "!option '--execute' requires an argument|");
        assert_eq!(
            sorted("--st=1", false),
            "!option '--st=1' is ambiguous; possibilities: '--stale' '--stop'|"
        );
    }
}
