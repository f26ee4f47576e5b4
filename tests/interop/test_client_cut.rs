//! Connections that end in the middle: what our client says, and what the real servers have then.

use cyrbk::sync::client::{Client, ClientError, Compress, Options, Outcome, Protocol};
use cyrbk::wire::Guid;

use crate::cutter::Cutter;
use crate::cyrus::Cyrus;
use crate::mail;
use crate::replica::{Replica, options};
use crate::test_client::{connect, guid_of, mailbox_line};

const ID: &str = "abcdefghijklmnopqrstuvwx";

/// A replica, a proxy in front of one of its doors, and how a client goes through it.
struct Scene {
    replica: Replica,
    cutter: Cutter,
    at: Options,
}

impl Scene {
    fn start(cyrus: &Cyrus, over_imap: bool) -> Self {
        let replica = Replica::start(cyrus, &["tom"], &[]);
        let port = if over_imap { replica.imap_port } else { replica.csync_port };
        let cutter = Cutter::start(port);
        // So that octets on the wire are octets of the command.
        let at = Options { compress: Compress::Never, ..options(cutter.port, Protocol::Auto) };
        Self { replica, cutter, at }
    }

    /// A new connection, once the server has noticed that the last one is gone.
    fn again(&self) -> Client {
        self.cutter.mend();
        connect(&self.at)
    }
}

fn lost(error: ClientError) -> (Outcome, Option<String>, String) {
    assert!(error.is_worth_a_retry() && !error.is_connection_usable());
    match error {
        ClientError::Lost { outcome, acknowledged, during, .. } => {
            (outcome, acknowledged.last, during)
        }
        other => panic!("{other}"),
    }
}

fn upload(client: &mut Client, message: &[u8]) -> Result<Guid, ClientError> {
    let guid = guid_of(message);
    let mut messages = client.messages(b"default");
    messages.add(&guid, message.len() as u64, &mut &*message)?;
    messages.finish()?;
    Ok(guid)
}

#[test]
fn a_cut_upload_leaves_nothing() {
    let Some(cyrus) = Cyrus::find_or_skip("a_cut_upload_leaves_nothing") else { return };
    for over_imap in [false, true] {
        let scene = Scene::start(&cyrus, over_imap);
        let (first, second) = (mail::note(1).bytes, mail::note(2).bytes);
        let mut client = connect(&scene.at);
        upload(&mut client, &first).unwrap();
        scene.cutter.cut_after(second.len() as u64);
        let (_, last, during) = lost(upload(&mut client, &second).unwrap_err());
        assert_eq!(last.as_deref(), Some("APPLY MESSAGE (default)"));
        assert_eq!(during, "APPLY MESSAGE (default)");
        // Not even the message that was acknowledged: it waited for a mailbox.
        let mut client = scene.again();
        let guids = [guid_of(&first), guid_of(&second)];
        assert_eq!(client.get_user(b"tom").unwrap().mailboxes, []);
        assert_eq!(client.reserve(b"default", &[b"user.tom"], &guids).unwrap(), guids);
        // What was half there is no hindrance.
        upload(&mut client, &second).unwrap();
        client.apply(&mailbox_line("user.tom", ID, &guids[1], second.len())).unwrap();
        client.exit().unwrap();
        assert_eq!(scene.replica.imap("tom").fetch_all("INBOX")[0].body, second);
    }
}

#[test]
fn half_a_line_does_nothing() {
    let Some(cyrus) = Cyrus::find_or_skip("half_a_line_does_nothing") else { return };
    for over_imap in [false, true] {
        for verb in ["APPLY", "RESTORE"] {
            let scene = Scene::start(&cyrus, over_imap);
            let message = mail::note(1).bytes;
            let mut client = connect(&scene.at);
            let guid = upload(&mut client, &message).unwrap();
            let line = mailbox_line("user.tom", ID, &guid, message.len());
            // All but the last bracket and the line end.
            let prefix = if over_imap { "S1 SYNC APPLY ".len() } else { "APPLY ".len() };
            let prefix = prefix + verb.len() - "APPLY".len();
            scene.cutter.cut_after((prefix + line.len() - 2) as u64);
            let sent = if verb == "APPLY" { client.apply(&line) } else { client.restore(&line) };
            let (outcome, last, during) = lost(sent.unwrap_err());
            // It cannot be known on this side how far it came.
            assert_eq!(outcome, Outcome::Unknown);
            assert_eq!(last.as_deref(), Some("APPLY MESSAGE (default)"));
            assert_eq!(during, format!("{verb} MAILBOX user.tom"));
            let mut client = scene.again();
            assert_eq!(client.get_user(b"tom").unwrap().mailboxes, [], "{verb}");
            assert_eq!(client.reserve(b"default", &[b"user.tom"], &[guid]).unwrap(), [guid]);
            client.exit().unwrap();
        }
    }
}

#[test]
fn a_whole_line_is_done_though_nobody_hears_of_it() {
    let Some(cyrus) = Cyrus::find_or_skip("a_whole_line_is_done_though_nobody_hears_of_it") else {
        return;
    };
    for over_imap in [false, true] {
        let scene = Scene::start(&cyrus, over_imap);
        let message = mail::note(1).bytes;
        let mut client = connect(&scene.at);
        let guid = upload(&mut client, &message).unwrap();
        let line = mailbox_line("user.tom", ID, &guid, message.len());
        scene.cutter.cut_at_answer();
        let (outcome, _, _) = lost(client.apply(&line).unwrap_err());
        assert_eq!(outcome, Outcome::Unknown);
        let mut client = scene.again();
        assert_eq!(client.get_user(b"tom").unwrap().mailboxes.len(), 1);
        // The same again changes nothing.
        client.apply(&line).unwrap();
        let full = client.get_fullmailbox(b"user.tom").unwrap().unwrap();
        assert_eq!(full.records().count(), 1);
        // RESTORE takes a message only from the staging area, even one that is there already;
        // RESERVE puts it there. Then it appends: whoever goes on after a cut has to look first.
        assert!(client.restore(&line).is_err());
        assert_eq!(client.reserve(b"default", &[b"user.tom"], &[guid]).unwrap(), []);
        client.restore(&line).unwrap();
        let full = client.get_fullmailbox(b"user.tom").unwrap().unwrap();
        let guids: Vec<Guid> = full.records().map(|record| record.unwrap().guid).collect();
        assert_eq!(guids, [guid, guid]);
        client.exit().unwrap();
    }
}

#[test]
fn a_server_that_dies_is_quoted() {
    let Some(cyrus) = Cyrus::find_or_skip("a_server_that_dies_is_quoted") else { return };
    for over_imap in [false, true] {
        let scene = Scene::start(&cyrus, over_imap);
        let message = mail::note(1).bytes;
        let guid = guid_of(&message);
        let mut client = connect(&scene.at);
        // A partition that is not there fails an assertion in 3.6.
        let mut messages = client.messages(b"nowhere");
        messages.add(&guid, message.len() as u64, &mut &message[..]).unwrap();
        let error = messages.finish().unwrap_err();
        assert!(!error.is_worth_a_retry() && !error.is_connection_usable());
        let text = error.to_string();
        assert!(matches!(error, ClientError::Ended { .. }), "{text}");
        assert!(text.contains("assertion failed"), "{text}");
        // Another process takes over.
        let mut client = scene.again();
        client.noop().unwrap();
        client.exit().unwrap();
    }
}
