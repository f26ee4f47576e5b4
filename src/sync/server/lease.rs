//! The backups that one session has open, and what its commands do to them.
//!
//! A lease moves into each job of its session and back: it is never shared. Every
//! backup in it is locked against other sessions and Cyrus's tools until RESTART,
//! EXIT, the end of the connection, or a time without use.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use sha1::{Digest, Sha1};

use super::answers::Answers;
use super::login::Login;
use super::request::{Get, Refusal, item};
use super::{Peer, SharedSite};
use crate::store::index::{Index, MailboxRow};
use crate::store::staging::Staging;
use crate::store::{Line, StoreError, Writer};
use crate::sync::{Done, Work};
use crate::wire::apply::{Apply, Mailbox};
use crate::wire::dlist::{Fields, FileHeader, Literals, Printer, Value, lossy};
use crate::wire::{Body, Guid};

/// See the module.
pub(super) struct Lease {
    site: SharedSite,
    peer: Peer,
    /// The least recently used first.
    open: Vec<Held>,
    /// Backups that the latest GET spoke of: messages that nobody reserved are theirs.
    current: Vec<Vec<u8>>,
    /// A backup with acknowledged lines was let go of without being finished: the next
    /// RESTART or EXIT cannot promise that they survive a power cut.
    is_in_doubt: bool,
    staging: Staging,
    login: Login,
}

struct Held {
    key: Vec<u8>,
    writer: Writer,
    /// Messages that the client was told are missing here.
    reserved: HashSet<Guid>,
}

type Reply = Result<Answers, Refusal>;

impl Lease {
    pub(super) fn new(site: SharedSite, peer: Peer) -> Lease {
        let staging = Staging::new(site.staging_path.clone());
        Lease {
            site,
            peer,
            open: Vec::new(),
            current: Vec::new(),
            is_in_doubt: false,
            staging,
            login: Login::default(),
        }
    }

    /// Whether any backup is held open.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Does a job. May block.
    pub(super) fn run(&mut self, work: Work) -> Done {
        match work {
            Work::Authenticate { mech, initial, channel } => Done::Auth(self.login.authenticate(
                &self.site.authenticator,
                &self.peer,
                &mech,
                initial.as_deref(),
                channel,
            )),
            Work::Respond(response) => Done::Auth(self.login.respond(&self.peer, &response)),
            Work::Stage(octets) => Done::Staged(match self.staging.add(&octets) {
                Ok(()) => true,
                Err(error) => {
                    tracing::error!(path = %self.site.staging_path.display(), %error,
                        "cannot stage a message");
                    false
                }
            }),
            Work::Get(text) => reply(self.get(&text)),
            Work::Apply(text, bodies) => {
                let result = self.apply(&text, &bodies);
                if let Err(error) = self.staging.clear() {
                    tracing::warn!(%error, "cannot empty the staging file");
                }
                reply(result)
            }
            Work::Restart => Done::Reply(self.finish_with("OK Restarting")),
            Work::Exit => Done::Reply(self.finish_with("OK Finished")),
            Work::Release => {
                // The client hears of it when it asks for a promise.
                self.is_in_doubt = self.finish_all().is_err();
                Done::Released
            }
        }
    }

