//! Whole exchanges, with rsasl's client side where there is one.

use std::time::Instant;

use proptest::prelude::*;
use rsasl::mechname::Mechname;
use rsasl::prelude::{SASLClient, SASLConfig};

use super::*;

/// Passwords: cyrus and tom have "pw", `a,b=c` has "p,w=".
struct Site {
    authenticator: Authenticator,
    file: PasswordFile,
    _dir: tempfile::TempDir,
}

fn config(sources: PasswordSources) -> AuthConfig {
    AuthConfig {
        mechs: None,
        sources,
        admins: vec!["cyrus".into(), "a,b=c".into()],
        allow_plaintext: true,
        minimum_layer: 0,
        names: NamePolicy::default(),
        service: "csync".into(),
        failed_login_pause: Duration::from_secs(3),
    }
}

fn site() -> Site {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cyrbk.passwd");
    let file = PasswordFile::new(&path);
    for (user, password) in [("cyrus", "pw"), ("tom", "pw"), ("a,b=c", "p,w=")] {
        file.set_with(user, password, 4096).unwrap();
    }
    Site { authenticator: Authenticator::new(config(PasswordSources::file(path))), file, _dir: dir }
}

/// Plays rsasl's client against the server to the end.
fn log_in(
    authenticator: &Authenticator,
    mech: &str,
    authzid: Option<&str>,
    user: &str,
    password: &str,
) -> Result<Identity, AuthFailure> {
    let credentials = SASLConfig::with_credentials(
        authzid.map(str::to_owned),
        user.to_owned(),
        password.to_owned(),
    );
    let mut client = SASLClient::new(credentials.unwrap())
        .start_suggested(&[Mechname::parse(mech.as_bytes()).unwrap()])
        .unwrap();
    let mut initial = None;
    if client.are_we_first() {
        let mut out = Vec::new();
        client.step(None, &mut out).unwrap();
        initial = Some(out);
    }
    let (mut exchange, mut step) =
        authenticator.start(mech, initial.as_deref(), false, &ChannelBindings::default());
    let mut is_client_done = false;
    loop {
        let challenge = match step {
            Step::Success(identity) => return Ok(identity),
            Step::Failure(failure) => return Err(failure),
            Step::Challenge(challenge) => challenge,
        };
        let mut answer = Vec::new();
        if !is_client_done {
            let state = client.step(Some(&challenge), &mut answer).unwrap();
            is_client_done = state.is_finished();
        }
        step = exchange.as_mut().unwrap().step(&answer);
    }
}

fn wrong(user: &str) -> Result<Identity, AuthFailure> {
    Err(AuthFailure::WrongPassword { user: user.into() })
}

/// One message with PLAIN.
fn plain(authenticator: &Authenticator, message: &[u8]) -> Result<Identity, AuthFailure> {
    let (exchange, step) =
        authenticator.start("PLAIN", Some(message), false, &ChannelBindings::default());
    assert!(exchange.is_none());
    match step {
        Step::Success(identity) => Ok(identity),
        Step::Failure(failure) => Err(failure),
        Step::Challenge(_) => panic!("PLAIN has one message"),
    }
}

fn challenge(step: Step) -> Vec<u8> {
    match step {
        Step::Challenge(challenge) => challenge,
        other => panic!("{other:?}"),
    }
}

