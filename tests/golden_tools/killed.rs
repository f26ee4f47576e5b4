//! Tools killed or interrupted in the middle: what they leave is a backup, and the next run
//! completes what they began.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use cyrbk::lock::{Kind, Wait, open_locked};
use cyrbk::store::{Backup, Catalog};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::site::Site;

const CAROL: &str = "one/c/carol_cesxQB";
/// Instants at which a tool is killed, spread over the time that it takes.
const KILLS: u32 = 24;

fn start(site: &Site, words: &[&str]) -> Child {
    let mut command = site.command(&site.path().join("bin/ctl_backups"));
    command.arg("-C").arg(site.conf()).args(words);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Kills the tool at many instants of its run on a site of its own each, and has `check`
/// look at what is left. Panics unless it was in the middle at least once.
fn killed(words: &[&str], prepare: fn(&Site), check: fn(&Site, &str)) {
    let site = Site::of_fixture("main");
    prepare(&site);
    let started = Instant::now();
    assert!(start(&site, words).wait().unwrap().success(), "{words:?}");
    let whole = started.elapsed();
    let mut midway = 0;
    for i in 0..KILLS {
        let site = Site::of_fixture("main");
        prepare(&site);
        let mut child = start(&site, words);
        std::thread::sleep(whole * i / KILLS);
        let _ = child.kill();
        midway += u32::from(child.wait().unwrap().signal().is_some());
        check(&site, &format!("{words:?} killed after {:?}", whole * i / KILLS));
    }
    assert!(midway > 0, "never in the middle: {whole:?}");
}

fn keep_everything(site: &Site) {
    site.configure("backup_retention: 0\n");
}

fn path_of(site: &Site, user: &str) -> Option<PathBuf> {
    Catalog::open(site.path().join("conf/backups.db")).lookup(user.as_bytes()).unwrap()
}

fn assert_sound(site: &Site, what: &str) {
    let ran = site.ours("ctl_backups", &["verify", "--deep", "carol"]);
    assert_eq!(ran.code, 0, "{what}: {}{}", ran.out_text(), ran.err_text());
    let backup = Backup::open(&path_of(site, "carol").unwrap(), Wait::No).unwrap();
    assert_eq!(backup.index().messages().unwrap().len(), 19, "{what}");
}

fn names_below(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(names_below(&path));
        }
        names.push(path.to_str().unwrap().to_owned());
    }
    names
}

fn assert_tidy(site: &Site, what: &str) {
    for partition in ["one", "two", "staging"] {
        for name in names_below(&site.path().join(partition)) {
            let debris = [".new", ".moving", ".forward", "-journal"].iter();
            assert!(!debris.clone().any(|ending| name.ends_with(ending)), "{what}: {name}");
        }
    }
}

#[test]
fn a_killed_move_is_completed_by_the_next() {
    killed(
        &["move", "carol", "two"],
        |_| {},
        |site, what| {
            assert_sound(site, what);
            let again = site.ours("ctl_backups", &["move", "carol", "two"]);
            assert_eq!(again.code, 0, "{what}: {}", again.out_text());
            assert_sound(site, what);
            assert_tidy(site, what);
            let path = path_of(site, "carol").unwrap();
            assert_eq!(fs::canonicalize(site.path().join(CAROL)).unwrap(), path, "{what}");
        },
    );
}

#[test]
fn a_killed_compaction_changes_nothing_or_all() {
    killed(&["compact", "-F", "carol"], keep_everything, |site, what| {
        assert_sound(site, what);
        let again = site.ours("ctl_backups", &["compact", "-F", "carol"]);
        assert_eq!(again.code, 0, "{what}: {}", again.out_text());
        assert_sound(site, what);
        assert_tidy(site, what);
    });
}

#[test]
fn a_killed_reindex_is_done_again() {
    killed(
        &["reindex", "carol"],
        |_| {},
        |site, what| {
            let again = site.ours("ctl_backups", &["reindex", "carol"]);
            assert_eq!(again.code, 0, "{what}: {}", again.out_text());
            assert_sound(site, what);
            assert_tidy(site, what);
        },
    );
}

#[test]
fn a_killed_delete_is_completed_by_the_next() {
    killed(
        &["delete", "-F", "carol"],
        |_| {},
        |site, what| {
            let is_known = path_of(site, "carol").is_some();
            let again = site.ours("ctl_backups", &["delete", "-F", "carol"]);
            assert_eq!(again.code == 0, is_known, "{what}: {}", again.out_text());
            assert_eq!(path_of(site, "carol"), None, "{what}");
            let left = names_below(&site.path().join("one"));
            assert!(!left.iter().any(|name| name.contains("carol_")), "{what}: {left:?}");
        },
    );
}

/// Some more users, who have what Carol has; their data files.
fn add_many(site: &Site, count: usize) -> Vec<PathBuf> {
    let catalog = Catalog::open(site.path().join("conf/backups.db"));
    let add = |i: usize| {
        let path = site.path().join(format!("two/m/many{i:02}_XXXXXX"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(site.path().join(CAROL), &path).unwrap();
        let index = |path: &Path| format!("{}.index", path.display());
        fs::copy(index(&site.path().join(CAROL)), index(&path)).unwrap();
        catalog.set(format!("many{i:02}").as_bytes(), &path).unwrap();
        path
    };
    (0..count).map(add).collect()
}

#[test]
fn ctrl_c_in_the_middle_of_a_compaction_of_all_leaves_nothing() {
    let site = Site::of_fixture("main");
    keep_everything(&site);
    add_many(&site, 60);
    let mut child = start(&site, &["compact", "-A", "-F", "--jobs=2"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    let told = 1 + lines.map(Result::unwrap).count();
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert!(told < 60, "it went on to the end");
    assert_tidy(&site, "Ctrl-C");
    let verify = site.ours("ctl_backups", &["verify", "--deep", "-P", "many"]);
    let faults = verify.out_text().lines().filter(|line| line.contains("failed")).count();
    // Mailboxes of somebody else: all of them are copies of carol's.
    assert_eq!(faults, 60);
    let verify = site.ours("ctl_backups", &["verify", "-P", "many"]);
    assert_eq!((verify.code, verify.out_text().matches(": ok\n").count()), (0, 60));
    // A second Ctrl-C may end it anywhere; the next run takes away what it left.
    let mut child = start(&site, &["compact", "-A", "-F", "--jobs=2"]);
    std::thread::sleep(Duration::from_millis(30));
    for _ in 0..2 {
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait().unwrap();
    let again = site.ours("ctl_backups", &["compact", "-F", "-A"]);
    assert_eq!(again.code, 0, "{}", again.out_text());
    assert_tidy(&site, "two Ctrl-C");
}

#[test]
fn a_second_ctrl_c_ends_a_run_at_once() {
    let site = Site::of_fixture("main");
    keep_everything(&site);
    // What is being done does not end.
    let read_write = fs::OpenOptions::new().read(true).write(true).clone();
    let hold = |path: PathBuf| open_locked(&path, &read_write, Kind::Exclusive, Wait::No).unwrap();
    let held: Vec<_> = add_many(&site, 10).into_iter().map(hold).collect();
    let mut command = site.command(&site.path().join("bin/ctl_backups"));
    command.arg("-C").arg(site.conf()).args(["-w", "compact", "-A", "-F", "--jobs=2"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // Behind him there are only those.
    lines.find(|line| line.as_ref().unwrap().starts_with("compact erin@")).unwrap().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    kill(pid, Signal::SIGINT).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(child.try_wait().unwrap(), None, "it waits for what is being done");
    kill(pid, Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(held);
    assert_tidy(&site, "two Ctrl-C");
}
