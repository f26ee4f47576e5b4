//! Directories that the configuration names and nobody has made yet: what a new site meets first.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::site;
use crate::config::Settings;
use crate::store::survey;

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
    named(settings).filter(|path| !path.is_dir()).collect()
}

fn named(settings: &Settings) -> impl Iterator<Item = &Path> {
    let first = std::iter::once(&settings.configdirectory);
    first.chain(settings.backup_partitions.values()).map(PathBuf::as_path)
}

fn group(settings: &Settings) -> &str {
    settings.cyrus_group.as_deref().unwrap_or("mail")
}

/// What to say of each directory that is there, and that the user who runs this cannot
/// write to.
pub(super) fn not_writable(settings: &Settings) -> Vec<String> {
    let there = named(settings).filter(|path| path.is_dir());
    let refused = there.filter_map(|path| {
        let error = access(path, Access::WRITE_OK | Access::EXEC_OK).err()?;
        Some(refusal(settings, path, error))
    });
    refused.collect()
}

fn refusal(settings: &Settings, path: &Path, error: Errno) -> String {
    let (path, user, group) = (path.display(), &settings.cyrus_user, group(settings));
    let advice = match error {
        Errno::ACCESS => format!("; to give it to {user}: chown {user}:{group} {path}"),
        _ => String::new(),
    };
    format!("{path} cannot be written to: {}{advice}", std::io::Error::from(error))
}

/// What to say if there are backups, and no catalog that names them: new ones would be begun.
pub(super) fn without_catalog(settings: &Settings) -> Option<String> {
    let catalog = site::catalog(settings);
    if catalog.path().exists() {
        return None;
    }
    let partitions: Vec<_> = settings.backup_partitions.values().cloned().collect();
    // What cannot be looked into is told of elsewhere.
    let files = survey::count_below(&partitions).ok().filter(|&files| files > 0)?;
    Some(format!(
        "{} is missing, but data files are there ({files}): every mail server would begin new \
         backups; to make it again: ctl_backups reconstruct",
        catalog.path().display()
    ))
}

/// That they are missing, and the command that makes them.
fn advice(settings: &Settings, missing: &[&Path]) -> String {
    let paths: Vec<_> = missing.iter().map(|path| path.display().to_string()).collect();
    let paths = paths.join(" ");
    let (are, them) =
        if missing.len() == 1 { ("is no directory", "it") } else { ("are no directories", "them") };
    let group = group(settings);
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
        assert_eq!(not_writable(&settings), [""; 0]);
        assert_eq!(without_catalog(&settings), None);
        std::fs::write(dir.path().join("b/tom_aaaaaa"), "").unwrap();
        std::fs::write(dir.path().join("b/tom_aaaaaa.index"), "").unwrap();
        let said = without_catalog(&settings).unwrap();
        let lost = format!("{top}/conf/backups.db is missing, but data files are there (1)");
        assert!(said.starts_with(&lost) && said.ends_with("ctl_backups reconstruct"), "{said}");
        std::fs::write(dir.path().join("conf/backups.db"), "").unwrap();
        assert_eq!(without_catalog(&settings), None);
        let said = |error| refusal(&settings, Path::new("/b"), error);
        let denied = said(Errno::ACCESS);
        assert!(denied.ends_with("; to give it to cyrus: chown cyrus:mail /b"), "{denied}");
        let read_only = said(Errno::ROFS);
        assert!(read_only.starts_with("/b cannot be written to: Read-only"), "{read_only}");
        assert!(!read_only.contains("chown"), "{read_only}");
    }
}