fn failure(step: Step) -> AuthFailure {
    match step {
        Step::Failure(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_mechanism_knows_right_from_wrong() {
    let Site { authenticator, .. } = &site();
    for mech in ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN"] {
        let identity = log_in(authenticator, mech, None, "cyrus", "pw").unwrap();
        assert_eq!(identity.authcid, "cyrus");
        assert_eq!(identity.authzid, "cyrus");
        assert_eq!(identity.mech, mech);
        assert!(identity.is_admin);
        let identity = log_in(authenticator, mech, None, "tom", "pw").unwrap();
        assert!(!identity.is_admin);
        let escaped = log_in(authenticator, mech, None, "a,b=c", "p,w=").unwrap();
        assert_eq!(escaped.authcid, "a,b=c");
        let folded = log_in(authenticator, mech, None, "CYRUS", "pw").unwrap();
        assert_eq!(folded.authcid, "cyrus");
        assert_eq!(log_in(authenticator, mech, None, "cyrus", "pW"), wrong("cyrus"));
        assert_eq!(log_in(authenticator, mech, None, "nobody", "pw"), wrong("nobody"));
        let bad = log_in(authenticator, mech, None, "p?q", "pw").unwrap_err();
        assert!(matches!(bad, AuthFailure::BadUserName { .. }), "{bad:?}");
    }
}

#[test]
fn authzids_follow_the_admin_rules() {
    let Site { authenticator, .. } = &site();
    for mech in ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"] {
        let ask = |authzid, user| log_in(authenticator, mech, Some(authzid), user, "pw");
        assert!(ask("cyrus", "cyrus").unwrap().is_admin);
        let proxy = ask("tom", "cyrus").unwrap();
        assert_eq!((proxy.authzid.as_str(), proxy.is_admin), ("tom", false));
        let denied = ask("cyrus", "tom").unwrap_err();
        assert!(matches!(denied, AuthFailure::ProxyDenied { .. }), "{denied:?}");
        assert_eq!(denied.status_text(), "NO authentication failure");
        let escaped = ask("x,y=z", "cyrus").unwrap();
        assert_eq!(escaped.authzid, "x,y=z");
    }
}

/// Expectations were taken from backupd 3.6.1.
#[test]
fn plain_messages() {
    let Site { authenticator, .. } = &site();
    assert!(plain(authenticator, b"\0cyrus \0pw").unwrap().is_admin);
    let malformed: &[&[u8]] = &[b"", b"cyrus", b"\0cyrus", b"\0cyrus\0pw\0", b"\0cyrus\0pw\0x"];
    for message in malformed {
        assert_eq!(plain(authenticator, message), Err(AuthFailure::BadProtocol));
    }
    let refused: &[&[u8]] = &[
        b"\0cyrus\0",
        b"\0\0pw",
        b"\0cyr\xff\0pw",
        b"\xff\0cyrus\0pw",
        b"\0cyrus\0p\xff",
        b"\0a\x01b\0pw",
    ];
    for message in refused {
        let failure = plain(authenticator, message).unwrap_err();
        assert_eq!(failure.status_text(), "NO authentication failure", "{message:?}");
    }
}

#[test]
fn messages_up_to_the_limit() {
    let Site { authenticator, .. } = &site();
    let mut message = b"\0cyrus\0".to_vec();
    message.resize(MAX_MESSAGE_LEN, b'x');
    assert_eq!(plain(authenticator, &message), wrong("cyrus"));
    message.push(b'x');
    assert_eq!(plain(authenticator, &message), Err(AuthFailure::BadProtocol));
    let longest = [b'A'; MAX_BASE64_LINE];
    assert_eq!(decode_base64(&longest).unwrap().len(), MAX_MESSAGE_LEN);
    let longer = [b'A'; MAX_BASE64_LINE + 4];
    assert_eq!(decode_base64(&longer), Err(AuthFailure::BadProtocol));
}

#[test]
fn initial_responses() {
    let Site { authenticator, .. } = &site();
    let (exchange, step) = authenticator.start("plain", None, false, &ChannelBindings::default());
    assert_eq!(challenge(step), b"");
    let step = exchange.unwrap().step(b"\0cyrus\0pw");
    assert!(matches!(step, Step::Success(_)));

    for empty in [None, Some(&b""[..])] {
        let (exchange, step) =
            authenticator.start("LOGIN", empty, false, &ChannelBindings::default());
        assert_eq!(challenge(step), b"Username:");
        assert_eq!(challenge(exchange.unwrap().step(b"cyrus")), b"Password:");
        let (exchange, step) =
            authenticator.start("SCRAM-SHA-1", empty, false, &ChannelBindings::default());
        assert_eq!(challenge(step), b"");
        assert!(exchange.is_some());
    }
    let (exchange, step) =
        authenticator.start("LOGIN", Some(b"cyrus"), false, &ChannelBindings::default());
    assert_eq!(challenge(step), b"Password:");
    let mut exchange = exchange.unwrap();
    assert!(matches!(exchange.step(b"pw"), Step::Success(_)));
    assert_eq!(failure(exchange.step(b"pw")), AuthFailure::BadProtocol);
}

#[test]
fn login_answers_that_are_no_password() {
    let Site { authenticator, .. } = &site();
    for answer in [&b""[..], b"pw\0", b"\0", b"\xff"] {
        let (exchange, _) =
            authenticator.start("LOGIN", Some(b"cyrus"), false, &ChannelBindings::default());
        let verdict = failure(exchange.unwrap().step(answer));
        assert_eq!(verdict, wrong("cyrus").unwrap_err());
    }
}

/// The salt and the rounds must not tell who exists, nor change.
#[test]
fn scram_does_not_tell_who_exists() {
    let site = site();
    site.file.set("cyrus", "pw").unwrap();
    let ask = |authenticator: &Authenticator, user: &str| {
        let message = format!("n,,n={user},r=abc");
        let (exchange, step) = authenticator.start(
            "SCRAM-SHA-256",
            Some(message.as_bytes()),
            false,
            &ChannelBindings::default(),
        );
        let reply = String::from_utf8(challenge(step)).unwrap();
        let (nonce, rest) = reply.split_once(',').unwrap();
        let proof = format!("c=biws,{nonce},p={}", STANDARD.encode([0; 32]));
        let verdict = failure(exchange.unwrap().step(proof.as_bytes()));
        assert_eq!(verdict.status_text(), "NO authentication failure");
        rest.to_owned()
    };
    let known = ask(&site.authenticator, "cyrus");
    let unknown = ask(&site.authenticator, "nobody");
    assert_ne!(known, unknown);
    assert_eq!(known.len(), unknown.len());
    assert!(unknown.ends_with(",i=65536"), "{unknown}");
    assert_eq!(unknown, ask(&site.authenticator, "nobody"));
    assert_ne!(unknown, ask(&site.authenticator, "nobody2"));
    ask(&site.authenticator, "a?b");
    let sources = PasswordSources::file(site.file.path().to_owned());
    let restarted = Authenticator::new(config(sources));
    assert_eq!(unknown, ask(&restarted, "nobody"));
}

#[test]
fn scram_messages_that_are_none() {
    let Site { authenticator, .. } = &site();
    let refused: &[&[u8]] =
        &[b"n,a,n=x,r=abc", b"n,,", b"n,,n", b"p=tls-unique,,n=cyrus,r=abc", b"\0", b"\xff"];
    for message in refused {
        let (exchange, step) =
            authenticator.start("SCRAM-SHA-1", Some(message), false, &ChannelBindings::default());
        assert_eq!(failure(step), AuthFailure::BadProtocol);
        assert!(exchange.is_none());
    }
    for message in ["", "c=biws", "c=biws,r=", "c=biws,r=x,p", "c=biws,r=abc,p=A"] {
        let first = Some(&b"n,,n=cyrus,r=abc"[..]);
        let (exchange, _) =
            authenticator.start("SCRAM-SHA-1", first, false, &ChannelBindings::default());
        let verdict = failure(exchange.unwrap().step(message.as_bytes()));
        assert!(verdict.status_text().starts_with("NO "), "{verdict:?}");
    }
}

/// The proof of one exchange is worth nothing in another.
#[test]
fn scram_proofs_cannot_be_replayed() {
    let Site { authenticator, .. } = &site();
    let config = SASLConfig::with_credentials(None, "cyrus".into(), "pw".into()).unwrap();
    let mut client = SASLClient::new(config)
        .start_suggested(&[Mechname::parse(b"SCRAM-SHA-256").unwrap()])
        .unwrap();
    let (mut first, mut proof) = (Vec::new(), Vec::new());
    client.step(None, &mut first).unwrap();
    let (exchange, step) =
        authenticator.start("SCRAM-SHA-256", Some(&first), false, &ChannelBindings::default());
    client.step(Some(&challenge(step)), &mut proof).unwrap();
    let (replayed, _) =
        authenticator.start("SCRAM-SHA-256", Some(&first), false, &ChannelBindings::default());
    assert_eq!(failure(replayed.unwrap().step(&proof)), wrong("cyrus").unwrap_err());
    let mut exchange = exchange.unwrap();
    assert!(challenge(exchange.step(&proof)).starts_with(b"v="));
    assert_eq!(failure(exchange.step(b"no ack")), AuthFailure::BadProtocol);
}

#[test]
fn the_offer_follows_the_configuration() {
    let base = config(PasswordSources::file("/nonexistent/cyrbk.passwd"));
    let hashed = ["SCRAM-SHA-256", "SCRAM-SHA-1"];
    let open = Authenticator::new(base.clone());
    assert_eq!(open.mechanisms(false), ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN"]);

    let closed = Authenticator::new(AuthConfig { allow_plaintext: false, ..base.clone() });
    assert_eq!(closed.mechanisms(false), hashed);
    assert_eq!(closed.mechanisms(true), open.mechanisms(false));
    for mech in ["PLAIN", "login"] {
        let (exchange, step) =
            closed.start(mech, Some(b"\0cyrus\0pw"), false, &ChannelBindings::default());
        assert!(exchange.is_none());
        assert_eq!(failure(step), AuthFailure::EncryptionNeeded);
    }

    let layered = Authenticator::new(AuthConfig { minimum_layer: 1, ..base.clone() });
    assert!(layered.mechanisms(false).is_empty());
    assert_eq!(layered.mechanisms(true), open.mechanisms(false));
    let refused = layered.start("SCRAM-SHA-1", None, false, &ChannelBindings::default()).1;
    assert_eq!(failure(refused), AuthFailure::EncryptionNeeded);

    let listed = Authenticator::new(AuthConfig {
        mechs: Some(vec!["plain".into(), "DIGEST-MD5".into()]),
        ..base.clone()
    });
    assert_eq!(listed.mechanisms(false), ["PLAIN"]);
    for mech in ["SCRAM-SHA-256", "DIGEST-MD5", "SCRAM-SHA-256-PLUS", "", "PLAIN "] {
        assert_eq!(
            failure(listed.start(mech, None, true, &ChannelBindings::default()).1),
            AuthFailure::NoMechanism
        );
    }

    let daemon = Authenticator::new(AuthConfig {
        sources: PasswordSources::saslauthd("/nonexistent"),
        ..base
    });
    assert_eq!(daemon.mechanisms(false), ["PLAIN", "LOGIN"]);
    let scram =
        daemon.start("SCRAM-SHA-1", Some(b"n,,n=cyrus,r=abc"), true, &ChannelBindings::default());
    assert_eq!(failure(scram.1), AuthFailure::NoMechanism);
}

#[test]
fn a_source_that_fails_is_named_in_the_log_only() {
    let sources = PasswordSources::file("/nonexistent/cyrbk.passwd");
    let no_file = Authenticator::new(config(sources));
    let scram =
        no_file.start("SCRAM-SHA-1", Some(b"n,,n=cyrus,r=abc"), false, &ChannelBindings::default());
    let failures = [plain(&no_file, b"\0cyrus\0pw").unwrap_err(), failure(scram.1)];
    for failure in failures {
        let log = failure.to_string();
        assert!(log.contains("/nonexistent/cyrbk.passwd"), "{log}");
        assert!(log.contains("cyrbk passwd USER"), "{log}");
        assert_eq!(failure.status_text(), "NO generic failure");
    }
    let sources = PasswordSources::saslauthd("/nonexistent");
    let no_daemon = Authenticator::new(config(sources));
    let log = plain(&no_daemon, b"\0cyrus\0pw").unwrap_err().to_string();
    assert!(log.contains("saslauthd at /nonexistent"), "{log}");
}

#[test]
fn status_texts() {
    for (failure, text, is_delayed) in [
        (AuthFailure::NoMechanism, "NO no mechanism available", true),
        (AuthFailure::BadProtocol, "NO bad protocol / cancel", true),
        (AuthFailure::EncryptionNeeded, "NO encryption needed to use mechanism", true),
        (AuthFailure::Cancelled, "BAD Client canceled authentication", false),
    ] {
        assert_eq!(failure.status_text(), text);
        assert_eq!(failure.is_delayed(), is_delayed);
    }
}

#[test]
fn base64_is_strict() {
    assert_eq!(decode_base64(b"cHc=").unwrap(), b"pw");
    assert_eq!(decode_base64(b"").unwrap(), b"");
    assert_eq!(decode_initial_response(b"=").unwrap(), b"");
    assert_eq!(decode_base64(b"*"), Err(AuthFailure::Cancelled));
    for bad in ["=", "cHc", "cHd=", "cHc=\r", "cHc==", "c Hc=", "AGN5c$$=", "**", "cHc-"] {
        assert_eq!(decode_base64(bad.as_bytes()), Err(AuthFailure::BadProtocol), "{bad}");
    }
    assert_eq!(encode_base64(b"pw"), "cHc=");
}

/// A log-in must not take so long that clients give up (10 s), not even here,
/// without optimisation.
#[test]
fn the_default_cost_is_bearable() {
    let site = site();
    site.file.set("cyrus", "pw").unwrap();
    let begin = Instant::now();
    plain(&site.authenticator, b"\0cyrus\0pw").unwrap();
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
}

fn sendable<T: Send + 'static>(_: &T) {}

#[test]
fn exchanges_can_move_to_a_worker() {
    let (exchange, _) =
        site().authenticator.start("SCRAM-SHA-1", None, false, &ChannelBindings::default());
    sendable(&exchange);
}

/// Pieces of messages that are nearly right.
static PIECES: [&[u8]; 14] = [
    b"n,",
    b"y,",
    b",",
    b"a=",
    b"n=cyrus",
    b"n=nobody,",
    b"r=abc",
    b"c=biws,",
    b"p=",
    b"AAAA",
    b"=",
    b"\0",
    b"\xff",
    b"m=1",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// No message makes an exchange panic or succeed.
    #[test]
    fn hostile_messages(
        messages in prop::collection::vec(
            prop::collection::vec(prop::sample::select(&PIECES[..]), 0..8),
            1..4,
        ),
    ) {
        static SITE: std::sync::LazyLock<Site> = std::sync::LazyLock::new(site);
        for mech in ["SCRAM-SHA-256", "SCRAM-SHA-1"] {
            let bindings = ChannelBindings::default();
            let (exchange, _) = SITE.authenticator.start(mech, None, false, &bindings);
            let mut exchange = exchange.unwrap();
            for message in &messages {
                let step = exchange.step(&message.concat());
                prop_assert!(!matches!(step, Step::Success(_)));
            }
        }
    }
}
