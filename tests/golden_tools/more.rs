//! What Cyrus's tools announce and never had: reconstruct, move, delete, dump mailbox.
//! No Cyrus needed.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use cyrbk::lock::{Kind, Wait, open_locked};
use cyrbk::store::Catalog;
use cyrbk::store::chunk::{CHUNK_HEADER, MemberWriter};

use crate::site::{Ran, Site, wait};

fn catalog(site: &Site) -> Catalog {
    Catalog::open(site.path().join("conf/backups.db"))
}

/// Output with the site's directory left out.
fn text(site: &Site, ran: &Ran) -> String {
    ran.out_text().replace(site.path().to_str().unwrap(), "")
}

#[test]
fn a_lost_catalog_is_built_again() {
    let site = Site::of_fixture("main");
    let before = catalog(&site).list().unwrap();
    fs::remove_file(site.path().join("conf/backups.db")).unwrap();
    let dry = site.ours("ctl_backups", &["reconstruct", "--dry-run"]);
    assert_eq!(dry.code, 0);
    assert!(!site.path().join("conf/backups.db").exists());
    let ran = site.ours("ctl_backups", &["reconstruct"]);
    assert_eq!((ran.code, &ran.out, ran.err_text().as_str()), (0, &dry.out, ""));
    assert!(text(&site, &ran).contains("bob: added /two/b/bob_5xHD5K\n"));
    assert_eq!(catalog(&site).list().unwrap(), before);
    // A second run finds nothing to do.
    let again = site.ours("ctl_backups", &["reconstruct"]);
    assert_eq!((again.code, again.out.len()), (0, 0));
    let told = site.ours("ctl_backups", &["-v", "reconstruct"]);
    assert!(text(&site, &told).contains("bob: unchanged /two/b/bob_5xHD5K\n"));
}

#[test]
fn a_damaged_catalog_is_put_aside() {
    let site = Site::of_fixture("main");
    let before = catalog(&site).list().unwrap();
    fs::write(site.path().join("conf/backups.db"), "this is no catalog, nor was it").unwrap();
    let ran = site.ours("ctl_backups", &["reconstruct"]);
    assert_eq!(ran.code, 0, "{}", ran.err_text());
    assert!(ran.err_text().starts_with("cannot read backups.db, starting over: "));
    assert_eq!(catalog(&site).list().unwrap(), before);
    let files = fs::read_dir(site.path().join("conf")).unwrap();
    let aside = files.filter(|file| {
        file.as_ref().unwrap().file_name().to_str().unwrap().starts_with("backups.db.")
    });
    assert_eq!(aside.count(), 1);
}

