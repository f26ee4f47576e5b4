//! A backup server: the real `backupd` under its own master, or `cyrbk serve`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::cyrus::{Cyrus, clean_command};
use crate::mail::guid;
use crate::process::{Service, run, run_with, wait_for};
use crate::raw_csync::RawCsync;
use crate::site::{ADMIN, PASSWORD, add_account, server_conf, start_master};
use crate::workspace::{Workspace, free_port};

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The program under test.
pub(crate) const CYRBK: &str = env!("CARGO_BIN_EXE_cyrbk");

/// Whose program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Maker {
    /// Debian's Cyrus.
    Cyrus,
    /// This project.
    Cyrbk,
}

impl Maker {
    /// cyrbk; with `CYRBK_INTEROP_SELFTEST=1` the real programs stand in for it.
    pub(crate) fn under_test() -> Self {
        let selftest = std::env::var_os("CYRBK_INTEROP_SELFTEST").is_some_and(|v| v == "1");
        if selftest { Self::Cyrus } else { Self::Cyrbk }
    }
}

/// A running backup server with an own store. Stopped on drop.
pub(crate) struct BackupServer {
    pub(crate) maker: Maker,
    pub(crate) port: u16,
    cyrus: Cyrus,
    // Before the workspace: the server stops before its directory goes.
    service: Service,
    workspace: Workspace,
}

impl BackupServer {
    /// Starts a server with an empty store; `others` have accounts but no rights.
    pub(crate) fn start(cyrus: &Cyrus, maker: Maker, others: &[&str]) -> Self {
        let label = if maker == Maker::Cyrus { "backupd" } else { "cyrbk" };
        let workspace = Workspace::new(cyrus, label);
        for dir in ["conf", "tmp", "one", "staging"] {
            workspace.make_dir(dir);
        }
        let root = workspace.path().display();
        let conf = server_conf(workspace.path())
            + &format!(
                "backuppartition-one: {root}/one\nbackup_staging_path: {root}/staging\n\
                 partition-default: {root}/tmp\n"
            );
        let imapd_conf = workspace.write("imapd.conf", &conf);
        let (service, port) = match maker {
            Maker::Cyrus => start_backupd(cyrus, &workspace, &imapd_conf, others),
            Maker::Cyrbk => start_cyrbk(&workspace, &imapd_conf, others),
        };
        wait_for("the backup server's banner", START_TIMEOUT, || RawCsync::try_connect(port).ok());
        let cyrus = cyrus.clone();
        Self { maker, port, cyrus, service, workspace }
    }

    /// The configuration, for the server and for the tools.
    pub(crate) fn imapd_conf(&self) -> PathBuf {
        self.workspace.path().join("imapd.conf")
    }

    /// The data base of users and their data files.
    pub(crate) fn catalog(&self) -> PathBuf {
        self.workspace.path().join("conf/backups.db")
    }

    /// A directory for copies, beside the store.
    pub(crate) fn make_dir(&self, name: &str) -> PathBuf {
        self.workspace.make_dir(name)
    }

    /// Makes the Cyrus user the owner of a file put there.
    pub(crate) fn give_away(&self, path: &Path) {
        self.workspace.give_away(path);
    }

    /// SIGTERM; panics unless the server ends in time (and cyrbk with 0).
    pub(crate) fn stop(&mut self) {
        let status = self.service.terminate();
        if self.maker == Maker::Cyrbk {
            assert!(status.success(), "cyrbk ended with {status}: {}", self.log());
        }
    }

    /// Panics if the server is gone or does not answer.
    pub(crate) fn assert_alive(&mut self) {
        assert!(self.service.try_status().is_none(), "the server died: {}", self.log());
        let mut csync = RawCsync::login(self.port, ADMIN, PASSWORD);
        assert_eq!(csync.ask(b"NOOP\r\n"), "OK Noop completed\r\n");
        assert_eq!(csync.ask(b"EXIT\r\n"), "OK Finished\r\n");
    }

