//! The index of a backup against one that was built from its log.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::finding::{Difference, Fault, Filed, Finding, Subject};
use super::pass::{self, Piece};
use crate::store::backup::Backup;
use crate::store::error::{Result, StoreError};
use crate::store::index::{Cell, Index, IndexError, Table};
use crate::wire::Guid;
use crate::wire::mboxname::NameRules;

/// A message in the log that is not what it claims to be.
pub(super) struct BadBody {
    pub(super) guid: Guid,
    pub(super) chunk_id: i64,
    /// Of its line.
    pub(super) offset: u64,
}

type Found<T> = std::result::Result<T, IndexError>;

/// Compares the index of `backup` with `scratch`. `bad_bodies` are those that reading the
/// log has found.
pub(super) fn check(
    backup: &Backup,
    scratch: &Index,
    bad_bodies: Vec<BadBody>,
    owner: Option<(&[u8], &NameRules)>,
    jobs: usize,
) -> Result<Vec<Finding>> {
    let index = backup.index();
    let fault = || StoreError::index(backup.path());
    let mut run = Run { backup, index, scratch, findings: Vec::new(), about: Vec::new() };
    run.messages(bad_bodies, jobs)?;
    run.tables().map_err(fault())?;
    run.notes().map_err(fault())?;
    if let Some((owner, rules)) = owner {
        run.strangers(owner, rules).map_err(fault())?;
    }
    run.file_messages().map_err(fault())?;
    Ok(run.findings)
}

struct Run<'a> {
    backup: &'a Backup,
    index: &'a Index,
    /// What the index should be.
    scratch: &'a Index,
    findings: Vec<Finding>,
    /// Findings that are about a message: its row, and their place in `findings`.
    about: Vec<(i64, usize)>,
}

