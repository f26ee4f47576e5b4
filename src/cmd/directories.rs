//! Directories that the configuration names and nobody has made yet: what a new site meets first.

use std::path::{Path, PathBuf};

use crate::config::Settings;

/// What to say if the configuration directory is not there: nothing can work then.
pub(super) fn without_configdirectory(settings: &Settings) -> Option<String> {
    (!settings.configdirectory.is_dir()).then(|| advice(settings, &missing(settings)))
}

/// What to say if any partition is not there: no new backup can be made on it.
pub(super) fn without_partitions(settings: &Settings) -> Option<String> {
    let missing = missing(settings);
    (!missing.is_empty()).then(|| advice(settings, &missing))
}

fn missing(settings: &Settings) -> Vec<&Path> {
    let named = std::iter::once(&settings.configdirectory);
    let named = named.chain(settings.backup_partitions.values()).map(PathBuf::as_path);
    named.filter(|path| !path.is_dir()).collect()
}

/// That they are missing, and the command that makes them.
fn advice(settings: &Settings, missing: &[&Path]) -> String {
    let paths: Vec<_> = missing.iter().map(|path| path.display().to_string()).collect();
    let paths = paths.join(" ");
    let (are, them) =
        if missing.len() == 1 { ("is no directory", "it") } else { ("are no directories", "them") };
    let group = settings.cyrus_group.as_deref().unwrap_or("mail");
    format!(
        "{paths} {are}; to make {them}: install -d -o {} -g {group} -m 750 {paths}",
        settings.cyrus_user
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::ImapdConf;

    #[test]
    fn what_is_missing_is_named_with_the_command_that_makes_it() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().display().to_string();
        let conf = dir.path().join("imapd.conf");
        let lines = format!(
            "configdirectory: {top}/conf\nbackuppartition-a: {top}/a\nbackuppartition-b: {top}/b\n"
        );
        std::fs::write(&conf, lines).unwrap();
        let settings =
            Settings::from_conf(&ImapdConf::read(&conf, None).unwrap(), "backupd").unwrap();
        let all = format!("{top}/conf {top}/a {top}/b");
        let said = without_configdirectory(&settings).unwrap();
        let install = "install -d -o cyrus -g mail -m 750";
        assert_eq!(said, format!("{all} are no directories; to make them: {install} {all}"));
        std::fs::create_dir(dir.path().join("conf")).unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        assert_eq!(without_configdirectory(&settings), None);
        let said = without_partitions(&settings).unwrap();
        assert_eq!(said, format!("{top}/b is no directory; to make it: {install} {top}/b"));
        std::fs::create_dir(dir.path().join("b")).unwrap();
        assert_eq!(without_partitions(&settings), None);
    }
}
