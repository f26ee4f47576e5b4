//! RENAME from one user to another: the mailbox moves into the other user's backup.
//!
//! Its messages are copied from backup to backup, so the client need not send them again. The
//! copy is complete before the mailbox ends in the old backup, where it is kept for the
//! retention time. If anything of it cannot be read the new backup does not get the mailbox:
//! the client misses it there, and sends it whole.

use super::super::answers;
use super::super::request::Refusal;
use super::messages::message_line;
use super::read_back::Batch;
use super::{Lease, now, read};
use crate::store::Line;
use crate::store::index::MailboxRow;
use crate::wire::Guid;
use crate::wire::apply::{Apply, Rename};
use crate::wire::dlist::{Literals, Printer, Value, lossy, parse_value};
use crate::wire::mboxname::SHARED;

impl Lease {
    pub(super) fn move_mailbox(
        &mut self,
        from: &[u8],
        to: &[u8],
        row: &MailboxRow,
        rename: &Rename,
    ) -> Result<(), Refusal> {
        self.open(to)?;
        if !self.copy_mailbox(from, to, row, rename)? {
            tracing::warn!(mailbox = %lossy(&rename.from), "not all of it can be moved to its \
                new user: the client is to send it");
        }
        let at = self.place(from)?;
        self.append_line(at, b"UNMAILBOX", &Value::Atom(rename.from.as_slice().into()))
    }

    /// Returns whether all of it could be read.
    fn copy_mailbox(
        &mut self,
        from: &[u8],
        to: &[u8],
        row: &MailboxRow,
        rename: &Rename,
    ) -> Result<bool, Refusal> {
        let held = &self.open[self.place(from)?];
        if !read(held, |index| index.is_whole(row))? {
            return Ok(false);
        }
        let extra = read(held, |index| index.extra_fields(row.id))?;
        let mut records = read(held, |index| index.true_records(row.id))?;
        let guids: Vec<Guid> = records.iter().filter_map(|record| record.guid).collect();
        if !self.copy_messages(from, to, &guids)? {
            return Ok(false);
        }
        for record in &mut records {
            record.annotations = with_owner(&record.annotations, from, to);
        }
        let row = MailboxRow {
            mboxname: rename.to.clone(),
            partition: rename.partition.clone(),
            uidvalidity: rename.uidvalidity,
            ..row.clone()
        };
        let at = self.place(to)?;
        self.end_others(at, &rename.to, &row.uniqueid)?;
        self.append_text(at, &answers::mailbox_line(&row, extra.as_deref(), &records, true))?;
        Ok(true)
    }

    /// Copies those of `guids` that one backup has and the other lacks.
    fn copy_messages(&mut self, from: &[u8], to: &[u8], guids: &[Guid]) -> Result<bool, Refusal> {
        let (source, target) = (self.place(from)?, self.place(to)?);
        let mut wanted = Vec::new();
        for guid in guids {
            let is_here = read(&self.open[source], |index| index.message(guid))?.is_some();
            if is_here && read(&self.open[target], |index| index.message(guid))?.is_none() {
                wanted.push(*guid);
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        let read_back = self.open[source].read_back(&wanted)?;
        let writer = &mut self.open[target].writer;
        let mut failed_write = false;
        let found = read_back.read(&mut self.staging, &mut Batch::default(), |batch, staging| {
            let (text, body_at) = message_line(&batch.files);
            let apply = Apply::Message(std::mem::take(&mut batch.files));
            let line =
                Line { text: &text, body_at: &body_at, bodies: &batch.bodies, apply: &apply };
            let written = writer.append(now(), &line, staging);
            failed_write = written.is_err();
            written?;
            batch.clear(staging)
        });
        match found {
            Ok(found) => Ok(found == wanted.len()),
            Err(refusal) if failed_write => {
                self.is_in_doubt |= self.open.remove(target).writer.has_unsynced();
                Err(refusal)
            }
            // The reason is in the log.
            Err(_) => Ok(false),
        }
    }
}

/// The annotations of a message in the mailbox of a user who was `from`, and is `to`: private ones
/// are in his name. The mail server changes that along, and does not tell of it.
fn with_owner(annotations: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let parsed = match parse_value(annotations) {
        Ok(Value::List(list)) if from != SHARED && to != SHARED => list,
        _ => return annotations.to_vec(),
    };
    let mut printer = Printer::new(Literals::NonSync, b"(".to_vec());
    for (i, annotation) in parsed.items().enumerate() {
        let Value::KvList(fields) = annotation else { return annotations.to_vec() };
        printer.separator(i).raw(b"%(");
        for (k, (key, value)) in fields.pairs().enumerate() {
            let is_his = &key[..] == b"USERID" && value.as_text() == Some(from);
            let value = if is_his { Value::Atom(to.into()) } else { value };
            printer.separator(k).item(&key, &value);
        }
        printer.raw(b")");
    }
    printer.raw(b")");
    printer.into_text()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn private_annotations_go_with_their_owner() {
        let text = b"(%(ENTRY /comment USERID tom MODSEQ 3 VALUE {4+}\r\na\r\nb) \
            %(ENTRY /comment USERID ann MODSEQ 3 VALUE tom) \
            %(ENTRY /comment USERID \"\" MODSEQ 3 VALUE \"\"))";
        let moved = String::from_utf8(with_owner(text, b"tom", b"new tom")).unwrap();
        let expected = String::from_utf8(text.to_vec()).unwrap();
        assert_eq!(moved, expected.replace("USERID tom", "USERID \"new tom\""));
        assert_eq!(with_owner(text, b"bob", b"new"), text);
        assert_eq!(with_owner(text, b"tom", SHARED), text);
        assert_eq!(with_owner(b"", b"tom", b"new"), b"");
    }
}
