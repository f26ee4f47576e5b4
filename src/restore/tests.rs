//! Plans over recorded backups of Cyrus's own.

use super::*;
use crate::lock::Wait;
use crate::store::staging::Staging;
use crate::store::{Backup, Line, Writer};
use crate::sync::client::MailboxState;
use crate::wire::apply::Apply;
use crate::wire::dlist::parse_item;
use crate::wire::mboxname::NameRules;
use crate::wire::{Body, Guid};

fn rules() -> NameRules {
    NameRules { default_domain: Some(b"example.com".to_vec()), ..NameRules::default() }
}

fn backup(name: &str) -> (tempfile::TempDir, Backup) {
    let dir = tempfile::tempdir().unwrap();
    let source = format!("tests/fixtures/backups/main/{name}");
    let path = dir.path().join("data");
    std::fs::copy(&source, &path).unwrap();
    std::fs::copy(format!("{source}.index"), dir.path().join("data.index")).unwrap();
    let backup = Backup::open_shared(&path, Wait::No).unwrap();
    (dir, backup)
}

fn plan(request: &Request) -> Plan {
    let (_dir, backup) = backup("one/a/alice_EPfRmx");
    let view = View::now(&backup).unwrap();
    Plan::make(&view, &rules(), request, false).unwrap()
}

fn names(plan: &Plan) -> Vec<String> {
    plan.targets.iter().map(|t| String::from_utf8_lossy(&t.name).into_owned()).collect()
}

fn objects(words: &[&str]) -> Request {
    let object = |word: &&str| Object::parse(word.as_bytes(), <[u8]>::to_vec);
    Request::new(What::Objects(words.iter().map(object).collect()))
}

/// In user.alice and user.alice.Work, living.
const LIVING: &str = "84976990f3bc08fb48037b36fcc15832f019d92d";
/// In user.alice, expunged.
const EXPUNGED: &str = "fb175853a7d269f7288a6764d851d015716a9733";

#[test]
fn parents_come_first_and_deleted_mailboxes_get_their_names_back() {
    let all = plan(&Request::new(What::All));
    let all = names(&all);
    assert_eq!(all[0], "user.alice");
    let at = |name: &str| all.iter().position(|other| other == name).unwrap();
    assert!(at("user.alice.MailingLists") < at("user.alice.MailingLists.ilug"));
    assert!(all.contains(&"user.alice.Drafts".to_owned()), "{all:?}");
    assert!(!all.iter().any(|name| name.starts_with("DELETED")), "{all:?}");
    let living = names(&plan(&Request::new(What::Living)));
    assert!(!living.contains(&"user.alice.Drafts".to_owned()), "{living:?}");
    assert!(!living.contains(&"user.alice.Trash".to_owned()), "{living:?}");
    let kept = Request { keep_deleted_names: true, ..Request::new(What::All) };
    assert!(names(&plan(&kept)).iter().any(|name| name.starts_with("DELETED.user.alice")));
}

#[test]
fn expunged_messages_as_they_are_or_without_or_only() {
    let figures = |expunged| {
        let request = Request { expunged, ..objects(&["user.alice"]) };
        let plan = plan(&request);
        (plan.targets[0].messages, plan.targets[0].expunged)
    };
    let (living, expunged) = figures(Expunged::AsTheyAre);
    assert!(living > 0 && expunged > 0);
    assert_eq!(figures(Expunged::Without), (living, 0));
    // They come back to sight.
    assert_eq!(figures(Expunged::Only), (expunged, 0));
}

#[test]
fn messages_that_come_back_to_sight_are_not_marked_for_deletion() {
    let (_dir, backup) = backup("one/a/alice_EPfRmx");
    let view = View::now(&backup).unwrap();
    let request = Request { expunged: Expunged::Only, ..objects(&["user.alice"]) };
    let plan = Plan::make(&view, &rules(), &request, false).unwrap();
    let records = plan.targets[0].records(&view, Expunged::Only).unwrap();
    let flags: Vec<_> = records.more.iter().map(|r| String::from_utf8_lossy(&r.flags)).collect();
    assert!(!flags.is_empty() && !flags.iter().any(|f| f.contains("\\Deleted")), "{flags:?}");
}

