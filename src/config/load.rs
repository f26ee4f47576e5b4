//! Which option becomes which setting.

mod access;
mod storage;

use std::path::Path;
use std::time::Duration;

use super::error::ConfigError;
use super::file::ImapdConf;
use super::lookup::Lookup;
use super::settings::{DbBackend, Settings};
use super::value::KIB;

const BACKENDS: &[(&str, DbBackend)] = &[
    ("skiplist", DbBackend::Skiplist),
    ("sql", DbBackend::Sql),
    ("twoskip", DbBackend::Twoskip),
    ("zeroskip", DbBackend::Zeroskip),
    ("lmdb", DbBackend::Lmdb),
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
            backup_db: lookup.options.word("backup_db", DbBackend::Twoskip, BACKENDS)?,
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
            sync_timeout: lookup.pause("sync_timeout", 1800)?.max(Duration::from_secs(3)),
            client_timeout: lookup.pause("client_timeout", 10)?,
            maxliteral: lookup.limit("maxliteral", 32 * KIB * KIB)?,
            maxquoted: lookup.limit("maxquoted", 128 * KIB)?,
            maxword: lookup.limit("maxword", 128 * KIB)?,
            literalminus: lookup.options.switch("literalminus", false)?,
            sasl: lookup.sasl()?,
            password_file: lookup.path_or_below("cyrbk_password_file", "cyrbk.passwd"),
            listen: lookup.addresses("cyrbk_listen")?,
            tls_listen: lookup.addresses("cyrbk_tls_listen")?,
            limits: lookup.limits()?,
            tcp_keepalive: lookup.keep_alive()?,
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

fn host_name() -> String {
    let system = rustix::system::uname();
    system.nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::super::EXIT_CONFIG;
    use super::super::lookup::to_path;
    use super::super::settings::{PartitionMode, PwCheck, SyslogFacility, Virtdomains};
    use super::*;

    const SITE: &str = "tests/fixtures/config/site.conf";

    /// Settings of `ctl_backups` from some lines; the first is 2.
    pub(super) fn settings(lines: &str) -> Result<Settings, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("configdirectory: /conf\n{lines}")).unwrap();
        let conf = ImapdConf::read(file.path(), None).unwrap();
        Settings::from_conf(&conf, "ctl_backups").map_err(|e| {
            assert_eq!(e.exit_code(), EXIT_CONFIG);
            e.to_string().replace(file.path().to_str().unwrap(), "F")
        })
    }

    fn warnings(lines: &str) -> Vec<String> {
        let settings = settings(lines).unwrap();
        let shown = settings.warnings.iter().map(|w| w.to_string());
        let file = format!("{} ", settings.config_file.display());
        shown.map(|w| w.replace(&file, "F ")).collect()
    }

    #[test]
    fn defaults_are_those_of_cyrus() {
        let settings = settings("").unwrap();
        assert_eq!(settings.configdirectory, Path::new("/conf"));
        assert_eq!(settings.backup_db, DbBackend::Twoskip);
        assert_eq!(settings.backup_db_path, Path::new("/conf/backups.db"));
        assert_eq!(settings.backup_staging_path, Path::new("/tmp/backup"));
        assert_eq!(settings.password_file, Path::new("/conf/cyrbk.passwd"));
        assert_eq!(settings.partition_select.mode, PartitionMode::FreespaceMost);
        assert_eq!(settings.umask, 0o077);
        assert_eq!(settings.retention, Some(Duration::from_secs(7 * 86_400)));
        assert_eq!((settings.compact.minsize, settings.compact.maxsize), (0, 0));
        assert_eq!(settings.compact.work_threshold, 1);
        assert!(!settings.compact.keep_previous && !settings.fulldirhash);
        assert!(settings.names.unixhierarchysep && settings.names.altnamespace);
        assert_eq!(settings.names.virtdomains, Virtdomains::Off);
        assert_eq!(settings.names.defaultdomain.as_deref(), Some("internal"));
        assert_eq!(settings.names.deletedprefix, "DELETED");
        assert!(settings.admins.is_empty() && !settings.allowplaintext);
        assert_eq!(settings.failedloginpause, Duration::from_secs(3));
        assert_eq!(settings.sync_timeout, Duration::from_secs(1800));
        assert_eq!(settings.client_timeout, Duration::from_secs(10));
        assert_eq!((settings.maxquoted, settings.maxword), (131_072, 131_072));
        assert_eq!(settings.sasl.pwcheck_methods, [PwCheck::Auxprop]);
        assert_eq!((settings.sasl.minimum_layer, settings.sasl.maximum_layer), (0, 256));
        assert_eq!(settings.cyrus_user, "cyrus");
        assert!(settings.sync_client.try_imap);
        assert_eq!(settings.servername, host_name());
        assert_eq!(settings.warnings, []);
    }

    #[test]
    fn a_site_is_read_for_its_server() {
        let conf = ImapdConf::read(Path::new(SITE), None).unwrap();
        let settings = Settings::from_conf(&conf, "backupd").unwrap();
        let partitions: Vec<_> = settings.backup_partitions.iter().collect();
        let one = ("one".to_owned(), PathBuf::from("/srv/backup/one"));
        let two = ("two".to_owned(), PathBuf::from("/srv/backup/two"));
        assert_eq!(partitions, [(&one.0, &one.1), (&two.0, &two.1)]);
        let select = &settings.partition_select;
        assert_eq!(select.mode, PartitionMode::FreespacePercentWeighted);
        assert_eq!(select.exclude, ["two", "three", "four"]);
        assert_eq!(select.soft_usage_limit, 90);
        assert_eq!(settings.retention, Some(Duration::from_secs(14 * 86_400)));
        assert_eq!(settings.compact.minsize, 16 << 10);
        assert_eq!(settings.compact.maxsize, 1 << 20);
        assert_eq!(settings.compact.work_threshold, 1);
        assert!(settings.compact.keep_previous);
        assert_eq!(settings.backup_db_path, Path::new("/srv/backup/conf/db/backups.db"));
        assert_eq!(settings.backup_staging_path, Path::new("/srv/backup/conf/tmp/backup"));
        assert_eq!(settings.names.virtdomains, Virtdomains::On);
        assert!(!settings.names.unixhierarchysep);
        assert_eq!(settings.sync_timeout, Duration::from_secs(3));
        assert_eq!(settings.umask, 0o027);
        assert_eq!(settings.syslog_facility, Some(SyslogFacility::Local(6)));
        assert_eq!(settings.admins, ["replicator"]);
        assert_eq!(settings.sasl.mech_list, Some(vec!["SCRAM-SHA-256".to_owned()]));
        assert_eq!(settings.sasl.pwcheck_methods, [PwCheck::Saslauthd, PwCheck::Auxprop]);
        assert_eq!(settings.sasl.saslauthd_path, Some("/run/saslauthd/mux".into()));
        assert_eq!(settings.listen, ["[::]:2005", "127.0.0.1:2006"]);
        assert_eq!(settings.sync_client.host, None);
        assert_eq!(settings.warnings.len(), 1, "{:?}", settings.warnings);
    }

    #[test]
    fn each_tool_has_its_own_view_of_a_site() {
        let conf = ImapdConf::read(Path::new(SITE), None).unwrap();
        let of = |ident| Settings::from_conf(&conf, ident).unwrap();
        let tool = of("ctl_backups");
        assert_eq!(tool.retention, Some(Duration::from_secs(36 * 3600)));
        assert_eq!(tool.admins, ["cyrus", "group:backup"]);
        let mechs = vec!["PLAIN".to_owned(), "LOGIN".to_owned()];
        assert_eq!(tool.sasl.mech_list, Some(mechs));
        let restore = of("restore").sync_client;
        assert_eq!(restore.host.as_deref(), Some("imap.example.com"));
        assert_eq!(restore.password.as_ref().unwrap().expose(), "hunter2");
        assert_eq!(of("cyrbk").listen.len(), 2);
    }

    #[test]
    fn the_password_is_not_printed() {
        let shown = format!("{:?}", settings("sync_password: hunter2\n").unwrap());
        assert!(shown.contains("Secret(..)") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn refused_values_are_told_in_cyrus_words() {
        let word = "invalid value 'Twoskip' for backup_db in line 2 \
                    (file F: use one of skiplist, sql, twoskip, zeroskip, lmdb)";
        let rows = [
            (
                "\nbackup_keep_previous: maybe\n",
                "non-switch value for backup_keep_previous in line 3 \
                 (file F: use yes or no, in lower case)",
            ),
            (
                "ctl_backups_fulldirhash: ON\nfulldirhash: y\n",
                "non-switch value for fulldirhash in line 2 \
                 (file F: use yes or no, in lower case)",
            ),
            (
                "partition_select_usage_reinit: 08\n",
                "non-integer value for partition_select_usage_reinit in line 2 \
                 (file F: use a whole number without a unit)",
            ),
            (
                "maxliteral: 1x\n",
                "non-integer value for maxliteral in line 2 \
                 (file F: use a whole number, with unit K, M or G if you like)",
            ),
            ("backup_db: Twoskip\n", word),
            (
                "backup_retention_days: xx\n",
                "unparsable duration 'xx' for backup_retention_days in line 2 \
                 (file F: use numbers with unit d, h, m or s, as in 1d12h)",
            ),
            (
                "backuppartition-x: {configdirectory}/x\n",
                "invalid value '{configdirectory}/x' for backuppartition-x in line 2 \
                 (file F: use an absolute path, written out)",
            ),
            (
                "umask: u=rwx\n",
                "invalid value 'u=rwx' for umask in line 2 \
                 (file F: use an octal number such as 077)",
            ),
            (
                "umask: 999\n",
                "invalid value '999' for umask in line 2 \
                 (file F: use an octal number such as 077)",
            ),
            (
                "defaultpartition: a-b\n",
                "defaultpartition option contains non-alnum character \
                 (file F: line 2, use letters and digits only)",
            ),
        ];
        for (lines, expected) in rows {
            assert_eq!(settings(lines).unwrap_err(), expected);
        }
    }

    #[test]
    fn text_has_to_be_utf8_but_paths_and_strangers_do_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let load = |lines: &[u8]| {
            let text = [b"configdirectory: /c\xff\nforeign: \xff\n", lines].concat();
            std::fs::write(file.path(), text).unwrap();
            Settings::from_conf(&ImapdConf::read(file.path(), None).unwrap(), "backupd")
        };
        assert_eq!(load(b"").unwrap().backup_db_path, to_path(b"/c\xff/backups.db".to_vec()));
        let error = load(b"admins: \xff\n").unwrap_err().to_string();
        assert!(error.starts_with("non-UTF-8 value for admins in line 3"), "{error}");
    }

    #[test]
    fn the_configuration_directory_is_required() {
        let error = Settings::load(Path::new("tests/fixtures/config/auth.conf"), "restore");
        assert_eq!(
            error.unwrap_err().to_string(),
            "configdirectory option not specified in configuration file \
             (file tests/fixtures/config/auth.conf: \
             add a line `configdirectory: /absolute/path`)"
        );
    }

    #[test]
    fn the_mark_counts_only_at_the_start_of_a_typed_option() {
        let db_path = |value: &str| {
            let lines = format!("backup_db_path: {value}\n");
            settings(&lines).unwrap().backup_db_path
        };
        assert_eq!(db_path("{configdirectory}/b"), Path::new("/conf/b"));
        assert_eq!(db_path("{CONFIGDirectory}b"), Path::new("/confb"));
        assert_eq!(db_path("{configdirectory}"), Path::new("/conf"));
        assert_eq!(db_path("x{configdirectory}"), Path::new("x{configdirectory}"));
        let sasl = settings("sasl_sasldb_path: {configdirectory}/x\n").unwrap().sasl;
        assert_eq!(sasl.sasldb_path, Some("{configdirectory}/x".into()));
    }

    #[test]
    fn odd_values_are_warned_of() {
        let rows = [
            ("syslog_facility: LOCAL9\n", "config error: syslog name LOCAL9 not recognised"),
            (
                "umask: 077 # private\n",
                "config: F line 2: umask: '077 # private' is not an octal mask, taken as 077",
            ),
            (
                "temp_path: tmp\n",
                "config: F line 2: temp_path: not an absolute path, \
                 so it depends on the working directory",
            ),
            (
                "sasl_pwcheck_method: pwcheck\n",
                "config: F line 2: sasl_pwcheck_method: 'pwcheck' is not supported, \
                 use auxprop or saslauthd",
            ),
            (
                "partition_select_soft_usage_limit: 4294967297\n",
                "config: F line 2: partition_select_soft_usage_limit: \
                 4294967297 is out of range, taken as 2147483647",
            ),
            ("backup_retenton: 3\n", "config: F line 2: unknown option 'backup_retenton' ignored"),
        ];
        for (lines, expected) in rows {
            assert_eq!(warnings(lines), [expected]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_bytes_are_read_or_refused(
            option in prop::sample::select(vec![
                "backup_retention", "backup_compact_minsize", "umask", "sync_try_imap",
                "partition_select_usage_reinit", "virtdomains", "backup_db_path", "@include",
                "backuppartition-x", "sasl_mech_list",
            ]),
            value in prop_oneof![
                "[-+0-9a-fxdhmskKMGiB ]{0,24}".prop_map(String::into_bytes),
                prop::collection::vec(any::<u8>(), 0..64),
            ],
        ) {
            let file = tempfile::NamedTempFile::new().unwrap();
            let head = format!("configdirectory: /conf\n{option}:");
            std::fs::write(file.path(), [head.as_bytes(), &value].concat()).unwrap();
            if let Ok(conf) = ImapdConf::read(file.path(), None) {
                match Settings::from_conf(&conf, "backupd") {
                    Ok(settings) => prop_assert!(settings.umask <= 0o777),
                    Err(error) => prop_assert_eq!(error.exit_code(), EXIT_CONFIG),
                }
            }
        }
    }
}
