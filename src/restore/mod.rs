//! From a backup to a mail server: what is wanted, what that means, and doing it.
//!
//! ```text
//! Request + View -> select -> Plan          reads the backup, asks nobody
//! Plan + Client  -> Destination -> run      asks the mail server, then changes it
//!                                 -> Report
//! ```
//!
//! A restore only reads its backup, under a shared lock. Running the same request again adds
//! what is missing and nothing else; that is also how a run that was cut off goes on.
//!
//! Two commands do the work. A mailbox that keeps its ids is made by `APPLY MAILBOX`, as
//! replication makes it: every field arrives, a unique id in use is refused by the server, and a
//! further batch continues where the last one ended. All else is `RESTORE MAILBOX`, where the
//! server chooses UIDs; annotations of a mailbox follow separately, because servers up to 3.10
//! die of them in a RESTORE that creates one.

mod destination;
mod line;
mod mailbox;
mod plan;
mod report;
mod request;
mod run;
mod select;
mod state;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod there;
mod upload;
mod view;

pub use destination::{Destination, Obstacle, Way};
pub use plan::{Decision, Note, Plan, Records, Source, Target};
pub use report::{MailboxReport, Report, StateOutcome, StateReport};
pub use request::{Expunged, Object, Part, Parts, Request, What};
pub use run::{Event, Job, run};
pub use select::{Entry, Pick, Selection, select};
pub use view::View;
