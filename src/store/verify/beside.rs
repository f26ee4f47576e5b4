//! Files that stand beside a data file and are not part of the backup.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::finding::Leftover;

/// What interrupted work and earlier times have left beside the data file at `path`, in
/// the order of names.
pub fn leftovers(path: &Path) -> io::Result<Vec<(PathBuf, Leftover)>> {
    let mut found = Vec::new();
    let Some((directory, name)) = path.parent().zip(path.file_name()) else { return Ok(found) };
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let file = entry.file_name();
        let Some(ending) = file.as_bytes().strip_prefix(name.as_bytes()) else { continue };
        if let Some(kind) = kind(ending) {
            found.push((entry.path(), kind));
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(found)
}

/// What a file is by the ending that it adds to the name of a data file.
pub(super) fn kind(ending: &[u8]) -> Option<Leftover> {
    let ending = ending.strip_prefix(b".index").unwrap_or(ending);
    let ending = ending.strip_suffix(b"-journal").unwrap_or(ending);
    match ending {
        b"" => None,
        b".new" => Some(Leftover::Compaction),
        b".moving" | b".forward" => Some(Leftover::Move),
        _ => match ending.strip_prefix(b".cut") {
            Some(numbers) if are_numbers(numbers) => Some(Leftover::Cut),
            _ if are_numbers(ending) => Some(Leftover::Previous),
            _ => None,
        },
    }
}

/// `1*("." 1*DIGIT)`
fn are_numbers(text: &[u8]) -> bool {
    let mut parts = text.split(|&c| c == b'.');
    parts.next() == Some(b"")
        && text.len() > 1
        && parts.all(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn endings() {
        for (ending, expected) in [
            ("", None),
            (".index", None),
            (".index-journal", None),
            (".new", Some(Leftover::Compaction)),
            (".index.new", Some(Leftover::Compaction)),
            (".index.new-journal", Some(Leftover::Compaction)),
            (".moving", Some(Leftover::Move)),
            (".index.forward", Some(Leftover::Move)),
            (".cut.1795000000.77", Some(Leftover::Cut)),
            (".cut.1795000000.77.1", Some(Leftover::Cut)),
            (".1795000000", Some(Leftover::Previous)),
            (".index.1795000000.1", Some(Leftover::Previous)),
            (".txt", None),
            (".", None),
            (".cut", None),
            ("x", None),
        ] {
            assert_eq!(kind(ending.as_bytes()), expected, "{ending}");
        }
    }

    #[test]
    fn only_what_belongs_to_this_backup() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a_XXXXXX", "a_XXXXXX.index", "a_XXXXXX.new", "a_XXXXXX2.new", "b.new"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let found = leftovers(&dir.path().join("a_XXXXXX")).unwrap();
        assert_eq!(found, [(dir.path().join("a_XXXXXX.new"), Leftover::Compaction)]);
    }
}