    fn get(&mut self, text: &[u8]) -> Reply {
        let mut answers = Answers::new();
        match Get::read(text)? {
            Get::User(userid) => {
                let at = self.open_current(&userid)?;
                let held = &self.open[at];
                for row in read(held, |index| index.mailboxes())? {
                    if row.deleted.is_none() {
                        mailbox(held, &row, &mut answers)?;
                    }
                }
                meta(held, &mut answers)?;
            }
            Get::Meta(userid) => {
                let at = self.open_current(&userid)?;
                meta(&self.open[at], &mut answers)?;
            }
            Get::Mailboxes(names) => {
                self.current.clear();
                for name in names {
                    let key = self.site.names.backup_key(&name);
                    let at = self.open(&key)?;
                    if !self.current.contains(&key) {
                        self.current.push(key);
                    }
                    let held = &self.open[at];
                    if let Some(row) = read(held, |index| index.mailbox_named(&name))? {
                        mailbox(held, &row, &mut answers)?;
                    }
                }
            }
            Get::UniqueIds(ids) => {
                for id in ids {
                    for held in &self.open {
                        let row = read(held, |index| index.mailbox_with_uniqueid(&id))?;
                        if let Some(row) = row.filter(|row| row.deleted.is_none()) {
                            mailbox(held, &row, &mut answers)?;
                        }
                    }
                }
            }
            Get::FullMailbox(name) => {
                let key = self.site.names.backup_key(&name);
                let at = self.open(&key)?;
                let held = &self.open[at];
                let row = read(held, |index| index.mailbox_named(&name))?;
                let row = row.ok_or(Refusal::Nonexistent)?;
                let extra = read(held, |index| index.extra_fields(row.id))?;
                let records = read(held, |index| index.true_records(row.id))?;
                answers.mailbox(&row, extra.as_deref(), Some(&records));
            }
            Get::Nothing => {}
        }
        Ok(answers)
    }

    fn apply(&mut self, text: &[u8], bodies: &[Body]) -> Reply {
        let (name, value) = item("Apply", text)?;
        let mut answers = Answers::new();
        let name = name.strip_prefix(b"LOCAL_").unwrap_or(&name);
        match name {
            b"RESERVE" => return self.reserve(&value),
            b"MESSAGE" => self.messages(&value, bodies)?,
            b"MAILBOX" if Mailbox::is_placeholder(&value) => {}
            b"MAILBOX" | b"UNMAILBOX" | b"RENAME" | b"EXPUNGE" | b"SEEN" | b"SUB" | b"UNSUB"
            | b"SIEVE" | b"UNSIEVE" => self.store(name, &value)?,
            b"CAPABILITIES" => answers.nothing_enabled(),
            b"QUOTA" | b"UNQUOTA" | b"ANNOTATION" | b"UNANNOTATION" | b"UNUSER"
            | b"ACTIVATE_SIEVE" | b"UNACTIVATE_SIEVE" | b"FORCE" => {}
            _ => return Err(Refusal::Protocol),
        }
        Ok(answers)
    }

    /// Which of these messages are not here? What is answered as missing will be
    /// sent, what is not will never be.
    fn reserve(&mut self, value: &Value<'_>) -> Reply {
        let Value::KvList(kv) = value else { return Err(Refusal::Protocol) };
        let fields = kv.fields();
        if fields.get("PARTITION").is_none() {
            return Err(Refusal::Protocol);
        }
        let list = |name| Fields::get(&fields, name).map(Value::as_list).ok_or(Refusal::Protocol);
        let keys: HashSet<Vec<u8>> = list("MBOXNAME")?
            .items()
            .filter_map(|name| name.as_text().map(|name| self.site.names.backup_key(name)))
            .collect();
        let mut known = HashSet::new();
        let wanted: Vec<Guid> = list("GUID")?
            .items()
            .filter_map(|value| value.as_guid())
            .filter(|guid| known.insert(*guid))
            .collect();
        let mut missing_anywhere = HashSet::new();
        for key in &keys {
            let at = self.open(key)?;
            let held = &mut self.open[at];
            for guid in &wanted {
                if read(held, |index| index.message(guid))?.is_none() {
                    held.reserved.insert(*guid);
                    missing_anywhere.insert(*guid);
                }
            }
        }
        let missing: Vec<Guid> =
            wanted.into_iter().filter(|guid| missing_anywhere.contains(guid)).collect();
        let mut answers = Answers::new();
        answers.missing(&missing);
        Ok(answers)
    }

