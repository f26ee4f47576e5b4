//! Header fields decoded, whoever has written them.
//!
//! For each mark of an encoded word the decoder counts its way through the line from the front: a
//! line of a megabyte of nothing but marks would take it days. So there is a limit to what a message
//! may cost; what is beyond it is taken as it stands.

use std::cell::Cell;

use mailparse::{MailHeader, ParsedMail, parse_mail};
use memchr::memmem;

/// Characters that may be counted for one message: a tenth of a second.
const STEPS_MAX: usize = 1 << 27;

/// Decodes the fields of one message.
pub(super) struct Decoder {
    left: Cell<usize>,
}

impl Decoder {
    pub(super) fn new() -> Decoder {
        Decoder { left: Cell::new(STEPS_MAX) }
    }

    /// What a field says.
    pub(super) fn value(&self, header: &MailHeader<'_>) -> String {
        let raw = header.get_value_raw();
        match self.affords(steps(raw)) {
            true => header.get_value(),
            false => String::from_utf8_lossy(raw).into_owned(),
        }
    }

    /// What the first field of that name says.
    pub(super) fn first(&self, headers: &[MailHeader<'_>], name: &str) -> Option<String> {
        let mut named = headers.iter().filter(|h| h.get_key_ref().eq_ignore_ascii_case(name));
        named.next().map(|header| self.value(header))
    }

    /// The parts of a message; `None` if it cannot be divided.
    pub(super) fn parts<'m>(&self, message: &'m [u8]) -> Option<ParsedMail<'m>> {
        if self.affords(steps_to_divide(message)) { parse_mail(message).ok() } else { None }
    }

    fn affords(&self, steps: usize) -> bool {
        let left = self.left.get().checked_sub(steps);
        left.map(|left| self.left.set(left)).is_some()
    }
}

/// What decoding a value costs.
fn steps(value: &[u8]) -> usize {
    let of_line = |line: &[u8]| {
        let marks = |mark: &[u8]| memmem::find_iter(line, mark).count();
        line.len().saturating_mul(marks(b"=?") + marks(b"?="))
    };
    value.split(|&c| c == b'\n').map(of_line).fold(0, usize::saturating_add)
}

/// What dividing a message costs: of each part the fields are decoded that say what it is.
fn steps_to_divide(message: &[u8]) -> usize {
    let mut is_decoded = false;
    let mut sum = 0usize;
    for line in message.split(|&c| c == b'\n') {
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            is_decoded = line.get(..8).is_some_and(|name| name.eq_ignore_ascii_case(b"content-"));
        }
        if is_decoded {
            sum = sum.saturating_add(steps(line));
        }
    }
    sum
}
