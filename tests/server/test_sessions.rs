//! Many sessions at once, and sessions that end as they should not.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use cyrbk::lock::Wait;
use cyrbk::store::{Backup, verify};
use cyrbk::sync::server::ServerLimits;

use crate::client::{Client, apply_mailbox, apply_message, guid};
use crate::site::{Options, Site};

fn message(number: usize) -> Vec<u8> {
    format!("Subject: {number}\r\n\r\n{}\r\n", "text ".repeat(number % 700)).into_bytes()
}

fn data_file(site: &Site, user: &str) -> std::path::PathBuf {
    let prefix = format!("{user}_");
    let is_data = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with(&prefix) && !name.contains('.')
    };
    site.store().into_keys().find(is_data).unwrap()
}

fn assert_sound(site: &Site, user: &str, messages: usize) {
    let backup = Backup::open(&data_file(site, user), Wait::Yes).unwrap();
    assert!(verify::full(&backup, &mut |_| {}).unwrap(), "{user}");
    assert_eq!(backup.index().messages().unwrap().len(), messages, "{user}");
}

#[test]
fn many_users_are_backed_up_at_once() {
    let site = Site::start(Options::default());
    const SESSIONS: usize = 24;
    std::thread::scope(|scope| {
        for session in 0..SESSIONS {
            let address = site.address;
            scope.spawn(move || {
                let user = format!("user{session}");
                let messages: Vec<Vec<u8>> = (0..20).map(|i| message(session * 50 + i)).collect();
                let mut client = Client::admin(address);
                assert_eq!(client.ask(format!("GET USER {user}\r\n")), "OK Success\r\n");
                for message in &messages {
                    assert_eq!(client.ask(apply_message(message)), "OK Success\r\n");
                }
                let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
                assert_eq!(client.ask(apply_mailbox(&user, &messages)), "OK Success\r\n");
                assert_eq!(client.ask("EXIT\r\n"), "OK Finished\r\n");
            });
        }
    });
    (0..SESSIONS).for_each(|session| assert_sound(&site, &format!("user{session}"), 20));
}

#[test]
fn more_backups_than_may_be_open_go_through_one_session() {
    let site = Site::start(Options::default());
    let mut client = Client::admin(site.address);
    for round in 0..2 {
        for user in 0..9 {
            let user = format!("u{user}");
            client.ask(format!("GET USER {user}\r\n"));
            let text = message(round * 10 + user.len());
            assert_eq!(client.ask(apply_message(&text)), "OK Success\r\n");
            assert_eq!(client.ask(apply_mailbox(&user, &[&text])), "OK Success\r\n");
        }
    }
    assert_eq!(client.ask("EXIT\r\n"), "OK Finished\r\n");
    (0..9).for_each(|user| assert_sound(&site, &format!("u{user}"), 2));
}

#[test]
fn a_backup_is_one_sessions_until_it_lets_go() {
    let site = Site::start(Options::default());
    let (mut one, mut two) = (Client::admin(site.address), Client::admin(site.address));
    one.ask("GET USER tom\r\n");
    let locked = "NO IMAP_MAILBOX_LOCKED Mailbox locked\r\n";
    for line in ["GET USER tom\r\n", "GET META tom\r\n", "APPLY UNMAILBOX user.tom.X\r\n"] {
        assert_eq!(two.ask(line), locked);
    }
    assert_eq!(two.ask("RESTART\r\n"), "OK Restarting\r\n");
    assert_eq!(one.ask("RESTART\r\n"), "OK Restarting\r\n");
    assert_eq!(two.ask("GET USER tom\r\n"), "OK Success\r\n");
}

#[test]
fn a_lost_connection_loses_nothing_acknowledged() {
    let site = Site::start(Options::default());
    let text = message(3);
    let mut client = Client::admin(site.address);
    client.ask("GET USER tom\r\n");
    assert_eq!(client.ask(apply_message(&text)), "OK Success\r\n");
    assert_eq!(client.ask(apply_mailbox("tom", &[&text])), "OK Success\r\n");
    client.send(format!("APPLY MESSAGE (%{{default {} 100}}\r\nhalf of", guid(&text)));
    drop(client);
    let mut next = Client::admin(site.address);
    let reply = wait_until_unlocked(&mut next);
    assert!(reply.contains("MBOXNAME user.tom"), "{reply}");
    drop(next);
    assert_sound(&site, "tom", 1);
}

