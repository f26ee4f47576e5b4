//! One connection to a backup server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

/// A reply may take this long: the real server hashes whole backups.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Where and as whom to connect.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) compress: bool,
}

/// A connection that is logged in.
pub(crate) struct Csync {
    reader: BufReader<Inflated>,
    deflate: Option<Compress>,
    /// From the first octet sent to the end of the reply, over all commands so far.
    pub(crate) waited: Duration,
}

impl Csync {
    /// Connects, logs in, and compresses if that is wanted and offered.
    pub(crate) fn login(server: &Server) -> Result<Self> {
        let Server { address, user, password, compress } = server;
        let socket = TcpStream::connect(address).with_context(|| address.clone())?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        let reader = BufReader::with_capacity(64 * 1024, Inflated::new(socket));
        let mut this = Self { reader, deflate: None, waited: Duration::ZERO };
        let mut can_compress = false;
        loop {
            let line = this.line()?;
            can_compress |= line.starts_with("* COMPRESS DEFLATE");
            if line.starts_with("* OK") {
                break;
            }
        }
        let login =
            base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0{password}"));
        this.ask(format!("AUTHENTICATE PLAIN {login}\r\n").as_bytes())?;
        if *compress {
            ensure!(can_compress, "the server does not offer COMPRESS");
            this.ask(b"COMPRESS DEFLATE\r\n")?;
            this.deflate = Some(Compress::new(Compression::default(), false));
            this.reader.get_mut().inflate = Some(Box::new(Decompress::new(false)));
        }
        this.waited = Duration::ZERO;
        Ok(this)
    }

    /// What is to be sent for `command`: in order, each exactly once.
    pub(crate) fn encode(&mut self, command: Vec<u8>) -> Result<Vec<u8>> {
        let Some(deflate) = &mut self.deflate else { return Ok(command) };
        let mut out = Vec::with_capacity(command.len() / 2 + 64);
        let mut rest = &command[..];
        loop {
            let before = deflate.total_in();
            deflate.compress_vec(rest, &mut out, FlushCompress::Sync)?;
            rest = &rest[usize::try_from(deflate.total_in() - before)?..];
            if rest.is_empty() && out.len() < out.capacity() {
                return Ok(out);
            }
            out.reserve(64 * 1024);
        }
    }

    /// Sends a command, and returns the untagged lines of its reply; fails unless that is OK.
    pub(crate) fn ask(&mut self, command: &[u8]) -> Result<Vec<String>> {
        let octets = self.encode(command.to_vec())?;
        self.ask_encoded(&octets)
    }

    /// [`Csync::ask`] with what [`Csync::encode`] gave.
    pub(crate) fn ask_encoded(&mut self, octets: &[u8]) -> Result<Vec<String>> {
        let started = Instant::now();
        self.reader.get_mut().socket.write_all(octets)?;
        let mut lines = Vec::new();
        loop {
            let line = self.line()?;
            if line.starts_with("OK ") {
                self.waited += started.elapsed();
                return Ok(lines);
            }
            if !line.starts_with("* ") || line.starts_with("* Fatal") {
                bail!("the server said: {}", line.trim_end());
            }
            lines.push(line);
        }
    }

    /// A line, together with the literals in it.
    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        loop {
            let count = self.reader.read_until(b'\n', &mut line)?;
            ensure!(count > 0, "the server closed the connection");
            let Some(len) = literal_at_end(&line) else { break };
            let from = line.len();
            line.resize(from + len, 0);
            self.reader.read_exact(&mut line[from..])?;
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }
}

fn literal_at_end(line: &[u8]) -> Option<usize> {
    let text = line.strip_suffix(b"}\r\n")?;
    let open = text.iter().rposition(|&c| c == b'{')?;
    std::str::from_utf8(&text[open + 1..]).ok()?.parse().ok()
}

/// What comes from the socket, inflated once that was agreed.
struct Inflated {
    socket: TcpStream,
    inflate: Option<Box<Decompress>>,
    packed: Vec<u8>,
    at: usize,
}

impl Inflated {
    fn new(socket: TcpStream) -> Self {
        Self { socket, inflate: None, packed: Vec::new(), at: 0 }
    }
}

impl Read for Inflated {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let Some(inflate) = &mut self.inflate else { return self.socket.read(buffer) };
        loop {
            let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
            inflate.decompress(&self.packed[self.at..], buffer, FlushDecompress::None)?;
            self.at += (inflate.total_in() - before_in) as usize;
            let count = (inflate.total_out() - before_out) as usize;
            if count > 0 {
                return Ok(count);
            }
            self.packed.resize(64 * 1024, 0);
            self.at = 0;
            let received = self.socket.read(&mut self.packed)?;
            self.packed.truncate(received);
            if received == 0 {
                return Ok(0);
            }
        }
    }
}
