//! Which option becomes which setting.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{ConfigError, ConfigWarning};
use super::file::ImapdConf;
use super::lookup::{Lookup, split, to_path, to_text};
use super::options::Options;
use super::settings::{
    CompactSettings, DbBackend, NameRules, PartitionMode, PartitionSelect, PwCheck, SaslSettings,
    Secret, Settings, SyncClientSettings, SyslogFacility, TlsSettings, Virtdomains,
};
use super::value::{self, KIB, TimeUnit};

const BACKENDS: &[(&str, DbBackend)] = &[
    ("skiplist", DbBackend::Skiplist),
    ("sql", DbBackend::Sql),
    ("twoskip", DbBackend::Twoskip),
    ("zeroskip", DbBackend::Zeroskip),
    ("lmdb", DbBackend::Lmdb),
];

const PARTITION_MODES: &[(&str, PartitionMode)] = &[
    ("random", PartitionMode::Random),
    ("freespace-most", PartitionMode::FreespaceMost),
    (
        "freespace-percent-most",
        PartitionMode::FreespacePercentMost,
    ),
    (
        "freespace-percent-weighted",
        PartitionMode::FreespacePercentWeighted,
    ),
    (
        "freespace-percent-weighted-delta",
        PartitionMode::FreespacePercentWeightedDelta,
    ),
];

const VIRTDOMAINS: &[(&str, Virtdomains)] = &[
    ("off", Virtdomains::Off),
    ("userid", Virtdomains::Userid),
    ("on", Virtdomains::On),
    ("0", Virtdomains::Off),
    ("no", Virtdomains::Off),
    ("f", Virtdomains::Off),
    ("false", Virtdomains::Off),
    ("1", Virtdomains::On),
    ("yes", Virtdomains::On),
    ("t", Virtdomains::On),
    ("true", Virtdomains::On),
];

impl Settings {
    /// Reads `path` and resolves it for `ident`: the service name for the
    /// server (usually `backupd`), the program name for tools.
    ///
    /// The one place where `CYRUS_PREFIX` is read from the environment.
    pub fn load(path: &Path, ident: &str) -> Result<Settings, ConfigError> {
        let prefix = std::env::var_os("CYRUS_PREFIX");
        let conf = ImapdConf::read(path, prefix.as_deref())?;
        Settings::from_conf(&conf, ident)
    }

    /// Resolves options that have been read. Looks up nothing but the host
    /// name, for the default of `servername`.
    pub fn from_conf(conf: &ImapdConf, ident: &str) -> Result<Settings, ConfigError> {
        let mut lookup = Lookup::new(conf, ident)?;
        lookup.check_defaultpartition()?;
        let temp_path = lookup.path("temp_path").unwrap_or("/tmp".into());
        let settings = Settings {
            config_file: conf.path().to_owned(),
            backup_db: lookup
                .options
                .word("backup_db", DbBackend::Twoskip, BACKENDS)?,
            backup_db_path: lookup.path_or_below("backup_db_path", "backups.db"),
            backup_staging_path: lookup
                .path("backup_staging_path")
                .unwrap_or_else(|| temp_path.join("backup")),
            temp_path,
            backup_partitions: lookup.backup_partitions()?,
            partition_select: lookup.partition_select()?,
            fulldirhash: lookup.options.switch("fulldirhash", false)?,
            umask: lookup.umask()?,
            names: lookup.name_rules()?,
            retention: lookup.retention()?,
            compact: lookup.compact()?,
            admins: lookup.words("admins")?.unwrap_or_default(),
            loginrealms: lookup.words("loginrealms")?.unwrap_or_default(),
            username_tolower: lookup.options.switch("username_tolower", true)?,
            servername: lookup.text("servername")?.unwrap_or_else(host_name),
            allowplaintext: lookup.options.switch("allowplaintext", false)?,
            failedloginpause: lookup.pause("failedloginpause", 3)?,
            sync_timeout: lookup
                .pause("sync_timeout", 1800)?
                .max(Duration::from_secs(3)),
            client_timeout: lookup.pause("client_timeout", 10)?,
            maxliteral: lookup.limit("maxliteral", 32 * KIB * KIB)?,
            maxquoted: lookup.limit("maxquoted", 128 * KIB)?,
            maxword: lookup.limit("maxword", 128 * KIB)?,
            literalminus: lookup.options.switch("literalminus", false)?,
            sasl: lookup.sasl()?,
            password_file: lookup.path_or_below("cyrbk_password_file", "cyrbk.passwd"),
            listen: lookup.listen()?,
            cyrus_user: lookup.text("cyrus_user")?.unwrap_or("cyrus".into()),
            cyrus_group: lookup.text("cyrus_group")?,
            syslog_prefix: lookup.text("syslog_prefix")?,
            syslog_facility: lookup.syslog_facility(),
            debug: lookup.options.switch("debug", false)?,
            tls: lookup.tls()?,
            sync_client: lookup.sync_client()?,
            configdirectory: lookup.directory,
            warnings: lookup.options.warnings,
        };
        Ok(settings)
    }
}

