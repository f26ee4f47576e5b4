//! Our replication client against the real `sync_server`, the real `imapd`, and `cyrbk serve`.

use std::io::Read;

use cyrbk::sync::client::{
    Client, ClientError, Compress, Destination, MessageName, Options, Password, Protocol,
    RefusalCode, TlsMode,
};
use cyrbk::wire::Guid;
use cyrbk::wire::apply::Record;
use cyrbk::wire::dlist::parse_value;
use sha1::{Digest, Sha1};

use crate::cyrus::Cyrus;
use crate::door_server::DoorSetup;
use crate::mail;
use crate::replica::{Replica, TLS, options};

/// Every mechanism that we know.
const ALL: &str = "sasl_mech_list: PLAIN SCRAM-SHA-1 SCRAM-SHA-256";

pub(crate) fn connect(options: &Options) -> Client {
    Client::connect(options).unwrap_or_else(|error| panic!("{error}"))
}

fn with_mechanism(mut options: Options, mechanism: &str) -> Options {
    options.login.as_mut().unwrap().mechanisms = Some(vec![mechanism.to_owned()]);
    options
}

pub(crate) fn guid_of(octets: &[u8]) -> Guid {
    Guid::from(<[u8; 20]>::from(Sha1::digest(octets)))
}

/// The line that makes a mailbox with one message of UID 1.
pub(crate) fn mailbox_line(name: &str, id: &str, guid: &Guid, size: usize) -> Vec<u8> {
    let record = format!(
        "%(UID 1 MODSEQ 4 LAST_UPDATED 1600000001 FLAGS (\\Flagged \\Seen) INTERNALDATE \
         1600000000 SIZE {size} GUID {guid})"
    );
    let list = format!("({record})");
    let mut records = Record::all_of(parse_value(list.as_bytes()).unwrap().as_list());
    let crc = records.next().unwrap().unwrap().crc();
    format!(
        "MAILBOX %(UNIQUEID {id} MBOXNAME {name} SYNC_CRC {crc} SYNC_CRC_ANNOT 0 LAST_UID 1 \
         HIGHESTMODSEQ 4 RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 1600000000 POP3_LAST_LOGIN 0 \
         POP3_SHOW_AFTER 0 UIDVALIDITY 1600000000 PARTITION default ACL \
         \"tom\tlrswipkxtecdan\t\" OPTIONS P CREATEDMODSEQ 1 FOLDERMODSEQ 1 RECORD ({record}))"
    )
    .into_bytes()
}

#[test]
fn each_mechanism_lets_the_client_in() {
    let Some(cyrus) = Cyrus::find_or_skip("each_mechanism_lets_the_client_in") else { return };
    let replica = Replica::start(&cyrus, &["tom"], &[ALL]);
    for at in [replica.csync(), replica.over_imap()] {
        let mut client = connect(&at);
        assert_eq!(client.peer().mechanism.as_deref(), Some("SCRAM-SHA-256"));
        assert_eq!(client.get_user(b"tom").unwrap(), Default::default());
        client.exit().unwrap();
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"] {
            let client = connect(&with_mechanism(at.clone(), mechanism));
            assert_eq!(client.peer().mechanism.as_deref(), Some(mechanism));
            client.exit().unwrap();
        }
        let offered = Client::connect(&with_mechanism(at.clone(), "EXTERNAL")).unwrap_err();
        assert!(matches!(offered, ClientError::NoMechanism(_)), "{offered}");
        let wrong_password = |mut options: Options| {
            options.login.as_mut().unwrap().password = Password::new("wrong".into());
            options
        };
        // The server had a key to check the proof with, so nothing else is tried.
        let error = Client::connect(&wrong_password(at.clone())).unwrap_err();
        assert!(error.to_string().starts_with("log-in refused (SCRAM-SHA-256)"), "{error}");
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"] {
            let wrong = wrong_password(with_mechanism(at.clone(), mechanism));
            let error = Client::connect(&wrong).unwrap_err();
            assert!(matches!(error, ClientError::LoginRefused { .. }), "{mechanism}: {error}");
            let text = format!("log-in refused ({mechanism}): authentication failure");
            assert_eq!(error.to_string(), text);
        }
    }
}

