//! The dialogue around the stored commands: banners, TLS, compression, permissions.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::sync::auth::ChannelBindings;
use crate::sync::work::AuthReply;

fn session(door: Door) -> Session {
    let settings = SessionSettings {
        server_name: "host".into(),
        mechanisms: vec!["SCRAM-SHA-1"],
        mechanisms_private: vec!["SCRAM-SHA-1", "PLAIN"],
        mechanisms_bound: vec!["SCRAM-SHA-1-PLUS"],
        offers_external: true,
        limits: Limits { line: 1000, literal: 1000, body: 1000, bodies: 10 },
        spool_memory: 1000,
    };
    Session::new(Arc::new(settings), door)
}

/// What is sent until something else is to be done, and that.
fn sent(session: &mut Session) -> (String, Option<Action>) {
    let mut text = String::new();
    loop {
        match session.poll_action() {
            Some(Action::Send(octets)) => text += std::str::from_utf8(&octets).unwrap(),
            other => {
                let banner = env!("CARGO_PKG_VERSION");
                return (text.replace(banner, "X").replace("\r\n", "|"), other);
            }
        }
    }
}

fn say(session: &mut Session, mut line: &[u8]) -> (String, Option<Action>) {
    session.handle_input(&mut line);
    sent(session)
}

const OK: &str = "* OK host Cyrus backup server cyrbk X|";

#[test]
fn each_door_has_its_banner() {
    for (door, banner) in [
        (Door::default(), "* SASL SCRAM-SHA-1|* COMPRESS DEFLATE|"),
        (
            Door { offers_tls: true, ..Door::default() },
            "* SASL SCRAM-SHA-1|* STARTTLS|* COMPRESS DEFLATE|",
        ),
        (
            Door { is_protected: true, ..Door::default() },
            "* SASL SCRAM-SHA-1 PLAIN|* COMPRESS DEFLATE|",
        ),
        (Door { is_trusted: true, ..Door::default() }, ""),
    ] {
        let mut session = session(door);
        assert_eq!(sent(&mut session), (format!("{banner}{OK}"), None), "{door:?}");
        assert_eq!(session.is_ready(), door.is_trusted);
    }
}

#[test]
fn nothing_is_said_or_heard_before_tls() {
    let mut session = session(Door { tls_first: true, ..Door::default() });
    assert!(session.is_awaiting_tls() && !session.wants_input());
    assert_eq!(say(&mut session, b"NOOP\r\n"), (String::new(), None));
    session.handle_tls(None, ChannelBindings::default());
    let banner = format!("* SASL SCRAM-SHA-1 PLAIN|* COMPRESS DEFLATE|{OK}");
    assert_eq!(sent(&mut session), (banner, None));
}

#[test]
fn starttls_leads_to_another_banner() {
    let mut session = session(Door { offers_tls: true, ..Door::default() });
    sent(&mut session);
    let mut input = &b"STARTTLS\r\nNOOP\r\n"[..];
    session.handle_input(&mut input);
    // Whoever owns the session can see what came too early.
    assert_eq!(input, b"NOOP\r\n");
    let begin = "OK Begin TLS negotiation now|".to_owned();
    assert_eq!(sent(&mut session), (begin, Some(Action::StartTls)));
    assert!(!session.wants_input());
    let bindings = ChannelBindings { exporter: Some(vec![1]), end_point: None };
    session.handle_tls(Some("admin".into()), bindings.clone());
    let banner =
        format!("* SASL SCRAM-SHA-1-PLUS SCRAM-SHA-1 PLAIN EXTERNAL|* COMPRESS DEFLATE|{OK}");
    assert_eq!(sent(&mut session), (banner, None));
    let twice = "BAD Already did a successful Starttls|".to_owned();
    assert_eq!(say(&mut session, b"STARTTLS\r\n"), (twice, None));
    let (_, login) = say(&mut session, b"AUTHENTICATE EXTERNAL =\r\n");
    let identity = Some("admin".to_owned());
    let channel = Channel { is_tls: true, is_private: true, identity, bindings };
    let (mech, initial) = ("EXTERNAL".to_owned(), Some(Vec::new()));
    assert_eq!(login, Some(Action::Submit(Work::Authenticate { mech, initial, channel })));
}

#[test]
fn compression_begins_behind_its_answer() {
    let mut session = session(Door { offers_tls: true, ..Door::default() });
    sent(&mut session);
    let reply = say(&mut session, b"COMPRESS deflate\r\n");
    assert_eq!(reply, ("OK deflate active|".to_owned(), Some(Action::StartDeflate)));
    let twice = "NO Compression already active: DEFLATE|".to_owned();
    assert_eq!(say(&mut session, b"COMPRESS DEFLATE\r\n"), (twice, None));
    let late = "BAD Can't Starttls after compression|".to_owned();
    assert_eq!(say(&mut session, b"STARTTLS\r\n"), (late, None));
}

#[test]
fn who_is_no_administrator_is_denied_everything() {
    let mut session = session(Door::default());
    sent(&mut session);
    session.handle_done(Done::Auth(AuthReply::Success { user: "tom".to_owned(), is_admin: false }));
    let ok = "OK Success (no protection)|".to_owned();
    assert_eq!(sent(&mut session), (ok, Some(Action::LoggedIn("tom".to_owned()))));
    for line in ["NOOP", "EXIT", "COMPRESS DEFLATE", "STARTTLS", "GET USER tom"] {
        let denied = "NO Permission denied|".to_owned();
        assert_eq!(say(&mut session, format!("{line}\r\n").as_bytes()), (denied, None));
    }
}

/// The bodies of a line that goes no further make room, behind its answer.
#[test]
fn a_line_that_ends_here_is_unstaged() {
    let mut session = session(Door { is_trusted: true, ..Door::default() });
    session.spool = Spool::new(1);
    sent(&mut session);
    let guid = "4eea1e78e5032625a64f9ba26611156942a8f86a";
    for (head, tail, answer) in [
        ("NOOP (", ")", "BAD Unexpected extra arguments to Noop|"),
        ("APPLY MESSAGE (", " %{d x 0}\r\n)", "NO IMAP_PROTOCOL_ERROR bad message header|"),
    ] {
        let text = format!("{head}%{{d {guid} 5}}\r\nhello{tail}\r\n");
        let mut input = text.as_bytes();
        session.handle_input(&mut input);
        let staged = Work::Stage { octets: b"hello".to_vec(), is_first: true };
        assert_eq!(sent(&mut session), (String::new(), Some(Action::Submit(staged))));
        session.handle_done(Done::Staged(true));
        session.handle_input(&mut input);
        let unstaged = Some(Action::Submit(Work::Unstage));
        assert_eq!(sent(&mut session), (answer.to_owned(), unstaged));
        assert!(!session.wants_input());
        session.handle_done(Done::Released);
        assert!(session.wants_input());
    }
}