impl Lookup<'_> {
    fn check_defaultpartition(&self) -> Result<(), ConfigError> {
        match self.options.get("defaultpartition") {
            Some(setting) if !setting.value.iter().all(u8::is_ascii_alphanumeric) => {
                Err(ConfigError::DefaultPartition {
                    origin: setting.origin.clone(),
                })
            }
            _ => Ok(()),
        }
    }

    fn backup_partitions(&mut self) -> Result<BTreeMap<String, PathBuf>, ConfigError> {
        let mut partitions = BTreeMap::new();
        for (name, setting) in self.options.free_family("backuppartition-") {
            if name.is_empty() {
                self.options.warnings.push(ConfigWarning::Adjusted {
                    option: setting.name.to_owned(),
                    origin: setting.origin.clone(),
                    what: "a partition without a name is ignored".to_owned(),
                });
                continue;
            }
            let path = to_path(setting.value.to_vec());
            if !path.is_absolute() {
                let (shown, name) = (setting.shown(), setting.name);
                let text = format!("invalid value '{shown}' for {name}");
                return Err(setting.refuse(&text, "use an absolute path, written out"));
            }
            partitions.insert(name.to_owned(), path);
        }
        Ok(partitions)
    }

    fn partition_select(&mut self) -> Result<PartitionSelect, ConfigError> {
        let whole = i32::MIN..=i32::MAX;
        let exclude = self.text("partition_select_exclude")?.unwrap_or_default();
        let mode = PartitionMode::FreespaceMost;
        Ok(PartitionSelect {
            mode: self
                .options
                .word("partition_select_mode", mode, PARTITION_MODES)?,
            exclude: split(&exclude.to_ascii_lowercase(), ","),
            soft_usage_limit: self.options.int_within(
                "partition_select_soft_usage_limit",
                0,
                whole.clone(),
            )?,
            usage_reinit: self
                .options
                .int_within("partition_select_usage_reinit", 0, whole)?,
        })
    }

    fn umask(&mut self) -> Result<u32, ConfigError> {
        let Some(setting) = self.options.get("umask") else {
            return Ok(0o077);
        };
        let Some((mask, clean)) = value::octal_mask(setting.value) else {
            let text = format!("invalid value '{}' for umask", setting.shown());
            return Err(setting.refuse(&text, "use an octal number such as 077"));
        };
        if !clean {
            let what = format!(
                "'{}' is not an octal mask, taken as {mask:03o}",
                setting.shown()
            );
            self.options.adjusted("umask", what);
        }
        Ok(mask)
    }

    fn name_rules(&self) -> Result<NameRules, ConfigError> {
        let domain = self.text("defaultdomain")?;
        let prefix = self.text("deletedprefix")?;
        Ok(NameRules {
            virtdomains: self
                .options
                .word("virtdomains", Virtdomains::Off, VIRTDOMAINS)?,
            defaultdomain: Some(domain.unwrap_or("internal".into())),
            deletedprefix: prefix.unwrap_or("DELETED".into()),
            unixhierarchysep: self.options.switch("unixhierarchysep", true)?,
            altnamespace: self.options.switch("altnamespace", true)?,
        })
    }

    fn retention(&self) -> Result<Option<Duration>, ConfigError> {
        let week = 7 * 86_400;
        let seconds = self
            .options
            .seconds("backup_retention", week, TimeUnit::Days)?;
        let positive = u64::try_from(seconds).ok().filter(|&s| s > 0);
        Ok(positive.map(Duration::from_secs))
    }

    fn compact(&mut self) -> Result<CompactSettings, ConfigError> {
        let options = &mut self.options;
        let minsize = options.size("backup_compact_minsize", 0, KIB)?;
        let maxsize = options.size("backup_compact_maxsize", 0, KIB)?;
        let whole = i32::MIN..=i32::MAX;
        let threshold = options.int_within("backup_compact_work_threshold", 1, whole)?;
        Ok(CompactSettings {
            minsize: minsize.try_into().unwrap_or(0),
            maxsize: maxsize.try_into().unwrap_or(0),
            work_threshold: threshold.max(1).unsigned_abs(),
            keep_previous: options.switch("backup_keep_previous", false)?,
        })
    }

    fn sasl(&mut self) -> Result<SaslSettings, ConfigError> {
        let free_words = |options: &Options<'_>, name: &str| {
            let setting = options.free(name);
            let text = setting.map(|s| to_text(&s, s.value.to_vec())).transpose()?;
            Ok(text.map(|text| split(&text, "")))
        };
        let free_path = |options: &Options<'_>, name: &str| {
            options.free(name).map(|s| to_path(s.value.to_vec()))
        };
        let mechs: Option<Vec<String>> = free_words(&self.options, "sasl_mech_list")?;
        let layers = 0..=i32::MAX;
        let minimum = self
            .options
            .int_within("sasl_minimum_layer", 0, layers.clone())?;
        let maximum = self.options.int_within("sasl_maximum_layer", 256, layers)?;
        Ok(SaslSettings {
            mech_list: mechs.map(|list| list.iter().map(|m| m.to_ascii_uppercase()).collect()),
            pwcheck_methods: self.pwcheck_methods()?,
            saslauthd_path: free_path(&self.options, "sasl_saslauthd_path"),
            sasldb_path: free_path(&self.options, "sasl_sasldb_path"),
            auxprop_plugins: free_words(&self.options, "sasl_auxprop_plugin")?,
            minimum_layer: minimum.unsigned_abs(),
            maximum_layer: maximum.unsigned_abs(),
        })
    }

    fn pwcheck_methods(&mut self) -> Result<Vec<PwCheck>, ConfigError> {
        let Some(words) = self.words("sasl_pwcheck_method")? else {
            return Ok(vec![PwCheck::Auxprop]);
        };
        let mut methods = Vec::new();
        for word in words {
            methods.push(match word.as_str() {
                "auxprop" => PwCheck::Auxprop,
                "saslauthd" => PwCheck::Saslauthd,
                _ => {
                    let what = format!("'{word}' is not supported, use auxprop or saslauthd");
                    self.options.adjusted("sasl_pwcheck_method", what);
                    PwCheck::Unsupported(word)
                }
            });
        }
        Ok(methods)
    }

    fn listen(&self) -> Result<Vec<String>, ConfigError> {
        let text = self.text("cyrbk_listen")?.unwrap_or_default();
        Ok(split(&text, ","))
    }

    /// Case does not count; Cyrus logs an unknown name and goes on.
    fn syslog_facility(&mut self) -> Option<SyslogFacility> {
        let value = self.options.get("syslog_facility")?.shown();
        let facility = match value.to_ascii_uppercase().as_bytes() {
            b"DAEMON" => SyslogFacility::Daemon,
            b"MAIL" => SyslogFacility::Mail,
            b"NEWS" => SyslogFacility::News,
            b"USER" => SyslogFacility::User,
            [b'L', b'O', b'C', b'A', b'L', digit @ b'0'..=b'7'] => {
                SyslogFacility::Local(digit - b'0')
            }
            _ => {
                self.options
                    .warnings
                    .push(ConfigWarning::SyslogFacility { value });
                return None;
            }
        };
        Some(facility)
    }

    fn tls(&self) -> Result<TlsSettings, ConfigError> {
        let path = |name| self.string(name).map(to_path);
        Ok(TlsSettings {
            server_cert: path("tls_server_cert"),
            server_key: path("tls_server_key"),
            client_ca_file: path("tls_client_ca_file"),
            client_ca_dir: path("tls_client_ca_dir"),
            client_cert: path("tls_client_cert"),
            client_key: path("tls_client_key"),
            server_ca_file: path("tls_server_ca_file"),
            server_ca_dir: path("tls_server_ca_dir"),
            ciphers: self.text("tls_ciphers")?,
            versions: self.text("tls_versions")?,
        })
    }

    fn sync_client(&self) -> Result<SyncClientSettings, ConfigError> {
        Ok(SyncClientSettings {
            host: self.text("sync_host")?,
            port: self.text("sync_port")?,
            authname: self.text("sync_authname")?,
            password: self.text("sync_password")?.map(Secret::new),
            realm: self.text("sync_realm")?,
            try_imap: self.options.switch("sync_try_imap", true)?,
        })
    }
}

fn host_name() -> String {
    let system = rustix::system::uname();
    system.nodename().to_string_lossy().into_owned()
}
