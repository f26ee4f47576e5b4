//! Telemetry logs: what a session of one user says and hears, octet by octet, if the
//! administrator has made a directory for that user.
//!
//! ```text
//! ---------- admin Sat Nov 21 12:00:00 2026
//! <1795262400<GET USER tom        from the client
//! >1795262400>OK Success          to the client
//! ```
//!
//! Messages are in it, and are as private there as in the backups.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where telemetry logs go.
#[derive(Clone, Debug)]
pub struct TelemetryFolder {
    /// `<configdirectory>/log`; below it are the users' directories.
    pub path: PathBuf,
    /// The service name, first part of the file name.
    pub service: String,
}

/// The log of one session.
#[derive(Debug)]
pub(super) struct Telemetry(File);

impl TelemetryFolder {
    /// The log for a new session of `user`, if there is a directory for it. The file is
    /// `SERVICE-PID`; further sessions of the process have their number behind it.
    pub(super) fn open(&self, user: &str, session: usize) -> Option<Telemetry> {
        // Names have no slash; these would be directories that are none of the user's.
        if user.is_empty() || user.starts_with('.') || user.contains('/') {
            return None;
        }
        let directory = self.path.join(user);
        if !directory.is_dir() {
            return None;
        }
        let name = format!("{}-{}", self.service, std::process::id());
        let create = |name: &str| {
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(directory.join(name))
        };
        let file = match create(&name) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                create(&format!("{name}-{session}"))
            }
            file => file,
        };
        match file {
            Ok(mut file) => {
                let date = jiff::Zoned::now().strftime("%a %b %e %H:%M:%S %Y").to_string();
                let _ = write!(file, "---------- {user} {date}\n\n");
                Some(Telemetry(file))
            }
            Err(error) => {
                tracing::warn!(directory = %directory.display(), %error, "no telemetry log");
                None
            }
        }
    }
}

impl Telemetry {
    /// From the client.
    pub(super) fn received(&mut self, octets: &[u8]) {
        self.add('<', octets);
    }

    /// To the client.
    pub(super) fn sent(&mut self, octets: &[u8]) {
        self.add('>', octets);
    }

    /// What cannot be written is lost; the session goes on.
    fn add(&mut self, direction: char, octets: &[u8]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut block = format!("{direction}{now}{direction}").into_bytes();
        block.extend_from_slice(octets);
        let _ = self.0.write_all(&block);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_users_with_a_directory_are_watched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::create_dir_all(path.join("admin")).unwrap();
        let folder = TelemetryFolder { path: path.clone(), service: "backupd".into() };
        for user in ["tom", "", ".", "..", "../log/admin", "/tmp"] {
            assert!(folder.open(user, 1).is_none(), "{user}");
        }
        let mut first = folder.open("admin", 1).unwrap();
        first.received(b"NOOP\r\n");
        first.sent(b"OK Noop completed\r\n");
        let _second = folder.open("admin", 2).unwrap();
        let name = format!("backupd-{}", std::process::id());
        let text = std::fs::read_to_string(path.join("admin").join(&name)).unwrap();
        let mut lines = text.lines();
        assert!(lines.next().unwrap().starts_with("---------- admin "), "{text}");
        assert_eq!(lines.next(), Some(""));
        let (time, noop) = lines.next().unwrap()[1..].split_once('<').unwrap();
        assert_eq!(noop, "NOOP");
        assert_eq!(lines.next().unwrap(), format!(">{time}>OK Noop completed"));
        assert!(path.join("admin").join(format!("{name}-2")).exists());
    }
}
