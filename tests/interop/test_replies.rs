//! Hand-driven input, good and bad: the server under test answers like the real `backupd`, octet
//! for octet, stays in step, and stores the same.

use crate::backup_server::Maker;
use crate::cyrus::Cyrus;
use crate::mail::guid;
use crate::pair::Pair;
use crate::raw_csync::RawCsync;
use crate::requests::{self, BODY, Peer, TOM};
use crate::site::{ADMIN, PASSWORD};

#[test]
fn replies_equal_those_of_the_real_server() {
    let Some(cyrus) = Cyrus::find_or_skip("replies_equal_those_of_the_real_server") else {
        return;
    };
    let mut pair = Pair::start(&cyrus, &[TOM]);
    let mut differences = String::new();
    let compression = RawCsync::connect(pair.tested.port).offers_compression();
    let mut real = Dialogue::new(pair.real.port);
    let mut tested = Dialogue::new(pair.tested.port);
    for (peer, request) in requests::all() {
        if request.starts_with("COMPRESS") && !compression {
            continue;
        }
        let wanted = real.transcript(peer, &request);
        let got = tested.transcript(peer, &request);
        if wanted != got {
            let request = request.escape_debug();
            differences +=
                &format!("{peer:?}: {request}\n  real:   {wanted:?}\n  tested: {got:?}\n");
        }
    }
    drop((real, tested));
    assert!(differences.is_empty(), "replies differ\n{differences}");
    pair.assert_same_rows();
    pair.tested.assert_alive();
}

/// Where the real server's answer harms a client, another one is wanted.
#[test]
fn replies_are_better_where_the_real_ones_harm() {
    let Some(cyrus) = Cyrus::find_or_skip("replies_are_better_where_the_real_ones_harm") else {
        return;
    };
    if Maker::under_test() == Maker::Cyrus {
        return;
    }
    let mut pair = Pair::start(&cyrus, &[TOM]);
    let message = guid(BODY.as_bytes());
    let mut csync = RawCsync::login(pair.tested.port, ADMIN, PASSWORD);
    for (request, wanted) in [
        ("GET ANNOTATION \"\"\r\n", "OK Success\r\n"),
        ("GET MAILBOXES (user.tom user.bob)\r\n", "OK Success\r\n"),
        ("GET MAILBOXES (user.bob shared.x)\r\n", "OK Success\r\n"),
        ("APPLY FORCE %()\r\n", "OK Success\r\n"),
        ("APPLY UNQUOTA user.tom\r\n", "OK Success\r\n"),
        ("APPLY ANNOTATION %(MBOXNAME \"\" ENTRY /x USERID \"\" VALUE y)\r\n", "OK Success\r\n"),
        ("APPLY UNANNOTATION %(MBOXNAME \"\" ENTRY /x USERID \"\")\r\n", "OK Success\r\n"),
        ("APPLY LOCAL_UNUSER tom\r\n", "OK Success\r\n"),
        (
            "APPLY MAILBOX %(UNIQUEID u9 MBOXNAME user.tom.X MBOXTYPE ei HIGHESTMODSEQ 5 \
             CREATEDMODSEQ 5 FOLDERMODSEQ 5)\r\n",
            "OK Success\r\n",
        ),
        ("GET USER tom\r\n", "OK Success\r\n"),
    ] {
        assert_eq!(csync.ask(request.as_bytes()), wanted, "{request}");
        assert_eq!(csync.ask(b"NOOP\r\n"), "OK Noop completed\r\n", "{request}");
    }
    assert_eq!(csync.ask(b"EXIT\r\n"), "OK Finished\r\n");
    for request in ["C01 CAPABILITY\r\n", "C01 capability\r\n"] {
        let reply = RawCsync::connect(pair.tested.port).ask(request.as_bytes());
        assert!(reply.starts_with("C01 BAD "), "{request}: {reply}");
    }
    // Refused in whatever words, by a server that lives on and stores nothing.
    let files = pair.tested.store_files();
    for request in [
        "APPLY MAILBOX {99999999999999999999+}\r\nabc\r\n".to_owned(),
        format!("APPLY MESSAGE (%{{default {message} 99999999999}}\r\n{BODY})\r\n"),
        format!("APPLY MESSAGE (%{{default xyz 19}}\r\n{BODY})\r\n"),
        // The real one stores it; in the log that name would be a literal inside the header.
        format!("APPLY MESSAGE (%{{\"a\\\"b\" {message} 19}}\r\n{BODY})\r\n"),
        format!("APPLY MESSAGE (%{{default {message} 19}}{BODY})\r\n"),
        format!("APPLY SUB %(USERID tom MBOXNAME {})\r\n", "(".repeat(100_000)),
        "x".repeat(64 << 20) + "\r\n",
    ] {
        let mut csync = RawCsync::login(pair.tested.port, ADMIN, PASSWORD);
        let reply = csync.ask(request.as_bytes());
        assert!(!reply.starts_with("OK"), "{:.80}: {reply}", request);
        pair.tested.assert_alive();
    }
    assert_eq!(pair.tested.store_files(), files, "the store was touched");
}

/// Connections to one server, used again as long as they live: a log-in is meant to be slow.
struct Dialogue {
    port: u16,
    user: Option<RawCsync>,
    admin: Option<RawCsync>,
}

impl Dialogue {
    fn new(port: u16) -> Self {
        Self { port, user: None, admin: None }
    }

    /// All that the server says to `request`, to a NOOP and to an empty line after it.
    fn transcript(&mut self, peer: Peer, request: &str) -> String {
        let port = self.port;
        let mut stranger = None;
        let slot = match peer {
            Peer::Stranger => &mut stranger,
            Peer::User => &mut self.user,
            Peer::Admin => &mut self.admin,
        };
        let csync = slot.get_or_insert_with(|| match peer {
            Peer::Stranger => RawCsync::connect(port),
            Peer::User => RawCsync::login(port, TOM, PASSWORD),
            Peer::Admin => RawCsync::login(port, ADMIN, PASSWORD),
        });
        let (replies, is_open) = transcript_on(csync, request);
        if !is_open {
            *slot = None;
        }
        replies
    }
}

fn transcript_on(csync: &mut RawCsync, request: &str) -> (String, bool) {
    let mut replies = csync.ask(request.as_bytes());
    // Not together with the request: backupd forgets what came behind an AUTHENTICATE.
    replies += &csync.ask(b"NOOP\r\n\r\n");
    // In step again: the answers to NOOP and to the empty line in a row.
    let in_step = ["OK Noop completed\r\n", "NO Permission denied\r\n"]
        .map(|answer| format!("{answer}BAD Null command\r\n"));
    while !in_step.iter().any(|end| replies.ends_with(end)) {
        let more = csync.ask(b"");
        if more.is_empty() {
            return (replies + "(closed)", false);
        }
        replies += &more;
    }
    // So that the next request finds no lock and no reservation of this one.
    csync.ask(b"RESTART\r\n");
    (replies, true)
}
