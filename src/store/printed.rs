//! Lines as they are written to the log: what [`super::log`] reads.

use std::io;

use super::staging::Staging;
use crate::wire::Body;
use crate::wire::dlist::{FileHeader, Literals, Printer};

/// How a line ends.
pub(super) const END: &[u8] = b"\r\n";

/// What a line begins with. `ts` is Unix time.
pub(super) fn stamp(ts: i64) -> Vec<u8> {
    format!("{ts} APPLY ").into_bytes()
}

/// Octets of a line as [`Limits::line`](crate::wire::frame::Limits::line) counts them.
pub(super) fn len_framed(ts: i64, text: &[u8]) -> usize {
    stamp(ts).len() + text.len() + "\r".len()
}

/// Octets of all bodies.
pub(super) fn octets_of<'b>(bodies: impl IntoIterator<Item = &'b Body>) -> u64 {
    bodies.into_iter().map(Body::len).fold(0, u64::saturating_add)
}

/// Canonical text of a line with these messages, and the offsets in it at which their bodies
/// belong.
pub(super) fn messages<'f>(files: impl Iterator<Item = &'f FileHeader>) -> (Vec<u8>, Vec<usize>) {
    let mut printer = Printer::new(Literals::NonSync, b"MESSAGE (".to_vec());
    for (i, file) in files.enumerate() {
        printer.separator(i).file(file);
    }
    printer.raw(b")");
    printer.into_parts()
}

/// Writes a whole line, piece by piece: the `bodies` belong at the offsets `body_at` of `text`.
pub(super) fn write<'b>(
    ts: i64,
    (text, body_at): (&[u8], &[usize]),
    bodies: impl IntoIterator<Item = &'b Body>,
    staging: &Staging,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    take(&stamp(ts))?;
    let mut from = 0;
    for (&at, body) in body_at.iter().zip(bodies) {
        take(&text[from..at])?;
        staging.read(body, &mut take)?;
        from = at;
    }
    take(&text[from..])?;
    take(END)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::frame::{Event, Framer, Limits};

    #[test]
    fn a_line_is_as_long_as_its_reader_finds_it() {
        let text = b"SUB %(USERID tom MBOXNAME {6+}\r\nuser.a)";
        let mut octets = Vec::new();
        let staging = Staging::new("unused".into());
        write(1_800_000_000, (text, &[]), [], &staging, |piece| {
            octets.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
        let len = len_framed(1_800_000_000, text);
        for (line, is_read) in [(len - 1, false), (len, true), (len + 1, true)] {
            let mut framer = Framer::new(Limits { line, ..Limits::LOG });
            assert_eq!(framer.next(&mut &octets[..]), Event::Line);
            assert_eq!(framer.take_line().is_ok(), is_read, "{line}");
        }
    }
}
