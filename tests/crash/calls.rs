//! A session that is killed in front of every call that changes a file, those of SQLite's
//! commit among them: what was answered OK is there afterwards, the index is sound, and the
//! one that the data give.
//!
//! `strace` kills. Without it this is skipped: see `machine`.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cyrbk::store::staging::Staging;
use cyrbk::store::{Line, Writer};
use cyrbk::wire::apply::Apply;
use cyrbk::wire::dlist::parse_item;
use nix::sys::signal::Signal;
use rusqlite::Connection;

use crate::disk::dump;
use crate::machine;

/// Says to the test's program where its backup is: then it is the victim.
const VICTIM: &str = "CYRBK_CRASH_VICTIM";
/// What changes a file, or makes it durable.
const CALLS: [&str; 5] = ["pwrite64", "fdatasync", "fsync", "ftruncate", "unlink"];
/// Lines in each session, and sessions.
const LINES: usize = 3;
const SESSIONS: usize = 2;

fn line(number: usize) -> String {
    format!("SUB %(USERID tom MBOXNAME user.tom.folder{number})")
}

/// Not a test by itself: what is killed.
#[test]
fn victim() {
    let Some(path) = std::env::var_os(VICTIM).map(PathBuf::from) else { return };
    let staging = Staging::new(std::env::temp_dir());
    for session in 0..SESSIONS {
        let mut writer = Writer::open(&path, 1_000).unwrap();
        for number in session * LINES..(session + 1) * LINES {
            let text = line(number);
            let (name, value) = parse_item(text.as_bytes()).unwrap();
            let apply = Apply::read(&name, &value).unwrap();
            let text = text.as_bytes();
            let line = Line { text, body_at: &[], bodies: &[], apply: &apply };
            writer.append(1_000, &line, &staging).unwrap();
            std::fs::write(path.with_extension("acknowledged"), number.to_string()).unwrap();
        }
        writer.finish(1_000).unwrap();
    }
}

#[test]
fn killed_in_front_of_any_call_a_session_loses_nothing_acknowledged() {
    if !machine::can_trace() {
        return;
    }
    let builder = tempfile::Builder::new();
    let mut killed = 0;
    for call in CALLS {
        for number in 1.. {
            let dir = builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir()).unwrap();
            let path = dir.path().join("data");
            let is_killed = run_and_kill(&path, call, number);
            check(&path, &format!("in front of {call} {number}"));
            if !is_killed {
                break;
            }
            killed += 1;
        }
    }
    eprintln!("killed {killed} times");
    assert!(killed > 30, "{killed}");
}

/// Returns whether it died before its end.
fn run_and_kill(path: &Path, call: &str, number: usize) -> bool {
    let output = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:signal=KILL:when={number}"), "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "calls::victim", "--test-threads=1", "--quiet"])
        .env(VICTIM, path)
        .output()
        .unwrap();
    // strace dies as its victim did. Whatever else fails would fail for ever.
    let is_killed = output.status.signal() == Some(Signal::SIGKILL as i32);
    assert!(is_killed || output.status.success(), "{call} {number}: {output:?}");
    is_killed
}

fn check(path: &Path, what: &str) {
    let acknowledged = std::fs::read_to_string(path.with_extension("acknowledged"));
    let acknowledged: usize =
        acknowledged.ok().and_then(|text| text.parse().ok()).map_or(0, |last: usize| last + 1);
    if !path.exists() {
        assert_eq!(acknowledged, 0, "{what}");
        return;
    }
    let writer = Writer::open(path, 2_000).unwrap();
    let found = writer.index().subscriptions().unwrap();
    drop(writer);
    for number in 0..acknowledged {
        let name = format!("user.tom.folder{number}").into_bytes();
        assert!(found.contains(&name), "{what}: {number} of {acknowledged}");
    }
    let db = Connection::open(format!("{}.index", path.display())).unwrap();
    let sound: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok", "{what}");
    let copy = path.with_file_name("copy");
    std::fs::copy(path, &copy).unwrap();
    drop(Writer::open(&copy, 2_000).unwrap());
    assert_eq!(dump(path), dump(&copy), "{what}");
}
