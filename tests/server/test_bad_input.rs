//! Bad input gets the right answer, the connection stays in step or is closed, the
//! store is untouched, the server lives.

use std::time::{Duration, Instant};

use crate::client::{Client, apply_mailbox, apply_message, guid};
use crate::site::{Options, PASSWORD, Site, USER};

const MESSAGE: &[u8] = b"Subject: a\r\n\r\nhello\r\n";

/// A site with one backed-up message.
fn site() -> Site {
    let site = Site::start(Options::default());
    let mut client = Client::admin(site.address);
    assert_eq!(client.ask("GET USER tom\r\n"), "OK Success\r\n");
    assert_eq!(client.ask(apply_message(MESSAGE)), "OK Success\r\n");
    assert_eq!(client.ask(apply_mailbox("tom", &[MESSAGE])), "OK Success\r\n");
    assert_eq!(client.ask("EXIT\r\n"), "OK Finished\r\n");
    assert!(client.is_closed());
    site
}

#[test]
fn refused_lines_leave_the_session_in_step_and_the_store_alone() {
    let site = site();
    let before = site.store();
    let mut client = Client::admin(site.address);
    let wrong = format!("APPLY MESSAGE (%{{default {} 5}}\r\nhello)\r\n", guid(b"other"));
    let no_guid = "APPLY MESSAGE (%{default xyz 6}\r\nEXIT\r\n)\r\n".to_owned();
    let long_literal =
        format!("APPLY SUB %(USERID tom MBOXNAME {{70000+}}\r\n{})\r\n", "x".repeat(70_000));
    let short_literal = "APPLY SUB %(USERID {2+}\r\ntom MBOXNAME user.tom)\r\n".to_owned();
    let long_line = format!("APPLY SUB %(USERID tom MBOXNAME ({}))\r\n", "x ".repeat(600_000));
    let large = format!("APPLY MESSAGE (%{{default {} 9000000}}\r\n", guid(b"x"));
    for (line, expected) in [
        ("FOO\r\n".to_owned(), "BAD IMAP_PROTOCOL_ERROR Unrecognized command\r\n"),
        ("\r\n".to_owned(), "BAD Null command\r\n"),
        ("GET USER\r\n".to_owned(), "BAD Missing required argument to Get\r\n"),
        ("GET USER NIL\r\n".to_owned(), "NO IMAP_PROTOCOL_BAD_PARAMETERS Bad parameters\r\n"),
        ("APPLY MAILBOX %(UNIQUEID\r\n".to_owned(), "BAD Missing required argument to Apply\r\n"),
        ("APPLY MAILBOX )\r\n".to_owned(), "BAD Missing required argument to Apply\r\n"),
        ("APPLY FOO x\r\n".to_owned(), "NO IMAP_PROTOCOL_ERROR Protocol error\r\n"),
        ("APPLY MESSAGE ()\r\n".to_owned(), "NO IMAP_PROTOCOL_ERROR Protocol error\r\n"),
        (wrong, "NO IMAP_PROTOCOL_ERROR Protocol error\r\n"),
        (no_guid, "NO IMAP_PROTOCOL_ERROR bad message header\r\n"),
        (long_literal, "NO IMAP_PROTOCOL_ERROR literal of 70000 octets exceeds the limit\r\n"),
        (short_literal, "BAD Missing required argument to Apply\r\n"),
        (long_line, "NO IMAP_PROTOCOL_ERROR line longer than 1048576 octets\r\n"),
        (
            large + &"x".repeat(9_000_000) + ")\r\n",
            "NO IMAP_PROTOCOL_ERROR message of 9000000 octets exceeds the limit\r\n",
        ),
    ] {
        let shown: String = line.chars().take(60).collect();
        assert_eq!(client.ask(&line), expected, "{shown}");
        client.assert_in_step();
    }
    assert_eq!(client.ask("EXIT\r\n"), "OK Finished\r\n");
    assert_eq!(site.store(), before);
}

