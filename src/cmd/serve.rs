//! `cyrbk serve`: the backup server in the foreground, by hand or under systemd.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use nix::sys::stat::{Mode, umask};

use super::identity::become_cyrus;
use super::service::{self, Misconfigured};
use super::{directories, hosts_access, inherited, log};
use crate::config::Settings;
use crate::sync::server::{ListenError, Listener, Manager, Retirement, Server, bind};

/// Where to listen if nothing says otherwise: the port that csync has by custom, on
/// this machine only.
const DEFAULT_LISTEN: &str = "localhost:2005";
/// The service name in cyrus.conf that options like `backupd_admins` are for.
const SERVICE: &str = "backupd";
/// `FileDescriptorName=` of a systemd socket for TLS from the first octet on.
const TLS_SOCKET: &str = "tls";

/// What a machine without Cyrus mostly lacks.
const NO_USER: &str = "cannot become the user and group that cyrus_user and cyrus_group name; to \
    make the usual ones: useradd --system --gid mail --home-dir /nonexistent cyrus";

/// The words make no sense; the text names the option.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Misused(String);

/// The command line of `cyrbk serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cyrbk serve
  cyrbk serve -C /etc/imapd-backup.conf --listen 0.0.0.0:2005 --listen '[::]:2005'

It runs in the foreground until SIGTERM or Ctrl-C, logs to standard error, and becomes the Cyrus
user if it is started as root.")]
pub struct ServeArgs {
    /// Configuration file of the backup server
    #[arg(short = 'C', long = "config", value_name = "FILE", default_value = "/etc/imapd.conf")]
    pub config: PathBuf,
    /// Address to listen on, or /PATH of a Unix socket (whose clients are administrators);
    /// may be given several times [default: sockets handed over by systemd, or option
    /// cyrbk_listen, or localhost:2005]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Vec<String>,
    /// The same, for TLS from the first octet on [default: option cyrbk_tls_listen]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub tls_listen: Vec<String>,
}

/// Serves until SIGTERM or SIGINT.
///
/// Returns after every session's backups were finished.
pub fn run(args: &ServeArgs) -> Result<()> {
    let settings = Settings::load(&args.config, SERVICE)?;
    log::start(&settings, log::Target::Stderr);
    service::check(&settings)?;
    // Excluded from new backups they still have old ones; without any this is no backup server.
    if settings.backup_partitions.is_empty() {
        settings.require_partition()?;
    }
    if let Some(missing) = directories::without_configdirectory(&settings) {
        bail!(Misconfigured(missing));
    }
    let listeners = listeners(args, &settings)?;
    // As root up to here, for ports below 1024 and a limit above the usual.
    hosts_access::warn_of_rules(service::SERVICE);
    service::raise_descriptor_limit();
    become_cyrus(&settings).context(NO_USER)?;
    umask(Mode::from_bits_truncate(settings.umask));
    service::warn_of_directories(&settings);
    if settings.admins.is_empty() && listeners.iter().any(|l| l.address().is_some()) {
        tracing::warn!("admins: nobody is named, so no client on the network may replicate");
    }
    let server = server(&settings, listeners)?;
    for place in server.places() {
        eprintln!("listening on {place}");
    }
    server.run().context("the event loop failed")?;
    Ok(())
}

/// A server for a site, on sockets that are listening.
pub fn server(settings: &Settings, listeners: Vec<Listener>) -> Result<Server> {
    let server_settings = service::server_settings(settings);
    service::server(server_settings, listeners, Manager::Systemd, Retirement::default())
}

fn listeners(args: &ServeArgs, settings: &Settings) -> Result<Vec<Listener>> {
    let has_words = !(args.listen.is_empty() && args.tls_listen.is_empty());
    let mut listeners = if has_words { Vec::new() } else { from_systemd()? };
    if listeners.is_empty() {
        let (plain, tls) = match has_words {
            true => (args.listen.clone(), args.tls_listen.clone()),
            false => (settings.listen.clone(), settings.tls_listen.clone()),
        };
        let open = |spec: &str, word, option| {
            bind(spec).map_err(|error| match error {
                ListenError::Address(_) if has_words => {
                    anyhow::Error::new(Misused(format!("{word}: {error}")))
                }
                ListenError::Address(_) => Misconfigured(format!("{option}: {error}")).into(),
                error => error.into(),
            })
        };
        for spec in &plain {
            listeners.extend(open(spec, "--listen", "cyrbk_listen")?);
            give_to_cyrus(spec, settings)?;
        }
        for spec in &tls {
            let opened = open(spec, "--tls-listen", "cyrbk_tls_listen")?;
            listeners.extend(opened.into_iter().map(|l| l.with_tls_first(true)));
        }
    }
    if listeners.is_empty() {
        listeners = bind(DEFAULT_LISTEN)?;
    }
    if listeners.iter().any(Listener::is_tls_first) && settings.tls.server_cert.is_none() {
        let config = args.config.display();
        bail!(Misconfigured(format!("TLS needs tls_server_cert and tls_server_key in {config}")));
    }
    Ok(listeners)
}

/// A Unix socket that root has made is for the Cyrus user, whom the server becomes.
fn give_to_cyrus(spec: &str, settings: &Settings) -> Result<()> {
    if !(spec.starts_with('/') && nix::unistd::geteuid().is_root()) {
        return Ok(());
    }
    let name = std::env::var("CYRUS_USER").unwrap_or_else(|_| settings.cyrus_user.clone());
    if let Some(user) = nix::unistd::User::from_name(&name)? {
        std::os::unix::fs::lchown(spec, Some(user.uid.as_raw()), None)
            .with_context(|| format!("cannot give {spec} to {name}"))?;
    }
    Ok(())
}

/// The sockets of socket activation.
fn from_systemd() -> Result<Vec<Listener>> {
    let Ok(descriptors) = sd_notify::listen_fds_with_names() else { return Ok(Vec::new()) };
    let mut listeners = Vec::new();
    for (number, name) in descriptors {
        let copy = inherited::duplicate(number)
            .with_context(|| format!("descriptor {number} of the service manager"))?;
        inherited::close(number);
        listeners.push(Listener::inherited(copy)?.with_tls_first(name == TLS_SOCKET));
    }
    Ok(listeners)
}
