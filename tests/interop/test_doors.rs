//! Every way in, with the real client, the real master, the real service manager's helpers.

use std::io::{BufReader, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::cyrus::{Cyrus, clean_command};
use crate::door_server::{DoorSetup, TLS, ask, assert_replicates, banner, hang_up, read_through};
use crate::machine;
use crate::mail;
use crate::managesieve::sasl_plain;
use crate::process::{Service, run_with, wait_for};
use crate::raw_csync::RawCsync;
use crate::site::{ADMIN, Channel, PASSWORD, Site};
use crate::workspace::free_port;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn the_client_compresses() {
    let Some(cyrus) = Cyrus::find_or_skip("the_client_compresses") else { return };
    let setup = DoorSetup::new(&cyrus, &[]);
    let (_service, port) = setup.serve(&[]);
    assert_replicates(&cyrus, port, &["-z"]);
}

#[test]
fn the_client_logs_in_by_scram() {
    let Some(cyrus) = Cyrus::find_or_skip("the_client_logs_in_by_scram") else { return };
    for mech in ["SCRAM-SHA-1", "SCRAM-SHA-256"] {
        let list = format!("sasl_mech_list: {mech}");
        let setup = DoorSetup::new(&cyrus, &[&list, "allowplaintext: no"]);
        let (_service, port) = setup.serve(&[]);
        assert_replicates(&cyrus, port, &[]);
        let line = format!("login: [127.0.0.1] admin {mech} User logged in");
        assert!(setup.log().contains(&line), "{}", setup.log());
    }
}

#[test]
fn compress_keeps_its_rules() {
    let Some(cyrus) = Cyrus::find_or_skip("compress_keeps_its_rules") else { return };
    let setup = DoorSetup::new(&cyrus, &[]);
    let (_service, port) = setup.serve(&[]);
    let (_, mut stream) = banner(port);
    for (request, reply) in [
        ("COMPRESS", "BAD Missing required argument to Compress\r\n"),
        ("COMPRESS LZ4", "NO Unknown compression algorithm: LZ4\r\n"),
        ("COMPRESS DEFLATE x", "BAD Unexpected extra arguments to Compress\r\n"),
        ("compress Deflate", "OK Deflate active\r\n"),
    ] {
        assert_eq!(ask(&mut stream, request), reply, "{request}");
    }
    // A damaged stream ends the connection and nothing else.
    stream.get_mut().write_all(&[0xff; 100]).unwrap();
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut rest).unwrap();
    assert_eq!(rest, b"");
    let _ = RawCsync::login(port, ADMIN, PASSWORD);
}

