//! What lies between a socket and a session: nothing, TLS, deflate, or both
//! (compressed first, then encrypted). Octets in, octets out; no socket is
//! touched here. A server's connection and a client's differ in who begins with TLS.
//!
//! Both directions work in steps of bounded size. Input is decoded only as far
//! as somebody asks for it ([`Transport::decode`]), so a stream that inflates to a
//! thousand times its size is read in many turns, and a session that is busy stops
//! its client. Output is encoded when the socket can take it, so a reply is in
//! memory once, and not a second time in another form.

mod deflate;
mod tls;

pub(crate) use tls::TlsPeer;

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};

use deflate::{Deflater, Inflater};
use tls::Tls;

/// Plain octets encoded in one step.
const PIECE: usize = 64 * 1024;
/// Buffers larger than this are given back when they are empty.
const KEPT: usize = 64 * 1024;

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    /// Of the handshake or of a record.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The other side's octets are no deflate stream, or it has ended.
    #[error("the compressed data is damaged")]
    Inflate,
    /// The compressor failed.
    #[error("cannot compress")]
    Deflate,
}

/// See the module. Starts out without filters.
#[derive(Debug, Default)]
pub(crate) struct Transport {
    tls: Option<Box<Tls>>,
    inflater: Option<Box<Inflater>>,
    deflater: Option<Deflater>,
    /// From the socket; not decrypted yet.
    raw: Buffer,
    /// Decrypted and not inflated yet.
    packed: Buffer,
    /// To be encoded.
    plain: Buffer,
    /// Encoded, for the socket.
    wire: Buffer,
    at_end: bool,
}

impl Transport {
    /// Whether octets pass as they are: then [`Transport::receive`] can be left out.
    pub(crate) fn is_plain(&self) -> bool {
        self.tls.is_none() && self.inflater.is_none() && self.raw.is_empty()
    }

    /// Encrypts everything from now on, both ways. What was sent before goes out as
    /// it is.
    pub(crate) fn start_tls(&mut self, config: Arc<ServerConfig>) -> Result<(), TransportError> {
        self.seal()?;
        self.tls = Some(Box::new(Tls::server(config)?));
        Ok(())
    }