#[test]
fn starttls_checks_who_is_there() {
    let Some(cyrus) = Cyrus::find_or_skip("starttls_checks_who_is_there") else { return };
    let replica = Replica::start(&cyrus, &["tom"], &[&TLS[..], &["allowplaintext: no"]].concat());
    let stranger = DoorSetup::new(&cyrus, &[]);
    for at in [replica.csync(), replica.over_imap()] {
        for tls in [TlsMode::IfOffered, TlsMode::Required] {
            let mut known = Options { tls, certificates: replica.root(), ..at.clone() };
            let mut client = connect(&known);
            assert_eq!(client.peer().tls.as_deref(), Some("TLSv1.3"));
            assert!(client.peer().is_verified);
            client.noop().unwrap();
            client.exit().unwrap();
            // Another name than the certificate's, another root than its own.
            known.destination = format_destination("127.0.0.1", &at);
            let error = Client::connect(&known).unwrap_err();
            assert!(error.to_string().contains("not valid for name"), "{error}");
            known.destination = at.destination.clone();
            known.certificates = crate::replica::root(&stranger.workspace.path().join("cert.pem"));
            let error = Client::connect(&known).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, ClientError::Tls(_)), "{text}");
            assert!(text.contains("UnknownIssuer") || text.contains("BadSignature"), "{text}");
        }
        // Without roots anybody is believed.
        let client = connect(&at);
        assert!(client.peer().tls.is_some() && !client.peer().is_verified);
        let never = Options { tls: TlsMode::Never, ..at.clone() };
        let error = Client::connect(&never).unwrap_err();
        assert!(matches!(error, ClientError::NoMechanism(_)), "{error}");
    }
}

fn format_destination(host: &str, options: &Options) -> Destination {
    let text = options.destination.to_string();
    let port = text.rsplit(':').next().unwrap();
    Destination::parse(&format!("{host}:{port}")).unwrap()
}

#[test]
fn compression_is_had_where_it_can_be() {
    let Some(cyrus) = Cyrus::find_or_skip("compression_is_had_where_it_can_be") else { return };
    let replica = Replica::start(&cyrus, &["tom"], &TLS);
    for at in [replica.csync(), replica.over_imap()] {
        for tls in [TlsMode::Never, TlsMode::Required] {
            for compress in [Compress::Never, Compress::IfOffered, Compress::Required] {
                let wanted = Options { tls, compress, ..at.clone() };
                let mut client = connect(&wanted);
                // `sync_server` does not announce it behind STARTTLS; it has it all the same.
                let is_announced = client.peer().is_imap || tls == TlsMode::Never;
                let expected = match compress {
                    Compress::Never => false,
                    Compress::IfOffered => is_announced,
                    Compress::Required => true,
                };
                assert_eq!(client.peer().is_compressed, expected, "{tls:?} {compress:?}");
                client.noop().unwrap();
                client.get_user(b"tom").unwrap();
                client.exit().unwrap();
            }
        }
    }
}

#[test]
fn who_comes_by_a_unix_socket_is_let_in() {
    let Some(cyrus) = Cyrus::find_or_skip("who_comes_by_a_unix_socket_is_let_in") else { return };
    let replica = Replica::start(&cyrus, &["tom"], &TLS);
    let mut client = connect(&replica.local());
    assert_eq!((client.peer().mechanism.as_deref(), client.peer().is_imap), (None, false));
    assert_eq!(client.get_user(b"tom").unwrap(), Default::default());
    client.exit().unwrap();
}

#[test]
fn a_mailbox_with_a_message_is_made() {
    let Some(cyrus) = Cyrus::find_or_skip("a_mailbox_with_a_message_is_made") else { return };
    for over_imap in [false, true] {
        for compress in [Compress::Never, Compress::Required] {
            let replica = Replica::start(&cyrus, &["tom"], &[]);
            let at = if over_imap { replica.over_imap() } else { replica.csync() };
            make_mailbox(&replica, &Options { compress, ..at });
        }
    }
}

