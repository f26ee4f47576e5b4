//! Where cyrbk is meant to be better than Cyrus's tools: damage, binary content,
//! waiting, streams that fail. No Cyrus needed.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use cyrbk::lock::{Kind, Wait, open_locked, release};
use sha1::{Digest, Sha1};

use crate::site::{Site, wait};

pub(crate) fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut octet = [0];
    file.read_exact_at(&mut octet, at).unwrap();
    file.write_all_at(&[octet[0] ^ 0x10], at).unwrap();
}

pub(crate) fn guid(octets: &[u8]) -> String {
    Sha1::digest(octets).iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Quirk 4: Cyrus's tools never return from this.
#[test]
fn a_flipped_bit_in_the_last_chunk_is_reported() {
    let site = Site::of_fixture("main");
    let bob = site.path().join("two/b/bob_5xHD5K");
    flip(&bob, 6168 + 700);
    let list = site.ours("ctl_backups", &["list", "bob", "carol"]);
    assert_eq!(list.code, 75);
    assert!(list.err_text().starts_with("bob: "), "{}", list.err_text());
    assert!(list.out_text().contains("\tcarol\t"), "{}", list.out_text());
    assert!(!list.out_text().contains("bob"), "{}", list.out_text());
    let unchecked = site.ours("ctl_backups", &["list", "-V", "bob"]);
    assert_eq!(unchecked.code, 0);
    let verify = site.ours("ctl_backups", &["verify", "-v", "bob", "carol"]);
    assert_eq!(verify.code, 75);
    assert!(verify.out_text().contains("\nerror\nverify bob: failed ("), "{}", verify.out_text());
    assert!(verify.out_text().ends_with("verify carol: ok\n"), "{}", verify.out_text());
    let stopped = site.ours("ctl_backups", &["verify", "-S", "bob", "carol"]);
    assert!(!stopped.out_text().contains("carol"), "{}", stopped.out_text());
    let look = site.ours("cyr_backup", &["bob", "list", "messages"]);
    assert_eq!(look.code, 75);
    assert!(look.err_text().starts_with("bob: "), "{}", look.err_text());
}

/// Quirk 2: Cyrus's texts are accidents, up to `skipped`.
#[test]
fn a_flipped_bit_in_an_earlier_chunk_is_reported() {
    let site = Site::of_fixture("main");
    flip(&site.path().join("two/b/bob_5xHD5K"), 1000);
    let list = site.ours("ctl_backups", &["list", "bob"]);
    assert_eq!(list.code, 75);
    assert_eq!(list.err_text(), "bob: file checksum mismatch for chunk 2\n");
    let verify = site.ours("ctl_backups", &["verify", "bob"]);
    assert_eq!(verify.code, 75);
    assert!(verify.out_text().contains("verify bob: failed ("), "{}", verify.out_text());
}

/// Quirk 5: Cyrus's `dump message` ends at the first NUL.
#[test]
fn messages_are_dumped_octet_for_octet() {
    let site = Site::empty();
    let mut octets = b"Subject: all octets\r\n\r\n".to_vec();
    octets.extend((0..3_000_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8));
    for (user, octets) in [("large", &octets[..]), ("nul", b"a\0b\xff\n"), ("empty", b"")] {
        site.store_message(user, &guid(octets), octets);
        let ran = site.ours("cyr_backup", &[user, "dump", "message", &guid(octets)]);
        assert_eq!((ran.code, ran.err_text().as_str()), (0, ""));
        assert!(ran.out == octets, "{user}: {} octets", ran.out.len());
    }
    let chunk = site.ours("cyr_backup", &["large", "dump", "chunk", "1"]);
    assert_eq!(chunk.code, 0);
    assert!(chunk.out.windows(octets.len()).any(|part| part == octets));
    assert!(chunk.out.starts_with(b"# cyrus backup: chunk start\r\n1795000000 APPLY MESSAGE (%{"));
    assert!(fs::read_dir(site.path().join("staging")).unwrap().next().is_none());
}

#[test]
fn a_message_that_is_not_its_guid_is_not_dumped() {
    let site = Site::empty();
    let wrong = guid(b"something else");
    site.store_message("alice", &wrong, b"what is really stored");
    let ran = site.ours("cyr_backup", &["alice", "dump", "message", &wrong]);
    assert_eq!((ran.code, ran.out_text().as_str()), (75, ""));
    let found = guid(b"what is really stored");
    let text = format!(
        "alice: message {wrong} in chunk 1 at offset 29 is damaged: its SHA-1 is {found}\n"
    );
    assert_eq!(ran.err_text(), text);
    let verify = site.ours("ctl_backups", &["verify", "alice"]);
    let text = "guid mismatch for message 1\nverify alice: failed (guid mismatch for message 1)\n";
    assert_eq!((verify.code, verify.out_text().as_str()), (75, text));
}

/// Quirk 32: Cyrus's tools crash.
#[test]
fn an_empty_file_name_is_no_backup() {
    let site = Site::empty();
    let list = site.ours("ctl_backups", &["list", "-f", ""]);
    assert_eq!((list.code, list.err_text().as_str()), (75, ": Mailbox does not exist\n"));
    let verify = site.ours("ctl_backups", &["verify", "-f", ""]);
    let text = "verify : failed (Mailbox does not exist)\n";
    assert_eq!((verify.code, verify.out_text().as_str()), (75, text));
}

#[test]
fn waiting_for_locks() {
    let site = Site::of_fixture("main");
    let options = OpenOptions::new().read(true).write(true).to_owned();
    let bob = site.path().join("two/b/bob_5xHD5K");
    let held = open_locked(&bob, &options, Kind::Exclusive, Wait::No).unwrap();
    for words in [
        &["ctl_backups", "verify", "-w", "bob"][..],
        &["ctl_backups", "-w", "list", "bob"],
        &["cyr_backup", "bob", "list", "chunks"],
    ] {
        cyrbk::lock::acquire(&held, Kind::Exclusive, Wait::No).unwrap();
        let waiting = std::thread::scope(|scope| {
            let tool = scope.spawn(|| site.ours(words[0], &words[1..]));
            std::thread::sleep(Duration::from_millis(200));
            let waiting = !tool.is_finished();
            release(&held).unwrap();
            assert_eq!(tool.join().unwrap().code, 0, "{words:?}");
            waiting
        });
        assert!(waiting, "{words:?}");
    }
}

/// Runs a long dump with its output sent elsewhere.
fn dump_to(site: &Site, out: Stdio) -> (i32, String) {
    let mut command = site.command(&site.path().join("bin/cyr_backup"));
    command.arg("-C").arg(site.conf()).args(["large", "dump", "chunk", "1"]);
    let mut child = command.stdout(out).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    (child.wait().unwrap().code().unwrap(), err)
}

#[test]
fn a_reader_that_goes_away_is_no_failure_and_a_full_disk_is() {
    let site = Site::empty();
    let octets = vec![b'x'; 3_000_000];
    site.store_message("large", &guid(&octets), &octets);
    assert_eq!(dump_to(&site, Stdio::piped()), (0, String::new()));
    let full = File::create("/dev/full").unwrap();
    let (code, err) = dump_to(&site, full.into());
    assert_eq!(code, 75);
    assert!(err.starts_with("fatal error: cannot write output: "), "{err}");
}

#[test]
fn one_implementation_behind_all_faces() {
    let site = Site::of_fixture("main");
    let cyrbk = Path::new(env!("CARGO_BIN_EXE_cyrbk"));
    let run = |words: &[&str]| {
        let mut command = site.command(cyrbk);
        command.args(words).arg("-C").arg(site.conf());
        wait(command)
    };
    let same: [(&[&str], &str, &[&str]); 17] = [
        (&["list"], "ctl_backups", &["list"]),
        (&["list", "--json", "bob", "nobody"], "ctl_backups", &["-j", "list", "bob", "nobody"]),
        (&["list", "--prefix", "b"], "ctl_backups", &["list", "-P", "b"]),
        (&["verify", "-vv", "bob"], "ctl_backups", &["-vv", "verify", "--deep", "bob"]),
        (&["verify", "--cyrus", "-vv", "bob"], "ctl_backups", &["-vv", "verify", "bob"]),
        (&["verify", "--json", "--all"], "ctl_backups", &["-j", "-A", "--deep", "verify"]),
        (&["verify", "--quick", "--all"], "ctl_backups", &["-A", "--quick", "verify"]),
        (&["ctl_backups", "verify", "nobody"], "ctl_backups", &["verify", "nobody"]),
        (&["cyr_backup", "carol", "list", "all"], "cyr_backup", &["carol", "list", "all"]),
        (&["stat", "--all"], "ctl_backups", &["-A", "stat"]),
        (&["stat", "--json", "bob"], "ctl_backups", &["-j", "stat", "bob"]),
        (&["reindex", "-v", "bob", "nobody"], "ctl_backups", &["-v", "reindex", "bob", "nobody"]),
        (&["lock", "bob", "--execute", "exit 1"], "ctl_backups", &["lock", "-x", "exit 1", "bob"]),
        (&["reconstruct", "-v"], "ctl_backups", &["reconstruct", "-v"]),
        (&["move", "--dry-run", "bob", "one"], "ctl_backups", &["move", "--dry-run", "bob", "one"]),
        (
            &["export", "carol", "user/carol"],
            "cyr_backup",
            &["carol", "dump", "mailbox", "user/carol"],
        ),
        (&["delete", "nobody", "-F"], "ctl_backups", &["delete", "-F", "nobody"]),
    ];
    for (words, tool, tool_words) in same {
        assert_eq!(run(words), site.ours(tool, tool_words), "{words:?}");
    }
    let message = "65c6cb8690452ddaa71e168ee340d22bae972e44";
    let dump = |words: &[&str]| {
        let mut command = site.command(cyrbk);
        command.args(["dump", "-C"]).arg(site.conf()).args(words);
        wait(command)
    };
    assert_eq!(
        dump(&["bob", "message", message]),
        site.ours("cyr_backup", &["bob", "dump", "message", message])
    );
    assert_eq!(
        dump(&["--mailbox", "user/bob", "chunk", "1"]),
        site.ours("cyr_backup", &["-m", "user/bob", "dump", "chunk", "1"])
    );
}

#[test]
fn help_names_examples_and_statuses() {
    let site = Site::empty();
    let run = |words: &[&str]| {
        let mut command = site.command(Path::new(env!("CARGO_BIN_EXE_cyrbk")));
        command.args(words);
        wait(command)
    };
    let help = run(&["--help"]);
    assert_eq!((help.code, help.err_text().as_str()), (0, ""));
    for text in ["Examples:", "Exit status:", "serve", "verify", "dump", "passwd"] {
        assert!(help.out_text().contains(text), "{text}");
    }
    assert_eq!(run(&["verify", "--help"]).code, 0);
    let wrong = run(&["verify"]);
    assert_eq!((wrong.code, wrong.out_text().as_str()), (64, ""));
}

/// Only Cyrus has written, and damage costs its lines: what its index knows of them is there.
#[test]
fn a_restore_or_export_tells_of_damage_and_leaves_nothing_out() {
    let site = Site::of_fixture("main");
    let restore = ["restore", "localhost", "alice", "--all", "--dry-run"];
    let run = |words: &[&str]| {
        let mut command = site.command(Path::new(env!("CARGO_BIN_EXE_cyrbk")));
        command.arg(words[0]).arg("-C").arg(site.conf()).args(&words[1..]);
        wait(command)
    };
    let sound = run(&restore);
    assert_eq!((sound.code, sound.err_text().as_str()), (0, ""));
    let all = run(&["search", "alice", "--guids"]).out_text();
    // The end of the chunk: what is told of mailboxes.
    flip(&site.path().join("one/a/alice_EPfRmx"), 24_600);
    let damaged = run(&restore);
    assert_eq!(damaged.code, 75);
    let told = "alice: chunk 2 is damaged, and something may be missing: ";
    assert!(damaged.err_text().starts_with(told), "{}", damaged.err_text());
    assert_eq!(damaged.out_text(), sound.out_text());
    let search = run(&["search", "alice", "--guids"]);
    assert_eq!(search.code, 75);
    assert!(search.err_text().contains(told), "{}", search.err_text());
    assert_eq!(search.out_text(), all);
    // At an earlier moment what stood behind it in its chunk is missing.
    let looked_back = run(&[&restore[..], &["--at", "@1795248600"]].concat());
    assert_eq!(looked_back.code, 75);
    let missing = ": what follows the damage in chunk 2 is missing: ";
    assert!(looked_back.err_text().contains(missing), "{}", looked_back.err_text());
    assert_eq!(run(&[&restore[..], &["--at", "@1795247600"]].concat()).code, 0);
    for words in [["export", "alice", "--tar"], ["search", "alice", "--guids"]] {
        let looked_back = run(&[&words[..], &["--at", "@1795248600"]].concat());
        assert_eq!(looked_back.code, 75, "{words:?}");
        assert!(looked_back.err_text().contains(missing), "{}", looked_back.err_text());
        assert!(!looked_back.out.is_empty(), "{words:?}");
        let before = run(&[&words[..], &["--at", "@1795247600"]].concat());
        assert_eq!(before.code, 0, "{words:?}: {}", before.err_text());
    }
    let export = run(&["export", "alice", "--tar"]);
    assert_eq!(export.code, 75);
    assert!(export.err_text().contains(told), "{}", export.err_text());
}
