//! The names of options that mean something here.

/// Every option that is read by name. `<ident>_` in front of one of these is
/// its service form.
///
/// cyrbk's own options are spelled `cyrbk_...` in full and stand here like any
/// other, so under the ident `cyrbk`, too, `cyrbk_listen` is that option: the
/// remainder `listen` is no option. A test keeps it so.
const KNOWN: &[&str] = &[
    "admins",
    "allowplaintext",
    "altnamespace",
    "backup_compact_maxsize",
    "backup_compact_minsize",
    "backup_compact_work_threshold",
    "backup_db",
    "backup_db_path",
    "backup_keep_previous",
    "backup_retention",
    "backup_retention_days",
    "backup_staging_path",
    "client_timeout",
    "configdirectory",
    "cyrbk_listen",
    "cyrbk_login_time",
    "cyrbk_max_connections",
    "cyrbk_max_connections_per_address",
    "cyrbk_max_line",
    "cyrbk_max_open_backups",
    "cyrbk_max_workers",
    "cyrbk_output_high_water",
    "cyrbk_password_file",
    "cyrbk_spool_memory",
    "cyrbk_sync_tls",
    "cyrbk_tls_listen",
    "cyrus_group",
    "cyrus_user",
    "debug",
    "defaultdomain",
    "defaultpartition",
    "deletedprefix",
    "failedloginpause",
    "force_sasl_client_mech",
    "fulldirhash",
    "literalminus",
    "loginrealms",
    "maxliteral",
    "maxquoted",
    "maxword",
    "partition_select_exclude",
    "partition_select_mode",
    "partition_select_soft_usage_limit",
    "partition_select_usage_reinit",
    "restore_authname",
    "restore_password",
    "sasl_maximum_layer",
    "sasl_minimum_layer",
    "sasl_pwcheck_method",
    "servername",
    "sync_authname",
    "sync_host",
    "sync_password",
    "sync_port",
    "sync_realm",
    "sync_timeout",
    "sync_try_imap",
    "syslog_facility",
    "syslog_prefix",
    "tcp_keepalive",
    "tcp_keepalive_cnt",
    "tcp_keepalive_idle",
    "tcp_keepalive_intvl",
    "temp_path",
    "tls_ca_file",
    "tls_ca_path",
    "tls_cert_file",
    "tls_cipher_list",
    "tls_ciphers",
    "tls_client_ca_dir",
    "tls_client_ca_file",
    "tls_client_cert",
    "tls_client_certs",
    "tls_client_key",
    "tls_key_file",
    "tls_server_ca_dir",
    "tls_server_ca_file",
    "tls_server_cert",
    "tls_server_key",
    "tls_versions",
    "umask",
    "unixhierarchysep",
    "username_tolower",
    "virtdomains",
];

/// Old name, new name, and the version of Cyrus that brought the new one.
pub(super) const DEPRECATED: &[(&str, &str, &str)] = &[
    ("backup_retention_days", "backup_retention", "3.1.8"),
    ("tls_ca_file", "tls_client_ca_file", "2.5.0"),
    ("tls_ca_path", "tls_client_ca_dir", "2.5.0"),
    ("tls_cert_file", "tls_server_cert", "2.5.0"),
    ("tls_cipher_list", "tls_ciphers", "2.5.0"),
    ("tls_key_file", "tls_server_key", "2.5.0"),
];

/// Families of names in which an unknown one is probably a typing error.
pub(super) const OWN_FAMILIES: &[&str] = &["backup_", "cyrbk_", "partition_select_"];

/// The name as the table has it, if it is there.
pub(super) fn known_name(name: &str) -> Option<&'static str> {
    let at = KNOWN.binary_search(&name).ok()?;
    Some(KNOWN[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_sorted_for_the_search() {
        assert!(KNOWN.is_sorted());
        for (old, new, _) in DEPRECATED {
            assert!(known_name(old).is_some() && known_name(new).is_some(), "{old}");
        }
    }

    #[test]
    fn own_options_are_not_the_service_form_of_others() {
        for name in KNOWN {
            if let Some(rest) = name.strip_prefix("cyrbk_") {
                assert_eq!(known_name(rest), None, "{name}");
            }
        }
    }
}
