//! Putting a complete new file in the place of the one that is locked.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use super::ErrorKind;
use crate::lock::{self, Kind, Wait};

/// Writes `image` to `<path>.NEW` and renames it over `path`, where `old` is,
/// held under the exclusive lock by the caller. The new file gets the mode and
/// owner of the old one and is returned under the exclusive lock.
///
/// Durable on return, file and name. A crash leaves the old file or the new
/// one, and perhaps a stray `<path>.NEW`, which the next call removes.
pub(super) fn replace(path: &Path, old: &File, image: &[u8]) -> Result<File, ErrorKind> {
    // A symbolic link stays one.
    let path = fs::canonicalize(path).map_err(|e| ErrorKind::io("resolve", e))?;
    let mut fresh = path.clone().into_os_string();
    fresh.push(".NEW");
    let fresh = Path::new(&fresh);
    let file = write_file(fresh, old, image)
        .and_then(|file| fs::rename(fresh, &path).map(|()| file))
        .map_err(|e| {
            let _ = fs::remove_file(fresh);
            ErrorKind::io("replace", e)
        })?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| ErrorKind::io("sync the directory", e))?;
    Ok(file)
}

fn write_file(fresh: &Path, old: &File, image: &[u8]) -> io::Result<File> {
    match fs::remove_file(fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(fresh)?;
    // Nobody else knows the file yet; from the rename on it must be locked.
    lock::acquire(&file, Kind::Exclusive, Wait::No).map_err(io::Error::other)?;
    let (was, is) = (old.metadata()?, file.metadata()?);
    if (was.uid(), was.gid()) != (is.uid(), is.gid()) {
        fchown(&file, Some(was.uid()), Some(was.gid()))?;
    }
    file.set_permissions(was.permissions())?;
    file.write_all(image)?;
    file.sync_all()?;
    Ok(file)
}
