//! Settings to the plain values that the store and the server are told.

use std::collections::BTreeMap;

use crate::config::{PartitionMode, PwCheck, Settings, TlsClientCerts, Virtdomains};
use crate::store::Catalog;
use crate::store::partition::SelectMode;
use crate::store::placement::{Placement, Policy};
use crate::sync::auth::{
    AuthConfig, DEFAULT_SASLAUTHD_PATH, DEFAULT_SASLDB_PATH, NamePolicy, PasswordSources,
    SasldbSource,
};
use crate::sync::server::{ClientCerts, TlsFiles};
use crate::wire::mboxname::NameRules;

/// The location database.
pub fn catalog(settings: &Settings) -> Catalog {
    Catalog::open(settings.backup_db_path.clone())
}

/// Where new backups go.
pub fn placement(settings: &Settings) -> Placement {
    let select = &settings.partition_select;
    let partitions: BTreeMap<_, _> = settings.backup_partitions.clone();
    Placement::new(Policy {
        partitions,
        mode: match select.mode {
            PartitionMode::Random => SelectMode::Random,
            PartitionMode::FreespaceMost => SelectMode::FreespaceMost,
            PartitionMode::FreespacePercentMost => SelectMode::FreespacePercentMost,
            PartitionMode::FreespacePercentWeighted => SelectMode::FreespacePercentWeighted,
            PartitionMode::FreespacePercentWeightedDelta => {
                SelectMode::FreespacePercentWeightedDelta
            }
        },
        exclude: select.exclude.clone(),
        soft_usage_limit: select.soft_usage_limit,
        usage_reinit: u32::try_from(select.usage_reinit).unwrap_or_default(),
        fulldirhash: settings.fulldirhash,
        umask: settings.umask,
    })
}

/// Who owns which mailbox.
pub fn name_rules(settings: &Settings) -> NameRules {
    NameRules {
        deleted_prefix: settings.names.deletedprefix.clone().into_bytes(),
        default_domain: settings.names.defaultdomain.clone().map(String::into_bytes),
    }
}

/// How user names are understood at log-in.
pub fn name_policy(settings: &Settings) -> NamePolicy {
    NamePolicy {
        virtdomains: settings.names.virtdomains != Virtdomains::Off,
        defaultdomain: settings.names.defaultdomain.clone(),
        loginrealms: settings.loginrealms.clone(),
        username_tolower: settings.username_tolower,
    }
}

/// How clients authenticate.
pub fn auth_config(settings: &Settings) -> AuthConfig {
    let sasl = &settings.sasl;
    AuthConfig {
        mechs: sasl.mech_list.clone(),
        sources: password_sources(settings),
        admins: settings.admins.clone(),
        allow_plaintext: settings.allowplaintext,
        minimum_layer: sasl.minimum_layer,
        names: name_policy(settings),
        service: "csync".into(),
        failed_login_pause: settings.failedloginpause,
    }
}

/// Where passwords are. With saslauthd alone `sasldb2` still has the secrets for SCRAM, as in
/// Cyrus, if the configuration names it: on many systems there is an empty one.
fn password_sources(settings: &Settings) -> PasswordSources {
    let sasl = &settings.sasl;
    let has_saslauthd = sasl.pwcheck_methods.contains(&PwCheck::Saslauthd);
    let has_auxprop = !has_saslauthd || sasl.pwcheck_methods.contains(&PwCheck::Auxprop);
    let plugins = sasl.auxprop_plugins.as_deref();
    let names_sasldb = plugins.is_some_and(|names| names.iter().any(|name| name == "sasldb"));
    let may_have_sasldb = plugins.is_none() && (has_auxprop || sasl.sasldb_path.is_some());
    let sasldb_path = || sasl.sasldb_path.clone().unwrap_or_else(|| DEFAULT_SASLDB_PATH.into());
    let saslauthd_path =
        || sasl.saslauthd_path.clone().unwrap_or_else(|| DEFAULT_SASLAUTHD_PATH.into());
    PasswordSources {
        file: has_auxprop.then(|| settings.password_file.clone()),
        sasldb: (names_sasldb || may_have_sasldb).then(|| SasldbSource {
            path: sasldb_path(),
            server_name: settings.servername.clone(),
        }),
        stores_check_plain: has_auxprop,
        saslauthd: has_saslauthd.then(saslauthd_path),
    }
}

