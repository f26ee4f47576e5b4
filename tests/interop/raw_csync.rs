//! A hand-driven replication connection: sends bytes, returns the reply's bytes.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::managesieve::sasl_plain;

const TIMEOUT: Duration = Duration::from_secs(15);

/// One connection to a backup server.
pub(crate) struct RawCsync {
    reader: BufReader<TcpStream>,
    banner: Vec<u8>,
}

impl RawCsync {
    /// Connects and reads the banner.
    pub(crate) fn connect(port: u16) -> Self {
        Self::try_connect(port).unwrap()
    }

    /// Like [`RawCsync::connect`]; fails while nobody listens or the banner is not finished.
    pub(crate) fn try_connect(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        let mut csync = Self { reader: BufReader::new(stream), banner: Vec::new() };
        loop {
            let line = csync.read_line()?;
            csync.banner.extend_from_slice(&line);
            if line.starts_with(b"* OK") {
                return Ok(csync);
            }
            if line.is_empty() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Connects and logs in; panics unless that is answered OK.
    pub(crate) fn login(port: u16, user: &str, password: &str) -> Self {
        let mut csync = Self::connect(port);
        let login = sasl_plain(user, password);
        let reply = csync.ask(format!("AUTHENTICATE PLAIN {login}\r\n").as_bytes());
        assert!(reply.starts_with("OK "), "{reply}");
        csync
    }

    /// Whether the banner announces DEFLATE compression.
    pub(crate) fn offers_compression(&self) -> bool {
        String::from_utf8_lossy(&self.banner).contains("* COMPRESS DEFLATE\r\n")
    }

    /// Sends octets and reads up to the final line (included); at the end of the connection, what
    /// came before it.
    pub(crate) fn ask(&mut self, request: &[u8]) -> String {
        // The server may have closed while we write; its last words are still to be read.
        let _ = self.reader.get_mut().write_all(request);
        let mut reply = Vec::new();
        loop {
            let line = match self.read_line() {
                Ok(line) => line,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => Vec::new(),
                Err(error) => {
                    let [request, reply] = [request, &reply].map(<[u8]>::escape_ascii);
                    panic!("no end of the reply to \"{request}\", only \"{reply}\": {error}")
                }
            };
            let is_last = line.is_empty() || !line.starts_with(b"* ");
            reply.extend_from_slice(&line);
            if is_last {
                return String::from_utf8_lossy(&reply).into_owned();
            }
        }
    }

    /// [`RawCsync::ask`] where the reply may hold literals: reads on to the final line.
    pub(crate) fn ask_whole(&mut self, request: &[u8]) -> String {
        let mut reply = self.ask(request);
        let is_final = |line: &str| ["OK ", "NO ", "BAD "].iter().any(|w| line.starts_with(w));
        while !reply.lines().last().is_some_and(is_final) {
            let more = self.ask(b"");
            assert!(!more.is_empty(), "no end of the reply: {reply}");
            reply += &more;
        }
        reply
    }

    fn read_line(&mut self) -> std::io::Result<Vec<u8>> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line)?;
        Ok(line)
    }
}
