//! `cyrbk serve`: the backup server in the foreground.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use tracing_subscriber::EnvFilter;

use super::identity::become_cyrus;
use super::site;
use crate::config::{DbBackend, Settings};
use crate::sync::SessionSettings;
use crate::sync::auth::Authenticator;
use crate::sync::server::{Server, ServerLimits, ServerSettings, Site, bind};
use crate::wire::frame::Limits;

/// Where to listen if nothing says otherwise: the port that csync has by custom, on
/// this machine only.
const DEFAULT_LISTEN: &str = "localhost:2005";
/// The service name in cyrus.conf that options like `backupd_admins` are for.
const SERVICE: &str = "backupd";
/// Octets of message bodies held in memory for one line; beyond it they are staged.
const SPOOL_MEMORY: usize = 16 << 20;
/// Longest line without message bodies: a MAILBOX line has about 300 octets for each
/// message of the mailbox.
const LINE_MAX: usize = 512 << 20;
/// Messages in one line; clients send at most 1,024.
const BODIES_MAX: usize = 16 * 1024;
/// Backups that one session may have open.
const OPEN_BACKUPS_MAX: usize = 16;

/// The command line of `cyrbk serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// Configuration file of the backup server
    #[arg(short = 'C', long = "config", value_name = "FILE", default_value = "/etc/imapd.conf")]
    pub config: PathBuf,
    /// Address to listen on; may be given several times [default: option cyrbk_listen, or
    /// localhost:2005]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Vec<String>,
}

/// Serves until SIGTERM or SIGINT.
///
/// Returns after every session's backups were finished.
pub fn run(args: &ServeArgs) -> Result<()> {
    let settings = Settings::load(&args.config, SERVICE)?;
    start_log(&settings);
    check(&settings)?;
    let listen = match (&args.listen, &settings.listen) {
        (given, _) if !given.is_empty() => given.clone(),
        (_, configured) if !configured.is_empty() => configured.clone(),
        _ => vec![DEFAULT_LISTEN.to_owned()],
    };
    let mut listeners = Vec::new();
    for spec in &listen {
        listeners.extend(bind(spec)?);
    }
    // As root up to here, for ports below 1024 and a limit above the usual.
    raise_descriptor_limit();
    become_cyrus(&settings)?;
    umask(Mode::from_bits_truncate(settings.umask));
    let server = server(&settings, listeners)?;
    for address in server.addresses() {
        eprintln!("listening on {address}");
    }
    server.run().context("the event loop failed")
}

/// A server for a site, on sockets that are listening.
pub fn server(settings: &Settings, listeners: Vec<mio::net::TcpListener>) -> Result<Server> {
    Server::new(server_settings(settings), listeners).context("cannot start the event loop")
}

/// What would otherwise come up with the first client.
fn check(settings: &Settings) -> Result<()> {
    if settings.backup_db != DbBackend::Twoskip {
        bail!(
            "backup_db: only twoskip is supported; convert the database with cvt_cyrusdb(8) \
             and set `backup_db: twoskip` in {}",
            settings.config_file.display()
        );
    }
    settings.require_partition()?;
    Ok(())
}

fn server_settings(settings: &Settings) -> ServerSettings {
    let authenticator = Authenticator::new(site::auth_config(settings));
    let line = LINE_MAX;
    ServerSettings {
        session: SessionSettings {
            server_name: settings.servername.clone(),
            mechanisms: authenticator.mechanisms(false),
            limits: Limits {
                line,
                literal: settings.maxliteral.min(line as u64),
                body: u32::MAX.into(),
                bodies: BODIES_MAX,
            },
            spool_memory: SPOOL_MEMORY,
        },
        site: Site {
            catalog: site::catalog(settings),
            placement: site::placement(settings),
            names: site::name_rules(settings),
            authenticator,
            staging_path: settings.backup_staging_path.clone(),
            open_backups_max: OPEN_BACKUPS_MAX,
        },
        limits: ServerLimits {
            idle_time: settings.sync_timeout,
            login_pause: settings.failedloginpause,
            ..ServerLimits::default()
        },
    }
}

/// Log lines go to standard error; `RUST_LOG` overrides how much.
fn start_log(settings: &Settings) {
    let default = if settings.debug { "debug" } else { "info" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .without_time()
        .try_init();
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
}

/// One descriptor for each connection, three for each open backup.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}