#[test]
fn messages_are_restored_where_they_live_or_lived_last() {
    assert_eq!(names(&plan(&objects(&[LIVING]))), ["user.alice", "user.alice.Work"]);
    let gone = plan(&objects(&[EXPUNGED]));
    assert_eq!((names(&gone), gone.targets[0].messages), (vec!["user.alice".to_owned()], 1));
    let without = Request { expunged: Expunged::Without, ..objects(&[EXPUNGED]) };
    assert_eq!(plan(&without).targets, []);
    let into = Request { into: Some(b"user.alice.X".to_vec()), ..objects(&[LIVING, EXPUNGED]) };
    let into = plan(&into);
    assert_eq!((names(&into), into.targets[0].messages), (vec!["user.alice.X".to_owned()], 2));
}

/// A backup of these lines, each with the time at which it came.
fn backup_of(lines: &[(i64, String)]) -> (tempfile::TempDir, Backup) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    std::fs::write(&path, b"").unwrap();
    let mut writer = Writer::open(&path, lines[0].0).unwrap();
    let staging = Staging::new(dir.path().join("staging"));
    for (time, text) in lines {
        let (name, value) = parse_item(text.as_bytes()).unwrap();
        let apply = Apply::read(&name, &value).unwrap();
        let is_message = matches!(apply, Apply::Message(_));
        let bodies = if is_message { vec![Body::Memory(b"x\n".to_vec())] } else { Vec::new() };
        let body_at = if is_message { vec![text.len() - 1] } else { Vec::new() };
        let line =
            Line { text: text.as_bytes(), body_at: &body_at, bodies: &bodies, apply: &apply };
        writer.append(*time, &line, &staging).unwrap();
    }
    writer.finish(lines[lines.len() - 1].0).unwrap();
    drop(writer);
    let backup = Backup::open_shared(&path, Wait::No).unwrap();
    (dir, backup)
}

/// The SHA-1 of `x` and a line's end.
const X: &str = "6fcf9dfbd479ed82697fee719b9f8c610a11ff2a";

/// A mailbox with the one message.
fn mailbox_line(name: &str, uniqueid: &str, flags: &str) -> String {
    format!(
        "MAILBOX %(UNIQUEID {uniqueid} MBOXNAME {name} LAST_UID 1 HIGHESTMODSEQ 9 RECENTUID 0 \
         RECENTTIME 0 LAST_APPENDDATE 0 POP3_LAST_LOGIN 0 UIDVALIDITY 7 PARTITION d ACL \"\" \
         OPTIONS P SYNC_CRC 0 SYNC_CRC_ANNOT 0 RECORD (%(UID 1 MODSEQ 2 LAST_UPDATED 1 FLAGS \
         ({flags}) INTERNALDATE 1 SIZE 2 GUID {X})))"
    )
}

fn message_line() -> String {
    format!("MESSAGE (%{{d {X} 2}}\r\n)")
}

/// Where a message is restored by its GUID, and whether it comes back to sight.
fn places(lines: &[(i64, String)], expunged: Expunged) -> Vec<(String, bool)> {
    let (_dir, backup) = backup_of(lines);
    let view = View::now(&backup).unwrap();
    let request = Request { expunged, ..objects(&[X]) };
    let selection = select(&view, &rules(), &request).unwrap();
    let place = |entry: &Entry| {
        let Pick::Message { revive, .. } = entry.pick else { panic!("{entry:?}") };
        (String::from_utf8_lossy(&entry.mailbox.mboxname).into_owned(), revive)
    };
    selection.entries.iter().map(place).collect()
}

#[test]
fn what_a_deleted_mailbox_has_kept_does_not_live() {
    let inbox = "user.tom";
    let old = "DELETED.user.tom.Old.5F000000";
    let time = 0x5F00_0000;
    let all = Expunged::AsTheyAre;
    let lines = |inbox_flags: &str, expunged_at: i64| {
        let mut lines = vec![
            (time - 9, message_line()),
            (time - 8, mailbox_line(inbox, "a", "")),
            (time - 7, mailbox_line("user.tom.Old", "b", "")),
            (
                time,
                format!(
                    "RENAME %(OLDMBOXNAME user.tom.Old NEWMBOXNAME {old} PARTITION d UIDVALIDITY 7)"
                ),
            ),
            (expunged_at, mailbox_line(inbox, "a", inbox_flags)),
        ];
        lines.sort_by_key(|line| line.0);
        lines
    };
    // It lives in the inbox: the other mailbox need not come back for it.
    let living = lines("", time + 5);
    assert_eq!(places(&living, all), [(inbox.to_owned(), false)]);
    assert_eq!(places(&living, Expunged::Without), [(inbox.to_owned(), false)]);
    // It was expunged from the inbox after the other mailbox had been deleted, or before.
    let after = lines("\\Expunged", time + 5);
    assert_eq!(places(&after, all), [(inbox.to_owned(), true)]);
    assert_eq!(places(&after, Expunged::Only), [(inbox.to_owned(), true)]);
    assert_eq!(places(&after, Expunged::Without), [(old.to_owned(), false)]);
    let before = lines("\\Expunged", time - 5);
    assert_eq!(places(&before, all), [(old.to_owned(), false)]);
}

