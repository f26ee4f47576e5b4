//! Answers after the log-in: hostile, lost, late, and those that are checked.

use super::*;

/// What the first answer after the log-in leads to.
fn answered(answer: &'static str) -> ClientError {
    let (mut client, _) = csync(move |peer| {
        peer.hear();
        peer.say(answer);
    });
    client.limits = ReplyLimits { line: 4096, literal: 1024, reply: 8192 };
    let error = client.get_user(b"tom").unwrap_err();
    if !error.is_connection_usable() {
        assert!(matches!(client.noop(), Err(ClientError::Closed)));
        assert!(!client.is_usable());
    }
    error
}

#[test]
fn hostile_answers_end_the_connection() {
    let deep = format!("* MAILBOX {}{}\r\nOK\r\n", "(".repeat(100), ")".repeat(100));
    let long = format!("* MAILBOX %(UNIQUEID {})\r\nOK\r\n", "x".repeat(5000));
    let many = "* LSUB (user.tom.A user.tom.B)\r\n".repeat(500) + "OK\r\n";
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    for answer in [
        leak(deep),
        leak(long),
        leak(many),
        "* LSUB ({2000}\r\n",
        "* LSUB ({99999999999}\r\n",
        "* MESSAGE %{default b49f7cbd049f20e9b2a96ed9d6f681a791d90f6c 5}\r\nhello\r\nOK\r\n",
        "* MAILBOX %(UNIQUEID a\r\nOK\r\n",
        "* MAILBOX\r\nOK\r\n",
        "* MAILBOX %(MBOXNAME a)\r\nOK\r\n",
        "+ go ahead\r\n",
        "S0 OK\r\n",
        "hello\r\n",
        "\r\n",
    ] {
        let error = answered(answer);
        assert!(matches!(error, ClientError::Malformed { .. }), "{answer}: {error}");
    }
    for (answer, words) in [
        ("* Fatal error: Internal error: assertion failed\r\n", "assertion failed"),
        ("BYE shutting down\r\n", "shutting down"),
        ("* BYE idle\r\n", "idle"),
    ] {
        let error = answered(answer);
        assert!(matches!(&error, ClientError::Ended { text, .. } if text.contains(words)));
    }
    for (answer, code) in [
        ("NO\r\n", RefusalCode::Other),
        ("BAD IMAP_PROTOCOL_ERROR x\r\n", RefusalCode::Bad),
        ("* LSUB (a)\r\nNO IMAP_MAILBOX_LOCKED Mailbox locked\r\n", RefusalCode::MailboxLocked),
    ] {
        assert_eq!(answered(answer).refusal(), Some(code));
    }
}

