//! A small IMAP client: byte exact, synchronous, literals without waiting (LITERAL+).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Enough for a message of 2 GB.
const TIMEOUT: Duration = Duration::from_secs(600);

/// One logged-in connection.
pub(crate) struct Imap {
    reader: BufReader<TcpStream>,
    next_tag: u32,
}

/// The answer to one command.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Untagged responses as received, literals included, without the last CRLF.
    untagged: Vec<Vec<u8>>,
    /// The tagged line without the tag.
    status: String,
}

/// One message as FETCH tells it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub(crate) uid: u32,
    pub(crate) body: Vec<u8>,
}

impl Imap {
    /// Connects to `port` on the loopback address and logs in.
    pub(crate) fn login(port: u16, user: &str, password: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut imap = Self { reader: BufReader::new(stream), next_tag: 0 };
        let greeting = imap.read_line();
        assert!(greeting.starts_with(b"* OK"), "{}", text(&greeting));
        imap.ok(&format!("LOGIN {user} {password}"));
        imap
    }

    /// Ends the session; the server has written everything when this returns.
    pub(crate) fn logout(mut self) {
        self.ok("LOGOUT");
        // The server closes last, after it has put its house in order.
        let mut rest = Vec::new();
        let _ = self.reader.read_to_end(&mut rest);
    }

    /// Sends a command without literals; panics unless it is answered OK.
    pub(crate) fn ok(&mut self, command: &str) -> Reply {
        self.ok_bytes(command.as_bytes())
    }

    /// Like [`Imap::ok`]; `command` may hold `{n+}` literals.
    pub(crate) fn ok_bytes(&mut self, command: &[u8]) -> Reply {
        let reply = self.send(command);
        assert!(reply.status.starts_with("OK"), "{} -> {reply:?}", text(command));
        reply
    }

    /// The untagged lines of the answer to a command.
    pub(crate) fn lines(&mut self, command: &str) -> Vec<String> {
        let lines = self.ok(command).untagged;
        lines.into_iter().map(|line| String::from_utf8_lossy(&line).into_owned()).collect()
    }

    /// How a command without literals is answered, whatever that is.
    pub(crate) fn status(&mut self, command: &str) -> String {
        self.send(command.as_bytes()).status
    }

    fn send(&mut self, command: &[u8]) -> Reply {
        self.next_tag += 1;
        let tag = format!("a{} ", self.next_tag);
        let stream = self.reader.get_mut();
        stream.write_all(tag.as_bytes()).unwrap();
        stream.write_all(command).unwrap();
        stream.write_all(b"\r\n").unwrap();
        let mut untagged = Vec::new();
        loop {
            let line = self.read_response();
            if let Some(status) = line.strip_prefix(tag.as_bytes()) {
                return Reply { untagged, status: text(status) };
            }
            untagged.push(line);
        }
    }

    /// One line with the literals in it.
    fn read_response(&mut self) -> Vec<u8> {
        let mut response = self.read_line();
        while let Some(len) = announced_literal(&response) {
            response.extend_from_slice(b"\r\n");
            let start = response.len();
            response.resize(start + len, 0);
            self.reader.read_exact(&mut response[start..]).unwrap();
            let rest = self.read_line();
            response.extend_from_slice(&rest);
        }
        response
    }

