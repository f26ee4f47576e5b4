//! `cyrbk search`: messages to bring back.

use std::collections::HashSet;
use std::ffi::OsString;

use super::dump::UNKNOWN;
use super::summary::{Row, write_json, write_text};
use super::{Failure, Look};
use crate::cmd::report::{DAMAGED, write_damages, write_labelled};
use crate::cmd::{Streams, site};
use crate::store::export::ExportError;
use crate::store::search::{self, Found, Query};
use crate::wire::dlist::lossy;

/// What is looked for, and how it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// In mailboxes with these uniqueids or external names; in all without any.
    pub mailboxes: Vec<OsString>,
    /// Everything else that is looked for.
    pub query: Query,
    /// How it is told.
    pub form: SearchForm,
}

/// How it is told what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchForm {
    /// A line for each message, for people.
    Text,
    /// One array.
    Json,
    /// GUIDs, one a line, each once: for `restore -F -` and `export --guids -`.
    Guids,
}

pub(super) fn run(
    what: &Search,
    look: &Look<'_>,
    streams: &mut Streams<'_>,
) -> Result<(), Failure> {
    let mut query = what.query.clone();
    let mut uniqueids = HashSet::new();
    for name in &what.mailboxes {
        let missing = || Failure::Text(format!("{}: {UNKNOWN}", name.display()));
        uniqueids.insert(look.find_mailbox(name)?.ok_or_else(missing)?.uniqueid);
    }
    query.mailboxes = (!uniqueids.is_empty()).then_some(uniqueids);
    let staging = &look.settings.backup_staging_path;
    let found = match search::run(look.backup, &query, &site::name_rules(look.settings), staging) {
        Ok(found) => found,
        Err(ExportError::Store(error)) => return Err(Failure::Store(error)),
        Err(ExportError::Io(error)) => return Err(Failure::Text(error.to_string())),
    };
    tell(&found, what.form, streams)?;
    for error in &found.failed {
        write_labelled(streams.err, look.label, &error.to_string())?;
    }
    let is_damaged = write_damages(streams.err, look.label, &found.damages)?;
    match found.failed.len() {
        0 if is_damaged => Err(Failure::Text(DAMAGED.into())),
        0 => Ok(()),
        count => Err(Failure::Text(format!("messages that could not be read: {count}"))),
    }
}

fn tell(found: &Found, form: SearchForm, streams: &mut Streams<'_>) -> Result<(), Failure> {
    let rows = || -> Vec<Row> {
        let row = |hit: &search::Hit| Row {
            mailbox: Some(lossy(&hit.mboxname).into_owned()),
            uid: Some(hit.uid),
            expunged: hit.expunged,
            internaldate: Some(hit.internaldate),
            guid: hit.guid,
        };
        found.hits.iter().map(row).collect()
    };
    match form {
        SearchForm::Text => write_text(&rows(), &found.summaries, streams.out)?,
        SearchForm::Json => write_json(&rows(), &found.summaries, streams.out)?,
        SearchForm::Guids => {
            let mut told = HashSet::new();
            for hit in found.hits.iter().filter(|hit| told.insert(hit.guid)) {
                writeln!(streams.out, "{}", hit.guid)?;
            }
        }
    }
    Ok(streams.out.flush()?)
}
