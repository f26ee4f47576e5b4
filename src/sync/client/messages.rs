//! Messages, in both directions, piece by piece.

use std::io::{self, Read, Write};

use sha1::{Digest, Sha1};

use super::{Client, ClientError};
use crate::wire::Guid;
use crate::wire::dlist::{FileHeader, Literals, Printer};

/// Messages up to this many octets are checked before they are sent.
pub const MESSAGE_AHEAD_MAX: u64 = 256 * 1024;
/// Octets read at a time from longer ones.
const PIECE: usize = 64 * 1024;
/// Most messages in one command: what Cyrus's own clients send.
const BATCH_MAX: usize = 1024;

/// Messages under way to the staging area of the server. What is dropped before
/// [`Messages::finish`] takes the connection with it, if anything was sent.
#[derive(Debug)]
pub struct Messages<'a> {
    client: &'a mut Client,
    partition: Vec<u8>,
    /// Messages in the command under way.
    count: usize,
    buffer: Vec<u8>,
}

impl<'a> Messages<'a> {
    pub(super) fn new(client: &'a mut Client, partition: &[u8]) -> Messages<'a> {
        Messages { client, partition: partition.to_owned(), count: 0, buffer: Vec::new() }
    }

    /// Sends one message of `size` octets, and checks that `body` has as many and that they are
    /// what `guid` says: nothing else ever arrives as a complete message. Up to
    /// [`MESSAGE_AHEAD_MAX`] octets are read and checked before anything is sent, so that a bad
    /// message does no harm; a longer one that turns out bad costs the connection
    /// ([`ClientError::Message`]).
    ///
    /// Every 1024 messages the server is asked whether it has them: an error of this call may
    /// be about earlier ones. If it has not, the connection is given up
    /// ([`ClientError::NotTaken`]).
    pub fn add(&mut self, guid: &Guid, size: u64, body: &mut dyn Read) -> Result<(), ClientError> {
        if size > u64::from(u32::MAX) {
            return Err(bad(guid, true, "longer than this protocol can say"));
        }
        let ahead = size.min(MESSAGE_AHEAD_MAX);
        self.buffer.clear();
        body.take(ahead)
            .read_to_end(&mut self.buffer)
            .map_err(|error| bad(guid, true, &error.to_string()))?;
        if (self.buffer.len() as u64) < ahead {
            return Err(bad(guid, true, &format!("{} of {size} octets", self.buffer.len())));
        }
        let mut hash = Sha1::new();
        hash.update(&self.buffer);
        if ahead == size {
            check(guid, hash, body).map_err(|what| bad(guid, true, what))?;
            self.announce(guid, size)?;
            self.client.put(&self.buffer)?;
        } else {
            self.announce(guid, size)?;
            self.client.put(&self.buffer)?;
            self.stream(guid, size - ahead, hash, body)?;
        }
        self.count += 1;
        if self.count < BATCH_MAX { Ok(()) } else { self.end() }
    }

    /// Ends the list and waits until the server has all of it.
    pub fn finish(mut self) -> Result<(), ClientError> {
        self.end()
    }

    fn announce(&mut self, guid: &Guid, size: u64) -> Result<(), ClientError> {
        let header = FileHeader { partition: self.partition.clone(), guid: *guid, size };
        let mut printer = Printer::new(Literals::NonSync, Vec::new());
        if self.count == 0 {
            let partition = String::from_utf8_lossy(&self.partition);
            self.client.begin("APPLY", format!("APPLY MESSAGE ({partition})"))?;
            printer.raw(b" MESSAGE (");
        } else {
            printer.raw(b" ");
        }
        printer.file(&header);
        self.client.put(&printer.into_text())
    }

    /// The rest of a long message. The last piece is held back until it is known to be good.
    fn stream(
        &mut self,
        guid: &Guid,
        mut left: u64,
        mut hash: Sha1,
        body: &mut dyn Read,
    ) -> Result<(), ClientError> {
        loop {
            self.buffer.clear();
            let want = left.min(PIECE as u64);
            let read = body.take(want).read_to_end(&mut self.buffer);
            let fault = match read {
                Ok(len) if len as u64 == want => None,
                Ok(_) => Some(format!("ends {left} octets early")),
                Err(error) => Some(error.to_string()),
            };
            if let Some(what) = fault {
                return Err(self.abandon(guid, &what));
            }
            hash.update(&self.buffer);
            left -= want;
            if left == 0 {
                check(guid, hash, body).map_err(|what| self.abandon(guid, what))?;
                return self.client.put(&self.buffer);
            }
            self.client.put(&self.buffer)?;
        }
    }

    /// A part of a message is under way that must not become whole.
    fn abandon(&mut self, guid: &Guid, what: &str) -> ClientError {
        self.client.give_up();
        bad(guid, false, what)
    }

    fn end(&mut self) -> Result<(), ClientError> {
        if self.count == 0 {
            return Ok(());
        }
        self.count = 0;
        self.client.put(b")")?;
        match self.client.finish(None) {
            // A server that could not write a message takes the rest of it for commands.
            Err(ClientError::Refused { command, refusal }) => {
                self.client.give_up();
                Err(ClientError::NotTaken { command, refusal })
            }
            finished => finished.map(drop),
        }
    }
}

impl Drop for Messages<'_> {
    fn drop(&mut self) {
        if self.count > 0 {
            self.client.give_up();
        }
    }
}

/// All octets were read: whether there are no more, and they are the right ones.
fn check(guid: &Guid, hash: Sha1, body: &mut dyn Read) -> Result<(), &'static str> {
    if !matches!(body.read(&mut [0; 1]), Ok(0)) {
        return Err("longer than it should be");
    }
    let found = Guid::from(<[u8; 20]>::from(hash.finalize()));
    if found == *guid { Ok(()) } else { Err("its SHA-1 is another") }
}

fn bad(guid: &Guid, is_connection_usable: bool, what: &str) -> ClientError {
    ClientError::Message { guid: *guid, what: what.to_owned(), is_connection_usable }
}

/// Which message, for [`Client::get_message`].
#[derive(Clone, Copy, Debug)]
pub struct MessageName<'a> {
    /// Internal name of its mailbox.
    pub mboxname: &'a [u8],
    /// The mailbox's partition.
    pub partition: &'a [u8],
    /// The mailbox's unique id.
    pub uniqueid: &'a [u8],
    /// The message.
    pub guid: Guid,
    /// Its UID.
    pub uid: u32,
}

/// A message on its way from the server.
pub(super) struct Download<'a> {
    out: &'a mut dyn Write,
    hash: Sha1,
    header: Option<FileHeader>,
    error: Option<io::Error>,
}

impl<'a> Download<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Download<'a> {
        Download { out, hash: Sha1::new(), header: None, error: None }
    }

    pub(super) fn start(&mut self, header: FileHeader) {
        self.header = Some(header);
    }

    /// The answer is read to its end even if nobody can take it.
    pub(super) fn take(&mut self, octets: &[u8]) {
        self.hash.update(octets);
        if self.error.is_none() {
            self.error = self.out.write_all(octets).err();
        }
    }

    /// Its octets; `None` if none came.
    pub(super) fn end(self, guid: &Guid) -> Result<Option<u64>, ClientError> {
        let Some(header) = self.header else { return Ok(None) };
        if let Some(error) = self.error {
            return Err(bad(guid, true, &error.to_string()));
        }
        let found = Guid::from(<[u8; 20]>::from(self.hash.finalize()));
        if found != *guid {
            return Err(bad(guid, true, "what the server sent has another SHA-1"));
        }
        Ok(Some(header.size))
    }
}
