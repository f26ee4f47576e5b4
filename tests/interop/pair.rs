//! One mail server replicated into two stores, the real `backupd`'s and that of the server under
//! test, and the checks that hold for both.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::backup_server::{BackupServer, Maker};
use crate::cyrus::Cyrus;
use crate::index_rows;
use crate::mail::guid;
use crate::process::Output;
use crate::site::{Channel, Site};
use crate::sync_client::SyncRun;
use crate::tools::{Tools, assert_same_output, parse_list};

/// The channel to the real `backupd`.
const REAL: &str = "real";
/// The channel to the server under test.
const TESTED: &str = "tested";

/// The mail server, both backup servers, both sets of tools.
pub(crate) struct Pair {
    pub(crate) site: Site,
    pub(crate) real: BackupServer,
    pub(crate) tested: BackupServer,
    real_tools: Tools,
    tested_tools: Tools,
}

impl Pair {
    /// Starts everything, with accounts for `users`.
    pub(crate) fn start(cyrus: &Cyrus, users: &[&str]) -> Self {
        let maker = Maker::under_test();
        let real = BackupServer::start(cyrus, Maker::Cyrus, users);
        let tested = BackupServer::start(cyrus, maker, users);
        let channels = [
            Channel::new(REAL, real.port, false),
            // Cyrus's default, unless the real backupd stands in.
            Channel::new(TESTED, tested.port, maker == Maker::Cyrbk),
        ];
        let site = Site::start(cyrus, users, &channels);
        let [real_tools, tested_tools] =
            [Maker::Cyrus, maker].map(|maker| Tools::new(cyrus, maker));
        Self { site, real, tested, real_tools, tested_tools }
    }

    /// Replicates into both stores; both runs must end with 0. Returns the tested one.
    pub(crate) fn sync(&self, args: &[&str]) -> SyncRun {
        let _ = self.site.sync(REAL, args).success();
        let run = self.site.sync(TESTED, args).success();
        self.wait_until_closed();
        run
    }

    /// A rolling run into both stores; both must end with 0. Returns the tested one.
    pub(crate) fn sync_rolling(&self) -> SyncRun {
        let _ = self.site.sync_rolling(REAL).success();
        let run = self.site.sync_rolling(TESTED).success();
        self.wait_until_closed();
        run
    }

    /// Waits until the sessions of earlier runs have closed the backups.
    pub(crate) fn wait_until_closed(&self) {
        self.real.wait_until_closed();
        self.tested.wait_until_closed();
    }

    /// Panics if another run with `args` sends any change, other than those in `repeated`, which
    /// the client sends each time whatever the server says.
    pub(crate) fn assert_settled(&self, args: &[&str], repeated: &[&str]) {
        let run = self.site.sync(TESTED, args).success();
        self.tested.wait_until_closed();
        assert!(!run.requests().is_empty(), "no trace: {}", run.output);
        let applied: Vec<String> =
            run.applied().into_iter().filter(|name| !repeated.contains(&name.as_str())).collect();
        assert!(applied.is_empty(), "not settled: {applied:?}\n{}", run.output);
    }

    /// Panics unless both stores hold the same users with the same logical index, in files with the
    /// same owner and mode.
    pub(crate) fn assert_same_rows(&self) {
        let [real, tested] = [&self.real, &self.tested].map(|server| self.data_files(server));
        assert_eq!(
            real.keys().collect::<Vec<_>>(),
            tested.keys().collect::<Vec<_>>(),
            "the users differ"
        );
        for (userid, data_file) in &real {
            let other = &tested[userid];
            index_rows::assert_same(userid, &index_of(data_file), &index_of(other));
            assert_eq!(access(data_file), access(other), "{userid}: data file");
            assert_eq!(access(&index_of(data_file)), access(&index_of(other)), "{userid}: index");
        }
        let [real, tested] = [&self.real, &self.tested].map(|server| access(&server.catalog()));
        assert_eq!(real, tested, "backups.db");
    }

    /// Panics unless each message dumped from the tested store equals the original octet for octet,
    /// by both sets of tools, and the real store's by the tested tools.
    pub(crate) fn assert_dumps(&self, user: &str, mailbox: &str) {
        let fetched = self.site.imap(user).fetch_all(mailbox);
        assert!(!fetched.is_empty(), "{mailbox} of {user} is empty");
        for message in fetched {
            let guid = guid(&message.body);
            let dump = |tools: &Tools, server: &BackupServer| {
                let output = tools.cyr_backup(server, &[user, "dump", "message", &guid]).success();
                assert!(
                    output.stdout == message.body,
                    "{user} {mailbox} uid {} differs from the original: {} octets for {}",
                    message.uid,
                    output.stdout.len(),
                    message.body.len()
                );
            };
            dump(&self.tested_tools, &self.tested);
            dump(&self.real_tools, &self.tested);
            dump(&self.tested_tools, &self.real);
        }
    }

