//! A server of our own in this process, with a temporary store.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cyrbk::store::Catalog;
use cyrbk::store::placement::{Placement, Policy};
use cyrbk::sync::SessionSettings;
use cyrbk::sync::auth::{AuthConfig, Authenticator, NamePolicy, PasswordFile, PasswordSources};
use cyrbk::sync::server::{
    Manager, Retirement, Server, ServerLimits, ServerSettings, Site as Store, TelemetryFolder, bind,
};
use cyrbk::wire::frame::Limits;
use cyrbk::wire::mboxname::NameRules;

pub(crate) const ADMIN: &str = "admin";
pub(crate) const USER: &str = "tom";
pub(crate) const PASSWORD: &str = "secret";

/// A running server. It ends with the process.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    root: tempfile::TempDir,
}

/// What tests change.
pub(crate) struct Options {
    pub(crate) root: tempfile::TempDir,
    pub(crate) limits: ServerLimits,
    pub(crate) lines: Limits,
    pub(crate) spool_memory: usize,
    pub(crate) saslauthd: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            root: tempfile::tempdir().unwrap(),
            limits: ServerLimits {
                login_pause: Duration::from_millis(50),
                ..ServerLimits::default()
            },
            lines: Limits { line: 1 << 20, literal: 64 * 1024, body: 8 << 20, bodies: 1024 },
            spool_memory: 1 << 20,
            saslauthd: None,
        }
    }
}

impl Site {
    pub(crate) fn start(options: Options) -> Site {
        let root = options.root;
        let passwords = root.path().join("passwd");
        let sources = match options.saslauthd {
            Some(mux) => PasswordSources::saslauthd(mux),
            None => {
                for user in [ADMIN, USER] {
                    PasswordFile::new(&passwords).set(user, PASSWORD).unwrap();
                }
                PasswordSources::file(passwords)
            }
        };
        let authenticator = Authenticator::new(AuthConfig {
            mechs: None,
            sources,
            admins: vec![ADMIN.into()],
            allow_plaintext: true,
            names: NamePolicy {
                virtdomains: false,
                defaultdomain: None,
                loginrealms: Vec::new(),
                username_tolower: true,
            },
            service: "csync".into(),
            failed_login_pause: options.limits.login_pause,
            minimum_layer: 0,
        });
        let partitions = BTreeMap::from([("one".to_owned(), root.path().join("one"))]);
        let settings = ServerSettings {
            keep_alive: None,
            session: SessionSettings {
                server_name: "backup.example.com".into(),
                mechanisms: authenticator.mechanisms(false),
                mechanisms_private: authenticator.mechanisms(true),
                mechanisms_bound: authenticator.mechanisms_bound(),
                offers_external: false,
                limits: options.lines,
                spool_memory: options.spool_memory,
            },
            site: Store {
                catalog: Catalog::open(root.path().join("backups.db")),
                placement: Placement::new(Policy { partitions, umask: 0o077, ..Policy::default() }),
                names: NameRules::default(),
                authenticator,
                staging_path: root.path().join("staging"),
                open_backups_max: 4,
            },
            limits: options.limits,
            tls: None,
            telemetry: TelemetryFolder { path: root.path().join("log"), service: "backupd".into() },
        };
        let sockets = bind("127.0.0.1:0").unwrap();
        let server = Server::new(settings, sockets, Manager::None, Retirement::default()).unwrap();
        let address = server.addresses()[0];
        std::thread::spawn(move || server.run());
        Site { address, root }
    }

    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    /// Octets that sessions have in the staging area.
    pub(crate) fn staged(&self) -> u64 {
        let staging = self.path().join("staging");
        let open = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
        // Those of others come and go meanwhile.
        let is_staged =
            |path: &PathBuf| fs::read_link(path).is_ok_and(|to| to.starts_with(&staging));
        open.filter(is_staged).map(|path| fs::metadata(path).map_or(0, |meta| meta.len())).sum()
    }

    /// Every file of the store with its octets.
    pub(crate) fn store(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        collect(&self.root.path().join("one"), &mut files);
        files
    }
}

fn collect(dir: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
}
