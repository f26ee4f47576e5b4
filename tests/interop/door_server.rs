//! Backup servers started in other ways than the usual one: with options of their own, under a
//! real master, with certificates.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::backup_server::CYRBK;
use crate::cyrus::{Cyrus, clean_command};
use crate::mail;
use crate::process::{Service, run_with, wait_for};
use crate::site::{ADMIN, Channel, PASSWORD, Site, changed, server_conf, start_master};
use crate::workspace::{Workspace, free_port};

const PATIENCE: Duration = Duration::from_secs(30);
/// Options for the certificate that every setup has.
pub(crate) const TLS: [&str; 2] =
    ["tls_server_cert: ROOT/cert.pem", "tls_server_key: ROOT/key.pem"];

/// A directory with a configuration, an account for the administrator and a certificate; no
/// server yet.
pub(crate) struct DoorSetup {
    pub(crate) workspace: Workspace,
    pub(crate) imapd_conf: PathBuf,
}

impl DoorSetup {
    /// `changes` replace or follow the options of the common configuration, one `name: value` each.
    pub(crate) fn new(cyrus: &Cyrus, changes: &[&str]) -> Self {
        let workspace = Workspace::new(cyrus, "door");
        for dir in ["conf", "tmp", "one", "staging"] {
            workspace.make_dir(dir);
        }
        let root = workspace.path().display().to_string();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        workspace.write("cert.pem", &made.cert.pem());
        workspace.write("key.pem", &made.signing_key.serialize_pem());
        let common = server_conf(workspace.path())
            + &format!(
                "backuppartition-one: {root}/one\nbackup_staging_path: {root}/staging\n\
                 partition-default: {root}/tmp\n"
            );
        let conf = changed(&common, changes).replace("ROOT", &root);
        let imapd_conf = workspace.write("imapd.conf", &conf);
        let setup = Self { workspace, imapd_conf };
        let mut command = clean_command(Path::new(CYRBK));
        command.args(["passwd", "-C"]).arg(&setup.imapd_conf).arg(ADMIN);
        let _ = run_with(command, format!("{PASSWORD}\n").as_bytes(), PATIENCE).success();
        setup
    }

    /// Leaves the accounts to what `saslpasswd2` has made: no password file of ours.
    pub(crate) fn without_password_file(self) -> Self {
        fs::remove_file(self.workspace.path().join("conf/cyrbk.passwd")).unwrap();
        self
    }

    /// A program of ours under the name `backupd`, where everybody can run it.
    pub(crate) fn backupd(&self) -> PathBuf {
        let path = self.workspace.path().join("backupd");
        if !path.exists() {
            // By another process: a file that is open for writing anywhere in this one when a
            // child is forked cannot be executed.
            let mut copy = clean_command(Path::new("cp"));
            copy.arg(CYRBK).arg(&path);
            let _ = run_with(copy, b"", PATIENCE).success();
        }
        path
    }

    /// Puts another file in the place of [`DoorSetup::backupd`], as package managers do.
    pub(crate) fn replace_backupd(&self) {
        let (path, next) = (self.backupd(), self.workspace.path().join("backupd.next"));
        let mut copy = clean_command(Path::new("cp"));
        copy.arg(CYRBK).arg(&next);
        let _ = run_with(copy, b"", PATIENCE).success();
        fs::rename(next, path).unwrap();
    }

    /// `cyrbk serve` with more words.
    pub(crate) fn serve_command(&self, args: &[&str]) -> Command {
        let mut command = clean_command(Path::new(CYRBK));
        command.args(["serve", "-C"]).arg(&self.imapd_conf).args(args);
        command
    }

