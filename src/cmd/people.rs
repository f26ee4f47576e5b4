//! What is for people only: colour, columns that line up, text that is safe to show.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Meaning, not taste.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Good,
    Bad,
    Faint,
}

/// `text` in colour; as it is with `NO_COLOR` in the environment, or on a terminal
/// that has none.
pub(super) fn paint(colour: Colour, text: &str) -> String {
    let none = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if none { text.to_owned() } else { coloured(colour, text) }
}

fn coloured(colour: Colour, text: &str) -> String {
    let code = match colour {
        Colour::Good => 32,
        Colour::Bad => 31,
        Colour::Faint => 2,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Mail is written by strangers: nothing of it may steer the terminal.
pub(super) fn harmless(text: &str) -> Cow<'_, str> {
    // Control characters, and those that turn the direction of writing.
    let turns = |c: char| {
        matches!(c, '\u{200e}' | '\u{200f}')
            || ('\u{202a}'..='\u{202e}').contains(&c)
            || ('\u{2066}'..='\u{2069}').contains(&c)
    };
    let steers = |c: char| c.is_control() || turns(c);
    if text.contains(steers) {
        Cow::Owned(text.chars().map(|c| if steers(c) { ' ' } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// At most `width` columns; what was cut ends in `...`.
pub(super) fn cut(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return Cow::Borrowed(text);
    }
    let mut left = width.saturating_sub(3);
    let fits = |c: &char| {
        let wide = c.width().unwrap_or(0);
        let fits = wide <= left;
        left -= wide.min(left);
        fits
    };
    let kept: String = text.chars().take_while(fits).collect();
    Cow::Owned(kept + "...")
}

/// Exactly `width` columns, as a terminal counts them: cut, or with blanks behind.
pub(super) fn column(text: &str, width: usize) -> String {
    let mut text = cut(text, width).into_owned();
    let blanks = width.saturating_sub(text.width());
    text.extend(std::iter::repeat_n(' ', blanks));
    text
}

/// A number of octets in at most three digits and a unit: `29.2 kB`.
pub(super) fn octets(count: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.95 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (29_195, "29.2 kB"),
            (999_949, "1.0 MB"),
            (123_456_789, "123 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(octets(count), text, "{count}");
        }
    }

    #[test]
    fn text_of_strangers() {
        assert_eq!(harmless("fine"), "fine");
        assert_eq!(harmless("a\x1b[2Jb\u{202e}c\n"), "a [2Jb c ");
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abc...");
        // Two columns each.
        let wide = "\u{65e5}\u{672c}\u{8a9e}";
        assert_eq!((cut(wide, 6), cut(wide, 5)), (wide.into(), "\u{65e5}...".into()));
        assert_eq!((column(wide, 8), column("abcdefg", 5)), (format!("{wide}  "), "ab...".into()));
        assert_eq!(coloured(Colour::Bad, "x"), "\x1b[31mx\x1b[0m");
    }
}
