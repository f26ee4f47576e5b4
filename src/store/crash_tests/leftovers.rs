//! States that a crash, a compaction cut short, a restore from tape or a faulty disk
//! leaves behind, over real files.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::Writer;
use super::super::backup::{Backup, index_path, with_suffix};
use super::super::error::StoreError;
use super::super::index::{Index, Open};
use super::super::torn;
use super::lines::{Step, check, dump, fast_dir, history};
use super::random::Random;
use crate::lock::Wait;

struct Stored {
    dir: tempfile::TempDir,
    path: PathBuf,
    steps: Vec<Step>,
    /// Length of the file after each session.
    ends: Vec<u64>,
    /// The index after each session.
    indexes: Vec<Vec<u8>>,
}

fn stored() -> Stored {
    let dir = fast_dir();
    let path = dir.path().join("data");
    let (mut ends, mut indexes) = (Vec::new(), Vec::new());
    let sessions = history(&mut Random::new(3));
    for session in &sessions {
        let mut writer = Writer::open(&path, 1_000).unwrap();
        session.iter().for_each(|step| step.append_to(&mut writer, 1_000).unwrap());
        writer.finish(1_000).unwrap();
        ends.push(fs::metadata(&path).unwrap().len());
        indexes.push(fs::read(index_path(&path)).unwrap());
    }
    Stored { dir, path, steps: sessions.concat(), ends, indexes }
}

impl Stored {
    fn index(&self) -> PathBuf {
        index_path(&self.path)
    }

    /// Names of the files beside data file and index, without the data file's name.
    fn kept(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != "data" && name != "data.index");
        names.sort();
        names.iter().map(|name| name.strip_prefix("data.").unwrap().to_owned()).collect()
    }
}