    /// What the server printed.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.workspace.path().join("master.log")).unwrap_or_default()
    }

    /// Waits for `text` in what the server prints.
    pub(crate) fn wait_for_log(&self, text: &str) {
        wait_for(text, PATIENCE, || self.log().contains(text).then_some(()));
    }

    /// Starts a program whose standard error is the log.
    pub(crate) fn spawn(&self, mut command: Command) -> Service {
        let log = fs::File::create(self.workspace.path().join("master.log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Service::spawn(command)
    }

    /// `cyrbk serve`, listening on a port of its own besides what `args` say.
    pub(crate) fn serve(&self, args: &[&str]) -> (Service, u16) {
        let args = [&["--listen", "127.0.0.1:0"], args].concat();
        let service = self.spawn(self.serve_command(&args));
        let port = wait_for("`listening on`", PATIENCE, || {
            let text = self.log();
            let (line, _) = text.split_once("listening on ")?.1.split_once('\n')?;
            line.trim_end().rsplit(':').next()?.parse().ok()
        });
        (service, port)
    }

    /// Our `backupd` with these words, started by a real master.
    pub(crate) fn master(&self, cyrus: &Cyrus, options: &str) -> (Service, u16) {
        self.master_of(cyrus, &self.backupd().display().to_string(), options)
    }

    /// Any `backupd`, such as Cyrus's own of that name.
    pub(crate) fn master_of(&self, cyrus: &Cyrus, program: &str, options: &str) -> (Service, u16) {
        let port = free_port();
        let conf = self.imapd_conf.display().to_string();
        let cyrus_conf = self.workspace.write(
            "cyrus.conf",
            &format!(
                "START {{\n}}\nSERVICES {{\n  backupd cmd=\"{program} -C {conf} {options}\" \
                 listen=\"127.0.0.1:{port}\" prefork=0 maxchild=10 proto=tcp4\n}}\nEVENTS {{\n}}\n"
            ),
        );
        let service = start_master(cyrus, &self.workspace, &self.imapd_conf, &cyrus_conf);
        wait_for("master's socket", PATIENCE, || TcpStream::connect(("127.0.0.1", port)).ok());
        (service, port)
    }
}

/// Reads lines up to the one that begins with `end`.
pub(crate) fn read_through(reader: &mut impl BufRead, end: &str) -> String {
    let mut text = String::new();
    loop {
        let start = text.len();
        let len = reader.read_line(&mut text).unwrap();
        if len == 0 || text[start..].starts_with(end) {
            return text;
        }
    }
}

/// The banner of a connection, and the connection.
pub(crate) fn banner(port: u16) -> (String, BufReader<TcpStream>) {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    let mut reader = BufReader::new(stream);
    (read_through(&mut reader, "* OK"), reader)
}

/// Sends a line, returns the line that answers it.
pub(crate) fn ask<S: Read + Write>(reader: &mut BufReader<S>, line: &str) -> String {
    reader.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
    let mut reply = String::new();
    reader.read_line(&mut reply).unwrap();
    reply
}

/// Panics unless a user's mail goes through the door at `port`, and nothing is left to be sent.
pub(crate) fn assert_replicates(cyrus: &Cyrus, port: u16, args: &[&str]) {
    assert_user_replicates(cyrus, port, "tom", args);
}

pub(crate) fn assert_user_replicates(cyrus: &Cyrus, port: u16, user: &str, args: &[&str]) {
    let site = Site::start(cyrus, &[user], &[Channel::new("door", port, true)]);
    site.imap(ADMIN).create(&format!("user.{user}"));
    site.imap(user).append("INBOX", "", 1_000_000_000, &mail::note(1).bytes);
    let run = site.sync("door", &[args, &["-u", user]].concat()).success();
    run.assert_sent("APPLY MESSAGE");
    let again = site.sync("door", &[args, &["-u", user]].concat()).success();
    assert_eq!(again.applied(), Vec::<String>::new(), "{}", again.output);
}

/// SIGHUP to a service alone, not to what it has started.
pub(crate) fn hang_up(service: &Service) {
    let pid = nix::unistd::Pid::from_raw(service.child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
}
