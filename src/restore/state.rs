//! What belongs to a user or to the server and is no mail: subscriptions, seen state, sieve
//! scripts, limits, annotations of the server.
//!
//! What is at the destination already wins, unless it is to be replaced: since the backup was
//! made somebody may have changed it there.

use super::destination;
use super::report::{StateOutcome, StateReport};
use super::request::Part;
use super::run::Job;
use crate::store::index::{IndexError, SeenRow, SieveRow};
use crate::store::script;
use crate::sync::client::{Client, ClientError, UserState};
use crate::wire::dlist::{Literals, Printer, Value, lossy, parse_value};

/// Restores all that the request wants and that is in the backup. An error is one after which
/// the connection is of no use.
pub(super) fn restore(
    job: &Job<'_>,
    client: &mut Client,
    reports: &mut Vec<StateReport>,
) -> Result<(), ClientError> {
    let mut state = State { job, client, reports };
    let parts = &job.request.parts;
    let is_users = |part: &Part| parts.has(*part);
    let wants_users = [Part::Subscriptions, Part::Seen, Part::Sieve].iter().any(is_users);
    if job.userid.is_none() && wants_users {
        state.leave_out_users();
    }
    if let Some(userid) = job.userid.filter(|_| wants_users) {
        let there = state.client.get_meta(userid)?;
        if parts.has(Part::Subscriptions) {
            state.subscriptions(userid, &there)?;
        }
        if parts.has(Part::Seen) {
            state.seen(userid, &there)?;
        }
        if parts.has(Part::Sieve) {
            state.scripts(userid, &there)?;
        }
    }
    if parts.has(Part::Quota) {
        state.quotas()?;
    }
    if parts.has(Part::Server) {
        state.server_annotations()?;
    }
    Ok(())
}

struct State<'s> {
    job: &'s Job<'s>,
    client: &'s mut Client,
    reports: &'s mut Vec<StateReport>,
}

/// What is to be done about one thing.
enum Todo {
    Send(Vec<u8>),
    Nothing(StateOutcome),
}

