//! Hand-driven requests, most of them wrong in one way.
//!
//! Left out are those that the server under test is to answer better than the real one, and forms
//! that no client sends and the real one takes by accident: line ends as white space (`GET USER`
//! CRLF `tom`), files in a list without a space between them.

use crate::mail::guid;
use crate::site::{ADMIN, PASSWORD};

/// Who speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Peer {
    /// Not logged in.
    Stranger,
    /// Logged in, without rights.
    User,
    /// Logged in as administrator.
    Admin,
}

/// A user without rights.
pub(crate) const TOM: &str = "tom";
/// A message.
pub(crate) const BODY: &str = "Subject: a\r\n\r\nhello";
const OTHER_BODY: &str = "Subject: b\r\n\r\nworld";

/// All requests, in an order in which later queries show what earlier ones stored.
pub(crate) fn all() -> Vec<(Peer, String)> {
    let admin =
        [words(), queries(), broken_lists(), reservations(), messages(), mailboxes(), others()];
    let mut all = Vec::new();
    all.extend(before_login().into_iter().map(|request| (Peer::Stranger, request)));
    all.extend(without_rights().into_iter().map(|request| (Peer::User, request)));
    all.extend(admin.into_iter().flatten().map(|request| (Peer::Admin, request)));
    all
}