    /// Stores messages in every backup that reserved them; those that nobody
    /// reserved belong to the backups that the latest GET spoke of, and without one
    /// (a client with a cache) to all that are open.
    fn messages(&mut self, value: &Value<'_>, bodies: &[Body]) -> Result<(), Refusal> {
        let Apply::Message(files) = Apply::read(b"MESSAGE", value)? else {
            return Err(Refusal::Protocol);
        };
        if files.len() != bodies.len() {
            return Err(Refusal::Protocol);
        }
        for (file, body) in files.iter().zip(bodies) {
            self.check_guid(file, body)?;
        }
        for key in self.current.clone() {
            self.open(&key)?;
        }
        let is_reserved = |guid: &Guid| self.open.iter().any(|held| held.reserved.contains(guid));
        let unreserved: HashSet<Guid> =
            files.iter().map(|file| file.guid).filter(|guid| !is_reserved(guid)).collect();
        let mut stored = 0;
        for at in 0..self.open.len() {
            let held = &self.open[at];
            let is_current = self.current.is_empty() || self.current.contains(&held.key);
            let wanted = |guid: &Guid| {
                held.reserved.contains(guid) || (is_current && unreserved.contains(guid))
            };
            let (files, bodies): (Vec<FileHeader>, Vec<Body>) = files
                .iter()
                .zip(bodies)
                .filter(|(file, _)| wanted(&file.guid))
                .map(|(file, body)| (file.clone(), body.clone()))
                .unzip();
            if files.is_empty() {
                continue;
            }
            self.append_messages(at, files, &bodies)?;
            stored += 1;
        }
        // Without a backup to put them into, nothing may be acknowledged.
        if stored == 0 { Err(Refusal::Protocol) } else { Ok(()) }
    }

    fn append_messages(
        &mut self,
        at: usize,
        files: Vec<FileHeader>,
        bodies: &[Body],
    ) -> Result<(), Refusal> {
        let mut printer = Printer::new(Literals::NonSync, b"MESSAGE (".to_vec());
        for (i, file) in files.iter().enumerate() {
            printer.separator(i).file(file);
        }
        printer.raw(b")");
        let (text, body_at) = printer.into_parts();
        let guids: Vec<Guid> = files.iter().map(|file| file.guid).collect();
        let apply = Apply::Message(files);
        self.append(at, &Line { text: &text, body_at: &body_at, bodies, apply: &apply })?;
        guids.iter().for_each(|guid| {
            self.open[at].reserved.remove(guid);
        });
        Ok(())
    }

    fn check_guid(&self, file: &FileHeader, body: &Body) -> Result<(), Refusal> {
        let mut sha1 = Sha1::new();
        let result = self.staging.read(body, |piece| {
            sha1.update(piece);
            Ok(())
        });
        if let Err(error) = result {
            tracing::error!(%error, "cannot read a staged message");
            return Err(Refusal::Internal);
        }
        let found = Guid::from(<[u8; 20]>::from(sha1.finalize()));
        if found != file.guid {
            tracing::warn!(announced = %file.guid, %found, "message does not have its GUID");
            return Err(Refusal::Protocol);
        }
        Ok(())
    }

    /// Appends any line that is not a message to the backup it belongs to.
    fn store(&mut self, name: &[u8], value: &Value<'_>) -> Result<(), Refusal> {
        let apply = Apply::read(name, value)?;
        let names = &self.site.names;
        let key = match &apply {
            Apply::Mailbox(mailbox) => names.backup_key(&mailbox.mboxname),
            Apply::Unmailbox(mboxname) => names.backup_key(mboxname),
            Apply::Rename(rename) => names.backup_key(&rename.from),
            Apply::Expunge(expunge) => names.backup_key(&expunge.mboxname),
            Apply::Seen(seen) => names.userid_key(&seen.userid),
            Apply::Sub(subscription, _) => names.userid_key(&subscription.userid),
            Apply::Sieve(sieve) => names.userid_key(&sieve.script.userid),
            Apply::Unsieve(script) => names.userid_key(&script.userid),
            Apply::Message(_) | Apply::Reserve => return Err(Refusal::Protocol),
        };
        let at = self.open(&key)?;
        if let Apply::Rename(rename) = &apply {
            let known = read(&self.open[at], |index| index.mailbox_named(&rename.from))?;
            known.ok_or(Refusal::Nonexistent)?;
            if self.site.names.backup_key(&rename.to) != key {
                // The mailbox leaves this user: here it ends, and keeps for the
                // retention time; the client finds it missing under the new name and
                // sends it whole.
                let gone = rename.from.clone();
                return self.append_line(at, b"UNMAILBOX", &Value::Atom(gone.as_slice().into()));
            }
        }
        self.append_line(at, name, value)
    }

