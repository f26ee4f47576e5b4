//! Clients against servers that follow a script, friendly and hostile ones.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sha1::{Digest, Sha1};

use super::*;

/// The server's end of a connection.
struct Script {
    stream: BufReader<TcpStream>,
}

impl Script {
    fn say(&mut self, text: &str) {
        // The client may have had enough.
        let _ = self.stream.get_mut().write_all(text.as_bytes());
    }

    fn hear(&mut self) -> String {
        let mut line = Vec::new();
        let _ = self.stream.read_until(b'\n', &mut line);
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    /// Hears one command, says the answer.
    fn answer(&mut self, command: &str, answer: &str) {
        assert_eq!(self.hear(), command);
        self.say(answer);
    }
}

/// A server for one connection; the options to reach it.
fn server(script: impl FnOnce(&mut Script) + Send + 'static) -> (Options, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        script(&mut Script { stream: BufReader::new(stream) });
    });
    let mut options = Options::new(Destination::parse(&format!("127.0.0.1:{port}")).unwrap());
    options.login = Some(Login {
        authname: "admin".into(),
        authzid: None,
        password: Password::new("secret".into()),
        mechanisms: None,
    });
    (options, served)
}

const BANNER: &str = "* SASL PLAIN\r\n* OK mail Cyrus sync server 3.6.1\r\n";
const PLAIN: &str = "AUTHENTICATE PLAIN AGFkbWluAHNlY3JldA==";

/// A csync server that has let the client in.
fn csync(script: impl FnOnce(&mut Script) + Send + 'static) -> (Client, JoinHandle<()>) {
    let (options, served) = server(|peer| {
        peer.say(BANNER);
        peer.answer(PLAIN, "OK Success (no protection)\r\n");
        script(peer);
    });
    (Client::connect(&options).unwrap(), served)
}

/// What becomes of a connection whose server says this, and hears whatever it hears.
fn greeted(text: &'static str) -> Result<Client, ClientError> {
    let (options, _) = server(move |peer| {
        peer.say(text);
        peer.hear();
        peer.hear();
    });
    Client::connect(&options)
}

#[test]
fn clients_can_work_side_by_side() {
    fn is_send<T: Send>() {}
    is_send::<Client>();
    is_send::<ClientError>();
}

#[test]
fn addresses_may_be_ipv6() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else { return };
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"* OK mail Cyrus sync server 3.6.1\r\n").unwrap();
        let _ = stream.read(&mut [0; 100]);
    });
    let destination = Destination::parse(&format!("[::1]:{port}/noauth")).unwrap();
    let client = Client::connect(&Options::new(destination)).unwrap();
    assert_eq!(client.peer().address, format!("[::1]:{port}"));
}

#[test]
fn csync_from_greeting_to_exit() {
    let (mut client, served) = csync(|peer| {
        peer.answer("GET USER tom", "* LSUB (user.tom.A)\r\nOK Success\r\n");
        peer.answer("GET USER \"NIL\"", "NO IMAP_PROTOCOL_BAD_PARAMETERS Bad parameters\r\n");
        peer.answer("APPLY SUB %(USERID tom MBOXNAME user.ann)", "OK success\r\n");
        peer.answer("RESTART", "OK Restarting\r\n");
        peer.answer("EXIT", "OK Finished\r\n");
    });
    assert_eq!(client.peer().mechanism.as_deref(), Some("PLAIN"));
    assert_eq!(client.peer().greeting, "mail Cyrus sync server 3.6.1");
    assert_eq!(client.get_user(b"tom").unwrap().subscriptions, [b"user.tom.A"]);
    let error = client.get_user(b"NIL").unwrap_err();
    assert_eq!(error.refusal(), Some(RefusalCode::BadParameters));
    assert!(error.is_connection_usable());
    client.apply(b"SUB %(USERID tom MBOXNAME user.ann)").unwrap();
    let last = client.acknowledged().clone();
    assert_eq!((last.commands, last.last.as_deref()), (2, Some("APPLY SUB user.ann")));
    client.restart().unwrap();
    client.exit().unwrap();
    served.join().unwrap();
}

