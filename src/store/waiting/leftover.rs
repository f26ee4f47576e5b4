//! Reading the file of a session whose process is dead.
//!
//! Nothing in it is believed: its owner, its lines and the SHA-1 of every message are checked.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::libc;
use sha1::{Digest, Sha1};

use super::super::aside;
use super::super::staging::Staging;
use super::{BUFFER, PREFIX, TITLE};
use crate::lock::{self, Kind, LockError, Wait};
use crate::wire::apply::Apply;
use crate::wire::dlist::{FileHeader, parse_item};
use crate::wire::frame::{Event, Framer, Limits};
use crate::wire::{Body, Guid};

/// Files looked at in one pass.
const FILES_MAX: usize = 10_000;
/// Messages of one group.
const GROUP_MAX: usize = 1024;
/// A LACKING line names no more backups than a client can ask for in one line.
const LIMITS: Limits =
    Limits { line: 64 << 20, literal: 1 << 20, body: u32::MAX as u64, bodies: 1 };

/// Why a file cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum WaitingError {
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What stands at this offset is not from here.
    #[error("line at offset {offset}: {what}")]
    Broken {
        /// Of the line, in octets.
        offset: u64,
        /// What is wrong.
        what: String,
    },
}

/// Messages of a file that the same backups lack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The keys of these backups, in order.
    pub lacking: Vec<Vec<u8>>,
    /// Their headers.
    pub files: Vec<FileHeader>,
    /// As many bodies; see [`Leftover::staging`].
    pub bodies: Vec<Body>,
}

/// A file without an owner, locked until this is dropped.
#[derive(Debug)]
pub struct Leftover {
    path: PathBuf,
    file: File,
    staging: Staging,
}

/// The files of sessions, alive or dead, that are in `directory`, by name.
pub fn leftovers(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let is_ours = |name: &OsStr| {
        // With a suffix it was put aside.
        name.to_str().is_some_and(|name| name.starts_with(PREFIX) && !name.contains('.'))
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry?;
        if is_ours(&entry.file_name()) {
            paths.push(entry.path());
            if paths.len() == FILES_MAX {
                break;
            }
        }
    }
    paths.sort();
    Ok(paths)
}

impl Leftover {
    /// Opens the file at `path`, unless its owner is alive or it is gone: then it is `None`.
    ///
    /// Errors: a file that this user has not made, or that others may write to, is refused:
    /// anybody could have put it there.
    pub fn open(path: &Path) -> io::Result<Option<Leftover>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let metadata = file.metadata()?;
        let is_ours = metadata.is_file()
            && metadata.uid() == nix::unistd::geteuid().as_raw()
            && metadata.mode() & 0o022 == 0;
        if !is_ours {
            let text = "not a file of this user that nobody else may write to";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        match lock::acquire(&file, Kind::Exclusive, Wait::No) {
            Err(LockError::Busy) => return Ok(None),
            Err(LockError::Io(error)) => return Err(error),
            Ok(()) => {}
        }
        if !lock::is_current(&file, path)? {
            return Ok(None);
        }
        let staging = Staging::over(file.try_clone()?);
        Ok(Some(Leftover { path: path.to_owned(), file, staging }))
    }

    /// Where the bodies are read from.
    pub fn staging(&self) -> &Staging {
        &self.staging
    }

    /// What waits in it.
    pub fn groups(&self) -> Groups<'_> {
        Groups {
            file: &self.file,
            framer: Framer::new(LIMITS),
            buffer: Vec::new(),
            used: 0,
            offset: 0,
            line_offset: 0,
            has_title: false,
            group: Group::default(),
            body: None,
            damaged: 0,
            error: None,
            is_over: false,
        }
    }

    /// Every message is where it belongs: the file goes.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }

    /// Puts the file out of the way, under a name that is not looked at again.
    pub fn put_aside(self) -> io::Result<PathBuf> {
        aside::rename_to_unused(&self.path, &self.path, ".broken")
    }
}

/// Reads a file from its beginning, in little memory.
pub struct Groups<'f> {
    file: &'f File,
    framer: Framer,
    buffer: Vec<u8>,
    used: usize,
    /// In the file, of what comes next.
    offset: u64,
    /// The same, of the line it belongs to.
    line_offset: u64,
    has_title: bool,
    /// What was read and not yet given out.
    group: Group,
    /// The body of the line that is being read.
    body: Option<Arriving>,
    damaged: usize,
    /// Comes next.
    error: Option<WaitingError>,
    is_over: bool,
}

