//! Every limit at its edge, as the option sets it, and what an idle connection costs. No Cyrus
//! takes part, but the setup is that of the other tests, which have its user; `tests/server` does
//! without.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::cyrus::Cyrus;
use crate::door_server::{DoorSetup, TLS, ask, banner, read_through};
use crate::managesieve::sasl_plain;
use crate::process::wait_for;
use crate::raw_csync::RawCsync;
use crate::site::{ADMIN, PASSWORD};
use crate::test_tls::{connect_tls, trusting};
use crate::workspace::free_port;

const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a new connection is taken.
fn is_taken(port: u16) -> Option<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    match std::io::BufRead::read_line(&mut reader, &mut line) {
        Ok(0) => None,
        Ok(_) => Some(reader.into_inner()),
        Err(e) if e.kind() == ErrorKind::ConnectionReset => None,
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn connections_are_counted() {
    let Some(cyrus) = Cyrus::find_or_skip("connections_are_counted") else { return };
    for (option, text) in [
        ("cyrbk_max_connections: 3", "too many connections"),
        ("cyrbk_max_connections_per_address: 3", "too many connections from this address"),
    ] {
        let setup = DoorSetup::new(&cyrus, &[option]);
        let (_service, port) = setup.serve(&[]);
        let mut open: Vec<TcpStream> = (0..3).map(|_| is_taken(port).unwrap()).collect();
        assert!(is_taken(port).is_none(), "{option}");
        setup.wait_for_log(&format!("refused connection from [127.0.0.1]: {text}"));
        open.pop();
        wait_for("room for another one", PATIENCE, || is_taken(port).map(|s| open.push(s)));
        assert!(is_taken(port).is_none(), "{option}");
    }
}

#[test]
fn who_does_not_log_in_has_to_go() {
    let Some(cyrus) = Cyrus::find_or_skip("who_does_not_log_in_has_to_go") else { return };
    let setup = DoorSetup::new(&cyrus, &["cyrbk_login_time: 2s"]);
    let (_service, port) = setup.serve(&[]);
    let mut known = RawCsync::login(port, ADMIN, PASSWORD);
    let started = Instant::now();
    let (_, mut stranger) = banner(port);
    // Being busy is no excuse.
    let mut replies = 0;
    while ask_maybe(&mut stranger, "NOOP").is_some() {
        replies += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    let waited = started.elapsed();
    assert!(waited > Duration::from_millis(1900) && waited < Duration::from_secs(6), "{waited:?}");
    assert!(replies > 5, "{replies}");
    assert_eq!(known.ask(b"NOOP\r\n"), "OK Noop completed\r\n");
}

/// The answer, unless the connection is at its end.
fn ask_maybe(reader: &mut BufReader<TcpStream>, line: &str) -> Option<String> {
    reader.get_mut().write_all(format!("{line}\r\n").as_bytes()).ok()?;
    let mut reply = String::new();
    let len = std::io::BufRead::read_line(reader, &mut reply).ok()?;
    (len > 0).then_some(reply)
}

#[test]
fn lines_and_literals_have_an_end() {
    let Some(cyrus) = Cyrus::find_or_skip("lines_and_literals_have_an_end") else { return };
    let setup = DoorSetup::new(&cyrus, &["cyrbk_max_line: 1000", "maxliteral: 100"]);
    let (_service, port) = setup.serve(&[]);
    let mut csync = RawCsync::login(port, ADMIN, PASSWORD);
    // `GET USER ` and the name; CR counts.
    let line = |len: usize| format!("GET USER {}\r\n", "x".repeat(len - 9));
    // No file can have such a name: a user whose backup cannot be had is put off.
    let put_off = "NO IMAP_MAILBOX_LOCKED Mailbox locked\r\n";
    assert_eq!(csync.ask(line(998).as_bytes()), put_off);
    assert_eq!(csync.ask(line(999).as_bytes()), put_off);
    let too_long = "NO IMAP_PROTOCOL_ERROR line longer than 1000 octets\r\n";
    assert_eq!(csync.ask(line(1000).as_bytes()), too_long);
    assert_eq!(csync.ask(line(1000).replace('\r', "").as_bytes()), put_off);
    let literal = |len: usize| format!("GET USER {{{len}+}}\r\n{}\r\n", "y".repeat(len));
    assert_eq!(csync.ask(literal(100).as_bytes()), "OK Success\r\n");
    let too_large = "NO IMAP_PROTOCOL_ERROR literal of 101 octets exceeds the limit\r\n";
    assert_eq!(csync.ask(literal(101).as_bytes()), too_large);
    // A line that never ends is not kept.
    let mut reply = csync.ask(format!("{}\r\n", "z".repeat(50_000_000)).as_bytes());
    assert_eq!(reply, too_long);
    // Nor is one that is small on the way and large behind it.
    let (_, mut stream) = banner(port);
    let login = format!("AUTHENTICATE PLAIN {}", sasl_plain(ADMIN, PASSWORD));
    assert_eq!(ask(&mut stream, &login), "OK Success (no protection)\r\n");
    assert_eq!(ask(&mut stream, "COMPRESS DEFLATE"), "OK DEFLATE active\r\n");
    let mut zip = flate2::Compress::new(flate2::Compression::best(), false);
    let mut bomb = Vec::with_capacity(1 << 20);
    let mut line = vec![b'z'; 200_000_000];
    line.extend_from_slice(b"\r\n");
    zip.compress_vec(&line, &mut bomb, flate2::FlushCompress::Sync).unwrap();
    stream.get_mut().write_all(&bomb).unwrap();
    let mut packed = [0; 1000];
    let len = stream.read(&mut packed).unwrap();
    let mut text = Vec::with_capacity(1000);
    let mut unzip = flate2::Decompress::new(false);
    unzip.decompress_vec(&packed[..len], &mut text, flate2::FlushDecompress::Sync).unwrap();
    reply = String::from_utf8(text).unwrap();
    assert_eq!(reply, too_long);
    let peak = memory(_service.child.id(), "VmHWM");
    assert!(peak < 64 * 1024, "{peak} KiB");
}

/// A line of `/proc/PID/status`, in KiB.
pub(crate) fn memory(pid: u32, name: &str) -> u64 {
    try_memory(pid, name).unwrap()
}

/// [`memory`]; `None` of a process that has ended.
pub(crate) fn try_memory(pid: u32, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Clients with a wrong password, one of whom at least is being held back.
fn guessers(setup: &DoorSetup, port: u16) -> Vec<BufReader<TcpStream>> {
    let wrong = format!("AUTHENTICATE PLAIN {}\r\n", sasl_plain(ADMIN, "wrong"));
    let mut guessers: Vec<_> = (0..8).map(|_| banner(port).1).collect();
    for guesser in &mut guessers {
        guesser.get_mut().write_all(wrong.as_bytes()).unwrap();
    }
    setup.wait_for_log(
        "badlogin: [127.0.0.1] PLAIN [SASL(-13): authentication failure: wrong password",
    );
    guessers
}

#[test]
fn failed_log_ins_delay_only_themselves() {
    let Some(cyrus) = Cyrus::find_or_skip("failed_log_ins_delay_only_themselves") else { return };
    let setup = DoorSetup::new(&cyrus, &["failedloginpause: 60s"]);
    let (_service, port) = setup.serve(&[]);
    let started = Instant::now();
    let guessers = guessers(&setup, port);
    // All of them wait; who knows the password does not.
    let mut csync = RawCsync::login(port, ADMIN, PASSWORD);
    assert_eq!(csync.ask(b"GET USER tom\r\n"), "OK Success\r\n");
    let waited = started.elapsed();
    assert!(waited < Duration::from_secs(60), "{waited:?}");
    drop(guessers);
}

#[test]
fn failed_log_ins_are_delayed() {
    let Some(cyrus) = Cyrus::find_or_skip("failed_log_ins_are_delayed") else { return };
    let setup = DoorSetup::new(&cyrus, &["failedloginpause: 2s"]);
    let (_service, port) = setup.serve(&[]);
    let started = Instant::now();
    let mut guessers = guessers(&setup, port);
    for guesser in &mut guessers {
        assert_eq!(read_through(guesser, "NO"), "NO authentication failure\r\n");
    }
    let waited = started.elapsed();
    assert!(waited > Duration::from_millis(1990), "{waited:?}");
    assert_eq!(ask(&mut guessers[0], "NOOP"), "OK Noop completed\r\n");
}

#[test]
fn who_does_not_read_is_not_read() {
    let Some(cyrus) = Cyrus::find_or_skip("who_does_not_read_is_not_read") else { return };
    let setup = DoorSetup::new(&cyrus, &["cyrbk_output_high_water: 64K"]);
    let (mut service, port) = setup.serve(&[]);
    let (_, mut stream) = banner(port);
    let socket = stream.get_mut();
    socket.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    // Each octet in asks for three octets out.
    let commands = b"NOOP\r\n".repeat(10_000);
    let mut sent = 0;
    let result = loop {
        match socket.write(&commands) {
            Ok(len) => sent += len,
            Err(e) => break e.kind(),
        }
        assert!(sent < 200 << 20, "the server goes on reading");
    };
    assert_eq!(result, ErrorKind::WouldBlock);
    let peak = memory(service.child.id(), "VmHWM");
    assert!(peak < 64 * 1024, "{peak} KiB after {sent} octets");
    // Others are served, and the server does not wait for this one when it stops.
    assert_eq!(RawCsync::connect(port).ask(b"NOOP\r\n"), "OK Noop completed\r\n");
    let started = Instant::now();
    service.signal_term();
    assert!(service.wait(PATIENCE).unwrap().success());
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_session_lets_go_of_the_backup_it_has_used_least() {
    let Some(cyrus) = Cyrus::find_or_skip("a_session_lets_go_of_the_backup_it_has_used_least")
    else {
        return;
    };
    let setup = DoorSetup::new(&cyrus, &["cyrbk_max_open_backups: 2"]);
    let (_service, port) = setup.serve(&[]);
    let mut greedy = RawCsync::login(port, ADMIN, PASSWORD);
    for user in ["one", "two", "one", "three"] {
        assert_eq!(greedy.ask(format!("GET USER {user}\r\n").as_bytes()), "OK Success\r\n");
    }
    let mut other = RawCsync::login(port, ADMIN, PASSWORD);
    let locked = "NO IMAP_MAILBOX_LOCKED Mailbox locked\r\n";
    for (user, reply) in [("one", locked), ("two", "OK Success\r\n"), ("three", locked)] {
        assert_eq!(other.ask(format!("GET USER {user}\r\n").as_bytes()), reply, "{user}");
    }
}

#[test]
fn messages_beyond_the_spool_go_to_disk() {
    let Some(cyrus) = Cyrus::find_or_skip("messages_beyond_the_spool_go_to_disk") else { return };
    let setup = DoorSetup::new(&cyrus, &["cyrbk_spool_memory: 1M"]);
    let (service, port) = setup.serve(&[]);
    let mut csync = RawCsync::login(port, ADMIN, PASSWORD);
    assert_eq!(csync.ask(b"GET USER tom\r\n"), "OK Success\r\n");
    let before = memory(service.child.id(), "VmHWM");
    let message = "0123456789abcdef".repeat(4 << 20);
    let guid = crate::mail::guid(message.as_bytes());
    let line = format!("APPLY MESSAGE (%{{default {guid} {}}}\r\n{message})\r\n", message.len());
    assert_eq!(csync.ask(line.as_bytes()), "OK Success\r\n");
    let growth = memory(service.child.id(), "VmHWM") - before;
    assert!(growth < 32 * 1024, "{growth} KiB for a message of {} octets", message.len());
}

/// A saslauthd that never says no.
fn believe_everybody(path: &std::path::Path) {
    let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(path, all).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            for _ in ["user", "password", "service", "realm"] {
                let mut len = [0; 2];
                stream.read_exact(&mut len).unwrap();
                let mut word = vec![0; usize::from(u16::from_be_bytes(len))];
                stream.read_exact(&mut word).unwrap();
            }
            stream.write_all(b"\0\x02OK").unwrap();
        }
    });
}

/// `cargo test --test interop idle_connections -- --nocapture` prints the figures.
#[test]
fn idle_connections_cost_little() {
    let Some(cyrus) = Cyrus::find_or_skip("idle_connections_cost_little") else { return };
    const COUNT: u64 = 5_000;
    let (_, hard) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    if hard < COUNT + 500 {
        eprintln!("SKIPPED: idle_connections_cost_little: `ulimit -Hn` is {hard}");
        return;
    }
    for (is_compressed, is_tls) in [(false, false), (true, false), (false, true), (true, true)] {
        let options = [
            "cyrbk_max_connections: 9999",
            "cyrbk_max_connections_per_address: 9999",
            // Our own password file takes its time.
            "sasl_pwcheck_method: saslauthd",
            "sasl_saslauthd_path: ROOT/mux",
        ];
        let setup = DoorSetup::new(&cyrus, &[&TLS[..], &options].concat());
        believe_everybody(&setup.workspace.path().join("mux"));
        let tls_port = free_port();
        let (service, port) = setup.serve(&["--tls-listen", &format!("127.0.0.1:{tls_port}")]);
        let config = trusting(&setup);
        let login = || match is_tls {
            true => log_in(connect_tls(tls_port, &config), is_compressed),
            false => log_in(BufReader::new(connect(port)), is_compressed),
        };
        drop(login());
        let pid = service.child.id();
        let before = memory(pid, "VmRSS");
        let open: Vec<_> = (0..COUNT).map(|_| login()).collect();
        let after = memory(pid, "VmRSS");
        let threads = memory(pid, "Threads");
        let each = (after - before) * 1024 / COUNT;
        println!(
            "{COUNT} authenticated connections, compressed: {is_compressed}, TLS: {is_tls}: \
             {before} to {after} KiB, {each} octets each, {threads} threads"
        );
        assert!(each < 32 * 1024, "{each}");
        drop(open);
    }
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// An authenticated connection that is kept.
fn log_in<S: Read + Write + 'static>(
    mut stream: BufReader<S>,
    is_compressed: bool,
) -> Box<dyn std::any::Any> {
    let _ = read_through(&mut stream, "* OK");
    let login = format!("AUTHENTICATE PLAIN {}", sasl_plain(ADMIN, PASSWORD));
    let reply = ask(&mut stream, &login);
    assert!(reply.starts_with("OK "), "{reply}");
    if is_compressed {
        assert_eq!(ask(&mut stream, "COMPRESS DEFLATE"), "OK DEFLATE active\r\n");
    }
    Box::new(stream)
}
