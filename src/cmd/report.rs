//! The words for errors and for what verify finds: Cyrus's, except where those say
//! nothing (`Unknown code ____ 255`).

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use rustix::fs::{Access, access};

use super::{findings, tool_log};
use crate::store::exact::Damage;
use crate::store::verify::{self, Check, Event, Fault, Finding, Step};
use crate::store::{Backup, StoreError};
use crate::wire::dlist::lossy;

/// In the end, behind what [`write_damages`] has said.
pub(super) const DAMAGED: &str = "what can be read is there (cyrbk verify tells more)";

/// What went wrong with a backup; syslog is told too, as by Cyrus.
pub(super) fn store_error(error: &StoreError) -> String {
    tool_log::store_error(error);
    match error {
        StoreError::Missing(_) | StoreError::DataMissing(_) => "Mailbox does not exist".into(),
        StoreError::Locked(_) => "Mailbox is locked".into(),
        StoreError::NoIndex(_) => "Mailbox has an invalid format".into(),
        StoreError::Index { source, .. } if source.is_full() => no_room(),
        StoreError::Index { .. } => "Internal Error".into(),
        StoreError::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
            "Mailbox already exists".into()
        }
        StoreError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
            format!("System I/O error: {error}")
        }
        StoreError::Io { .. } => "System I/O error".into(),
        StoreError::Log { source, .. } => source.to_string(),
        StoreError::Inconsistent { .. } | StoreError::Poisoned(_) | StoreError::TooLong { .. } => {
            error.to_string()
        }
    }
}

/// The same; among cyrbk's own words with what those of Cyrus leave out.
pub(super) fn store_error_in_full(error: &StoreError, own_words: bool) -> String {
    let text = store_error(error);
    match error {
        _ if !own_words => text,
        StoreError::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => text,
        StoreError::Locked(_) => format!("{text}: it is in use; --wait waits"),
        StoreError::Index { source, .. } if source.is_full() => text,
        StoreError::Io { .. }
        | StoreError::Index { .. }
        | StoreError::NoIndex(_)
        | StoreError::Missing(_)
        | StoreError::DataMissing(_) => {
            let why = error.to_string();
            if text.ends_with(&why) { text } else { format!("{text}: {why}") }
        }
        _ => text,
    }
}

/// What to do where SQLite has no room for its temporary files.
fn no_room() -> String {
    let directory = temporary_directory();
    format!(
        "no room for temporary files in {}: SQLITE_TMPDIR names another directory",
        directory.display()
    )
}

/// Where SQLite puts temporary files (<https://sqlite.org/tempfiles.html>, 5): the first of these
/// directories that can be written to.
fn temporary_directory() -> PathBuf {
    let variables = ["SQLITE_TMPDIR", "TMPDIR"].into_iter().filter_map(std::env::var_os);
    let usual = ["/var/tmp", "/usr/tmp", "/tmp"].map(OsString::from);
    let is_usable =
        |path: &PathBuf| path.is_dir() && access(path, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    variables.chain(usual).map(PathBuf::from).find(is_usable).unwrap_or_else(|| ".".into())
}

/// `<label>: <text>`
pub(super) fn write_labelled(out: &mut dyn Write, label: &[u8], text: &str) -> io::Result<()> {
    out.write_all(label)?;
    writeln!(out, ": {text}")
}

/// Says what of a backup's data cannot be read; whether there is anything.
pub(super) fn write_damages(
    out: &mut dyn Write,
    label: &[u8],
    damages: &[Damage],
) -> io::Result<bool> {
    for Damage { chunk_id, what, .. } in damages {
        let text = format!("chunk {chunk_id} is damaged, and something may be missing: {what}");
        write_labelled(out, label, &text)?;
    }
    Ok(!damages.is_empty())
}

/// Checks the checksums of the last chunk; what is wrong, if anything.
pub(super) fn quick_check(backup: &Backup, own_words: bool) -> Result<(), String> {
    let mut first = None;
    let checked = verify::quick(backup, &mut |event| {
        if let (Event::Finding(finding), None) = (&event, &first) {
            first = Some(verdict(finding));
        }
    });
    checked.map_err(|error| store_error_in_full(&error, own_words))?;
    first.map_or(Ok(()), Err)
}

/// One decimal; `-nan` and `inf` as C spells them.
pub(super) fn percent(ratio: f64) -> String {
    if ratio.is_nan() { "-nan".into() } else { format!("{ratio:.1}") }
}

/// What is wrong with a backup that was checked, in short.
pub(super) fn verdict(finding: &Finding) -> String {
    let chunk = finding.chunk_id.unwrap_or_default();
    match &finding.fault {
        Fault::FileChecksum { .. } => format!("file checksum mismatch for chunk {chunk}"),
        Fault::DataLength { .. } => format!("data length mismatch for chunk {chunk}"),
        Fault::DataChecksum { .. } => format!("data checksum mismatch for chunk {chunk}"),
        Fault::Unreadable { source, .. } => format!("error reading chunk {chunk}: {source}"),
        Fault::NoMessage { message_id, .. } => {
            format!("message {message_id} is missing in chunk {chunk}")
        }
        Fault::MessageContent { message_id, .. } => {
            format!("guid mismatch for message {message_id}")
        }
        Fault::NoMailbox { .. } => format!("chunk {chunk} is missing mailbox data"),
        Fault::NoRecord { .. } => format!("chunk {chunk} is missing mailbox_message data"),
        // Cyrus's checks know no others.
        other => findings::text(other),
    }
}

/// The line that tells of a finding, as Cyrus's verify does.
fn line(finding: &Finding) -> Vec<u8> {
    let chunk = finding.chunk_id.unwrap_or_default();
    let text = match &finding.fault {
        Fault::FileChecksum { disk, index } => {
            format!("file checksum mismatch for chunk {chunk}: {disk} on disk, {index} in index")
        }
        // Cyrus has no blank behind this comma.
        Fault::DataLength { disk, index } => {
            format!("data length mismatch for chunk {chunk}: {disk} on disk,{index} in index")
        }
        Fault::DataChecksum { disk, index } => {
            format!("data checksum mismatch for chunk {chunk}: {disk} on disk, {index} in index")
        }
        Fault::Unreadable { offset_file, source } => {
            format!("error reading chunk {chunk} at offset {offset_file}: {source}")
        }
        Fault::NoMessage { message_id, offset, .. } => {
            format!("error reading message {message_id} at offset {offset}: not in chunk {chunk}")
        }
        Fault::NoMailbox { uniqueid, mboxname } => {
            let prefix = format!("chunk {chunk} missing mailbox data for ");
            return [prefix.as_bytes(), uniqueid, b" (", mboxname, b")"].concat();
        }
        Fault::NoRecord { uniqueid, uid } => {
            let uniqueid = lossy(uniqueid);
            format!("chunk {chunk} missing mailbox_message data for {uniqueid} uid {uid}")
        }
        _ => verdict(finding),
    };
    text.into_bytes()
}

/// Prints what a verification tells, and keeps its first finding.
pub(super) struct VerifyReport<'a> {
    out: &'a mut dyn Write,
    /// 0: findings only; 1: checks; 2: their steps too.
    verbosity: u32,
    first: Option<String>,
    written: io::Result<()>,
}

