//! What the tools tell syslog, beside the real ones: each runs with a `/dev` of its own, in
//! which `log` is the test's socket.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::unistd::geteuid;

use crate::damage::flip;
use crate::live::{self, TOOLS, index_of};
use crate::machine;
use crate::site::{Site, wait};

const CAROL: &str = "one/c/carol_cesxQB";

/// The log that tools on this site write to; nothing where that cannot be arranged.
fn log(site: &Site) -> Option<UnixDatagram> {
    for (name, package) in [("mknod", "coreutils"), ("unshare", "util-linux"), ("mount", "mount")] {
        machine::program(name, package)?;
    }
    let dev = site.path().join("dev");
    fs::create_dir(&dev).unwrap();
    fs::set_permissions(&dev, fs::Permissions::from_mode(0o755)).unwrap();
    let null = dev.join("null");
    let made = Command::new("mknod").args(["-m", "666"]).arg(&null).args(["c", "1", "3"]).status();
    let may = geteuid().is_root() && made.is_ok_and(|status| status.success());
    let may = may && in_own_dev(site, Path::new("/bin/true"), &[]).is_some();
    if !may {
        machine::impossible("no /dev of its own without the rights to mknod, unshare and mount");
        return None;
    }
    let socket = UnixDatagram::bind(dev.join("log")).unwrap();
    fs::set_permissions(dev.join("log"), fs::Permissions::from_mode(0o666)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(40))).unwrap();
    Some(socket)
}

/// Runs a program to its end; its status, if it could be run.
fn in_own_dev(site: &Site, program: &Path, words: &[&str]) -> Option<i32> {
    let mut command = site.command(Path::new("unshare"));
    command.args(["-m", "sh", "-c", "mount --bind \"$0\" /dev && exec \"$@\""]);
    command.arg(site.path().join("dev")).arg(program).args(words);
    Some(wait(command).code).filter(|code| ![1, 126, 127].contains(code))
}

/// Lines without their times and numbers of processes, and without those that tell of the
/// real tools' insides.
fn lines(socket: &UnixDatagram) -> Vec<String> {
    let (mut lines, mut buffer) = (Vec::new(), [0; 8192]);
    while let Ok(len) = socket.recv(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
        let (priority, rest) = text.split_once('>').unwrap();
        // `Nov  9 12:00:00 `
        let (tag, rest) = rest[16..].split_once('[').unwrap();
        let (_, rest) = rest.split_once("]: ").unwrap();
        let rest =
            rest.replace(" syserror=<No such file or directory> func=<sqldb", " func=<sqldb");
        let inside = ["skipstamp", "gzuc_read failed", "offset -1"];
        if !inside.iter().any(|inside| rest.contains(inside)) {
            lines.push(format!("{priority}>{tag}: {rest}"));
        }
    }
    lines
}