    fn append_line(&mut self, at: usize, name: &[u8], value: &Value<'_>) -> Result<(), Refusal> {
        let mut printer = Printer::new(Literals::NonSync, Vec::new());
        printer.item(name, value);
        let text = printer.into_text();
        let apply = Apply::read(name, value)?;
        self.append(at, &Line { text: &text, body_at: &[], bodies: &[], apply: &apply })
    }

    /// A backup that could not be written to is let go of: what it holds is found
    /// out at its next open.
    fn append(&mut self, at: usize, line: &Line<'_>) -> Result<(), Refusal> {
        match self.open[at].writer.append(now(), line, &self.staging) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.is_in_doubt |= self.open.remove(at).writer.has_unfinished();
                Err(error.into())
            }
        }
    }

    /// Opens the backup of a userid, makes it the one that GET speaks of.
    fn open_current(&mut self, userid: &[u8]) -> Result<usize, Refusal> {
        let key = self.site.names.userid_key(userid);
        let at = self.open(&key)?;
        self.current = vec![key];
        Ok(at)
    }

    /// Opens a backup, making it if there is none; returns its place.
    fn open(&mut self, key: &[u8]) -> Result<usize, Refusal> {
        if let Some(at) = self.open.iter().position(|held| held.key == key) {
            let held = self.open.remove(at);
            self.open.push(held);
            return Ok(self.open.len() - 1);
        }
        self.make_room()?;
        let (path, _) = self.site.catalog.lookup_or_create(key, &self.site.placement)?;
        let writer = Writer::open(&path, now()).inspect_err(|error| {
            if !matches!(error, StoreError::Locked(_)) {
                tracing::error!(backup = %lossy(key), "cannot open the backup");
            }
        })?;
        self.open.push(Held { key: key.to_vec(), writer, reserved: HashSet::new() });
        Ok(self.open.len() - 1)
    }

    /// Finishes the backup unused for the longest, if there are too many. Those that
    /// messages are on their way to stay open.
    fn make_room(&mut self) -> Result<(), Refusal> {
        if self.open.len() < self.site.open_backups_max {
            return Ok(());
        }
        let is_idle = |held: &Held| held.reserved.is_empty() && !self.current.contains(&held.key);
        match self.open.iter().position(is_idle) {
            Some(at) => {
                let finished = finish(self.open.remove(at));
                self.is_in_doubt |= finished.is_err();
                finished
            }
            None => Ok(()),
        }
    }

    fn finish_with(&mut self, status: &str) -> Vec<u8> {
        match self.finish_all() {
            Ok(()) => format!("{status}\r\n").into_bytes(),
            Err(refusal) => format!("{}\r\n", refusal.status()).into_bytes(),
        }
    }

    /// Makes everything durable that was acknowledged since the last time, and lets
    /// go of every backup. The first error is returned, after all have been tried.
    fn finish_all(&mut self) -> Result<(), Refusal> {
        self.current.clear();
        let mut result = match std::mem::take(&mut self.is_in_doubt) {
            true => Err(Refusal::Internal),
            false => Ok(()),
        };
        for held in self.open.drain(..) {
            let finished = finish(held);
            if result.is_ok() {
                result = finished;
            }
        }
        result
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Data and index may be out of step: the next open puts that right.
            return;
        }
        if self.finish_all().is_err() {
            tracing::error!("a backup was not finished; it will be mended when next opened");
        }
    }
}

fn finish(mut held: Held) -> Result<(), Refusal> {
    Ok(held.writer.finish(now())?)
}

fn mailbox(held: &Held, row: &MailboxRow, answers: &mut Answers) -> Result<(), Refusal> {
    let extra = read(held, |index| index.extra_fields(row.id))?;
    answers.mailbox(row, extra.as_deref(), None);
    Ok(())
}

fn meta(held: &Held, answers: &mut Answers) -> Result<(), Refusal> {
    read(held, |index| index.seen_states())?.iter().for_each(|row| answers.seen(row));
    answers.subscriptions(&read(held, |index| index.subscriptions())?);
    read(held, |index| index.sieve_scripts())?.iter().for_each(|row| answers.sieve(row));
    Ok(())
}