struct Arriving {
    offset: u64,
    header: FileHeader,
    sha1: Sha1,
}

impl Groups<'_> {
    /// Messages so far that were passed over because they do not have their SHA-1.
    pub fn damaged(&self) -> usize {
        self.damaged
    }

    /// The next messages; `None` at the end. A last line that is not whole is passed over.
    /// An error comes after all that stands in front of it, and nothing after it.
    pub fn next_group(&mut self) -> Result<Option<Group>, WaitingError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        if self.is_over {
            return Ok(None);
        }
        let result = self.read_group();
        self.is_over = !matches!(result, Ok(Some(_)));
        let Err(error) = result else { return result };
        match self.give_out() {
            None => Err(error),
            group => {
                self.error = Some(error);
                Ok(group)
            }
        }
    }

    fn read_group(&mut self) -> Result<Option<Group>, WaitingError> {
        loop {
            if self.used == self.buffer.len() && !self.refill()? {
                return Ok(self.give_out());
            }
            let before = self.buffer.len() - self.used;
            let mut input = &self.buffer[self.used..];
            let event = self.framer.next(&mut input);
            let taken = before - input.len();
            let at = self.offset + taken as u64;
            match event {
                Event::More | Event::Continue | Event::BodyEnd => {}
                Event::BodyStart(header) => {
                    self.body = Some(Arriving { offset: at, header, sha1: Sha1::new() });
                }
                Event::Body(octets) => {
                    if let Some(body) = &mut self.body {
                        body.sha1.update(octets);
                    }
                }
                Event::Lost => return Err(self.broken("bad length")),
                Event::Line => {
                    let line = self.framer.take_line().map_err(|poison| self.broken(poison))?;
                    (self.used, self.offset) = (self.used + taken, at);
                    let complete = self.line(&line)?;
                    self.line_offset = at;
                    if complete.is_some() {
                        return Ok(complete);
                    }
                    continue;
                }
            }
            (self.used, self.offset) = (self.used + taken, at);
        }
    }

    /// Takes a line; returns a group that it completes.
    fn line(&mut self, line: &[u8]) -> Result<Option<Group>, WaitingError> {
        if !self.has_title {
            self.has_title = line == TITLE;
            return if self.has_title { Ok(None) } else { Err(self.broken("not such a file")) };
        }
        let (name, value) = parse_item(line).map_err(|error| self.broken(error))?;
        match (&*name, self.body.take()) {
            (b"LACKING", None) => {
                let keys = value.as_list().items().map(|key| key.as_text().map(<[u8]>::to_vec));
                let keys: Option<Vec<_>> = keys.collect();
                let keys = keys.filter(|keys| !keys.is_empty());
                let keys = keys.ok_or_else(|| self.broken("no backups are named"))?;
                let complete = self.give_out();
                self.group.lacking = keys;
                Ok(complete)
            }
            (b"MESSAGE", Some(body)) => {
                let is_one = matches!(Apply::read(b"MESSAGE", &value),
                    Ok(Apply::Message(files)) if files == [body.header.clone()]);
                if !is_one || self.group.lacking.is_empty() {
                    return Err(self.broken("not a message that waits"));
                }
                self.message(body);
                let is_full = self.group.files.len() == GROUP_MAX;
                Ok(if is_full { self.give_out() } else { None })
            }
            _ => Err(self.broken("not a line of such a file")),
        }
    }

    fn message(&mut self, body: Arriving) {
        let Arriving { offset, header, sha1 } = body;
        if Guid::from(<[u8; 20]>::from(sha1.finalize())) != header.guid {
            tracing::error!(guid = %header.guid, offset, "a message that waits is damaged");
            self.damaged += 1;
            return;
        }
        self.group.bodies.push(Body::Staged { offset, len: header.size });
        self.group.files.push(header);
    }

    /// The messages gathered so far.
    fn give_out(&mut self) -> Option<Group> {
        let empty = Group { lacking: self.group.lacking.clone(), ..Group::default() };
        Some(std::mem::replace(&mut self.group, empty)).filter(|group| !group.files.is_empty())
    }

    fn refill(&mut self) -> io::Result<bool> {
        self.used = 0;
        self.buffer.resize(BUFFER, 0);
        let got = loop {
            match self.file.read_at(&mut self.buffer, self.offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                got => break got,
            }
        };
        self.buffer.truncate(got.as_ref().map_or(0, |got| *got));
        Ok(got? > 0)
    }

    fn broken(&self, what: impl ToString) -> WaitingError {
        WaitingError::Broken { offset: self.line_offset, what: what.to_string() }
    }
}
