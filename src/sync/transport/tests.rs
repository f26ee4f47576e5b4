//! Transports against clients of the same libraries, octet by octet and all at once.

use std::io::{Read, Write};
use std::sync::Arc;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

use super::*;

/// A client's side of raw deflate.
struct Zip {
    out: Compress,
    into: Decompress,
}

impl Zip {
    fn new() -> Zip {
        Zip { out: Compress::new(Compression::default(), false), into: Decompress::new(false) }
    }

    fn pack(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut packed = Vec::with_capacity(plain.len() + 1024);
        self.out.compress_vec(plain, &mut packed, FlushCompress::Sync).unwrap();
        packed
    }

    fn unpack(&mut self, packed: &[u8]) -> Vec<u8> {
        let mut plain = Vec::with_capacity(16 << 20);
        self.into.decompress_vec(packed, &mut plain, FlushDecompress::Sync).unwrap();
        plain
    }
}

fn certificates() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

fn output(transport: &mut Transport) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let octets = transport.output().unwrap().to_vec();
        if octets.is_empty() {
            return all;
        }
        // Not all that was offered is taken.
        let len = octets.len().div_ceil(2);
        all.extend_from_slice(&octets[..len]);
        transport.sent(len);
    }
}

/// Everything that comes of `octets`, received in pieces and decoded in steps.
fn input(transport: &mut Transport, octets: &[u8], piece: usize, step: usize) -> Vec<u8> {
    let mut all = Vec::new();
    let mut out = vec![0; step];
    for piece in octets.chunks(piece) {
        transport.receive(piece);
        loop {
            match transport.decode(&mut out).unwrap() {
                0 => break,
                len => all.extend_from_slice(&out[..len]),
            }
        }
    }
    all
}

/// A handshake, octet by octet if so wanted.
fn connect(transport: &mut Transport, client: Arc<ClientConfig>, piece: usize) -> ClientConnection {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(client, name).unwrap();
    for _ in 0..10 {
        let mut hello = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut hello).unwrap();
        }
        assert_eq!(input(transport, &hello, piece, 100), b"");
        feed(&mut client, &output(transport));
        if !client.is_handshaking() && !client.wants_write() {
            break;
        }
    }
    let peer = transport.take_handshake().unwrap();
    assert_eq!((peer.version.as_str(), peer.certificate), ("TLSv1.3", None));
    assert!(transport.take_handshake().is_none());
    client
}

fn feed(client: &mut ClientConnection, mut octets: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while !octets.is_empty() {
        client.read_tls(&mut octets).unwrap();
        client.process_new_packets().unwrap();
        let _ = client.reader().read_to_end(&mut plain);
    }
    plain
}

fn encrypt(client: &mut ClientConnection, plain: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for piece in plain.chunks(16 * 1024) {
        client.writer().write_all(piece).unwrap();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
    }
    wire
}

/// Text that compresses, but not to nothing.
fn text(len: usize) -> Vec<u8> {
    (0_u64..).flat_map(|n| format!("{} ", n * n % 99_991).into_bytes()).take(len).collect()
}

#[test]
fn without_filters_nothing_changes() {
    let mut transport = Transport::default();
    assert!(transport.is_plain());
    transport.send(b"OK ");
    transport.send(b"Success\r\n");
    assert_eq!(transport.octets_to_send(), 12);
    assert_eq!(output(&mut transport), b"OK Success\r\n");
    assert_eq!(transport.octets_to_send(), 0);
    assert_eq!(input(&mut transport, b"NOOP\r\n", 2, 1), b"NOOP\r\n");
}

#[test]
fn deflate_begins_behind_what_was_sent() {
    for piece in [1, 7, 100_000] {
        let mut zip = Zip::new();
        let mut transport = Transport::default();
        let early = zip.pack(b"NOOP\r\n");
        transport.send(b"OK DEFLATE active\r\n");
        transport.start_deflate(&early).unwrap();
        assert!(!transport.is_plain());
        assert_eq!(output(&mut transport), b"OK DEFLATE active\r\n");
        let mut out = [0; 100];
        let len = transport.decode(&mut out).unwrap();
        assert_eq!(&out[..len], b"NOOP\r\n");
        let long = text(300_000);
        let packed = zip.pack(&long);
        assert!(input(&mut transport, &packed, piece, 1000) == long);
    }
}

