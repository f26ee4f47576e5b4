//! `cyrbk serve` over a directory that outlives it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::machine;

pub(crate) const ADMIN: &str = "admin";
pub(crate) const PASSWORD: &str = "secret";
/// The same with 4,096 rounds instead of the many of `cyrbk passwd`, which unoptimised
/// builds are slow at.
const ADMIN_LINE: &str = "admin:SCRAM-SHA-1$4096:a2lsbC1uaW5lLXNhbHQtMA==\
    $lmeScGGE6V3K/SDSoqXGYB5A1+Y=:3ed4qkmdqKLlcF2+57CBafh1gH4= \
    SCRAM-SHA-256$4096:a2lsbC1uaW5lLXNhbHQtMA==\
    $iW8hu8VCdpq+iS/3QCH7vqIOzy4qZ1vQ4qXCgc+ndrw=\
    :z7BBr8wS2egD6GixFdhDflhMTwDwY6WSGPpAMiEt/40=";
const CYRBK: &str = env!("CARGO_BIN_EXE_cyrbk");

pub(crate) struct Server {
    dir: TempDir,
}

pub(crate) struct Running {
    child: Child,
    port: u16,
}

impl Server {
    pub(crate) fn new() -> Server {
        // Syncs are no matter when only the process dies: in memory there are more rounds.
        let mut builder = tempfile::Builder::new();
        builder.prefix("cyrbk-crash-");
        let dir = builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir()).unwrap();
        let server = Server { dir };
        let root = server.path();
        fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
        machine::give_away(root);
        for name in ["conf", "one", "staging"] {
            fs::create_dir(root.join(name)).unwrap();
            machine::give_away(&root.join(name));
        }
        let shown = root.display();
        let conf = format!(
            "configdirectory: {shown}/conf\nbackuppartition-one: {shown}/one\n\
             backup_staging_path: {shown}/staging\nadmins: {ADMIN}\nservername: crash.test\n\
             allowplaintext: yes\nsasl_mech_list: PLAIN\nsasl_pwcheck_method: auxprop\n\
             failedloginpause: 0s\n{}",
            machine::cyrus_user_option()
        );
        fs::write(server.imapd_conf(), conf).unwrap();
        server.add_account();
        server
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn imapd_conf(&self) -> PathBuf {
        self.path().join("imapd.conf")
    }

    pub(crate) fn catalog(&self) -> PathBuf {
        self.path().join("conf/backups.db")
    }

    /// Returns when it listens.
    pub(crate) fn start(&self) -> Running {
        let mut child = self
            .command("serve")
            .args(["--listen", "127.0.0.1:0"])
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let port = loop {
            let line = log.next().expect("the server listens").unwrap();
            if let Some(address) = line.strip_prefix("listening on ") {
                break address.rsplit(':').next().unwrap().parse().unwrap();
            }
        };
        std::thread::spawn(move || {
            for line in log.map_while(Result::ok).filter(|line| is_unexpected(line)) {
                eprintln!("server: {line}");
            }
        });
        Running { child, port }
    }

    fn add_account(&self) {
        let mut child = self.command("passwd").arg(ADMIN).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("{PASSWORD}\n").as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        let file = self.path().join("conf/cyrbk.passwd");
        let head = fs::read_to_string(&file).unwrap().lines().next().unwrap().to_owned();
        fs::write(&file, format!("{head}\n{ADMIN_LINE}\n")).unwrap();
    }

    pub(crate) fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(CYRBK);
        command.arg(verb).arg("-C").arg(self.imapd_conf());
        command
    }
}

/// Torn members are what this test makes.
fn is_unexpected(line: &str) -> bool {
    let expected = [
        "torn member",
        "kept what is cut",
        "data beyond the index",
        "stored messages that a dead process has left",
        "stored messages that no mailbox has named",
    ];
    !expected.iter().any(|text| line.contains(text))
}

impl Running {
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Of the server.
    #[allow(dead_code)]
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the end in good order.
    pub(crate) fn stop(mut self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the server does not end");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
