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

/// What to say of each directory that is there, is written to, and that the user who runs this
/// cannot write to. Nothing new goes to an excluded partition.
pub(super) fn not_writable(settings: &Settings) -> Vec<String> {
    let exclude = &settings.partition_select.exclude;
    let chosen = settings.backup_partitions.iter().filter(|(name, _)| !exclude.contains(name));
    let own = std::iter::once(&settings.configdirectory).chain(chosen.map(|(_, path)| path));
    let own: Vec<&Path> = own.map(PathBuf::as_path).collect();
    // These may lie in directories of others, which are not to be given away.
    let others = [settings.backup_db_path.parent(), Some(&*settings.backup_staging_path)];
    let others = others.into_iter().flatten().filter(|path| !own.contains(path));
    let refused = |path: &Path| {
        let error = access(path, Access::WRITE_OK | Access::EXEC_OK).err()?;
        path.is_dir().then_some(error)
    };
    let own_refused = own.iter().filter_map(|path| {
        let error = refused(path)?;
        Some(refusal(path, error) + &advice_on_owner(settings, path, error))
    });
    own_refused.chain(others.filter_map(|path| Some(refusal(path, refused(path)?)))).collect()
}

fn refusal(path: &Path, error: Errno) -> String {
    format!("{} cannot be written to: {}", path.display(), std::io::Error::from(error))
}

/// Empty where another owner would not help.
fn advice_on_owner(settings: &Settings, path: &Path, error: Errno) -> String {
    let (path, user, group) = (path.display(), &settings.cyrus_user, group(settings));
    match error {
        Errno::ACCESS => format!("; to give it to {user}: chown {user}:{group} {path}"),
        _ => String::new(),
    }
}

/// What to say if there are backups, and no catalog that names any: new ones would be begun.
pub(super) fn without_catalog(settings: &Settings) -> Option<String> {
    let catalog = site::catalog(settings);
    let path = catalog.path().display();
    // Whoever asks for a catalog that is not there makes an empty one. What cannot be read is
    // told of elsewhere.
    if !catalog.is_empty().ok()? {
        return None;
    }
    let is = if catalog.path().exists() { "names no backup" } else { "is missing" };
    let partitions: Vec<_> = settings.backup_partitions.values().cloned().collect();
    let files = survey::count_below(&partitions).ok().filter(|&files| files > 0)?;
    Some(format!(
        "{path} {is}, but data files are there ({files}): every mail server would begin new \
         backups; to make it again: ctl_backups reconstruct"
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

    fn settings(top: &Path, lines: &str) -> Settings {
        let conf = top.join("imapd.conf");
        let text = format!("configdirectory: {}/conf\n{lines}", top.display());
        std::fs::write(&conf, text).unwrap();
        Settings::from_conf(&ImapdConf::read(&conf, None).unwrap(), "backupd").unwrap()
    }

    #[test]
    fn what_is_missing_is_named_with_the_command_that_makes_it() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().display().to_string();
        let lines = format!("backuppartition-a: {top}/a\nbackuppartition-b: {top}/b\n");
        let settings = settings(dir.path(), &lines);
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
        let catalog = site::catalog(&settings);
        let path = dir.path().join("b/tom_aaaaaa");
        catalog.set(b"tom", &path).unwrap();
        assert_eq!(without_catalog(&settings), None);
        catalog.remove(b"tom").unwrap();
        let said = without_catalog(&settings).unwrap();
        assert!(said.contains("backups.db names no backup, but data files are there"), "{said}");
        std::fs::write(catalog.path(), "damaged").unwrap();
        assert_eq!(without_catalog(&settings), None);
    }

    #[test]
    fn another_owner_is_advised_where_that_helps() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path(), "backuppartition-a: /b\n");
        let advice = |error| advice_on_owner(&settings, Path::new("/b"), error);
        assert_eq!(advice(Errno::ACCESS), "; to give it to cyrus: chown cyrus:mail /b");
        assert_eq!(advice(Errno::ROFS), "");
        let read_only = refusal(Path::new("/b"), Errno::ROFS);
        assert!(read_only.starts_with("/b cannot be written to: Read-only"), "{read_only}");
    }

    /// `/proc/sys` takes no new names of anybody, root included.
    #[test]
    fn what_is_written_to_is_tried() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |lines: &str| not_writable(&settings(dir.path(), lines));
        for (lines, count) in [
            ("backuppartition-a: /nonexistent\n", 0),
            ("backuppartition-a: DENIED\n", 1),
            ("backuppartition-a: DENIED\npartition_select_exclude: a\n", 0),
            ("backuppartition-a: /nonexistent\nbackup_db_path: DENIED/backups.db\n", 1),
            ("backuppartition-a: /nonexistent\nbackup_staging_path: DENIED\n", 1),
            ("backuppartition-a: DENIED\nbackup_staging_path: DENIED\n", 1),
        ] {
            let said = refused(&lines.replace("DENIED", "/proc/sys"));
            assert_eq!(said.len(), count, "{lines}: {said:?}");
        }
    }
}
