//! Restores that are cut off, that are large, or whose backup is damaged.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cyrus::Cyrus;
use crate::mail::{guid, note};
use crate::raw_csync::RawCsync;
use crate::restore_scene::Scene;
use crate::site::{ADMIN, PASSWORD};

/// Passes connections on to a port, until so many octets have gone there in all; what follows
/// is lost, and so is every later connection while `lets_more` is 0.
struct Cutter {
    port: u16,
    lets_more: Arc<AtomicU64>,
}

impl Cutter {
    fn start(to: u16, octets: u64, lets_more: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let left = Arc::new(AtomicU64::new(octets));
        let lets_more = Arc::new(AtomicU64::new(lets_more));
        let more = Arc::clone(&lets_more);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                if left.load(Ordering::SeqCst) == 0 {
                    if more.load(Ordering::SeqCst) == 0 {
                        continue;
                    }
                    left.store(more.load(Ordering::SeqCst), Ordering::SeqCst);
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { return };
                let (from, into) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || pass(from, into, &AtomicU64::new(u64::MAX)));
                let left = Arc::clone(&left);
                std::thread::spawn(move || pass(client, server, &left));
            }
        });
        Self { port, lets_more }
    }
}

/// Copies until `left` is used up.
fn pass(mut from: TcpStream, mut into: TcpStream, left: &AtomicU64) {
    let mut buffer = [0; 8192];
    while let Ok(len) = from.read(&mut buffer) {
        let had = left.load(Ordering::SeqCst);
        let len = len.min(usize::try_from(had).unwrap_or(usize::MAX));
        if had != u64::MAX {
            left.store(had - len as u64, Ordering::SeqCst);
        }
        if len == 0 || into.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = into.shutdown(std::net::Shutdown::Both);
}

/// Backs up a user of `count` notes, with even UIDs, without a mail server.
fn back_up_notes(scene: &Scene, count: u32) {
    let mut csync = RawCsync::login(scene.server.port, ADMIN, PASSWORD);
    let mut ok = |line: &[u8]| {
        let reply = csync.ask(line);
        assert!(reply.lines().last().unwrap().starts_with("OK"), "{reply}");
    };
    let mailbox = |name: &str, id: char, last: u32, records: &str| {
        format!(
            "APPLY MAILBOX %(UNIQUEID {} MBOXNAME {name} SYNC_CRC 0 SYNC_CRC_ANNOT 0 LAST_UID \
             {last} HIGHESTMODSEQ {} RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 0 POP3_LAST_LOGIN 0 \
             UIDVALIDITY 1500000000 PARTITION default ACL \"tom\tlrswipkxtecdan\t\" OPTIONS P \
             RECORD ({records}))\r\n",
            id.to_string().repeat(24),
            count + 1
        )
    };
    ok(mailbox("user.tom", 'a', 0, "").as_bytes());
    for first in (1..=count).step_by(1000) {
        let mut line = b"APPLY MESSAGE (".to_vec();
        let (mut guids, mut records) = (Vec::new(), Vec::new());
        let last = count.min(first + 999);
        for number in first..=last {
            let body = note(number).bytes;
            let guid = guid(&body);
            if number > first {
                line.push(b' ');
            }
            line.extend(format!("%{{default {guid} {}}}\r\n", body.len()).bytes());
            line.extend_from_slice(&body);
            records.push(format!(
                "%(UID {} MODSEQ {number} LAST_UPDATED 1600000000 FLAGS (\\Seen) INTERNALDATE \
                 1500000000 SIZE {} GUID {guid})",
                number * 2,
                body.len()
            ));
            guids.push(guid);
        }
        line.extend_from_slice(b")\r\n");
        let guids = guids.join(" ");
        ok(format!("APPLY RESERVE %(PARTITION default MBOXNAME (user.tom) GUID ({guids}))\r\n")
            .as_bytes());
        ok(&line);
        ok(mailbox("user.tom.Big", 'b', 2 * last, &records.join(" ")).as_bytes());
    }
    ok(b"EXIT\r\n");
}

fn uids(scene: &Scene) -> Vec<u32> {
    let mut uids = Vec::new();
    let mut tom = scene.site.imap("tom");
    tom.select("INBOX.Big");
    for line in tom.lines("UID SEARCH ALL") {
        let Some(found) = line.strip_prefix("* SEARCH") else { continue };
        uids.extend(found.split_whitespace().map(|uid| uid.parse::<u32>().unwrap()));
    }
    uids
}

const COUNT: u32 = 5000;

fn expected() -> Vec<u32> {
    (1..=COUNT).map(|number| 2 * number).collect()
}

#[test]
fn a_restore_that_was_cut_off_is_continued() {
    let Some(cyrus) = Cyrus::find_or_skip("a_restore_that_was_cut_off_is_continued") else {
        return;
    };
    let scene = Scene::start(&cyrus, &["tom"]);
    back_up_notes(&scene, COUNT);
    // In the second of three batches.
    let cutter = Cutter::start(scene.site.csync_port(), 260_000, 0);
    let server = format!("127.0.0.1:{}", cutter.port);
    let output = scene.cyrbk_restore(&["-U", "--all", &server, "tom"]);
    assert_eq!(output.code(), 75, "{output}");
    let told = output.stderr_text();
    assert!(
        told.contains("restored 2048 messages; mailboxes: 1 complete, 1 not, 0 not reached"),
        "{output}"
    );
    assert!(told.contains("The same command again goes on from there"), "{output}");
    assert_eq!(uids(&scene), expected()[..2048]);
    cutter.lets_more.store(u64::MAX - 1, Ordering::SeqCst);
    let output = scene.cyrbk_restore(&["-U", "--all", &server, "tom"]).success();
    let rest = format!("{} messages restored ({} sent", COUNT - 2048, COUNT - 2048);
    assert!(output.stdout_text().contains(&rest), "{output}");
    assert_eq!(uids(&scene), expected());
    let highest = scene.site.imap("tom").snapshot("INBOX.Big");
    let highest = highest.iter().find(|line| line.contains("HIGHESTMODSEQ")).unwrap().clone();
    assert!(highest.contains(&format!("HIGHESTMODSEQ {}]", COUNT + 1)), "{highest}");
}

#[test]
fn a_connection_that_breaks_is_made_again() {
    let Some(cyrus) = Cyrus::find_or_skip("a_connection_that_breaks_is_made_again") else { return };
    let scene = Scene::start(&cyrus, &["tom"]);
    back_up_notes(&scene, COUNT);
    let cutter = Cutter::start(scene.site.csync_port(), 260_000, 250_000);
    let server = format!("127.0.0.1:{}", cutter.port);
    // Without ids: messages that have arrived are found by what they are.
    let output = scene.cyrbk_restore(&["--all", &server, "tom"]).success();
    assert!(output.stdout_text().contains("5000 messages restored"), "{output}");
    assert_eq!(uids(&scene), (1..=COUNT).collect::<Vec<_>>());
}

#[test]
fn a_connection_that_breaks_makes_no_further_copies() {
    let Some(cyrus) = Cyrus::find_or_skip("a_connection_that_breaks_makes_no_further_copies")
    else {
        return;
    };
    let scene = Scene::start(&cyrus, &["tom"]);
    back_up_notes(&scene, COUNT);
    // In the second of three batches.
    let cutter = Cutter::start(scene.site.csync_port(), 260_000, 250_000);
    let server = format!("127.0.0.1:{}", cutter.port);
    let output = scene.cyrbk_restore(&["--all", "--duplicates", &server, "tom"]);
    assert_eq!(output.code(), 75, "{output}");
    assert!(output.stderr_text().contains("with it restores all of it once more"), "{output}");
    assert_eq!(uids(&scene).len(), 2048);
}

/// 4000 messages, or as many as `CYRBK_INTEROP_MESSAGES` says.
#[test]
fn a_large_mailbox_takes_little_memory() {
    let Some(cyrus) = Cyrus::find_or_skip("a_large_mailbox_takes_little_memory") else { return };
    let scene = Scene::start(&cyrus, &["tom"]);
    let count = std::env::var("CYRBK_INTEROP_MESSAGES").map_or(4000, |text| text.parse().unwrap());
    back_up_notes(&scene, count);
    let started = std::time::Instant::now();
    let peak = scene.peak_of_cyrbk_restore(&["-U", "--all", "SERVER", "tom"]);
    let took = started.elapsed();
    assert_eq!(uids(&scene).len() as u32, count);
    let again = scene.peak_of_cyrbk_restore(&["--all", "SERVER", "tom"]);
    println!("{count} messages: {peak} KiB in {took:?}; to see that they are there {again} KiB");
    // Below 1 KiB for each message, and what the program needs anyway.
    assert!(peak.max(again) < 32 * 1024 + u64::from(count), "{peak} {again}");
}

#[test]
fn a_damaged_message_is_named_and_the_rest_restored() {
    let Some(cyrus) = Cyrus::find_or_skip("a_damaged_message_is_named_and_the_rest_restored")
    else {
        return;
    };
    let scene = Scene::start(&cyrus, &["tom"]);
    back_up_notes(&scene, 10);
    let data = scene.server.data_file("tom");
    let index = {
        let mut name = data.into_os_string();
        name.push(".index");
        rusqlite::Connection::open(name).unwrap()
    };
    // The index says of one message that it is where another one is.
    let wrong = guid(&note(7).bytes);
    index.execute("UPDATE message SET offset = offset + 1 WHERE guid = ?1", [&wrong]).unwrap();
    drop(index);
    let output = scene.restore(&["-U", "-a", "SERVER", "tom"]);
    assert_eq!(output.code(), 75, "{output}");
    let told = format!("tom: user.tom.Big: message {wrong} is not restored: ");
    assert!(output.stderr_text().starts_with(&told), "{output}");
    let expected: Vec<u32> = (1..=10).filter(|n| *n != 7).map(|n| 2 * n).collect();
    assert_eq!(uids(&scene), expected);
}

#[test]
fn the_backup_is_only_read() {
    let Some(cyrus) = Cyrus::find_or_skip("the_backup_is_only_read") else { return };
    let scene = Scene::start(&cyrus, &["tom"]);
    back_up_notes(&scene, 10);
    let before = scene.server.store_files();
    let _ = scene.restore(&["-a", "SERVER", "tom"]).success();
    assert_eq!(scene.server.store_files(), before);
}
