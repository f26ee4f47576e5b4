//! TLS: by STARTTLS with the real client, from the first octet, with clients' certificates.

use std::io::{BufReader, Write};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::mechanisms::scram::SCRAM_SHA256_PLUS;
use rsasl::mechname::Mechname;
use rsasl::prelude::{
    ChannelBindingCallback, Mechanism, Registry, SASLClient, SASLConfig, SessionError,
};
use rsasl::property::{AuthId, Password};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::cyrus::Cyrus;
use crate::door_server::{
    DoorSetup, TLS, ask, assert_replicates, assert_user_replicates, banner, hang_up, read_through,
};
use crate::managesieve::sasl_plain;
use crate::site::{ADMIN, PASSWORD};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn the_client_comes_in_over_starttls() {
    let Some(cyrus) = Cyrus::find_or_skip("the_client_comes_in_over_starttls") else { return };
    let setup = DoorSetup::new(&cyrus, &[&TLS[..], &["allowplaintext: no"]].concat());
    let (_service, port) = setup.serve(&[]);
    let (banner, _) = banner(port);
    assert!(banner.starts_with("* STARTTLS\r\n* COMPRESS DEFLATE\r\n* OK "), "{banner}");
    assert_replicates(&cyrus, port, &[]);
    // -z insists on compression, which is announced under TLS as well.
    assert_user_replicates(&cyrus, port, "tim", &["-z"]);
    let log = setup.log();
    assert!(log.contains("login: [127.0.0.1] admin PLAIN+TLS User logged in"), "{log}");
    assert!(log.contains("starttls: [127.0.0.1] TLSv1.3 with cipher "), "{log}");
}

/// A client's configuration that trusts the server's certificate as it is on disk now.
pub(crate) fn trusting(setup: &DoorSetup) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let cert = setup.workspace.path().join("cert.pem");
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(cert).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

pub(crate) type TlsStream = StreamOwned<ClientConnection, std::net::TcpStream>;

pub(crate) fn connect_tls(port: u16, config: &Arc<ClientConfig>) -> BufReader<TlsStream> {
    let stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let client = ClientConnection::new(Arc::clone(config), name).unwrap();
    BufReader::new(StreamOwned::new(client, stream))
}

#[test]
fn tls_may_come_first_and_certificates_change() {
    let Some(cyrus) = Cyrus::find_or_skip("tls_may_come_first_and_certificates_change") else {
        return;
    };
    let setup = DoorSetup::new(&cyrus, &[&TLS[..], &["allowplaintext: no"]].concat());
    let port = crate::workspace::free_port();
    let address = format!("127.0.0.1:{port}");
    let (service, _) = setup.serve(&["--tls-listen", &address]);
    let config = trusting(&setup);
    let mut tls = connect_tls(port, &config);
    let banner = read_through(&mut tls, "* OK");
    assert!(banner.starts_with("* SASL PLAIN\r\n* COMPRESS DEFLATE\r\n* OK "), "{banner}");
    let login = format!("AUTHENTICATE PLAIN {}", sasl_plain(ADMIN, PASSWORD));
    assert_eq!(ask(&mut tls, "STARTTLS"), "BAD IMAP_PROTOCOL_ERROR Unrecognized command\r\n");
    assert_eq!(ask(&mut tls, &login), "OK Success (tls protection)\r\n");

    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    setup.workspace.write("cert.pem", &made.cert.pem());
    setup.workspace.write("key.pem", &made.signing_key.serialize_pem());
    hang_up(&service);
    setup.wait_for_log("certificates read again");
    let mut tls = connect_tls(port, &trusting(&setup));
    assert!(read_through(&mut tls, "* OK").contains("* OK "));
    // A certificate that cannot be used changes nothing.
    setup.workspace.write("cert.pem", "nonsense");
    hang_up(&service);
    setup.wait_for_log("certificates stay as they were");
    setup.workspace.write("cert.pem", &made.cert.pem());
    let mut tls = connect_tls(port, &trusting(&setup));
    assert!(read_through(&mut tls, "* OK").contains("* OK "));
}

