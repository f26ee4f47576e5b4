//! Carrying out a plan.
//!
//! A mailbox is created empty first, so that a server that will not have it says so before
//! anything is sent. Then its messages come in batches: the server is asked what it has, gets what
//! it lacks, then the records, and is told to let go of what it staged. A batch is there when it
//! has been answered OK; so a run that was cut off is continued by another one of the same
//! request, which finds out what is there.

use std::path::Path;

use super::destination::Destination;
use super::mailbox::{Failure, Mailbox};
use super::plan::Plan;
use super::report::{MailboxReport, Report};
use super::request::Request;
use super::state;
use super::view::View;
use crate::sync::client::{Client, ClientError, RefusalCode};
use crate::wire::mboxname::NameRules;

/// What a run works with.
pub struct Job<'j> {
    /// The backup.
    pub view: &'j View<'j>,
    /// Whose it is; `None` if nobody's.
    pub userid: Option<&'j [u8]>,
    /// Who owns which mailbox.
    pub rules: &'j NameRules,
    /// What is wanted.
    pub request: &'j Request,
    /// Where large messages wait until they have been checked.
    pub staging: &'j Path,
}

/// What a run tells while it is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'e> {
    /// The next mailbox is begun.
    Mailbox(&'e [u8]),
    /// So many more messages of it are done: there now, or there before.
    Messages(u64),
}

/// Restores what `plan` says through `client`, which afterwards can be used for the next job
/// unless [`Report::ended`] says why not.
pub fn run(
    job: &Job<'_>,
    plan: &Plan,
    client: &mut Client,
    tell: &mut dyn FnMut(Event<'_>),
) -> Report {
    let mut report = Report::default();
    let mut destination = match Destination::ask(client, plan, job.rules) {
        Ok(destination) => destination,
        Err(error) => {
            report.end(&error);
            if matches!(error.refusal(), Some(RefusalCode::PermissionDenied | RefusalCode::Bad)) {
                let hint = ". The account must be an administrator (admins) of the mail server";
                report.ended = Some(error.to_string() + hint);
            }
            return report;
        }
    };
    for target in &plan.targets {
        tell(Event::Mailbox(&target.name));
        let way = destination.way(target, job.rules, plan);
        let name = target.name.clone();
        let mut mailbox = Mailbox {
            job,
            target,
            client,
            tell,
            report: MailboxReport { name, ..Default::default() },
        };
        let result = mailbox.restore(&way, &destination);
        let mut done = mailbox.report;
        let end = match result {
            Ok(state) => {
                destination.take(state.into_iter().collect());
                None
            }
            Err(failure) => {
                done.failed = Some(failure.to_string());
                match failure {
                    Failure::Client(error) if !error.is_connection_usable() => Some(error),
                    _ => None,
                }
            }
        };
        report.mailboxes.push(done);
        if let Some(error) = end {
            report.end(&error);
            return report;
        }
        if let Err(error) = client.restart() {
            report.end(&error);
            return report;
        }
    }
    if job.request.parts.has_state()
        && let Err(error) = state::restore(job, client, &mut report.state)
    {
        report.end(&error);
    }
    report
}

impl Report {
    fn end(&mut self, error: &ClientError) {
        self.ended = Some(error.to_string());
        self.is_worth_a_retry = error.is_worth_a_retry();
    }
}
