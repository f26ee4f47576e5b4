//! What a configuration says, in types: plain values without behaviour.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::error::{ConfigError, ConfigWarning};

/// Everything that cyrbk reads from imapd.conf, for one service.
///
/// Each field names its option if that is spelled otherwise, then unit and
/// default. Nothing here has been looked up on disk: directories may be absent.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The main configuration file, for messages.
    pub config_file: PathBuf,
    /// Base of several defaults; the only option without one.
    pub configdirectory: PathBuf,
    /// Format of a location database that does not exist yet; `twoskip`.
    pub backup_db: DbBackend,
    /// The location database; `<configdirectory>/backups.db`.
    pub backup_db_path: PathBuf,
    /// Where messages wait while a line is read; `<temp_path>/backup`.
    pub backup_staging_path: PathBuf,
    /// `/tmp`.
    pub temp_path: PathBuf,
    /// `backuppartition-<name>`: name in lower case to absolute directory.
    /// Without any, existing backups can still be used; see
    /// [`require_partition`](Settings::require_partition).
    pub backup_partitions: BTreeMap<String, PathBuf>,
    /// How a partition is chosen for a new backup.
    pub partition_select: PartitionSelect,
    /// Whether hash directories are `A` to `W` by the whole userid (and not
    /// `a` to `z` by its first letter); no.
    pub fulldirhash: bool,
    /// Mode bits that created files do not get; `0o077`.
    pub umask: u32,
    /// How mailbox names are read and written.
    pub names: NameRules,
    /// `backup_retention`: how long deleted content is kept, `None` for ever
    /// (zero or negative in the file); 7 days.
    pub retention: Option<Duration>,
    /// When and how backups are compacted.
    pub compact: CompactSettings,
    /// Users (and `group:<name>`s) that may do anything; none.
    pub admins: Vec<String>,
    /// Realms besides the default domain whose users may log in; none.
    pub loginrealms: Vec<String>,
    /// Whether login names are folded to lower case; yes.
    pub username_tolower: bool,
    /// The name in the greeting; the host name.
    pub servername: String,
    /// Whether PLAIN and LOGIN are offered without a security layer; no.
    pub allowplaintext: bool,
    /// Pause after a failed login; 3 s.
    pub failedloginpause: Duration,
    /// Idle time after which a session ends; 30 min, at least 3 s.
    pub sync_timeout: Duration,
    /// Longest wait of a client for an answer until it is logged in; 10 s.
    pub client_timeout: Duration,
    /// Longest literal that is accepted, message bodies apart, in bytes. 32
    /// MiB unless set: with Cyrus's 128 KiB a larger sieve script keeps its
    /// user from ever being replicated. `u64::MAX` if zero or negative.
    pub maxliteral: u64,
    /// Longest quoted string in bytes; 128 KiB. `u64::MAX` as above. Checked, and not used: a
    /// line ends at `cyrbk_max_line`.
    pub maxquoted: u64,
    /// Longest atom in bytes; 128 KiB. `u64::MAX` as above. Checked, and not used.
    pub maxword: u64,
    /// Whether non-synchronising literals above 4096 bytes are refused; no. Checked, and not used:
    /// clients of replication send no others.
    pub literalminus: bool,
    /// Authentication by SASL, as a server.
    pub sasl: SaslSettings,
    /// `cyrbk_password_file`: users and keys;
    /// `<configdirectory>/cyrbk.passwd`.
    pub password_file: PathBuf,
    /// `cyrbk_listen`: addresses to listen on, separated by blanks or commas;
    /// none, so the caller decides.
    pub listen: Vec<String>,
    /// `cyrbk_tls_listen`: the same, for TLS from the first octet on; none.
    pub tls_listen: Vec<String>,
    /// What clients may use up.
    pub limits: LimitSettings,
    /// `tcp_keepalive`; `None` is off, the default.
    pub tcp_keepalive: Option<KeepAliveSettings>,
    /// The user to run as, unless `CYRUS_USER` says otherwise; `cyrus`.
    pub cyrus_user: String,
    /// The group to run as, unless `CYRUS_GROUP` says otherwise; `None` for
    /// the caller's default.
    pub cyrus_group: Option<String>,
    /// First part of the syslog tag, unless `CYRUS_SYSLOG_PREFIX` is set.
    pub syslog_prefix: Option<String>,
    /// `None` for the built-in one (`mail`).
    pub syslog_facility: Option<SyslogFacility>,
    /// Whether debug messages are logged; no.
    pub debug: bool,
    /// Certificates and limits of TLS.
    pub tls: TlsSettings,
    /// How `restore` reaches the server it restores to.
    pub sync_client: SyncClientSettings,
    /// Oddities to be logged at WARNING, in the order of discovery.
    pub warnings: Vec<ConfigWarning>,
}

