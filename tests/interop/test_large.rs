//! A message that fits into no memory, all the way: mail server, `sync_client`, staging file, data
//! file, and out again.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sha1::Digest;

use crate::backup_server::CYRBK;
use crate::cyrus::{Cyrus, clean_command};
use crate::door_server::DoorSetup;
use crate::mail;
use crate::process::{Service, run};
use crate::site::{ADMIN, Channel, Site};
use crate::test_limits::{memory, try_memory};

/// For each of the slow steps; 2 GB take minutes in a debug build.
const PATIENCE: Duration = Duration::from_secs(1800);
/// In KiB: 16 MiB of the line being received, and what the program needs anyway.
const MEMORY_MAX: u64 = 64 * 1024;

/// Megabytes: 200, or as many as `CYRBK_INTEROP_LARGE_MB` says.
fn size() -> usize {
    let text = std::env::var("CYRBK_INTEROP_LARGE_MB").ok();
    text.map_or(200, |text| text.parse().unwrap()) * 1_000_000
}

/// The size of the largest staging file, looked at from outside.
fn watch_staging(pid: u32, is_over: Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    let largest = AtomicU64::new(0);
    std::thread::spawn(move || {
        while !is_over.load(Ordering::Relaxed) {
            let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { break };
            for path in entries.flatten().map(|entry| entry.path()) {
                let is_staging = fs::read_link(&path).is_ok_and(|target| {
                    target.parent().is_some_and(|parent| parent.ends_with("staging"))
                });
                if let Some(found) = is_staging.then(|| fs::metadata(&path).ok()).flatten() {
                    largest.fetch_max(found.len(), Ordering::Relaxed);
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        largest.into_inner()
    })
}

fn sha1_of(path: &Path) -> String {
    let mut sha1 = sha1::Sha1::new();
    let mut file = File::open(path).unwrap();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return sha1.finalize().iter().map(|octet| format!("{octet:02x}")).collect(),
            len => sha1.update(&buffer[..len]),
        }
    }
}

/// `CYRBK_INTEROP_LARGE_MB=2000 cargo test --test interop a_large_message -- --nocapture` tells the
/// figures for 2 GB.
#[test]
fn a_large_message_passes_through() {
    let Some(cyrus) = Cyrus::find_or_skip("a_large_message_passes_through") else { return };
    let setup = DoorSetup::new(&cyrus, &[]);
    let (mut service, port) = setup.serve(&[]);
    let site = Site::start(&cyrus, &["tom"], &[Channel::new("door", port, false)]);
    site.imap(ADMIN).create("user.tom");
    let message = mail::huge(size()).bytes;
    let (len, guid) = (message.len() as u64, mail::guid(&message));
    site.imap("tom").append("INBOX", "", 1_000_000_000, &message);
    drop(message);

    let pid = service.child.id();
    let before = memory(pid, "VmHWM");
    let is_over = Arc::new(AtomicBool::new(false));
    let watcher = watch_staging(pid, Arc::clone(&is_over));
    let sync = site.sync_within("door", &["-u", "tom"], PATIENCE).success();
    is_over.store(true, Ordering::Relaxed);
    let (staged, peak) = (watcher.join().unwrap(), memory(pid, "VmHWM"));
    sync.assert_sent("APPLY MESSAGE");
    assert_eq!(staged, len, "octets in the staging file");
    assert!(peak < MEMORY_MAX, "{before} to {peak} KiB for a message of {len} octets");
    assert!(service.terminate().success());

    let copy = setup.workspace.path().join("copy");
    let mut dump = clean_command(Path::new(CYRBK));
    dump.args(["dump", "-C"]).arg(&setup.imapd_conf).args(["tom", "message", &guid]);
    dump.stdin(Stdio::null()).stdout(File::create(&copy).unwrap()).stderr(Stdio::inherit());
    let mut dump = Service::spawn(dump);
    let mut dump_peak = 0;
    let status = crate::process::wait_for("the dump", PATIENCE, || {
        let status = dump.try_status();
        if status.is_none() {
            let now = try_memory(dump.child.id(), "VmHWM");
            dump_peak = dump_peak.max(now.unwrap_or_default());
        }
        status
    });
    assert!(status.success(), "{status}");
    assert_eq!((fs::metadata(&copy).unwrap().len(), sha1_of(&copy)), (len, guid));
    let mut verify = clean_command(Path::new(CYRBK));
    verify.args(["verify", "-C"]).arg(&setup.imapd_conf).arg("tom");
    let _ = run(verify, PATIENCE).success();
    println!(
        "a message of {len} octets: {staged} staged, the server grew from {before} to {peak} KiB, \
         sync_client took {:?}; dumped with {dump_peak} KiB, the same SHA-1",
        sync.output.elapsed
    );
}
