//! Directories that are written once.

use std::fs::{self, File, FileTimes};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Makes a directory, or takes an empty one. Errors: that of
/// [`io::ErrorKind::AlreadyExists`] if something is in it: nothing is ever overwritten.
pub(super) fn claim(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            if fs::read_dir(path)?.next().is_some() {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is not empty"));
            }
            Ok(())
        }
        result => result,
    }
}

/// Makes the names in a directory survive a power cut.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Gives a file the time of a message, Unix time.
pub(super) fn set_time(file: &File, unix: i64) -> io::Result<()> {
    let distance = Duration::from_secs(unix.unsigned_abs());
    let time = match unix {
        0.. => UNIX_EPOCH.checked_add(distance),
        _ => UNIX_EPOCH.checked_sub(distance),
    };
    file.set_times(FileTimes::new().set_modified(time.unwrap_or(SystemTime::UNIX_EPOCH)))
}