/// A catalog that cannot be read for another reason than its octets may be sound.
#[test]
fn a_catalog_that_may_be_sound_stays_where_it_is() {
    let site = Site::of_fixture("main");
    let db = site.path().join("conf/backups.db");
    let sound = fs::read(&db).unwrap();
    // A later version of the format; and, for whoever is not root, a file of somebody else.
    let mut later = sound.clone();
    later[20..24].copy_from_slice(&9_u32.to_be_bytes());
    let mut states = vec![(later, 0o600, "twoskip version 9 is not supported")];
    if !nix::unistd::geteuid().is_root() {
        states.push((sound, 0o000, "Permission denied"));
    }
    for (octets, mode, why) in states {
        fs::write(&db, &octets).unwrap();
        fs::set_permissions(&db, fs::Permissions::from_mode(mode)).unwrap();
        let ran = site.ours("ctl_backups", &["reconstruct"]);
        let err = ran.err_text();
        assert_eq!((ran.code, ran.out_text().as_str()), (75, ""), "{err}");
        assert!(err.starts_with("cannot read backups.db: ") && err.contains(why), "{err}");
        fs::set_permissions(&db, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(fs::read(&db).unwrap(), octets);
        let beside = fs::read_dir(site.path().join("conf")).unwrap().map(|file| file.unwrap());
        let names: Vec<_> = beside.map(|file| file.file_name()).collect();
        assert!(names.iter().all(|name| !name.to_string_lossy().starts_with("backups.db.")));
    }
}

#[test]
fn conflicts_are_left_to_the_administrator() {
    let site = Site::empty();
    // The name of a file says nothing.
    site.write_data("one/x/zoe_AbCdEf", &["user.alice"]);
    site.write_data("one/b/bob_AbCdEf", &["user.bob"]);
    site.write_data("two/b/bob_GhIjKl", &["user.bob"]);
    site.write_data("two/c/carol_AbCdEf", &["user.carol", "user.dave"]);
    site.write_data("two/e/erin_AbCdEf", &[]);
    fs::write(site.path().join("one/README"), "Here are the backups.\n").unwrap();
    let frank = site.path().join("one/f/frank_AbCdEf");
    catalog(&site).set(b"frank", &frank).unwrap();
    let grace = site.write_data("one/g/grace_AbCdEf", &["user.heidi"]);
    catalog(&site).set(b"grace", &grace).unwrap();
    let ran = site.ours("ctl_backups", &["reconstruct"]);
    assert_eq!(ran.code, 75);
    let expected = "\
alice: added /one/x/zoe_AbCdEf
bob: conflict: 2 files: /one/b/bob_AbCdEf /two/b/bob_GhIjKl
frank: conflict: /one/f/frank_AbCdEf does not exist
grace: conflict: the lines of /one/g/grace_AbCdEf name heidi (1 line)
/one/README: not a backup, left alone
/two/c/carol_AbCdEf: conflict: its lines name carol (1 line), dave (1 line)
/two/e/erin_AbCdEf: conflict: no line names its owner (49 octets)
";
    assert_eq!(text(&site, &ran), expected);
    let users = catalog(&site).list().unwrap().into_iter().map(|entry| entry.userid);
    assert_eq!(users.collect::<Vec<_>>(), [&b"alice"[..], b"frank", b"grace"]);
    let json = site.ours("ctl_backups", &["-j", "reconstruct"]).out_text();
    assert!(json.contains("\"status\": \"many owners\""), "{json}");
}

#[test]
fn a_backup_moves_and_is_found() {
    let site = Site::of_fixture("main");
    let dump = |name: &str| site.ours("cyr_backup", &[name, "json", "mailboxes"]);
    let before = dump("carol");
    let dry = site.ours("ctl_backups", &["move", "carol", "two", "--dry-run"]);
    assert_eq!(
        text(&site, &dry),
        "/one/c/carol_cesxQB -> /two/c/carol_cesxQB\nmove carol: not done\n"
    );
    let ran = site.ours("ctl_backups", &["-v", "move", "carol", "two"]);
    assert_eq!((ran.code, ran.err_text().as_str()), (0, ""));
    assert_eq!(text(&site, &ran), "/one/c/carol_cesxQB -> /two/c/carol_cesxQB\nmove carol: ok\n");
    assert_eq!(dump("carol"), before);
    assert_eq!(site.ours("ctl_backups", &["verify", "carol"]).code, 0);
    // Neither the link nor the copy confuses what looks at files.
    assert_eq!(site.ours("ctl_backups", &["reconstruct"]).code, 0);
    let again = site.ours("ctl_backups", &["-v", "move", "-m", "user/carol", "two"]);
    assert_eq!(text(&site, &again), "/two/c/carol_cesxQB: already there\nmove carol: ok\n");
    let elsewhere = site.path().join("elsewhere");
    let ran = site.ours("ctl_backups", &["move", "carol", elsewhere.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}", ran.out_text());
    assert_eq!(dump("carol"), before);
    assert!(elsewhere.join("c/carol_cesxQB").is_file());
}

#[test]
fn what_cannot_be_moved_stays() {
    let site = Site::of_fixture("main");
    let bob = site.path().join("two/b/bob_5xHD5K");
    for (words, out, err) in [
        (&["move", "nobody", "two"][..], "", "nobody: not found in backups.db\n"),
        (&["move", "bob", "three"], "", "three: no such partition\n"),
        (
            &["move", "-f", "two/b/nothing", "one"],
            "move two/b/nothing: failed (not found in backups.db)\n",
            "",
        ),
    ] {
        let ran = site.ours("ctl_backups", words);
        assert_eq!((ran.code, ran.out_text().as_str(), ran.err_text().as_str()), (75, out, err));
    }
    assert_eq!(site.ours("ctl_backups", &["move", "bob"]).code, 64);
    let options = OpenOptions::new().read(true).write(true).to_owned();
    let held = open_locked(&bob, &options, Kind::Exclusive, Wait::No).unwrap();
    let ran = site.ours("ctl_backups", &["move", "bob", "one"]);
    assert_eq!((ran.code, ran.out_text().as_str()), (75, "move bob: locked\n"));
    drop(held);
    let ran = site.ours("ctl_backups", &["-j", "move", "-f", "two/b/bob_5xHD5K", "one"]);
    assert_eq!(ran.code, 0, "{}", ran.out_text());
    assert!(ran.out_text().contains("\"status\": \"ok\""));
}

fn answer(site: &Site, words: &[&str], answer: &str) -> Ran {
    let mut command = site.command(&site.path().join("bin/ctl_backups"));
    command.arg("-C").arg(site.conf()).args(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
    let ran = child.wait_with_output().unwrap();
    Ran { code: ran.status.code().unwrap(), out: ran.stdout, err: ran.stderr }
}

#[test]
fn deleting_asks_first() {
    let site = Site::of_fixture("main");
    let bob = site.path().join("two/b/bob_5xHD5K");
    for no in ["", "n\n", "maybe\n", "\n"] {
        let ran = answer(&site, &["delete", "bob"], no);
        assert_eq!((ran.code, ran.out_text().as_str()), (75, "delete bob: skipped\n"), "{no:?}");
        assert!(ran.err_text().starts_with("Delete the backup of bob, "), "{}", ran.err_text());
    }
    // It cannot only say what it would do.
    let dry = site.ours("ctl_backups", &["--dry-run", "delete", "-F", "bob"]);
    assert_eq!((dry.code, dry.out_text().as_str()), (64, ""));
    assert!(bob.exists());
    let ran = answer(&site, &["delete", "bob"], "yes\n");
    assert_eq!((ran.code, ran.out_text().as_str()), (0, "delete bob: ok\n"));
    assert!(!bob.exists() && !bob.with_extension("index").exists());
    assert_eq!(
        site.ours("ctl_backups", &["list", "bob"]).err_text(),
        "bob: not found in backups.db\n"
    );
    let ran = site.ours("ctl_backups", &["delete", "-F", "--keep-files", "carol"]);
    assert_eq!((ran.code, ran.err_text().as_str()), (0, ""));
    assert!(site.path().join("one/c/carol_cesxQB").exists());
    assert_eq!(catalog(&site).lookup(b"carol").unwrap(), None);
    assert_eq!(site.ours("ctl_backups", &["delete", "-F", "nobody"]).code, 75);
    assert_eq!(site.ours("ctl_backups", &["delete"]).code, 0);
}

#[test]
fn a_mailbox_becomes_an_mbox_or_files() {
    let site = Site::of_fixture("main");
    let mbox = site.ours("cyr_backup", &["carol", "dump", "mailbox", "user/carol/Work"]);
    assert_eq!((mbox.code, mbox.err_text().as_str()), (0, ""));
    let starts = mbox.out_text().lines().filter(|l| l.starts_with("From MAILER-DAEMON ")).count();
    // The lines bring UIDs 1 to 8, copies of four messages, and expunge none; Cyrus's
    // index has kept one UID of each message.
    assert_eq!(starts, 8);
    assert!(!mbox.out.contains(&b'\r'));
    let dir = site.path().join("out");
    let words = ["carol", "dump", "mailbox", "user/carol/Work", "--eml", dir.to_str().unwrap()];
    assert_eq!(site.ours("cyr_backup", &words).code, 0);
    let message = fs::read(dir.join("8.eml")).unwrap();
    let guid = "1c31ab48183a2d35cde3646f1fec99ecb6790f17";
    assert_eq!(message, site.ours("cyr_backup", &["carol", "dump", "message", guid]).out);
    let files = fs::read_dir(&dir).unwrap();
    let mut names: Vec<_> =
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, (1..=8).map(|uid| format!("{uid}.eml")).collect::<Vec<_>>());
    // UIDs 7 and 8 are one message.
    assert_eq!(fs::read(dir.join("7.eml")).unwrap(), message);
    // What is there is not overwritten.
    let again = site.ours("cyr_backup", &words);
    assert_eq!(again.code, 75);
    assert!(again.err_text().starts_with("carol: cannot write to "), "{}", again.err_text());
    let unknown = site.ours("cyr_backup", &["carol", "dump", "mailbox", "user/carol/None"]);
    assert_eq!(unknown.err_text(), "carol: Item does not exist\n");
    // A message of which there are two copies, and one that was expunged.
    let all = site.ours("cyr_backup", &["alice", "dump", "mailbox", "user/alice", "--expunged"]);
    let live = site.ours("cyr_backup", &["alice", "dump", "mailbox", "user/alice"]);
    assert!(all.out.len() > live.out.len());
}

#[test]
fn lines_that_begin_with_from_are_quoted() {
    let site = Site::of_fixture("main");
    let show = site.ours("cyr_backup", &["bob", "show", "chunks", "1", "2"]);
    assert_eq!(show.code, 0);
    assert!(show.out_text().contains("chunk: 2\n"), "{}", show.out_text());
    let unknown = site.ours("cyr_backup", &["bob", "show", "chunks", "9"]);
    assert_eq!(unknown.err_text(), "bob: Item does not exist\n");
    let ran = wait({
        let mut command = site.command(&site.path().join("bin/cyr_backup"));
        command.args(["-C"]).arg(site.conf()).args(["bob", "dump", "mailbox", "user/bob"]);
        command
    });
    let text = ran.out_text();
    let froms = text.lines().filter(|line| line.starts_with("From ")).count();
    let records = site.ours("cyr_backup", &["bob", "show", "mailboxes", "user/bob"]).out_text();
    let live = records.lines().filter(|line| line.starts_with("   ")).skip(1).count();
    assert_eq!(froms, live, "{records}");
}

#[test]
fn messages_at_a_glance() {
    let site = Site::of_fixture("main");
    let guid = "1c31ab48183a2d35cde3646f1fec99ecb6790f17";
    let ran = site.ours("cyr_backup", &["carol", "show", "messages", guid, "--summary"]);
    assert_eq!((ran.code, ran.err_text().as_str()), (0, ""));
    let line = format!(
        "2002-09-02 03:43:51  {:<28}  {:<48}  {guid}\n",
        "\"Mr. FoRK\" <fork_list@hot...", "Re: Java is for kiddies"
    );
    assert_eq!(ran.out_text(), line);
    let words = ["carol", "show", "mailboxes", "user/carol", "--summary"];
    let ran = site.ours("cyr_backup", &words);
    assert!(ran.out_text().starts_with("user.carol\n       1 "), "{}", ran.out_text());
    // What the sender wrote does not steer the terminal.
    let odd = b"Subject: a\x1b[2Jb\r\nFrom: =?utf-8?q?=1B]0;x=07?=\r\n\r\n";
    let odd_guid = crate::damage::guid(odd);
    site.store_message("odd", &odd_guid, odd);
    let ran = site.ours("cyr_backup", &["odd", "show", "messages", &odd_guid, "--summary"]);
    assert!(!ran.out.contains(&0x1b) && !ran.out.contains(&7), "{}", ran.out_text());
    let mut command = site.command(env!("CARGO_BIN_EXE_cyrbk").as_ref());
    command.args(["show", "--json", "-C"]).arg(site.conf());
    command.args(["carol", "messages", "in", "user/carol/Work"]);
    let json = wait(command);
    assert_eq!(json.code, 0, "{}", json.err_text());
    assert_eq!(json.out_text().matches("\"subject\": ").count(), 8);
}

/// Quirk 45: Cyrus stops with status 65, and with it all that was still to be done.
#[test]
fn reindex_goes_on_where_time_runs_backwards() {
    let site = Site::empty();
    let later = fs::read(site.write_data("one/later", &["user.alice"])).unwrap();
    let mut earlier = Vec::new();
    let mut writer = MemberWriter::start(&mut earlier).unwrap();
    writer.write(CHUNK_HEADER, &mut earlier).unwrap();
    writer.write(b"1790000000 APPLY UNMAILBOX user.alice\r\n", &mut earlier).unwrap();
    writer.finish(&mut earlier).unwrap();
    let path = site.path().join("one/alice");
    fs::write(&path, [later, earlier].concat()).unwrap();
    catalog(&site).set(b"alice", &path).unwrap();
    let ran = site.ours("ctl_backups", &["reindex", "alice"]);
    assert_eq!((ran.code, ran.out_text().as_str()), (0, "reindex alice: ok\n"));
    let shown = site.ours("cyr_backup", &["alice", "show", "mailboxes", "user.alice0"]);
    assert!(shown.out_text().contains("\ndeleted:  "), "{}", shown.out_text());
}

/// `lock` and `passwd` have JSON under cyrbk's own name only: Cyrus's `-j` means nothing to
/// its `lock`.
#[test]
fn json_of_lock_and_passwd() {
    let site = Site::of_fixture("main");
    let cyrbk = |words: &[&str], input: &str| {
        let mut command = site.command(Path::new(env!("CARGO_BIN_EXE_cyrbk")));
        command.args(words).arg("-C").arg(site.conf());
        let file = site.path().join("input");
        fs::write(&file, input).unwrap();
        command.stdin(fs::File::open(file).unwrap());
        let ran = wait(command);
        (ran.code, ran.out_text())
    };
    for (words, code, status) in [
        (&["lock", "--json", "bob"][..], 0, "locked"),
        (&["lock", "--json", "bob", "--execute", "true"], 0, "ok"),
        (&["lock", "--json", "bob", "--execute", "exit 3"], 75, "failed (exit status: 3)"),
        (&["lock", "--json", "--create", "bob"], 75, "failed (Mailbox already exists)"),
    ] {
        let path = site.path().join("two/b/bob_5xHD5K");
        let text = format!(
            "{{\n  \"command\": \"lock\",\n  \"userid\": \"bob\",\n  \"fname\": \"{}\",\n  \
             \"status\": \"{status}\"\n}}\n",
            path.display()
        );
        assert_eq!(cyrbk(words, ""), (code, text), "{words:?}");
    }
    let text = |status| {
        format!(
            "{{\n  \"command\": \"passwd\",\n  \"userid\": \"tom\",\n  \"status\": \
             \"{status}\"\n}}\n"
        )
    };
    assert_eq!(cyrbk(&["passwd", "--json", "tom"], "secret\n"), (0, text("ok")));
    assert_eq!(cyrbk(&["passwd", "--json", "--delete", "tom"], ""), (0, text("removed")));
    assert_eq!(site.ours("ctl_backups", &["-j", "lock", "bob"]).out_text().lines().count(), 2);
}
