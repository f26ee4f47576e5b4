//! Many backups at once: order, failures among them, interruption.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use cyrbk::store::Catalog;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::machine;
use crate::site::{Site, wait};

const USERS: usize = 1000;

fn thousand() -> Site {
    let site = Site::empty();
    for i in 0..USERS {
        let partition = ["one", "two"][i % 2];
        site.write_data(
            &format!("{partition}/u/user{i:04}_AbCdEf"),
            &[&format!("user.user{i:04}")],
        );
    }
    site
}

#[test]
fn a_thousand_users() {
    let site = thousand();
    let ran = site.ours("ctl_backups", &["reconstruct"]);
    assert_eq!((ran.code, ran.out_text().lines().count()), (0, USERS));
    let ran = site.ours("ctl_backups", &["reindex", "-A", "--jobs=4"]);
    assert_eq!((ran.code, ran.err_text().as_str()), (0, ""));
    let expected: String = (0..USERS).map(|i| format!("reindex user{i:04}: ok\n")).collect();
    assert!(ran.out_text() == expected);
    let list = site.ours("ctl_backups", &["list"]);
    assert_eq!((list.code, list.out_text().lines().count()), (0, USERS));
    for words in [&["verify", "-A", "--deep"][..], &["verify", "-A", "--quick"]] {
        let ran = site.ours("ctl_backups", words);
        let expected: String = (0..USERS).map(|i| format!("verify user{i:04}: ok\n")).collect();
        assert!(ran.code == 0 && ran.out_text() == expected, "{words:?}: {}", ran.err_text());
    }
    let ran = site.ours("ctl_backups", &["compact", "-A", "-F"]);
    let expected: String = (0..USERS).map(|i| format!("compact user{i:04}: ok\n")).collect();
    assert!(ran.code == 0 && ran.out_text() == expected, "{}", ran.err_text());
    assert_eq!(site.ours("ctl_backups", &["reindex", "-A"]).code, 0);
    let one = site.ours("ctl_backups", &["verify", "-A", "-v", "--jobs=1"]);
    let many = site.ours("ctl_backups", &["verify", "-A", "-v", "--jobs=8"]);
    assert_eq!(one.code, 0);
    assert!(one == many);
    // One failure, and one that is no backup, hide none of the others.
    let bad = site.path().join("two/u/user0123_AbCdEf");
    let mut octets = fs::read(&bad).unwrap();
    octets[60] ^= 1;
    fs::write(&bad, octets).unwrap();
    Catalog::open(site.path().join("conf/backups.db"))
        .set(b"user0500", &site.path().join("nowhere"))
        .unwrap();
    let ran = site.ours("ctl_backups", &["stat", "-A"]);
    assert_eq!((ran.code, ran.out_text().lines().count()), (0, USERS - 2));
    let errors: Vec<_> = ran.err_text().lines().map(|line| line[..8].to_owned()).collect();
    assert_eq!(errors, ["user0123", "user0500"]);
    let ran = site.ours("ctl_backups", &["verify", "-A"]);
    assert_eq!((ran.code, ran.out_text().matches(": ok\n").count()), (75, USERS - 2));
    let stopped = site.ours("ctl_backups", &["verify", "-S", "-A"]).out_text();
    assert_eq!(stopped.matches(": ok\n").count(), 123);
}