fn read<T>(
    held: &Held,
    query: impl FnOnce(&Index) -> crate::store::index::Result<T>,
) -> Result<T, Refusal> {
    query(held.writer.index()).map_err(|error| StoreError::index(held.writer.path())(error).into())
}

fn reply(result: Reply) -> Done {
    Done::Reply(match result {
        Ok(answers) => answers.finish("OK Success"),
        Err(refusal) => {
            tracing::debug!(%refusal, "refused");
            format!("{}\r\n", refusal.status()).into_bytes()
        }
    })
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs() as i64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::Site;
    use super::*;
    use crate::store::Catalog;
    use crate::store::placement::{Placement, Policy};
    use crate::sync::auth::{AuthConfig, Authenticator, NamePolicy, PasswordSource};

    fn lease(root: &Path) -> Lease {
        let partitions = [("one".to_owned(), root.join("one"))].into();
        let names = NamePolicy {
            virtdomains: false,
            defaultdomain: None,
            loginrealms: Vec::new(),
            username_tolower: true,
        };
        let site = Site {
            catalog: Catalog::open(root.join("backups.db")),
            placement: Placement::new(Policy { partitions, umask: 0o077, ..Policy::default() }),
            names: Default::default(),
            authenticator: Authenticator::new(AuthConfig {
                mechs: None,
                source: PasswordSource::File(root.join("passwd")),
                admins: Vec::new(),
                allow_plaintext: true,
                names,
                service: "csync".into(),
                failed_login_pause: Duration::ZERO,
                minimum_layer: 0,
            }),
            staging_path: root.join("staging"),
            open_backups_max: 2,
        };
        Lease::new(Arc::new(site), Peer::local())
    }

    fn ask(lease: &mut Lease, work: Work) -> String {
        match lease.run(work) {
            Done::Reply(reply) => String::from_utf8(reply).unwrap(),
            _ => panic!("no reply"),
        }
    }

    fn subscribe(lease: &mut Lease, user: &str, name: &str) -> String {
        let text = format!("SUB %(USERID {user} MBOXNAME user.{name})");
        ask(lease, Work::Apply(text.into_bytes(), Vec::new()))
    }

    /// Lines until the index is full.
    fn fill(lease: &mut Lease, user: &str) {
        lease.open[0].writer.index().limit_growth(0).unwrap();
        let refused = (0..10_000).find(|number| {
            let name = format!("{number}{}", "x".repeat(900));
            !subscribe(lease, user, &name).starts_with("OK")
        });
        assert!(refused.is_some_and(|number| number > 0));
    }

    #[test]
    fn restart_promises_nothing_after_a_backup_was_lost() {
        let dir = tempfile::tempdir().unwrap();
        let mut lease = lease(dir.path());
        assert!(subscribe(&mut lease, "tom", "first").starts_with("OK"));
        fill(&mut lease, "tom");
        assert!(lease.is_empty(), "let go of");
        assert_eq!(ask(&mut lease, Work::Restart), "NO Unknown error\r\n");
        // The next open takes in what was acknowledged, and makes it durable.
        assert!(subscribe(&mut lease, "tom", "second").starts_with("OK"));
        let held = &lease.open[0];
        let names = held.writer.index().subscriptions().unwrap();
        assert!(names.contains(&b"user.first".to_vec()));
        assert!(names.contains(&b"user.second".to_vec()));
        assert_eq!(ask(&mut lease, Work::Restart), "OK Restarting\r\n");
    }

    #[test]
    fn nor_after_one_could_not_be_finished_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let mut lease = lease(dir.path());
        assert!(subscribe(&mut lease, "tom", "first").starts_with("OK"));
        lease.open[0].writer.index().rollback().unwrap();
        assert!(matches!(lease.run(Work::Release), Done::Released));
        assert_eq!(ask(&mut lease, Work::Exit), "NO Unknown error\r\n");
        assert_eq!(ask(&mut lease, Work::Exit), "OK Finished\r\n");
    }
}
