//! The state at each moment is what the live index said then.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::lock::Wait;
use crate::store::append::Writer;
use crate::store::compact::tests::history::{self, Op, START, Site};
use crate::store::compact::{self, Policy};
use crate::store::exact;
use crate::store::index::{ActiveRow, MailboxRow, MessageRow, RecordRow, SeenRow, SieveRow};
use crate::store::message::StoredMessage;
use crate::wire::mboxname::NameRules;

/// Everything that readers ask an index for.
#[derive(Debug, PartialEq)]
struct State {
    mailboxes: Vec<MailboxRow>,
    /// As Cyrus's tables have them, as they are, and what was displaced.
    records: Vec<[Vec<RecordRow>; 3]>,
    extra_fields: Vec<Option<Vec<u8>>>,
    messages: Vec<MessageRow>,
    subscriptions: Vec<Vec<u8>>,
    seen: Vec<SeenRow>,
    scripts: Vec<SieveRow>,
    quotas: Vec<Vec<u8>>,
    active: Option<ActiveRow>,
}

impl State {
    fn of(index: &Index) -> State {
        let mailboxes = index.mailboxes().unwrap();
        let records = |row: &MailboxRow| {
            let (cyrus, truth) = (index.records(row.id), index.true_records(row.id));
            [cyrus.unwrap(), truth.unwrap(), index.gone_records(row.id).unwrap()]
        };
        State {
            records: mailboxes.iter().map(records).collect(),
            extra_fields: mailboxes.iter().map(|row| index.extra_fields(row.id).unwrap()).collect(),
            mailboxes,
            messages: index.messages().unwrap(),
            subscriptions: index.subscriptions().unwrap(),
            seen: index.seen_states().unwrap(),
            scripts: index.sieve_scripts().unwrap(),
            quotas: index.quotas().unwrap(),
            active: index.active_script().unwrap(),
        }
    }
}

fn view(path: &Path, moment: i64) -> View {
    open(Backup::open(path, Wait::No).unwrap(), moment, &NameRules::default()).unwrap()
}

/// Living messages of mailbox `id`, by UID.
fn uids(view: &View, uniqueid: &[u8]) -> Vec<u32> {
    let records = exact::all_records(view.backup(), uniqueid).unwrap();
    records.into_iter().filter(|row| row.expunged.is_none()).map(|row| row.uid).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, ..ProptestConfig::default() })]

    #[test]
    fn every_moment_is_what_it_was(ops in history::ops()) {
        let site = Site::new();
        let mut now = START;
        let mut writer = Writer::open(&site.path, now).unwrap();
        let mut states = vec![(START - 1, State::of(writer.index()))];
        for (seconds, op) in &ops {
            now += i64::from(*seconds);
            site.op(&mut writer, now, op);
            let state = State::of(writer.index());
            match states.last_mut() {
                Some((at, last)) if *at == now => *last = state,
                _ => states.push((now, state)),
            }
        }
        writer.finish(now).unwrap();
        drop(writer);
        for (at, state) in states {
            let view = view(&site.path, at);
            prop_assert!(view.report().is_exact());
            prop_assert_eq!(State::of(view.backup().index()), state, "at {}", at);
            for message in view.backup().index().messages().unwrap() {
                let guid = message.guid.unwrap();
                StoredMessage::read(view.backup(), &guid, site.dir.path()).unwrap();
            }
        }
        // Nothing of it has touched the backup.
        prop_assert_eq!(view(&site.path, i64::MAX).report().last, last_time(&site));
    }
}

fn last_time(site: &Site) -> Option<i64> {
    let backup = Backup::open(&site.path, Wait::No).unwrap();
    backup.index().last_chunk().unwrap().map(|chunk| chunk.ts_end)
}

/// Three messages come, a flag changes, then the folder is emptied by mistake.
fn emptied() -> Vec<(u32, Op)> {
    let all = |expunged| vec![(1, 1, expunged), (2, 2, expunged), (3, 3, expunged)];
    vec![
        (0, Op::Message(vec![1, 2, 3])),
        (0, Op::Mailbox(0, 0, 5, all(false))),
        (0, Op::Mailbox(1, 1, 5, vec![(1, 3, false)])),
        (0, Op::Sub(0, true)),
        (0, Op::EndChunk),
        (10, Op::Mailbox(0, 0, 5, vec![(2, 2, false)])),
        (0, Op::EndChunk),
        (10, Op::Mailbox(0, 0, 5, all(true))),
        (0, Op::Sub(0, false)),
        (0, Op::Unmailbox(1)),
        (0, Op::EndChunk),
        (10, Op::Message(vec![4])),
        (0, Op::Mailbox(0, 0, 5, vec![(4, 4, false)])),
    ]
}

