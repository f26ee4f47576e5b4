//! The value types of imapd.conf: from the bytes after the colon to a number
//! or a switch. Nothing here knows option names, lines or files; `None` means
//! that Cyrus would refuse the value.

/// The most that a duration can be, 1000 years of 365 days, in seconds.
///
/// Cyrus 3.2 to 3.8 let large values wrap around to negative ones (which mean
/// "forever" for retention). Here they are cut off at a span that can be added
/// to any date on disk without overflow.
pub(super) const DURATION_MAX: i64 = 1000 * 365 * DAY;

const DAY: i64 = 86_400;

/// One kibibyte, the default unit of the compaction sizes.
pub(super) const KIB: i64 = 1024;

/// The unit of a number that ends a duration without naming one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeUnit {
    Days,
    Seconds,
}

impl TimeUnit {
    fn seconds(self) -> i64 {
        match self {
            TimeUnit::Days => DAY,
            TimeUnit::Seconds => 1,
        }
    }
}

/// What C's `isspace` accepts; `u8::is_ascii_whitespace` lacks the vertical
/// tab.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// `text` without white space at either end.
pub(super) fn trim(text: &[u8]) -> &[u8] {
    let Some(start) = text.iter().position(|&b| !is_space(b)) else {
        return &[];
    };
    let end = text.iter().rposition(|&b| !is_space(b)).unwrap_or(start);
    &text[start..=end]
}

/// SWITCH: only the leading characters count, and only in lower case.
pub(super) fn switch(value: &[u8]) -> Option<bool> {
    match value {
        [b'0' | b'n' | b'f', ..] | [b'o', b'f', ..] => Some(false),
        [b'1' | b'y' | b't', ..] | [b'o', b'n', ..] => Some(true),
        _ => None,
    }
}

/// INT: what `strtol` with base 0 reads, if it reads all of it; out of range
/// saturates, as there.
pub(super) fn int(value: &[u8]) -> Option<i64> {
    let (negative, digits) = sign(value);
    let (radix, digits) = match digits {
        [b'0', b'x' | b'X', hex @ ..] => (16, hex),
        [b'0', octal @ ..] if !octal.is_empty() => (8, octal),
        _ => (10, digits),
    };
    let magnitude = magnitude(digits, radix)?;
    Some(if negative { -magnitude } else { magnitude })
}

/// BYTESIZE of Cyrus 3.8 and later, in bytes: a decimal number, blanks, one of
/// `K M G` with an optional `i`, an optional `B`; a value that ends in a digit
/// counts in `default_unit` bytes. What the INT of earlier versions reads is
/// read as there, so `0x10` and `010` keep their meaning.
pub(super) fn size(value: &[u8], default_unit: i64) -> Option<i64> {
    if let Some(number) = int(value) {
        return Some(number.saturating_mul(default_unit));
    }
    let (negative, rest) = sign(value);
    let end = rest.iter().position(|b| !b.is_ascii_digit());
    let (digits, unit) = rest.split_at(end.unwrap_or(rest.len()));
    let magnitude = magnitude(digits, 10)?;
    let number = if negative { -magnitude } else { magnitude };
    let unit = match trim(unit).to_ascii_uppercase().as_slice() {
        b"" => default_unit,
        b"B" => 1,
        b"K" | b"KB" | b"KI" | b"KIB" => KIB,
        b"M" | b"MB" | b"MI" | b"MIB" => KIB * KIB,
        b"G" | b"GB" | b"GI" | b"GIB" => KIB * KIB * KIB,
        _ => return None,
    };
    Some(number.saturating_mul(unit))
}

/// DURATION, in seconds: an optional `-`, then numbers with a unit `d h m s`,
/// summed; the last number may do without and counts in `default_unit`. The
/// magnitude is cut off at [`DURATION_MAX`]. A lone `-` is 0.
pub(super) fn duration(value: &[u8], default_unit: TimeUnit) -> Option<i64> {
    let (negative, mut rest) = match value {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let end = rest.iter().position(|b| !b.is_ascii_digit());
        let (digits, tail) = rest.split_at(end.unwrap_or(rest.len()));
        let (unit, tail) = match tail {
            [] => (default_unit.seconds(), tail),
            [b'd', tail @ ..] => (DAY, tail),
            [b'h', tail @ ..] => (3600, tail),
            [b'm', tail @ ..] => (60, tail),
            [b's', tail @ ..] => (1, tail),
            _ => return None,
        };
        total = total.saturating_add(magnitude(digits, 10)?.saturating_mul(unit));
        rest = tail;
    }
    let total = total.min(DURATION_MAX);
    Some(if negative { -total } else { total })
}

/// A file mode mask: the octal digits that `value` starts with, and whether
/// that is all of it. `None` without any; Cyrus takes that for 0, which would
/// publish every backup.
pub(super) fn octal_mask(value: &[u8]) -> Option<(u32, bool)> {
    let is_octal = |b: &u8| (b'0'..=b'7').contains(b);
    let end = value.iter().position(|b| !is_octal(b));
    let (digits, rest) = value.split_at(end.unwrap_or(value.len()));
    let mask = magnitude(digits, 8)?;
    let clean = rest.is_empty() && mask <= 0o777;
    Some(((mask & 0o777) as u32, clean))
}