    /// Panics unless both sets of tools say the same, word for word, about both stores: `list`,
    /// `verify` and every list of `cyr_backup`; and that `verify` is content with each backup. The
    /// backups in `unverifiable` hold `{n+}` literals, which Debian's own tools cannot read back;
    /// only the tested `verify` has to accept those.
    pub(crate) fn assert_tools_agree(&self, unverifiable: &[&str]) {
        for server in [&self.real, &self.tested] {
            let _ = self.same_ctl_backups(server, &["list"]);
            for (userid, data_file) in self.data_files(server) {
                let name = data_file.to_str().unwrap();
                // `%SHARED` can only be named by its file.
                let by_file = userid == "[unknown]" || userid.starts_with('%');
                let (modes, key): (&[&str], &str) =
                    if by_file { (&["-f"], name) } else { (&[], &userid) };
                let _ = self.same_ctl_backups(server, &[&["list"], modes, &[key]].concat());
                for what in ["chunks", "mailboxes", "messages", "all"] {
                    let _ = self.same_cyr_backup(server, &[modes, &[key, "list", what]].concat());
                }
                if self.tested.maker == Maker::Cyrbk {
                    // Both directions, whoever has written it.
                    let deep = [&["verify", "--deep"], modes, &[key]].concat();
                    let _ = self.tested_tools.ctl_backups(server, &deep).success();
                }
                let verify = [&["verify"], modes, &[key]].concat();
                if unverifiable.contains(&userid.as_str()) {
                    if self.tested.maker == Maker::Cyrbk {
                        let _ = self.tested_tools.ctl_backups(server, &verify).success();
                    }
                } else {
                    let output = self.same_ctl_backups(server, &verify);
                    assert_eq!(output.code(), 0, "{output}");
                    let _ = self.same_ctl_backups(
                        server,
                        &[&["verify", "-v", "-v"], modes, &[key]].concat(),
                    );
                }
            }
        }
    }

    /// Panics unless the real tools accept a copy of the tested backup of `user` at another place.
    pub(crate) fn assert_copy_usable(&self, user: &str) {
        let dir = self.tested.make_dir("copy");
        let data_file = &self.data_files(&self.tested)[user];
        let copy = dir.join("moved");
        for (from, to) in
            [(data_file.clone(), copy.clone()), (index_of(data_file), index_of(&copy))]
        {
            fs::copy(from, &to).unwrap();
            self.tested.give_away(&to);
        }
        let name = copy.to_str().unwrap();
        let _ = self.same_ctl_backups(&self.tested, &["verify", "-f", name]).success();
        let _ = self.same_cyr_backup(&self.tested, &["-f", name, "list", "messages"]).success();
    }

    /// The number of rows in the tested index of `user`.
    pub(crate) fn tested_rows(&self, user: &str, table: &str, condition: &str) -> i64 {
        let data_file = &self.data_files(&self.tested)[user];
        index_rows::count(&index_of(data_file), table, condition)
    }

    /// The backups of a store by user, as the real tools list them.
    fn data_files(&self, server: &BackupServer) -> BTreeMap<String, PathBuf> {
        let output = self.real_tools.ctl_backups(server, &["list"]).success();
        let listed = parse_list(&output.stdout_text());
        listed.into_iter().map(|backup| (backup.userid, backup.data_file)).collect()
    }

    fn same_ctl_backups(&self, server: &BackupServer, args: &[&str]) -> Output {
        let real = self.real_tools.ctl_backups(server, args);
        assert_same_output(&real, &self.tested_tools.ctl_backups(server, args));
        real
    }

    fn same_cyr_backup(&self, server: &BackupServer, args: &[&str]) -> Output {
        let real = self.real_tools.cyr_backup(server, args);
        assert_same_output(&real, &self.tested_tools.cyr_backup(server, args));
        real
    }
}

fn index_of(data_file: &Path) -> PathBuf {
    let mut name = data_file.as_os_str().to_owned();
    name.push(".index");
    name.into()
}

/// Owner, group and mode, for messages in readable form.
fn access(path: &Path) -> String {
    let metadata = fs::metadata(path).unwrap();
    format!("{}:{} {:o}", metadata.uid(), metadata.gid(), metadata.mode())
}
