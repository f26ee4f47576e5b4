//! A temporary directory that belongs to the Cyrus user, and free ports.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;

use crate::cyrus::Cyrus;

/// One server's directory. Removed on drop.
pub(crate) struct Workspace {
    _dir: TempDir,
    path: PathBuf,
    owner: (u32, u32),
}

impl Workspace {
    /// A new directory, open to all for passing through, owned by the Cyrus user.
    pub(crate) fn new(cyrus: &Cyrus, label: &str) -> Self {
        let prefix = format!("cyrbk-interop-{label}-");
        let mut dir = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
        dir.disable_cleanup(std::env::var_os("CYRBK_INTEROP_KEEP").is_some_and(|v| v == "1"));
        let path = dir.path().canonicalize().unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let owner = (cyrus.user.uid.as_raw(), cyrus.user.gid.as_raw());
        chown(&path, Some(owner.0), Some(owner.1)).unwrap();
        Self { _dir: dir, path, owner }
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes `name` inside, with what lies between, for the Cyrus user.
    pub(crate) fn make_dir(&self, name: &str) -> PathBuf {
        let mut path = self.path.clone();
        for part in Path::new(name) {
            path.push(part);
            if !path.exists() {
                fs::create_dir(&path).unwrap();
                self.give_away(&path);
            }
        }
        path
    }

    /// Writes a file for the Cyrus user.
    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path.join(name);
        fs::write(&path, content).unwrap();
        self.give_away(&path);
        path
    }

    /// Makes the Cyrus user the owner of `path`.
    pub(crate) fn give_away(&self, path: &Path) {
        chown(path, Some(self.owner.0), Some(self.owner.1)).unwrap();
    }
}

/// A loopback port that nobody listens on. Taken from below the range for outgoing connections, and
/// never twice in one process, so that it stays free until the server binds it.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = u16::try_from(std::process::id() * 61 % u32::from(COUNT)).unwrap();
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (base + step % COUNT) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}
