//! The installed Cyrus, and what happens to tests where there is none.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Uid, User};

use crate::machine;

/// Where packages put the programs: Debian and Ubuntu, then the usual prefixes.
const PROGRAM_DIRS: [&str; 4] =
    ["/usr/lib/cyrus/bin", "/usr/libexec/cyrus-imapd", "/usr/cyrus/bin", "/usr/sbin"];
const PROGRAMS: [&str; 8] = [
    "master",
    "imapd",
    "timsieved",
    "ctl_cyrusdb",
    "backupd",
    "sync_client",
    "ctl_backups",
    "cyr_backup",
];

/// Names another installation for the mail server and its clients: see the crate's top.
const OTHER_MAIL_SERVER: &str = "CYRBK_CYRUS_PREFIX";
/// Where an installation has its programs, below its prefix.
const BELOW_PREFIX: [&str; 5] = ["", "libexec", "libexec/cyrus-imapd", "sbin", "bin"];
const MAIL_PROGRAMS: [&str; 7] =
    ["master", "imapd", "timsieved", "ctl_cyrusdb", "sync_client", "sync_server", "cyr_expire"];

/// A usable installation of the real programs.
#[derive(Clone, Debug)]
pub(crate) struct Cyrus {
    program_dirs: Vec<PathBuf>,
    /// The same for the mail server, where that is of another version.
    mail_dirs: Vec<PathBuf>,
    /// The user to whom everything on disk belongs.
    pub(crate) user: User,
}

impl Cyrus {
    /// The installation; or `None`, after saying `SKIPPED`, where the tests cannot run. With
    /// `CYRBK_REQUIRE_CYRUS=1` that is a failure.
    pub(crate) fn find_or_skip(test: &str) -> Option<Self> {
        match Self::find() {
            Ok(cyrus) => Some(cyrus),
            Err(reason) => {
                machine::missing_for(test, &reason);
                None
            }
        }
    }

    fn find() -> Result<Self, String> {
        let program_dir = PROGRAM_DIRS
            .into_iter()
            .map(PathBuf::from)
            .find(|dir| PROGRAMS.iter().all(|program| dir.join(program).is_file()))
            .ok_or_else(|| format!("no Cyrus that has backupd; {}", machine::INSTALL))?;
        machine::is_cyrus_3_6(&program_dir)?;
        if !Path::new("/usr/sbin/saslpasswd2").is_file() {
            return Err("install Debian's sasl2-bin (saslpasswd2)".into());
        }
        let user = User::from_name("cyrus")
            .ok()
            .flatten()
            .ok_or("no user `cyrus`; install Debian's cyrus-common")?;
        let me = Uid::effective();
        if !me.is_root() && me != user.uid {
            return Err("Cyrus programs only run for root or the user `cyrus`".into());
        }
        let program_dirs = vec![program_dir];
        let mail_dirs = match std::env::var_os(OTHER_MAIL_SERVER) {
            Some(prefix) => BELOW_PREFIX.map(|dir| Path::new(&prefix).join(dir)).into(),
            None => program_dirs.clone(),
        };
        match MAIL_PROGRAMS.into_iter().find(|program| find_program(&mail_dirs, program).is_none())
        {
            Some(program) => Err(format!("{OTHER_MAIL_SERVER}: no {program}")),
            None => Ok(Self { program_dirs, mail_dirs, user }),
        }
    }

    /// The installation for mail servers and their clients.
    pub(crate) fn mail_server(&self) -> Self {
        Self { program_dirs: self.mail_dirs.clone(), ..self.clone() }
    }

    /// A program of the installation, with a clean and fixed environment.
    pub(crate) fn command(&self, program: &str) -> Command {
        let path = find_program(&self.program_dirs, program);
        clean_command(&path.unwrap_or_else(|| panic!("no {program} in {:?}", self.program_dirs)))
    }
}

fn find_program(dirs: &[PathBuf], program: &str) -> Option<PathBuf> {
    dirs.iter().map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// `program` with an environment that does not depend on who runs the tests.
pub(crate) fn clean_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("TZ", "UTC")
        .env("LC_ALL", "C")
        .current_dir("/");
    command
}
