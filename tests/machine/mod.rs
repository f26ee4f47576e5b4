//! What tests need of the machine that runs them, and what becomes of those that do not find it.
//!
//! What can be installed is required where `CYRBK_REQUIRE_CYRUS=1` says that nothing may be
//! missing: there the test fails. What a machine may have to do without (a container that must not
//! trace, mount or speak IPv6) is a reason to skip it anywhere. Either is said past the capture of
//! the test runner: a skip must be seen.
#![allow(dead_code)]

use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{User, geteuid};

/// Skips a test, or a part of it, for want of something that can be installed.
pub(crate) fn missing(what: &str) {
    missing_for(&running(), what);
}

/// [`missing`], of a test that is known by name.
pub(crate) fn missing_for(test: &str, what: &str) {
    let required = std::env::var_os("CYRBK_REQUIRE_CYRUS").is_some_and(|v| v == "1");
    assert!(!required, "{test} cannot run: {what}");
    say(test, what);
}

/// Skips a test, or a part of it, for want of something that no package brings.
pub(crate) fn impossible(what: &str) {
    say(&running(), what);
}

fn say(test: &str, what: &str) {
    let text = format!("SKIPPED: {test}: {what}\n");
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// The name of the test, where it has a thread of its own.
fn running() -> String {
    std::thread::current().name().filter(|name| *name != "main").unwrap_or("a test").to_owned()
}

/// Where a program is; says who brings it, where it is not.
pub(crate) fn program(name: &str, package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file());
    if found.is_none() {
        missing(&format!("no {name} (Debian's {package} has it)"));
    }
    found
}

/// Whether `strace` may look at what it runs.
pub(crate) fn can_trace() -> bool {
    can_trace_by(Command::new("strace").args(["-f", "-o", "/dev/null", "true"]))
}

/// The same of a `strace` with words that it has to know.
pub(crate) fn can_trace_by(strace: &mut Command) -> bool {
    if program("strace", "strace").is_none() {
        return false;
    }
    let can = strace.stderr(Stdio::null()).status().unwrap().success();
    if !can {
        impossible("strace may not trace here, or is too old");
    }
    can
}

/// Whom a program that root starts is to run as: the Cyrus user, or root where there is none.
/// Others start programs as themselves.
pub(crate) fn cyrus_user() -> Option<User> {
    let cyrus = || User::from_name("cyrus").unwrap();
    geteuid().is_root().then(|| cyrus().or_else(|| User::from_uid(geteuid()).unwrap()))?
}

/// Lines of imapd.conf that say so.
pub(crate) fn cyrus_user_option() -> String {
    cyrus_user().map_or_else(String::new, |user| format!("cyrus_user: {}\n", user.name))
}

/// Gives a file or directory to [`cyrus_user`].
pub(crate) fn give_away(path: &Path) {
    if let Some(user) = cyrus_user() {
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
}

/// Whether the programs in a directory are of the Cyrus that these tests know: later ones say
/// other things, or have no backupd.
pub(crate) fn is_cyrus_3_6(dir: &Path) -> Result<(), String> {
    let master = dir.join("master");
    let output = match Command::new(&master).arg("-V").output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(format!("no {}; {INSTALL}", master.display()));
        }
        other => other.unwrap(),
    };
    // `cyrus-imapd 3.6.1-Debian-3.6.1-4+deb12u5`
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.trim().strip_prefix("cyrus-imapd ").unwrap_or("of no known version");
    if version.starts_with("3.6.") {
        return Ok(());
    }
    Err(format!("{} is {version}, not 3.6; {INSTALL}", master.display()))
}

/// Where the real programs come from.
pub(crate) const INSTALL: &str = "install Debian 12's cyrus-imapd, cyrus-replication, cyrus-admin, \
    cyrus-clients and sasl2-bin";
