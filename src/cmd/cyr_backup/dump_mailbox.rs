//! `cyr_backup ... dump mailbox`: all messages of a mailbox, as one mbox or as a
//! folder of files.

use std::collections::HashSet;
use std::ffi::OsString;

use super::dump::UNKNOWN;
use super::export::write_items;
use super::{Failure, Form, Look, MailboxForm};
use crate::cmd::{Streams, site};
use crate::store::export::{Selection, gather};

/// Writes the messages that live in the mailbox now, as the mail server has them;
/// with `expunged` those too that it has no more. A message that cannot be had is
/// named, the others are written.
pub(super) fn run(
    name: &OsString,
    form: &MailboxForm,
    expunged: bool,
    look: &Look<'_>,
    streams: &mut Streams<'_>,
) -> Result<(), Failure> {
    let mailbox = look.find_mailbox(name)?.ok_or(Failure::Text(UNKNOWN.into()))?;
    let mailboxes = Some(HashSet::from([mailbox.uniqueid]));
    let selection = Selection { mailboxes, expunged, ..Selection::default() };
    let gathered = gather(look.backup, &selection, &site::name_rules(look.settings));
    let items = gathered.map_err(Failure::Store)?.items;
    let form = match form {
        MailboxForm::Mbox => Form::Mbox,
        MailboxForm::Eml(directory) => Form::EmlBeside(directory.clone()),
    };
    write_items(items, true, &form, look, streams)
}
