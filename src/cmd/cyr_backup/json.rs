//! `cyr_backup ... json`: chunks, mailboxes, messages or headers as one document.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::Write;

use super::{Failure, JsonWhat, Look, headers};
use crate::cmd::json::Json;
use crate::cmd::time::LocalTime;
use crate::store::index::{MailboxRow, MessageRow};

pub(super) fn run(what: &JsonWhat, look: &Look<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let document = match what {
        JsonWhat::Chunks => chunks(look)?,
        JsonWhat::Mailboxes => mailboxes(look)?,
        JsonWhat::Messages => messages(look)?,
        JsonWhat::Headers(guids) => headers(guids, look)?,
    };
    Ok(document.write(out)?)
}

fn number(number: impl TryInto<i64>) -> Option<Json> {
    number.try_into().ok().map(Json::Integer)
}

fn chunks(look: &Look<'_>) -> Result<Json, Failure> {
    let chunks = look.index(|index| index.chunks())?;
    let len_file = look.backup.len_file().map_err(Failure::Store)?;
    let time = LocalTime::new();
    let ends = chunks.iter().skip(1).map(|next| next.offset).chain([len_file]);
    let object = |(chunk, end): (&crate::store::index::ChunkRow, u64)| {
        let packed = end as i64 - chunk.offset as i64;
        Json::object([
            ("id", Some(Json::Integer(chunk.id))),
            ("offset", number(chunk.offset)),
            ("length", number(chunk.length)),
            ("ratio", Json::real(100.0 * packed as f64 / chunk.length as f64)),
            ("start time", Some(Json::Text(time.format(chunk.ts_start)))),
            ("end time", Some(Json::Text(time.format(chunk.ts_end)))),
        ])
    };
    Ok(Json::Array(chunks.iter().zip(ends).map(object).collect()))
}

fn mailboxes(look: &Look<'_>) -> Result<Json, Failure> {
    let time = LocalTime::new();
    let rows = look.index(|index| index.mailboxes())?;
    let objects: Result<_, _> = rows.iter().map(|row| mailbox(row, look, &time)).collect();
    Ok(Json::Array(objects?))
}

fn mailbox(row: &MailboxRow, look: &Look<'_>, time: &LocalTime) -> Result<Json, Failure> {
    let records = look.index(|index| index.records_in_row_order(row.id))?;
    let messages: Vec<Json> = records
        .iter()
        .map(|record| {
            Json::object([
                ("uid", Some(Json::Integer(record.uid.into()))),
                ("guid", record.guid.map(|guid| Json::Text(guid.to_string()))),
                ("expunged", record.expunged.map(|ts| Json::Text(time.format(ts)))),
            ])
        })
        .collect();
    Ok(Json::object([
        ("uniqueid", Json::octets(&row.uniqueid)),
        ("mboxname", Json::octets(&row.mboxname)),
        ("last_appenddate", Some(Json::Text(time.format(row.last_appenddate)))),
        ("messages", (!messages.is_empty()).then_some(Json::Array(messages))),
    ]))
}

fn messages(look: &Look<'_>) -> Result<Json, Failure> {
    let rows = look.index(|index| index.messages())?;
    let objects: Result<_, _> = rows.iter().map(|row| message(row, look)).collect();
    Ok(Json::Array(objects?))
}

fn message(row: &MessageRow, look: &Look<'_>) -> Result<Json, Failure> {
    let places = look.index(|index| index.places_of(row.id))?;
    let place = |place: &crate::store::index::Place| {
        Json::object([
            ("uniqueid", Json::octets(&place.uniqueid)),
            ("mboxname", Json::octets(&place.mboxname)),
        ])
    };
    let mailboxes: Vec<Json> = places.iter().map(place).collect();
    Ok(Json::object([
        ("guid", row.guid.map(|guid| Json::Text(guid.to_string()))),
        ("mailboxes", (!mailboxes.is_empty()).then_some(Json::Array(mailboxes))),
    ]))
}

/// A message named twice comes once, one that is not known not at all.
fn headers(guids: &[OsString], look: &Look<'_>) -> Result<Json, Failure> {
    let mut seen = HashSet::new();
    let mut objects = Vec::new();
    for operand in guids {
        let Some(guid) = look.find_message(operand)?.and_then(|row| row.guid) else { continue };
        if !seen.insert(guid) {
            continue;
        }
        if let Some(content) = look.content(&guid)? {
            objects.push((guid.to_string().into(), fields(&content)));
        }
    }
    Ok(Json::Object(objects))
}

fn fields(message: &[u8]) -> Json {
    let fields = headers::fields(message).into_iter().filter_map(|field| {
        let name = String::from_utf8(field.name).ok()?;
        let values = field.values.iter().filter_map(|value| Json::octets(value)).collect();
        Some((name.into(), Json::Array(values)))
    });
    Json::Object(fields.collect())
}
