//! SCRAM bound to a channel, with rsasl's client on the other side.

use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::mechanisms::scram::{SCRAM_SHA1_PLUS, SCRAM_SHA256_PLUS};
use rsasl::mechname::Mechname;
use rsasl::prelude::{Mechanism, Registry, SASLClient, SASLConfig, SessionError};
use rsasl::property::{AuthId, OverrideCBType, Password};

use super::*;

static BOUND: &[Mechanism] = &[SCRAM_SHA256_PLUS, SCRAM_SHA1_PLUS];

/// A user, and the name of what the log-in is bound to.
struct Client {
    password: &'static [u8],
    binding: &'static str,
}

impl SessionCallback for Client {
    fn callback(
        &self,
        _: &SessionData,
        _: &Context,
        request: &mut Request,
    ) -> Result<(), SessionError> {
        request
            .satisfy::<AuthId>("cyrus")?
            .satisfy::<Password>(self.password)?
            .satisfy::<OverrideCBType>(self.binding)?;
        Ok(())
    }

    fn enable_channel_binding(&self) -> bool {
        true
    }
}

fn authenticator(dir: &std::path::Path, mechs: &[&str]) -> Authenticator {
    let path = dir.join("cyrbk.passwd");
    PasswordFile::new(&path).set_with("cyrus", "pw", 4096).unwrap();
    Authenticator::new(AuthConfig {
        mechs: (!mechs.is_empty()).then(|| mechs.iter().map(|&mech| mech.to_owned()).collect()),
        sources: PasswordSources::file(path),
        admins: vec!["cyrus".into()],
        allow_plaintext: false,
        minimum_layer: 0,
        names: NamePolicy::default(),
        service: "csync".into(),
        failed_login_pause: Duration::ZERO,
    })
}

fn bindings(exporter: Option<u8>, end_point: Option<u8>) -> ChannelBindings {
    let octets = |octet: Option<u8>| octet.map(|octet| vec![octet; 32]);
    ChannelBindings { exporter: octets(exporter), end_point: octets(end_point) }
}

/// What the server makes of a client that sees the channel in its own way.
fn log_in(
    authenticator: &Authenticator,
    mech: &str,
    client: Client,
    (theirs, ours): (ChannelBindings, &ChannelBindings),
) -> Result<(), AuthFailure> {
    let config = SASLConfig::builder()
        .with_registry(Registry::with_mechanisms(BOUND))
        .with_callback(client)
        .unwrap();
    let mut client = SASLClient::with_cb(config, theirs)
        .start_suggested(&[Mechname::parse(mech.as_bytes()).unwrap()])
        .unwrap();
    let mut first = Vec::new();
    client.step(None, &mut first).unwrap();
    let (mut exchange, mut step) = authenticator.start(mech, Some(&first), true, ours);
    loop {
        let challenge = match step {
            Step::Success(identity) => {
                assert_eq!(identity.mech, mech);
                return Ok(());
            }
            Step::Failure(failure) => return Err(failure),
            Step::Challenge(challenge) => challenge,
        };
        let mut answer = Vec::new();
        client.step(Some(&challenge), &mut answer).unwrap();
        step = exchange.as_mut().unwrap().step(&answer);
    }
}

const ALL: [&str; 4] = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1"];

#[test]
fn a_log_in_is_worth_something_on_its_own_channel_only() {
    let dir = tempfile::tempdir().unwrap();
    let authenticator = authenticator(dir.path(), &ALL);
    let ours = bindings(Some(1), Some(2));
    let client =
        |password: &'static str, binding| Client { password: password.as_bytes(), binding };
    for mech in ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS"] {
        for binding in ["tls-exporter", "tls-server-end-point"] {
            let ask = |password, theirs| {
                log_in(&authenticator, mech, client(password, binding), (theirs, &ours))
            };
            assert_eq!(ask("pw", ours.clone()), Ok(()), "{mech} {binding}");
            let wrong = Err(AuthFailure::WrongPassword { user: "cyrus".into() });
            assert_eq!(ask("no", ours.clone()), wrong, "{mech} {binding}");
            // Somebody in between, with a connection to either side.
            assert_eq!(ask("pw", bindings(Some(3), Some(4))), wrong, "{mech} {binding}");
        }
    }
    // What this side does not have cannot be bound to.
    for (ours, binding) in [
        (bindings(None, Some(2)), "tls-exporter"),
        (bindings(Some(1), None), "tls-server-end-point"),
    ] {
        let theirs = bindings(Some(1), Some(2));
        let refused =
            log_in(&authenticator, "SCRAM-SHA-1-PLUS", client("pw", binding), (theirs, &ours));
        assert_eq!(refused, Err(AuthFailure::BadProtocol), "{binding}");
    }
}

/// What a first message is answered with.
fn first(authenticator: &Authenticator, mech: &str, flag: &str, on: &ChannelBindings) -> String {
    let message = format!("{flag},,n=cyrus,r=abc");
    match authenticator.start(mech, Some(message.as_bytes()), true, on).1 {
        Step::Challenge(_) => "goes on".to_owned(),
        Step::Failure(failure) => failure.status_text().to_owned(),
        Step::Success(_) => panic!("at once"),
    }
}

#[test]
fn flags_and_mechanisms_go_together() {
    let dir = tempfile::tempdir().unwrap();
    let with = authenticator(dir.path(), &ALL);
    let without = authenticator(dir.path(), &[]);
    let (none, some) = (ChannelBindings::default(), bindings(Some(1), None));
    let (on, bad, unknown) = ("goes on", "NO bad protocol / cancel", "NO no mechanism available");
    for (authenticator, mech, flag, channel, expected) in [
        (&with, "SCRAM-SHA-1", "n", &some, on),
        // The list that this client read was not the one that was sent.
        (&with, "SCRAM-SHA-1", "y", &some, bad),
        (&with, "SCRAM-SHA-1", "y", &none, on),
        (&without, "SCRAM-SHA-1", "y", &some, on),
        (&with, "SCRAM-SHA-1", "p=tls-exporter", &some, bad),
        (&with, "SCRAM-SHA-1-PLUS", "p=tls-exporter", &some, on),
        (&with, "SCRAM-SHA-1-PLUS", "p=tls-unique", &some, bad),
        (&with, "SCRAM-SHA-1-PLUS", "n", &some, bad),
        (&with, "SCRAM-SHA-1-PLUS", "y", &some, bad),
        (&with, "SCRAM-SHA-1-PLUS", "p=tls-exporter", &none, unknown),
        (&without, "SCRAM-SHA-1-PLUS", "p=tls-exporter", &some, unknown),
    ] {
        assert_eq!(first(authenticator, mech, flag, channel), expected, "{mech} {flag}");
    }
    assert_eq!(with.mechanisms_bound(), ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS"]);
    assert_eq!(with.mechanisms(true), ["SCRAM-SHA-256", "SCRAM-SHA-1"]);
    assert!(without.mechanisms_bound().is_empty());
}
