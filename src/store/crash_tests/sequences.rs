//! Whatever a master sends, in whatever sessions: the index that was kept up line by
//! line is the one that a rebuild makes from the data alone.

use proptest::prelude::*;

use super::super::Writer;
use super::super::backup::index_path;
use super::lines::{Step, dump, dump_of_rebuilt, fast_dir, guid_of};

fn body(number: u8) -> Vec<u8> {
    format!("message {number}\r\n").into_bytes()
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c"])
}

fn mailbox() -> impl Strategy<Value = Step> {
    let record = (1u32..6, any::<bool>(), 0u8..5);
    (name(), 0u32..7, prop::collection::vec(record, 0..5)).prop_map(|(name, last_uid, records)| {
        let records: Vec<_> = records
            .into_iter()
            .map(|(uid, expunged, of)| (uid, u64::from(uid) + 3, expunged, guid_of(&body(of))))
            .collect();
        Step::mailbox(name, last_uid, &records)
    })
}

fn step() -> impl Strategy<Value = Step> {
    let message = prop::collection::vec(0u8..5, 1..3)
        .prop_map(|numbers| Step::message(&numbers.into_iter().map(body).collect::<Vec<_>>()));
    let named = |format: fn(&str) -> String| name().prop_map(move |name| Step::text(&format(name)));
    let rename = (name(), name()).prop_map(|(from, to)| {
        Step::text(&format!(
            "RENAME %(OLDMBOXNAME user.tom.{from} NEWMBOXNAME user.tom.{to} PARTITION p \
             UIDVALIDITY 8)"
        ))
    });
    let expunge = (name(), 1u32..6).prop_map(|(name, uid)| {
        Step::text(&format!("EXPUNGE %(MBOXNAME user.tom.{name} UNIQUEID id-{name} UID ({uid}))"))
    });
    prop_oneof![
        4 => message,
        6 => mailbox(),
        1 => rename,
        1 => expunge,
        1 => named(|name| format!("UNMAILBOX user.tom.{name}")),
        1 => named(|name| format!("SUB %(USERID tom MBOXNAME user.tom.{name})")),
        1 => named(|name| format!("UNSUB %(USERID tom MBOXNAME user.tom.{name})")),
        1 => named(|name| format!(
            "SEEN %(USERID tom UNIQUEID id-{name} LASTREAD 1 LASTUID 2 LASTCHANGE 3 SEENUIDS 1:2)"
        )),
        1 => named(|name| format!(
            "SIEVE %(USERID tom FILENAME {name} LAST_UPDATE 5 CONTENT {{7+}}\r\nkeep;\r\n)"
        )),
        1 => named(|name| format!("UNSIEVE %(USERID tom FILENAME {name})")),
    ]
}

/// How a session ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Finished,
    /// And goes on with the next one.
    Synced,
    ProcessDied,
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown().join("\n"))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_live_index_is_the_rebuilt_one(
        sessions in prop::collection::vec(
            (
                prop::collection::vec(step(), 1..9),
                prop::sample::select(vec![End::Finished, End::Synced, End::ProcessDied]),
                0i64..3,
            ),
            1..5,
        )
    ) {
        let dir = fast_dir();
        let path = dir.path().join("data");
        let mut now = 1_000;
        let mut open = None;
        for (steps, end, pause) in sessions {
            let mut writer = open.take().unwrap_or_else(|| Writer::open(&path, now).unwrap());
            for step in steps {
                step.append_to(&mut writer, now).unwrap();
                // The clock may stand still, or run backwards.
                now += pause - 1;
            }
            match end {
                End::Finished => writer.finish(now).unwrap(),
                End::Synced => {
                    writer.sync(now).unwrap();
                    open = Some(writer);
                }
                End::ProcessDied => drop(writer),
            }
        }
        drop(open);
        drop(Writer::open(&path, now).unwrap());
        prop_assert_eq!(dump(&index_path(&path)), dump_of_rebuilt(&path));
    }
}
