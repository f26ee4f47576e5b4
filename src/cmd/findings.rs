//! The words for what the deep checks of `verify` find, for people and for programs.

use std::borrow::Cow;
use std::os::unix::ffi::OsStrExt;

use super::json::Json;
use super::select::Target;
use crate::store::StoreError;
use crate::store::verify::{
    Difference, Fault, Filed, Finding, Leftover, Remedy, SiteFault, Subject,
};
use crate::wire::dlist::lossy;

/// What a fault is, without its place.
pub(super) fn text(fault: &Fault) -> String {
    match fault {
        Fault::FileChecksum { disk, index } => {
            format!("the file in front has another SHA-1: {disk} on disk, {index} in the index")
        }
        Fault::DataLength { disk, index } => {
            format!("holds {disk} octets, {index} by the index")
        }
        Fault::DataChecksum { disk, index } => {
            format!("its text has another SHA-1: {disk} on disk, {index} in the index")
        }
        Fault::Unreadable { source, .. } => format!("cannot be read to its end: {source}"),
        Fault::Gap { gap, lines } => {
            let plain = match gap.plain {
                (from, Some(to)) => format!("octets {from} to {to} of its text"),
                (from, None) => format!("its text from octet {from} on"),
            };
            let (from, to) = (gap.from, gap.to);
            let count = if *lines == 1 { "1 line".into() } else { format!("{lines} lines") };
            format!("octets {from} to {to} of the file, {plain}, are lost; {count} can be read")
        }
        Fault::NoMessage { guid, offset, .. } => {
            format!("message {} is not in the line at octet {offset}", hex(guid))
        }
        Fault::MessageContent { guid, offset, .. } => {
            format!("message {} in the line at octet {offset} is damaged", hex(guid))
        }
        Fault::NoMailbox { uniqueid, mboxname } => {
            format!("no line says this of mailbox {} ({})", lossy(mboxname), lossy(uniqueid))
        }
        Fault::NoRecord { uniqueid, uid } => {
            format!("no line says this of uid {uid} of mailbox {}", lossy(uniqueid))
        }
        Fault::Unindexed { offset_file, end, lines } => {
            format!("octets {offset_file} to {end}: {lines} lines that the index does not know")
        }
        Fault::Garbage { offset_file, end } => {
            format!("octets {offset_file} to {end}: no readable line, and none is missed")
        }
        Fault::Row { table, subject, difference } => {
            let (table, subject) = (table.name(), subject_text(subject));
            match difference {
                Difference::NotInIndex => {
                    format!("{table}: {subject}: in the data, but not in the index")
                }
                Difference::NotInLog => {
                    format!("{table}: {subject}: in the index, but not in the data")
                }
                Difference::Columns(columns) => {
                    let columns = columns.join(", ");
                    format!("{table}: {subject}: the data say something else of {columns}")
                }
            }
        }
        Fault::Stranger { mboxname, owner } => {
            format!("mailbox {} belongs to {}", lossy(mboxname), lossy(owner))
        }
        Fault::Structure(what) => what.clone(),
        Fault::Orphans { count, octets } => {
            let messages = if *count == 1 { "message is" } else { "messages are" };
            format!("{count} {messages} in no mailbox ({octets} octets)")
        }
        Fault::Unsent { subject } => {
            format!("{}: the message never came", subject_text(subject))
        }
        Fault::Leftover { path, kind } => {
            let what = match kind {
                Leftover::Compaction => "left by a compaction that was interrupted, or at work",
                Leftover::Move => "left by a move that was interrupted, or at work",
                Leftover::Cut => "what recovery cut off the data file",
                Leftover::Previous => "a copy of earlier times",
            };
            format!("{}: {what}", path.display())
        }
    }
}

/// The whole finding but whose it is: `chunk 3 at 22716: ... (user.tom uid 7)`.
pub(super) fn line(finding: &Finding) -> String {
    let place = match (finding.chunk_id, finding.offset_file) {
        (Some(chunk), Some(offset)) => format!("chunk {chunk} at {offset}: "),
        (Some(chunk), None) => format!("chunk {chunk}: "),
        (None, _) => String::new(),
    };
    let note = if finding.fault.is_note() { "note: " } else { "" };
    let filed: Vec<_> = finding.filed.iter().map(filed_text).collect();
    let filed = if filed.is_empty() { String::new() } else { format!(" ({})", filed.join(", ")) };
    format!("{note}{place}{}{filed}", text(&finding.fault))
}

