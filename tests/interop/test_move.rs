//! A backup moves to and fro while the server runs and the real client replicates into it.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::backup_server::{BackupServer, Maker};
use crate::cyrus::Cyrus;
use crate::mail;
use crate::site::{ADMIN, Channel, Site};
use crate::tools::{Tools, parse_list};

/// At least so many moves, and so many messages sent meanwhile, whichever takes longer.
const MOVES: usize = 6;
const MESSAGES: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn replication_goes_on_while_a_backup_moves() {
    let Some(cyrus) = Cyrus::find_or_skip("replication_goes_on_while_a_backup_moves") else {
        return;
    };
    let maker = Maker::under_test();
    if maker == Maker::Cyrus {
        // It never learned to move.
        return;
    }
    let mut server = BackupServer::start(&cyrus, maker, &[]);
    let site = Site::start(&cyrus, &["tom"], &[Channel::new("tested", server.port, false)]);
    let [real_tools, tools] = [Maker::Cyrus, maker].map(|maker| Tools::new(&cyrus, maker));
    site.imap(ADMIN).create("user.tom");
    site.imap("tom").append("INBOX", "", 1_000_000_000, &mail::note(0).bytes);
    let _ = site.sync("tested", &["-u", "tom"]).success();
    let places = ["two", "three"].map(|name| server.make_dir(name));

    let (moving, appended) = (AtomicBool::new(true), AtomicU32::new(1));
    let (sent, syncs, moves) = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let (mut sent, mut syncs) = (1, 0);
            while moving.load(Ordering::SeqCst) {
                site.imap("tom").append("INBOX", "", 1_000_000_000, &mail::note(sent).bytes);
                sent += 1;
                appended.store(sent, Ordering::SeqCst);
                let run = site.sync("tested", &["-u", "tom"]);
                // A backup that is being moved is locked, and nothing else.
                let refusals = run.refusals();
                let locked = |line: &String| line.starts_with("NO IMAP_MAILBOX_LOCKED");
                assert!(refusals.iter().all(locked), "{}", run.output);
                syncs += u32::from(run.output.code() == 0);
            }
            (sent, syncs)
        });
        let (mut moves, mut failed, started) = (0, None, Instant::now());
        let is_enough = |moves| moves >= MOVES && appended.load(Ordering::SeqCst) >= MESSAGES;
        while failed.is_none() && !is_enough(moves) && started.elapsed() < PATIENCE {
            let place = places[moves % 2].to_str().unwrap();
            let output = tools.ctl_backups(&server, &["-w", "-v", "move", "tom", place]);
            moves += 1;
            failed = Some(output).filter(|output| output.code() != 0);
            // The client gets its turn.
            std::thread::sleep(Duration::from_millis(300));
        }
        moving.store(false, Ordering::SeqCst);
        let (sent, syncs) = client.join().unwrap();
        assert!(failed.is_none(), "{}", failed.unwrap());
        (sent, syncs, moves)
    });
    let what = format!("{sent} messages, {syncs} runs, {moves} moves");
    assert!(sent >= MESSAGES && syncs > 0, "{what}: nothing happened meanwhile");

    // What was refused comes with the next run, and nothing that was acknowledged is gone.
    let _ = site.sync("tested", &["-u", "tom"]).success();
    let _ = tools.ctl_backups(&server, &["verify", "--deep", "tom"]).success();
    let _ = real_tools.ctl_backups(&server, &["verify", "tom"]).success();
    for number in 0..sent {
        let message = mail::note(number);
        let guid = mail::guid(&message.bytes);
        let dump = real_tools.cyr_backup(&server, &["tom", "dump", "message", &guid]).success();
        assert!(dump.stdout == message.bytes, "note {number}");
    }
    let run = site.sync("tested", &["-u", "tom"]).success();
    assert_eq!(run.applied(), Vec::<String>::new(), "{}", run.output);
    server.assert_alive();

    // One file of data is left; links lead to it.
    let listed = parse_list(&tools.ctl_backups(&server, &["list", "tom"]).success().stdout_text());
    let data_file = &listed[0].data_file;
    assert!(data_file.starts_with(&places[(moves - 1) % 2]), "{}", data_file.display());
    let other = places[moves % 2].join("t").join(data_file.file_name().unwrap());
    assert_eq!(&fs::canonicalize(&other).unwrap(), data_file);
    for place in &places {
        for entry in fs::read_dir(place.join("t")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.ends_with(".moving") && !name.ends_with(".forward"), "{name}");
        }
    }
}
