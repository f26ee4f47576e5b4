//! Restoring one mailbox, batch by batch.

use super::destination::{Destination, Way};
use super::line::{self, Exact};
use super::plan::Target;
use super::report::MailboxReport;
use super::request::Part;
use super::run::{Event, Job};
use super::there::There;
use super::upload::{UploadError, upload};
use crate::store::StoreError;
use crate::store::index::RecordRow;
use crate::sync::client::{Client, ClientError, MailboxState, RefusalCode, Verb};
use crate::wire::dlist::{Literals, Printer, Value, lossy, parse_value};

/// Messages that are restored at a time.
const BATCH_MESSAGES_MAX: usize = 2048;
/// Their octets: more only if it is a single message.
const BATCH_OCTETS_MAX: u64 = 64 << 20;

/// Why a mailbox, or all the rest, cannot be restored.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot read the backup: {0}")]
    Store(#[from] StoreError),
    /// In words.
    #[error("{0}")]
    Text(String),
}

impl From<UploadError> for Failure {
    fn from(error: UploadError) -> Failure {
        match error {
            UploadError::Client(error) => Failure::Client(error),
            UploadError::Backup(_) => Failure::Text(error.to_string()),
        }
    }
}

/// One mailbox at work.
pub(super) struct Mailbox<'m> {
    pub(super) job: &'m Job<'m>,
    pub(super) target: &'m Target,
    pub(super) client: &'m mut Client,
    pub(super) tell: &'m mut dyn FnMut(Event<'_>),
    pub(super) report: MailboxReport,
}