#[test]
fn a_folder_emptied_by_mistake_is_there_before() {
    let site = Site::new();
    site.write(&emptied());
    for (at, expected) in [
        (START - 1, &[][..]),
        (START, &[1, 2, 3]),
        (START + 19, &[1, 2, 3]),
        (START + 20, &[]),
        (START + 30, &[4]),
        (START + 1000, &[4]),
    ] {
        let view = view(&site.path, at);
        assert!(view.report().is_exact());
        assert_eq!(uids(&view, b"u0"), expected, "{at}");
        assert_eq!(view.report().first, Some(START));
        let is_subscribed = (START..START + 20).contains(&at);
        assert_eq!(view.backup().index().subscriptions().unwrap().len(), is_subscribed.into());
    }
}

#[test]
fn what_a_compaction_has_left_is_shown_and_what_it_took_is_said() {
    let site = Site::new();
    let end = site.write(&emptied());
    let compact = |since: i64, now: i64| {
        let policy = Policy { force: true, ..site.policy(Some(since)) };
        compact::run(&site.path, &policy, now, Wait::No, &mut |_| ()).unwrap();
    };
    // Retention still covers the mistake: the lines that told of the state before it are
    // gone, what they told of is not.
    compact(START + 19, end + 5);
    let before = view(&site.path, START + 15);
    let history = History::Since { complete: end + 5, gone: Some(START + 19), by: By::Cyrbk };
    assert_eq!(before.report().history, history);
    assert!(!before.report().is_exact() && before.report().added > 0);
    assert_eq!(uids(&before, b"u0"), [1, 2, 3]);
    assert_eq!(uids(&before, b"u1"), [1]);
    assert_eq!(before.backup().index().subscriptions().unwrap().len(), 1);
    drop(before);
    // What came later was not there.
    assert_eq!(uids(&view(&site.path, START + 25), b"u0"), []);
    // The present is the present.
    let now = view(&site.path, end + 5);
    assert!(now.report().is_exact());
    assert_eq!(uids(&now, b"u0"), [4]);
    drop(now);
    // Now it does not.
    compact(START + 20, end + 6);
    let gone = view(&site.path, START + 15);
    assert_eq!(uids(&gone, b"u0"), []);
    let history = History::Since { complete: end + 6, gone: Some(START + 20), by: By::Cyrbk };
    assert_eq!(gone.report().history, history);
}

/// A compaction has put messages that came one after the other side by side, and dropped the lines
/// that said when they came, for they were marked as seen later.
#[test]
fn messages_that_were_put_side_by_side_are_there_since_they_came() {
    let site = Site::new();
    let came = |uid: u32| START + 10 * i64::from(uid);
    let mut writer = Writer::open(&site.path, START).unwrap();
    let mut tell = |now: i64, uids: std::ops::RangeInclusive<u32>| {
        let last_uid = *uids.end();
        let record = |uid: u32| {
            format!(
                "%(UID {uid} MODSEQ {now} LAST_UPDATED {now} FLAGS () INTERNALDATE {} SIZE 9 GUID \
                 {})",
                came(uid),
                history::guid(uid)
            )
        };
        let records: Vec<String> = uids.map(record).collect();
        let line = format!(
            "MAILBOX %(UNIQUEID u0 MBOXNAME user.a LAST_UID {last_uid} HIGHESTMODSEQ {now} \
             RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 0 POP3_LAST_LOGIN 0 UIDVALIDITY 1 PARTITION \
             p ACL \"\" OPTIONS P RECORD ({}))",
            records.join(" ")
        );
        site.op(&mut writer, now, &Op::Message(vec![last_uid]));
        site.append(&mut writer, now, &line, &[], &[]);
        writer.finish(now).unwrap();
    };
    (1..=3).for_each(|uid| tell(came(uid), uid..=uid));
    // The third one came in front of this line, the fourth with it.
    tell(came(4), 1..=4);
    drop(writer);
    let sizes = compact::Sizes { min: 1 << 20, max: 0, work_threshold: 1 };
    let policy = Policy { sizes, ..site.policy(None) };
    compact::run(&site.path, &policy, came(9), Wait::No, &mut |_| ()).unwrap();
    let backup = Backup::open(&site.path, Wait::No).unwrap();
    let lines: std::collections::BTreeSet<u64> =
        backup.index().messages().unwrap().iter().map(|message| message.offset).collect();
    drop(backup);
    assert_eq!(lines.len(), 1);
    for uid in 1..=4 {
        for at in [came(uid), came(uid) + 9] {
            let view = view(&site.path, at);
            assert!(!view.report().is_exact());
            assert_eq!(uids(&view, b"u0"), (1..=uid).collect::<Vec<u32>>(), "{at}");
        }
    }
}