impl Settings {
    /// Whether there is a partition on which a backup could be created, one
    /// that `partition_select_exclude` does not name. To be asked only when one
    /// has to be: existing backups are found without.
    pub fn require_partition(&self) -> Result<(), ConfigError> {
        let exclude = &self.partition_select.exclude;
        if self.backup_partitions.keys().any(|name| !exclude.contains(name)) {
            return Ok(());
        }
        Err(ConfigError::NoPartition { file: self.config_file.clone() })
    }
}

/// `backup_db`: a format that Cyrus has for the location database. Whether
/// cyrbk can write it is for the store to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum DbBackend {
    Twoskip,
    Skiplist,
    Sql,
    Zeroskip,
    Lmdb,
}

/// How a partition is chosen for a new backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionSelect {
    /// `partition_select_mode`; `freespace-most`.
    pub mode: PartitionMode,
    /// Names in lower case of partitions that get no new backups; none.
    pub exclude: Vec<String>,
    /// Usage in per cent above which a partition is avoided; 0 for off.
    pub soft_usage_limit: i32,
    /// Number of choices after which usage is measured anew; 0 for never.
    pub usage_reinit: i32,
}

/// `partition_select_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionMode {
    /// `random`
    Random,
    /// `freespace-most`: most free KiB.
    FreespaceMost,
    /// `freespace-percent-most`: largest free share.
    FreespacePercentMost,
    /// `freespace-percent-weighted`: by lot, weighted with the free share.
    FreespacePercentWeighted,
    /// `freespace-percent-weighted-delta`: by lot, weighted with the distance
    /// to the fullest.
    FreespacePercentWeightedDelta,
}

/// How mailbox names are read and written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRules {
    /// Whether users have domains; off.
    pub virtdomains: Virtdomains,
    /// The domain that names do without; `internal`.
    pub defaultdomain: Option<String>,
    /// First component of deleted mailboxes; `DELETED`.
    pub deletedprefix: String,
    /// Whether external names are separated by `/` (and not `.`); yes.
    pub unixhierarchysep: bool,
    /// Whether personal mailboxes stand beside INBOX; yes.
    pub altnamespace: bool,
}

/// `virtdomains`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Virtdomains {
    /// No domains.
    Off,
    /// The domain is what the login name says.
    Userid,
    /// The same, else what the address of the network interface says.
    On,
}

/// When and how backups are compacted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactSettings {
    /// `backup_compact_minsize`: chunks below this are joined, in bytes; 0 for
    /// never. A number without unit in the file counts KiB.
    pub minsize: u64,
    /// `backup_compact_maxsize`: chunks above this are split, in bytes; 0 for
    /// never. A number without unit in the file counts KiB.
    pub maxsize: u64,
    /// `backup_compact_work_threshold`: the least number of chunks with
    /// something to gain that makes it worth while; 1, at least 1.
    pub work_threshold: u32,
    /// `backup_keep_previous`: whether compact and reindex leave the old files
    /// beside the new ones; no.
    pub keep_previous: bool,
}

/// Authentication by SASL, as a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaslSettings {
    /// `sasl_mech_list`, in upper case; `None` for all that there are.
    pub mech_list: Option<Vec<String>>,
    /// `sasl_pwcheck_method`: who verifies a plain-text password, in order of
    /// asking; `auxprop`.
    pub pwcheck_methods: Vec<PwCheck>,
    /// `sasl_saslauthd_path`: the socket of saslauthd, whole (`.../mux`).
    pub saslauthd_path: Option<PathBuf>,
    /// `sasl_sasldb_path`: the password database of libsasl. `None` if not
    /// set; libsasl then takes `/etc/sasldb2`.
    pub sasldb_path: Option<PathBuf>,
    /// `sasl_auxprop_plugin`: where auxprop looks, by name; `None` for all.
    pub auxprop_plugins: Option<Vec<String>>,
    /// `sasl_minimum_layer`: the least strength in bits (SSF) demanded; 0.
    pub minimum_layer: u32,
    /// `sasl_maximum_layer`: the greatest strength in bits offered; 256. Checked, and not used: no
    /// mechanism here has a layer of its own.
    pub maximum_layer: u32,
}

/// One of `sasl_pwcheck_method`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PwCheck {
    /// A password stored on this machine.
    Auxprop,
    /// Ask saslauthd.
    Saslauthd,
    /// Anything else, by name: nobody can log in by it.
    Unsupported(String),
}