impl Mailbox<'_> {
    /// The mailbox's new state is returned, if there is one.
    pub(super) fn restore(
        &mut self,
        way: &Way,
        destination: &Destination,
    ) -> Result<Option<MailboxState>, Failure> {
        let local_only = self.job.request.local_only;
        let (uniqueid, above) = match way {
            Way::Refused(obstacle) => return Err(Failure::Text(obstacle.to_string())),
            Way::Create => {
                self.create(Verb::Restore, &line::create(self.target, local_only))?;
                (None, 0)
            }
            Way::Append => (None, 0),
            Way::Exact { uniqueid, holder } => {
                self.report.uniqueid_taken_by.clone_from(holder);
                (Some(uniqueid), 0)
            }
            Way::Continue { uniqueid, above } => (Some(uniqueid), *above),
        };
        let mut records = self.target.records(self.job.view, self.job.request.expunged)?;
        if let Some(uniqueid) = uniqueid {
            self.report.kept_ids = true;
            self.restore_exactly(uniqueid, above, way, &mut records.exact, destination)?;
        }
        let state = self.state()?;
        self.annotate(&state, way)?;
        let mut rest = records.exact;
        rest.append(&mut records.more);
        let was_there = matches!(way, Way::Append | Way::Continue { .. });
        if was_there && !self.job.request.duplicates && !rest.is_empty() {
            self.leave_out_what_is_there(&mut rest)?;
        }
        self.append(&state, destination, rest)?;
        Ok(Some(state))
    }

    fn state(&mut self) -> Result<MailboxState, Failure> {
        let mut states = self.client.get_mailboxes(&[&self.target.name])?;
        states.pop().ok_or_else(|| Failure::Text("the server does not show it".into()))
    }

    /// Creates the mailbox with a line that brings no message.
    fn create(&mut self, verb: Verb, line: &[u8]) -> Result<(), Failure> {
        self.client.send(verb, line).map_err(|error| self.not_created(error))?;
        self.report.created = true;
        Ok(())
    }

    /// Why the mailbox was not created; servers seldom say it.
    fn not_created(&self, error: ClientError) -> Failure {
        match (&self.target.partition, error.refusal()) {
            (Some(partition), Some(RefusalCode::Other)) => Failure::Text(format!(
                "the server would not create it: {error}. Perhaps it has no partition `{}`: \
                 then name another one",
                lossy(partition)
            )),
            _ => error.into(),
        }
    }

    /// Leaves in `records` what has UIDs up to `above`: it may be there or not.
    fn restore_exactly(
        &mut self,
        uniqueid: &[u8],
        above: u32,
        way: &Way,
        records: &mut Vec<RecordRow>,
        destination: &Destination,
    ) -> Result<(), Failure> {
        let Some(source) = self.target.sources.first().map(|source| &source.mailbox) else {
            return Ok(());
        };
        let index = self.job.view.index();
        let extra = index
            .extra_fields(source.id)
            .map_err(StoreError::index(self.job.view.backup().path()))?;
        let mut exact = Exact {
            target: self.target,
            source,
            extra: extra.as_deref(),
            uniqueid,
            last_uid: above,
            with_annotations: self.job.request.parts.has(Part::Annotations),
            local_only: self.job.request.local_only,
        };
        if matches!(way, Way::Exact { .. }) {
            self.create_exactly(&mut exact)?;
        }
        let todo = records.split_off(records.partition_point(|record| record.uid <= above));
        let names = self.names(destination);
        let partition = self.state()?.partition.unwrap_or_default();
        let mut rest = &todo[..];
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(batch_len(rest));
            let records = self.upload(&partition, &names, batch)?;
            exact.last_uid = match later.is_empty() {
                true => source.last_uid,
                false => batch.last().map_or(above, |record| record.uid),
            };
            self.client.apply(&exact.line(&records))?;
            self.done(records.len())?;
            rest = later;
        }
        if exact.last_uid < source.last_uid {
            // Nothing lived at the end.
            exact.last_uid = source.last_uid;
            self.client.apply(&exact.line(&[]))?;
        }
        self.compare(&exact, &todo, records)
    }

    /// Servers remember the unique ids of mailboxes that are gone, and refuse these in APPLY. They
    /// have been asked whether there is still a mailbox behind it; RESTORE takes their word for it.
    /// It must not bring annotations, and knows fewer fields, so APPLY follows.
    fn create_exactly(&mut self, exact: &mut Exact<'_>) -> Result<(), Failure> {
        match self.client.apply(&exact.line(&[])) {
            Err(error) if error.refusal() == Some(RefusalCode::MailboxMoved) => {
                let wanted = std::mem::replace(&mut exact.with_annotations, false);
                self.create(Verb::Restore, &exact.line(&[]))?;
                exact.with_annotations = wanted;
                Ok(self.client.apply(&exact.line(&[]))?)
            }
            Err(error) => Err(self.not_created(error)),
            Ok(()) => {
                self.report.created = true;
                Ok(())
            }
        }
    }

    /// Says so if what came of an exact restore is something else.
    fn compare(
        &mut self,
        exact: &Exact<'_>,
        restored: &[RecordRow],
        before: &mut Vec<RecordRow>,
    ) -> Result<(), Failure> {
        let state = self.state()?;
        let source = exact.source;
        let differences: Vec<String> = [
            ("UIDVALIDITY", u64::from(source.uidvalidity), u64::from(state.uidvalidity)),
            ("HIGHESTMODSEQ", source.highestmodseq, state.highestmodseq),
            ("the last UID", source.last_uid.into(), state.last_uid.into()),
        ]
        .into_iter()
        .filter(|(_, here, there)| here != there)
        .map(|(what, here, there)| format!("{what} is {there} instead of {here}"))
        .collect();
        let living = restored.iter().chain(before.iter()).filter(|r| r.expunged.is_none());
        let crc = living.fold(0, |crc, record| crc ^ record.crc());
        if state.sync_crc == crc && self.report.refused.is_empty() {
            self.already(before.len() as u64);
            before.clear();
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(Failure::Text(format!("it is there, but {}", differences.join(", "))))
    }

    /// Adds messages, which get new UIDs.
    fn append(
        &mut self,
        state: &MailboxState,
        destination: &Destination,
        records: Vec<RecordRow>,
    ) -> Result<(), Failure> {
        let names = self.names(destination);
        let partition = state.partition.clone().unwrap_or_default();
        let mut rest = &records[..];
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(batch_len(rest));
            let records = self.upload(&partition, &names, batch)?;
            let local_only = self.job.request.local_only;
            self.client.restore(&line::append(self.target, &records, local_only))?;
            self.done(records.len())?;
            rest = later;
        }
        Ok(())
    }

    /// Gets the messages there, and gives the records of those that are.
    fn upload(
        &mut self,
        partition: &[u8],
        names: &[Vec<u8>],
        batch: &[RecordRow],
    ) -> Result<Vec<RecordRow>, Failure> {
        let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        let (backup, staging) = (self.job.view.backup(), self.job.staging);
        let uploaded = upload(self.client, backup, staging, partition, &names, batch)?;
        self.report.sent += uploaded.sent;
        self.report.octets += uploaded.octets;
        let mut records = batch.to_vec();
        records.retain(|record| {
            let reason = record.guid.and_then(|guid| Some((guid, uploaded.refused.get(&guid)?)));
            if let Some((guid, reason)) = reason
                && record.expunged.is_none()
            {
                self.report.refused.push((guid, reason.clone()));
            }
            reason.is_none()
        });
        Ok(records)
    }

    /// So many messages are there now.
    fn done(&mut self, count: usize) -> Result<(), Failure> {
        self.report.restored += count as u64;
        (self.tell)(Event::Messages(count as u64));
        Ok(self.client.restart()?)
    }

    /// So many messages were there before.
    fn already(&mut self, count: u64) {
        self.report.already += count;
        (self.tell)(Event::Messages(count));
    }

    /// Where the server may have the messages already.
    fn names(&self, destination: &Destination) -> Vec<Vec<u8>> {
        let mut names = vec![self.target.name.clone()];
        names.extend(destination.holders_of(self.target).map(<[u8]>::to_vec));
        names.dedup();
        names
    }

    fn leave_out_what_is_there(&mut self, records: &mut Vec<RecordRow>) -> Result<(), Failure> {
        let Some(mailbox) = self.client.get_fullmailbox(&self.target.name)? else { return Ok(()) };
        let there = There::of(&mailbox);
        let mut there =
            there.map_err(|error| Failure::Text(format!("the server's records: {error}")))?;
        self.already(there.take_from(records));
        Ok(())
    }

    /// Adds the annotations that the mailbox lacks. An exact line has brought them.
    fn annotate(&mut self, state: &MailboxState, way: &Way) -> Result<(), Failure> {
        let request = self.job.request;
        let is_whole = self.target.is_whole() && request.into.is_none();
        if !request.parts.has(Part::Annotations) || !is_whole || matches!(way, Way::Exact { .. }) {
            return Ok(());
        }
        let source = self.target.sources.first().map(|source| &source.mailbox);
        let Some(source) = source.filter(|row| !row.annotations.is_empty()) else { return Ok(()) };
        let list = parse_value(&source.annotations).unwrap_or(Value::Nil).as_list();
        for item in list.items() {
            let Value::KvList(kv) = item else { continue };
            let fields = kv.fields();
            let text = |name| fields.text(name).unwrap_or_default();
            let (entry, userid, value) = (text("ENTRY"), text("USERID"), text("VALUE"));
            let there = state.annotations.iter().find(|a| a.entry == entry && a.userid == userid);
            if there.is_some_and(|there| there.value == value || !request.replace) {
                continue;
            }
            let mut printer = Printer::new(Literals::NonSync, b"ANNOTATION %(MBOXNAME ".to_vec());
            printer.string(&self.target.name).raw(b" ENTRY ").string(entry);
            printer.raw(b" USERID ").string(userid).raw(b" VALUE ").string(value).raw(b")");
            self.client.apply(&printer.into_text())?;
        }
        Ok(())
    }
}

/// How many of the records make a batch: one at least.
fn batch_len(records: &[RecordRow]) -> usize {
    let mut octets = 0;
    let fits = records.iter().take(BATCH_MESSAGES_MAX).take_while(|record| {
        octets += record.size;
        octets <= BATCH_OCTETS_MAX
    });
    fits.count().max(1)
}
