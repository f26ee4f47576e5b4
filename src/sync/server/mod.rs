//! The server: one event loop over all connections, worker threads for all that
//! may block, and the leases in which sessions hold their backups.

mod answers;
mod conn;
mod event_loop;
mod lease;
mod listen;
mod request;
mod workers;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::SessionSettings;
use super::auth::Authenticator;
use crate::store::Catalog;
use crate::store::placement::Placement;
use crate::wire::mboxname::NameRules;

pub use event_loop::Server;
pub use listen::{ListenError, bind};

/// Everything a server is told by its configuration.
pub struct ServerSettings {
    /// What every session knows.
    pub session: SessionSettings,
    /// What every lease knows.
    pub site: Site,
    /// Bounds of the server as a whole.
    pub limits: ServerLimits,
}

/// The backups of a site and who may write to them.
pub struct Site {
    /// backups.db.
    pub catalog: Catalog,
    /// Where new backups go.
    pub placement: Placement,
    /// Who owns which mailbox.
    pub names: NameRules,
    /// Checks passwords.
    pub authenticator: Authenticator,
    /// `backup_staging_path`.
    pub staging_path: PathBuf,
    /// Backups that one session may have open; beyond that the one unused for the longest is
    /// finished.
    pub open_backups_max: usize,
}

/// Bounds of the server as a whole.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// Connections at a time.
    pub connections_max: usize,
    /// Worker threads at a time.
    pub workers_max: usize,
    /// Time to authenticate.
    pub login_time: Duration,
    /// `sync_timeout`: time without a command after which a session is closed.
    pub idle_time: Duration,
    /// Time without a command after which the backups of a session are finished and let go.
    pub lease_time: Duration,
    /// `failedloginpause`: how long a failed login is held back.
    pub login_pause: Duration,
    /// Octets of unsent output above which a client is not read.
    pub output_high_water: usize,
}

impl Default for ServerLimits {
    fn default() -> ServerLimits {
        ServerLimits {
            connections_max: 4096,
            workers_max: 64,
            login_time: Duration::from_secs(60),
            idle_time: Duration::from_secs(30 * 60),
            lease_time: Duration::from_secs(5 * 60),
            login_pause: Duration::from_secs(3),
            output_high_water: 1 << 20,
        }
    }
}

/// Shared by all workers.
type SharedSite = Arc<Site>;

/// Who is at the other end, for the log.
#[derive(Clone, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

impl std::fmt::Display for Peer {
    /// As in Cyrus's log lines: `host [address]`; names are not looked up.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}]", self.0.ip())
    }
}
