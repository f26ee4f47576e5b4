//! Nothing is cut or replaced without being kept: names and copies beside the
//! data file.
//!
//! | name | what |
//! |---|---|
//! | `<data>.cut.<time>.<offset>` | octets that stood at that offset of the data file |
//! | `<data>.index.<time>` | an index that did not fit the data, or was broken |
//!
//! A name that is taken gets a number appended. Nobody reads these files; once the
//! administrator has looked at them they can go.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::backup::{index_path, with_suffix};
use super::data_file::sync_directory_of;
use super::disk::Disk;

/// Names tried before giving up.
const NAMES_MAX: u32 = 10_000;

/// Copies the octets `from..to` of `disk` to a file beside the data file `path`.
/// The copy survives a power cut when this returns `Ok`.
pub(super) fn keep_octets(
    disk: &dyn Disk,
    path: &Path,
    from: u64,
    to: u64,
    now: i64,
) -> io::Result<PathBuf> {
    let create =
        |path: &Path| OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let (copy, file) = unused_name(path, &format!(".cut.{now}.{from}"), create)?;
    let copied = copy_octets(disk, from, to, &file).and_then(|()| sync_directory_of(&copy));
    match copied {
        Ok(()) => Ok(copy),
        Err(error) => {
            // The octets are still where they were; a full disk need not hold half of
            // them twice.
            let _ = fs::remove_file(&copy);
            Err(error)
        }
    }
}

fn copy_octets(disk: &dyn Disk, from: u64, to: u64, mut copy: &File) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    let mut at = from;
    while at < to {
        let want = (to - at).min(buffer.len() as u64) as usize;
        let got = disk.read_at(&mut buffer[..want], at)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        copy.write_all(&buffer[..got])?;
        at += got as u64;
    }
    copy.sync_all()
}

/// Puts the index of the data file `path` out of the way, with its journal.
///
/// The index goes first: without it the journal means nothing, but the index
/// without the journal may look whole and be half of a transaction.
pub(super) fn put_index_aside(path: &Path, now: i64) -> io::Result<PathBuf> {
    let index = index_path(path);
    let kept = rename_to_unused(&index, path, &format!(".index.{now}"))?;
    match fs::rename(with_suffix(&index, "-journal"), with_suffix(&kept, "-journal")) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    sync_directory_of(&index)?;
    Ok(kept)
}

/// Renames `from` to a name that begins with `path` and `suffix` and that nobody has. The lock of
/// the file is held: nobody else makes such names now.
pub(super) fn rename_to_unused(from: &Path, path: &Path, suffix: &str) -> io::Result<PathBuf> {
    let (kept, ()) = unused_name(path, suffix, |kept| {
        if fs::exists(kept)? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(from, kept)
    })?;
    Ok(kept)
}

fn unused_name<T>(
    path: &Path,
    suffix: &str,
    mut take: impl FnMut(&Path) -> io::Result<T>,
) -> io::Result<(PathBuf, T)> {
    let mut name = with_suffix(path, suffix);
    for number in 1..NAMES_MAX {
        match take(&name) {
            Ok(taken) => return Ok((name, taken)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
        name = with_suffix(path, &format!("{suffix}.{number}"));
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_copy_replaces_an_earlier_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        fs::write(&path, b"0123456789").unwrap();
        let file = File::open(&path).unwrap();
        let one = keep_octets(&file, &path, 3, 7, 5).unwrap();
        let two = keep_octets(&file, &path, 3, 4, 5).unwrap();
        assert_eq!(fs::read(one).unwrap(), b"3456");
        assert_eq!(fs::read(two).unwrap(), b"3");
        assert!(keep_octets(&file, &path, 3, 11, 5).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "no half copies");
    }

    #[test]
    fn an_index_goes_with_its_journal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        for turn in ["1", "2"] {
            fs::write(dir.path().join("data.index"), turn).unwrap();
            fs::write(dir.path().join("data.index-journal"), turn).unwrap();
            let kept = put_index_aside(&path, 5).unwrap();
            assert_eq!(fs::read_to_string(&kept).unwrap(), turn);
            assert_eq!(fs::read_to_string(with_suffix(&kept, "-journal")).unwrap(), turn);
        }
        assert!(put_index_aside(&path, 5).is_err(), "there is none");
    }
}
