//! One command and its answer, once the connection is logged in.

use std::io;
use std::time::{Duration, Instant};

use super::messages::Download;
use super::stream::Patience;
use super::talk::{Line, Status, classify, shown};
use super::{Client, ClientError, Outcome, Refusal, RefusalCode};
use crate::wire::dlist::{Value, parse_item};
use crate::wire::frame::{Event, Framer, Limits};

/// How long to wait for the last words of a server that takes nothing any more.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Depth at which a name is looked for in a line, in octets.
const LABEL_DEPTH: usize = 2048;

/// The command under way.
#[derive(Debug)]
pub(super) struct Command {
    label: String,
    tag: Option<String>,
    is_sent: bool,
}

/// The data lines of an answer, without `* `.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) data: Vec<Vec<u8>>,
}

impl Client {
    /// Begins a command: the caller puts what follows `verb` and a space.
    pub(super) fn begin(&mut self, verb: &str, label: String) -> Result<(), ClientError> {
        if self.is_ended {
            return Err(ClientError::Closed);
        }
        self.talk.stream.set_patience(Patience::Idle(self.reply_timeout));
        let tag = self.talk.next_tag();
        let text = match &tag {
            Some(tag) => format!("{tag} {}", imap_verb(verb)),
            None => verb.to_owned(),
        };
        self.command = Some(Command { label, tag, is_sent: false });
        self.put(text.as_bytes())
    }

    /// Sends a part of the command.
    pub(super) fn put(&mut self, octets: &[u8]) -> Result<(), ClientError> {
        let written = self.talk.stream.write(octets);
        written.map_err(|error| self.broken(error))
    }

    /// Ends the command and waits for the answer.
    pub(super) fn finish(
        &mut self,
        mut download: Option<&mut Download<'_>>,
    ) -> Result<Reply, ClientError> {
        self.put(b"\r\n")?;
        let flushed = self.talk.stream.flush();
        flushed.map_err(|error| self.broken(error))?;
        if let Some(command) = &mut self.command {
            command.is_sent = true;
        }
        let mut reply = Reply::default();
        let mut len = 0;
        let mut framer = Framer::new(self.frame_limits(download.is_some()));
        loop {
            let mut line = self.read_line(&mut framer, download.as_deref_mut())?;
            len += line.len();
            if len > self.limits.reply {
                return Err(self.malformed("more than can be held"));
            }
            let tag = self.command.as_ref().and_then(|command| command.tag.as_deref());
            match classify(&line, tag) {
                Line::Data(_) => {
                    line.drain(..2);
                    reply.data.push(line);
                }
                Line::Final(Status::Ok, _) => {
                    self.acknowledge();
                    return Ok(reply);
                }
                Line::Final(status, text) => return Err(self.refused(status, text)),
                Line::Ended(text) => return Err(self.ended(&shown(text))),
                Line::Remark => {}
                Line::Continue(_) | Line::Strange => {
                    let what = format!("unexpected `{}`", shown(&line));
                    return Err(self.malformed(&what));
                }
            }
        }
    }

    /// A whole command without anything unusual.
    pub(super) fn ask(&mut self, verb: &str, text: &[u8]) -> Result<Reply, ClientError> {
        self.begin(verb, label(verb, text))?;
        if !text.is_empty() {
            self.put(b" ")?;
            self.put(text)?;
        }
        self.finish(None)
    }