    /// The same as the client of the server `name`: the handshake begins with the next output.
    pub(crate) fn start_tls_client(
        &mut self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<(), TransportError> {
        self.seal()?;
        self.tls = Some(Box::new(Tls::client(config, name, &mut self.wire)?));
        Ok(())
    }

    /// Compresses everything from now on, both ways. `early` are octets that came
    /// behind the command.
    pub(crate) fn start_deflate(&mut self, early: &[u8]) -> Result<(), TransportError> {
        self.seal()?;
        self.deflater = Some(Deflater::default());
        self.inflater = Some(Box::default());
        let buffer = if self.tls.is_some() { &mut self.packed } else { &mut self.raw };
        buffer.push(early);
        Ok(())
    }

    /// The other side of a handshake that is complete; once.
    pub(crate) fn take_handshake(&mut self) -> Option<TlsPeer> {
        self.tls.as_mut().and_then(|tls| tls.take_handshake())
    }

    /// Octets that wait for the socket, encoded or not.
    pub(crate) fn octets_to_send(&self) -> usize {
        self.plain.len() + self.wire.len()
    }

    /// Octets from the socket. To be called when [`Transport::decode`] gave nothing.
    pub(crate) fn receive(&mut self, octets: &[u8]) {
        self.raw.push(octets);
    }

    /// Writes decoded octets to `out`; 0 if there are none before more are received.
    pub(crate) fn decode(&mut self, out: &mut [u8]) -> Result<usize, TransportError> {
        let Some(inflater) = &mut self.inflater else {
            return match &mut self.tls {
                Some(tls) => tls.read(&mut self.raw, &mut self.wire, &mut self.at_end, out),
                None => Ok(self.raw.take(out)),
            };
        };
        let Some(tls) = &mut self.tls else {
            return inflater.inflate(&mut self.raw, out);
        };
        loop {
            let len = inflater.inflate(&mut self.packed, out)?;
            if len > 0 {
                return Ok(len);
            }
            let mut piece = [0; 16 * 1024];
            match tls.read(&mut self.raw, &mut self.wire, &mut self.at_end, &mut piece)? {
                0 => return Ok(0),
                len => self.packed.push(&piece[..len]),
            }
        }
    }

    /// Whether the other side has ended its stream in a way that only the filter saw.
    pub(crate) fn at_end(&self) -> bool {
        self.at_end
    }

    /// Queues octets of a reply. What is queued when the queue is worked off is flushed.
    pub(crate) fn send(&mut self, octets: &[u8]) {
        self.plain.push(octets);
    }

    /// Says good-bye where the filters have a word for it.
    pub(crate) fn close(&mut self) {
        if self.seal().is_ok()
            && let Some(tls) = &mut self.tls
        {
            tls.close(&mut self.wire);
        }
    }

    /// What to write to the socket next; empty if there is nothing.
    pub(crate) fn output(&mut self) -> Result<&[u8], TransportError> {
        if self.wire.is_empty() {
            if self.tls.is_none() && self.deflater.is_none() {
                return Ok(self.plain.rest());
            }
            // A piece that compresses well may come to nothing before the next one.
            while self.wire.is_empty() && !self.plain.is_empty() {
                self.encode(PIECE)?;
            }
        }
        Ok(self.wire.rest())
    }

    /// So many octets of [`Transport::output`] were written.
    pub(crate) fn sent(&mut self, len: usize) {
        match self.wire.is_empty() {
            true => self.plain.skip(len),
            false => self.wire.skip(len),
        }
    }

    /// Encodes up to `max` octets of what is queued.
    fn encode(&mut self, max: usize) -> Result<(), TransportError> {
        let len = self.plain.len().min(max);
        if len == 0 {
            return Ok(());
        }
        let is_last = len == self.plain.len();
        let piece = &self.plain.rest()[..len];
        let packed = match &mut self.deflater {
            Some(deflater) => Some(deflater.deflate(piece, is_last)?),
            None => None,
        };
        let piece = packed.as_deref().unwrap_or(piece);
        match &mut self.tls {
            Some(tls) => tls.write(piece, &mut self.wire)?,
            None => self.wire.push(piece),
        }
        self.plain.skip(len);
        Ok(())
    }

    /// Encodes all that is queued, before the filters change.
    fn seal(&mut self) -> Result<(), TransportError> {
        while !self.plain.is_empty() {
            self.encode(usize::MAX)?;
        }
        Ok(())
    }
}

/// Octets that are taken from the front.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    octets: Vec<u8>,
    /// Taken already; `at <= octets.len()`, and 0 if they are equal.
    at: usize,
}

impl Buffer {
    pub(crate) fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.octets.len() - self.at
    }

    pub(crate) fn rest(&self) -> &[u8] {
        &self.octets[self.at..]
    }

    /// Adds octets at the end. What was dropped at the front is given back before it is
    /// more than what is kept: a buffer that never empties must not grow.
    pub(crate) fn push(&mut self, octets: &[u8]) {
        if self.at > self.len() {
            self.octets.drain(..self.at);
            self.at = 0;
        }
        self.octets.extend_from_slice(octets);
    }

    /// Drops octets at the front; all of them give the memory back if it is much.
    pub(crate) fn skip(&mut self, len: usize) {
        self.at += len.min(self.len());
        if self.at == self.octets.len() {
            self.at = 0;
            match self.octets.capacity() > KEPT {
                true => self.octets = Vec::new(),
                false => self.octets.clear(),
            }
        }
    }

    fn take(&mut self, out: &mut [u8]) -> usize {
        let len = self.len().min(out.len());
        out[..len].copy_from_slice(&self.rest()[..len]);
        self.skip(len);
        len
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
