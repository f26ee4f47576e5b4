//! Against servers that say what a test wants.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use super::super::{Destination, Login, Options, Password, Protocol, TlsMode};
use super::*;

/// What a server does, line by line.
enum Step {
    /// Sends this.
    Say(&'static str),
    /// Reads a line that, without its tag, begins so; the tag stands for `$` from now on.
    Hear(&'static str),
    /// Reads so many octets.
    Take(usize),
    /// Goes away without a word.
    Leave,
}
use Step::{Hear, Leave, Say, Take};

/// Greeting and log-in of a server with these capabilities.
fn opening(capabilities: &'static str) -> Vec<Step> {
    vec![
        Say("* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] ready\r\n"),
        Hear("AUTHENTICATE PLAIN "),
        Say(capabilities),
        Hear("LIST \"\" \"\""),
        Say("* LIST (\\Noselect) \"/\" \"\"\r\n$ OK\r\n"),
    ]
}

const PLAIN: &str = "$ OK [CAPABILITY IMAP4rev1] in\r\n";
const PLUS: &str = "$ OK [CAPABILITY IMAP4rev1 LITERAL+] in\r\n";

/// Plays the steps; what it took comes back.
fn serve(steps: Vec<Step>) -> (u16, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let play = move || {
        let (socket, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(socket);
        let (mut tag, mut taken) = (String::new(), Vec::new());
        for step in steps {
            match step {
                Say(text) => {
                    let text = text.replace('$', &tag);
                    reader.get_mut().write_all(text.as_bytes()).unwrap();
                }
                Hear(expected) => {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    let (first, rest) = line.split_once(' ').unwrap_or((&line, ""));
                    assert!(rest.starts_with(expected), "{line}");
                    tag = first.to_owned();
                }
                Take(len) => {
                    let mut octets = vec![0; len];
                    reader.read_exact(&mut octets).unwrap();
                    taken.extend(octets);
                }
                Leave => break,
            }
        }
        taken
    };
    (port, std::thread::spawn(play))
}

fn connect(steps: Vec<Step>) -> (Result<Mailstore>, JoinHandle<Vec<u8>>) {
    let (port, server) = serve(steps);
    let mut options = Options::new(Destination::parse(&format!("127.0.0.1:{port}")).unwrap());
    options.protocol = Protocol::Imap;
    options.tls = TlsMode::Never;
    let password = Password::new("secret".to_owned());
    let authname = "ann".to_owned();
    options.login = Some(Login { authname, authzid: None, password, mechanisms: None });
    (Mailstore::connect(&options), server)
}

const MAIL: &[u8] = b"Message-ID: <1@x>\r\n\r\nhello\r\n";

fn append(store: &mut Mailstore) -> Result<bool> {
    let size = MAIL.len() as u64;
    let message = Appended { flags: vec![b"\\Seen"], internaldate: 0, size };
    store.append("a/b", &message, &mut &MAIL[..], &mut |_| false)
}

#[test]
fn literals_wait_where_they_must() {
    let wait = "APPEND \"a/b\" (\\Seen) \"01-Jan-1970 00:00:00 +0000\" {28}\r\n";
    let run = "APPEND \"a/b\" (\\Seen) \"01-Jan-1970 00:00:00 +0000\" {28+}\r\n";
    assert_eq!(MAIL.len(), 28);
    for (capabilities, command, go_ahead) in [(PLAIN, wait, "+ go\r\n"), (PLUS, run, "")] {
        let mut steps = opening(capabilities);
        let done = Say("* 1 EXISTS\r\n* OK still here\r\n$ OK [APPENDUID 1 1] done\r\n");
        steps.extend([Hear(command), Say(go_ahead), Take(30), done]);
        let (store, server) = connect(steps);
        let mut store = store.unwrap();
        assert_eq!(store.names().separator, Some('/'));
        assert!(append(&mut store).unwrap());
        assert_eq!(server.join().unwrap(), [MAIL, b"\r\n"].concat());
    }
}

#[test]
fn a_refusal_is_not_the_end() {
    let mut steps = opening(PLAIN);
    steps.extend([Hear("APPEND"), Say("$ NO [OVERQUOTA] full\r\n"), Hear("APPEND")]);
    steps.extend([Say("+\r\n"), Take(30), Say("$ BAD bare newlines\r\n")]);
    steps.extend([Hear("CREATE \"x\""), Say("$ OK\r\n"), Hear("SUBSCRIBE"), Say("$ NO no\r\n")]);
    let (store, server) = connect(steps);
    let mut store = store.unwrap();
    for expected in ["[OVERQUOTA] full", "bare newlines"] {
        match append(&mut store) {
            Err(ImapError::Refused { command: "APPEND", text }) => assert_eq!(text, expected),
            other => panic!("{other:?}"),
        }
    }
    store.create("x").unwrap();
    server.join().unwrap();
}

#[test]
fn what_is_there_is_read_with_its_literals() {
    let mut steps = opening(PLUS);
    steps.extend([
        Hear("EXAMINE \"a\""),
        Say("* FLAGS (\\Seen)\r\n* 2 EXISTS\r\n* OK [UIDVALIDITY 1]\r\n$ OK\r\n"),
        Hear("UID FETCH 1:* (RFC822.SIZE"),
        Say("* 1 FETCH (UID 1 RFC822.SIZE 28 INTERNALDATE \"01-Jan-1970 00:00:00 +0000\" \
             BODY[HEADER.FIELDS (MESSAGE-ID)] {21}\r\nMessage-ID: <1@x>\r\n\r\n)\r\n* 2 FETCH \
             (UID 2 RFC822.SIZE 5 INTERNALDATE \"01-Jan-1970 00:00:07 +0000\" \
             BODY[HEADER.FIELDS (MESSAGE-ID)] {2}\r\n\r\n)\r\n$ OK\r\n"),
        Hear("EXAMINE \"b\""),
        Say("$ NO no such mailbox\r\n"),
        Hear("EXAMINE \"c\""),
        Say("* 0 EXISTS\r\n$ OK\r\n"),
    ]);
    let (store, server) = connect(steps);
    let mut store = store.unwrap();
    let expected = [Identity::of(MAIL, 28, 9), Identity::of(b"x", 5, 7)];
    assert_eq!(store.contents("a").unwrap().unwrap(), expected);
    assert_eq!(store.contents("b").unwrap(), None);
    assert_eq!(store.contents("c").unwrap(), Some(Vec::new()));
    server.join().unwrap();
}

#[test]
fn a_server_that_breaks_off_or_talks_nonsense_ends_it() {
    for end in [
        Leave,
        Say("* BYE going down\r\n"),
        Say("nonsense\r\n"),
        Say("* 1 FETCH (BODY[] {999999999999}\r\n"),
        Say("* 1 FETCH (BODY[] {9999999}\r\n"),
        Say("* 1 FETCH (BODY[] \"unended\r\n"),
    ] {
        let mut steps = opening(PLUS);
        steps.extend([Hear("EXAMINE"), end]);
        let (store, server) = connect(steps);
        let error = store.unwrap().contents("a").unwrap_err();
        assert!(matches!(error, ImapError::Client(_)), "{error:?}");
        server.join().unwrap();
    }
}

#[test]
fn a_message_that_ends_too_early_is_not_taken_for_whole() {
    let mut steps = opening(PLUS);
    steps.push(Hear("APPEND"));
    let (store, server) = connect(steps);
    let message = Appended { flags: Vec::new(), internaldate: 0, size: 100 };
    let result = store.unwrap().append("a", &message, &mut &MAIL[..], &mut |_| false);
    assert!(matches!(result, Err(ImapError::Message(_))), "{result:?}");
    drop(server);
}
