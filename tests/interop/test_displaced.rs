//! A mail server that was put back to an earlier state, and has gone on: what only the backup still
//! has can be restored from it, as long as expunged mail, and no client is told of it.

use crate::backup_server::Maker;
use crate::cyrus::Cyrus;
use crate::mail;
use crate::restore_scene::Scene;
use crate::site::ADMIN;
use crate::test_moment::{compact, next_second, now};
use crate::test_restore_more::{notes, numbered};
use crate::tools::Tools;

const DATE: i64 = 1_000_000_000;

fn append(scene: &Scene, numbers: &[u32]) {
    let mut tom = scene.site.imap("tom");
    for number in numbers {
        tom.append("INBOX", "\\Flagged", DATE, &mail::note(*number).bytes);
    }
    tom.logout();
}

/// Restores all that was expunged into a new folder.
fn rescue(scene: &Scene, folder: &str) -> Vec<(u32, String)> {
    let into = format!("user.tom.{folder}");
    let _ = scene.restore(&["-x", "-M", &into, "SERVER", "tom", "user.tom"]).success();
    notes(scene, &format!("INBOX.{folder}"))
}

#[test]
fn what_a_server_has_lost_is_restored_from_its_backup() {
    let name = "what_a_server_has_lost_is_restored_from_its_backup";
    let Some(cyrus) = Cyrus::find_or_skip(name) else { return };
    let scene = Scene::start(&cyrus, &["tom"]);
    scene.site.imap(ADMIN).create("user.tom");
    append(&scene, &[1, 2, 3]);
    let _ = scene.sync(&["-u", "tom"]);
    scene.site.save_spool("older");
    append(&scene, &[4, 5]);
    let _ = scene.sync(&["-u", "tom"]);
    next_second();
    let before = format!("@{}", now());
    next_second();

    scene.site.restore_spool("older");
    append(&scene, &[50]);
    let theirs = numbered(&[(1, 1), (2, 2), (3, 3), (4, 50)]);
    assert_eq!(notes(&scene, "INBOX"), theirs, "the server has gone back");
    let _ = scene.site.sync("tested", &["-u", "tom"]).success_with_refusals();
    let settled = scene.sync(&["-u", "tom"]);
    assert_eq!(settled.applied(), Vec::<String>::new());
    assert_eq!(notes(&scene, "INBOX"), theirs, "the server was changed");

    let lost = numbered(&[(1, 4), (2, 5)]);
    let guid = |number| mail::guid(&mail::note(number).bytes);
    assert_eq!(rescue(&scene, "Before"), lost);
    compact(&scene.server, "7d");
    assert_eq!(rescue(&scene, "After"), lost);
    let words = ["-M", "user.tom.One", "SERVER", "tom", &guid(5)];
    let _ = scene.restore(&words).success();
    assert_eq!(
        notes(&scene, "INBOX.One"),
        lost[1..].iter().map(|(_, s)| (1, s.clone())).collect::<Vec<_>>()
    );
    let words = ["SERVER", "tom", "user/tom", "--at", &before, "--into", "user.tom.Then"];
    let _ = scene.cyrbk_restore(&words).success();
    assert_eq!(notes(&scene, "INBOX.Then").len(), 5);
    let _ = scene.cyrbk("reindex", &["tom"]).success();
    assert_eq!(rescue(&scene, "Rebuilt"), lost);
    let _ = scene.cyrbk("verify", &["tom"]).success();
    let real = Tools::new(&cyrus, Maker::Cyrus);
    let verified = real.ctl_backups(&scene.server, &["verify", "tom"]).success();
    assert_eq!(verified.stderr_text(), "", "{verified}");
    assert_eq!(notes(&scene, "INBOX"), theirs);

    // Behind retention it is gone as what was expunged then.
    next_second();
    next_second();
    compact(&scene.server, "1s");
    let output = scene.restore(&["SERVER", "tom", &guid(4), &guid(5)]);
    assert_eq!(output.code(), 75, "{output}");
    assert_eq!(output.stderr_text().matches("Message does not exist").count(), 2, "{output}");
    let _ = scene.cyrbk("verify", &["tom"]).success();
}
