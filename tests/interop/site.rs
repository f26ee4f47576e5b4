//! A real Cyrus mail server of our own on loopback ports: the replication master.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::backup_server::copy_tree;
use crate::cyrus::{Cyrus, clean_command};
use crate::imap::Imap;
use crate::process::{Output, Service, run, run_with, try_wait_for, wait_for};
use crate::sync_client::SyncRun;
use crate::workspace::{Workspace, free_port};

/// The administrator, on the mail server and on backup servers.
pub(crate) const ADMIN: &str = "admin";
/// Everybody's password.
pub(crate) const PASSWORD: &str = "secret";
/// The SASL realm of all accounts; also the `servername` of all servers.
const REALM: &str = "interop.example.test";
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Enough for 20 MB on a busy machine.
const SYNC_TIMEOUT: Duration = Duration::from_secs(90);

/// Where and as whom one replication channel connects.
#[derive(Clone, Debug)]
pub(crate) struct Channel {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    /// Cyrus's default; costs ten seconds a connection against the real `backupd`.
    pub(crate) try_imap: bool,
    pub(crate) user: &'static str,
    pub(crate) password: &'static str,
}

impl Channel {
    /// A channel that logs in as the administrator.
    pub(crate) fn new(name: &'static str, port: u16, try_imap: bool) -> Self {
        Self { name, port, try_imap, user: ADMIN, password: PASSWORD }
    }
}

/// The running mail server. Stopped on drop.
pub(crate) struct Site {
    cyrus: Cyrus,
    // Before the workspace: the server stops before its directory goes.
    _master: Service,
    workspace: Workspace,
    imap_port: u16,
    sieve_port: u16,
    csync_port: u16,
}

impl Site {
    /// Starts a server with accounts for `users` (no mailboxes yet) that logs for `channels`.
    pub(crate) fn start(cyrus: &Cyrus, users: &[&str], channels: &[Channel]) -> Self {
        Self::start_with(cyrus, users, channels, &[])
    }

    /// [`Site::start`]; `changes` replace or follow the options, one `name: value` each. Users
    /// may be `user@realm`.
    pub(crate) fn start_with(
        cyrus: &Cyrus,
        users: &[&str],
        channels: &[Channel],
        changes: &[&str],
    ) -> Self {
        let cyrus = &cyrus.mail_server();
        let workspace = Workspace::new(cyrus, "site");
        for dir in ["conf", "spool", "second", "sieve", "tmp"] {
            workspace.make_dir(dir);
        }
        let root = workspace.path().display();
        let (imap_port, sieve_port, csync_port) = (free_port(), free_port(), free_port());
        let mut conf = server_conf(workspace.path());
        conf += &format!(
            "defaultpartition: default\npartition-default: {root}/spool\n\
             partition-second: {root}/second\nsievedir: {root}/sieve\nsieveusehomedir: no\n\
             delete_mode: delayed\nexpunge_mode: delayed\n\
             allowusermoves: yes\naltnamespace: no\nunixhierarchysep: no\nsync_log: yes\n\
             sync_log_channels: {}\n",
            channels.iter().map(|channel| channel.name).collect::<Vec<_>>().join(" "),
        );
        for Channel { name, port, try_imap, user, password } in channels {
            conf += &format!(
                "{name}_sync_host: 127.0.0.1\n{name}_sync_port: {port}\n\
                 {name}_sync_authname: {user}\n{name}_sync_password: {password}\n\
                 {name}_sync_realm: {REALM}\n{name}_sync_try_imap: {}\n\
                 {name}_sync_shutdown_file: {root}/conf/stop-{name}\n",
                i32::from(*try_imap),
            );
        }
        let imapd_conf = workspace.write("imapd.conf", &changed(&conf, changes));
        let conf_path = imapd_conf.display();
        let cyrus_conf = workspace.write(
            "cyrus.conf",
            &format!(
                "START {{\n  recover cmd=\"ctl_cyrusdb -C {conf_path} -r\"\n}}\nSERVICES {{\n  \
                 imap cmd=\"imapd -C {conf_path}\" listen=\"127.0.0.1:{imap_port}\" prefork=0 \
                 proto=tcp4\n  \
                 sieve cmd=\"timsieved -C {conf_path}\" listen=\"127.0.0.1:{sieve_port}\" \
                 prefork=0 proto=tcp4\n  \
                 sync cmd=\"sync_server -C {conf_path}\" listen=\"127.0.0.1:{csync_port}\" \
                 prefork=0 proto=tcp4\n}}\nEVENTS {{\n}}\n"
            ),
        );
        for user in users.iter().copied().chain([ADMIN]) {
            add_account(&workspace, user);
        }
        let master = start_master(cyrus, &workspace, &imapd_conf, &cyrus_conf);
        wait_for("the mail server's greeting", START_TIMEOUT, || {
            std::net::TcpStream::connect(("127.0.0.1", imap_port)).ok()
        });
        Self { cyrus: cyrus.clone(), _master: master, workspace, imap_port, sieve_port, csync_port }
    }

