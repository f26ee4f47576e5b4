//! Messages at a glance: date, sender and subject, decoded.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Read, Write};

use super::dump::UNKNOWN;
use super::{Failure, Look, Show, SummaryForm};
use crate::cmd::Streams;
use crate::cmd::json::Json;
use crate::cmd::people::{column, harmless};
use crate::cmd::report::{DAMAGED, write_damages, write_labelled};
use crate::cmd::time::LocalTime;
use crate::store::exact::{Damage, Truth};
use crate::store::export::{self, ExportError};
use crate::store::search::{HEADER_MAX, Summary};
use crate::wire::Guid;
use crate::wire::dlist::lossy;

/// Columns of the sender and of the subject.
const FROM_WIDTH: usize = 28;
const SUBJECT_WIDTH: usize = 48;

/// One line: a message, perhaps in a mailbox.
pub(super) struct Row {
    /// Internal name of the mailbox.
    pub(super) mailbox: Option<String>,
    pub(super) uid: Option<u32>,
    /// Unix time.
    pub(super) expunged: Option<i64>,
    /// When it came, if its header has no date.
    pub(super) internaldate: Option<i64>,
    pub(super) guid: Guid,
}

/// Shows the messages named, or those of the mailboxes named, as the master has them.
pub(super) fn run(
    what: &Show,
    form: SummaryForm,
    look: &Look<'_>,
    streams: &mut Streams<'_>,
) -> Result<(), Failure> {
    let (mut unknown, mut damages) = (Vec::new(), Vec::new());
    let rows = match what {
        Show::Mailboxes(names) => of_mailboxes(names, look, &mut unknown, &mut damages)?,
        Show::Messages(guids) => of_messages(guids, look, &mut unknown)?,
        Show::Chunks(_) => Vec::new(),
    };
    let mut summaries: HashMap<Guid, Summary> = HashMap::new();
    let failed = export::messages(
        look.backup,
        rows.iter().map(|row| row.guid),
        &look.settings.backup_staging_path,
        &mut |guid, octets| {
            let mut head = Vec::new();
            octets.take(HEADER_MAX).read_to_end(&mut head)?;
            summaries.insert(*guid, Summary::of(&head));
            Ok(())
        },
    );
    let failed = match failed {
        Ok(failed) => failed,
        Err(ExportError::Store(error)) => return Err(Failure::Store(error)),
        Err(ExportError::Io(error)) => return Err(Failure::Text(error.to_string())),
    };
    match form {
        SummaryForm::Text => write_text(&rows, &summaries, streams.out)?,
        SummaryForm::Json => write_json(&rows, &summaries, streams.out)?,
    }
    streams.out.flush()?;
    for name in &unknown {
        write_labelled(streams.err, look.label, &format!("{}: {UNKNOWN}", name.display()))?;
    }
    for error in &failed {
        write_labelled(streams.err, look.label, &error.to_string())?;
    }
    let is_damaged = write_damages(streams.err, look.label, &damages)?;
    match (failed.len(), unknown.len()) {
        (0, 0) if is_damaged => Err(Failure::Text(DAMAGED.into())),
        (0, 0) => Ok(()),
        (0, count) => Err(Failure::Text(format!("items that are not there: {count}"))),
        (count, _) => Err(Failure::Text(format!("messages that could not be read: {count}"))),
    }
}

/// What the backup does not have goes to `unknown`.
fn of_mailboxes<'n>(
    names: &'n [OsString],
    look: &Look<'_>,
    unknown: &mut Vec<&'n OsString>,
    damages: &mut Vec<Damage>,
) -> Result<Vec<Row>, Failure> {
    let truth = Truth::of(look.backup).map_err(Failure::Store)?;
    damages.extend_from_slice(truth.damages());
    let mut rows = Vec::new();
    for name in names {
        let Some(mailbox) = look.find_mailbox(name)? else {
            unknown.push(name);
            continue;
        };
        let records = truth.all_records(&mailbox.uniqueid).map_err(Failure::Store)?;
        rows.extend(records.into_iter().filter_map(|record| {
            Some(Row {
                mailbox: Some(lossy(&mailbox.mboxname).into_owned()),
                uid: Some(record.uid),
                expunged: record.expunged,
                internaldate: Some(record.internaldate),
                guid: record.guid?,
            })
        }));
    }
    Ok(rows)
}

/// All messages where none is named.
fn of_messages<'n>(
    guids: &'n [OsString],
    look: &Look<'_>,
    unknown: &mut Vec<&'n OsString>,
) -> Result<Vec<Row>, Failure> {
    let row = |guid| Row { mailbox: None, uid: None, expunged: None, internaldate: None, guid };
    if guids.is_empty() {
        let rows = look.index(|index| index.messages())?;
        return Ok(rows.into_iter().filter_map(|message| message.guid).map(row).collect());
    }
    let mut rows = Vec::new();
    for operand in guids {
        match look.find_message(operand)?.and_then(|message| message.guid) {
            Some(guid) => rows.push(row(guid)),
            None => unknown.push(operand),
        }
    }
    Ok(rows)
}

pub(super) fn write_text(
    rows: &[Row],
    summaries: &HashMap<Guid, Summary>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let time = LocalTime::new();
    let nothing = Summary::default();
    let mut mailbox = None;
    for row in rows {
        if row.mailbox.is_some() && row.mailbox != mailbox {
            let before = if mailbox.is_some() { "\n" } else { "" };
            mailbox = row.mailbox.clone();
            let name = mailbox.as_deref().unwrap_or_default();
            writeln!(out, "{before}{}", harmless(name))?;
        }
        let summary = summaries.get(&row.guid).unwrap_or(&nothing);
        if let Some(uid) = row.uid {
            let mark = if row.expunged.is_some() { 'x' } else { ' ' };
            write!(out, "{uid:>8} {mark} ")?;
        }
        let date = summary.date.or(row.internaldate);
        let date = date.map_or(String::new(), |date| time.format(date));
        let from = column(&harmless(&summary.from), FROM_WIDTH);
        let subject = column(&harmless(&summary.subject), SUBJECT_WIDTH);
        writeln!(out, "{date:<19}  {from}  {subject}  {}", row.guid)?;
    }
    Ok(())
}

pub(super) fn write_json(
    rows: &[Row],
    summaries: &HashMap<Guid, Summary>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let time = LocalTime::new();
    let object = |row: &Row| {
        let summary = summaries.get(&row.guid);
        let text = |text: &dyn Fn(&Summary) -> &String| {
            summary.map(|summary| Json::Text(text(summary).clone()))
        };
        let date = summary.and_then(|summary| summary.date).or(row.internaldate);
        Json::object([
            ("guid", Some(Json::Text(row.guid.to_string()))),
            ("mboxname", row.mailbox.clone().map(Json::Text)),
            ("uid", row.uid.map(|uid| Json::Integer(uid.into()))),
            ("expunged", row.expunged.map(|ts| Json::Text(time.format(ts)))),
            ("date", date.map(|date| Json::Text(time.format(date)))),
            ("from", text(&|summary| &summary.from)),
            ("subject", text(&|summary| &summary.subject)),
        ])
    };
    Json::Array(rows.iter().map(object).collect()).write(out)
}
