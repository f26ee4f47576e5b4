//! Which data files there are, and whose they are by what is in them.
//!
//! The owner of a file is who its lines name: the owner of the mailbox of MAILBOX,
//! UNMAILBOX and EXPUNGE, of the old name of RENAME, the USERID of SEEN, SUB and
//! SIEVE. Anchors (see [`crate::wire::own`]) may be without a userid in anybody's backup:
//! they mean the shared one only where nothing else names anybody. The file's name says
//! nothing.
//!
//! Nothing is locked or changed: data files only grow, and are replaced as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::log::{LogReader, NoBodies};
use super::torn;
use crate::wire::apply::Apply;
use crate::wire::mboxname::NameRules;
use crate::wire::own::{ANCHOR_PREFIX, Own};

/// Directories below a partition that are entered: its hash directories, and those
/// that userids with `/` make.
const DEPTH_MAX: usize = 8;
/// What mkfs makes at the top of a file system, for root alone.
const LOST_AND_FOUND: &str = "lost+found";

/// What the lines of a data file say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Octets of the file.
    pub len_file: u64,
    /// Userids named, with the number of lines that do.
    pub owners: BTreeMap<Vec<u8>, u64>,
    /// It holds at least one readable chunk.
    pub is_backup: bool,
    /// Some of it cannot be read.
    pub is_damaged: bool,
}

/// A data file that was looked into.
#[derive(Debug)]
pub struct Surveyed {
    /// As found below a partition, or as the catalog has it.
    pub path: PathBuf,
    /// What is in it.
    pub evidence: io::Result<Evidence>,
}

