//! Restoring to a mail server that has no room: a user over his limit, a full disk.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cyrus::Cyrus;
use crate::machine;
use crate::mail;
use crate::restore_scene::Scene;
use crate::site::ADMIN;

const DATE: i64 = 1_000_000_000;

fn start(cyrus: &Cyrus, changes: &[&str], messages: u32) -> Scene {
    let scene = Scene::start_with(cyrus, &["tom"], changes);
    scene.give_tom_mailboxes();
    let mut tom = scene.site.imap("tom");
    for number in 1..=messages {
        tom.append("INBOX", "\\Flagged", DATE, &large(number));
    }
    tom.append("INBOX.Work", "", DATE, &mail::note(4).bytes);
    tom.logout();
    let _ = scene.sync(&["-u", "tom"]);
    scene
}

/// A message of 64 KiB that is like no other.
fn large(number: u32) -> Vec<u8> {
    let mut text = format!("Subject: {number}\r\n\r\n").into_bytes();
    let mut word = u64::from(number) + 1;
    while text.len() < 65_536 {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.extend_from_slice(format!("{word:016x}\r\n").as_bytes());
    }
    text
}

/// A limit does not apply to replication, so neither to the real `restore` nor here.
#[test]
fn a_limit_does_not_stop_a_restore() {
    let Some(cyrus) = Cyrus::find_or_skip("a_limit_does_not_stop_a_restore") else { return };
    let scene = start(&cyrus, &["delete_mode: immediate"], 6);
    let words = ["-a", "SERVER", "tom"];
    for real in [true, false] {
        let mut admin = scene.site.imap(ADMIN);
        admin.ok("DELETE user.tom");
        admin.create("user.tom");
        admin.ok(&format!("SETACL user.tom {ADMIN} lrswipkxtecda"));
        admin.ok("SETQUOTA user.tom (STORAGE 100)");
        let output = if real { scene.real_restore(&words) } else { scene.restore(&words) };
        let _ = output.success();
        let quota = admin.lines("GETQUOTA user.tom");
        assert_eq!(quota, ["* QUOTA user.tom (STORAGE 384 100)"], "real: {real}");
    }
}

/// A small file system, as long as this lives.
struct Small(PathBuf);

impl Small {
    /// Needs root.
    fn mount(at: &Path, size: &str) -> Option<Small> {
        let options = format!("size={size},uid=cyrus,gid=mail,mode=750");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).status();
        mounted.is_ok_and(|status| status.success()).then(|| Small(at.to_owned()))
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        let done = Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_told_and_the_next_run_goes_on() {
    let name = "a_full_disk_is_told_and_the_next_run_goes_on";
    let Some(cyrus) = Cyrus::find_or_skip(name) else { return };
    if machine::program("mount", "mount").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(dir.path(), "8m") else {
        machine::impossible("nothing can be mounted");
        return;
    };
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open).unwrap();
    let partition = format!("partition-default: {}", dir.path().display());
    let scene = start(&cyrus, &[&partition, "delete_mode: immediate"], 12);
    scene.site.imap(ADMIN).ok("DELETE user.tom");
    let words = ["--all", "SERVER", "tom"];
    small.resize("600k");
    for _ in 0..2 {
        let output = scene.cyrbk_restore(&words);
        assert_eq!(output.code(), 75, "{output}");
        let told = output.stderr_text();
        assert!(told.contains("its disk may be full"), "{output}");
        assert!(told.contains("0 messages") && told.contains("goes on from there"), "{output}");
        assert!(!told.contains("RESTART"), "{output}");
    }
    small.resize("8m");
    for restored in ["13 messages restored", "0 messages restored"] {
        let output = scene.cyrbk_restore(&words).success();
        assert!(output.stdout_text().contains(restored), "{output}");
    }
    assert_eq!(scene.site.imap("tom").fetch_all("INBOX").len(), 12);
}
