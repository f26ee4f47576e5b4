//! `cyr_backup ... dump mailbox`: all messages of a mailbox, as one mbox or as a
//! folder of files.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use super::dump::UNKNOWN;
use super::{Failure, Look, MailboxForm};
use crate::cmd::Streams;
use crate::cmd::report::{store_error, write_labelled};
use crate::cmd::time::LocalTime;
use crate::store::exact;
use crate::store::export::{self, ExportError};
use crate::store::index::RecordRow;
use crate::wire::Guid;

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
    let records = exact::true_records(look.backup, &mailbox.uniqueid)
        .map_err(|error| Failure::Text(store_error(&error)))?;
    let mut by_guid: HashMap<Guid, Vec<RecordRow>> = HashMap::new();
    for record in records.into_iter().filter(|record| expunged || record.expunged.is_none()) {
        if let Some(guid) = record.guid {
            by_guid.entry(guid).or_default().push(record);
        }
    }
    if let MailboxForm::Eml(directory) = form {
        std::fs::create_dir_all(directory).map_err(|e| cannot_write(directory, &e))?;
    }
    let mut writer = Writer { form, by_guid: &by_guid, time: LocalTime::utc(), out: streams.out };
    let failed = export::messages(
        look.backup,
        by_guid.keys().copied(),
        &look.settings.backup_staging_path,
        &mut |guid, octets| writer.message(guid, octets),
    );
    let failed = match (failed, form) {
        (Ok(failed), _) => failed,
        (Err(ExportError::Store(error)), _) => return Err(Failure::Text(store_error(&error))),
        (Err(ExportError::Io(error)), MailboxForm::Mbox) => return Err(error.into()),
        (Err(ExportError::Io(error)), MailboxForm::Eml(dir)) => {
            return Err(cannot_write(dir, &error));
        }
    };
    streams.out.flush()?;
    for error in &failed {
        write_labelled(streams.err, look.label, &error.to_string())?;
    }
    match failed.len() {
        0 => Ok(()),
        1 => Err(Failure::Text("a message could not be read".into())),
        count => Err(Failure::Text(format!("{count} messages could not be read"))),
    }
}

fn cannot_write(directory: &OsStr, error: &io::Error) -> Failure {
    Failure::Text(format!("cannot write to {}: {error}", directory.display()))
}

struct Writer<'w> {
    form: &'w MailboxForm,
    by_guid: &'w HashMap<Guid, Vec<RecordRow>>,
    time: LocalTime,
    out: &'w mut dyn Write,
}

impl Writer<'_> {
    /// A message that is in the mailbox under several UIDs is written for each.
    fn message(&mut self, guid: &Guid, octets: &mut dyn Read) -> io::Result<()> {
        let Some(records) = self.by_guid.get(guid) else { return Ok(()) };
        if let ([record], MailboxForm::Mbox) = (&records[..], self.form) {
            return self.mbox(record, octets);
        }
        let mut content = Vec::new();
        octets.read_to_end(&mut content)?;
        records.iter().try_for_each(|record| match self.form {
            MailboxForm::Mbox => self.mbox(record, &mut content.as_slice()),
            MailboxForm::Eml(directory) => eml(Path::new(directory), record, &content),
        })
    }

    /// mboxrd: lines end in LF, `From ` at their beginning is quoted, each message is
    /// followed by an empty line.
    fn mbox(&mut self, record: &RecordRow, octets: &mut dyn Read) -> io::Result<()> {
        let date = self.time.asctime(record.internaldate);
        writeln!(self.out, "From MAILER-DAEMON {date}")?;
        let mut reader = BufReader::new(octets);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            let quoted = line.iter().position(|&c| c != b'>').unwrap_or(line.len());
            if line[quoted..].starts_with(b"From ") {
                self.out.write_all(b">")?;
            }
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            self.out.write_all(text.strip_suffix(b"\r").unwrap_or(text))?;
            self.out.write_all(b"\n")?;
            line.clear();
        }
        self.out.write_all(b"\n")
    }
}

/// `<uid>.eml`, octet for octet; it is there whole or not at all, and none that is
/// there already is touched.
fn eml(directory: &Path, record: &RecordRow, content: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(content)?;
    let path = directory.join(format!("{}.eml", record.uid));
    file.persist_noclobber(path).map(drop).map_err(|e| e.error)
}