    fn read_line(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).unwrap();
        assert!(line.ends_with(b"\r\n"), "connection lost after {:?}", text(&line));
        line.truncate(line.len() - 2);
        line
    }

    /// Creates a mailbox, given in the user's namespace and modified UTF-7.
    pub(crate) fn create(&mut self, mailbox: &str) {
        self.ok(&format!("CREATE {}", quoted(mailbox)));
    }

    /// Appends with flags (`\Seen $Work`) and an internal date in Unix time.
    pub(crate) fn append(&mut self, mailbox: &str, flags: &str, unix_time: i64, message: &[u8]) {
        let date = imap_date(unix_time);
        let mut command =
            format!("APPEND {} ({flags}) \"{date}\" {{{}+}}\r\n", quoted(mailbox), message.len())
                .into_bytes();
        command.extend_from_slice(message);
        self.ok_bytes(&command);
    }

    /// Selects a mailbox.
    pub(crate) fn select(&mut self, mailbox: &str) {
        self.ok(&format!("SELECT {}", quoted(mailbox)));
    }

    /// Leaves the selected mailbox without expunging.
    pub(crate) fn unselect(&mut self) {
        self.ok("UNSELECT");
    }

    /// Sets a mailbox annotation with METADATA; the value goes as a literal.
    pub(crate) fn set_metadata(&mut self, mailbox: &str, entry: &str, value: &[u8]) {
        let mut command =
            format!("SETMETADATA {} ({entry} {{{}+}}\r\n", quoted(mailbox), value.len())
                .into_bytes();
        command.extend_from_slice(value);
        command.push(b')');
        self.ok_bytes(&command);
    }

    /// Sets a message annotation (`value.shared` or `value.priv`) of the selected mailbox.
    pub(crate) fn annotate(&mut self, uid: u32, entry: &str, attribute: &str, value: &[u8]) {
        let mut command =
            format!("UID STORE {uid} ANNOTATION ({entry} ({attribute} {{{}+}}\r\n", value.len())
                .into_bytes();
        command.extend_from_slice(value);
        command.extend_from_slice(b"))");
        self.ok_bytes(&command);
    }

    /// Everything that a client can see of a mailbox: UIDVALIDITY, UIDNEXT, HIGHESTMODSEQ, and of
    /// each message UID, flags, modification sequence, dates, annotations and octets.
    pub(crate) fn snapshot(&mut self, mailbox: &str) -> Vec<String> {
        let examined = self.ok(&format!("EXAMINE {} (CONDSTORE)", quoted(mailbox)));
        let items = "(UID FLAGS MODSEQ INTERNALDATE BODY.PEEK[])";
        let fetched = self.ok(&format!("UID FETCH 1:* {items}"));
        self.unselect();
        let lines = examined.untagged.into_iter().chain(fetched.untagged);
        lines.map(|line| String::from_utf8_lossy(&line).into_owned()).collect()
    }

    /// All messages of a mailbox, by UID; leaves it unselected.
    pub(crate) fn fetch_all(&mut self, mailbox: &str) -> Vec<Fetched> {
        self.ok(&format!("EXAMINE {}", quoted(mailbox)));
        let reply = self.ok("UID FETCH 1:* (UID BODY.PEEK[])");
        let found = reply.untagged.iter().filter_map(|line| fetched(line)).collect();
        self.unselect();
        found
    }
}

/// The length in a `{n}` at the end of `line`.
fn announced_literal(line: &[u8]) -> Option<usize> {
    let open = line.strip_suffix(b"}")?.iter().rposition(|&byte| byte == b'{')?;
    std::str::from_utf8(&line[open + 1..line.len() - 1]).ok()?.parse().ok()
}

fn fetched(line: &[u8]) -> Option<Fetched> {
    let marker = b"BODY[] {";
    let at = line.windows(marker.len()).position(|window| window == marker)?;
    let head = text(&line[..at]);
    let uid = head.split("UID ").nth(1)?.split([' ', ')']).next()?.parse().ok()?;
    let rest = &line[at + marker.len()..];
    let close = rest.iter().position(|&byte| byte == b'}')?;
    let len: usize = std::str::from_utf8(&rest[..close]).ok()?.parse().ok()?;
    let start = close + "}\r\n".len();
    Some(Fetched { uid, body: rest[start..start + len].to_vec() })
}

/// A quoted string; mailbox names hold no line ends.
fn quoted(string: &str) -> String {
    format!("\"{}\"", string.replace('\\', "\\\\").replace('"', "\\\""))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(400)]).into_owned()
}

/// `01-Jan-2002 00:00:00 +0000` for a Unix time.
fn imap_date(unix_time: i64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let zoned = jiff::Timestamp::from_second(unix_time).unwrap().to_zoned(jiff::tz::TimeZone::UTC);
    let month = MONTHS[usize::try_from(zoned.month() - 1).unwrap()];
    format!(
        "{:02}-{month}-{:04} {:02}:{:02}:{:02} +0000",
        zoned.day(),
        zoned.year(),
        zoned.hour(),
        zoned.minute(),
        zoned.second()
    )
}
