//! The options about who talks to whom: authentication, addresses, TLS,
//! syslog.

use super::super::error::{ConfigError, ConfigWarning};
use super::super::lookup::{Lookup, split, to_path, to_text};
use super::super::options::Options;
use std::path::PathBuf;
use std::time::Duration;

use super::super::settings::{
    KeepAliveSettings, LimitSettings, PwCheck, SaslSettings, Secret, SyncClientSettings, SyncTls,
    SyslogFacility, TlsClientCerts, TlsSettings,
};
use super::super::value::{self, KIB};

const CLIENT_CERTS: &[(&str, TlsClientCerts)] = &[
    ("off", TlsClientCerts::Off),
    ("optional", TlsClientCerts::Optional),
    ("require", TlsClientCerts::Require),
];

const SYNC_TLS: &[(&str, SyncTls)] = &[
    ("off", SyncTls::Off),
    ("optional", SyncTls::Optional),
    ("require", SyncTls::Require),
    ("immediate", SyncTls::Immediate),
];

/// Octets of the longest line that can be read back from a backup.
const MAX_LINE: u64 = 1 << 30;

impl Lookup<'_> {
    pub(super) fn sasl(&mut self) -> Result<SaslSettings, ConfigError> {
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
        let minimum = self.options.int_within("sasl_minimum_layer", 0, layers.clone())?;
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

    pub(super) fn addresses(&self, name: &str) -> Result<Vec<String>, ConfigError> {
        let text = self.text(name)?.unwrap_or_default();
        Ok(split(&text, ","))
    }

    pub(super) fn limits(&mut self) -> Result<LimitSettings, ConfigError> {
        let mut count = |name: &str, default: i32| {
            let number = self.options.int_within(name, default, i32::MIN..=i32::MAX)?;
            let number = if number > 0 { number } else { default };
            Ok(usize::try_from(number).unwrap_or(1))
        };
        let max_connections = count("cyrbk_max_connections", 4096)?;
        let max_connections_per_address = count("cyrbk_max_connections_per_address", 256)?;
        let max_open_backups = count("cyrbk_max_open_backups", 16)?;
        let max_workers = count("cyrbk_max_workers", 64)?;
        let size = |name: &str, default: i64| {
            let size = self.options.size(name, default, 1)?;
            Ok((if size > 0 { size } else { default }).unsigned_abs())
        };
        let max_line = size("cyrbk_max_line", 512 * KIB * KIB)?;
        let output_high_water = size("cyrbk_output_high_water", KIB * KIB)?;
        let spool_memory = size("cyrbk_spool_memory", 16 * KIB * KIB)?;
        if max_line > MAX_LINE {
            let what = format!("{max_line} is out of range, taken as {MAX_LINE}");
            self.options.adjusted("cyrbk_max_line", what);
        }
        Ok(LimitSettings {
            max_connections,
            max_connections_per_address,
            login_time: match self.pause("cyrbk_login_time", 60)? {
                Duration::ZERO => Duration::from_secs(60),
                time => time,
            },
            max_line: max_line.min(MAX_LINE),
            max_open_backups,
            output_high_water,
            spool_memory,
            max_workers,
        })
    }

    pub(super) fn keep_alive(&mut self) -> Result<Option<KeepAliveSettings>, ConfigError> {
        let count = self.options.int_within("tcp_keepalive_cnt", 0, 0..=i32::MAX)?;
        let time = |name| Ok(Some(self.pause(name, 0)?).filter(|time| !time.is_zero()));
        let settings = KeepAliveSettings {
            count: Some(count.unsigned_abs()).filter(|&count| count > 0),
            idle: time("tcp_keepalive_idle")?,
            interval: time("tcp_keepalive_intvl")?,
        };
        Ok(self.options.switch("tcp_keepalive", false)?.then_some(settings))
    }

    /// What Cyrus 2 had a switch for. Cyrus 3 does not know that any more, whatever its value.
    fn tls_client_certs(&mut self) -> Result<TlsClientCerts, ConfigError> {
        if let Some(setting) = self.options.free("tls_require_cert")
            && value::switch(setting.value) != Some(false)
        {
            self.options.warnings.push(ConfigWarning::Adjusted {
                option: setting.name.to_owned(),
                origin: setting.origin.clone(),
                what: "has no effect, as in Cyrus 3; what has is tls_client_certs: require".into(),
            });
        }
        self.options.word("tls_client_certs", TlsClientCerts::Optional, CLIENT_CERTS)
    }

    /// Cyrus takes two files, for two kinds of keys, with a comma between them: here the first one
    /// counts.
    fn first_file(&mut self, name: &str) -> Option<PathBuf> {
        let mut value = self.string(name)?;
        if let Some(comma) = value.iter().position(|&octet| octet == b',') {
            value.truncate(comma);
            let first = String::from_utf8_lossy(&value).into_owned();
            self.options.adjusted(name, format!("of several files only {first} is used"));
        }
        Some(to_path(value))
    }

    /// Case does not count; Cyrus logs an unknown name and goes on.
    pub(super) fn syslog_facility(&mut self) -> Option<SyslogFacility> {
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
                self.options.warnings.push(ConfigWarning::SyslogFacility { value });
                return None;
            }
        };
        Some(facility)
    }

    pub(super) fn tls(&mut self) -> Result<TlsSettings, ConfigError> {
        let client_certs = self.tls_client_certs()?;
        let server_cert = self.first_file("tls_server_cert");
        let server_key = self.first_file("tls_server_key");
        let path = |name| self.string(name).map(to_path);
        Ok(TlsSettings {
            server_cert,
            server_key,
            client_ca_file: path("tls_client_ca_file"),
            client_ca_dir: path("tls_client_ca_dir"),
            client_cert: path("tls_client_cert"),
            client_key: path("tls_client_key"),
            server_ca_file: path("tls_server_ca_file"),
            server_ca_dir: path("tls_server_ca_dir"),
            ciphers: self.text("tls_ciphers")?,
            versions: self.text("tls_versions")?,
            client_certs,
        })
    }

    pub(super) fn sync_client(&self) -> Result<SyncClientSettings, ConfigError> {
        let either = |name, other| match self.text(name)? {
            Some(text) => Ok(Some(text)),
            None => self.text(other),
        };
        Ok(SyncClientSettings {
            host: self.text("sync_host")?,
            port: self.text("sync_port")?,
            authname: either("sync_authname", "restore_authname")?,
            password: either("sync_password", "restore_password")?.map(Secret::new),
            realm: self.text("sync_realm")?,
            mechanisms: self.words("force_sasl_client_mech")?.filter(|words| !words.is_empty()),
            tls: self.options.word("cyrbk_sync_tls", SyncTls::Optional, SYNC_TLS)?,
            try_imap: self.options.switch("sync_try_imap", true)?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::settings;
    use super::*;

    #[test]
    fn lists_are_split_and_mechanisms_folded() {
        let settings = settings(
            "sasl_mech_list:  plain\tScram-SHA-1 \nadmins: a  group:b\n\
             sasl_auxprop_plugin: sasldb\nsasl_sasldb_path: /srv/sasldb2\n\
             sasl_minimum_layer: -1\nsasl_maximum_layer: 0\ncyrbk_listen: a,b , c\n",
        )
        .unwrap();
        let mechs = vec!["PLAIN".to_owned(), "SCRAM-SHA-1".to_owned()];
        assert_eq!(settings.sasl.mech_list, Some(mechs));
        assert_eq!(settings.admins, ["a", "group:b"]);
        assert_eq!(settings.sasl.auxprop_plugins, Some(vec!["sasldb".to_owned()]));
        assert_eq!(settings.sasl.sasldb_path, Some("/srv/sasldb2".into()));
        assert_eq!((settings.sasl.minimum_layer, settings.sasl.maximum_layer), (0, 0));
        assert_eq!(settings.listen, ["a", "b", "c"]);
    }

    #[test]
    fn how_another_server_is_reached() {
        let sync = settings("").unwrap().sync_client;
        assert_eq!((sync.mechanisms, sync.tls), (None, SyncTls::Optional));
        let sync = settings(
            "restore_authname: r\nrestore_password: p\ncyrbk_sync_tls: require\n\
             force_sasl_client_mech: SCRAM-SHA-1 plain\n",
        )
        .unwrap()
        .sync_client;
        assert_eq!((sync.authname.as_deref(), sync.tls), (Some("r"), SyncTls::Require));
        assert_eq!(sync.password.unwrap().expose(), "p");
        assert_eq!(sync.mechanisms, Some(vec!["SCRAM-SHA-1".to_owned(), "plain".to_owned()]));
        // What Cyrus reads goes before what it only documents.
        let sync = settings("restore_authname: r\nsync_authname: s\n").unwrap().sync_client;
        assert_eq!(sync.authname.as_deref(), Some("s"));
        assert!(settings("cyrbk_sync_tls: yes\n").unwrap_err().contains("off, optional"));
    }

    #[test]
    fn limits_have_defaults_and_units() {
        let limits = settings("").unwrap().limits;
        assert_eq!(limits.max_connections, 4096);
        assert_eq!(limits.login_time, Duration::from_secs(60));
        assert_eq!((limits.max_line, limits.spool_memory), (512 << 20, 16 << 20));
        let limits = settings(
            "cyrbk_max_connections: 7\ncyrbk_max_connections_per_address: 3\n\
             cyrbk_login_time: 2m\ncyrbk_max_line: 64K\ncyrbk_max_open_backups: 0\n\
             cyrbk_output_high_water: 1M\ncyrbk_spool_memory: 5\ncyrbk_max_workers: -1\n",
        )
        .unwrap()
        .limits;
        let expected = LimitSettings {
            max_connections: 7,
            max_connections_per_address: 3,
            login_time: Duration::from_secs(120),
            max_line: 64 << 10,
            max_open_backups: 16,
            output_high_water: 1 << 20,
            spool_memory: 5,
            max_workers: 64,
        };
        assert_eq!(limits, expected);
    }

    #[test]
    fn no_line_is_taken_that_could_not_be_read_back() {
        let taken = |text: &str| {
            let settings = settings(&format!("cyrbk_max_line: {text}\n")).unwrap();
            let warnings: Vec<String> = settings.warnings.iter().map(|w| w.to_string()).collect();
            (settings.limits.max_line, warnings)
        };
        assert_eq!(taken("1073741823"), (MAX_LINE - 1, vec![]));
        assert_eq!(taken("1G"), (MAX_LINE, vec![]));
        let (line, warnings) = taken("1073741825");
        assert_eq!((line, warnings.len()), (MAX_LINE, 1));
        let text = "cyrbk_max_line: 1073741825 is out of range, taken as 1073741824";
        assert!(warnings[0].ends_with(text), "{warnings:?}");
    }

    #[test]
    fn keep_alive_is_off_unless_asked_for() {
        let numbers = "tcp_keepalive_cnt: 4\ntcp_keepalive_idle: 2m\ntcp_keepalive_intvl: 30\n";
        assert_eq!(settings(numbers).unwrap().tcp_keepalive, None);
        let on = settings(&format!("tcp_keepalive: yes\n{numbers}")).unwrap().tcp_keepalive;
        let expected = KeepAliveSettings {
            count: Some(4),
            idle: Some(Duration::from_secs(120)),
            interval: Some(Duration::from_secs(30)),
        };
        assert_eq!(on, Some(expected));
        let system = settings("tcp_keepalive: 1\n").unwrap().tcp_keepalive;
        assert_eq!(system, Some(KeepAliveSettings { count: None, idle: None, interval: None }));
    }

    #[test]
    fn client_certificates_are_asked_for_in_any_of_the_words() {
        for (words, expected) in [
            (&["off", "0", "no", "f", "false"][..], TlsClientCerts::Off),
            (&["optional"], TlsClientCerts::Optional),
            (&["require"], TlsClientCerts::Require),
        ] {
            for word in words {
                let settings = settings(&format!("tls_client_certs: {word}\n")).unwrap();
                assert_eq!(settings.tls.client_certs, expected, "{word}");
            }
        }
        for bad in ["n", "Off", "yes", "1"] {
            settings(&format!("tls_client_certs: {bad}\n")).unwrap_err();
        }
        // Cyrus 3 ignores it, whatever it says.
        for (old, is_warned) in [("yes", true), ("False", true), ("no", false)] {
            for name in ["tls_require_cert", "ctl_backups_tls_require_cert"] {
                let settings = settings(&format!("{name}: {old}\n")).unwrap();
                assert_eq!(settings.tls.client_certs, TlsClientCerts::Optional);
                let warnings: Vec<_> = settings.warnings.iter().map(|w| w.to_string()).collect();
                assert_eq!(warnings.len(), usize::from(is_warned), "{warnings:?}");
                let names_it = |text: &String| text.ends_with("tls_client_certs: require");
                assert!(warnings.iter().all(names_it), "{warnings:?}");
            }
        }
    }

    #[test]
    fn of_two_certificates_the_first_counts() {
        let settings = settings(
            "tls_server_cert: /rsa.pem,/ec.pem\ntls_server_key: {configdirectory}/r.key,/e.key\n",
        )
        .unwrap();
        assert_eq!(settings.tls.server_cert, Some("/rsa.pem".into()));
        assert_eq!(settings.tls.server_key, Some("/conf/r.key".into()));
        assert_eq!(settings.warnings.len(), 2);
        assert!(settings.warnings[0].to_string().ends_with("only /rsa.pem is used"));
    }

    #[test]
    fn facilities_are_known_in_any_case() {
        let rows = [
            ("LOCAL0", Some(SyslogFacility::Local(0))),
            ("local7", Some(SyslogFacility::Local(7))),
            ("Daemon", Some(SyslogFacility::Daemon)),
            ("mail", Some(SyslogFacility::Mail)),
            ("local8", None),
            ("local", None),
            ("local77", None),
            ("cron", None),
        ];
        for (name, expected) in rows {
            let settings = settings(&format!("syslog_facility: {name}\n")).unwrap();
            assert_eq!(settings.syslog_facility, expected, "{name}");
            assert_eq!(settings.warnings.is_empty(), expected.is_some(), "{name}");
        }
    }

    #[test]
    fn old_names_of_tls_files_still_count() {
        let settings = settings(
            "tls_cert_file: /old\ntls_server_cert: /new\ntls_key_file: {configdirectory}/key\n\
             tls_ca_file: /ca\ntls_ca_path: /cas\ntls_cipher_list: HIGH\n",
        )
        .unwrap();
        assert_eq!(settings.tls.server_cert, Some("/new".into()));
        assert_eq!(settings.tls.server_key, Some("/conf/key".into()));
        assert_eq!(settings.tls.client_ca_file, Some("/ca".into()));
        assert_eq!(settings.tls.client_ca_dir, Some("/cas".into()));
        assert_eq!(settings.tls.ciphers.as_deref(), Some("HIGH"));
        assert_eq!(settings.warnings.len(), 5);
    }
}
