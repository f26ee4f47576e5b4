//! Putting mail on any IMAP server (RFC 3501): CREATE and APPEND, and a look at what is there
//! already.
//!
//! ```text
//! C: EXAMINE name                                    is it there?
//! C: UID FETCH 1:* (RFC822.SIZE INTERNALDATE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])
//! C: CREATE name
//! C: APPEND name (flags) "date" {size+} CRLF octets CRLF     {size}, and a wait, without LITERAL+
//! ```
//!
//! Messages are streamed. The server is not trusted: lines, literals and nesting are bounded.

mod identity;
mod response;
#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::connect::connect_imap;
use super::stream::Patience;
use super::talk::{Line, Status, Talk, classify, ended, lost, malformed, shown, strange};
use super::{ClientError, Options, Peer};
pub use identity::Identity;
use response::Response;

/// Octets of a message sent at a time.
const PIECE: usize = 64 * 1024;
/// Octets of a message in which its identity is looked for.
const HEAD_MAX: u64 = 256 * 1024;

/// One connection to an IMAP server, logged in. Of no more use after an error other than
/// [`ImapError::Refused`].
#[derive(Debug)]
pub struct Mailstore {
    talk: Talk,
    peer: Peer,
    has_literal_plus: bool,
    names: Names,
}

/// How the server names a user's own mailboxes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// In front of all but INBOX, with the separator.
    pub prefix: String,
    /// Between components; `None`: there are no folders in folders.
    pub separator: Option<char>,
}

/// A message as it is to be on the server.
#[derive(Clone, Debug)]
pub struct Appended<'a> {
    /// Flags as they are to be, such as `\Seen`. What is none in IMAP is left out.
    pub flags: Vec<&'a [u8]>,
    /// Unix time, seconds.
    pub internaldate: i64,
    /// Octets of the message.
    pub size: u64,
}

/// Why something is not on the server.
#[derive(Debug, thiserror::Error)]
pub enum ImapError {
    /// The server said NO or BAD; the next thing can be tried.
    #[error("{command}: {text}")]
    Refused {
        /// What was asked.
        command: &'static str,
        /// The server's words.
        text: String,
    },
    /// The connection is of no more use.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The message could not be read; it was begun, so the connection is of no more use.
    #[error("cannot read the message: {0}")]
    Message(io::Error),
}

type Result<T> = std::result::Result<T, ImapError>;

impl Mailstore {
    /// Connects and logs in.
    pub fn connect(options: &Options) -> Result<Mailstore> {
        let (mut talk, peer, offer) = connect_imap(options)?;
        talk.stream.set_patience(Patience::Idle(options.timeouts.reply.min(REPLY_MAX)));
        let names = Names { prefix: String::new(), separator: None };
        let has_literal_plus = offer.literal_plus;
        let mut store = Mailstore { talk, peer, has_literal_plus, names };
        store.names = store.ask_names(offer.namespace)?;
        Ok(store)
    }

    /// What the connection came to be.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// How mailboxes are named.
    pub fn names(&self) -> &Names {
        &self.names
    }

    fn ask_names(&mut self, has_namespace: bool) -> Result<Names> {
        let mut found = None;
        if has_namespace {
            self.ask("NAMESPACE", "NAMESPACE", &mut |line| {
                found = found.take().or(line.namespace());
            })?;
        }
        let mut separator = None;
        if found.is_none() {
            self.ask("LIST", "LIST \"\" \"\"", &mut |line| {
                separator = separator.or(line.separator());
            })?;
        }
        Ok(found.unwrap_or(Names { prefix: String::new(), separator }))
    }

