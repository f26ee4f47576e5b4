//! Messages to send: real ones, each made unique by a header.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use cyrbk::wire::Guid;
use sha1::{Digest as _, Sha1};

/// Messages to make others of.
pub(crate) struct Mail {
    originals: Vec<Vec<u8>>,
    seed: u64,
}

/// One message as it is sent.
pub(crate) struct Message {
    pub(crate) octets: Vec<u8>,
    pub(crate) guid: Guid,
}

impl Mail {
    /// Reads the messages of `folder`, with the line ends that mail has on a server. Those longer
    /// than `size_max` octets are cut.
    pub(crate) fn load(folder: Option<&Path>, size_max: Option<usize>, seed: u64) -> Result<Self> {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mail");
        let mut paths = Vec::new();
        files(folder.unwrap_or(&own), &mut paths)?;
        paths.retain(|path| path.extension().is_none_or(|extension| extension != "md"));
        paths.sort();
        let mut originals = Vec::new();
        for path in paths {
            let text = fs::read(&path).with_context(|| path.display().to_string())?;
            let mut message = with_crlf(&text);
            message.truncate(size_max.unwrap_or(usize::MAX));
            originals.push(message);
        }
        ensure!(!originals.is_empty(), "no messages");
        Ok(Self { originals, seed })
    }

    /// The `number`th message: an original with a first header line of its own.
    pub(crate) fn message(&self, user: &str, number: u64) -> Message {
        let index = number % self.originals.len() as u64;
        let original = &self.originals[usize::try_from(index).unwrap_or(0)];
        let header = format!("X-Load: {user} {number} {}\r\n", self.seed);
        let octets = [header.as_bytes(), original].concat();
        let guid = Guid::from(<[u8; 20]>::from(Sha1::digest(&octets)));
        Message { octets, guid }
    }

    /// Octets of an average message.
    pub(crate) fn mean_size(&self) -> u64 {
        let total: usize = self.originals.iter().map(Vec::len).sum();
        (total / self.originals.len()) as u64 + 20
    }
}

fn files(path: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(path).with_context(|| path.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

/// Drops the `From ` line of an mbox, and makes every line end in CRLF.
fn with_crlf(text: &[u8]) -> Vec<u8> {
    let text = match text.iter().position(|&c| c == b'\n') {
        Some(end) if text.starts_with(b"From ") => &text[end + 1..],
        _ => text,
    };
    let mut out = Vec::with_capacity(text.len() + text.len() / 32);
    for line in text.split_inclusive(|&c| c == b'\n') {
        out.extend(line.iter().filter(|c| !matches!(c, b'\r' | b'\n')));
        out.extend_from_slice(b"\r\n");
    }
    out
}
