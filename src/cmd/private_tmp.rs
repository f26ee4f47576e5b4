//! `PrivateTmp=` of systemd: a `/tmp` that is emptied when the service ends. Messages that wait in
//! `backup_staging_path` have to outlive it.

use std::path::{Path, PathBuf};

/// In the names of the directories that systemd makes for `PrivateTmp=`, see systemd.exec(5).
const PRIVATE: &str = "systemd-private-";

/// Warns in the log if the staging directory goes with the service. Silent where that
/// cannot be said for certain.
pub(super) fn warn_of_staging(directory: &Path) {
    let Ok(mounts) = std::fs::read("/proc/self/mountinfo") else { return };
    if goes_with_service(&String::from_utf8_lossy(&mounts), &resolved(directory)) {
        tracing::warn!(
            path = %directory.display(),
            "backup_staging_path: is emptied when the service ends (PrivateTmp= of systemd): \
             acknowledged messages that wait there are lost if the server is killed with it; \
             set another directory"
        );
    }
}

/// Without symbolic links, as far as it is there.
fn resolved(directory: &Path) -> PathBuf {
    let known = directory.ancestors().find_map(|dir| Some((dir, dir.canonicalize().ok()?)));
    match known {
        Some((dir, canonical)) => match directory.strip_prefix(dir) {
            Ok(rest) if rest.as_os_str().is_empty() => canonical,
            Ok(rest) => canonical.join(rest),
            Err(_) => canonical,
        },
        None => directory.to_owned(),
    }
}

/// Whether the last of the mounts (proc(5), mountinfo) that `directory` is below shows a
/// directory of systemd's.
fn goes_with_service(mountinfo: &str, directory: &Path) -> bool {
    let mounts = mountinfo.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(3);
        let (root, point) = (words.next()?, words.next()?);
        let point = point.replace("\\040", " ");
        directory.starts_with(&point).then(|| (Path::new(&point).components().count(), root))
    });
    // Of several at one place, the later one hides the earlier.
    mounts
        .max_by_key(|(depth, _)| *depth)
        .is_some_and(|(_, root)| root.split('/').any(|name| name.starts_with(PRIVATE)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ROOT: &str = "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n";
    const ON_DISK: &str = "301 22 254:1 /tmp/systemd-private-9c-cyrus-imapd.service-x/tmp /tmp \
                           rw,relatime shared:190 - ext4 /dev/vda1 rw\n";
    const ON_TMPFS: &str = "301 22 0:40 /systemd-private-9c-cyrbk.service-x/tmp /tmp rw,nosuid \
                            shared:190 - tmpfs tmpfs rw\n";

    fn goes(mounts: &[&str], directory: &str) -> bool {
        goes_with_service(&mounts.concat(), Path::new(directory))
    }

    #[test]
    fn a_private_tmp_is_told_from_others() {
        for private in [ON_DISK, ON_TMPFS] {
            assert!(goes(&[ROOT, private], "/tmp/backup"));
            assert!(goes(&[private, ROOT], "/tmp"));
            assert!(!goes(&[ROOT, private], "/tmpfiles/backup"));
            assert!(!goes(&[ROOT, private], "/var/lib/cyrbk"));
        }
        let plain = "301 22 0:40 / /tmp rw,nosuid shared:190 - tmpfs tmpfs rw\n";
        assert!(!goes(&[ROOT, plain], "/tmp/backup"));
        assert!(!goes(&[ROOT, ON_DISK, plain], "/tmp/backup"), "hidden by a later mount");
        assert!(!goes(&[], "/tmp/backup"));
        assert!(!goes(&["x\n", "1 2 3 4\n"], "/tmp/backup"));
    }

    #[test]
    fn a_mount_inside_a_private_tmp_is_its_own() {
        let bound = "302 301 254:1 /srv/s /tmp/my\\040backup rw - ext4 /dev/vda1 rw\n";
        assert!(!goes(&[ROOT, ON_DISK, bound], "/tmp/my backup/x"));
        assert!(goes(&[ROOT, ON_DISK, bound], "/tmp/other"));
    }

    #[test]
    fn links_are_followed_as_far_as_there_is_something() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(resolved(&link), real);
        assert_eq!(resolved(&link.join("new/er")), real.join("new/er"));
    }
}