/// All records of one mailbox are sent again, another stays as it is; both are put aside, under the
/// names of deleted ones, and a third takes the name of the first.
#[test]
fn mailboxes_that_were_put_aside_since_have_their_names_from_before() {
    let site = Site::new();
    let mut writer = Writer::open(&site.path, START).unwrap();
    let both = || vec![(1, 1, false), (2, 2, false)];
    for (now, ops) in [
        (START, vec![Op::Message(vec![1, 2, 3]), Op::Mailbox(0, 0, 5, both())]),
        (START, vec![Op::Mailbox(1, 1, 5, vec![(3, 3, false)])]),
        (START + 20, vec![Op::Mailbox(0, 0, 5, both())]),
    ] {
        ops.iter().for_each(|op| site.op(&mut writer, now, op));
        writer.finish(now).unwrap();
    }
    let gone = START + 30;
    let put_aside = |name: u32| format!("DELETED.user.a.{name}.{gone:X}");
    for name in [0, 1] {
        let to = put_aside(name);
        let line = format!(
            "RENAME %(OLDMBOXNAME user.a.{name} NEWMBOXNAME {to} PARTITION p UIDVALIDITY {gone})"
        );
        site.append(&mut writer, gone, &line, &[], &[]);
    }
    writer.finish(gone).unwrap();
    site.op(&mut writer, gone + 5, &Op::Mailbox(2, 0, 5, vec![(1, 1, false)]));
    writer.finish(gone + 5).unwrap();
    drop(writer);
    let names = |at: i64| {
        let view = view(&site.path, at);
        let names = ["u0", "u1"].map(|id| {
            let row = view.backup().index().mailbox_with_uniqueid(id.as_bytes()).unwrap().unwrap();
            String::from_utf8(row.mboxname).unwrap()
        });
        (names, view.report().is_exact(), uids(&view, b"u0"), uids(&view, b"u1"))
    };
    let before =
        |is_exact| (["user.a.0", "user.a.1"].map(str::to_owned), is_exact, vec![1, 2], vec![3]);
    let after = |is_exact| ([0, 1].map(put_aside), is_exact, vec![1, 2], vec![3]);
    assert_eq!(names(START + 10), before(true));
    assert_eq!(names(gone), after(true));
    let policy = Policy { force: true, ..site.policy(Some(START - 1)) };
    compact::run(&site.path, &policy, gone + 10, Wait::No, &mut |_| ()).unwrap();
    assert_eq!(names(START + 10), before(false));
    assert_eq!(names(START + 25), before(false));
    assert_eq!(names(gone), after(false));
    assert_eq!(names(gone + 10), after(true));
}

#[test]
fn damage_costs_what_follows_it_in_its_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let source = "tests/fixtures/backups/main/one/a/alice_EPfRmx";
    let path = dir.path().join("data");
    fs::copy(source, &path).unwrap();
    fs::copy(format!("{source}.index"), dir.path().join("data.index")).unwrap();
    let chunks = Backup::open(&path, Wait::No).unwrap().index().chunks().unwrap();
    let moment = chunks[1].ts_end;
    let sound = view(&path, moment);
    assert!(sound.report().is_exact(), "{:?}", sound.report());
    let messages = sound.backup().index().messages().unwrap().len();
    drop(sound);
    let mut octets = fs::read(&path).unwrap();
    octets[12_000] ^= 0xff;
    fs::write(&path, octets).unwrap();
    let view = view(&path, moment);
    let damaged: Vec<i64> = view.report().damages.iter().map(|damage| damage.chunk_id).collect();
    assert_eq!(damaged, [1]);
    let left = view.backup().index().messages().unwrap().len();
    assert!(left > 0 && left < messages, "{left} of {messages}");
}

/// Cyrus's server writes what the clock says.
#[test]
fn a_clock_that_went_back_is_told() {
    let site = Site::new();
    let mut data = Vec::new();
    for stamps in [[100, 300], [200, 400]] {
        let mut member = crate::store::chunk::MemberWriter::start(&mut data).unwrap();
        member.write(crate::store::chunk::CHUNK_HEADER, &mut data).unwrap();
        for ts in stamps {
            let line = format!("{ts} APPLY SUB %(USERID a MBOXNAME user.a.{ts})\r\n");
            member.write(line.as_bytes(), &mut data).unwrap();
            member.end_line(&mut data).unwrap();
        }
        member.finish(&mut data).unwrap();
    }
    fs::write(&site.path, data).unwrap();
    drop(Writer::open(&site.path, 500).unwrap());
    for (at, count, went_back) in [(50, 0, false), (100, 1, false), (250, 1, true), (350, 3, false)]
    {
        let view = view(&site.path, at);
        assert_eq!(view.backup().index().subscriptions().unwrap().len(), count, "{at}");
        assert_eq!(view.report().clock_went_back, went_back, "{at}");
        assert_eq!(view.report().is_exact(), !went_back);
    }
}