impl Run<'_> {
    /// Where a chunk is in the file.
    fn offset_of(&self, chunk_id: i64) -> Option<u64> {
        Some(self.index.chunk(chunk_id).ok()??.offset)
    }

    fn add(&mut self, chunk_id: Option<i64>, fault: Fault) {
        let offset_file = chunk_id.and_then(|id| self.offset_of(id));
        self.findings.push(Finding { chunk_id, offset_file, fault, filed: Vec::new() });
    }

    fn add_message(&mut self, message_id: i64, chunk_id: i64, fault: Fault) {
        self.about.push((message_id, self.findings.len()));
        self.add(Some(chunk_id), fault);
    }

    /// Which messages there are, and whether each is where the index has it.
    fn messages(&mut self, bad_bodies: Vec<BadBody>, jobs: usize) -> Result<()> {
        let fault = StoreError::index(self.backup.path());
        let (sure, moved) = match self.message_rows(&bad_bodies) {
            Ok(found) => found,
            Err(error) => return Err(fault(error)),
        };
        for (message_id, chunk_id, found) in sure {
            self.add_message(message_id, chunk_id, found);
        }
        // Cyrus 3.0 points at the first copy of a message, and the log ends with the last.
        for (wanted, state) in self.look_at(moved, jobs)? {
            let Wanted { message_id, chunk_id, guid, offset } = wanted;
            let guid = Some(guid);
            match state {
                Some(true) => {}
                Some(false) => {
                    let found = Fault::MessageContent { message_id, guid, offset };
                    self.add_message(message_id, chunk_id, found);
                }
                None => {
                    let found = Fault::NoMessage { message_id, guid, offset };
                    self.add_message(message_id, chunk_id, found);
                }
            }
        }
        Ok(())
    }

    /// Faults that are certain, and messages that have to be looked for.
    #[allow(clippy::type_complexity)]
    fn message_rows(
        &mut self,
        bad_bodies: &[BadBody],
    ) -> Found<(Vec<(i64, i64, Fault)>, Vec<Wanted>)> {
        let (mut sure, mut moved) = (Vec::new(), Vec::new());
        for bad in bad_bodies {
            let row = self.index.message(&bad.guid)?;
            // A copy that nobody points at harms nobody.
            let Some(row) = row else { continue };
            if (row.chunk_id, row.offset) == (bad.chunk_id, bad.offset) {
                let fault = Fault::MessageContent {
                    message_id: row.id,
                    guid: Some(bad.guid),
                    offset: bad.offset,
                };
                sure.push((row.id, bad.chunk_id, fault));
            }
        }
        if self.index.table_sum(Table::Message)? == self.scratch.table_sum(Table::Message)? {
            return Ok((sure, moved));
        }
        let (index, scratch) = (self.index, self.scratch);
        let told: HashSet<i64> = sure.iter().map(|(id, ..)| *id).collect();
        index.each_message(|row| {
            let due = match &row.guid {
                Some(guid) => scratch.message(guid)?,
                None => None,
            };
            match (due, row.guid) {
                (Some(due), Some(guid))
                    if (due.chunk_id, due.offset) == (row.chunk_id, row.offset) =>
                {
                    if due.size != row.size {
                        self.row(
                            Table::Message,
                            Some(row.chunk_id),
                            Subject { guid: Some(guid), ..Subject::default() },
                            Difference::Columns(vec!["size".into()]),
                        );
                    }
                }
                (Some(_), Some(guid)) => moved.push(Wanted {
                    message_id: row.id,
                    chunk_id: row.chunk_id,
                    guid,
                    offset: row.offset,
                }),
                // Told already.
                _ if told.contains(&row.id) => {}
                _ => {
                    let (message_id, guid, offset) = (row.id, row.guid, row.offset);
                    let fault = Fault::NoMessage { message_id, guid, offset };
                    sure.push((row.id, row.chunk_id, fault));
                }
            }
            Ok(())
        })?;
        scratch.each_message(|due| {
            if let Some(guid) = due.guid
                && index.message(&guid)?.is_none()
            {
                let subject = Subject { guid: Some(guid), ..Subject::default() };
                self.row(Table::Message, Some(due.chunk_id), subject, Difference::NotInIndex);
            }
            Ok(())
        })?;
        Ok((sure, moved))
    }

    /// Reads the chunks again in which messages should be that have later copies: whether
    /// each is there, and sound.
    fn look_at(&self, wanted: Vec<Wanted>, jobs: usize) -> Result<Vec<(Wanted, Option<bool>)>> {
        let mut by_offset: BTreeMap<u64, HashMap<(u64, Guid), Option<bool>>> = BTreeMap::new();
        for one in &wanted {
            if let Some(offset) = self.offset_of(one.chunk_id) {
                by_offset.entry(offset).or_default().insert((one.offset, one.guid), None);
            }
        }
        let offsets: Vec<u64> = by_offset.keys().copied().collect();
        let mut known = Vec::new();
        let chunk_ids: BTreeSet<i64> = wanted.iter().map(|one| one.chunk_id).collect();
        for id in chunk_ids {
            let points = self.index.restart_points(id);
            known.extend(points.map_err(StoreError::index(self.backup.path()))?);
        }
        known.sort_by_key(|point| point.offset_file);
        let source = pass::Source { file: self.backup.file(), known: &known };
        pass::chunks(source, &offsets, jobs, &mut |i, piece| {
            if let (Piece::Lines(lines), Some(due)) = (piece, by_offset.get_mut(&offsets[i])) {
                for taken in &lines {
                    for (guid, found) in &taken.bodies {
                        if let Some(state) = due.get_mut(&(taken.line.offset, *guid)) {
                            *state = Some(guid == found);
                        }
                    }
                }
            }
            Ok::<_, StoreError>(true)
        })?;
        let state = |one: &Wanted| {
            let due = by_offset.get(&self.offset_of(one.chunk_id)?)?;
            *due.get(&(one.offset, one.guid))?
        };
        Ok(wanted
            .into_iter()
            .map(|one| {
                let state = state(&one);
                (one, state)
            })
            .collect())
    }

    /// All other tables.
    fn tables(&mut self) -> Found<()> {
        // Cyrus does not write cyrbk's tables; what it has written since is not in them.
        let own: &[Table] = if self.index.knows_truth()? { &Table::OF_CYRBK } else { &[] };
        for &table in Table::OF_CYRUS.iter().chain(own) {
            if table == Table::Message || !self.index.has_table(table)? {
                continue;
            }
            if self.index.table_sum(table)? == self.scratch.table_sum(table)? {
                continue;
            }
            if table == Table::Record {
                for uniqueid in self.index.mailboxes_that_differ(self.scratch)? {
                    self.table(table, Some(&uniqueid))?;
                }
            } else {
                self.table(table, None)?;
            }
        }
        Ok(())
    }

    fn table(&mut self, table: Table, mailbox: Option<&[u8]>) -> Found<()> {
        let columns = self.scratch.table_columns(table)?;
        let mut index = self.index.table_rows(table, mailbox)?;
        for (key, due) in self.scratch.table_rows(table, mailbox)? {
            let found = index.remove(&key).unwrap_or_default();
            for i in 0..due.len().max(found.len()) {
                let (due, found) = (due.get(i), found.get(i));
                let difference = match (due, found) {
                    (Some(due), Some(found)) if due == found => continue,
                    (Some(due), Some(found)) => {
                        let differ = columns.iter().zip(due.iter().zip(found));
                        let differ = differ.filter(|(_, (due, found))| due != found);
                        Difference::Columns(differ.map(|(name, _)| name.clone()).collect())
                    }
                    (Some(_), None) => Difference::NotInIndex,
                    (None, _) => Difference::NotInLog,
                };
                self.difference(table, &key, found.or(due), difference)?;
            }
        }
        for (key, rows) in index {
            for row in rows {
                self.difference(table, &key, Some(&row), Difference::NotInLog)?;
            }
        }
        Ok(())
    }

    fn difference(
        &mut self,
        table: Table,
        key: &(Vec<u8>, Vec<u8>),
        row: Option<&Vec<Cell>>,
        difference: Difference,
    ) -> Found<()> {
        let chunk_id = match row.and_then(|row| row.first()) {
            Some(Cell::Integer(id)) => Some(*id),
            _ => None,
        };
        let second = row.and_then(|row| row.get(1));
        let mut subject = Subject::default();
        match table {
            Table::Record | Table::Exception | Table::Gone => {
                subject.guid = Guid::from_hex(&key.1);
                if let Some(Cell::Integer(uid)) = second {
                    subject.uid = u32::try_from(*uid).ok();
                }
                subject.mboxname = self.name_of(&key.0)?;
                subject.uniqueid = Some(key.0.clone());
            }
            Table::Mailbox => {
                if let Some(Cell::Octets(name)) = second {
                    subject.mboxname = Some(name.clone());
                }
                subject.uniqueid = Some(key.0.clone());
            }
            Table::Seen | Table::Extra => {
                subject.mboxname = self.name_of(&key.0)?;
                subject.uniqueid = Some(key.0.clone());
            }
            Table::Subscription => subject.mboxname = Some(key.0.clone()),
            Table::Message => subject.guid = Guid::from_hex(&key.0),
            Table::Annotation => {
                subject.mboxname = Some(key.0.clone());
                subject.name = Some(key.1.clone());
            }
            Table::Sieve | Table::Quota | Table::ActiveSieve => subject.name = Some(key.0.clone()),
        }
        self.row(table, chunk_id, subject, difference);
        Ok(())
    }

    fn name_of(&self, uniqueid: &[u8]) -> Found<Option<Vec<u8>>> {
        let row = match self.index.mailbox_with_uniqueid(uniqueid)? {
            Some(row) => Some(row),
            None => self.scratch.mailbox_with_uniqueid(uniqueid)?,
        };
        Ok(row.map(|row| row.mboxname))
    }

    fn row(
        &mut self,
        table: Table,
        chunk_id: Option<i64>,
        subject: Subject,
        difference: Difference,
    ) {
        self.add(chunk_id, Fault::Row { table, subject, difference });
    }

    /// What is not wrong, but worth knowing.
    fn notes(&mut self) -> Found<()> {
        let (count, octets) = self.index.orphans()?;
        if count > 0 {
            self.add(None, Fault::Orphans { count, octets });
        }
        for row in self.index.unsent()? {
            let subject = Subject {
                mboxname: Some(row.mboxname),
                uniqueid: Some(row.uniqueid),
                uid: Some(row.uid),
                guid: row.guid,
                name: None,
            };
            self.add(None, Fault::Unsent { subject });
        }
        Ok(())
    }

    /// Mailboxes that belong to somebody else.
    fn strangers(&mut self, owner: &[u8], rules: &NameRules) -> Found<()> {
        let mut told = HashSet::new();
        for mailbox in self.index.mailboxes()? {
            let found = rules.backup_key(&mailbox.mboxname);
            if found != owner && mailbox.deleted.is_none() && told.insert(mailbox.mboxname.clone())
            {
                let fault = Fault::Stranger { mboxname: mailbox.mboxname, owner: found };
                self.add(Some(mailbox.last_chunk_id), fault);
            }
        }
        Ok(())
    }

    /// Says where the messages are filed that findings are about.
    fn file_messages(&mut self) -> Found<()> {
        if self.about.is_empty() {
            return Ok(());
        }
        let mut places: HashMap<i64, Vec<usize>> = HashMap::new();
        for &(message_id, at) in &self.about {
            places.entry(message_id).or_default().push(at);
        }
        for (message_id, mboxname, uid) in self.index.filed(&|id| places.contains_key(&id))? {
            for &at in places.get(&message_id).into_iter().flatten() {
                self.findings[at].filed.push(Filed { mboxname: mboxname.clone(), uid });
            }
        }
        Ok(())
    }
}

/// A message that should be at some place.
struct Wanted {
    message_id: i64,
    chunk_id: i64,
    guid: Guid,
    /// Of its line.
    offset: u64,
}