fn make_mailbox(replica: &Replica, at: &Options) {
    let message = mail::note(1).bytes;
    let guid = guid_of(&message);
    let mut client = connect(at);
    assert_eq!(client.reserve(b"default", &[b"user.tom"], &[guid]).unwrap(), [guid]);
    let mut messages = client.messages(b"default");
    messages.add(&guid, message.len() as u64, &mut &message[..]).unwrap();
    messages.finish().unwrap();
    client
        .apply(&mailbox_line("user.tom", "abcdefghijklmnopqrstuvwx", &guid, message.len()))
        .unwrap();
    assert_eq!(client.reserve(b"default", &[b"user.tom"], &[guid]).unwrap(), []);
    client.apply(b"SUB %(USERID tom MBOXNAME user.tom.Work)").unwrap();
    client.apply(b"QUOTA %(ROOT user.tom LIMIT 1000 STORAGE 1000 MODSEQ 3)").unwrap();
    let script = b"keep;\r\n";
    let start = b"SIEVE %(USERID tom FILENAME main.script LAST_UPDATE 1600000000 CONTENT {7+}\r\n";
    client.apply(&[&start[..], script, b")"].concat()).unwrap();
    client.apply(b"ACTIVATE_SIEVE %(USERID tom FILENAME main.bc)").unwrap();
    client
        .apply(b"ANNOTATION %(MBOXNAME user.tom ENTRY /comment USERID \"\" VALUE hello)")
        .unwrap();

    let user = client.get_user(b"tom").unwrap();
    assert_eq!(user.mailboxes.len(), 1);
    assert_eq!(user.mailboxes[0].uniqueid, b"abcdefghijklmnopqrstuvwx");
    assert_eq!(user.subscriptions, [b"user.tom.Work"]);
    assert_eq!(user.quotas[0].root, b"user.tom");
    assert_eq!(user.scripts.len(), 2);
    assert!(user.scripts.iter().any(|script| script.is_active));
    assert_eq!(client.get_mailboxes(&[b"user.tom", b"user.nobody"]).unwrap().len(), 1);
    let by_id = client.get_uniqueids(&[b"abcdefghijklmnopqrstuvwx", b"none"]).unwrap();
    assert_eq!(by_id[0].mboxname, b"user.tom");
    let full = client.get_fullmailbox(b"user.tom").unwrap().unwrap();
    let records: Vec<Record> = full.records().map(Result::unwrap).collect();
    assert_eq!((records.len(), records[0].uid, records[0].guid), (1, 1, guid));
    assert!(client.get_fullmailbox(b"user.nobody").unwrap().is_none());
    assert_eq!(client.get_quota(b"user.tom").unwrap().unwrap().limits[0].1, 1000);
    assert!(client.get_quota(b"user.nobody").unwrap().is_none());
    let annotations = client.get_annotations(b"user.tom").unwrap();
    assert_eq!(annotations[0].value, b"hello", "{annotations:?}");
    assert_eq!(client.get_sieve(b"tom", b"main.script").unwrap().as_deref(), Some(&script[..]));
    assert_eq!(client.get_sieve(b"tom", b"other.script").unwrap(), None);
    let mut name = MessageName {
        mboxname: b"user.tom",
        partition: b"default",
        uniqueid: b"abcdefghijklmnopqrstuvwx",
        guid,
        uid: 1,
    };
    let mut octets = Vec::new();
    let size = client.get_message(&name, &mut octets).unwrap();
    assert_eq!((size, &octets), (Some(message.len() as u64), &message));
    name.uid = 2;
    name.guid = guid_of(b"other");
    assert_eq!(client.get_message(&name, &mut octets).unwrap(), None);
    let rename = b"RENAME %(OLDMBOXNAME user.nobody NEWMBOXNAME user.x PARTITION default)";
    let error = client.apply(rename).unwrap_err();
    assert_eq!(error.refusal(), Some(RefusalCode::MailboxNonexistent), "{error}");
    let moved = mailbox_line("user.tom", "zzzzzzzzzzzzzzzzzzzzzzzz", &guid, message.len());
    let error = client.apply(&moved).unwrap_err();
    assert_eq!(error.refusal(), Some(RefusalCode::MailboxMoved), "{error}");
    client.restart().unwrap();
    client.noop().unwrap();
    client.exit().unwrap();

    let mut imap = replica.imap("tom");
    let fetched = imap.fetch_all("INBOX");
    assert_eq!((fetched.len(), fetched[0].uid, &fetched[0].body), (1, 1, &message));
}

/// Octets of a long message, made while they are read.
struct Long {
    at: usize,
    len: usize,
}

impl Long {
    const LINE: &[u8] = b"a long message has many lines, all of them rather like this one\r\n";
    const HEAD: &[u8] = b"From: writer@example.test\r\nSubject: long\r\n\r\n";

    fn new() -> Long {
        Long { at: 0, len: Self::HEAD.len() + Self::LINE.len() * 500_000 }
    }