#[test]
fn imap_from_greeting_to_logout() {
    let (options, served) = server(|peer| {
        peer.say("* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] mail ready\r\n");
        peer.answer(&format!("S0 {PLAIN}"), "S0 OK [CAPABILITY IMAP4rev1 X-REPLICATION] in\r\n");
        peer.answer("S1 SYNCGET QUOTA user.tom", "* OK [ALERT] x\r\n* 5 EXISTS\r\n");
        peer.say("* QUOTA %(ROOT user.tom LIMIT 7)\r\nS1 OK success\r\n");
        peer.answer("S2 SYNCRESTART", "S2 OK Restarting\r\n");
        peer.answer("S3 NOOP", "S3 OK\r\n");
        peer.answer("S4 LOGOUT", "* BYE LOGOUT received\r\nS4 OK Completed\r\n");
    });
    let mut client = Client::connect(&options).unwrap();
    assert!(client.peer().is_imap);
    assert_eq!(client.get_quota(b"user.tom").unwrap().unwrap().limits.len(), 1);
    client.restart().unwrap();
    client.noop().unwrap();
    client.exit().unwrap();
    served.join().unwrap();
}

#[test]
fn a_silent_greeting_is_asked_what_it_is() {
    let (options, served) = server(|peer| {
        peer.say("* OK hello\r\n");
        peer.answer("S0 CAPABILITY", "* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nS0 OK done\r\n");
        assert_eq!(peer.hear(), "S1 AUTHENTICATE PLAIN");
        peer.answer_to_challenge();
        peer.say("S1 OK in\r\n");
        peer.answer("S2 CAPABILITY", "* CAPABILITY IMAP4rev1\r\nS2 OK done\r\n");
    });
    // Without SASL-IR the response waits for its challenge; then there is no replication.
    assert!(matches!(Client::connect(&options), Err(ClientError::NoReplication)));
    served.join().unwrap();

    let (mut options, served) = server(|peer| {
        peer.say("* OK hello\r\n");
        let unknown = "BAD IMAP_PROTOCOL_ERROR Unrecognized command\r\n";
        peer.answer("S0 CAPABILITY", unknown);
        peer.answer("NOOP", "OK Noop completed\r\n");
    });
    options.destination.no_auth = true;
    let mut client = Client::connect(&options).unwrap();
    assert!(!client.peer().is_imap);
    client.noop().unwrap();
    served.join().unwrap();
}

impl Script {
    fn answer_to_challenge(&mut self) {
        self.say("+ \r\n");
        assert_eq!(self.hear(), "AGFkbWluAHNlY3JldA==");
    }
}

#[test]
fn what_is_no_greeting() {
    let ended = greeted("* BYE too many\r\n").unwrap_err();
    assert!(matches!(&ended, ClientError::Ended { text, .. } if text.contains("too many")));
    for text in ["220 mail ESMTP\r\n", "HTTP/1.1 400 Bad Request\r\n", "\r\n"] {
        assert!(matches!(greeted(text), Err(ClientError::Malformed { .. })), "{text}");
    }
    let endless = Box::leak("* X\r\n".repeat(1000).into_boxed_str());
    assert!(matches!(greeted(endless), Err(ClientError::Malformed { .. })));
    let wide = Box::leak("x".repeat(100_000).into_boxed_str());
    let error = greeted(wide).unwrap_err();
    assert!(matches!(error, ClientError::NotEstablished { .. }), "{error}");
    let (options, _) = server(|_| ());
    assert!(matches!(Client::connect(&options), Err(ClientError::NotEstablished { .. })));
}