    /// A new IMAP session of `user`.
    pub(crate) fn imap(&self, user: &str) -> Imap {
        Imap::login(self.imap_port, user, PASSWORD)
    }

    /// Where its `sync_server` listens.
    pub(crate) fn csync_port(&self) -> u16 {
        self.csync_port
    }

    /// Where its IMAP server listens.
    pub(crate) fn imap_port(&self) -> u16 {
        self.imap_port
    }

    /// Stores a Sieve script for `user`.
    pub(crate) fn put_script(&self, user: &str, name: &str, script: &str, active: bool) {
        crate::managesieve::put_script(self.sieve_port, user, PASSWORD, name, script, active);
    }

    /// The Sieve scripts of `user`, in lines.
    pub(crate) fn scripts(&self, user: &str) -> Vec<String> {
        crate::managesieve::scripts(self.sieve_port, user, PASSWORD)
    }

    /// Leaves `user` without an active Sieve script.
    pub(crate) fn deactivate_scripts(&self, user: &str) {
        crate::managesieve::deactivate(self.sieve_port, user, PASSWORD);
    }

    /// Runs `sync_client -v -v -n channel args` to its end.
    pub(crate) fn sync(&self, channel: &str, args: &[&str]) -> SyncRun {
        self.sync_within(channel, args, SYNC_TIMEOUT)
    }

    /// [`Site::sync`], killed after `timeout`.
    pub(crate) fn sync_within(&self, channel: &str, args: &[&str], timeout: Duration) -> SyncRun {
        SyncRun::new(run(self.sync_command(channel, args), timeout))
    }

    fn sync_command(&self, channel: &str, args: &[&str]) -> Command {
        let mut command = self.cyrus.command("sync_client");
        command.arg("-C").arg(self.workspace.path().join("imapd.conf"));
        command.args(["-v", "-v", "-n", channel]).args(args);
        command
    }

    /// Rolling replication: follows the channel's log until it is worked off, is then told to stop
    /// with the shutdown file. Killed if either takes too long.
    pub(crate) fn sync_rolling(&self, channel: &str) -> SyncRun {
        let [log, log_run] = ["log", "log-run"].map(|name| self.sync_log_path(channel, name));
        let stop_file = format!("conf/stop-{channel}");
        assert!(log.exists(), "nothing was logged for {channel}");
        let mut command = self.sync_command(channel, &["-R"]);
        let trace_path = self.workspace.write(&format!("rolling-{channel}.trace"), "");
        let trace = std::fs::File::create(&trace_path).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(trace);
        let started = std::time::Instant::now();
        let shown = format!("{command:?}");
        let mut service = Service::spawn(command);
        let done =
            try_wait_for(SYNC_TIMEOUT, || (!log.exists() && !log_run.exists()).then_some(()));
        self.workspace.write(&stop_file, "");
        let status = done.and_then(|()| service.wait(SYNC_TIMEOUT));
        drop(service);
        SyncRun::new(Output {
            command: shown,
            status,
            stdout: Vec::new(),
            stderr: std::fs::read(&trace_path).unwrap(),
            elapsed: started.elapsed(),
        })
    }