impl<'a> VerifyReport<'a> {
    pub(super) fn new(out: &'a mut dyn Write, verbosity: u32) -> VerifyReport<'a> {
        VerifyReport { out, verbosity, first: None, written: Ok(()) }
    }

    /// Takes an event. Once writing has failed nothing more is written.
    pub(super) fn event(&mut self, event: Event<'_>) {
        if let Event::Finding(finding) = &event
            && self.first.is_none()
        {
            self.first = Some(verdict(finding));
        }
        if self.written.is_ok() {
            self.written = self.write(event);
        }
    }

    /// What was wrong, if anything was.
    pub(super) fn finish(self) -> io::Result<Option<String>> {
        self.written.map(|()| self.first)
    }

    fn write(&mut self, event: Event<'_>) -> io::Result<()> {
        match event {
            Event::Finding(finding) => {
                self.out.write_all(&line(finding))?;
                self.out.write_all(b"\n")
            }
            event => write_progress(self.out, &event, self.verbosity),
        }
    }
}

/// 0: nothing; 1: checks; 2: their steps too.
pub(super) fn write_progress(
    out: &mut dyn Write,
    event: &Event<'_>,
    verbosity: u32,
) -> io::Result<()> {
    match event {
        Event::Begin { chunk_id, check } if verbosity >= 1 => {
            let name = check_name(*check);
            match chunk_id {
                Some(chunk_id) => writeln!(out, "checking chunk {chunk_id} {name}..."),
                None => writeln!(out, "checking {name}..."),
            }
        }
        Event::Step(step) if verbosity >= 2 => writeln!(out, "  checking {}", step_name(*step)),
        Event::End { sound } if verbosity >= 1 => {
            writeln!(out, "{}", if *sound { "ok" } else { "error" })
        }
        _ => Ok(()),
    }
}

fn check_name(check: Check) -> &'static str {
    match check {
        Check::Checksums => "checksums",
        Check::Messages => "messages",
        Check::MailboxLinks => "mailbox links",
        Check::Rows => "index against data",
        Check::Structure => "structure",
        Check::Beside => "files beside",
    }
}

fn step_name(step: Step) -> &'static str {
    match step {
        Step::FileChecksum => "file checksum...",
        Step::DataLength => "data length",
        Step::DataChecksum => "data checksum...",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::index::IndexError;

    #[test]
    fn a_full_disk_is_told_with_its_place() {
        let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
        let source = IndexError::from(rusqlite::Error::SqliteFailure(full, None));
        let error = StoreError::Index { path: "/b/tom".into(), source };
        let directory = temporary_directory();
        let expected = format!(
            "no room for temporary files in {}: SQLITE_TMPDIR names another directory",
            directory.display()
        );
        assert_eq!(store_error(&error), expected);
        let source = io::ErrorKind::StorageFull.into();
        let error = StoreError::Io { path: "/b/tom.index".into(), source };
        assert_eq!(store_error(&error), "System I/O error: /b/tom.index: no storage space");
    }
}