fn sign(value: &[u8]) -> (bool, &[u8]) {
    match value {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    }
}

/// A non-empty run of digits; saturates.
fn magnitude(digits: &[u8], radix: u32) -> Option<i64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_i64, |total, &byte| {
        let digit = char::from(byte).to_digit(radix)?;
        Some(total.saturating_mul(radix.into()).saturating_add(digit.into()))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn switches_look_at_the_first_characters_only() {
        for on in "1 y t on yes true yesno tomato one 10".split(' ') {
            assert_eq!(switch(on.as_bytes()), Some(true), "{on}");
        }
        for off in "0 n f of no off false nonsense fish 01".split(' ') {
            assert_eq!(switch(off.as_bytes()), Some(false), "{off}");
        }
        for bad in ["o", "2", "Yes", "ON", "T", "ok", "-1", "+1", "o1", ""] {
            assert_eq!(switch(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn integers_are_read_as_in_c() {
        let rows: &[(&str, Option<i64>)] = &[
            ("0x10", Some(16)),
            ("0XfF", Some(255)),
            ("-0x10", Some(-16)),
            ("010", Some(8)),
            ("00", Some(0)),
            ("0", Some(0)),
            ("-5", Some(-5)),
            ("+7", Some(7)),
            ("2147483648", Some(2_147_483_648)),
            ("9223372036854775808", Some(i64::MAX)),
            ("-99999999999999999999", Some(-i64::MAX)),
            ("0xffffffffffffffff", Some(i64::MAX)),
            ("12k", None),
            ("1 2", None),
            ("1.5", None),
            ("08", None),
            ("0x", None),
            ("0b11", None),
            ("-", None),
            ("- 5", None),
            ("--5", None),
            ("", None),
        ];
        for (text, expected) in rows {
            assert_eq!(int(text.as_bytes()), *expected, "{text}");
        }
    }

    #[test]
    fn durations_sum_their_parts() {
        let rows: &[(&str, Option<i64>)] = &[
            ("7", Some(7 * DAY)),
            ("1d", Some(DAY)),
            ("1d12h", Some(DAY + DAY / 2)),
            ("1h30m", Some(5400)),
            ("1s2", Some(1 + 2 * DAY)),
            ("1s1s", Some(2)),
            ("-1d", Some(-DAY)),
            ("-", Some(0)),
            ("0", Some(0)),
            ("36500d", Some(36_500 * DAY)),
            ("99999999999999999999d", Some(DURATION_MAX)),
            ("-99999999999999999999d", Some(-DURATION_MAX)),
            ("--1", None),
            ("+1", None),
            ("1 d", None),
            ("1D", None),
            ("d", None),
            ("1w", None),
            ("1dd", None),
            ("1d-1h", None),
            ("1d,2h", None),
            ("1.5d", None),
            ("0x10", None),
        ];
        for (text, expected) in rows {
            assert_eq!(duration(text.as_bytes(), TimeUnit::Days), *expected, "{text}");
        }
        assert_eq!(duration(b"1m3", TimeUnit::Seconds), Some(63));
    }

    #[test]
    fn byte_sizes_take_old_integers_and_new_units() {
        let rows: &[(&str, Option<i64>)] = &[
            ("0", Some(0)),
            ("64", Some(64 * KIB)),
            ("-5", Some(-5 * KIB)),
            ("0x10", Some(16 * KIB)),
            ("010", Some(8 * KIB)),
            ("12B", Some(12)),
            ("12k", Some(12 * KIB)),
            ("12K", Some(12 * KIB)),
            ("12 KiB", Some(12 * KIB)),
            ("3mib", Some(3 * KIB * KIB)),
            ("2 \t Gi", Some(2 * KIB * KIB * KIB)),
            ("08K", Some(8 * KIB)),
            ("99999999999999999999G", Some(i64::MAX)),
            ("K", None),
            ("1.5M", None),
            ("1T", None),
            ("0x10K", None),
            ("12 i", None),
            ("12iB", None),
            ("12 K B", None),
            ("1 2", None),
        ];
        for (text, expected) in rows {
            assert_eq!(size(text.as_bytes(), KIB), *expected, "{text}");
        }
        assert_eq!(size(b"131072", 1), Some(131_072));
        assert_eq!(size(b"128K", 1), Some(131_072));
    }

    #[test]
    fn masks_are_octal() {
        assert_eq!(octal_mask(b"077"), Some((0o77, true)));
        assert_eq!(octal_mask(b"22"), Some((0o22, true)));
        assert_eq!(octal_mask(b"077 # private"), Some((0o77, false)));
        assert_eq!(octal_mask(b"1077"), Some((0o77, false)));
        assert_eq!(octal_mask(b"0x1f"), Some((0, false)));
        for bad in ["9", "u=rwx", "-1", ""] {
            assert_eq!(octal_mask(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn trimming_knows_every_blank_of_c() {
        assert_eq!(trim(b" \t\x0b\x0c\r\n a\x0bb \r\n"), b"a\x0bb");
        assert_eq!(trim(b"\x0b"), b"");
        assert_eq!(trim(b""), b"");
    }
}
