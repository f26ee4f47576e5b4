//! mbox, in its form `mboxrd`: lines end in LF, lines that begin with any number of `>` and
//! `From ` get one `>` more, each message is followed by an empty line.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::PathBuf;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Sink;
use super::directory;
use super::item::Item;

/// Writes a message. `internaldate`, Unix time, is its date in UTC.
pub fn write(out: &mut dyn Write, internaldate: i64, octets: &mut dyn Read) -> io::Result<()> {
    let time = Timestamp::from_second(internaldate).unwrap_or(Timestamp::UNIX_EPOCH);
    let date = time.to_zoned(TimeZone::UTC).strftime("%a %b %e %H:%M:%S %Y").to_string();
    writeln!(out, "From MAILER-DAEMON {date}")?;
    let mut reader = BufReader::new(octets);
    let mut line = Line::default();
    loop {
        let piece = reader.fill_buf()?;
        if piece.is_empty() {
            break;
        }
        let end = piece.iter().position(|&c| c == b'\n').map_or(piece.len(), |at| at + 1);
        line.add(&piece[..end], out)?;
        reader.consume(end);
    }
    line.end(out)?;
    out.write_all(b"\n")
}

/// Longest beginning of a line that is held back to find `From ` in it.
const QUOTES_MAX: usize = 1024;

/// A line that is being written; of any length.
#[derive(Default)]
struct Line {
    /// The beginning, while it is not clear whether it is to be quoted.
    start: Vec<u8>,
    is_decided: bool,
    /// A CR that may belong to the line's end.
    has_cr: bool,
    /// It has not ended.
    is_open: bool,
}

impl Line {
    fn add(&mut self, piece: &[u8], out: &mut dyn Write) -> io::Result<()> {
        let is_end = piece.ends_with(b"\n");
        let text = piece.strip_suffix(b"\n").unwrap_or(piece);
        if self.is_decided {
            self.text(text, out)?;
        } else {
            self.start.extend_from_slice(text);
            let from = self.start.iter().position(|&c| c != b'>').unwrap_or(self.start.len());
            let rest = &self.start[from..];
            let may_be = rest.len() < 5 && b"From ".starts_with(rest) && from < QUOTES_MAX;
            if is_end || !may_be {
                if rest.starts_with(b"From ") {
                    out.write_all(b">")?;
                }
                self.is_decided = true;
                let start = std::mem::take(&mut self.start);
                self.text(&start, out)?;
            }
        }
        if is_end {
            *self = Line::default();
            out.write_all(b"\n")?;
        } else {
            self.is_open = true;
        }
        Ok(())
    }

    fn text(&mut self, text: &[u8], out: &mut dyn Write) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        if std::mem::take(&mut self.has_cr) {
            out.write_all(b"\r")?;
        }
        let body = text.strip_suffix(b"\r").unwrap_or(text);
        self.has_cr = body.len() < text.len();
        out.write_all(body)
    }

    /// A last line without an end gets one.
    fn end(mut self, out: &mut dyn Write) -> io::Result<()> {
        if self.is_open { self.add(b"\n", out) } else { Ok(()) }
    }
}

/// All messages in one mbox.
pub struct Stream<'o> {
    out: &'o mut dyn Write,
}

impl<'o> Stream<'o> {
    /// Writes to `out`.
    pub fn new(out: &'o mut dyn Write) -> Stream<'o> {
        Stream { out }
    }
}

impl Sink for Stream<'_> {
    fn message(&mut self, item: &Item, _: u64, octets: &mut dyn Read) -> io::Result<()> {
        write(self.out, item.internaldate, octets)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A directory with an mbox for each folder: `INBOX.mbox`, `Work.2026.mbox`.
pub struct Files {
    root: PathBuf,
    made: HashSet<PathBuf>,
    open: Option<(PathBuf, BufWriter<File>)>,
}

impl Files {
    /// Errors: that of [`io::ErrorKind::AlreadyExists`] if there is something already.
    pub fn create(root: PathBuf) -> io::Result<Files> {
        directory::claim(&root)?;
        Ok(Files { root, made: HashSet::new(), open: None })
    }

    fn close(&mut self) -> io::Result<()> {
        let Some((_, writer)) = self.open.take() else { return Ok(()) };
        writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

impl Sink for Files {
    /// One file is open at a time: messages come chunk by chunk, and mostly stay in a folder.
    fn message(&mut self, item: &Item, _: u64, octets: &mut dyn Read) -> io::Result<()> {
        let folder = &item.folder;
        let name = if folder.path.is_empty() { "INBOX".to_owned() } else { folder.file_name() };
        let file = self.root.join(name + ".mbox");
        if self.open.as_ref().is_none_or(|(open, _)| *open != file) {
            self.close()?;
            let mut options = OpenOptions::new();
            options.append(true).create_new(!self.made.contains(&file));
            let opened = BufWriter::new(options.open(&file)?);
            self.made.insert(file.clone());
            self.open = Some((file, opened));
        }
        match &mut self.open {
            Some((_, out)) => write(out, item.internaldate, octets),
            None => Ok(()),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.close()?;
        directory::sync(&self.root)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Hands octets out in pieces.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = self.1.min(self.0.len()).min(buffer.len());
            buffer[..len].copy_from_slice(&self.0[..len]);
            self.0 = &self.0[len..];
            Ok(len)
        }
    }

    #[test]
    fn from_lines_are_quoted_and_lines_end_in_lf() {
        let head = "From MAILER-DAEMON Thu Jan  1 00:00:00 1970\n";
        for (message, expected) in [
            ("", "\n"),
            ("A: b\r\n\r\nFrom x\r\n", "A: b\n\n>From x\n\n"),
            (">From x\n>>From \n From x", ">>From x\n>>>From \n From x\n\n"),
            ("From", "From\n\n"),
            ("Fro\nm ", "Fro\nm \n\n"),
            (">>>", ">>>\n\n"),
            ("a\rb\r\r\nc\r", "a\rb\r\nc\n\n"),
            ("\r\n\r\n", "\n\n\n"),
        ] {
            for step in [1, 2, 3, 1000] {
                let mut out = Vec::new();
                write(&mut out, 0, &mut Pieces(message.as_bytes(), step)).unwrap();
                let text = String::from_utf8(out).unwrap();
                assert_eq!(text, format!("{head}{expected}"), "{message:?} by {step}");
            }
        }
    }
}