impl State<'_> {
    /// Says so if there is anything that belongs to a user, and nobody knows to whom.
    fn leave_out_users(&mut self) {
        let (parts, index) = (&self.job.request.parts, self.job.view.index());
        let lengths = [
            (Part::Subscriptions, "subscriptions", index.subscriptions().map(|rows| rows.len())),
            (Part::Seen, "seen state", index.seen_states().map(|rows| rows.len())),
            (Part::Sieve, "sieve scripts", index.sieve_scripts().map(|rows| rows.len())),
        ];
        for (part, what, len) in lengths {
            if parts.has(part) && len.as_ref().map_or(true, |len| *len > 0) {
                let why = "no mailbox tells whose they are: name the backup by its userid";
                let outcome = StateOutcome::Failed(why.into());
                self.reports.push(StateReport { what: what.into(), outcome });
            }
        }
    }

    fn subscriptions(&mut self, userid: &[u8], there: &UserState) -> Result<(), ClientError> {
        let Some(names) = self.rows("subscriptions", |job| job.view.index().subscriptions()) else {
            return Ok(());
        };
        for name in names {
            let todo = if there.subscriptions.contains(&name) {
                Todo::Nothing(StateOutcome::Already)
            } else {
                let mut printer = Printer::new(Literals::NonSync, b"SUB %(USERID ".to_vec());
                printer.string(userid).raw(b" MBOXNAME ").string(&name).raw(b")");
                Todo::Send(printer.into_text())
            };
            self.settle(&[b"subscription ", &name], todo)?;
        }
        Ok(())
    }

    fn seen(&mut self, userid: &[u8], there: &UserState) -> Result<(), ClientError> {
        let Some(rows) = self.rows("seen state", |job| job.view.index().seen_states()) else {
            return Ok(());
        };
        let ids: Vec<Vec<u8>> = rows.iter().map(|row| row.uniqueid.clone()).collect();
        let ids = destination::present_ids(self.client, self.job.rules, &ids)?;
        for (row, uniqueid) in rows.into_iter().zip(ids) {
            let newer = there.seen.iter().find(|state| state.uniqueid == uniqueid);
            let todo = match newer {
                Some(state) if state.lastchange == row.lastchange => {
                    Todo::Nothing(StateOutcome::Already)
                }
                Some(state) if state.lastchange > row.lastchange => {
                    Todo::Nothing(StateOutcome::Kept)
                }
                _ => Todo::Send(seen_line(userid, &uniqueid, &row)),
            };
            self.settle(&[b"seen state ", &row.uniqueid], todo)?;
        }
        Ok(())
    }

    fn scripts(&mut self, userid: &[u8], there: &UserState) -> Result<(), ClientError> {
        let Some(rows) = self.rows("sieve scripts", |job| job.view.index().sieve_scripts()) else {
            return Ok(());
        };
        for row in rows {
            let state = there.scripts.iter().find(|script| script.filename == row.filename);
            let is_same = state
                .is_some_and(|state| state.guid.is_some_and(|guid| guid.to_string() == row.guid));
            let todo = if is_same {
                Todo::Nothing(StateOutcome::Already)
            } else if state.is_some() && !self.job.request.replace {
                Todo::Nothing(StateOutcome::Kept)
            } else {
                match self.script(&row) {
                    Ok(text) => Todo::Send(script_line(userid, &row, &text)),
                    Err(error) => Todo::Nothing(StateOutcome::Failed(error)),
                }
            };
            self.settle(&[b"sieve script ", &row.filename], todo)?;
        }
        self.active_script(userid, there)
    }

    fn script(&self, row: &SieveRow) -> Result<Vec<u8>, String> {
        let view = self.job.view;
        let chunk = view.index().chunk(row.chunk_id).map_err(|error| error.to_string())?;
        let chunk = chunk.ok_or("its chunk is gone")?;
        let points =
            view.index().restart_points(row.chunk_id).map_err(|error| error.to_string())?;
        let text = script::read(view.backup().file(), chunk.offset, points, row);
        text.map_err(|error| error.to_string())?.ok_or_else(|| "its text is gone".into())
    }

    fn active_script(&mut self, userid: &[u8], there: &UserState) -> Result<(), ClientError> {
        let Some(active) = self.rows("active script", |job| job.view.index().active_script())
        else {
            return Ok(());
        };
        let Some(active) = active else { return Ok(()) };
        let running = there.scripts.iter().find(|script| script.is_active);
        let todo = match running {
            Some(script) if script.filename == active.filename => {
                Todo::Nothing(StateOutcome::Already)
            }
            Some(_) if !self.job.request.replace => Todo::Nothing(StateOutcome::Kept),
            _ => {
                let mut printer =
                    Printer::new(Literals::NonSync, b"ACTIVATE_SIEVE %(USERID ".to_vec());
                printer.string(userid).raw(b" FILENAME ").string(&active.filename).raw(b")");
                Todo::Send(printer.into_text())
            }
        };
        self.settle(&[b"active sieve script ", &active.filename], todo)
    }

    fn quotas(&mut self) -> Result<(), ClientError> {
        let Some(quotas) = self.rows("quotas", |job| job.view.index().quotas()) else {
            return Ok(());
        };
        for fields in quotas {
            let Ok(Value::KvList(kv)) = parse_value(&fields) else { continue };
            let kv = kv.fields();
            let Some(root) = kv.text("ROOT") else { continue };
            let todo = match self.client.get_quota(root) {
                Ok(Some(state)) => {
                    let is_same = state
                        .limits
                        .iter()
                        .all(|(resource, limit)| kv.number(&lossy(resource)) == Some(*limit));
                    match is_same {
                        true => Todo::Nothing(StateOutcome::Already),
                        false if !self.job.request.replace => Todo::Nothing(StateOutcome::Kept),
                        false => Todo::Send([b"QUOTA ", &fields[..]].concat()),
                    }
                }
                Ok(None) => Todo::Send([b"QUOTA ", &fields[..]].concat()),
                Err(error) if error.is_connection_usable() => {
                    Todo::Nothing(StateOutcome::Failed(error.to_string()))
                }
                Err(error) => return Err(error),
            };
            self.settle(&[b"quota ", root], todo)?;
        }
        Ok(())
    }

    fn server_annotations(&mut self) -> Result<(), ClientError> {
        let rows = self.rows("annotations", |job| job.view.index().annotations(b""));
        let Some(rows) = rows.filter(|rows| !rows.is_empty()) else { return Ok(()) };
        let there = self.client.get_annotations(b"")?;
        for row in rows {
            let subject = &row.subject;
            let state = there
                .iter()
                .find(|state| state.entry == subject.entry && state.userid == subject.userid);
            let todo = match state {
                Some(state) if state.value == row.value => Todo::Nothing(StateOutcome::Already),
                Some(_) if !self.job.request.replace => Todo::Nothing(StateOutcome::Kept),
                _ => {
                    let start = b"ANNOTATION %(MBOXNAME \"\" ENTRY ".to_vec();
                    let mut printer = Printer::new(Literals::NonSync, start);
                    printer.string(&subject.entry).raw(b" USERID ").string(&subject.userid);
                    printer.raw(b" VALUE ").string(&row.value).raw(b")");
                    Todo::Send(printer.into_text())
                }
            };
            self.settle(&[b"server annotation ", &subject.entry], todo)?;
        }
        Ok(())
    }

    /// Rows of the index; `None`, and a report, if it cannot be read.
    fn rows<T>(
        &mut self,
        what: &str,
        read: impl FnOnce(&super::run::Job<'_>) -> Result<T, IndexError>,
    ) -> Option<T> {
        match read(self.job) {
            Ok(rows) => Some(rows),
            Err(error) => {
                let outcome = StateOutcome::Failed(format!("cannot read the backup: {error}"));
                self.reports.push(StateReport { what: what.into(), outcome });
                None
            }
        }
    }

    fn settle(&mut self, what: &[&[u8]], todo: Todo) -> Result<(), ClientError> {
        let outcome = match todo {
            Todo::Nothing(outcome) => outcome,
            Todo::Send(line) => match self.client.apply(&line) {
                Ok(()) => StateOutcome::Restored,
                Err(error) if error.is_connection_usable() => {
                    StateOutcome::Failed(error.to_string())
                }
                Err(error) => return Err(error),
            },
        };
        self.reports.push(StateReport { what: what.concat(), outcome });
        Ok(())
    }
}

fn seen_line(userid: &[u8], uniqueid: &[u8], row: &SeenRow) -> Vec<u8> {
    let number = |time: i64| u64::try_from(time).unwrap_or(0);
    let mut printer = Printer::new(Literals::NonSync, b"SEEN %(USERID ".to_vec());
    printer.string(userid).raw(b" UNIQUEID ").string(uniqueid);
    printer.raw(b" LASTREAD ").number(number(row.lastread));
    printer.raw(b" LASTUID ").number(row.lastuid.into());
    printer.raw(b" LASTCHANGE ").number(number(row.lastchange));
    printer.raw(b" SEENUIDS ").string(&row.seenuids).raw(b")");
    printer.into_text()
}

fn script_line(userid: &[u8], row: &SieveRow, text: &[u8]) -> Vec<u8> {
    let mut printer = Printer::new(Literals::NonSync, b"SIEVE %(USERID ".to_vec());
    printer.string(userid).raw(b" FILENAME ").string(&row.filename);
    printer.raw(b" LAST_UPDATE ").number(u64::try_from(row.last_update).unwrap_or(0));
    printer.raw(b" CONTENT ").string(text).raw(b")");
    printer.into_text()
}
