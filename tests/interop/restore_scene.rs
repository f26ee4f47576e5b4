//! A mail server, its backup at cyrbk, and `restore` from the one to the other.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::backup_server::{BackupServer, CYRBK, Maker};
use crate::cyrus::{Cyrus, clean_command};
use crate::imap::Imap;
use crate::process::{Output, Service, run, run_with, wait_for};
use crate::site::{ADMIN, Channel, PASSWORD, Site};
use crate::sync_client::SyncRun;
use crate::test_limits::try_memory;

const TIMEOUT: Duration = Duration::from_secs(120);
/// The channel to the backup server.
const CHANNEL: &str = "tested";

/// All three.
pub(crate) struct Scene {
    pub(crate) site: Site,
    pub(crate) server: BackupServer,
    cyrus: Cyrus,
    links: TempDir,
}

impl Scene {
    /// A mail server with accounts for `users` (no mailboxes yet).
    pub(crate) fn start(cyrus: &Cyrus, users: &[&str]) -> Self {
        Self::start_with(cyrus, users, &[])
    }

    /// [`Scene::start`] with changes of the mail server's options.
    pub(crate) fn start_with(cyrus: &Cyrus, users: &[&str], changes: &[&str]) -> Self {
        let server = BackupServer::start(cyrus, Maker::Cyrbk, users);
        let channel = Channel::new(CHANNEL, server.port, false);
        let site = Site::start_with(cyrus, users, &[channel], changes);
        let links = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(CYRBK, links.path().join("restore")).unwrap();
        let conf = std::fs::read_to_string(server.imapd_conf()).unwrap()
            + &format!("sync_authname: {ADMIN}\nsync_password: {PASSWORD}\n")
            + "sync_realm: interop.example.test\nsync_try_imap: no\n";
        let path = server.imapd_conf().with_file_name("restore.conf");
        std::fs::write(&path, conf).unwrap();
        server.give_away(&path);
        Self { site, server, cyrus: cyrus.clone(), links }
    }

    /// Makes tom's INBOX and a folder `Work`; the administrator may do anything with the INBOX.
    pub(crate) fn give_tom_mailboxes(&self) {
        let mut admin = self.site.imap(ADMIN);
        admin.create("user.tom");
        admin.create("user.tom.Work");
        admin.ok(&format!("SETACL user.tom {ADMIN} lrswipkxtecda"));
        admin.logout();
    }

    /// Backs up a user, or with other arguments of `sync_client` something else.
    pub(crate) fn sync(&self, args: &[&str]) -> SyncRun {
        self.site.sync(CHANNEL, args).success()
    }

    /// The mail server's csync port, as an operand.
    pub(crate) fn destination(&self) -> String {
        format!("127.0.0.1:{}", self.site.csync_port())
    }

    /// The configuration of `restore`.
    pub(crate) fn restore_conf(&self) -> PathBuf {
        self.server.imapd_conf().with_file_name("restore.conf")
    }

    /// Runs `restore` in its old shape. `SERVER` among the words stands for the mail server.
    pub(crate) fn restore(&self, words: &[&str]) -> Output {
        self.run(clean_command(&self.links.path().join("restore")), words)
    }

    /// Runs the real `restore`.
    pub(crate) fn real_restore(&self, words: &[&str]) -> Output {
        self.run(self.cyrus.command("restore"), words)
    }

    /// Runs `cyrbk restore`.
    pub(crate) fn cyrbk_restore(&self, words: &[&str]) -> Output {
        let mut command = clean_command(Path::new(CYRBK));
        command.arg("restore");
        self.run(command, words)
    }

    /// The same with something on standard input.
    pub(crate) fn cyrbk_restore_from(&self, words: &[&str], input: &[u8]) -> Output {
        let mut command = clean_command(Path::new(CYRBK));
        command.arg("restore");
        self.add_words(&mut command, words);
        run_with(command, input, TIMEOUT)
    }

    /// Runs `cyrbk` with another command.
    pub(crate) fn cyrbk(&self, name: &str, words: &[&str]) -> Output {
        let mut command = clean_command(Path::new(CYRBK));
        command.arg(name);
        self.run(command, words)
    }

    /// The most memory, in KiB, that a successful `cyrbk restore` had.
    pub(crate) fn peak_of_cyrbk_restore(&self, words: &[&str]) -> u64 {
        let mut command = clean_command(Path::new(CYRBK));
        command.arg("restore");
        self.add_words(&mut command, words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        let mut service = Service::spawn(command);
        let mut peak = 0;
        let status = wait_for("the restore", Duration::from_secs(1800), || {
            let now = try_memory(service.child.id(), "VmHWM");
            peak = peak.max(now.unwrap_or_default());
            service.try_status()
        });
        assert!(status.success(), "{status}");
        peak
    }

    fn run(&self, mut command: Command, words: &[&str]) -> Output {
        self.add_words(&mut command, words);
        run(command, TIMEOUT)
    }

    fn add_words(&self, command: &mut Command, words: &[&str]) {
        let destination = self.destination();
        command.arg("-C").arg(self.restore_conf());
        command.args(words.iter().map(|word| word.replace("SERVER", &destination)));
    }

    /// Everything that clients can see of a user, in lines.
    pub(crate) fn everything(&self, user: &str) -> Vec<String> {
        let mut seen = Vec::new();
        let mut imap = self.site.imap(user);
        let mut names = list(&mut imap, "LIST \"\" *");
        names.sort();
        for name in &names {
            seen.push(format!("== {name}"));
            seen.extend(imap.snapshot(name).into_iter().filter(|line| !line.contains("RECENT")));
            let entries = "(/shared/comment /private/comment)";
            seen.extend(imap.lines(&format!("GETMETADATA \"{name}\" {entries}")));
            seen.extend(imap.lines(&format!("GETQUOTAROOT \"{name}\"")));
            imap.select(name);
            seen.extend(
                imap.lines("UID FETCH 1:* (ANNOTATION (\"/*\" (\"value.priv\" \"value.shared\")))"),
            );
            imap.unselect();
        }
        let mut subscribed = list(&mut imap, "LSUB \"\" *");
        subscribed.sort();
        seen.push(format!("subscribed: {subscribed:?}"));
        let mut admin = self.site.imap(ADMIN);
        for name in names {
            let internal = name.replacen("INBOX", &format!("user.{user}"), 1);
            seen.extend(admin.lines(&format!("GETACL \"{internal}\"")));
        }
        seen.extend(self.site.scripts(user));
        seen
    }
}

/// Names in the answers to LIST or LSUB.
pub(crate) fn list(imap: &mut Imap, command: &str) -> Vec<String> {
    let lines = imap.lines(command);
    lines
        .iter()
        .filter(|line| line.starts_with("* L"))
        .filter_map(|line| {
            let (_, rest) = line.split_once(") \".\" ")?;
            Some(rest.trim_matches('"').to_owned())
        })
        .collect()
}