/// It is not to take the room until the session ends, nor to be taken for anything else.
#[test]
fn a_refused_line_gives_back_what_it_has_staged() {
    let site = Site::start(Options { spool_memory: 100_000, ..Options::default() });
    let large = "x".repeat(3_000_000);
    let body = format!("%{{default {} {}}}\r\n{large}", guid(large.as_bytes()), large.len());
    let mut client = Client::admin(site.address);
    for (head, tail, expected) in [
        ("APPLY MESSAGE (", " %{default xyz 6}\r\nEXIT\r\n)", "NO IMAP_PROTOCOL_ERROR bad message"),
        ("APPLY MESSAGE (", ") x", "BAD Unexpected extra arguments to Apply"),
        ("APPLY SUB %(USERID tom MBOXNAME ", ")", "NO IMAP_PROTOCOL_ERROR Protocol error"),
        ("NOOP ", "", "BAD Unexpected extra arguments to Noop"),
        ("GET USER ", "", "NO IMAP_PROTOCOL_BAD_PARAMETERS"),
        ("FOO ", "", "BAD IMAP_PROTOCOL_ERROR Unrecognized command"),
    ] {
        client.send(format!("{head}{body}"));
        let until = Instant::now() + Duration::from_secs(60);
        while site.staged() < 2_000_000 {
            assert!(Instant::now() < until, "{head}");
            std::thread::sleep(Duration::from_millis(5));
        }
        let reply = client.ask(format!("{tail}\r\n"));
        assert!(reply.starts_with(expected), "{head} {reply}");
        // Behind the reply, and in front of the next command.
        client.assert_in_step();
        assert_eq!(site.staged(), 0, "{head}");
    }
    client.ask("GET USER tom\r\n");
    assert_eq!(client.ask(format!("APPLY MESSAGE ({body})\r\n")), "OK Success\r\n");
    assert_eq!(site.staged(), 0);
}

#[test]
fn a_length_that_cannot_be_true_ends_the_connection() {
    let site = site();
    let before = site.store();
    for line in [
        "APPLY SUB %(USERID {99999999999+}\r\n".to_owned(),
        format!("APPLY MESSAGE (%{{default {} 99999999999}}\r\n", guid(b"x")),
    ] {
        let mut client = Client::admin(site.address);
        assert!(client.ask(&line).starts_with("* Fatal error: "), "{line}");
        assert!(client.is_closed());
    }
    assert_eq!(site.store(), before);
    Client::admin(site.address).assert_in_step();
}

#[test]
fn strangers_and_ordinary_users_get_nowhere() {
    let site = site();
    let before = site.store();
    let mut stranger = Client::connect(site.address);
    for line in ["GET USER tom\r\n", "APPLY UNMAILBOX user.tom\r\n"] {
        assert_eq!(stranger.ask(line), "NO Please authenticate first\r\n");
    }
    assert!(stranger.ask(apply_message(MESSAGE)).starts_with("BAD message of"));
    assert_eq!(stranger.login("admin", "wrong"), "NO authentication failure\r\n");
    assert_eq!(stranger.login("nobody", "wrong"), "NO authentication failure\r\n");
    stranger.assert_in_step();
    assert_eq!(stranger.login(USER, PASSWORD), "OK Success (no protection)\r\n");
    for line in ["GET USER tom\r\n", "APPLY UNMAILBOX user.tom\r\n", "NOOP\r\n", "EXIT\r\n"] {
        assert_eq!(stranger.ask(line), "NO Permission denied\r\n");
    }
    let mut probe = Client::connect(site.address);
    assert_eq!(probe.ask("C01 CAPABILITY\r\n"), "C01 BAD Unrecognized command\r\n");
    assert_eq!(probe.ask("Q01 LOGOUT\r\n"), "Q01 OK Finished\r\n");
    assert!(probe.is_closed());
    assert_eq!(site.store(), before);
}

#[test]
fn a_line_longer_than_a_stranger_may_send_is_read_past() {
    let site = site();
    let mut client = Client::connect(site.address);
    assert!(client.ask(format!("{}\r\n", "x".repeat(40_000))).starts_with("BAD line longer"));
    client.assert_in_step();
}
