//! The server: one event loop over all connections, worker threads for all that
//! may block, and the leases in which sessions hold their backups.

mod adopter;
mod answers;
mod certificate;
mod conn;
mod event_loop;
mod lease;
mod listen;
mod login;
mod manager;
mod origins;
mod program;
mod ready;
mod request;
mod stream;
mod telemetry;
mod tls;
mod workers;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::SessionSettings;
use super::auth::Authenticator;
use crate::store::Catalog;
use crate::store::placement::Placement;
use crate::wire::mboxname::NameRules;

pub use event_loop::{Ended, Server, StartError};
pub use listen::{ListenError, Listener, bind};
pub use manager::{Manager, Retirement};
pub use program::Program;
pub use stream::{KeepAlive, Peer, Stream};
pub use telemetry::TelemetryFolder;
pub use tls::{ClientCerts, LoadedTls, TlsError, TlsFiles};

/// The target of log events that are NOTICE in syslog, a level that `tracing` lacks.
pub const NOTICE: &str = "cyrbk::notice";

/// Everything a server is told by its configuration.
pub struct ServerSettings {
    /// What every session knows.
    pub session: SessionSettings,
    /// What every lease knows.
    pub site: Site,
    /// Bounds of the server as a whole.
    pub limits: ServerLimits,
    /// Whether idle clients are asked if they are still there.
    pub keep_alive: Option<KeepAlive>,
    /// Certificates; without them there is no TLS.
    pub tls: Option<TlsFiles>,
    /// For users that are to be watched.
    pub telemetry: TelemetryFolder,
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
    /// Connections at a time from one address (of IPv6: from one network of 64 bits).
    pub connections_per_address_max: usize,
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
    /// How long clients may take to read their last replies when the server stops.
    pub drain_time: Duration,
}

impl Default for ServerLimits {
    fn default() -> ServerLimits {
        ServerLimits {
            connections_max: 4096,
            connections_per_address_max: 256,
            workers_max: 64,
            login_time: Duration::from_secs(60),
            idle_time: Duration::from_secs(30 * 60),
            lease_time: Duration::from_secs(5 * 60),
            login_pause: Duration::from_secs(3),
            output_high_water: 1 << 20,
            drain_time: Duration::from_secs(10),
        }
    }
}

/// Shared by all workers.
type SharedSite = Arc<Site>;
