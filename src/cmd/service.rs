//! What `cyrbk serve` and `backupd` have in common: settings to a server.

use anyhow::{Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{directories, private_tmp, site};
use crate::config::{DbBackend, Settings};
use crate::sync::SessionSettings;
use crate::sync::auth::Authenticator;
use crate::sync::server::{
    KeepAlive, Listener, Manager, Retirement, Server, ServerLimits, ServerSettings, Site,
    StartError, TelemetryFolder,
};
use crate::wire::frame::Limits;

/// Messages in one line; clients send at most 1,024.
const BODIES_MAX: usize = 16 * 1024;

/// The configuration makes no sense; the text names the option or the file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Misconfigured(pub(super) String);

/// What would otherwise come up with the first client.
pub(super) fn check(settings: &Settings) -> Result<()> {
    if settings.backup_db != DbBackend::Twoskip {
        bail!(Misconfigured(format!(
            "backup_db: only twoskip is supported; convert the database with cvt_cyrusdb(8) \
             and set `backup_db: twoskip` in {}",
            settings.config_file.display()
        )));
    }
    private_tmp::warn_of_staging(&settings.backup_staging_path);
    Ok(())
}

/// What the Cyrus user, as whom this runs, lacks to take in a backup; each is a warning.
pub(super) fn warn_of_directories(settings: &Settings) {
    let missing = directories::without_partitions(settings);
    let refused = directories::not_writable(settings);
    let lost = directories::without_catalog(settings);
    // Of users that have a backup nothing is refused.
    let closed = settings.require_partition().err().map(|error| error.to_string());
    for what in missing.into_iter().chain(refused).chain(lost).chain(closed) {
        tracing::warn!("{what}");
    }
}

/// The name in cyrus.conf, unless it says another one.
pub(super) const SERVICE: &str = "backupd";

/// The server that the settings describe.
pub(super) fn server_settings(settings: &Settings) -> ServerSettings {
    let authenticator = Authenticator::new(site::auth_config(settings));
    let limits = &settings.limits;
    let line = to_usize(limits.max_line);
    ServerSettings {
        session: SessionSettings {
            server_name: settings.servername.clone(),
            mechanisms: authenticator.mechanisms(false),
            mechanisms_private: authenticator.mechanisms(true),
            mechanisms_bound: authenticator.mechanisms_bound(),
            offers_external: authenticator.offers_external(),
            limits: Limits {
                line,
                literal: settings.maxliteral.min(limits.max_line),
                body: u32::MAX.into(),
                bodies: BODIES_MAX,
            },
            spool_memory: to_usize(limits.spool_memory),
        },
        site: Site {
            catalog: site::catalog(settings),
            placement: site::placement(settings),
            names: site::name_rules(settings),
            authenticator,
            staging_path: settings.backup_staging_path.clone(),
            open_backups_max: limits.max_open_backups,
        },
        limits: ServerLimits {
            connections_max: limits.max_connections,
            connections_per_address_max: limits.max_connections_per_address,
            workers_max: limits.max_workers,
            login_time: limits.login_time,
            idle_time: settings.sync_timeout,
            login_pause: settings.failedloginpause,
            output_high_water: to_usize(limits.output_high_water),
            ..ServerLimits::default()
        },
        keep_alive: settings.tcp_keepalive.map(|how| KeepAlive {
            count: how.count,
            idle: how.idle,
            interval: how.interval,
        }),
        tls: site::tls_files(settings),
        telemetry: TelemetryFolder {
            path: settings.configdirectory.join("log"),
            service: SERVICE.to_owned(),
        },
    }
}

/// A server with these settings, on sockets that are listening.
pub(super) fn server(
    settings: ServerSettings,
    listeners: Vec<Listener>,
    manager: Manager,
    retirement: Retirement,
) -> Result<Server> {
    Server::new(settings, listeners, manager, retirement).map_err(|error| match error {
        StartError::Tls(error) => Misconfigured(format!("TLS: {error}")).into(),
        error => error.into(),
    })
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// One descriptor for each connection, three for each open backup.
pub(super) fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}
