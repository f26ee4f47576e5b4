//! A real Cyrus mail server that takes replication in both ways: `sync_server` on a csync port and
//! `imapd` with `X-REPLICATION`.

use std::path::Path;
use std::time::Duration;

use cyrbk::sync::client::{Certificates, Destination, Login, Options, Password, Protocol, Verify};

use crate::cyrus::Cyrus;
use crate::imap::Imap;
use crate::process::{Service, wait_for};
use crate::site::{ADMIN, PASSWORD, add_account, server_conf, start_master};
use crate::workspace::{Workspace, free_port};

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The same, for STARTTLS at both doors, which newer servers only offer if they are told to.
pub(crate) const TLS: [&str; 3] =
    ["tls_server_cert: ROOT/cert.pem", "tls_server_key: ROOT/key.pem", "allowstarttls: yes"];

/// See the module. Stopped on drop.
pub(crate) struct Replica {
    // Before the workspace: the server stops before its directory goes.
    _master: Service,
    pub(crate) workspace: Workspace,
    pub(crate) csync_port: u16,
    pub(crate) imap_port: u16,
}

impl Replica {
    /// Starts an empty server with accounts for `users`. `changes` replace or follow the options
    /// of the common configuration, one `name: value` each; `ROOT` is the server's directory.
    pub(crate) fn start(cyrus: &Cyrus, users: &[&str], changes: &[&str]) -> Self {
        let cyrus = &cyrus.mail_server();
        let workspace = Workspace::new(cyrus, "replica");
        for dir in ["conf", "spool", "sieve", "tmp"] {
            workspace.make_dir(dir);
        }
        let root = workspace.path().display().to_string();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        workspace.write("cert.pem", &made.cert.pem());
        workspace.write("key.pem", &made.signing_key.serialize_pem());
        let common = server_conf(workspace.path())
            + &format!(
                "defaultpartition: default\npartition-default: {root}/spool\n\
                 sievedir: {root}/sieve\nsieveusehomedir: no\ndelete_mode: delayed\n\
                 expunge_mode: delayed\naltnamespace: no\nunixhierarchysep: no\n"
            );
        let name_of = |line: &str| line.split(':').next().unwrap().to_owned();
        let is_kept = |line: &&str| !changes.iter().any(|change| name_of(change) == name_of(line));
        let lines = common.lines().filter(is_kept).chain(changes.iter().copied());
        let conf: String = lines.map(|line| line.replace("ROOT", &root) + "\n").collect();
        let imapd_conf = workspace.write("imapd.conf", &conf);
        let (csync_port, imap_port) = (free_port(), free_port());
        let conf_path = imapd_conf.display();
        let cyrus_conf = workspace.write(
            "cyrus.conf",
            &format!(
                "START {{\n  recover cmd=\"ctl_cyrusdb -C {conf_path} -r\"\n}}\nSERVICES {{\n  \
                 imap cmd=\"imapd -C {conf_path}\" listen=\"127.0.0.1:{imap_port}\" prefork=0 \
                 proto=tcp4\n  \
                 syncserver cmd=\"sync_server -C {conf_path}\" listen=\"127.0.0.1:{csync_port}\" \
                 prefork=0 proto=tcp4\n  \
                 syncsocket cmd=\"sync_server -C {conf_path}\" listen=\"{root}/csync\" \
                 prefork=0\n}}\nEVENTS {{\n}}\n"
            ),
        );
        for user in users.iter().copied().chain([ADMIN]) {
            add_account(&workspace, user);
        }
        let master = start_master(cyrus, &workspace, &imapd_conf, &cyrus_conf);
        for port in [csync_port, imap_port] {
            wait_for("the replica's socket", START_TIMEOUT, || {
                std::net::TcpStream::connect(("127.0.0.1", port)).ok()
            });
        }
        Self { _master: master, workspace, csync_port, imap_port }
    }

    /// A new IMAP session of `user`.
    pub(crate) fn imap(&self, user: &str) -> Imap {
        Imap::login(self.imap_port, user, PASSWORD)
    }

    /// How a client reaches the csync door as the administrator.
    pub(crate) fn csync(&self) -> Options {
        options(self.csync_port, Protocol::Auto)
    }

    /// How a client reaches the csync door for processes of the same machine.
    pub(crate) fn local(&self) -> Options {
        let path = self.workspace.path().join("csync");
        Options::new(Destination::parse(path.to_str().unwrap()).unwrap())
    }

    /// How a client reaches the IMAP door as the administrator.
    pub(crate) fn over_imap(&self) -> Options {
        options(self.imap_port, Protocol::Auto)
    }

    /// The server's certificate as a root.
    pub(crate) fn root(&self) -> Certificates {
        root(&self.workspace.path().join("cert.pem"))
    }
}

/// Options of a client that logs in as the administrator at a loopback port.
pub(crate) fn options(port: u16, protocol: Protocol) -> Options {
    let mut options = Options::new(Destination::parse(&format!("localhost:{port}")).unwrap());
    options.protocol = protocol;
    options.login = Some(Login {
        authname: ADMIN.into(),
        authzid: None,
        password: Password::new(PASSWORD.into()),
        mechanisms: None,
    });
    options
}

/// A certificate of this file is believed, and no other.
pub(crate) fn root(file: &Path) -> Certificates {
    let verify = Verify::Roots { file: Some(file.to_owned()), dir: None };
    Certificates { verify, own: None }
}