#[test]
fn a_certificate_is_as_good_as_a_password() {
    let Some(cyrus) = Cyrus::find_or_skip("a_certificate_is_as_good_as_a_password") else {
        return;
    };
    let ca = TestCa::new();
    let options = [&TLS[..], &["tls_client_ca_file: ROOT/ca.pem"]].concat();
    let listed = [&options[..], &["sasl_mech_list: PLAIN EXTERNAL"]].concat();
    let required = [&listed[..], &["tls_client_certs: require"]].concat();
    let stranger = TestCa::new();
    for (options, signer, name, offered, reply) in [
        (&listed, Some(&ca), "admin", true, "OK Success (tls protection)\r\n"),
        (&listed, Some(&ca), "tom", true, "OK Success (tls protection)\r\n"),
        (&listed, None, "", false, "NO no mechanism available\r\n"),
        // `PLAIN` alone.
        (&options, Some(&ca), "admin", false, "NO no mechanism available\r\n"),
        (&required, Some(&ca), "admin", true, "OK Success (tls protection)\r\n"),
        (&required, None, "", false, ""),
        // Signed by somebody else.
        (&listed, Some(&stranger), "admin", false, ""),
    ] {
        let setup = DoorSetup::new(&cyrus, options);
        setup.workspace.write("ca.pem", &ca.issuer.0);
        let port = crate::workspace::free_port();
        let (_service, _) = setup.serve(&["--tls-listen", &format!("127.0.0.1:{port}")]);
        let config = match signer {
            Some(signer) => signer.client(&setup, name),
            None => trusting(&setup),
        };
        let mut tls = connect_tls(port, &config);
        let mut banner = String::new();
        if reply.is_empty() {
            std::io::Read::read_to_string(&mut tls, &mut banner).unwrap_err();
            continue;
        }
        banner += &read_through(&mut tls, "* OK");
        let case = format!("{options:?} {name}: {banner}");
        assert_eq!(banner.contains(" EXTERNAL\r\n"), offered, "{case}");
        assert_eq!(ask(&mut tls, "AUTHENTICATE EXTERNAL ="), reply, "{case}");
        let next = match (offered, name) {
            (false, _) => "NO Please authenticate first\r\n",
            (true, "admin") => "OK Success\r\n",
            (true, _) => "NO Permission denied\r\n",
        };
        assert_eq!(ask(&mut tls, "GET USER tom"), next, "{case}");
    }
}

/// Signs clients' certificates.
struct TestCa {
    issuer: (String, rcgen::Issuer<'static, rcgen::KeyPair>),
}

impl TestCa {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: (pem, rcgen::Issuer::new(params, key)) }
    }

    /// A client that shows a certificate for `name`.
    fn client(&self, setup: &DoorSetup, name: &str) -> Arc<ClientConfig> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let cert = params.signed_by(&key, &self.issuer.1).unwrap();
        let mut roots = RootCertStore::empty();
        let server = setup.workspace.path().join("cert.pem");
        roots.add(rustls::pki_types::CertificateDer::from_pem_file(server).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Arc::new(config.with_client_auth_cert(vec![cert.der().clone()], key).unwrap())
    }
}

#[test]
fn starttls_keeps_its_rules() {
    let Some(cyrus) = Cyrus::find_or_skip("starttls_keeps_its_rules") else { return };
    let setup = DoorSetup::new(&cyrus, &TLS);
    let (_service, port) = setup.serve(&[]);
    let login = format!("AUTHENTICATE PLAIN {}", sasl_plain(ADMIN, PASSWORD));
    let extra = "BAD Unexpected extra arguments to Starttls\r\n";
    let (_, mut stream) = banner(port);
    assert_eq!(ask(&mut stream, "STARTTLS x"), extra);
    assert_eq!(ask(&mut stream, &login), "OK Success (no protection)\r\n");
    let late = "BAD Can't Starttls after authentication\r\n";
    assert_eq!(ask(&mut stream, "starttls"), late);
    // What came in the clear behind the command is not taken for what was encrypted.
    let (_, mut stream) = banner(port);
    stream.get_mut().write_all(b"STARTTLS\r\nNOOP\r\n").unwrap();
    let replies = read_through(&mut stream, "nothing");
    let fatal = "OK Begin TLS negotiation now\r\n* Fatal error: octets behind STARTTLS\r\n";
    assert_eq!(replies, fatal);
    // Nor is it if it comes later.
    let (_, mut stream) = banner(port);
    assert_eq!(ask(&mut stream, "STARTTLS"), "OK Begin TLS negotiation now\r\n");
    stream.get_mut().write_all(b"NOOP\r\n").unwrap();
    let mut alert = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut alert).unwrap();
    assert_eq!(alert.first(), Some(&21), "{alert:?}");
    // Without certificates there is no such command.
    let setup = DoorSetup::new(&cyrus, &[]);
    let (_service, port) = setup.serve(&[]);
    let (greeting, mut stream) = banner(port);
    assert!(!greeting.contains("STARTTLS"), "{greeting}");
    let unknown = "BAD IMAP_PROTOCOL_ERROR Unrecognized command\r\n";
    assert_eq!(ask(&mut stream, "STARTTLS"), unknown);
}