/// What mends it: a command, if there is one. `None`: nothing has to be done.
pub(super) fn remedy(fault: &Fault, target: &Target) -> Option<String> {
    let operand = operand(target);
    let user = target.userid.as_deref().map_or("<user>".into(), shell_word);
    match fault.remedy() {
        Remedy::Reindex => Some(format!("cyrbk reindex {operand}")),
        Remedy::CompactAndSync => Some(format!(
            "cyrbk compact --force {operand}; then, on the mail server: sync_client -u {user}"
        )),
        Remedy::Sync => Some(format!("on the mail server: sync_client -u {user}")),
        Remedy::Reconstruct => Some("cyrbk reconstruct --dry-run".into()),
        Remedy::Compact | Remedy::Open | Remedy::MoveAgain | Remedy::Remove => None,
    }
}

fn operand(target: &Target) -> String {
    match &target.userid {
        Some(userid) => shell_word(userid),
        None => format!("--file {}", shell_word(target.path.as_os_str().as_bytes())),
    }
}

/// A word that the shell takes as it is.
fn shell_word(word: &[u8]) -> String {
    let is_plain = |c: &u8| c.is_ascii_alphanumeric() || b"_-./@%+=:".contains(c);
    let text = lossy(word);
    if !word.is_empty() && word.iter().all(is_plain) {
        return text.to_string();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// An object for programs; see cyrbk(8).
pub(super) fn json(finding: &Finding, target: &Target) -> Json {
    let fault = &finding.fault;
    let number =
        |number: Option<u64>| number.and_then(|n| i64::try_from(n).ok()).map(Json::Integer);
    let word = |word: &str| Some(Json::Text(word.to_owned()));
    let (mut subject, mut table, mut columns, mut offset_chunk, mut guid) =
        (Subject::default(), None, None, None, None);
    match fault {
        Fault::NoMessage { guid: of, offset, .. }
        | Fault::MessageContent { guid: of, offset, .. } => {
            (guid, offset_chunk) = (*of, Some(*offset));
        }
        Fault::Row { table: of, subject: about, difference } => {
            (table, subject) = (Some(of.name()), about.clone());
            if let Difference::Columns(names) = difference {
                columns = Some(Json::Array(names.iter().cloned().map(Json::Text).collect()));
            }
        }
        Fault::Unsent { subject: about } => subject = about.clone(),
        Fault::Stranger { mboxname, .. } => subject.mboxname = Some(mboxname.clone()),
        _ => {}
    }
    let offset = match fault {
        Fault::Unindexed { offset_file, .. } | Fault::Garbage { offset_file, .. } => {
            Some(*offset_file)
        }
        Fault::Gap { gap, .. } => Some(gap.from),
        _ => finding.offset_file,
    };
    let end = match fault {
        Fault::Unindexed { end, .. } | Fault::Garbage { end, .. } => Some(*end),
        Fault::Gap { gap, .. } => Some(gap.to),
        _ => None,
    };
    if let Fault::Gap { gap, .. } = fault {
        offset_chunk = Some(gap.plain.0);
    }
    let octets = |octets: &Option<Vec<u8>>| octets.as_deref().and_then(Json::octets);
    let filed = (!finding.filed.is_empty())
        .then(|| Json::Array(finding.filed.iter().map(filed_json).collect()));
    Json::object([
        ("kind", word(fault.kind())),
        ("severity", word(if fault.is_note() { "note" } else { "error" })),
        ("text", Some(Json::Text(text(fault)))),
        ("chunk", finding.chunk_id.map(Json::Integer)),
        ("offset", number(offset)),
        ("end", number(end)),
        ("offset_chunk", number(offset_chunk)),
        ("table", table.and_then(word)),
        ("columns", columns),
        ("mailbox", octets(&subject.mboxname)),
        ("uniqueid", octets(&subject.uniqueid)),
        ("uid", subject.uid.map(|uid| Json::Integer(uid.into()))),
        ("guid", guid.or(subject.guid).map(|guid| Json::Text(guid.to_string()))),
        ("name", octets(&subject.name)),
        ("filed", filed),
        ("mend", remedy(fault, target).map(Json::Text)),
    ])
}

/// What mends a backup that cannot be opened.
pub(super) fn remedy_of_error(error: &StoreError, target: &Target) -> Option<String> {
    let operand = operand(target);
    match error {
        StoreError::Index { source, .. } if source.is_full() => None,
        StoreError::NoIndex(_) | StoreError::Index { .. } => {
            Some(format!("cyrbk reindex {operand}"))
        }
        StoreError::Missing(_) | StoreError::DataMissing(_) => {
            Some(format!("bring the data file back, or forget the backup: cyrbk delete {operand}"))
        }
        _ => None,
    }
}

/// That a backup cannot be opened, as a finding.
pub(super) fn error_json(error: &StoreError, mend: &str) -> Json {
    let kind = match error {
        StoreError::NoIndex(_) | StoreError::Index { .. } => "index",
        _ => "data-file",
    };
    let text = |text: &str| Some(Json::Text(text.to_owned()));
    Json::object([
        ("kind", text(kind)),
        ("severity", text("error")),
        ("text", text(&error.to_string())),
        ("mend", text(mend)),
    ])
}

/// What is wrong with a site.
pub(super) fn site_text(fault: &SiteFault) -> String {
    match fault {
        SiteFault::NoFile { userid, path } => {
            format!("the entry of {} leads to no file: {}", lossy(userid), path.display())
        }
        SiteFault::OneFile { userids, path } => {
            let users: Vec<_> = userids.iter().map(|userid| lossy(userid)).collect();
            format!("the entries of {} lead to one file: {}", users.join(", "), path.display())
        }
        SiteFault::NoEntry { path } => format!("no entry leads to {}", path.display()),
        SiteFault::NoData { path } => format!("{}: its data file is gone", path.display()),
        SiteFault::Staging { path } => {
            format!("{}: left by a process that is gone", path.display())
        }
    }
}

/// What mends it, if anything has to.
pub(super) fn site_remedy(fault: &SiteFault) -> Option<String> {
    match fault {
        SiteFault::NoFile { userid, .. } => Some(format!(
            "bring the data file back, or forget the backup: cyrbk delete {}",
            shell_word(userid)
        )),
        SiteFault::OneFile { .. } | SiteFault::NoEntry { .. } => {
            Some("cyrbk reconstruct --dry-run".into())
        }
        SiteFault::NoData { .. } => Some("bring the data file back, or remove what is left".into()),
        SiteFault::Staging { .. } => None,
    }
}

/// The same for programs.
pub(super) fn site_json(fault: &SiteFault) -> Json {
    let word = |word: &str| Some(Json::Text(word.to_owned()));
    let (kind, path, users) = match fault {
        SiteFault::NoFile { userid, path } => ("no-file", path, vec![userid]),
        SiteFault::OneFile { userids, path } => ("one-file", path, userids.iter().collect()),
        SiteFault::NoEntry { path } => ("no-entry", path, Vec::new()),
        SiteFault::NoData { path } => ("no-data", path, Vec::new()),
        SiteFault::Staging { path } => ("staging", path, Vec::new()),
    };
    let users: Vec<_> = users.into_iter().filter_map(|user| Json::octets(user)).collect();
    Json::object([
        ("kind", word(kind)),
        ("severity", word(if fault.is_note() { "note" } else { "error" })),
        ("text", Some(Json::Text(site_text(fault)))),
        ("fname", Json::octets(path.as_os_str().as_bytes())),
        ("userids", (!users.is_empty()).then_some(Json::Array(users))),
        ("mend", site_remedy(fault).map(Json::Text)),
    ])
}

fn filed_json(filed: &Filed) -> Json {
    Json::object([
        ("mailbox", Json::octets(&filed.mboxname)),
        ("uid", Some(Json::Integer(filed.uid.into()))),
    ])
}

fn filed_text(filed: &Filed) -> String {
    format!("{} uid {}", lossy(&filed.mboxname), filed.uid)
}

/// `user.tom uid 7, message 1234...`
fn subject_text(subject: &Subject) -> String {
    let Subject { mboxname, uniqueid, uid, guid, name } = subject;
    let named = |octets: &Option<Vec<u8>>| octets.as_deref().map(|o| lossy(o).to_string());
    let mailbox = named(mboxname).filter(|name| !name.is_empty()).or_else(|| named(uniqueid));
    let uid = uid.map(|uid| format!(" uid {uid}")).unwrap_or_default();
    let parts = [
        mailbox.map(|mailbox| format!("{mailbox}{uid}")),
        guid.map(|guid| format!("message {guid}")),
        named(name),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn hex(guid: &Option<crate::wire::Guid>) -> Cow<'static, str> {
    guid.map_or("without a GUID".into(), |guid| guid.to_string().into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn words_for_the_shell() {
        for (word, expected) in [
            ("alice", "alice"),
            ("%SHARED", "%SHARED"),
            ("bob@other.org", "bob@other.org"),
            ("a b", "'a b'"),
            ("it's", "'it'\\''s'"),
            ("", "''"),
            ("$(x)", "'$(x)'"),
        ] {
            assert_eq!(shell_word(word.as_bytes()), expected);
        }
    }

    #[test]
    fn files_are_named_as_files() {
        let target = Target { userid: None, path: "/b/x y".into() };
        let fault = Fault::Structure(String::new());
        assert_eq!(remedy(&fault, &target).unwrap(), "cyrbk reindex --file '/b/x y'");
        let orphans = Fault::Orphans { count: 1, octets: 5 };
        assert_eq!(remedy(&orphans, &target), None);
        assert_eq!(text(&orphans), "1 message is in no mailbox (5 octets)");
    }
}
