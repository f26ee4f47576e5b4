//! From what a server says to types. What is missing is taken for nothing, what names the thing
//! apart; what is unknown is passed over.

use super::{AnnotationState, MailboxState, QuotaState, ScriptState, SeenState, UserState};
use crate::wire::Guid;
use crate::wire::dlist::{Fields, Value};

/// What is wrong with it.
pub(super) type Fault = &'static str;

/// Adds one data line of an answer to `GET USER`, `META`, `MAILBOXES`, `UNIQUEIDS` or `QUOTA`.
pub(super) fn add(user: &mut UserState, name: &[u8], value: &Value<'_>) -> Result<(), Fault> {
    match name {
        b"MAILBOX" => user.mailboxes.push(mailbox(value)?),
        b"QUOTA" => user.quotas.push(quota(value)?),
        b"LSUB" => {
            let names = value.as_list().items();
            user.subscriptions.extend(names.filter_map(|name| name.as_text().map(<[u8]>::to_vec)));
        }
        b"SEEN" => user.seen.push(seen(value)?),
        b"SIEVE" => user.scripts.push(script(value)?),
        _ => {}
    }
    Ok(())
}

fn fields<'a>(value: &Value<'a>) -> Result<Fields<'a>, Fault> {
    match value {
        Value::KvList(kv) => Ok(kv.fields()),
        _ => Err("no list of fields"),
    }
}

fn needed(fields: &Fields<'_>, name: &str, fault: Fault) -> Result<Vec<u8>, Fault> {
    fields.text(name).map(<[u8]>::to_vec).ok_or(fault)
}

fn text(fields: &Fields<'_>, name: &str) -> Option<Vec<u8>> {
    fields.text(name).map(<[u8]>::to_vec)
}

/// 32-bit fields take the low 32 bits, as everywhere in this protocol.
fn low32(fields: &Fields<'_>, name: &str) -> u32 {
    fields.number(name).unwrap_or_default() as u32
}

fn time(fields: &Fields<'_>, name: &str) -> i64 {
    fields.number(name).and_then(|time| i64::try_from(time).ok()).unwrap_or_default()
}

/// `MAILBOX %(...)`, its records left out.
pub(super) fn mailbox(value: &Value<'_>) -> Result<MailboxState, Fault> {
    let fields = fields(value)?;
    let number = |name| fields.number(name).unwrap_or_default();
    Ok(MailboxState {
        uniqueid: needed(&fields, "UNIQUEID", "a mailbox without unique id")?,
        mboxname: needed(&fields, "MBOXNAME", "a mailbox without name")?,
        mboxtype: text(&fields, "MBOXTYPE").filter(|letters| !letters.is_empty()),
        partition: text(&fields, "PARTITION"),
        acl: text(&fields, "ACL"),
        options: text(&fields, "OPTIONS").unwrap_or_default(),
        last_uid: low32(&fields, "LAST_UID"),
        highestmodseq: number("HIGHESTMODSEQ"),
        uidvalidity: low32(&fields, "UIDVALIDITY"),
        recentuid: low32(&fields, "RECENTUID"),
        recenttime: time(&fields, "RECENTTIME"),
        last_appenddate: time(&fields, "LAST_APPENDDATE"),
        pop3_last_login: time(&fields, "POP3_LAST_LOGIN"),
        pop3_show_after: time(&fields, "POP3_SHOW_AFTER"),
        sync_crc: low32(&fields, "SYNC_CRC"),
        sync_crc_annot: low32(&fields, "SYNC_CRC_ANNOT"),
        quotaroot: text(&fields, "QUOTAROOT"),
        createdmodseq: number("CREATEDMODSEQ"),
        foldermodseq: number("FOLDERMODSEQ"),
        xconvmodseq: number("XCONVMODSEQ"),
        raclmodseq: number("RACLMODSEQ"),
        annotations: match fields.get("ANNOTATIONS") {
            Some(list) => {
                list.as_list().items().map(|item| annotation(&item)).collect::<Result<_, _>>()?
            }
            None => Vec::new(),
        },
    })
}

/// `%(ENTRY e USERID u MODSEQ m VALUE v)`; `ANNOTATION` has MBOXNAME too.
pub(super) fn annotation(value: &Value<'_>) -> Result<AnnotationState, Fault> {
    let fields = fields(value)?;
    Ok(AnnotationState {
        entry: needed(&fields, "ENTRY", "an annotation without entry")?,
        userid: text(&fields, "USERID").unwrap_or_default(),
        modseq: fields.number("MODSEQ").unwrap_or_default(),
        value: needed(&fields, "VALUE", "an annotation without value")?,
    })
}

fn quota(value: &Value<'_>) -> Result<QuotaState, Fault> {
    let fields = fields(value)?;
    let limits = fields.pairs().filter(|(name, _)| !matches!(*name, b"ROOT" | b"MODSEQ"));
    Ok(QuotaState {
        root: needed(&fields, "ROOT", "a quota without root")?,
        limits: limits.filter_map(|(name, n)| Some((name.to_vec(), n.as_number()?))).collect(),
        modseq: fields.number("MODSEQ"),
    })
}