#[test]
fn a_greeting_that_drips_is_given_its_time_and_no_more() {
    let (mut options, _served) = server(|peer| {
        for _ in 0..100 {
            peer.say("* ");
            thread::sleep(Duration::from_millis(50));
        }
    });
    options.timeouts.login = Duration::from_millis(300);
    let start = Instant::now();
    assert!(matches!(Client::connect(&options), Err(ClientError::NotEstablished { .. })));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn what_was_asked_for_is_had_or_refused() {
    let (mut options, _) = server(|peer| {
        peer.say(BANNER);
        assert_eq!(peer.hear(), "");
    });
    options.tls = TlsMode::Required;
    assert!(matches!(Client::connect(&options), Err(ClientError::NoTls(_))));

    // Said to have, and not had: `backupd`.
    for is_required in [true, false] {
        let (mut options, _) = server(|peer| {
            peer.say("* STARTTLS\r\n");
            peer.say(BANNER);
            peer.answer("STARTTLS", "NO command not implemented\r\n");
            if !peer.hear().is_empty() {
                peer.say("OK\r\n");
            }
        });
        options.tls = if is_required { TlsMode::Required } else { TlsMode::IfOffered };
        match Client::connect(&options) {
            Err(ClientError::NoTls(text)) => {
                assert!(is_required && text == "command not implemented");
            }
            Ok(client) => assert!(!is_required && client.peer().tls.is_none()),
            Err(error) => panic!("{error}"),
        }
    }

    let (mut options, _) = server(|peer| {
        peer.say(BANNER);
        peer.answer(PLAIN, "OK\r\n");
        peer.answer("COMPRESS DEFLATE", "NO Unknown compression algorithm: DEFLATE\r\n");
    });
    options.compress = Compress::Required;
    assert!(matches!(Client::connect(&options), Err(ClientError::NoCompression(_))));

    let (mut options, _) = server(|peer| peer.say(BANNER));
    options.login = None;
    assert!(matches!(Client::connect(&options), Err(ClientError::NoCredentials)));
    let (mut options, _) = server(|peer| peer.say(BANNER));
    options.login.as_mut().unwrap().mechanisms = Some(vec!["SCRAM-SHA-1".into()]);
    assert!(matches!(Client::connect(&options), Err(ClientError::NoMechanism(offered))
        if offered == ["PLAIN"]));
}

#[test]
fn octets_slipped_in_before_tls_are_noticed() {
    let (options, _) = server(|peer| {
        peer.say("* STARTTLS\r\n* OK mail\r\n");
        peer.answer("STARTTLS", "OK Begin TLS negotiation now\r\n* SASL PLAIN\r\n* OK mail\r\n");
        peer.hear();
    });
    let error = Client::connect(&options).unwrap_err();
    let is_noticed = match &error {
        ClientError::Malformed { what, .. } => what.contains("in the clear"),
        // They came a moment later.
        ClientError::Tls(_) => true,
        _ => false,
    };
    assert!(is_noticed, "{error}");
}

#[test]
fn passwords_are_refused_in_words() {
    let (options, _) = server(|peer| {
        peer.say(BANNER);
        peer.answer(PLAIN, "NO authentication failure\r\n");
    });
    let error = Client::connect(&options).unwrap_err();
    assert_eq!(error.to_string(), "log-in refused (PLAIN): authentication failure");
    assert!(!format!("{options:?}{error:?}").contains("secret"));
}

#[test]
fn a_mechanism_without_an_entry_is_followed_by_the_next() {
    let (options, served) = server(|peer| {
        peer.say("* SASL PLAIN SCRAM-SHA-1 SCRAM-SHA-256\r\n* OK mail\r\n");
        assert!(peer.hear().starts_with("AUTHENTICATE SCRAM-SHA-256 "));
        peer.say("NO authentication failure\r\n");
        assert!(peer.hear().starts_with("AUTHENTICATE SCRAM-SHA-1 "));
        peer.say("BAD Invalid mechanism\r\n");
        peer.answer(PLAIN, "OK Success\r\n");
    });
    let client = Client::connect(&options).unwrap();
    assert_eq!(client.peer().mechanism.as_deref(), Some("PLAIN"));
    served.join().unwrap();
}

/// What a server that offers SCRAM says to the first message, and how that ends.
fn scram(challenge: fn(&str) -> String) -> ClientError {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let (options, _) = server(move |peer| {
        peer.say("* SASL SCRAM-SHA-256\r\n* OK mail\r\n");
        let first = peer.hear();
        let first = STANDARD.decode(first.rsplit(' ').next().unwrap()).unwrap();
        let first = String::from_utf8(first).unwrap();
        let nonce = first.split("r=").nth(1).unwrap().to_owned();
        peer.say(&challenge(&nonce));
        if !peer.hear().is_empty() {
            peer.say("OK Success\r\n");
            peer.hear();
        }
    });
    Client::connect(&options).unwrap_err()
}

#[test]
fn a_scram_server_has_to_prove_itself() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let is_exposed = |error: &ClientError| matches!(error, ClientError::NotTheServer { .. });
    for challenge in [
        // Success without a word of proof, at once and after our own.
        (|_| "OK Success\r\n".to_owned()) as fn(&str) -> String,
        |nonce| {
            let text = format!("r={nonce}x,s={},i=4096", STANDARD.encode("salt"));
            format!("+ {}\r\n", STANDARD.encode(text))
        },
        // Nonces, salts and numbers that cannot be.
        |_| format!("+ {}\r\n", STANDARD.encode("r=other,s=QUJD,i=4096")),
        |nonce| format!("+ {}\r\n", STANDARD.encode(format!("r={nonce},s=QUJD,i=4096"))),
        |nonce| format!("+ {}\r\n", STANDARD.encode(format!("r={nonce}x,s=QUJD,i=4000000000"))),
        |nonce| format!("+ {}\r\n", STANDARD.encode(format!("r={nonce}x,s"))),
        |_| "+ \r\n".to_owned(),
        |_| "+ ????\r\n".to_owned(),
        |_| "+ r\r\n".to_owned(),
    ] {
        let error = scram(challenge);
        assert!(is_exposed(&error), "{error}");
    }
}

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