fn wait_until_unlocked(client: &mut Client) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let reply = client.ask("GET USER tom\r\n");
        if !reply.starts_with("NO IMAP_MAILBOX_LOCKED") || Instant::now() > deadline {
            return reply;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn messages_beyond_memory_are_staged_and_stored() {
    let options = Options { spool_memory: 100_000, ..Options::default() };
    let site = Site::start(options);
    let large: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
    let messages: [&[u8]; 4] = [b"small\r\n", &large, b"also small\r\n", &large[1..]];
    let mut line = b"APPLY MESSAGE (".to_vec();
    for (i, message) in messages.iter().enumerate() {
        line.extend_from_slice(if i > 0 { b" " } else { b"" });
        let header = format!("%{{default {} {}}}\r\n", guid(message), message.len());
        line.extend_from_slice(header.as_bytes());
        line.extend_from_slice(message);
    }
    line.extend_from_slice(b")\r\n");
    let mut client = Client::admin(site.address);
    client.ask("GET USER tom\r\n");
    assert_eq!(client.ask(&line), "OK Success\r\n");
    assert_eq!(client.ask(apply_mailbox("tom", &messages)), "OK Success\r\n");
    assert_eq!(client.ask("EXIT\r\n"), "OK Finished\r\n");
    assert_sound(&site, "tom", 4);
    let left = std::fs::read_dir(site.path().join("staging")).unwrap().count();
    assert_eq!(left, 0, "nothing stays in the staging area");
}

#[test]
fn an_idle_session_lets_go_of_its_backups() {
    let limits = ServerLimits { lease_time: Duration::from_millis(300), ..ServerLimits::default() };
    let site = Site::start(Options { limits, ..Options::default() });
    let text = message(1);
    let mut idle = Client::admin(site.address);
    idle.ask("GET USER tom\r\n");
    assert_eq!(idle.ask(apply_message(&text)), "OK Success\r\n");
    let mut other = Client::admin(site.address);
    assert_eq!(wait_until_unlocked(&mut other), "OK Success\r\n");
    other.ask("EXIT\r\n");
    // The first one goes on as if nothing had been.
    assert_eq!(idle.ask(apply_mailbox("tom", &[&text])), "OK Success\r\n");
    idle.ask("EXIT\r\n");
    assert_sound(&site, "tom", 1);
}

#[test]
fn a_client_that_never_logs_in_is_closed() {
    let limits = ServerLimits { login_time: Duration::from_millis(200), ..ServerLimits::default() };
    let site = Site::start(Options { limits, ..Options::default() });
    assert!(Client::connect(site.address).is_closed());
}

#[test]
fn a_client_that_says_nothing_is_closed() {
    let limits = ServerLimits { idle_time: Duration::from_millis(300), ..ServerLimits::default() };
    let site = Site::start(Options { limits, ..Options::default() });
    assert!(Client::admin(site.address).is_closed());
}

/// A job that waits, here for the lock of a backup that a tool has, keeps its worker. As long as
/// there is another one nobody else waits.
#[test]
fn a_job_that_waits_stalls_others_if_it_has_the_last_worker() {
    for (workers_max, is_last) in [(1, true), (2, false)] {
        let limits = ServerLimits { workers_max, ..ServerLimits::default() };
        let site = Site::start(Options { limits, ..Options::default() });
        let mut first = Client::admin(site.address);
        assert_eq!(first.ask(apply_mailbox("tom", &[])), "OK Success\r\n");
        assert_eq!(first.ask("EXIT\r\n"), "OK Finished\r\n");
        let (mut slow, mut other) = (Client::admin(site.address), Client::admin(site.address));
        let tool = Backup::open(&data_file(&site, "tom"), Wait::Yes).unwrap();
        slow.send("APPLY QUOTA %(ROOT user.tom LIMIT 1)\r\n");
        assert!(slow.is_silent(Duration::from_millis(300)));
        other.send("GET USER bob\r\n");
        if is_last {
            assert!(other.is_silent(Duration::from_millis(300)));
            drop(tool);
            assert_eq!(other.reply(), "OK Success\r\n");
        } else {
            assert_eq!(other.reply(), "OK Success\r\n");
            drop(tool);
        }
        assert_eq!(slow.reply(), "OK Success\r\n");
    }
}

/// A log-in that takes long, here a password that nobody answers for, does not hold up the others.
#[test]
fn a_slow_log_in_stalls_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let mux = dir.path().join("mux");
    let listener = UnixListener::bind(&mux).unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            std::thread::spawn(move || {
                let mut request = [0; 256];
                let len = connection.read(&mut request).unwrap();
                if request[..len].windows(4).any(|word| word == b"slow") {
                    std::thread::sleep(Duration::from_secs(60));
                }
                connection.write_all(b"\0\x02OK").unwrap();
            });
        }
    });
    let site = Site::start(Options { saslauthd: Some(mux), ..Options::default() });
    let mut slow: Vec<Client> = (0..8).map(|_| Client::connect(site.address)).collect();
    for client in &mut slow {
        // "\0slow\0slow" in base64
        client.send("AUTHENTICATE PLAIN AHNsb3cAc2xvdw==\r\n");
    }
    let started = Instant::now();
    let mut client = Client::admin(site.address);
    client.ask("GET USER tom\r\n");
    assert_eq!(client.ask(apply_message(&message(1))), "OK Success\r\n");
    assert_eq!(client.ask("EXIT\r\n"), "OK Finished\r\n");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}