    /// What is in a mailbox; `None` if there is no such mailbox.
    pub fn contents(&mut self, name: &str) -> Result<Option<Vec<Identity>>> {
        let mut count = 0;
        let asked = self.ask("EXAMINE", &format!("EXAMINE {}", quoted(name)), &mut |line| {
            count = line.exists().unwrap_or(count);
        });
        match asked {
            Ok(()) if count == 0 => return Ok(Some(Vec::new())),
            Ok(()) => {}
            Err(ImapError::Refused { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut found = Vec::new();
        let fields = "(RFC822.SIZE INTERNALDATE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])";
        self.ask("FETCH", &format!("UID FETCH 1:* {fields}"), &mut |line| {
            found.extend(line.identity());
        })?;
        Ok(Some(found))
    }

    /// Makes a mailbox, and subscribes to it if that can be.
    pub fn create(&mut self, name: &str) -> Result<()> {
        self.ask("CREATE", &format!("CREATE {}", quoted(name)), &mut |_| ())?;
        match self.ask("SUBSCRIBE", &format!("SUBSCRIBE {}", quoted(name)), &mut |_| ()) {
            Err(ImapError::Refused { .. }) => Ok(()),
            result => result,
        }
    }

    /// Adds a message, unless `is_there` says so of its identity. Whether it was added.
    pub fn append(
        &mut self,
        name: &str,
        message: &Appended<'_>,
        octets: &mut dyn Read,
        is_there: &mut dyn FnMut(&Identity) -> bool,
    ) -> Result<bool> {
        let mut head = Vec::new();
        octets.take(HEAD_MAX).read_to_end(&mut head).map_err(ImapError::Message)?;
        if is_there(&Identity::of(&head, message.size, message.internaldate)) {
            return Ok(false);
        }
        let tag = self.talk.next_tag();
        let plus = if self.has_literal_plus { "+" } else { "" };
        let command = format!(
            "APPEND {} ({}) \"{}\" {{{}{plus}}}",
            quoted(name),
            flag_list(&message.flags),
            date_time(message.internaldate),
            message.size
        );
        let io = |error| lost("APPEND", error);
        self.talk.send(tag.as_deref(), &command).map_err(io)?;
        if !self.has_literal_plus {
            self.wait_for_go_ahead(tag.as_deref())?;
        }
        self.send_octets(&head, message.size, octets)?;
        self.finish("APPEND", tag.as_deref(), &mut |_| ())?;
        Ok(true)
    }

    /// Exactly as many octets as were promised, or an error.
    fn send_octets(&mut self, head: &[u8], size: u64, rest: &mut dyn Read) -> Result<()> {
        let io = |error| ImapError::Client(lost("APPEND", error));
        let mut octets = head.chain(rest).take(size);
        let (mut left, mut piece) = (size, vec![0; PIECE]);
        while left > 0 {
            let len = octets.read(&mut piece).map_err(ImapError::Message)?;
            if len == 0 {
                return Err(ImapError::Message(io::ErrorKind::UnexpectedEof.into()));
            }
            self.talk.stream.write(&piece[..len]).map_err(io)?;
            left -= len as u64;
        }
        self.talk.stream.write(b"\r\n").and_then(|()| self.talk.stream.flush()).map_err(io)
    }

    fn wait_for_go_ahead(&mut self, tag: Option<&str>) -> Result<()> {
        loop {
            let line = self.talk.read_line().map_err(|error| lost("APPEND", error))?;
            match classify(&line, tag) {
                Line::Continue(_) => return Ok(()),
                Line::Final(Status::Ok, _) | Line::Strange => {
                    return Err(strange("APPEND", &line).into());
                }
                Line::Final(_, text) => {
                    return Err(ImapError::Refused { command: "APPEND", text: shown(text) });
                }
                Line::Ended(text) => return Err(ended("APPEND", text).into()),
                Line::Data(_) | Line::Remark => {}
            }
        }
    }

    /// Says good-bye.
    pub fn log_out(mut self) -> Result<()> {
        let tag = self.talk.next_tag();
        let sent = self.talk.send(tag.as_deref(), "LOGOUT");
        sent.map_err(|error| lost("LOGOUT", error))?;
        // What comes now is a BYE, and changes nothing.
        let _ = self.talk.read_line();
        self.talk.stream.close();
        Ok(())
    }

    fn ask(
        &mut self,
        command: &'static str,
        line: &str,
        take: &mut dyn FnMut(Response),
    ) -> Result<()> {
        let tag = self.talk.next_tag();
        self.talk.send(tag.as_deref(), line).map_err(|error| lost(command, error))?;
        self.finish(command, tag.as_deref(), take)
    }

    /// Reads up to the end of an answer.
    fn finish(
        &mut self,
        command: &'static str,
        tag: Option<&str>,
        take: &mut dyn FnMut(Response),
    ) -> Result<()> {
        loop {
            let line = self.talk.read_line().map_err(|error| lost(command, error))?;
            match classify(&line, tag) {
                Line::Final(Status::Ok, _) => return Ok(()),
                Line::Final(_, text) => {
                    return Err(ImapError::Refused { command, text: shown(text) });
                }
                Line::Ended(text) => return Err(ended(command, text).into()),
                Line::Data(_) => {
                    let response = response::read(line, &mut self.talk)
                        .map_err(|what| malformed(command, &what.to_string()))?;
                    take(response);
                }
                Line::Remark => {}
                Line::Continue(_) | Line::Strange => return Err(strange(command, &line).into()),
            }
        }
    }
}

/// Longest wait for an answer: a server may take its time over a large message.
const REPLY_MAX: Duration = Duration::from_secs(300);

impl Names {
    /// The name of the mailbox at a path of components as Cyrus stores them (modified UTF-7,
    /// `^` for a dot); INBOX if there are none.
    pub fn join(&self, path: &[String]) -> String {
        if path.is_empty() {
            return "INBOX".to_owned();
        }
        let separator = self.separator.unwrap_or('.');
        let component = |part: &String| match separator {
            '.' => part.replace('.', "^"),
            other => part.replace('^', ".").replace(other, "_"),
        };
        let parts: Vec<String> = path.iter().map(component).collect();
        format!("{}{}", self.prefix, parts.join(&separator.to_string()))
    }
}

/// A quoted string; names have no other characters than those of one.
fn quoted(name: &str) -> String {
    let mut text = String::from("\"");
    for c in name.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text + "\""
}

/// Flags that a client may set (RFC 3501, `flag`).
fn flag_list(flags: &[&[u8]]) -> String {
    let is_atom = |text: &[u8]| {
        let special = |c: &u8| !c.is_ascii_graphic() || b"(){%*\"\\]".contains(c);
        !text.is_empty() && !text.iter().any(special)
    };
    let system = ["\\answered", "\\flagged", "\\deleted", "\\seen", "\\draft"];
    let settable = |flag: &&&[u8]| match flag.first() {
        Some(b'\\') => system.iter().any(|name| flag.eq_ignore_ascii_case(name.as_bytes())),
        _ => is_atom(flag),
    };
    let words = flags.iter().filter(settable).map(|flag| String::from_utf8_lossy(flag));
    words.collect::<Vec<_>>().join(" ")
}

/// RFC 3501, `date-time`, in UTC.
fn date_time(unix: i64) -> String {
    let time = Timestamp::from_second(unix).unwrap_or(Timestamp::UNIX_EPOCH);
    time.to_zoned(TimeZone::UTC).strftime("%d-%b-%Y %H:%M:%S +0000").to_string()
}

#[cfg(test)]
mod word_tests {
    use super::*;

    #[test]
    fn names_in_the_servers_way() {
        let names = |prefix: &str, separator| Names { prefix: prefix.to_owned(), separator };
        let path = |text: &str| text.split('|').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(names("INBOX.", Some('.')).join(&[]), "INBOX");
        assert_eq!(names("INBOX.", Some('.')).join(&path("Work|a^b")), "INBOX.Work.a^b");
        assert_eq!(names("", Some('/')).join(&path("Work|a^b|&AOQ-")), "Work/a.b/&AOQ-");
        assert_eq!(names("", None).join(&path("Work")), "Work");
        assert_eq!(quoted("a \"b\\\r\n"), "\"a \\\"b\\\\\"");
    }

    #[test]
    fn flags_and_dates() {
        let flags: [&[u8]; 8] =
            [b"\\Seen", b"\\Recent", b"$Forwarded", b"", b"a b", b"x]", b"\\Expunged", b"\\draft"];
        assert_eq!(flag_list(&flags), "\\Seen $Forwarded \\draft");
        assert_eq!(date_time(1_795_247_526), "21-Nov-2026 07:52:06 +0000");
        assert_eq!(date_time(0), "01-Jan-1970 00:00:00 +0000");
    }
}