fn seen(value: &Value<'_>) -> Result<SeenState, Fault> {
    let fields = fields(value)?;
    Ok(SeenState {
        uniqueid: needed(&fields, "UNIQUEID", "a seen state without unique id")?,
        lastread: time(&fields, "LASTREAD"),
        lastuid: low32(&fields, "LASTUID"),
        lastchange: time(&fields, "LASTCHANGE"),
        seenuids: text(&fields, "SEENUIDS").unwrap_or_default(),
    })
}

fn script(value: &Value<'_>) -> Result<ScriptState, Fault> {
    let fields = fields(value)?;
    let guid = fields.get("GUID").and_then(Value::as_guid);
    Ok(ScriptState {
        filename: needed(&fields, "FILENAME", "a script without name")?,
        last_update: time(&fields, "LAST_UPDATE"),
        guid: guid.filter(|guid| *guid != Guid::from([0; 20])),
        is_active: fields.number("ISACTIVE").unwrap_or_default() != 0,
    })
}

/// `SIEVE %(... CONTENT c)`
pub(super) fn script_text(value: &Value<'_>) -> Result<Vec<u8>, Fault> {
    needed(&fields(value)?, "CONTENT", "a script without text")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::dlist::parse_item;

    fn user(lines: &[&str]) -> Result<UserState, Fault> {
        let mut user = UserState::default();
        for line in lines {
            let (name, value) = parse_item(line.as_bytes()).unwrap();
            add(&mut user, &name, &value)?;
        }
        Ok(user)
    }

    #[test]
    fn everything_of_a_user() {
        let user = user(&[
            "MAILBOX %(UNIQUEID abc MBOXNAME user.tom MBOXTYPE NIL SYNC_CRC 7 LAST_UID 2 \
             HIGHESTMODSEQ 6 RECENTUID 2 RECENTTIME 1795250342 UIDVALIDITY 1795250000 PARTITION \
             default ACL \"tom\tlrs\t\" OPTIONS P ANNOTATIONS (%(ENTRY /comment USERID \"\" \
             MODSEQ 0 VALUE hello)) FUTURE (1 2))",
            "MAILBOX %(UNIQUEID x MBOXNAME user.tom.X MBOXTYPE ei PARTITION NIL ACL \"\")",
            "QUOTA %(ROOT user.tom LIMIT 1000 STORAGE 1000 MESSAGE 5 MODSEQ 3)",
            "LSUB (user.tom.A user.tom.B)",
            "SEEN %(UNIQUEID abc LASTREAD 5 LASTUID 2 LASTCHANGE 6 SEENUIDS 1:2)",
            "SIEVE %(FILENAME main.script LAST_UPDATE 9 GUID \
             b49f7cbd049f20e9b2a96ed9d6f681a791d90f6c ISACTIVE 0)",
            "SIEVE %(FILENAME main.bc LAST_UPDATE 9 GUID \
             0000000000000000000000000000000000000000 ISACTIVE 1)",
            "NEWS (a)",
        ])
        .unwrap();
        let inbox = &user.mailboxes[0];
        assert_eq!((inbox.uniqueid.as_slice(), inbox.last_uid), (&b"abc"[..], 2));
        assert_eq!(inbox.mboxtype, None);
        assert_eq!(inbox.acl.as_deref(), Some(&b"tom\tlrs\t"[..]));
        assert_eq!(inbox.annotations[0].value, b"hello");
        assert!(!inbox.is_placeholder() && user.mailboxes[1].is_placeholder());
        assert_eq!(user.mailboxes[1].partition, None);
        let limits = [("LIMIT", 1000), ("STORAGE", 1000), ("MESSAGE", 5)];
        let limits = limits.map(|(name, limit)| (name.as_bytes().to_vec(), limit));
        assert_eq!(
            (user.quotas[0].limits.as_slice(), user.quotas[0].modseq),
            (&limits[..], Some(3))
        );
        assert_eq!(user.subscriptions, [b"user.tom.A", b"user.tom.B"]);
        assert_eq!(user.seen[0].seenuids, b"1:2");
        assert!(user.scripts[0].guid.is_some() && !user.scripts[0].is_active);
        assert!(user.scripts[1].guid.is_none() && user.scripts[1].is_active);
    }

    #[test]
    fn what_has_no_name_is_refused() {
        for line in [
            "MAILBOX (a b)",
            "MAILBOX NIL",
            "MAILBOX %(MBOXNAME user.tom)",
            "MAILBOX %(UNIQUEID abc MBOXNAME NIL)",
            "MAILBOX %(UNIQUEID a MBOXNAME b ANNOTATIONS (x))",
            "QUOTA %(LIMIT 5)",
            "SEEN %()",
            "SIEVE %(LAST_UPDATE 1)",
        ] {
            assert!(user(&[line]).is_err(), "{line}");
        }
    }
}