    /// Runs a program of the mail server, such as `cyr_expire`, on its configuration.
    pub(crate) fn program(&self, program: &str, args: &[&str]) -> Output {
        let mut command = self.cyrus.command(program);
        command.arg("-C").arg(self.workspace.path().join("imapd.conf")).args(args);
        run(command, SYNC_TIMEOUT).success()
    }

    /// Copies all mail aside, under `name`. Nobody may be logged in.
    pub(crate) fn save_spool(&self, name: &str) {
        copy_tree(&self.workspace.path().join("spool"), &self.workspace.make_dir(name));
    }

    /// Puts back what [`Site::save_spool`] saved, into the same mailboxes: what came since is gone.
    pub(crate) fn restore_spool(&self, name: &str) {
        let (from, to) = (self.workspace.path().join(name), self.workspace.path().join("spool"));
        copy_tree(&from, &to);
        remove_others(&to, &from);
    }

    /// The log of changes that await rolling replication.
    pub(crate) fn sync_log_path(&self, channel: &str, name: &str) -> PathBuf {
        self.workspace.path().join("conf/sync").join(channel).join(name)
    }
}

/// Removes the files that `model` does not have.
fn remove_others(dir: &Path, model: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let its_model = model.join(path.file_name().unwrap());
        if path.is_dir() {
            remove_others(&path, &its_model);
        } else if !its_model.exists() {
            fs::remove_file(path).unwrap();
        }
    }
}

/// The part of `imapd.conf` that mail server and backup servers share.
pub(crate) fn server_conf(root: &Path) -> String {
    let root = root.display();
    format!(
        "configdirectory: {root}/conf\ntemp_path: {root}/tmp\nadmins: {ADMIN}\n\
         servername: {REALM}\nvirtdomains: off\nallowplaintext: yes\nsasl_mech_list: PLAIN\n\
         sasl_pwcheck_method: auxprop\nsasl_auxprop_plugin: sasldb\n\
         sasl_sasldb_path: {root}/sasldb2\nfailedloginpause: 0s\n"
    )
}

/// A configuration with some options replaced, and others added.
pub(crate) fn changed(conf: &str, changes: &[&str]) -> String {
    let name_of = |line: &str| line.split(':').next().unwrap().to_owned();
    let is_kept = |line: &&str| !changes.iter().any(|change| name_of(change) == name_of(line));
    conf.lines().filter(is_kept).chain(changes.iter().copied()).map(|l| format!("{l}\n")).collect()
}

/// Adds `user` (or `user@realm`) to the workspace's own SASL data base.
pub(crate) fn add_account(workspace: &Workspace, user: &str) {
    let (user, realm) = user.split_once('@').unwrap_or((user, REALM));
    add_account_of(workspace, user, realm, PASSWORD);
}

/// [`add_account`] in any realm, with any password.
pub(crate) fn add_account_of(workspace: &Workspace, user: &str, realm: &str, password: &str) {
    let path = workspace.path().join("sasldb2");
    let mut command = clean_command(Path::new("/usr/sbin/saslpasswd2"));
    command.args(["-p", "-c", "-u", realm, "-f"]).arg(&path).arg(user);
    let _ = run_with(command, password.as_bytes(), START_TIMEOUT).success();
    workspace.give_away(&path);
}

/// Starts a master in the foreground.
pub(crate) fn start_master(
    cyrus: &Cyrus,
    workspace: &Workspace,
    imapd_conf: &Path,
    cyrus_conf: &Path,
) -> Service {
    let log = std::fs::File::create(workspace.path().join("master.log")).unwrap();
    let mut command = cyrus.command("master");
    command.arg("-C").arg(imapd_conf).arg("-M").arg(cyrus_conf);
    command.arg("-p").arg(workspace.path().join("conf/master.pid")).arg("-D");
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    Service::spawn(command)
}
