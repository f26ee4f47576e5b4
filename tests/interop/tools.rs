//! `ctl_backups` and `cyr_backup`, of either maker, on either maker's store.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::backup_server::{BackupServer, CYRBK, Maker};
use crate::cyrus::{Cyrus, clean_command};
use crate::process::{Output, run};

const TIMEOUT: Duration = Duration::from_secs(60);

/// The tools of one maker.
pub(crate) struct Tools {
    cyrus: Cyrus,
    maker: Maker,
    /// Holds the symbolic links by which cyrbk knows which tool it is.
    links: TempDir,
}

impl Tools {
    /// The tools of `maker`.
    pub(crate) fn new(cyrus: &Cyrus, maker: Maker) -> Self {
        let links = tempfile::tempdir().unwrap();
        for tool in ["ctl_backups", "cyr_backup"] {
            symlink(CYRBK, links.path().join(tool)).unwrap();
        }
        Self { cyrus: cyrus.clone(), maker, links }
    }

    /// `ctl_backups -C conf-of-server args`, not yet run.
    pub(crate) fn ctl_backups_command(&self, server: &BackupServer, args: &[&str]) -> Command {
        self.command("ctl_backups", &server.imapd_conf(), args)
    }

    /// Runs `ctl_backups` on the server's store.
    pub(crate) fn ctl_backups(&self, server: &BackupServer, args: &[&str]) -> Output {
        run(self.ctl_backups_command(server, args), TIMEOUT)
    }

    /// Runs `cyr_backup` on the server's store.
    pub(crate) fn cyr_backup(&self, server: &BackupServer, args: &[&str]) -> Output {
        run(self.command("cyr_backup", &server.imapd_conf(), args), TIMEOUT)
    }

    fn command(&self, tool: &str, imapd_conf: &Path, args: &[&str]) -> Command {
        let mut command = match self.maker {
            Maker::Cyrus => self.cyrus.command(tool),
            Maker::Cyrbk => clean_command(&self.links.path().join(tool)),
        };
        command.arg("-C").arg(imapd_conf).args(args);
        command
    }
}

/// One backup as `ctl_backups list` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) userid: String,
    pub(crate) data_file: std::path::PathBuf,
}

/// The lines of `ctl_backups list`.
pub(crate) fn parse_list(stdout: &str) -> Vec<Listed> {
    stdout
        .lines()
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            assert_eq!(columns.len(), 4, "{stdout}");
            Listed { userid: columns[2].to_owned(), data_file: columns[3].into() }
        })
        .collect()
}

/// Panics unless both runs ended with the same code and printed the same.
pub(crate) fn assert_same_output(real: &Output, tested: &Output) {
    assert!(
        real.code() == tested.code()
            && real.stdout == tested.stdout
            && real.stderr == tested.stderr,
        "the tools do not agree\nreal: {real}\ntested: {tested}"
    );
}