/// The certificates, if there are any: the word `disabled` stands for none. A key that is
/// not named is in the file of the certificate.
pub fn tls_files(settings: &Settings) -> Option<TlsFiles> {
    let tls = &settings.tls;
    let cert = tls.server_cert.clone().filter(|path| path.as_os_str() != "disabled")?;
    // Whatever is older than this is no longer spoken.
    let versions = tls.versions.as_deref().unwrap_or("tls1_2 tls1_3");
    // However they are separated, as in Cyrus.
    let has = |name: &str| versions.contains(name);
    Some(TlsFiles {
        key: tls.server_key.clone().unwrap_or_else(|| cert.clone()),
        cert,
        client_ca_file: tls.client_ca_file.clone(),
        client_ca_dir: tls.client_ca_dir.clone(),
        client_certs: match tls.client_certs {
            TlsClientCerts::Off => ClientCerts::Off,
            TlsClientCerts::Optional => ClientCerts::Optional,
            TlsClientCerts::Require => ClientCerts::Require,
        },
        tls12: has("tls1_2"),
        tls13: has("tls1_3"),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn settings(options: &str) -> Settings {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("imapd.conf");
        let text = format!("configdirectory: /c\nservername: mail\n{options}");
        std::fs::write(&path, text).unwrap();
        Settings::load(&path, "backupd").unwrap()
    }

    #[test]
    fn versions_are_found_however_they_are_separated() {
        for (versions, tls12, tls13) in [
            ("", true, true),
            ("tls_versions: tls1_2,tls1_3\n", true, true),
            ("tls_versions: tls1_0 tls1_1 tls1_2\n", true, false),
            ("tls_versions: TLS1_2\n", false, false),
        ] {
            let files = tls_files(&settings(&format!("tls_server_cert: /c.pem\n{versions}")));
            let files = files.unwrap();
            assert_eq!((files.tls12, files.tls13), (tls12, tls13), "{versions}");
        }
    }

    fn sources(options: &str) -> String {
        let sources = password_sources(&settings(options));
        let shown =
            |path: Option<std::path::PathBuf>| path.map_or("-".into(), |p| p.display().to_string());
        format!(
            "{} {} {} {}",
            shown(sources.file),
            shown(sources.sasldb.map(|db| db.path)),
            shown(sources.saslauthd),
            sources.stores_check_plain
        )
    }

    #[test]
    fn passwords_are_where_cyrus_has_them() {
        let saslauthd = "sasl_pwcheck_method: saslauthd\n";
        for (options, expected) in [
            ("", "/c/cyrbk.passwd /etc/sasldb2 - true"),
            ("sasl_sasldb_path: /s\n", "/c/cyrbk.passwd /s - true"),
            ("sasl_auxprop_plugin: sql sasldb\n", "/c/cyrbk.passwd /etc/sasldb2 - true"),
            ("sasl_auxprop_plugin: sql\n", "/c/cyrbk.passwd - - true"),
            ("sasl_pwcheck_method: saslauthd\n", "- - /run/saslauthd false"),
            (&format!("{saslauthd}sasl_saslauthd_path: /m\n"), "- - /m false"),
            (&format!("{saslauthd}sasl_sasldb_path: /s\n"), "- /s /run/saslauthd false"),
            (
                &format!("{saslauthd}sasl_auxprop_plugin: sasldb\n"),
                "- /etc/sasldb2 /run/saslauthd false",
            ),
            (
                "sasl_pwcheck_method: saslauthd auxprop\n",
                "/c/cyrbk.passwd /etc/sasldb2 /run/saslauthd true",
            ),
        ] {
            assert_eq!(sources(options), expected, "{options}");
        }
    }
}