fn before_login() -> Vec<String> {
    let login = crate::managesieve::sasl_plain;
    [
        "NOOP\r\n",
        "noop\r\n",
        "NOOP \r\n",
        "NOOP x\r\n",
        "NOOP\n",
        "RESTART\r\n",
        "EXIT\r\n",
        "GET USER tom\r\n",
        "GET\r\n",
        "APPLY\r\n",
        "APPLY SUB %(USERID {3+}\r\ntom MBOXNAME x)\r\n",
        "FOO bar\r\n",
        "\r\n",
        " NOOP\r\n",
        "(\r\n",
        "\"NOOP\"\r\n",
        "LOGOUT\r\n",
        "STARTTLS\r\n",
        "COMPRESS\r\n",
        "COMPRESS GZIP\r\n",
        "COMPRESS DEFLATE x\r\n",
        "AUTHENTICATE\r\n",
        "AUTHENTICATE \r\n",
        "AUTHENTICATE FOO\r\n",
        "AUTHENTICATE PLAIN =\r\n",
        "AUTHENTICATE PLAIN\r\n*\r\n",
        "AUTHENTICATE \"PLAIN\" x\r\n",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([
        format!("AUTHENTICATE PLAIN {}\r\n", login(ADMIN, "wrong")),
        format!("AUTHENTICATE plain {}\r\n", login(ADMIN, PASSWORD)),
        format!("AUTHENTICATE PLAIN {} x\r\n", login(ADMIN, PASSWORD)),
        // Proxying is possible, and takes the rights away.
        format!("AUTHENTICATE PLAIN {}\r\n", "dG9tAGFkbWluAHNlY3JldA=="),
        format!("AUTHENTICATE PLAIN {}\r\n", "YWRtaW4AYWRtaW4Ac2VjcmV0"),
    ])
    .collect()
}

fn without_rights() -> Vec<String> {
    [
        "NOOP\r\n",
        "RESTART\r\n",
        "EXIT\r\n",
        "GET USER tom\r\n",
        "APPLY SUB %(USERID {3+}\r\ntom MBOXNAME x)\r\n",
        "FOO\r\n",
        "\r\n",
        "AUTHENTICATE PLAIN x\r\n",
        "COMPRESS DEFLATE\r\n",
    ]
    .map(str::to_owned)
    .into()
}

fn words() -> Vec<String> {
    [
        "noop\r\n",
        "NOOP x y\r\n",
        "RESTART x\r\n",
        "EXIT x\r\n",
        "EXIT\r\n",
        "\r\n",
        "FOO\r\n",
        "FOO bar (baz\r\n",
        "FOO {3+}\r\nabc\r\n",
        "AUTHENTICATE PLAIN x\r\n",
        "AUTHENTICATE\r\n",
        "STARTTLS x\r\n",
        "COMPRESS FOO\r\n",
        "RESTORE MAILBOX %(X y)\r\n",
        "GET\r\n",
        "GET \r\n",
        "Get User tom\r\n",
        "APPLY\r\n",
        "APPLY foo bar\r\n",
        "APPLY message ()\r\n",
        "APPLY FOO %(A b)\r\n",
        "apply QUOTA x\r\n",
        "FORCE\r\n",
        "GETX USER tom\r\n",
    ]
    .map(str::to_owned)
    .into()
}

fn queries() -> Vec<String> {
    [
        "GET USER tom\r\n",
        "GET USER tom \r\n",
        "GET USER tom x\r\n",
        "GET USER NIL\r\n",
        "GET USER nil\r\n",
        "GET USER ()\r\n",
        "GET USER %(A b)\r\n",
        "GET USER {3+}\r\ntom\r\n",
        "GET USER \"tom\r\n",
        "GET USER \"a b\"\r\n",
        "GET MAILBOXES ()\r\n",
        "GET MAILBOXES x\r\n",
        "GET MAILBOXES NIL\r\n",
        "GET MAILBOXES (user.tom)\r\n",
        "GET MAILBOXES(user.tom)\r\n",
        "GET MAILBOXES (shared.x user.bob)\r\n",
        "GET MAILBOXES (NIL)\r\n",
        "GET MAILBOXES (())\r\n",
        "GET MAILBOXES (user.tom NIL)\r\n",
        "GET MAILBOXES (user.tom))\r\n",
        "GET MAILBOXES (user.tom DELETED.user.tom.X.6B014ECA)\r\n",
        "GET UNIQUEIDS (a b)\r\n",
        "GET FULLMAILBOX user.nobody\r\n",
        "GET FULLMAILBOX NIL\r\n",
        "GET FULLMAILBOX (user.tom)\r\n",
        "GET META tom\r\n",
        "GET META NIL\r\n",
        "GET FOO x\r\n",
    ]
    .map(str::to_owned)
    .into()
}

fn broken_lists() -> Vec<String> {
    [
        "APPLY MAILBOX %(UNIQUEID u1))\r\n",
        "APPLY MAILBOX (UNIQUEID u1)\r\n",
        "APPLY MAILBOX %(UNIQUEID)\r\n",
        "APPLY MAILBOX )\r\n",
        "APPLY MAILBOX %x\r\n",
        "APPLY MAILBOX %\r\n",
        "APPLY MAILBOX \"abc\r\n",
        "APPLY MAILBOX {x+}\r\n",
        "APPLY MAILBOX {3+}abc\r\n",
        "APPLY MAILBOX {3+\r\n",
        "APPLY SUB %(USERID {2+}\r\ntom MBOXNAME user.tom)\r\n",
        "APPLY SUB %(USERID tom MBOXNAME user.tom) (extra\r\n",
        "APPLY SUB %(USERID tom MBOXNAME user.tom) \r\n",
        "APPLY MAILBOX %(UNIQUEID {3+}\r\na\0b MBOXNAME user.tom)\r\n",
        "APPLY {3+}\r\nSUB %(USERID tom MBOXNAME user.tom)\r\n",
        "APPLY %(A b)\r\n",
        "APPLY (SUB)\r\n",
        "APPLY SUB %(USERID tom\tMBOXNAME user.tom)\r\n",
    ]
    .map(str::to_owned)
    .into()
}

fn reservations() -> Vec<String> {
    let (one, two) = (guid(BODY.as_bytes()), guid(OTHER_BODY.as_bytes()));
    let upper = one.to_uppercase();
    [
        format!("%(PARTITION default MBOXNAME (user.tom) GUID ({two} {one}))"),
        format!("%(MBOXNAME (user.tom) GUID ({one}))"),
        format!("%(PARTITION default GUID ({one}))"),
        "%(PARTITION default MBOXNAME (user.tom))".into(),
        "%()".into(),
        "()".into(),
        "x".into(),
        format!("%(PARTITION default MBOXNAME () GUID ({one}))"),
        "%(PARTITION default MBOXNAME (user.tom) GUID ())".into(),
        format!("%(PARTITION NIL MBOXNAME (user.tom) GUID ({one}))"),
        format!("%(PARTITION default MBOXNAME (user.tom) GUID (xyz {one}))"),
        format!("%(PARTITION default MBOXNAME (user.tom) GUID ({upper}))"),
        format!("%(PARTITION default MBOXNAME (user.tom) GUID ({one} {one}))"),
        format!("%(PARTITION default MBOXNAME (user.tom user.bob shared.x) GUID ({two} {one}))"),
    ]
    .map(|value| format!("APPLY RESERVE {value}\r\n"))
    .into()
}

fn messages() -> Vec<String> {
    let (one, two) = (guid(BODY.as_bytes()), guid(OTHER_BODY.as_bytes()));
    let file = |guid: &str, len: usize, body: &str| format!("%{{default {guid} {len}}}\r\n{body}");
    let good = file(&one, BODY.len(), BODY);
    let other = file(&two, OTHER_BODY.len(), OTHER_BODY);
    let no_backup_open = format!("APPLY MESSAGE ({good})\r\n");
    [
        "()".into(),
        "(x)".into(),
        "x".into(),
        "NIL".into(),
        good.clone(),
        format!("({good})"),
        format!("({good} {other})"),
        format!("({good} x {other})"),
        format!("({})", file(&two, BODY.len(), BODY)),
        format!("({other} {})", file(&two, BODY.len(), BODY)),
        format!("({})", file(&one, BODY.len() - 1, BODY)),
        format!("({})", file(&guid(b""), 0, "")),
        format!("({})", file(&guid(b"a\0b"), 3, "a\0b")),
    ]
    .map(|value| format!("GET USER tom\r\nAPPLY MESSAGE {value}\r\n"))
    .into_iter()
    .chain([no_backup_open])
    .collect()
}

fn mailboxes() -> Vec<String> {
    let one = guid(BODY.as_bytes());
    let record = [
        ("UID", "1"),
        ("MODSEQ", "2"),
        ("LAST_UPDATED", "5"),
        ("FLAGS", "(\\Seen $x)"),
        ("INTERNALDATE", "6"),
        ("SIZE", "19"),
        ("GUID", &one),
    ];
    let mailbox = |record: &str| {
        [
            ("UNIQUEID", "u1".to_owned()),
            ("MBOXNAME", "user.tom".into()),
            ("SYNC_CRC", "1".into()),
            ("SYNC_CRC_ANNOT", "2".into()),
            ("LAST_UID", "1".into()),
            ("HIGHESTMODSEQ", "2".into()),
            ("RECENTUID", "0".into()),
            ("RECENTTIME", "0".into()),
            ("LAST_APPENDDATE", "3".into()),
            ("POP3_LAST_LOGIN", "0".into()),
            ("POP3_SHOW_AFTER", "0".into()),
            ("UIDVALIDITY", "4".into()),
            ("PARTITION", "default".into()),
            ("ACL", "\"tom\tlrs\t\"".into()),
            ("OPTIONS", "P".into()),
            ("RECORD", record.to_owned()),
        ]
    };
    let mut values = vec![kvlist(&mailbox(&format!("({})", kvlist(&record))))];
    for left_out in 0..record.len() {
        values.push(kvlist(&mailbox(&format!("({})", kvlist(&without(&record, left_out))))));
    }
    let empty = mailbox("()");
    for left_out in 0..empty.len() {
        values.push(kvlist(&without(&empty, left_out)));
    }
    for (key, value) in [
        ("ACL", "NIL"),
        ("OPTIONS", "NIL"),
        ("PARTITION", "NIL"),
        ("LAST_UID", "x"),
        ("LAST_UID", "-1"),
        ("SYNC_CRC", "x"),
        ("RECORD", "NIL"),
        ("RECORD", "(x)"),
        ("RECORD", "(())"),
    ] {
        let mut changed = empty.clone();
        changed.iter_mut().find(|field| field.0 == key).unwrap().1 = value.into();
        values.push(kvlist(&changed));
    }
    values.push(kvlist(&empty).to_lowercase());
    let mut requests: Vec<String> =
        values.into_iter().map(|value| format!("APPLY MAILBOX {value}\r\n")).collect();
    requests.push("GET USER tom\r\n".into());
    requests.push("GET MAILBOXES (user.tom)\r\n".into());
    requests.push("GET FULLMAILBOX user.tom\r\n".into());
    requests
}

fn others() -> Vec<String> {
    [
        "APPLY UNMAILBOX user.tom.Nope\r\n",
        "APPLY UNMAILBOX shared.none\r\n",
        "APPLY RENAME %(OLDMBOXNAME user.tom.A NEWMBOXNAME user.tom.B PARTITION default)\r\n",
        "APPLY RENAME %(OLDMBOXNAME user.tom.A NEWMBOXNAME user.tom.B UIDVALIDITY 1)\r\n",
        "APPLY RENAME %(OLDMBOXNAME user.tom.A PARTITION default UIDVALIDITY 1)\r\n",
        "APPLY RENAME x\r\n",
        "APPLY SEEN %(USERID tom UNIQUEID u7 LASTREAD 1 LASTUID 2 LASTCHANGE 3 SEENUIDS 1:2)\r\n",
        "APPLY SEEN %(USERID tom UNIQUEID u8 LASTREAD 1 LASTUID 2 LASTCHANGE 3 SEENUIDS \"\")\r\n",
        "APPLY SEEN %(USERID tom UNIQUEID u7 LASTREAD 1 LASTUID 2 LASTCHANGE 3)\r\n",
        "APPLY SEEN %(UNIQUEID u7 LASTREAD 1 LASTUID 2 LASTCHANGE 3 SEENUIDS 1)\r\n",
        "APPLY SEEN %(USERID tom LASTREAD 1 LASTUID 2 LASTCHANGE 3 SEENUIDS 1)\r\n",
        "APPLY SEEN %(USERID tom UNIQUEID u7 LASTREAD x LASTUID 2 LASTCHANGE 3 SEENUIDS 1)\r\n",
        "APPLY SUB %(USERID tom MBOXNAME user.tom.A)\r\n",
        "APPLY SUB %(USERID tom)\r\n",
        "APPLY SUB %(MBOXNAME user.tom)\r\n",
        "APPLY UNSUB %(USERID tom MBOXNAME user.tom.Nope)\r\n",
        "APPLY UNSUB %(USERID tom)\r\n",
        "APPLY SIEVE %(USERID tom FILENAME a.script LAST_UPDATE 5 CONTENT {7+}\r\nkeep;\r\n)\r\n",
        "APPLY SIEVE %(FILENAME a.script LAST_UPDATE 5 CONTENT x)\r\n",
        "APPLY UNSIEVE %(USERID tom FILENAME nope.script)\r\n",
        "APPLY UNSIEVE %(USERID tom)\r\n",
        "APPLY UNSIEVE %(FILENAME x)\r\n",
        "APPLY QUOTA x\r\n",
        "APPLY UNUSER nobody\r\n",
        "APPLY UNACTIVATE_SIEVE %(USERID tom)\r\n",
        "GET META tom\r\n",
        "GET USER tom\r\n",
    ]
    .map(str::to_owned)
    .into()
}

fn kvlist<V: AsRef<str>>(fields: &[(&str, V)]) -> String {
    let fields = fields.iter().map(|(key, value)| format!("{key} {}", value.as_ref()));
    format!("%({})", fields.collect::<Vec<_>>().join(" "))
}

fn without<V: Clone>(fields: &[(&'static str, V)], left_out: usize) -> Vec<(&'static str, V)> {
    let kept = fields.iter().enumerate().filter(|(number, _)| *number != left_out);
    kept.map(|(_, field)| field.clone()).collect()
}
