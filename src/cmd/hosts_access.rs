//! `/etc/hosts.allow` and `/etc/hosts.deny`: Cyrus's services ask libwrap, this server does not.
//! Whoever relies on them is to know.

use std::path::Path;

const FILES: [&str; 2] = ["/etc/hosts.allow", "/etc/hosts.deny"];

/// Warns in the log if a rule there is about the service.
pub(super) fn warn_of_rules(service: &str) {
    for file in FILES {
        let Ok(text) = std::fs::read(Path::new(file)) else { continue };
        if let Some(line) = rule_about(&String::from_utf8_lossy(&text), service) {
            tracing::warn!(
                "{file}:{line}: has no effect on {service}: TCP wrappers are not supported; limit \
                 who may connect by the address listened on or a firewall"
            );
        }
    }
}

/// The first line (from 1) that is about the service, or about all.
fn rule_about(text: &str, service: &str) -> Option<usize> {
    let mut is_continued = false;
    for (number, line) in text.lines().enumerate() {
        let is_rule = !is_continued && !line.trim_start().starts_with('#');
        is_continued = line.ends_with('\\');
        let Some((daemons, _)) = line.split_once(':').filter(|_| is_rule) else { continue };
        let mut words = daemons.split([' ', '\t', ',']).map(|word| word.split('@').next());
        if words.any(|word| word.is_some_and(|word| word == service || word == "ALL")) {
            return Some(number + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_about_the_service_are_found() {
        for (text, expected) in [
            ("", None),
            ("# ALL: ALL\n\n", None),
            ("sshd: ALL\nimapd, popd: 192.0.2.\n", None),
            ("sshd: \\\n ALL: x\n", None),
            ("backupd: ALL\n", Some(1)),
            ("sshd: ALL\nimapd, backupd@192.0.2.1 : 192.0.2.\n", Some(2)),
            ("\n  ALL : ALL EXCEPT LOCAL\n", Some(2)),
            ("backup: ALL\nbackupd2: ALL\n", None),
        ] {
            assert_eq!(rule_about(text, "backupd"), expected, "{text:?}");
        }
    }
}
