//! Settings to the plain values that the store and the server are told.

use std::collections::BTreeMap;

use crate::config::{PartitionMode, PwCheck, Settings, Virtdomains};
use crate::store::Catalog;
use crate::store::partition::SelectMode;
use crate::store::placement::{Placement, Policy};
use crate::sync::auth::{AuthConfig, DEFAULT_SASLAUTHD_PATH, NamePolicy, PasswordSource};
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
        names: name_policy(settings),
        service: "csync".into(),
        failed_login_pause: settings.failedloginpause,
    }
}
