//! A socket and its filters, read and written with a limit on the time.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::ClientError;
use crate::sync::transport::{TlsPeer, Transport, TransportError};

/// Octets read from the socket, or decoded, at a time.
const PIECE: usize = 64 * 1024;
/// Octets that may wait before they are written. A compressed stream is flushed each time.
const HIGH_WATER: usize = 256 * 1024;

/// How long to wait for the other side.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// For each single read or write.
    Idle(Duration),
    /// For all of them together.
    Until(Instant),
}

/// See the module. After an error it is of no more use.
pub(super) struct Stream {
    socket: Socket,
    transport: Transport,
    raw: Box<[u8]>,
    /// Decoded; `at..end` was not taken yet.
    input: Box<[u8]>,
    at: usize,
    end: usize,
    patience: Patience,
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// The first address of `host` that answers. Also returns it as text.
    pub(super) fn connect_tcp(
        host: &str,
        port: u16,
        timeout: Duration,
    ) -> Result<(Stream, String), ClientError> {
        let name = format!("{host}:{port}");
        let found = (host, port)
            .to_socket_addrs()
            .map_err(|source| ClientError::Lookup { host: name.clone(), source })?;
        let mut failure = None;
        for address in found {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(socket) => {
                    // Small commands and their answers take turns.
                    let _ = socket.set_nodelay(true);
                    let _ = rustix::net::sockopt::set_socket_keepalive(&socket, true);
                    return Ok((Stream::new(Socket::Tcp(socket)), address.to_string()));
                }
                Err(source) => failure = Some((address.to_string(), source)),
            }
        }
        let no_address = || (name, io::Error::from(io::ErrorKind::AddrNotAvailable));
        let (address, source) = failure.unwrap_or_else(no_address);
        Err(ClientError::Connect { address, source })
    }

    /// A Unix socket.
    pub(super) fn connect_unix(path: &Path) -> Result<(Stream, String), ClientError> {
        let address = path.display().to_string();
        match UnixStream::connect(path) {
            Ok(socket) => Ok((Stream::new(Socket::Unix(socket)), address)),
            Err(source) => Err(ClientError::Connect { address, source }),
        }
    }

    fn new(socket: Socket) -> Stream {
        Stream {
            socket,
            transport: Transport::default(),
            raw: vec![0; PIECE].into(),
            input: vec![0; PIECE].into(),
            at: 0,
            end: 0,
            patience: Patience::Idle(Duration::from_secs(10)),
        }
    }

    /// How long to wait from now on.
    pub(super) fn set_patience(&mut self, patience: Patience) {
        self.patience = patience;
    }

    /// Whether nothing has come that was not taken.
    pub(super) fn is_drained(&self) -> bool {
        self.at == self.end && self.transport.is_plain()
    }

    /// Encrypts everything from now on. What came in the clear must have been taken.
    pub(super) fn start_tls(
        &mut self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<TlsPeer> {
        self.transport.start_tls_client(config, name).map_err(broken)?;
        loop {
            // A little may come along with the end of the handshake.
            let came = self.step()?;
            if let Some(peer) = self.transport.take_handshake() {
                self.flush()?;
                return Ok(peer);
            }
            if came {
                return Err(io::Error::other("data before the end of the handshake"));
            }
        }
    }

    /// Compresses everything from now on.
    pub(super) fn start_deflate(&mut self) -> io::Result<()> {
        let early = self.input[self.at..self.end].to_vec();
        (self.at, self.end) = (0, 0);
        self.transport.start_deflate(&early).map_err(broken)
    }

    /// What has come, after waiting for it if there is nothing. Never empty: the end of the
    /// stream is an error, [`io::ErrorKind::UnexpectedEof`].
    pub(super) fn input(&mut self) -> io::Result<&[u8]> {
        while self.at == self.end {
            self.step()?;
        }
        Ok(&self.input[self.at..self.end])
    }

    /// So much of [`Stream::input`] was taken.
    pub(super) fn skip(&mut self, len: usize) {
        self.at += len.min(self.end - self.at);
    }

    /// Decodes what was received, or receives more. Whether there is input now.
    fn step(&mut self) -> io::Result<bool> {
        if self.at < self.end {
            return Ok(true);
        }
        match self.transport.decode(&mut self.input) {
            Ok(0) => {}
            Ok(len) => {
                (self.at, self.end) = (0, len);
                return Ok(true);
            }
            Err(error) => {
                // An alert tells the other side why.
                let _ = self.flush();
                return Err(broken(error));
            }
        }
        if self.transport.at_end() {
            return Err(ended());
        }
        // The handshake may have something to say.
        self.flush()?;
        let timeout = self.timeout()?;
        let len = loop {
            let read = match &mut self.socket {
                Socket::Tcp(socket) => {
                    socket.set_read_timeout(Some(timeout))?;
                    socket.read(&mut self.raw)
                }
                Socket::Unix(socket) => {
                    socket.set_read_timeout(Some(timeout))?;
                    socket.read(&mut self.raw)
                }
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read.map_err(|error| too_late(error, "no answer", timeout))?,
            }
        };
        if len == 0 {
            return Err(ended());
        }
        self.transport.receive(&self.raw[..len]);
        Ok(false)
    }

    /// Queues octets; writes them when there are many.
    pub(super) fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        for piece in octets.chunks(HIGH_WATER) {
            self.transport.send(piece);
            if self.transport.octets_to_send() >= HIGH_WATER {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes all that is queued.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        loop {
            let timeout = self.timeout()?;
            let output = self.transport.output().map_err(broken)?;
            if output.is_empty() {
                return Ok(());
            }
            let written = match &mut self.socket {
                Socket::Tcp(socket) => {
                    socket.set_write_timeout(Some(timeout))?;
                    socket.write(output)
                }
                Socket::Unix(socket) => {
                    socket.set_write_timeout(Some(timeout))?;
                    socket.write(output)
                }
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => self.transport.sent(len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(too_late(error, "nothing was taken", timeout)),
            }
        }
    }

    /// Says good-bye where the filters have a word for it.
    pub(super) fn close(&mut self) {
        self.transport.close();
        let _ = self.flush();
    }

    fn timeout(&self) -> io::Result<Duration> {
        let timeout = match self.patience {
            Patience::Idle(timeout) => timeout,
            Patience::Until(deadline) => deadline.saturating_duration_since(Instant::now()),
        };
        match timeout {
            Duration::ZERO => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
            timeout => Ok(timeout),
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("patience", &self.patience).finish_non_exhaustive()
    }
}

fn broken(error: TransportError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")
}

fn too_late(error: io::Error, what: &str, timeout: Duration) -> io::Error {
    match error.kind() {
        // The one on Linux, the other elsewhere.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            let text = format!("{what} for {} s", timeout.as_secs_f64().ceil());
            io::Error::new(io::ErrorKind::TimedOut, text)
        }
        _ => error,
    }
}