#[test]
fn ctrl_c_ends_a_run_between_backups() {
    let site = thousand();
    assert_eq!(site.ours("ctl_backups", &["reconstruct"]).code, 0);
    let mut command = site.command(&site.path().join("bin/ctl_backups"));
    command.arg("-C").arg(site.conf()).args(["reindex", "-A", "--jobs=2"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert_eq!(first, "reindex user0000: ok");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert!(rest.len() < USERS - 1, "it went on to the end");
    assert!(rest.iter().all(|line| line.ends_with(": ok")), "{rest:?}");
    // What was done is whole.
    let done = site.ours("ctl_backups", &["verify", "user0000", &rest.last().unwrap()[8..16]]);
    assert_eq!(done.code, 0, "{}", done.out_text());
    let asides = fs::read_dir(site.path().join("one/u")).unwrap();
    assert!(
        asides.into_iter().all(|f| !f.unwrap().file_name().to_str().unwrap().contains(".index."))
    );
}

/// Runs a line of words on a terminal.
fn on_terminal(site: &Site, line: &str, variables: &[(&str, &str)]) -> String {
    let mut command = site.command(Path::new("script"));
    command.env("TERM", "xterm").envs(variables.iter().copied());
    command.args(["-qefc", line, "/dev/null"]);
    wait(command).out_text()
}

/// Columns and colour are for people only, and only if they want them. What Cyrus's tools
/// print is not changed for anybody.
#[test]
fn colour_is_for_those_who_can_see_it() {
    // What makes a terminal.
    if machine::program("script", "bsdutils").is_none() {
        return;
    }
    let site = Site::of_fixture("main");
    let cyrbk = env!("CARGO_BIN_EXE_cyrbk");
    let conf = site.conf().display().to_string();
    for words in ["verify bob carol", "list bob carol", "verify --cyrus bob"] {
        let line = format!("{cyrbk} {words} -C {conf}");
        let coloured = on_terminal(&site, &line, &[]);
        let plain = on_terminal(&site, &line, &[("NO_COLOR", "1")]);
        assert!(coloured.contains("bob") && plain.contains("bob"), "{coloured}");
        assert!(!plain.contains('\x1b'), "{plain:?}");
        if words.starts_with("verify") {
            assert!(coloured.contains("\x1b[32mok\x1b[0m"), "{coloured:?}");
        }
        assert!(!on_terminal(&site, &line, &[("TERM", "dumb")]).contains('\x1b'));
        let json = on_terminal(&site, &line.replace(" -C", " --json -C"), &[]);
        assert!(!json.contains('\x1b') && json.contains("\"userid\": \"bob\""), "{json:?}");
    }
    let line = format!("{cyrbk} compact --force bob -C {conf}");
    let said = on_terminal(&site, &line, &[]);
    assert!(said.starts_with("compact bob: \x1b[32mok, ") && said.contains("B stay"), "{said}");
    let line = format!("{cyrbk} list --prefix nobody -C {conf}");
    assert!(on_terminal(&site, &line, &[]).starts_with("no such backup in "));
    let line = format!("{} -C {conf} verify bob", site.path().join("bin/ctl_backups").display());
    assert_eq!(on_terminal(&site, &line, &[]), "verify bob: ok\r\n");
}

/// What people see: a bar while it lasts, lines that are not broken by it, a tally.
#[test]
fn on_a_terminal_there_is_a_bar_and_a_tally() {
    // What makes a terminal.
    if machine::program("script", "bsdutils").is_none() {
        return;
    }
    let site = thousand();
    assert_eq!(site.ours("ctl_backups", &["reconstruct"]).code, 0);
    let line = format!(
        "{} -C {} reindex -A --jobs=2",
        site.path().join("bin/ctl_backups").display(),
        site.conf().display()
    );
    let said = on_terminal(&site, &line, &[]);
    assert!(said.contains("/1000 backups, "), "no bar");
    assert!(said.contains("/s, ") && said.contains(" left"), "no rate");
    for i in 0..USERS {
        assert!(said.contains(&format!("reindex user{i:04}: ok\r\n")), "{i}");
    }
    assert!(said.trim_end().contains("1000 backups: 1000 ok, in "), "no tally");
    // A pipe has neither, nor anything else that is not text.
    let ran = site.ours("ctl_backups", &["verify", "-A"]);
    assert!(ran.err.is_empty() && !ran.out.iter().any(|&c| c == b'\r' || c == 0x1b));
}