/// What it is called, and how a backup gets into it.
type State = (&'static str, fn(&Path));

const STATES: [State; 4] = [
    ("whole", |_| {}),
    ("index missing", |data| fs::remove_file(index_of(data)).unwrap()),
    ("index no database", |data| fs::write(index_of(data), "no database at all").unwrap()),
    ("damage", |data| flip(data, 19_000)),
];

const RUNS: [&[&str]; 7] = [
    &["ctl_backups", "stat", "-V", "carol"],
    &["ctl_backups", "list", "nobody"],
    &["cyr_backup", "nobody", "list", "all"],
    &["cyr_backup", "carol", "list", "chunks"],
    &["ctl_backups", "lock", "-x", "true", "carol"],
    &["ctl_backups", "compact", "-F", "carol"],
    &["ctl_backups", "reindex", "carol"],
];

/// Of damage the log hears also where what is whole is shown all the same.
#[test]
fn export_and_search_of_damage_are_in_the_log() {
    for command in ["export", "search"] {
        let site = Site::of_fixture("main");
        let Some(socket) = log(&site) else { return };
        flip(&site.path().join(CAROL), 5_000);
        let conf = site.conf();
        let words = [command, "-C", conf.to_str().unwrap(), "carol"];
        in_own_dev(&site, Path::new(env!("CARGO_BIN_EXE_cyrbk")), &words).unwrap();
        let lines = lines(&socket);
        let told = "backup error carol: file checksum mismatch for chunk ";
        let is_told = |line: &String| line.contains(told) && !line.contains("what can be read");
        assert!(lines.iter().any(is_told), "{command}: {lines:?}");
    }
}

/// Status and log of a program that cannot start, the real one and ours. In front of its name may
/// be its environment.
fn at_start(words: &[&str], lines_of_conf: &str) -> Option<[(Option<i32>, Vec<String>); 2]> {
    let told = [Path::new(TOOLS), Path::new("bin")].map(|bin| {
        let site = live::site("main")?;
        for name in ["backupd", "restore"] {
            symlink(env!("CARGO_BIN_EXE_cyrbk"), site.path().join("bin").join(name)).unwrap();
        }
        site.configure(lines_of_conf);
        let socket = log(&site)?;
        let at = words.iter().position(|word| !word.contains('=')).unwrap();
        let program = site.path().join(bin).join(words[at]);
        let (program, conf) = (program.to_str().unwrap(), site.conf());
        let all = [&words[..at], &[program, "-C", conf.to_str().unwrap()], &words[at + 1..]];
        let code = in_own_dev(&site, Path::new("/usr/bin/env"), &all.concat());
        let lines = lines(&socket).into_iter().filter(|line| !line.contains("/etc/passwd"));
        Some((code, lines.collect()))
    });
    let [Some(real), Some(ours)] = told else { return None };
    Some([real, ours])
}

/// Under master nobody reads standard error.
#[test]
fn why_nothing_starts_is_in_the_log() {
    let backupd = ["CYRUS_SERVICE=backupd", "CYRUS_ID=1", "backupd", "-X"];
    let restore = ["restore", "localhost", "alice", "-a"];
    let nobody = ["CYRUS_USER=nobody-of-this-name"];
    for (words, conf) in [
        (&backupd[..], "backup_db: no\n"),
        (&backupd, "configdirectory: /twice\n"),
        (&[&nobody[..], &backupd].concat(), ""),
        (&restore, "backup_db: no\n"),
        (&[&nobody[..], &restore].concat(), ""),
        (&["ctl_backups", "list"], "backup_db: no\n"),
    ] {
        let Some([(code, real), (ours_code, ours)]) = at_start(words, conf) else { return };
        assert_eq!((code, real.len()), (ours_code, ours.len()), "{words:?}: {real:?} {ours:?}");
        // Ours adds the file, and what to write there.
        let mut both = real.iter().zip(&ours);
        assert!(both.all(|(real, ours)| ours.starts_with(real)), "{real:?} {ours:?}");
        assert_eq!(ours.len(), usize::from(words[0] != "ctl_backups"), "{words:?}");
    }
    for (words, expected) in [
        (&["CYRUS_ID=1", "backupd", "-X"][..], "could not getenv(CYRUS_SERVICE); exiting"),
        (&["CYRUS_SERVICE=backupd", "backupd"], "could not getenv(CYRUS_ID); exiting"),
        (&["backupd", "x", "-U3"], "options and arguments MUST be separated by whitespace"),
    ] {
        let site = Site::empty();
        let Some(socket) = log(&site) else { return };
        symlink(env!("CARGO_BIN_EXE_cyrbk"), site.path().join("bin/backupd")).unwrap();
        let at = words.iter().position(|word| !word.contains('=')).unwrap();
        let program = site.path().join("bin").join(words[at]);
        let words = [&words[..at], &[program.to_str().unwrap()], &words[at + 1..]].concat();
        in_own_dev(&site, Path::new("/usr/bin/env"), &words).unwrap();
        assert_eq!(lines(&socket), [format!("<19>cyrus/backupd: {expected}")]);
    }
}

/// The options of a channel are part of the configuration.
#[test]
fn a_channel_that_makes_no_sense_is_in_the_log() {
    let site = Site::of_fixture("main");
    let Some(socket) = log(&site) else { return };
    site.configure("far_sync_timeout: soon\n");
    let conf = site.conf();
    let words = ["restore", "-C", conf.to_str().unwrap(), "localhost", "alice", "--all"];
    let words = [&words[..], &["--dry-run", "--channel", "far"]].concat();
    let cyrbk = Path::new(env!("CARGO_BIN_EXE_cyrbk"));
    assert_eq!(in_own_dev(&site, cyrbk, &words), Some(78));
    let lines = lines(&socket);
    let start = "<19>cyrus/restore: Fatal error: ";
    assert!(lines.len() == 1 && lines[0].starts_with(start), "{lines:?}");
}

#[test]
fn the_lines_that_watchers_look_for() {
    for (state, make) in STATES {
        for words in RUNS {
            // The real tools' checks do not end where data are damaged, their compaction does
            // not notice; ours mends an index that cannot be used.
            if state == "damage" && words[1] != "reindex"
                || state.starts_with("index") && words[1] == "compact"
            {
                continue;
            }
            let told = [Path::new(TOOLS), Path::new("bin")].map(|bin| {
                let site = live::site("main")?;
                site.configure("backup_retention_days: 7\n");
                let socket = log(&site)?;
                make(&site.path().join(CAROL));
                let (program, conf) = (site.path().join(bin).join(words[0]), site.conf());
                let words = [&["-C", conf.to_str().unwrap()], &words[1..]].concat();
                let code = in_own_dev(&site, &program, &words);
                let top = site.path().to_str().unwrap();
                let lines = lines(&socket).into_iter().map(|line| line.replace(top, ""));
                Some((code, lines.collect::<Vec<_>>()))
            });
            let [Some((code, real)), Some((ours_code, ours))] = told else { return };
            let real: Vec<_> = real
                .into_iter()
                .map(|line| line.replace("Unknown code ____ 251", "not found in backups.db"))
                .collect();
            assert!(real.iter().any(|line| line.contains("deprecated")), "{words:?}: {real:?}");
            if state == "damage" {
                // Where in the text is told otherwise, and what was done about it besides.
                assert_eq!(code, ours_code);
                for line in real.iter().filter(|line| !line.contains("backup_cleanup_")) {
                    let start = line.split(", byte ").next().unwrap();
                    assert!(ours.iter().any(|our| our.starts_with(start)), "{line}: {ours:?}");
                }
            } else {
                assert_eq!((code, real), (ours_code, ours), "{state}: {words:?}");
            }
        }
    }
}