#[test]
fn a_lost_connection_says_how_far_it_came() {
    let (mut client, _) = csync(|peer| {
        peer.answer("APPLY UNSUB %(USERID tom MBOXNAME a)", "OK\r\n");
        peer.hear();
    });
    client.apply(b"UNSUB %(USERID tom MBOXNAME a)").unwrap();
    let error = client.apply(b"MAILBOX %(UNIQUEID x MBOXNAME user.tom)").unwrap_err();
    assert!(error.is_worth_a_retry() && !error.is_connection_usable());
    let ClientError::Lost { outcome, acknowledged, during, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!((*outcome, during.as_str()), (Outcome::Unknown, "APPLY MAILBOX user.tom"));
    assert_eq!(acknowledged.last.as_deref(), Some("APPLY UNSUB a"));
    assert!(error.to_string().contains("last acknowledged: APPLY UNSUB a"), "{error}");
}

#[test]
fn silence_is_an_error_when_the_time_is_up() {
    let (mut client, served) = csync(|peer| {
        peer.hear();
        peer.hear();
    });
    client.reply_timeout = Duration::from_millis(200);
    let error = client.noop().unwrap_err();
    let ClientError::Lost { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.kind(), std::io::ErrorKind::TimedOut);
    drop(client);
    served.join().unwrap();
}

fn guid_of(octets: &[u8]) -> Guid {
    Guid::from(<[u8; 20]>::from(Sha1::digest(octets)))
}

#[test]
fn messages_are_checked_on_their_way() {
    let long: Vec<u8> = (0..MESSAGE_AHEAD_MAX * 3).map(|n| (n % 251) as u8).collect();
    let (short, long_guid) = (b"Subject: a\r\n\r\nhello\r\n".as_slice(), guid_of(&long));
    let sent = long.clone();
    let (mut client, served) = csync(move |peer| {
        let short_guid = guid_of(short);
        let header = format!("APPLY MESSAGE (%{{default {short_guid} {}}}", short.len());
        assert_eq!(peer.hear(), header);
        let mut body = vec![0; short.len()];
        peer.stream.read_exact(&mut body).unwrap();
        assert_eq!(body, short);
        assert_eq!(peer.hear(), format!(" %{{default {} {}}}", guid_of(&sent), sent.len()));
        let mut body = vec![0; sent.len()];
        peer.stream.read_exact(&mut body).unwrap();
        assert!(body == sent);
        assert_eq!(peer.hear(), ")");
        peer.say("OK success\r\n");
        // The bad one is never whole.
        peer.hear();
        let mut rest = Vec::new();
        peer.stream.read_to_end(&mut rest).unwrap();
        assert!(rest.len() < sent.len(), "{} octets", rest.len());
    });
    let mut messages = client.messages(b"default");
    for (guid, size, body) in [
        (guid_of(b"other"), short.len(), short),
        (guid_of(short), short.len() + 1, short),
        (guid_of(short), short.len() - 1, short),
        (guid_of(&long), usize::MAX, &long),
    ] {
        let error = messages.add(&guid, size as u64, &mut &*body).unwrap_err();
        assert!(error.is_connection_usable(), "{error}");
    }
    messages.add(&guid_of(short), short.len() as u64, &mut &*short).unwrap();
    messages.add(&long_guid, long.len() as u64, &mut &long[..]).unwrap();
    messages.finish().unwrap();
    assert_eq!(client.acknowledged().last.as_deref(), Some("APPLY MESSAGE (default)"));
    client.messages(b"default").finish().unwrap();

    let mut messages = client.messages(b"default");
    let error = messages.add(&guid_of(b"x"), long.len() as u64, &mut &long[..]).unwrap_err();
    assert!(!error.is_connection_usable(), "{error}");
    drop(messages);
    assert!(matches!(client.noop(), Err(ClientError::Closed)));
    drop(client);
    served.join().unwrap();
}

#[test]
fn messages_left_alone_end_the_connection() {
    let (mut client, _) = csync(|peer| {
        peer.hear();
    });
    let mut messages = client.messages(b"default");
    messages.add(&guid_of(b"x"), 1, &mut &b"x"[..]).unwrap();
    drop(messages);
    assert!(!client.is_usable());
}

#[test]
fn a_message_that_comes_is_checked() {
    let body = "Subject: a\r\n\r\nhello\r\n";
    let guid = guid_of(body.as_bytes());
    let name = MessageName {
        mboxname: b"user.tom",
        partition: b"default",
        uniqueid: b"abc",
        guid,
        uid: 7,
    };
    for (text, is_right) in [(body, true), ("Subject: b\r\n\r\nhello\r\n", false)] {
        let (mut client, _) = csync(move |peer| {
            let fields = "MBOXNAME user.tom PARTITION default UNIQUEID abc";
            let command = format!("GET FETCH %({fields} GUID {guid} UID 7)");
            let file = format!("* MESSAGE %{{default {guid} {}}}\r\n{text}\r\n", text.len());
            peer.answer(&command, &(file + "OK success\r\n"));
            peer.answer(&command, "NO IMAP_MAILBOX_NONEXISTENT No Such Mailbox\r\n");
        });
        let mut out = Vec::new();
        match client.get_message(&name, &mut out) {
            Ok(size) => {
                assert!(is_right);
                assert_eq!((size, out.as_slice()), (Some(body.len() as u64), body.as_bytes()));
            }
            Err(error) => assert!(!is_right && error.is_connection_usable(), "{error}"),
        }
        assert_eq!(client.get_message(&name, &mut out).unwrap(), None);
    }
}

#[test]
fn reserve_asks_in_parts_and_keeps_the_order() {
    let guids: Vec<Guid> = (0..GUIDS_MAX as u32 + 10).map(|n| guid_of(&n.to_be_bytes())).collect();
    let (last, stranger) = (guids[GUIDS_MAX + 1], guid_of(b"never asked for"));
    let first = guids[3];
    let (mut client, served) = csync(move |peer| {
        assert!(peer.hear().starts_with("APPLY RESERVE %(PARTITION default MBOXNAME (a b) GUID ("));
        peer.say(&format!("* MISSING ({stranger} {first})\r\nOK success\r\n"));
        assert!(peer.hear().starts_with("APPLY RESERVE "));
        peer.say(&format!("* MISSING ({last})\r\nOK success\r\n"));
    });
    let missing = client.reserve(b"default", &[b"a", b"b"], &guids).unwrap();
    assert_eq!(missing, [first, last]);
    served.join().unwrap();
}

#[test]
fn a_full_mailbox_is_read_record_by_record() {
    let (mut client, _) = csync(|peer| {
        let record = |uid: u32| {
            format!(
                "%(UID {uid} MODSEQ 4 LAST_UPDATED 5 FLAGS (\\Seen) INTERNALDATE 6 SIZE 21 GUID \
                 4eea1e78e5032625a64f9ba26611156942a8f86a)"
            )
        };
        let fields = "UNIQUEID x MBOXNAME user.tom LAST_UID 2 RECORD";
        let text = format!("* MAILBOX %({fields} ({} {}))\r\n", record(1), record(2));
        peer.answer("GET FULLMAILBOX user.tom", &(text + "OK success\r\n"));
        peer.answer("GET FULLMAILBOX user.ann", "NO IMAP_MAILBOX_NONEXISTENT No Such Mailbox\r\n");
    });
    let mailbox = client.get_fullmailbox(b"user.tom").unwrap().unwrap();
    assert_eq!(mailbox.state.last_uid, 2);
    let uids: Vec<u32> = mailbox.records().map(|record| record.unwrap().uid).collect();
    assert_eq!(uids, [1, 2]);
    assert!(client.get_fullmailbox(b"user.ann").unwrap().is_none());
}