    /// What the server printed.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.workspace.path().join("master.log")).unwrap_or_default()
    }

    /// Waits until no session holds a backup open. The real backupd answers EXIT before it closes
    /// the backups; cyrbk has to close them first.
    pub(crate) fn wait_until_closed(&self) {
        if self.maker == Maker::Cyrbk {
            return;
        }
        wait_for("the backups' closing", START_TIMEOUT, || {
            let mut list = self.cyrus.command("ctl_backups");
            list.arg("-C").arg(self.imapd_conf()).arg("list");
            (run(list, START_TIMEOUT).code() == 0).then_some(())
        });
    }

    /// The real `backupd` on this store and port, once this server has stopped.
    pub(crate) fn start_real(&self, cyrus: &Cyrus) -> Service {
        start_master_with_backupd(cyrus, &self.workspace, &self.imapd_conf(), &[], self.port)
    }

    /// Copies the store aside, under `name`. No session may be open.
    pub(crate) fn save_store(&self, name: &str) {
        let to = self.workspace.make_dir(name);
        copy_tree(&self.workspace.path().join("one"), &to.join("one"));
        fs::copy(self.catalog(), to.join("backups.db")).unwrap();
    }

    /// Puts back what [`BackupServer::save_store`] saved: the same files with older content.
    pub(crate) fn restore_store(&self, name: &str) {
        let from = self.workspace.path().join(name);
        copy_tree(&from.join("one"), &self.workspace.path().join("one"));
        fs::copy(from.join("backups.db"), self.catalog()).unwrap();
    }

    /// The data file of `user`.
    pub(crate) fn data_file(&self, user: &str) -> PathBuf {
        let prefix = format!("{user}_");
        let files = self.store_files().into_keys();
        let named = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.strip_prefix(&prefix).is_some_and(|rest| rest.len() == 6)
        };
        files.into_iter().find(named).unwrap_or_else(|| panic!("{user} has no backup"))
    }

    /// Every file of the store with the SHA-1 of its content.
    pub(crate) fn store_files(&self) -> BTreeMap<PathBuf, String> {
        let mut files = BTreeMap::new();
        collect(&self.workspace.path().join("one"), &mut files);
        collect(&self.catalog(), &mut files);
        files
    }
}

/// Copies files over those of the same name, which keep their owner.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            copy_tree(&from.join(&name), &to.join(&name));
        }
    } else {
        fs::copy(from, to).unwrap();
    }
}

fn collect(path: &Path, files: &mut BTreeMap<PathBuf, String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), files);
        }
    } else if path.exists() {
        files.insert(path.to_owned(), guid(&fs::read(path).unwrap()));
    }
}

fn start_backupd(
    cyrus: &Cyrus,
    workspace: &Workspace,
    imapd_conf: &Path,
    others: &[&str],
) -> (Service, u16) {
    let port = free_port();
    (start_master_with_backupd(cyrus, workspace, imapd_conf, others, port), port)
}

fn start_master_with_backupd(
    cyrus: &Cyrus,
    workspace: &Workspace,
    imapd_conf: &Path,
    others: &[&str],
    port: u16,
) -> Service {
    let cyrus_conf = workspace.write(
        "cyrus.conf",
        &format!(
            "START {{\n}}\nSERVICES {{\n  backupd cmd=\"backupd -C {}\" \
             listen=\"127.0.0.1:{port}\" prefork=0 proto=tcp4\n}}\nEVENTS {{\n}}\n",
            imapd_conf.display()
        ),
    );
    for user in others.iter().copied().chain([ADMIN]) {
        add_account(workspace, user);
    }
    start_master(cyrus, workspace, imapd_conf, &cyrus_conf)
}

fn start_cyrbk(workspace: &Workspace, imapd_conf: &Path, others: &[&str]) -> (Service, u16) {
    for user in others.iter().copied().chain([ADMIN]) {
        let mut command = clean_command(Path::new(CYRBK));
        command.args(["passwd", "-C"]).arg(imapd_conf).arg(user);
        let _ = run_with(command, format!("{PASSWORD}\n").as_bytes(), START_TIMEOUT).success();
    }
    let log_path = workspace.path().join("master.log");
    let log = fs::File::create(&log_path).unwrap();
    let mut command = clean_command(Path::new(CYRBK));
    command.args(["serve", "-C"]).arg(imapd_conf).args(["--listen", "127.0.0.1:0"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let mut service = Service::spawn(command);
    let port = wait_for("cyrbk's `listening on`", START_TIMEOUT, || {
        let text = fs::read_to_string(&log_path).unwrap_or_default();
        if let Some(status) = service.try_status() {
            panic!("cyrbk serve ended with {status}: {text}");
        }
        // The line must be complete.
        let (line, _) = text.split_once("listening on ")?.1.split_once('\n')?;
        line.trim_end().rsplit(':').next()?.parse().ok()
    });
    (service, port)
}