/// Looks into `known` files and all that are below `directories`, each file once, by
/// `jobs` threads. A directory that does not exist holds none.
pub fn survey(
    directories: &[PathBuf],
    known: &[PathBuf],
    rules: &NameRules,
    jobs: usize,
) -> io::Result<Vec<Surveyed>> {
    let mut paths = BTreeMap::new();
    for path in known {
        if let Ok(meta) = fs::metadata(path)
            && meta.is_file()
        {
            paths.entry((meta.dev(), meta.ino())).or_insert_with(|| path.clone());
        }
    }
    for directory in directories {
        walk(directory, DEPTH_MAX, &mut paths)?;
    }
    let paths: BTreeSet<PathBuf> = paths.into_values().collect();
    let paths: Vec<PathBuf> = paths.into_iter().collect();
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(paths.len()) {
            scope.spawn(|| {
                while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let evidence = File::open(path).and_then(|file| read(&file, rules));
                    let surveyed = Surveyed { path: path.clone(), evidence };
                    found.lock().unwrap_or_else(PoisonError::into_inner).push(surveyed);
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

fn walk(
    directory: &Path,
    depth: usize,
    paths: &mut BTreeMap<(u64, u64), PathBuf>,
) -> io::Result<()> {
    each_file(directory, depth, &mut |path, meta| {
        if path.file_name().is_some_and(|name| !is_side_file(name)) {
            paths.entry((meta.dev(), meta.ino())).or_insert(path);
        }
    })
}

/// The regular files below a directory. Does not follow symbolic links: what they lead to
/// is found in its own place. A directory that does not exist holds none, nor does `lost+found`
/// of a partition that is a file system of its own. An error names its path.
fn each_file(
    directory: &Path,
    depth: usize,
    take: &mut dyn FnMut(PathBuf, &fs::Metadata),
) -> io::Result<()> {
    let named =
        |path: &Path, e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(named(directory, e)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| named(directory, e))?;
        let kind = entry.file_type().map_err(|e| named(&entry.path(), e))?;
        let is_lost = depth == DEPTH_MAX && entry.file_name() == LOST_AND_FOUND;
        if kind.is_dir() && depth > 0 && !is_lost {
            each_file(&entry.path(), depth - 1, take)?;
        } else if kind.is_file() {
            match entry.metadata() {
                Ok(meta) => take(entry.path(), &meta),
                // Gone meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(named(&entry.path(), e)),
            }
        }
    }
    Ok(())
}

/// The regular files below the partitions, with their inodes, in the order of names.
pub(super) fn files_below(directories: &[PathBuf]) -> io::Result<Vec<(PathBuf, (u64, u64))>> {
    let mut found = Vec::new();
    for directory in directories {
        each_file(directory, DEPTH_MAX, &mut |path, meta| {
            found.push((path, (meta.dev(), meta.ino())));
        })?;
    }
    found.sort();
    Ok(found)
}

/// How many data files there seem to be below the partitions, by their names.
pub fn count_below(directories: &[PathBuf]) -> io::Result<usize> {
    let mut paths = BTreeMap::new();
    directories.iter().try_for_each(|directory| walk(directory, DEPTH_MAX, &mut paths))?;
    Ok(paths.len())
}

/// Whether a file stands beside a data file: its index, what a compaction or a move is
/// writing, copies of earlier times (`<name>.<unix time>`), what recovery cut.
pub(super) fn is_side_file(name: &OsStr) -> bool {
    let mut name = name.as_bytes();
    if [".index", ".new", "-journal", ".moving", ".forward"]
        .iter()
        .any(|suffix| name.ends_with(suffix.as_bytes()))
    {
        return true;
    }
    let mut numbers = 0;
    while let Some(at) = name.iter().rposition(|&c| c == b'.')
        && at + 1 < name.len()
        && name[at + 1..].iter().all(u8::is_ascii_digit)
    {
        numbers += 1;
        name = &name[..at];
    }
    numbers > 0
}

/// Reads every line that can be read.
pub fn read(file: &File, rules: &NameRules) -> io::Result<Evidence> {
    let len_file = file.metadata()?.len();
    let mut evidence = Evidence { len_file, ..Evidence::default() };
    let mut anchors = 0;
    let mut at = 0;
    while at < len_file {
        at = match member(file, at, rules, &mut evidence, &mut anchors) {
            Some(end) => end,
            None => {
                evidence.is_damaged = true;
                torn::next_behind(file, at, len_file)?.unwrap_or(len_file)
            }
        };
    }
    if evidence.owners.is_empty() && anchors > 0 {
        evidence.owners.insert(rules.userid_key(b""), anchors);
    }
    Ok(evidence)
}

/// The member's end; `None` if it cannot be read to there. Counts anchors without a userid.
fn member(
    file: &File,
    at: u64,
    rules: &NameRules,
    evidence: &mut Evidence,
    anchors: &mut u64,
) -> Option<u64> {
    let mut reader = LogReader::open(file, at).ok()?;
    loop {
        match reader.next_line(&mut NoBodies) {
            Ok(Some(line)) => {
                evidence.is_backup = true;
                let Ok((name, value)) = line.item() else { continue };
                let Ok(apply) = Apply::read(&name, &value) else { continue };
                if let Some(uniqueid) = anchor_of_nobody(&apply) {
                    // Every backup may have that of a compaction.
                    *anchors += u64::from(uniqueid != Own::compaction_anchor());
                } else if let Some(owner) = owner(&apply, rules) {
                    *evidence.owners.entry(owner).or_default() += 1;
                }
            }
            Ok(None) => {
                evidence.is_backup = true;
                return Some(reader.offset_file());
            }
            Err(_) => {
                // An unreadable line in a whole member is no reason to search on.
                evidence.is_damaged = true;
                reader.skip_rest().ok()?;
                return Some(reader.offset_file());
            }
        }
    }
}

/// The unique id of an anchor without a userid.
fn anchor_of_nobody<'a>(apply: &'a Apply<'_>) -> Option<&'a [u8]> {
    let Apply::Seen(seen) = apply else { return None };
    (seen.userid.is_empty() && seen.uniqueid.starts_with(ANCHOR_PREFIX)).then_some(&seen.uniqueid)
}

fn owner(apply: &Apply<'_>, rules: &NameRules) -> Option<Vec<u8>> {
    Some(match apply {
        Apply::Message(_) | Apply::Reserve | Apply::Own(_) => return None,
        Apply::Mailbox(mailbox) => rules.backup_key(&mailbox.mboxname),
        Apply::Unmailbox(mboxname) => rules.backup_key(mboxname),
        Apply::Rename(rename) => rules.backup_key(&rename.from),
        Apply::Expunge(expunge) => rules.backup_key(&expunge.mboxname),
        Apply::Seen(seen) => rules.userid_key(&seen.userid),
        Apply::Sub(subscription, _) => rules.userid_key(&subscription.userid),
        Apply::Sieve(sieve) => rules.userid_key(&sieve.script.userid),
        Apply::Unsieve(script) => rules.userid_key(&script.userid),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::staging::Staging;
    use crate::store::{Line, Writer};
    use crate::wire::dlist::parse_item;

    fn rules() -> NameRules {
        NameRules { default_domain: Some(b"example.com".to_vec()), ..NameRules::default() }
    }

    #[test]
    fn every_fixture_names_its_owner() {
        let directories =
            ["one", "two"].map(|name| Path::new("tests/fixtures/backups/main").join(name));
        let found = survey(&directories, &[], &rules(), 2).unwrap();
        assert_eq!(found.len(), 9);
        for surveyed in found {
            let evidence = surveyed.evidence.unwrap();
            let name = surveyed.path.file_name().unwrap().to_str().unwrap();
            let owners: Vec<_> = evidence.owners.keys().collect();
            let expected = name.rsplit_once('_').unwrap().0.as_bytes().to_vec();
            assert_eq!(owners, [&expected], "{name}");
            assert!(evidence.is_backup && !evidence.is_damaged, "{name}");
        }
    }

    #[test]
    fn damage_and_torn_tails_leave_what_is_readable() {
        let source = "tests/fixtures/backups/main/one/c/carol_cesxQB";
        let mut octets = fs::read(source).unwrap();
        let whole = read(&File::open(source).unwrap(), &rules()).unwrap();
        octets[5_000] ^= 1;
        octets.truncate(20_000);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x"), &octets).unwrap();
        let evidence = read(&File::open(dir.path().join("x")).unwrap(), &rules()).unwrap();
        assert!(evidence.is_damaged && evidence.is_backup);
        assert!(evidence.owners[&b"carol".to_vec()] < whole.owners[&b"carol".to_vec()]);
        fs::write(dir.path().join("x"), "no backup at all").unwrap();
        let evidence = read(&File::open(dir.path().join("x")).unwrap(), &rules()).unwrap();
        assert!(evidence.is_damaged && !evidence.is_backup && evidence.owners.is_empty());
    }

    #[test]
    fn anchors_belong_to_whoever_the_other_lines_name() {
        let [compacted, quota] =
            ["COMPACTED %(AT 70 SINCE 7)", "QUOTA %(ROOT news LIMIT 1)"].map(|text| {
                let (name, value) = parse_item(text.as_bytes()).unwrap();
                Own::read(&name, &value).unwrap().anchor(b"")
            });
        let sub = b"SUB %(USERID tom MBOXNAME user.tom)".to_vec();
        let owners = |lines: &[&[u8]]| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("data");
            let mut writer = Writer::open(&path, 70).unwrap();
            for text in lines {
                let (name, value) = parse_item(text).unwrap();
                let apply = Apply::read(&name, &value).unwrap();
                let line = Line { text, body_at: &[], bodies: &[], apply: &apply };
                writer.append(70, &line, &Staging::new(dir.path().join("staging"))).unwrap();
            }
            writer.finish(70).unwrap();
            let evidence = read(&File::open(&path).unwrap(), &rules()).unwrap();
            evidence.owners.into_keys().collect::<Vec<_>>()
        };
        let tom = [b"tom".to_vec()];
        assert_eq!(owners(&[&sub, &compacted, &quota]), tom);
        assert_eq!(owners(&[&compacted, &sub]), tom);
        assert_eq!(owners(&[&quota, &compacted]), [b"%SHARED".to_vec()]);
        assert_eq!(owners(&[&compacted]), [b""; 0]);
    }

    #[test]
    fn of_a_file_system_lost_and_found_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["lost+found", "a/lost+found"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("x_aaaaaa"), "").unwrap();
        }
        let top = [dir.path().to_owned()];
        assert_eq!(count_below(&top).unwrap(), 1);
        let found = files_below(&top).unwrap();
        assert!(found[0].0.ends_with("a/lost+found/x_aaaaaa") && found.len() == 1, "{found:?}");
    }

    #[test]
    fn errors_name_their_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = count_below(std::slice::from_ref(&file)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
        assert!(error.to_string().starts_with(file.to_str().unwrap()), "{error}");
    }

    #[test]
    fn side_files() {
        for name in [
            "a_AbCdEf.index",
            "a_AbCdEf.index-journal",
            "a_AbCdEf.new",
            "a_AbCdEf.index.new",
            "a_AbCdEf.1795000000",
            "a_AbCdEf.index.1795000000",
            "a_AbCdEf.cut.1795000000.77",
            "a_AbCdEf.moving",
            "a_AbCdEf.index.moving",
        ] {
            assert!(is_side_file(OsStr::new(name)), "{name}");
        }
        for name in ["a_AbCdEf", "a.1_AbCdEf", "index", "a.", "a.12x", "1795000000"] {
            assert!(!is_side_file(OsStr::new(name)), "{name}");
        }
    }
}