/// Row numbers tell when a mailbox came, not when it went.
#[test]
fn what_was_deleted_last_tells_what_a_mailbox_is_like() {
    let deleted = |id: &str, stamp: &str| {
        mailbox_line(&format!("DELETED.user.tom.Old.{stamp}"), id, "")
            .replace("UIDVALIDITY 7", &format!("UIDVALIDITY {}", if id == "late" { 8 } else { 7 }))
    };
    let lines =
        [(1, message_line()), (2, deleted("late", "5F000009")), (3, deleted("early", "5F000001"))];
    let (_dir, backup) = backup_of(&lines);
    let view = View::now(&backup).unwrap();
    let plan = Plan::make(&view, &rules(), &Request::new(What::All), false).unwrap();
    assert_eq!(names(&plan), ["user.tom.Old"]);
    assert_eq!(plan.targets[0].sources[0].mailbox.uidvalidity, 8);
}

#[test]
fn what_is_selected_twice_is_restored_once() {
    let once = plan(&objects(&["user.alice.Work"]));
    let twice = plan(&objects(&["user.alice.Work", LIVING, "user.alice.Work"]));
    let work = |plan: &Plan| {
        let target = plan.targets.iter().find(|t| t.name == b"user.alice.Work").unwrap();
        (target.messages, target.expunged, target.octets)
    };
    assert_eq!(work(&once), work(&twice));
    let recursive = Request { recursive: true, ..objects(&["user.alice", "user.alice.Work"]) };
    assert_eq!(work(&plan(&recursive)), work(&once));
}

#[test]
fn what_the_backup_does_not_have_is_named() {
    let none = "1".repeat(40);
    let words = ["user.alice.Nope", "05xefzcyg5v02lv31wgjwn3d", "05xefzcyg5v02lv31wgjwn3e", &none];
    let plan = plan(&objects(&words));
    let unknown: Vec<Vec<u8>> = plan.unknown.iter().map(Object::text).collect();
    assert_eq!(unknown, [words[0].as_bytes(), words[2].as_bytes(), words[3].as_bytes()]);
    assert_eq!(names(&plan), ["user.alice"]);
}

#[test]
fn access_rights_of_other_people_do_not_travel() {
    let acl = |into: &str, acl: Option<&str>| {
        let acl = acl.map(|acl| acl.as_bytes().to_vec());
        let into = Some(into.as_bytes().to_vec());
        let plan = plan(&Request { into, acl, ..objects(&["user.alice.Work"]) });
        plan.targets[0].acl.clone().map(|acl| String::from_utf8(acl).unwrap())
    };
    assert!(acl("user.alice.Rescue", None).unwrap().starts_with("alice\t"));
    assert_eq!(acl("user.bob.Rescue", None), None);
    assert_eq!(acl("user.bob.Rescue", Some("bob\tlrs\t")).as_deref(), Some("bob\tlrs\t"));
    assert_eq!(acl("user.alice.Rescue", Some("")), None);
}

/// What a server might say of the first mailbox of a plan.
fn state_of(target: &Target) -> MailboxState {
    let source = &target.sources[0].mailbox;
    MailboxState {
        uniqueid: source.uniqueid.clone(),
        mboxname: target.name.clone(),
        partition: source.partition.clone(),
        last_uid: source.last_uid,
        highestmodseq: source.highestmodseq,
        uidvalidity: source.uidvalidity,
        ..MailboxState::default()
    }
}

fn way(keep_ids: bool, there: &[MailboxState]) -> Way {
    let plan = plan(&Request { keep_ids, ..objects(&["user.alice.Work"]) });
    let mut destination = Destination::default();
    destination.take(there.to_vec());
    destination.way(&plan.targets[0], &rules(), &plan)
}

