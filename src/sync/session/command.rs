//! One line of the client: the command in it, and what can be answered at once.

use super::{Action, Phase, Session};
use crate::sync::auth;
use crate::sync::work::Work;

impl Session {
    pub(super) fn line(&mut self) {
        let has_staged = self.spool.staged() > 0;
        self.command();
        // GET and APPLY take the bodies along, whether they want them or not.
        if has_staged && !self.is_awaiting {
            self.submit(Work::Unstage);
        }
    }

    fn command(&mut self) {
        let line = self.framer.take_line();
        let bodies = self.spool.take();
        let staging_failed = std::mem::take(&mut self.staging_failed);
        let line = match line {
            Ok(line) => line,
            Err(poison) if self.phase == Phase::Ready => {
                return self.send(&format!("NO IMAP_PROTOCOL_ERROR {poison}"));
            }
            Err(poison) => return self.send(&format!("BAD {poison}")),
        };
        if self.phase == Phase::Challenged {
            return self.sasl_response(&line);
        }
        if matches!(line.first(), None | Some(b' ' | b'\t' | b'"' | b'(')) {
            return self.send("BAD Null command");
        }
        if self.phase == Phase::Denied {
            return self.send("NO Permission denied");
        }
        if staging_failed {
            return self.send("NO Unknown error");
        }
        let (word, argument) = match line.iter().position(|&c| c == b' ') {
            Some(at) => (&line[..at], Some(&line[at + 1..])),
            None => (&line[..], None),
        };
        match (word.to_ascii_uppercase().as_slice(), argument) {
            (b"NOOP", None) => self.send("OK Noop completed"),
            (b"NOOP", _) => self.send("BAD Unexpected extra arguments to Noop"),
            (b"RESTART", None) => self.submit(Work::Restart),
            (b"RESTART", _) => self.send("BAD Unexpected extra arguments to Restart"),
            (b"EXIT", None) => {
                self.is_closing = true;
                self.submit(Work::Exit);
            }
            (b"EXIT", _) => self.send("BAD Unexpected extra arguments to Exit"),
            (b"AUTHENTICATE", argument) => self.authenticate(argument),
            (b"STARTTLS", argument) if self.door.offers_tls => self.start_tls(argument),
            (b"COMPRESS", argument) => self.compress(argument),
            (b"GET" | b"APPLY", _) if self.phase != Phase::Ready => {
                self.send("NO Please authenticate first");
            }
            (b"GET", None | Some(b"")) => self.send("BAD Missing required argument to Get"),
            (b"GET", Some(argument)) => self.submit(Work::Get(argument.to_vec())),
            (b"APPLY", None | Some(b"")) => self.send("BAD Missing required argument to Apply"),
            (b"APPLY", Some(argument)) => self.submit(Work::Apply(argument.to_vec(), bodies)),
            (_, argument) => self.unknown_command(word, argument),
        }
    }

    /// A client that does not know yet that this is not IMAP asks `C01 CAPABILITY`,
    /// and would wait ten seconds for a line that begins with its tag.
    fn unknown_command(&mut self, word: &[u8], argument: Option<&[u8]>) {
        let tag = String::from_utf8_lossy(word);
        let is_tag = word.len() <= 32 && word.iter().all(u8::is_ascii_alphanumeric);
        match argument.map(<[u8]>::to_ascii_uppercase).as_deref() {
            Some(b"CAPABILITY") if is_tag => self.send(&format!("{tag} BAD Unrecognized command")),
            Some(b"LOGOUT") if is_tag => {
                self.send(&format!("{tag} OK Finished"));
                self.close();
            }
            _ => self.send("BAD IMAP_PROTOCOL_ERROR Unrecognized command"),
        }
    }

    fn start_tls(&mut self, argument: Option<&[u8]>) {
        if argument.is_some() {
            return self.send("BAD Unexpected extra arguments to Starttls");
        }
        if self.phase != Phase::Unknown {
            return self.send("BAD Can't Starttls after authentication");
        }
        if self.is_tls {
            return self.send("BAD Already did a successful Starttls");
        }
        if self.is_compressed {
            return self.send("BAD Can't Starttls after compression");
        }
        self.send("OK Begin TLS negotiation now");
        self.actions.push_back(Action::StartTls);
        self.is_awaiting_tls = true;
    }

    fn compress(&mut self, argument: Option<&[u8]>) {
        let Some(argument) = argument.filter(|argument| !argument.is_empty()) else {
            return self.send("BAD Missing required argument to Compress");
        };
        if argument.contains(&b' ') {
            return self.send("BAD Unexpected extra arguments to Compress");
        }
        let algorithm = auth::printable(&String::from_utf8_lossy(argument));
        if self.is_compressed {
            return self.send(&format!("NO Compression already active: {algorithm}"));
        }
        if !argument.eq_ignore_ascii_case(b"DEFLATE") {
            return self.send(&format!("NO Unknown compression algorithm: {algorithm}"));
        }
        self.send(&format!("OK {algorithm} active"));
        self.actions.push_back(Action::StartDeflate);
        self.is_compressed = true;
    }
}
