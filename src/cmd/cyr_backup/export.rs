//! `cyrbk export`: messages of a user, of mailboxes or of a search, in a form that needs no
//! Cyrus.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::rc::Rc;

use super::dump::UNKNOWN;
use super::export_imap::{Imap, ImapSink};
use super::{Failure, Look};
use crate::cmd::people::harmless;
use crate::cmd::report::{DAMAGED, write_damages, write_labelled};
use crate::cmd::{Streams, site};
use crate::store::export::eml::Eml;
use crate::store::export::maildir::Maildir;
use crate::store::export::mbox::{Files, Stream};
use crate::store::export::tar::Tar;
use crate::store::export::{self, ExportError, Gathered, Item, Selection, Sink, gather};
use crate::store::message::MessageError;
use crate::wire::Guid;

/// What is exported, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Mailboxes, by uniqueid or external name; all without any.
    pub mailboxes: Vec<OsString>,
    /// A file of GUIDs, `-` for standard input: only these.
    pub guids: Option<OsString>,
    /// In which form.
    pub form: Form,
    /// Expunged messages too.
    pub expunged: bool,
    /// Deleted mailboxes too.
    pub deleted: bool,
}

/// A form in which messages are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// One mbox, to standard output.
    Mbox,
    /// An mbox for each mailbox, in this directory.
    MboxFiles(OsString),
    /// A Maildir at this place.
    Maildir(OsString),
    /// Files in this directory, one for each message.
    Eml(OsString),
    /// The same, where others may be already.
    EmlBeside(OsString),
    /// A tar file, to standard output.
    Tar,
    /// Mailboxes of an IMAP server.
    Imap(Imap),
}

/// Longest list of GUIDs that is read, in octets.
const GUIDS_MAX: u64 = 1 << 30;

pub(super) fn run(
    what: &Export,
    look: &Look<'_>,
    streams: &mut Streams<'_>,
) -> Result<(), Failure> {
    let selection = selection(what, look)?;
    let gathered = gather(look.backup, &selection, &site::name_rules(look.settings));
    let Gathered { items, missing, damages } = gathered.map_err(Failure::Store)?;
    for guid in &missing {
        write_labelled(streams.err, look.label, &format!("{guid}: {UNKNOWN}"))?;
    }
    let is_damaged = write_damages(streams.err, look.label, &damages)?;
    if let Form::Imap(imap) = &what.form {
        to_imap(&items, imap, look, streams)?;
        return conclude(&missing, is_damaged);
    }
    let at_root = selection.mailboxes.as_ref().is_some_and(|names| names.len() == 1);
    write_items(items, at_root, &what.form, look, streams)?;
    conclude(&missing, is_damaged)
}

fn conclude(missing: &[Guid], is_damaged: bool) -> Result<(), Failure> {
    match missing.len() {
        0 if is_damaged => Err(Failure::Text(DAMAGED.into())),
        0 => Ok(()),
        count => Err(Failure::Text(format!("messages that are not there: {count}"))),
    }
}

/// Tells what was done, also where it had to end early.
fn to_imap(
    items: &[Item],
    imap: &Imap,
    look: &Look<'_>,
    streams: &mut Streams<'_>,
) -> Result<(), Failure> {
    let mut sink = ImapSink::connect(imap)?;
    let staging = &look.settings.backup_staging_path;
    let written = export::write(look.backup, items, staging, &mut sink);
    let tally = sink.tally;
    writeln!(
        streams.out,
        "{}: {} added, {} there already, {} refused, of {}",
        imap.server,
        tally.added,
        tally.there_already,
        tally.refused.len(),
        items.len()
    )?;
    streams.out.flush()?;
    for refused in &tally.refused {
        write_labelled(streams.err, look.label, &harmless(refused))?;
    }
    let again = |error: &dyn std::fmt::Display| {
        Failure::Text(format!("{error}; the same command again goes on from here"))
    };
    match written {
        Err(ExportError::Store(error)) => Err(Failure::Store(error)),
        Err(ExportError::Io(error)) => Err(again(&error)),
        Ok(failed) if failed.is_empty() && !tally.refused.is_empty() => {
            Err(Failure::Text(format!("messages refused: {}", tally.refused.len())))
        }
        Ok(failed) => name_failed(&failed, look, streams),
    }
}

