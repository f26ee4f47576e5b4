//! What the database does, for tests that watch over cost.

use std::cell::Cell;
use std::collections::HashMap;

use rusqlite::trace::{TraceEvent, TraceEventCodes};
use rusqlite::{Connection, StatementStatus};

thread_local! {
    static DONE: Cell<Work> =
        const { Cell::new(Work { statements: 0, steps: 0, prepared_anew: 0 }) };
}

/// What was done on this thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Statements run to their end, BEGIN and COMMIT among them.
    pub(crate) statements: u64,
    /// Steps of SQLite's virtual machine: they grow with rows that are looked at.
    pub(crate) steps: u64,
    /// Statements that were run by connections which had to prepare them more than once.
    pub(crate) prepared_anew: u64,
}

impl Work {
    /// What was done since the last call.
    pub(crate) fn take() -> Work {
        DONE.take()
    }
}

/// Counts what is done through this connection.
pub(super) fn watched(mut db: Connection) -> rusqlite::Result<Connection> {
    // A statement counts the steps of all its runs.
    let mut before: HashMap<String, i32> = HashMap::new();
    db.trace_v2(
        TraceEventCodes::SQLITE_TRACE_PROFILE,
        Some(move |event: TraceEvent<'_>| {
            if let TraceEvent::Profile(statement, _) = event {
                let so_far = statement.get_status(StatementStatus::VmStep);
                let before = before.insert(statement.sql().into_owned(), so_far).unwrap_or(0);
                let new = if so_far < before { so_far } else { so_far - before };
                let anew = statement.get_status(StatementStatus::RePrepare) > 0;
                let work = DONE.get();
                DONE.set(Work {
                    statements: work.statements + 1,
                    steps: work.steps + new as u64,
                    prepared_anew: work.prepared_anew + u64::from(anew),
                });
            }
        }),
    )?;
    Ok(db)
}
