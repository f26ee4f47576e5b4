//! Does the new index say what is due after the old log?

use crate::store::index::{Index, IndexError, MailboxRow, RecordRow};

/// Compares what stays in `scratch`, after [`Index::choose`], with everything in
/// `new`. The inner error says in what they differ.
pub(super) fn check(
    scratch: &Index,
    new: &Index,
) -> Result<std::result::Result<(), String>, IndexError> {
    let kept = scratch.kept_mailboxes()?;
    let due: Vec<MailboxRow> =
        scratch.mailboxes()?.into_iter().filter(|row| kept.contains(&row.id)).collect();
    if new.mailboxes()?.len() != due.len() {
        return Ok(Err("the number of mailboxes".into()));
    }
    for row in &due {
        if let Err(what) = mailbox(scratch, new, row)? {
            let name = String::from_utf8_lossy(&row.mboxname);
            return Ok(Err(format!("{what} of mailbox {name}")));
        }
    }
    if new.count_messages()? != scratch.count_kept_messages()? {
        return Ok(Err("the number of messages".into()));
    }
    user(scratch, new)
}

fn mailbox(
    scratch: &Index,
    new: &Index,
    due: &MailboxRow,
) -> Result<std::result::Result<(), &'static str>, IndexError> {
    let Some(found) = new.mailbox_with_uniqueid(&due.uniqueid)? else {
        return Ok(Err("the existence"));
    };
    let anonymous = |row: &MailboxRow| MailboxRow { id: 0, last_chunk_id: 0, ..row.clone() };
    if anonymous(due) != anonymous(&found) {
        return Ok(Err("the state"));
    }
    if scratch.extra_fields(due.id)? != new.extra_fields(found.id)? {
        return Ok(Err("the further fields"));
    }
    let is_same = scratch.keeps_records_of(due.id, (new, found.id), is_same_record)?;
    if !is_same {
        return Ok(Err("the records"));
    }
    let is_same = scratch.keeps_gone_records_of(due.id, (new, found.id), is_same_record)?;
    Ok(if is_same { Ok(()) } else { Err("the displaced records") })
}

/// A message may stay longer than it must: what an EXPUNGE line and later a record say
/// twice is dated by the record.
fn is_same_record(due: &RecordRow, found: &RecordRow) -> bool {
    let may_be = match (due.expunged, found.expunged) {
        (Some(due), Some(found)) => due <= found,
        (due, found) => due == found,
    };
    // Named, so that no column is forgotten.
    let RecordRow {
        last_chunk_id: _,
        uid,
        modseq,
        last_updated,
        flags,
        internaldate,
        annotations,
        expunged: _,
        guid,
        size,
    } = due;
    may_be
        && (*uid, *modseq, *last_updated) == (found.uid, found.modseq, found.last_updated)
        && (*internaldate, *guid, *size) == (found.internaldate, found.guid, found.size)
        && *flags == found.flags
        && *annotations == found.annotations
}

/// What belongs to no mailbox.
fn user(scratch: &Index, new: &Index) -> Result<std::result::Result<(), String>, IndexError> {
    let sorted = |index: &Index| {
        let mut subscriptions = index.subscriptions()?;
        subscriptions.sort();
        let mut seen = index.seen_states()?;
        seen.sort_by(|a, b| a.uniqueid.cmp(&b.uniqueid));
        let mut scripts = index.sieve_scripts()?;
        scripts.sort_by(|a, b| a.filename.cmp(&b.filename));
        // Where they are stored is what changes.
        scripts.iter_mut().for_each(|script| (script.chunk_id, script.offset) = (0, 0));
        let own = (index.quotas()?, index.active_script()?, index.annotations(b"")?);
        Ok::<_, IndexError>((subscriptions, seen, scripts, own))
    };
    let (due, found) = (sorted(scratch)?, sorted(new)?);
    Ok(if due.0 != found.0 {
        Err("the subscriptions".into())
    } else if due.1 != found.1 {
        Err("the seen states".into())
    } else if due.2 != found.2 {
        Err("the sieve scripts".into())
    } else if due.3 != found.3 {
        Err("quota, active script or annotations".into())
    } else {
        Ok(())
    })
}
