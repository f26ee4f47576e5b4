//! Against the real programs: saslauthd as the source of passwords, libsasl's
//! client (in Cyrus's synctest) as the other side.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::machine;

/// The program; `None` where the test is skipped for want of it.
fn program(candidates: &[&'static str]) -> Option<&'static str> {
    let found = candidates.iter().copied().find(|p| Path::new(p).exists());
    if found.is_none() {
        machine::missing(&format!("{} is not installed", candidates[0]));
    }
    found
}

fn config(sources: PasswordSources) -> AuthConfig {
    AuthConfig {
        mechs: None,
        sources,
        admins: vec!["cyrus".into()],
        allow_plaintext: true,
        minimum_layer: 0,
        names: NamePolicy { virtdomains: true, ..NamePolicy::default() },
        service: "csync".into(),
        failed_login_pause: Duration::ZERO,
    }
}

/// Ends the process with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The IMAP server that saslauthd (`-a rimap`) asks: it needs no account of the
/// system. Each log-in is reported; only the one with `"pw"` is right.
fn imap_stub() -> (u16, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (report, reports) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for peer in listener.incoming() {
            let mut peer = peer.unwrap();
            peer.write_all(b"* OK ready\r\n").unwrap();
            let mut line = String::new();
            BufReader::new(&peer).read_line(&mut line).unwrap();
            let verdict = if line.trim_end().ends_with(" \"pw\"") { "OK" } else { "NO" };
            let tag = line.split(' ').next().unwrap_or_default();
            peer.write_all(format!("{tag} {verdict} done\r\n").as_bytes()).unwrap();
            if report.send(line.trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    (port, reports)
}

/// With `-r` the realm is joined to the name again, so that the stub shows it.
fn start_saslauthd(program: &str, dir: &Path, port: u16) -> Running {
    let child = Command::new(program)
        .args(["-d", "-a", "rimap", "-O", &format!("127.0.0.1/{port}")])
        .args(["-n", "1", "-r", "-m"])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let running = Running(child);
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::os::unix::net::UnixStream::connect(dir.join("mux")).is_err() {
        assert!(Instant::now() < deadline, "saslauthd does not listen");
        thread::sleep(Duration::from_millis(20));
    }
    running
}

#[test]
fn real_saslauthd_checks_passwords() {
    let Some(program) = program(&["/usr/sbin/saslauthd"]) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (port, reports) = imap_stub();
    let _daemon = start_saslauthd(program, dir.path(), port);
    let socket = dir.path().join("mux");
    let by_dir = config(PasswordSources::saslauthd(dir.path().to_owned()));
    let by_socket = config(PasswordSources::saslauthd(socket));
    for config in [by_dir, by_socket] {
        let authenticator = Authenticator::new(config);
        let plain = |message: &[u8]| {
            authenticator.start("PLAIN", Some(message), false, &ChannelBindings::default()).1
        };
        let next = || reports.recv_timeout(Duration::from_secs(10)).unwrap();

        assert!(matches!(plain(b"\0cyrus\0pw"), Step::Success(id) if id.is_admin));
        assert_eq!(next(), "saslauthd LOGIN \"cyrus\" \"pw\"");
        assert!(matches!(plain(b"\0tom@example.org\0pw"), Step::Success(id) if !id.is_admin));
        assert_eq!(next(), "saslauthd LOGIN \"tom@example.org\" \"pw\"");
        let wrong = plain(b"\0cyrus\0no");
        assert!(matches!(wrong, Step::Failure(AuthFailure::WrongPassword { .. })));
        assert_eq!(next(), "saslauthd LOGIN \"cyrus\" \"no\"");

        let long = [b"\0cyrus\0".to_vec(), vec![b'x'; 257]].concat();
        for unasked in [&b"\0cyrus\0"[..], &long] {
            let refused = plain(unasked);
            assert!(matches!(refused, Step::Failure(AuthFailure::WrongPassword { .. })));
        }
        let (exchange, _) =
            authenticator.start("LOGIN", Some(b"cyrus"), false, &ChannelBindings::default());
        let nul = exchange.unwrap().step(b"pw\0");
        assert!(matches!(nul, Step::Failure(AuthFailure::WrongPassword { .. })));
        assert!(reports.try_recv().is_err(), "the daemon was not asked");

        let longest = [b"\0cyrus\0".to_vec(), vec![b'x'; 256]].concat();
        plain(&longest);
        assert_eq!(next().len(), "saslauthd LOGIN \"cyrus\" \"\"".len() + 256);
    }
}

/// Serves one connection as a csync server does up to the verdict.
fn serve(stream: TcpStream, authenticator: &Authenticator, mech: &str) -> Step {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    write!(stream, "* SASL {mech}\r\n* OK here Cyrus backup server\r\n").unwrap();
    let mut read = || {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    let command = read();
    let mut words = command.split(' ').skip(1);
    let asked = words.next().unwrap();
    let initial = words.next().map(|w| decode_initial_response(w.as_bytes()).unwrap());
    let (mut exchange, mut step) =
        authenticator.start(asked, initial.as_deref(), false, &ChannelBindings::default());
    while let Step::Challenge(challenge) = step {
        write!(stream, "+ {}\r\n", encode_base64(&challenge)).unwrap();
        step = match decode_base64(read().as_bytes()) {
            Ok(answer) => exchange.as_mut().unwrap().step(&answer),
            Err(failure) => Step::Failure(failure),
        };
    }
    match &step {
        Step::Failure(failure) => write!(stream, "{}\r\n", failure.status_text()).unwrap(),
        _ => write!(stream, "OK Success (no protection)\r\n").unwrap(),
    }
    let _ = write!(stream, "OK bye\r\n");
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = lines.read_to_end(&mut Vec::new());
    step
}

/// At the default cost too: libsasl refuses to compute more.
#[test]
fn real_libsasl_client_logs_in() {
    let Some(program) = program(&["/usr/lib/cyrus/bin/synctest", "/usr/bin/synctest"]) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cyrbk.passwd");
    let file = PasswordFile::new(&path);
    file.set_with("cyrus", "pw", 4096).unwrap();
    file.set_with("tom", "pw", 4096).unwrap();
    file.set("a,b=c", "p,w=").unwrap();
    let authenticator = Authenticator::new(config(PasswordSources::file(path)));
    for mech in ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN"] {
        for (user, password, is_right) in [
            ("cyrus", "pw", true),
            ("cyrus", "no", false),
            ("nobody", "pw", false),
            ("a,b=c", "p,w=", true),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port().to_string();
            let client = Command::new(program)
                .args(["-p", &port, "-m", mech, "-u", user, "-a", user])
                .args(["-w", password, "127.0.0.1"])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn();
            let mut client = Running(client.unwrap());
            let (stream, _) = listener.accept().unwrap();
            let step = serve(stream, &authenticator, mech);
            let mut output = String::new();
            let mut stdout = client.0.stdout.take().unwrap();
            stdout.read_to_string(&mut output).unwrap();
            let case = format!("{mech} {user} {password}: {step:?}\n{output}");
            assert_eq!(matches!(step, Step::Success(_)), is_right, "{case}");
            assert_eq!(output.contains("\nAuthenticated."), is_right, "{case}");
        }
    }
}