fn cut(path: &Path, len: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

#[test]
fn a_file_shorter_than_its_index_keeps_what_is_left() {
    for (session, lines) in [(None, 0), (Some(0), 3), (Some(1), 10)] {
        for more in [0, 1, 40, 400] {
            let stored = stored();
            let len = session.map_or(0, |session: usize| stored.ends[session]) + more;
            cut(&stored.path, len.min(stored.ends[2] - 1));
            let found = check(&stored.path, &stored.steps);
            assert!(found >= lines, "{session:?} {more}: {found}");
            let kept = stored.kept();
            assert!(kept.contains(&"index.2000".to_owned()), "{kept:?}");
            let old = stored.dir.path().join("data.index.2000");
            assert_eq!(fs::read(old).unwrap(), stored.indexes[2]);
        }
    }
}

#[test]
fn an_index_that_is_gone_or_old_or_broken_is_built_again() {
    let stored = stored();
    let states: Vec<(Option<Vec<u8>>, bool)> = vec![
        (None, false),
        (Some(Vec::new()), false),
        (Some(stored.indexes[0].clone()), false),
        (Some(stored.indexes[1].clone()), false),
        (Some(b"not a database, but a text of some length".repeat(100)), true),
        (Some(stored.indexes[2][..5_000].to_vec()), true),
    ];
    for (number, (index, is_kept)) in states.into_iter().enumerate() {
        let again = self::stored();
        match &index {
            Some(content) => fs::write(again.index(), content).unwrap(),
            None => fs::remove_file(again.index()).unwrap(),
        }
        assert_eq!(check(&again.path, &again.steps), 14, "{number}");
        assert_eq!(again.kept().iter().any(|name| name.starts_with("index.")), is_kept, "{number}");
    }
}

#[test]
fn a_page_gone_bad_is_found_when_touched_and_mended_at_the_next_open() {
    for page in 1..4 {
        let stored = stored();
        let mut index = fs::read(stored.index()).unwrap();
        // Every page but the schema's and the last ones of three.
        let pages = index.len() / 4096;
        for at in (page..pages).step_by(3) {
            index[at * 4096..(at + 1) * 4096].fill(0xa5);
        }
        fs::write(stored.index(), index).unwrap();
        let mut steps = stored.steps.clone();
        for attempt in 0..3 {
            let Ok(mut writer) = Writer::open(&stored.path, 2_000) else { continue };
            let step = Step::message(&[format!("try {attempt}").into_bytes()]);
            if step.append_to(&mut writer, 2_000).is_ok() {
                steps.push(step);
                if writer.finish(2_000).is_ok() {
                    break;
                }
            }
        }
        assert!(steps.len() > stored.steps.len(), "page {page}: it goes on");
        assert_eq!(check(&stored.path, &steps), steps.len(), "page {page}");
    }
}

/// None of it was synced when the power went: any sector may be lost.
#[test]
fn a_new_index_that_a_power_cut_broke_is_made_again() {
    let dir = fast_dir();
    let path = dir.path().join("data");
    drop(Writer::open(&path, 1_000).unwrap());
    let whole = fs::read(index_path(&path)).unwrap();
    let steps = history(&mut Random::new(3)).concat();
    for at in (0..whole.len()).step_by(512) {
        let mut index = whole.clone();
        index[at..at + 512].fill(0);
        fs::write(&path, []).unwrap();
        fs::write(index_path(&path), index).unwrap();
        let mut writer = Writer::open(&path, 2_000).unwrap();
        steps.iter().for_each(|step| step.append_to(&mut writer, 2_000).unwrap());
        writer.finish(2_000).unwrap();
        drop(writer);
        assert_eq!(check(&path, &steps), steps.len(), "sector at {at}");
    }
}

#[test]
fn a_later_version_or_a_path_that_is_no_file_is_left_alone() {
    let stored = stored();
    rusqlite::Connection::open(stored.index())
        .unwrap()
        .execute_batch("PRAGMA user_version = 5")
        .unwrap();
    assert!(matches!(Writer::open(&stored.path, 2_000), Err(StoreError::Index { .. })));
    fs::remove_file(stored.index()).unwrap();
    fs::create_dir(stored.index()).unwrap();
    assert!(matches!(Writer::open(&stored.path, 2_000), Err(StoreError::Index { .. })));
    assert_eq!(stored.kept(), Vec::<String>::new());
}

#[test]
fn an_interrupted_compaction_leaves_the_backup_usable() {
    // Before the first rename: copies are beside.
    let stored = stored();
    for name in ["new", "index.new", "index.new-journal"] {
        fs::write(with_suffix(&stored.path, &format!(".{name}")), b"half").unwrap();
    }
    let before = dump(&stored.index());
    drop(Writer::open(&stored.path, 2_000).unwrap());
    assert_eq!(dump(&stored.index()), before);
    assert_eq!(stored.kept(), Vec::<String>::new());

    // Between the renames: the data are new, the index is not. The one that waits is
    // taken if it is that of these data.
    for (fits, kept) in [(true, &[][..]), (false, &["index.2000"])] {
        let other = self::stored();
        let sessions = history(&mut Random::new(4));
        let mut lines = Vec::new();
        let new = with_suffix(&other.path, ".new");
        for session in [&sessions[1], &sessions[2], &sessions[1], &sessions[2]] {
            let mut writer = Writer::open(&new, 1_000).unwrap();
            session.iter().for_each(|step| step.append_to(&mut writer, 1_000).unwrap());
            writer.finish(1_000).unwrap();
            lines.extend(session.iter().cloned());
        }
        fs::rename(&new, &other.path).unwrap();
        let waiting = with_suffix(&other.path, ".index.new");
        fs::rename(index_path(&new), &waiting).unwrap();
        if !fits {
            fs::copy(other.index(), &waiting).unwrap();
        }
        assert_eq!(check(&other.path, &lines), lines.len());
        assert_eq!(other.kept(), kept);
        assert!(!waiting.exists());
    }
}

#[test]
fn a_file_that_was_moved_keeps_its_index() {
    let stored = stored();
    let copy = stored.dir.path().join("copy");
    fs::copy(&stored.path, &copy).unwrap();
    fs::rename(&copy, &stored.path).unwrap();
    let before = dump(&stored.index());
    for _ in 0..2 {
        drop(Writer::open(&stored.path, 2_000).unwrap());
        assert_eq!(dump(&stored.index()), before);
        assert_eq!(stored.kept(), Vec::<String>::new());
    }
}

#[test]
fn an_index_without_its_data_file_is_not_taken_for_a_new_backup() {
    let stored = stored();
    fs::remove_file(&stored.path).unwrap();
    let error = Writer::open(&stored.path, 2_000).err().unwrap();
    assert!(matches!(error, StoreError::DataMissing(_)), "{error}");
    assert!(!stored.path.exists());
    // One broken backup does not stop another; a name without any file is a new one.
    drop(Writer::open(&stored.dir.path().join("other"), 2_000).unwrap());
}

#[test]
fn a_reader_sees_what_was_acknowledged() {
    let stored = stored();
    let body = b"the last words".to_vec();
    let guid = super::lines::guid_of(&body);
    let mut writer = Writer::open(&stored.path, 2_000).unwrap();
    Step::message(&[body]).append_to(&mut writer, 2_000).unwrap();
    drop(writer);
    for _ in 0..2 {
        let backup = Backup::open(&stored.path, Wait::No).unwrap();
        let row = backup.index().message(&guid).unwrap().unwrap();
        assert_eq!(row.chunk_id, 4);
    }
    assert_eq!(stored.kept(), Vec::<String>::new(), "it ended on a line");
}

#[test]
fn a_reader_shows_what_the_index_knows_if_no_more_can_be_had() {
    let stored = stored();
    cut(&stored.path, stored.ends[1]);
    let before = fs::read(stored.index()).unwrap();
    let backup = Backup::open(&stored.path, Wait::No).unwrap();
    assert_eq!(backup.index().chunks().unwrap().len(), 3);
    assert_eq!(fs::read(stored.index()).unwrap(), before);
}

#[test]
fn lines_in_front_of_damage_are_indexed_and_nothing_is_cut() {
    let stored = stored();
    let mut data = fs::read(&stored.path).unwrap();
    // Inside the second chunk, in the long line behind its messages.
    let at = (stored.ends[0] + (stored.ends[1] - stored.ends[0]) * 70 / 100) as usize;
    data[at..at + 30].fill(0xff);
    fs::write(&stored.path, &data).unwrap();
    fs::remove_file(stored.index()).unwrap();
    drop(Writer::open(&stored.path, 2_000).unwrap());
    assert_eq!(fs::read(&stored.path).unwrap(), data);
    let index = Index::open(&stored.index(), Open::Read).unwrap();
    let chunks = index.chunks().unwrap();
    assert_eq!(chunks.len(), 3);
    let file = fs::File::open(&stored.path).unwrap();
    let kept = torn::last_complete_line(&file, chunks[1].offset, chunks[2].offset).unwrap();
    assert!(kept.unwrap().end < at as u64);
    assert!(index.messages_of_chunk(chunks[1].id).unwrap().len() == 3);
}

#[test]
fn an_index_that_cannot_grow_is_never_answered_ok() {
    for pages in [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024] {
        let stored = stored();
        let mut steps = stored.steps.clone();
        let mut writer = Writer::open(&stored.path, 2_000).unwrap();
        writer.index().limit_growth(pages).unwrap();
        let mut refused = 0;
        for number in 0..60 {
            let bodies: Vec<_> =
                (0..30).map(|i| format!("message {i} of {number}").into_bytes()).collect();
            let step = Step::message(&bodies);
            match step.append_to(&mut writer, 2_000) {
                Ok(()) => steps.push(step),
                Err(_) => {
                    refused += 1;
                    break;
                }
            }
        }
        let finished = writer.finish(2_000);
        assert!(refused == 0 || finished.is_err());
        drop(writer);
        assert_eq!(check(&stored.path, &steps), steps.len(), "{pages}");
        if pages == 0 {
            assert!(refused > 0 || finished.is_err());
        }
        if refused == 0 && finished.is_ok() {
            return;
        }
    }
    panic!("the limit was never high enough");
}

#[test]
fn a_reader_sees_a_first_session_that_was_never_finished() {
    let dir = fast_dir();
    let path = dir.path().join("data");
    let steps = history(&mut Random::new(5)).concat();
    let mut writer = Writer::open(&path, 1_000).unwrap();
    steps.iter().for_each(|step| step.append_to(&mut writer, 1_000).unwrap());
    let expected = writer.index().messages().unwrap().len();
    assert!(expected > 0);
    drop(writer);
    let backup = Backup::open(&path, Wait::No).unwrap();
    assert_eq!(backup.index().messages().unwrap().len(), expected);
}

/// A failed line is taken back, and nothing in front of it: not the end of a chunk that was
/// synced, whatever goes on to be written behind it.
#[test]
fn a_failed_line_takes_nothing_back_that_was_synced() {
    let dir = fast_dir();
    let path = dir.path().join("data");
    let mut writer = Writer::open(&path, 1_000).unwrap();
    Step::text("SUB %(USERID tom MBOXNAME user.tom.a)").append_to(&mut writer, 1_000).unwrap();
    writer.sync(1_000).unwrap();
    let synced = fs::read(&path).unwrap();
    writer.index().limit_growth(0).unwrap();
    let bodies: Vec<_> = (0..3_000).map(|i| format!("message {i}").into_bytes()).collect();
    Step::message(&bodies).append_to(&mut writer, 1_000).unwrap_err();
    drop(writer);
    let left = fs::read(&path).unwrap();
    assert!(left.starts_with(&synced), "{} {}", left.len(), synced.len());
}