#[test]
fn the_way_depends_on_what_is_there() {
    let plan = plan(&objects(&["user.alice.Work"]));
    let same = state_of(&plan.targets[0]);
    let inbox = MailboxState {
        mboxname: b"user.alice".to_vec(),
        uniqueid: b"inbox".to_vec(),
        ..MailboxState::default()
    };
    assert!(matches!(way(true, &[]), Way::Refused(Obstacle::NoInbox(_))));
    assert_eq!(way(false, std::slice::from_ref(&inbox)), Way::Create);
    let Way::Exact { uniqueid, holder: None } = way(true, std::slice::from_ref(&inbox)) else {
        panic!("not exact")
    };
    assert_eq!(uniqueid, same.uniqueid);
    // A deleted copy has it: another one, the same at each run.
    let copy = MailboxState { mboxname: b"DELETED.user.alice.Work.1".to_vec(), ..same.clone() };
    let there = [inbox.clone(), copy.clone()];
    let Way::Exact { uniqueid: other, holder } = way(true, &there) else { panic!("not exact") };
    assert_eq!(holder, Some(copy.mboxname.clone()));
    assert!(other != uniqueid && other.len() == uniqueid.len());
    assert_eq!(way(true, &there), Way::Exact { uniqueid: other.clone(), holder });
    // An earlier run has begun it.
    let begun = MailboxState { uniqueid: other.clone(), last_uid: 2, ..same.clone() };
    let there = [inbox.clone(), copy, begun.clone()];
    assert_eq!(way(true, &there), Way::Continue { uniqueid: other, above: 2 });
    // It lives.
    let changed = MailboxState { highestmodseq: same.highestmodseq + 1, ..begun.clone() };
    assert_eq!(way(true, &[inbox.clone(), changed]), Way::Append);
    assert_eq!(way(false, &[inbox.clone(), begun]), Way::Append);
    let calendar = MailboxState { mboxtype: Some(b"c".to_vec()), ..same };
    assert!(matches!(way(true, &[inbox, calendar]), Way::Refused(Obstacle::OtherType { .. })));
}

#[test]
fn lines_are_what_servers_understand() {
    let (_dir, backup) = backup("one/a/alice_EPfRmx");
    let view = View::now(&backup).unwrap();
    let request = Request { keep_ids: true, ..objects(&["user.alice"]) };
    let plan = Plan::make(&view, &rules(), &request, false).unwrap();
    let target = &plan.targets[0];
    let records = target.records(&view, Expunged::AsTheyAre).unwrap();
    let source = &target.sources[0].mailbox;
    let extra = view.index().extra_fields(source.id).unwrap();
    let exact = line::Exact {
        target,
        source,
        extra: extra.as_deref(),
        uniqueid: &source.uniqueid,
        last_uid: source.last_uid,
        with_annotations: true,
        local_only: false,
    };
    // Read as a server reads it, it is the mailbox that was backed up.
    let text = exact.line(&records.exact);
    let (name, value) = crate::wire::dlist::parse_item(&text).unwrap();
    let apply = crate::wire::apply::Apply::read(&name, &value).unwrap();
    let crate::wire::apply::Apply::Mailbox(mailbox) = apply else { panic!("{name:?}") };
    assert_eq!((mailbox.last_uid, mailbox.highestmodseq), (source.last_uid, source.highestmodseq));
    assert_eq!(mailbox.annotations, source.annotations);
    let read: Vec<(u32, Guid, bool, Vec<u8>)> = mailbox
        .records()
        .map(|record| record.unwrap())
        .map(|record| (record.uid, record.guid, record.expunged, record.annotations))
        .collect();
    let sent = records.exact.iter().map(|record| {
        let expunged = record.expunged.is_some();
        (record.uid, record.guid.unwrap(), expunged, record.annotations.clone())
    });
    assert_eq!(read, sent.collect::<Vec<_>>());
    assert!(read.iter().any(|record| record.2));
    let more = String::from_utf8(line::append(target, &records.exact[..2], true)).unwrap();
    assert!(more.starts_with("LOCAL_MAILBOX %(UNIQUEID NIL MBOXNAME user.alice LAST"), "{more}");
    assert!(more.contains("RECORD (%(UID 1 ") && more.contains(" %(UID 2 "), "{more}");
    // A server compares the type of a mailbox that is there.
    let mut calendar = plan;
    calendar.targets[0].sources[0].mailbox.mboxtype = Some(b"c".to_vec());
    let more = line::append(&calendar.targets[0], &records.exact[..2], false);
    assert!(more.starts_with(b"MAILBOX %(UNIQUEID NIL MBOXNAME user.alice MBOXTYPE c LAST"));
}