/// A client of rsasl that binds its log-in to the TLS connection.
struct BoundClient;

impl SessionCallback for BoundClient {
    fn callback(
        &self,
        _: &SessionData,
        _: &Context,
        request: &mut Request,
    ) -> Result<(), SessionError> {
        request.satisfy::<AuthId>(ADMIN)?.satisfy::<Password>(PASSWORD.as_bytes())?;
        Ok(())
    }

    fn enable_channel_binding(&self) -> bool {
        true
    }
}

struct Exporter(Vec<u8>);

impl ChannelBindingCallback for Exporter {
    fn get_cb_data(&self, name: &str) -> Option<&[u8]> {
        (name == "tls-exporter").then_some(&self.0)
    }
}

/// The last line of an AUTHENTICATE with SCRAM-SHA-256-PLUS, bound to these octets.
fn log_in_bound(tls: &mut BufReader<TlsStream>, exporter: Vec<u8>) -> String {
    static BOUND: &[Mechanism] = &[SCRAM_SHA256_PLUS];
    let config = SASLConfig::builder()
        .with_registry(Registry::with_mechanisms(BOUND))
        .with_callback(BoundClient)
        .unwrap();
    let name = Mechname::parse(b"SCRAM-SHA-256-PLUS").unwrap();
    let mut client =
        SASLClient::with_cb(config, Exporter(exporter)).start_suggested(&[name]).unwrap();
    let mut answer = Vec::new();
    client.step(None, &mut answer).unwrap();
    let mut line = format!("AUTHENTICATE {name} {}", STANDARD.encode(&answer));
    loop {
        let reply = ask(tls, &line);
        let Some(challenge) = reply.strip_prefix("+ ") else { return reply };
        let challenge = STANDARD.decode(challenge.trim_end()).unwrap();
        answer.clear();
        client.step(Some(&challenge), &mut answer).unwrap();
        line = STANDARD.encode(&answer);
    }
}

#[test]
fn a_log_in_can_be_bound_to_its_connection() {
    let Some(cyrus) = Cyrus::find_or_skip("a_log_in_can_be_bound_to_its_connection") else {
        return;
    };
    let mechs = "sasl_mech_list: SCRAM-SHA-256 SCRAM-SHA-256-PLUS";
    let changes = [&TLS[..], &[mechs, "sasl_minimum_layer: 1"]].concat();
    let setup = DoorSetup::new(&cyrus, &changes);
    let port = crate::workspace::free_port();
    let (_service, plain_port) = setup.serve(&["--tls-listen", &format!("127.0.0.1:{port}")]);
    let (in_the_clear, _) = banner(plain_port);
    assert!(!in_the_clear.contains("PLUS"), "{in_the_clear}");
    let config = trusting(&setup);
    for is_ours in [true, false] {
        let mut tls = connect_tls(port, &config);
        let banner = read_through(&mut tls, "* OK");
        assert!(banner.starts_with("* SASL SCRAM-SHA-256-PLUS SCRAM-SHA-256\r\n"), "{banner}");
        let label = b"EXPORTER-Channel-Binding";
        let mut exporter = tls.get_ref().conn.export_keying_material([0; 32], label, None).unwrap();
        exporter[0] ^= u8::from(!is_ours);
        let wanted = match is_ours {
            true => "OK Success (tls protection)\r\n",
            false => "NO authentication failure\r\n",
        };
        assert_eq!(log_in_bound(&mut tls, exporter.to_vec()), wanted);
    }
    // Cyrus's client binds nothing, and is not kept out.
    assert_replicates(&cyrus, plain_port, &[]);
    let log = setup.log();
    for mech in ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"] {
        assert!(
            log.contains(&format!("login: [127.0.0.1] admin {mech}+TLS User logged in")),
            "{log}"
        );
    }
}