fn selection(what: &Export, look: &Look<'_>) -> Result<Selection, Failure> {
    let mut uniqueids = HashSet::new();
    for name in &what.mailboxes {
        let missing = || Failure::Text(format!("{}: {UNKNOWN}", name.display()));
        uniqueids.insert(look.find_mailbox(name)?.ok_or_else(missing)?.uniqueid);
    }
    let guids = what.guids.as_deref().map(read_guids).transpose()?;
    let mailboxes = (!uniqueids.is_empty()).then_some(uniqueids);
    Ok(Selection { mailboxes, guids, expunged: what.expunged, deleted: what.deleted })
}

/// The first word of each line; empty lines and those that begin with `#` do not count.
fn read_guids(file: &OsStr) -> Result<HashSet<Guid>, Failure> {
    let unreadable = |e: io::Error| Failure::Text(format!("{}: {e}", file.display()));
    let mut text = String::new();
    let read = match file.as_encoded_bytes() {
        b"-" => io::stdin().take(GUIDS_MAX).read_to_string(&mut text),
        _ => File::open(file).and_then(|open| open.take(GUIDS_MAX).read_to_string(&mut text)),
    };
    read.map_err(unreadable)?;
    let mut guids = HashSet::new();
    for (number, line) in text.lines().enumerate() {
        let Some(word) = line.split_whitespace().next().filter(|word| !word.starts_with('#'))
        else {
            continue;
        };
        let guid = Guid::from_hex(word.as_bytes()).ok_or_else(|| {
            Failure::Text(format!("{}: line {} is no GUID", file.display(), number + 1))
        })?;
        guids.insert(guid);
    }
    // Behind a pipe: nothing was found.
    if guids.is_empty() {
        return Err(Failure::Text(format!("{}: no GUID is in there", file.display())));
    }
    Ok(guids)
}

/// Writes items; `at_root`: whatever the name of their mailbox. A message that cannot be had
/// is named, the others are written.
pub(super) fn write_items(
    mut items: Vec<Item>,
    at_root: bool,
    form: &Form,
    look: &Look<'_>,
    streams: &mut Streams<'_>,
) -> Result<(), Failure> {
    if at_root {
        let root = items.first().map(|item| Rc::new((*item.folder).clone().at_root()));
        for item in &mut items {
            item.folder = root.clone().unwrap_or_else(|| Rc::clone(&item.folder));
        }
    }
    let cannot_write = |error: io::Error| match form.place() {
        Some(place) => Failure::Text(format!("cannot write to {}: {error}", place.display())),
        None => error.into(),
    };
    let failed = {
        let mut sink = form.sink(streams).map_err(cannot_write)?;
        export::write(look.backup, &items, &look.settings.backup_staging_path, &mut *sink)
    };
    let failed = match failed {
        Ok(failed) => failed,
        Err(ExportError::Store(error)) => return Err(Failure::Store(error)),
        Err(ExportError::Io(error)) => return Err(cannot_write(error)),
    };
    name_failed(&failed, look, streams)
}

fn name_failed(
    failed: &[MessageError],
    look: &Look<'_>,
    streams: &mut Streams<'_>,
) -> Result<(), Failure> {
    for error in failed {
        write_labelled(streams.err, look.label, &error.to_string())?;
    }
    match failed.len() {
        0 => Ok(()),
        1 => Err(Failure::Text("a message could not be read".into())),
        count => Err(Failure::Text(format!("{count} messages could not be read"))),
    }
}

impl Form {
    /// A directory, unless it is standard output.
    fn place(&self) -> Option<&OsStr> {
        match self {
            Form::MboxFiles(place) | Form::Maildir(place) | Form::Eml(place) => Some(place),
            Form::EmlBeside(place) => Some(place),
            Form::Mbox | Form::Tar | Form::Imap(_) => None,
        }
    }

    fn sink<'s>(&self, streams: &'s mut Streams<'_>) -> io::Result<Box<dyn Sink + 's>> {
        Ok(match self {
            Form::Mbox => Box::new(Stream::new(&mut *streams.out)),
            Form::Tar => Box::new(Tar::new(&mut *streams.out)),
            Form::Imap(_) => return Err(io::ErrorKind::Unsupported.into()),
            Form::MboxFiles(place) => Box::new(Files::create(place.into())?),
            Form::Maildir(place) => Box::new(Maildir::create(place.into())?),
            Form::Eml(place) => Box::new(Eml::create(place.into())?),
            Form::EmlBeside(place) => Box::new(Eml::beside(place.into())?),
        })
    }
}
