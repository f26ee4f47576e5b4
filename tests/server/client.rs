//! A client that says what it is told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::site::{ADMIN, PASSWORD};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Client {
    socket: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Client {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Client { socket: BufReader::new(socket) };
        while !client.line().starts_with("* OK ") {}
        client
    }

    pub(crate) fn admin(address: SocketAddr) -> Client {
        let mut client = Client::connect(address);
        assert_eq!(client.login(ADMIN, PASSWORD), "OK Success (no protection)\r\n");
        client
    }

    pub(crate) fn login(&mut self, user: &str, password: &str) -> String {
        let response = STANDARD.encode(format!("\0{user}\0{password}"));
        self.ask(format!("AUTHENTICATE PLAIN {response}\r\n"))
    }

    pub(crate) fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.socket.get_mut().write_all(octets.as_ref()).unwrap();
    }

    /// Sends, and returns the untagged lines and the final line.
    pub(crate) fn ask(&mut self, octets: impl AsRef<[u8]>) -> String {
        self.send(octets);
        self.reply()
    }

    pub(crate) fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let line = self.line();
            let is_final = !line.starts_with("* ") || line.starts_with("* Fatal");
            reply += &line;
            if is_final {
                return reply;
            }
        }
    }

    /// One line with its literals; empty at the end of the connection.
    fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.socket.read_until(b'\n', &mut line).unwrap();
        while let Some(len) = literal_len(&line) {
            let start = line.len();
            line.resize(start + len, 0);
            self.socket.read_exact(&mut line[start..]).unwrap();
            self.socket.read_until(b'\n', &mut line).unwrap();
        }
        String::from_utf8_lossy(&line).into_owned()
    }

    /// Whether the server closes without another word.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        self.socket.read_to_end(&mut rest).is_ok() && rest.is_empty()
    }

    /// Whether nothing comes for so long.
    pub(crate) fn is_silent(&mut self, time: Duration) -> bool {
        self.socket.get_ref().set_read_timeout(Some(time)).unwrap();
        let is_silent = self.socket.fill_buf().is_err();
        self.socket.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        is_silent
    }

    pub(crate) fn assert_in_step(&mut self) {
        assert_eq!(self.ask("NOOP\r\n"), "OK Noop completed\r\n");
    }
}

/// Octets that follow a line which ends in `{n}`.
fn literal_len(line: &[u8]) -> Option<usize> {
    let head = line.strip_suffix(b"}\r\n")?;
    let digits = &head[head.iter().rposition(|&octet| octet == b'{')? + 1..];
    std::str::from_utf8(digits).ok()?.trim_end_matches('+').parse().ok()
}

pub(crate) fn guid(message: &[u8]) -> String {
    Sha1::digest(message).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn apply_message(message: &[u8]) -> Vec<u8> {
    let header = format!("APPLY MESSAGE (%{{default {} {}}}\r\n", guid(message), message.len());
    [header.as_bytes(), message, b")\r\n"].concat()
}

/// A MAILBOX line of a user's INBOX with these messages, UIDs from 1 on.
pub(crate) fn apply_mailbox(user: &str, messages: &[&[u8]]) -> String {
    let records: Vec<String> = messages
        .iter()
        .enumerate()
        .map(|(i, message)| {
            format!(
                "%(UID {} MODSEQ {0} LAST_UPDATED 1 FLAGS () INTERNALDATE 1 SIZE {} GUID {})",
                i + 1,
                message.len(),
                guid(message)
            )
        })
        .collect();
    format!(
        "APPLY MAILBOX %(UNIQUEID id-{user} MBOXNAME user.{user} SYNC_CRC 0 SYNC_CRC_ANNOT 0 \
         LAST_UID {} HIGHESTMODSEQ 9 RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 0 POP3_LAST_LOGIN 0 \
         POP3_SHOW_AFTER 0 UIDVALIDITY 7 PARTITION default ACL \"\" OPTIONS P RECORD ({}))\r\n",
        messages.len(),
        records.join(" ")
    )
}