#[test]
fn replies_of_any_length_come_out_flushed() {
    let mut zip = Zip::new();
    let mut transport = Transport::default();
    transport.start_deflate(b"").unwrap();
    for len in [1, 13, 511, 512, 513, 20_000, 65_535, 65_536, 65_537, 1_000_000, 5] {
        let reply = text(len);
        transport.send(&reply);
        let packed = output(&mut transport);
        assert!(packed.ends_with(&[0x00, 0x00, 0xff, 0xff]), "{len}");
        assert!(zip.unpack(&packed) == reply, "{len}");
        assert!(transport.deflater.as_ref().unwrap().is_idle(), "{len}");
    }
    // So regular that nothing comes out until the end.
    let reply = vec![b'x'; 1_000_000];
    transport.send(&reply);
    assert!(zip.unpack(&output(&mut transport)) == reply);
}

#[test]
fn what_compresses_well_does_not_stay_behind() {
    let mut zip = Zip::new();
    let mut transport = Transport::default();
    transport.start_deflate(b"").unwrap();
    for len in [65_537, 300_000, 3_000_000] {
        let reply = b"GUID 4eea1e78e5032625a64f9ba26611156942a8f86a ".repeat(len / 46);
        transport.send(&reply);
        assert!(zip.unpack(&output(&mut transport)) == reply, "{len}");
        assert_eq!(transport.octets_to_send(), 0);
    }
}

#[test]
fn a_bomb_goes_off_in_small_steps() {
    let mut zip = Zip::new();
    let mut transport = Transport::default();
    transport.start_deflate(b"").unwrap();
    let packed = zip.pack(&vec![b'x'; 8 << 20]);
    assert!(packed.len() < 16 * 1024);
    transport.receive(&packed);
    let mut out = [0; 4096];
    let mut total = 0;
    loop {
        let len = transport.decode(&mut out).unwrap();
        if len == 0 {
            break;
        }
        total += len;
        // Nothing is inflated ahead of what is asked for.
        assert!(transport.raw.octets.len() + transport.packed.octets.len() <= packed.len());
    }
    assert_eq!(total, 8 << 20);
}

#[test]
fn what_is_not_deflate_is_an_error() {
    let mut out = [0; 100];
    for octets in [&b"\xff\xff\xff"[..], b"NOOP\r\nGET USER tom\r\n", &[0x03, 0x00, 0x00]] {
        let mut transport = Transport::default();
        transport.start_deflate(octets).unwrap();
        let result = (0..10).try_fold(0, |_, _| transport.decode(&mut out));
        assert!(matches!(result, Err(TransportError::Inflate)), "{octets:?}: {result:?}");
    }
}

#[test]
fn tls_carries_both_directions() {
    let (server, client) = certificates();
    for piece in [1, 100, 100_000] {
        let mut transport = Transport::default();
        transport.send(b"OK Begin TLS negotiation now\r\n");
        transport.start_tls(Arc::clone(&server)).unwrap();
        assert_eq!(output(&mut transport), b"OK Begin TLS negotiation now\r\n");
        let mut client = connect(&mut transport, Arc::clone(&client), piece);
        let long = text(200_000);
        transport.send(&long);
        assert!(feed(&mut client, &output(&mut transport)) == long);
        let wire = encrypt(&mut client, &long);
        assert!(input(&mut transport, &wire, piece, 1000) == long);
        assert!(!transport.at_end());
        client.send_close_notify();
        let mut bye = Vec::new();
        client.write_tls(&mut bye).unwrap();
        assert_eq!(input(&mut transport, &bye, piece, 100), b"");
        assert!(transport.at_end());
    }
}

#[test]
fn deflate_is_under_tls() {
    let (server, client) = certificates();
    for piece in [1, 100_000] {
        let mut zip = Zip::new();
        let mut transport = Transport::default();
        transport.start_tls(Arc::clone(&server)).unwrap();
        let mut client = connect(&mut transport, Arc::clone(&client), piece);
        transport.send(b"OK DEFLATE active\r\n");
        transport.start_deflate(b"").unwrap();
        assert_eq!(feed(&mut client, &output(&mut transport)), b"OK DEFLATE active\r\n");
        let long = text(100_000);
        let wire = encrypt(&mut client, &zip.pack(&long));
        assert!(input(&mut transport, &wire, piece, 999) == long);
        transport.send(&long);
        assert!(zip.unpack(&feed(&mut client, &output(&mut transport))) == long);
    }
}

#[test]
fn what_is_not_tls_gets_an_alert() {
    let (server, _) = certificates();
    let mut transport = Transport::default();
    transport.start_tls(server).unwrap();
    transport.receive(b"AUTHENTICATE PLAIN AHRvbQBzZWNyZXQ=\r\n");
    let mut out = [0; 100];
    assert!(matches!(transport.decode(&mut out), Err(TransportError::Tls(_))));
    // Record type 21.
    assert_eq!(output(&mut transport).first(), Some(&21));
}