    fn guid(&self) -> Guid {
        let mut hash = Sha1::new();
        std::io::copy(&mut Long { ..*self }, &mut Hashing(&mut hash)).unwrap();
        Guid::from(<[u8; 20]>::from(hash.finalize()))
    }
}

struct Hashing<'a>(&'a mut Sha1);

impl std::io::Write for Hashing<'_> {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.update(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Read for Long {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let mut len = 0;
        while len < out.len() && self.at < self.len {
            let piece = match self.at.checked_sub(Self::HEAD.len()) {
                Some(at) => &Self::LINE[at % Self::LINE.len()..],
                None => &Self::HEAD[self.at..],
            };
            let step = piece.len().min(out.len() - len);
            out[len..len + step].copy_from_slice(&piece[..step]);
            len += step;
            self.at += step;
        }
        Ok(len)
    }
}

#[test]
fn a_long_message_is_streamed() {
    let Some(cyrus) = Cyrus::find_or_skip("a_long_message_is_streamed") else { return };
    let replica = Replica::start(&cyrus, &["tom"], &TLS);
    let (guid, size) = (Long::new().guid(), Long::new().len);
    assert!(size > 30 << 20);
    for (at, tls, compress, user) in [
        (replica.csync(), TlsMode::Never, Compress::Never, "tom"),
        (replica.csync(), TlsMode::Never, Compress::Required, "ann"),
        (replica.over_imap(), TlsMode::Required, Compress::Never, "tim"),
    ] {
        let mut client = connect(&Options { tls, compress, ..at });
        let mut messages = client.messages(b"default");
        messages.add(&guid, size as u64, &mut Long::new()).unwrap();
        messages.finish().unwrap();
        let id = format!("long{user:a<20}");
        client.apply(&mailbox_line(&format!("user.{user}"), &id, &guid, size)).unwrap();
        let name = format!("user.{user}");
        let name = MessageName {
            mboxname: name.as_bytes(),
            partition: b"default",
            uniqueid: id.as_bytes(),
            guid,
            uid: 1,
        };
        let found = client.get_message(&name, &mut std::io::sink()).unwrap();
        assert_eq!(found, Some(size as u64));
        client.exit().unwrap();
    }
    let fetched = replica.imap("tom").fetch_all("INBOX");
    assert_eq!((fetched.len(), guid_of(&fetched[0].body)), (1, guid));
}

#[test]
fn our_own_server_is_a_server_too() {
    let Some(cyrus) = Cyrus::find_or_skip("our_own_server_is_a_server_too") else { return };
    let setup = DoorSetup::new(&cyrus, &[&crate::door_server::TLS[..], &[ALL]].concat());
    let (_service, port) = setup.serve(&[]);
    let message = mail::note(1).bytes;
    let guid = guid_of(&message);
    for (mechanism, tls, compress) in [
        ("SCRAM-SHA-256", TlsMode::Never, Compress::Never),
        ("SCRAM-SHA-1", TlsMode::Required, Compress::Required),
        ("PLAIN", TlsMode::Required, Compress::Never),
    ] {
        let mut at = with_mechanism(options(port, Protocol::Auto), mechanism);
        (at.tls, at.compress) = (tls, compress);
        at.certificates = crate::replica::root(&setup.workspace.path().join("cert.pem"));
        let mut client = connect(&at);
        assert_eq!(client.peer().mechanism.as_deref(), Some(mechanism));
        assert_eq!(client.peer().is_compressed, compress == Compress::Required);
        let known = client.get_user(b"tom").unwrap();
        if known.mailboxes.is_empty() {
            assert_eq!(client.reserve(b"default", &[b"user.tom"], &[guid]).unwrap(), [guid]);
            let mut messages = client.messages(b"default");
            messages.add(&guid, message.len() as u64, &mut &message[..]).unwrap();
            messages.finish().unwrap();
            let line = mailbox_line("user.tom", "abcdefghijklmnopqrstuvwx", &guid, message.len());
            client.apply(&line).unwrap();
        }
        let full = client.get_fullmailbox(b"user.tom").unwrap().unwrap();
        assert_eq!(full.records().count(), 1);
        let error = client.restore(b"MAILBOX %(MBOXNAME user.tom RECORD ())").unwrap_err();
        assert_eq!(error.refusal(), Some(RefusalCode::Bad), "{error}");
        client.restart().unwrap();
        client.exit().unwrap();
    }
}