    /// [`Client::ask`], with each data line read by `each`.
    pub(super) fn ask_items<T>(
        &mut self,
        verb: &str,
        text: &[u8],
        mut into: T,
        each: impl Fn(&mut T, &[u8], &Value<'_>) -> Result<(), &'static str>,
    ) -> Result<T, ClientError> {
        let reply = self.ask(verb, text)?;
        let during = label(verb, text);
        for line in &reply.data {
            let read = match parse_item(line) {
                Ok((name, value)) => each(&mut into, &name, &value).map_err(str::to_owned),
                Err(error) => Err(error.to_string()),
            };
            read.map_err(|what| self.malformed_during(&during, &what))?;
        }
        Ok(into)
    }

    fn frame_limits(&self, has_body: bool) -> Limits {
        Limits {
            line: self.limits.line,
            literal: self.limits.literal,
            body: u64::from(u32::MAX),
            bodies: usize::from(has_body),
        }
    }

    fn read_line(
        &mut self,
        framer: &mut Framer,
        mut download: Option<&mut Download<'_>>,
    ) -> Result<Vec<u8>, ClientError> {
        loop {
            let input = match self.talk.stream.input() {
                Ok(input) => input,
                Err(error) => return Err(self.broken(error)),
            };
            let mut rest = input;
            let event = framer.next(&mut rest);
            let mut found = None;
            match (event, download.as_deref_mut()) {
                // No server waits for a go-ahead: the octets follow.
                (Event::More | Event::Continue, _) => {}
                (Event::BodyStart(header), Some(download)) => download.start(header),
                (Event::Body(octets), Some(download)) => download.take(octets),
                (Event::BodyEnd, Some(_)) => {}
                (Event::Line, _) => found = Some(framer.take_line()),
                (Event::Lost, _) => found = Some(Err(crate::wire::frame::Poison::Header)),
                (Event::BodyStart(_) | Event::Body(_) | Event::BodyEnd, None) => {
                    found = Some(Err(crate::wire::frame::Poison::Bodies(0)));
                }
            }
            let used = input.len() - rest.len();
            self.talk.stream.skip(used);
            match found.or_else(|| framer.poisoned().map(Err)) {
                None => {}
                Some(Ok(line)) => return Ok(line),
                Some(Err(poison)) => return Err(self.malformed(&poison.to_string())),
            }
        }
    }

    fn acknowledge(&mut self) {
        self.acknowledged.commands += 1;
        self.acknowledged.last = self.command.take().map(|command| command.label);
    }

    fn refused(&mut self, status: Status, text: &[u8]) -> ClientError {
        let command = self.command.take().map(|command| command.label).unwrap_or_default();
        ClientError::Refused { command, refusal: refusal(status, text) }
    }

    fn during(&mut self) -> String {
        self.is_ended = true;
        self.command.take().map(|command| command.label).unwrap_or_default()
    }

    fn ended(&mut self, text: &str) -> ClientError {
        ClientError::Ended {
            during: self.during(),
            text: text.to_owned(),
            acknowledged: self.acknowledged.clone(),
        }
    }

    /// The server cannot be believed: gives the connection up.
    pub(super) fn malformed(&mut self, what: &str) -> ClientError {
        let during = self.during();
        self.malformed_during(&during, what)
    }

    fn malformed_during(&mut self, during: &str, what: &str) -> ClientError {
        self.give_up();
        ClientError::Malformed { during: during.to_owned(), what: what.to_owned() }
    }

    /// The connection is of no more use.
    pub(super) fn give_up(&mut self) {
        self.is_ended = true;
        self.command = None;
    }

    fn broken(&mut self, source: io::Error) -> ClientError {
        if source.kind() == io::ErrorKind::InvalidData {
            return self.malformed(&source.to_string());
        }
        let is_sent = self.command.as_ref().is_some_and(|command| command.is_sent);
        let outcome = if is_sent { Outcome::Unknown } else { Outcome::NotDone };
        // Whoever closes while he is written to has mostly said why.
        if let Some(text) = (!is_sent).then(|| self.last_words()).flatten() {
            return self.ended(&text);
        }
        ClientError::Lost {
            during: self.during(),
            outcome,
            acknowledged: self.acknowledged.clone(),
            source,
        }
    }

    fn last_words(&mut self) -> Option<String> {
        self.talk.stream.set_patience(Patience::Until(Instant::now() + LAST_WORDS));
        let tag = self.command.as_ref().and_then(|command| command.tag.clone());
        for _ in 0..10 {
            let line = self.talk.read_line().ok()?;
            match classify(&line, tag.as_deref()) {
                Line::Ended(text) | Line::Final(_, text) => return Some(shown(text)),
                _ => {}
            }
        }
        None
    }
}

/// What the command is called when IMAP carries it.
fn imap_verb(verb: &str) -> String {
    match verb {
        "NOOP" => verb.to_owned(),
        "EXIT" => "LOGOUT".to_owned(),
        _ => format!("SYNC{verb}"),
    }
}

/// A command in short, for people: the verb, the name, and whom it is about.
pub(super) fn label(verb: &str, text: &[u8]) -> String {
    const KEYS: [&[u8]; 5] = [b"MBOXNAME", b"OLDMBOXNAME", b"USERID", b"ROOT", b"ENTRY"];
    let text = &text[..text.len().min(LABEL_DEPTH)];
    let mut words = text.split(|&c| c == b' ');
    let name = words.next().unwrap_or_default();
    let rest = text.get(name.len() + 1..).unwrap_or_default();
    let about = if rest.starts_with(b"%(") {
        let words: Vec<&[u8]> = rest[2..].split(|&c| matches!(c, b' ' | b')' | b'(')).collect();
        let found = KEYS.iter().find_map(|key| words.iter().position(|word| word == key));
        found.and_then(|at| words.get(at + 1).copied()).unwrap_or_default()
    } else if rest.starts_with(b"(") {
        b""
    } else {
        rest
    };
    let parts = [verb.as_bytes(), name, about].map(shown);
    parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(" ")
}

/// What a final NO or BAD means.
pub(super) fn refusal(status: Status, text: &[u8]) -> Refusal {
    const CODES: [(&str, RefusalCode); 14] = [
        ("IMAP_INVALID_USER", RefusalCode::InvalidUser),
        ("IMAP_MAILBOX_NONEXISTENT", RefusalCode::MailboxNonexistent),
        ("IMAP_MAILBOX_LOCKED", RefusalCode::MailboxLocked),
        ("IMAP_MAILBOX_MOVED", RefusalCode::MailboxMoved),
        ("IMAP_MAILBOX_NOTSUPPORTED", RefusalCode::NotSupported),
        ("IMAP_PERMISSION_DENIED", RefusalCode::PermissionDenied),
        ("IMAP_SYNC_CHECKSUM", RefusalCode::SyncChecksum),
        ("IMAP_SYNC_CHANGED", RefusalCode::SyncChanged),
        ("IMAP_SYNC_BADSIEVE", RefusalCode::BadSieve),
        ("IMAP_PROTOCOL_ERROR", RefusalCode::ProtocolError),
        ("IMAP_PROTOCOL_BAD_PARAMETERS", RefusalCode::BadParameters),
        ("Permission denied", RefusalCode::PermissionDenied),
        ("No permission", RefusalCode::PermissionDenied),
        // imapd from 3.12.
        ("only administrators may use", RefusalCode::PermissionDenied),
    ];
    let text = shown(text);
    let code = match status {
        Status::Bad => RefusalCode::Bad,
        _ => {
            let named = CODES.iter().find(|(name, _)| {
                text.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
            });
            named.map_or(RefusalCode::Other, |(_, code)| *code)
        }
    };
    Refusal { code, text: if text.is_empty() { "refused".to_owned() } else { text } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_in_short() {
        for (verb, text, expected) in [
            ("GET", &b"USER tom"[..], "GET USER tom"),
            ("GET", b"MAILBOXES (user.tom user.ann)", "GET MAILBOXES"),
            ("APPLY", b"MAILBOX %(UNIQUEID x MBOXNAME user.tom LAST_UID 1)", {
                "APPLY MAILBOX user.tom"
            }),
            ("APPLY", b"SUB %(USERID tom MBOXNAME user.ann)", "APPLY SUB user.ann"),
            ("APPLY", b"SIEVE %(USERID tom FILENAME a)", "APPLY SIEVE tom"),
            ("APPLY", b"QUOTA %(ROOT user.tom LIMIT 1)", "APPLY QUOTA user.tom"),
            ("RESTART", b"", "RESTART"),
            ("APPLY", b"UNUSER", "APPLY UNUSER"),
            ("APPLY", b"MAILBOX %(MBOXNAME", "APPLY MAILBOX"),
        ] {
            assert_eq!(label(verb, text), expected);
        }
    }

    #[test]
    fn refusals_have_codes() {
        for (text, code) in [
            (&b"IMAP_MAILBOX_NONEXISTENT No Such Mailbox"[..], RefusalCode::MailboxNonexistent),
            (b"IMAP_PROTOCOL_BAD_PARAMETERS", RefusalCode::BadParameters),
            (b"IMAP_PROTOCOL_BAD_PARAMETERS Bad parameters", RefusalCode::BadParameters),
            (b"IMAP_MAILBOX_LOCKEDX x", RefusalCode::Other),
            (b"Permission denied", RefusalCode::PermissionDenied),
            (b"only administrators may use Syncget command", RefusalCode::PermissionDenied),
            (b"Unknown error", RefusalCode::Other),
            (b"", RefusalCode::Other),
        ] {
            assert_eq!(refusal(Status::No, text).code, code);
        }
        let bad = refusal(Status::Bad, b"IMAP_PROTOCOL_ERROR Unrecognized command");
        assert_eq!(bad.code, RefusalCode::Bad);
        assert_eq!(bad.text, "IMAP_PROTOCOL_ERROR Unrecognized command");
    }
}
