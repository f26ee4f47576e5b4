//! Clients against servers that follow a script, friendly and hostile ones.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sha1::{Digest, Sha1};

use super::*;

mod answers;

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
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        return crate::machine::impossible("no IPv6");
    };
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