/// `syslog_facility`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SyslogFacility {
    Daemon,
    Mail,
    News,
    User,
    /// `LOCAL0` to `LOCAL7`.
    Local(u8),
}

/// Certificates and limits of TLS, all as they stand in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// Certificate chain shown to clients; of two the first.
    pub server_cert: Option<PathBuf>,
    /// Its private key.
    pub server_key: Option<PathBuf>,
    /// CA certificates for clients.
    pub client_ca_file: Option<PathBuf>,
    /// The same, as a hashed directory.
    pub client_ca_dir: Option<PathBuf>,
    /// Certificate shown to servers.
    pub client_cert: Option<PathBuf>,
    /// Its private key.
    pub client_key: Option<PathBuf>,
    /// CA certificates for servers.
    pub server_ca_file: Option<PathBuf>,
    /// The same, as a hashed directory.
    pub server_ca_dir: Option<PathBuf>,
    /// Ciphers in the notation of OpenSSL; Cyrus has `DEFAULT`.
    pub ciphers: Option<String>,
    /// Versions, as in `tls1_2 tls1_3`; Cyrus has all from `tls1_0`.
    pub versions: Option<String>,
    /// `tls_client_certs`
    pub client_certs: TlsClientCerts,
}

/// `tls_client_certs`: whether clients show a certificate; `optional`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum TlsClientCerts {
    Off,
    #[default]
    Optional,
    Require,
}

/// What clients may use up: cyrbk's own options, named `cyrbk_` and as here. Zero or
/// negative counts as the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitSettings {
    /// `cyrbk_max_connections`: connections at a time; 4096.
    pub max_connections: usize,
    /// `cyrbk_max_connections_per_address`: the same from one address (of IPv6: one
    /// network of 64 bits); 256.
    pub max_connections_per_address: usize,
    /// `cyrbk_login_time`: time to authenticate; 60 s.
    pub login_time: Duration,
    /// `cyrbk_max_line`: longest command without its message bodies, in bytes; 512 MiB, at
    /// most 1 GiB (a MAILBOX line has about 300 bytes for each message).
    pub max_line: u64,
    /// `cyrbk_max_open_backups`: backups that one session may hold open; 16.
    pub max_open_backups: usize,
    /// `cyrbk_output_high_water`: unsent bytes above which a client is not read; 1 MiB.
    pub output_high_water: u64,
    /// `cyrbk_spool_memory`: bytes of message bodies held in memory for one command,
    /// before they go to `backup_staging_path`; 16 MiB.
    pub spool_memory: u64,
    /// `cyrbk_max_workers`: threads that read and write backups; 64.
    pub max_workers: usize,
}

/// `tcp_keepalive`: whether and how an idle client is asked if it is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAliveSettings {
    /// `tcp_keepalive_cnt`: questions without an answer after which it is gone; `None`: as the
    /// system has it, which is what zero means.
    pub count: Option<u32>,
    /// `tcp_keepalive_idle`: silence before the first one; likewise.
    pub idle: Option<Duration>,
    /// `tcp_keepalive_intvl`: time between two; likewise.
    pub interval: Option<Duration>,
}

/// How `restore` reaches the server it restores to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncClientSettings {
    /// `sync_host`
    pub host: Option<String>,
    /// `sync_port`: number or service name.
    pub port: Option<String>,
    /// `sync_authname`, else `restore_authname`, which Cyrus documents and never reads.
    pub authname: Option<String>,
    /// `sync_password`, else `restore_password`.
    pub password: Option<Secret>,
    /// `sync_realm`: for mechanisms with realms, of which there are none here.
    pub realm: Option<String>,
    /// `force_sasl_client_mech`: the mechanisms that may be used; `None` for all.
    pub mechanisms: Option<Vec<String>>,
    /// `cyrbk_sync_tls`: whether the connection is encrypted.
    pub tls: SyncTls,
    /// `sync_try_imap`: whether the IMAP port is tried first; yes.
    pub try_imap: bool,
}

/// `cyrbk_sync_tls`: whether the connection to another server is encrypted; `optional`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncTls {
    /// `off`
    Off,
    /// `optional`: by STARTTLS, if the server has it.
    #[default]
    Optional,
    /// `require`: by STARTTLS, or not at all.
    Require,
    /// `immediate`: from the first octet on.
    Immediate,
}

/// A text that must not be printed by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: String) -> Secret {
        Secret(text)
    }

    /// The text, to be used and not shown.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
