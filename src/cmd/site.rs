//! Settings to the plain values that the store and the server are told.

use std::collections::BTreeMap;

use crate::config::{PartitionMode, PwCheck, Settings, TlsClientCerts, Virtdomains};
use crate::store::Catalog;
use crate::store::partition::SelectMode;
use crate::store::placement::{Placement, Policy};
use crate::sync::auth::{AuthConfig, DEFAULT_SASLAUTHD_PATH, NamePolicy, PasswordSource};
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
    let source = if sasl.pwcheck_methods.contains(&PwCheck::Saslauthd) {
        let path = sasl.saslauthd_path.clone();
        PasswordSource::Saslauthd(path.unwrap_or_else(|| DEFAULT_SASLAUTHD_PATH.into()))
    } else {
        PasswordSource::File(settings.password_file.clone())
    };
    AuthConfig {
        mechs: sasl.mech_list.clone(),
        source,
        admins: settings.admins.clone(),
        allow_plaintext: settings.allowplaintext,
        minimum_layer: sasl.minimum_layer,
        names: name_policy(settings),
        service: "csync".into(),
        failed_login_pause: settings.failedloginpause,
    }
}

/// The certificates, if there are any: the word `disabled` stands for none. A key that is
/// not named is in the file of the certificate.
pub fn tls_files(settings: &Settings) -> Option<TlsFiles> {
    let tls = &settings.tls;
    let cert = tls.server_cert.clone().filter(|path| path.as_os_str() != "disabled")?;
    // Whatever is older than this is no longer spoken.
    let versions = tls.versions.as_deref().unwrap_or("tls1_2 tls1_3");
    let has = |name: &str| versions.split_ascii_whitespace().any(|word| word == name);
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