#[test]
fn the_real_master_starts_and_replaces_us() {
    let Some(cyrus) = Cyrus::find_or_skip("the_real_master_starts_and_replaces_us") else {
        return;
    };
    let setup = DoorSetup::new(&cyrus, &[]);
    let (mut master, port) = setup.master(&cyrus, "-U 3 -T 1");
    assert_replicates(&cyrus, port, &[]);
    // One process serves many connections at a time; more than three, as they overlap.
    let many: Vec<RawCsync> = (0..6).map(|_| RawCsync::login(port, ADMIN, PASSWORD)).collect();
    let workers = children(&master);
    assert_eq!(workers.len(), 1, "{workers:?}");
    drop(many);
    // Having served, it leaves; master starts another one when somebody comes.
    wait_for("the server's leave", PATIENCE, || children(&master).is_empty().then_some(()));
    // Five abnormal ends in a row would make master give the service up.
    for _ in 0..8 {
        let mut csync = RawCsync::login(port, ADMIN, PASSWORD);
        assert_eq!(csync.ask(b"EXIT\r\n"), "OK Finished\r\n");
        drop(csync);
        if let [pid] = children(&master)[..] {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP);
        }
        wait_for("the next end", PATIENCE, || children(&master).is_empty().then_some(()));
    }
    // SIGHUP lets sessions finish.
    let mut csync = RawCsync::login(port, ADMIN, PASSWORD);
    hang_up(&master);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(csync.ask(b"GET USER tom\r\n").lines().last(), Some("OK Success"));
    let mut next = RawCsync::login(port, ADMIN, PASSWORD);
    assert_eq!(next.ask(b"NOOP\r\n"), "OK Noop completed\r\n");
    // SIGTERM ends them, and open chunks with them.
    let workers = children(&master);
    let status = master.terminate();
    assert!(status.success(), "{status}");
    wait_for("the end of all", PATIENCE, || {
        workers.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
}

/// As the services of Cyrus do when a package is upgraded.
#[test]
fn a_new_program_takes_over_from_an_old_one() {
    let Some(cyrus) = Cyrus::find_or_skip("a_new_program_takes_over_from_an_old_one") else {
        return;
    };
    let setup = DoorSetup::new(&cyrus, &[]);
    let (mut master, port) = setup.master(&cyrus, "");
    let mut old = RawCsync::login(port, ADMIN, PASSWORD);
    let [first] = children(&master)[..] else { panic!("one process") };
    setup.replace_backupd();
    // The next client is served by the new program, the old one serves those it has.
    let mut new = RawCsync::login(port, ADMIN, PASSWORD);
    assert_eq!(children(&master).len(), 2);
    assert_eq!(old.ask(b"GET USER tom\r\n"), "OK Success\r\n");
    assert_eq!(new.ask(b"NOOP\r\n"), "OK Noop completed\r\n");
    assert_eq!(old.ask(b"EXIT\r\n"), "OK Finished\r\n");
    wait_for("the old one's leave", PATIENCE, || {
        (!children(&master).contains(&first)).then_some(())
    });
    assert_eq!(new.ask(b"GET USER tom\r\n"), "OK Success\r\n");
    let mut third = RawCsync::login(port, ADMIN, PASSWORD);
    assert_eq!(third.ask(b"NOOP\r\n"), "OK Noop completed\r\n");
    assert_eq!(children(&master).len(), 1);
    assert!(master.terminate().success());
}

#[test]
fn sigterm_ends_open_chunks() {
    let Some(cyrus) = Cyrus::find_or_skip("sigterm_ends_open_chunks") else { return };
    let setup = DoorSetup::new(&cyrus, &[]);
    let (mut service, port) = setup.serve(&[]);
    let mut csync = RawCsync::login(port, ADMIN, PASSWORD);
    let request = b"APPLY SUB %(USERID tom MBOXNAME user.tom)\r\n";
    assert_eq!(csync.ask(b"GET USER tom\r\n"), "OK Success\r\n");
    assert_eq!(csync.ask(request), "OK Success\r\n");
    assert!(service.terminate().success());
    let tool = |words: &[&str]| {
        let mut command = cyrus.command("ctl_backups");
        command.arg("-C").arg(&setup.imapd_conf).args(words);
        run_with(command, b"", PATIENCE).success().stdout_text()
    };
    let verified = tool(&["verify", "-v", "tom"]);
    assert!(verified.contains("tom"), "{verified}");
    // A chunk that was never ended could not be read back by the real tools.
    let stat = tool(&["stat", "tom"]);
    assert!(stat.contains("tom"), "{stat}");
    let mut command = cyrus.command("cyr_backup");
    command.arg("-C").arg(&setup.imapd_conf).args(["tom", "list", "chunks"]);
    let chunks = run_with(command, b"", PATIENCE).success().stdout_text();
    assert_eq!(chunks.lines().filter(|line| line.contains("  1 ")).count(), 1, "{chunks}");
}

/// The processes that master has started.
fn children(master: &Service) -> Vec<i32> {
    let pid = master.child.id();
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    list.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn backupd_x(setup: &DoorSetup) -> Command {
    let mut command = clean_command(&setup.backupd());
    command.arg("-C").arg(&setup.imapd_conf).arg("-X");
    command.env("CYRUS_SERVICE", "backupd").env("CYRUS_ID", "1");
    command
}

#[test]
fn one_session_runs_on_standard_input_and_output() {
    let Some(cyrus) = Cyrus::find_or_skip("one_session_runs_on_standard_input_and_output") else {
        return;
    };
    let setup = DoorSetup::new(&cyrus, &TLS);
    let run = |input: &str| run_with(backupd_x(&setup), input.as_bytes(), PATIENCE).success();
    let output = run("GET USER tom\r\nNOOP\r\n").stdout_text();
    let (banner, replies) = output.split_once("\r\n").unwrap();
    assert!(banner.starts_with("* OK interop.example.test Cyrus backup server "), "{banner}");
    assert_eq!(replies, "OK Success\r\nOK Noop completed\r\n");
    assert!(run("EXIT\r\n").stdout_text().ends_with("OK Finished\r\n"));
    assert!(run("").stdout_text().starts_with("* OK "));
    // As inetd starts it, with a network socket for both, the client is a stranger.
    let (mut service, mut client) = inetd(backupd_x(&setup));
    assert!(read_through(&mut client, "* OK").starts_with("* SASL PLAIN\r\n* STARTTLS\r\n"));
    assert_eq!(ask(&mut client, "GET USER tom"), "NO Please authenticate first\r\n");
    assert_eq!(ask(&mut client, "EXIT"), "OK Finished\r\n");
    assert!(service.wait(PATIENCE).unwrap().success());
    // Without what master sets in the environment, it is nobody's service.
    let mut command = backupd_x(&setup);
    command.env_remove("CYRUS_ID");
    assert_eq!(run_with(command, b"", PATIENCE).code(), 70);
    let mut command = clean_command(&setup.backupd());
    command.arg("-C").arg(&setup.imapd_conf);
    command.env("CYRUS_SERVICE", "backupd").env("CYRUS_ID", "1");
    assert_eq!(run_with(command, b"", PATIENCE).code(), 1);
}

/// Starts a program with a network connection for standard input, output and error.
fn inetd(mut command: Command) -> (Service, BufReader<std::net::TcpStream>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let server = std::os::fd::OwnedFd::from(listener.accept().unwrap().0);
    let copy = || server.try_clone().unwrap();
    command.stdin(copy()).stdout(copy()).stderr(copy());
    (Service::spawn(command), BufReader::new(client))
}

#[test]
fn a_layer_outside_makes_plain_safe() {
    let Some(cyrus) = Cyrus::find_or_skip("a_layer_outside_makes_plain_safe") else { return };
    for (changes, ssf, offered) in [
        (&["allowplaintext: no"][..], "0", false),
        // 1 is integrity: others can read along.
        (&["allowplaintext: no"], "1", false),
        (&["allowplaintext: no"], "2", true),
        (&["sasl_minimum_layer: 1"], "0", false),
        (&["sasl_minimum_layer: 1"], "2", true),
    ] {
        let setup = DoorSetup::new(&cyrus, changes);
        let mut command = backupd_x(&setup);
        command.args(["-p", ssf]);
        let (_service, mut client) = inetd(command);
        let banner = read_through(&mut client, "* OK");
        assert_eq!(banner.contains("* SASL PLAIN"), offered, "{changes:?} -p {ssf}: {banner}");
        let login = format!("AUTHENTICATE PLAIN {}", sasl_plain(ADMIN, PASSWORD));
        let wanted = match offered {
            true => "OK Success (no protection)\r\n",
            false => "NO encryption needed to use mechanism\r\n",
        };
        assert_eq!(ask(&mut client, &login), wanted, "{changes:?} -p {ssf}");
    }
}

#[test]
fn watched_users_leave_a_transcript() {
    let Some(cyrus) = Cyrus::find_or_skip("watched_users_leave_a_transcript") else { return };
    let setup = DoorSetup::new(&cyrus, &[]);
    let folder = setup.workspace.make_dir("conf/log/admin");
    let (service, port) = setup.serve(&[]);
    let mut csync = RawCsync::login(port, ADMIN, PASSWORD);
    assert_eq!(csync.ask(b"GET USER tom\r\n"), "OK Success\r\n");
    assert_eq!(csync.ask(b"EXIT\r\n"), "OK Finished\r\n");
    let file = folder.join(format!("backupd-{}", service.child.id()));
    let text = std::fs::read_to_string(file).unwrap();
    let said: Vec<&str> = text.lines().filter_map(|l| l.split(['<', '>']).nth(2)).collect();
    assert_eq!(said, ["GET USER tom", "OK Success", "EXIT", "OK Finished"], "{text}");
    assert!(!text.contains("PLAIN"), "{text}");
}

#[test]
fn whoever_reaches_the_unix_socket_is_administrator() {
    let Some(cyrus) = Cyrus::find_or_skip("whoever_reaches_the_unix_socket_is_administrator")
    else {
        return;
    };
    let setup = DoorSetup::new(&cyrus, &TLS);
    let path = setup.workspace.path().join("conf/csync");
    let (mut service, _) = setup.serve(&["--listen", path.to_str().unwrap()]);
    let mut stream = BufReader::new(UnixStream::connect(&path).unwrap());
    let banner = read_through(&mut stream, "* OK");
    assert!(banner.starts_with("* OK ") && banner.lines().count() == 1, "{banner}");
    assert_eq!(ask(&mut stream, "GET USER tom"), "OK Success\r\n");
    assert_eq!(ask(&mut stream, "EXIT"), "OK Finished\r\n");
    // The channel's port is nobody's; the client takes the socket for its server.
    let site = Site::start(&cyrus, &["tom"], &[Channel::new("door", free_port(), true)]);
    site.imap(ADMIN).create("user.tom");
    site.imap("tom").append("INBOX", "", 1_000_000_000, &mail::note(1).bytes);
    let run = site.sync("door", &["-S", path.to_str().unwrap(), "-u", "tom"]).success();
    run.assert_sent("APPLY MESSAGE");
    assert!(service.terminate().success());
    assert!(!setup.log().contains("login:"), "{}", setup.log());
}

#[test]
fn systemd_hands_over_sockets_and_is_told() {
    let Some(cyrus) = Cyrus::find_or_skip("systemd_hands_over_sockets_and_is_told") else {
        return;
    };
    let Some(activate) = machine::program("systemd-socket-activate", "systemd") else { return };
    let setup = DoorSetup::new(&cyrus, &[]);
    let notify_path = setup.workspace.path().join("notify");
    let notify = UnixDatagram::bind(&notify_path).unwrap();
    setup.workspace.give_away(&notify_path);
    notify.set_read_timeout(Some(PATIENCE)).unwrap();
    let port = free_port();
    let mut command = clean_command(&activate);
    command.arg("-l").arg(format!("127.0.0.1:{port}"));
    command.arg(format!("--setenv=NOTIFY_SOCKET={}", notify_path.display()));
    command.args(["--setenv=WATCHDOG_USEC=200000"]);
    let serve = setup.serve_command(&[]);
    command.arg(serve.get_program()).args(serve.get_args());
    let mut service = setup.spawn(command);
    // The first connection starts the server, and is its first client.
    let mut csync = wait_for("the socket", PATIENCE, || RawCsync::try_connect(port).ok());
    assert_eq!(csync.ask(b"NOOP\r\n"), "OK Noop completed\r\n");
    let mut told = String::new();
    let mut buffer = [0; 1000];
    let mut receive = |what: &str| {
        while !told.contains(what) {
            let len = notify.recv(&mut buffer).unwrap_or_else(|e| panic!("{what}: {e}: {told}"));
            told += std::str::from_utf8(&buffer[..len]).unwrap();
        }
    };
    receive("READY=1");
    receive("WATCHDOG=1");
    receive("STATUS=1 connections");
    let status = service.terminate();
    assert!(status.success(), "{status}: {}", setup.log());
    receive("STOPPING=1");
}
