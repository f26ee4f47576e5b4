//! What there is to say about a backup as it was at an earlier moment.

use std::io::{self, Write};

use super::report::write_labelled;
use super::time::LocalTime;
use crate::store::moment::{self, By, History, Report};
use crate::store::{Backup, StoreError};
use crate::wire::mboxname::NameRules;

/// The backup as of `moment`, if one is given, and whether something may be missing because its
/// data are damaged. What may be wrong with that goes to `err`.
pub(super) fn look_back(
    backup: Backup,
    moment: Option<i64>,
    rules: &NameRules,
    label: &[u8],
    err: &mut dyn Write,
) -> io::Result<Result<(Backup, bool), StoreError>> {
    let Some(moment) = moment else { return Ok(Ok((backup, false))) };
    let (backup, report) = match moment::open(backup, moment, rules) {
        Ok(view) => view.into_parts(),
        Err(error) => return Ok(Err(error)),
    };
    for remark in remarks(&report, &LocalTime::new()) {
        write_labelled(err, label, &remark)?;
    }
    Ok(Ok((backup, !report.damages.is_empty())))
}

/// Sentences; none if the state is exactly what it was.
fn remarks(report: &Report, time: &LocalTime) -> Vec<String> {
    let moment = time.format(report.moment);
    let mut remarks = Vec::new();
    match report.first {
        None => remarks.push(format!("as of {moment}: there is nothing in this backup")),
        Some(first) if first > report.moment => {
            remarks
                .push(format!("as of {moment}: nothing yet, it begins at {}", time.format(first)));
        }
        Some(_) => {}
    }
    if let History::Since { complete, gone, by } = report.history
        && complete > report.moment
    {
        let complete = time.format(complete);
        let who = match by {
            By::Cyrbk => format!("compacted at {complete}"),
            By::Cyrus => format!("compacted by Cyrus before {complete}"),
        };
        let gone = gone.map_or(String::new(), |gone| {
            format!("; what was deleted or expunged until {} is gone", time.format(gone))
        });
        remarks.push(format!("as of {moment}: not exact, {who}{gone}"));
        if report.added > 0 {
            remarks.push(format!(
                "as of {moment}: mailboxes and messages that outlived it were added, with their \
                 later names and flags: {}",
                report.added
            ));
        }
    }
    for damage in &report.damages {
        remarks.push(format!(
            "as of {moment}: what follows the damage in chunk {} is missing: {}",
            damage.chunk_id, damage.what
        ));
    }
    if report.clock_went_back {
        remarks.push(format!(
            "as of {moment}: the clock had gone back; lines behind a younger one are left out"
        ));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::exact::Damage;

    #[test]
    fn only_what_is_not_exact_is_said() {
        let report = Report {
            moment: 100,
            first: Some(50),
            last: Some(99),
            history: History::Complete,
            added: 0,
            damages: Vec::new(),
            clock_went_back: false,
        };
        let time = LocalTime::utc();
        assert!(remarks(&report, &time).is_empty());
        let history = History::Since { complete: 100, gone: Some(7), by: By::Cyrbk };
        assert!(remarks(&Report { history, ..report.clone() }, &time).is_empty());
        let history = History::Since { complete: 160, gone: Some(60), by: By::Cyrbk };
        let damages = vec![Damage { chunk_id: 3, offset_file: 9, what: "torn".into() }];
        let clock_went_back = true;
        let report = Report { history, added: 5, damages, clock_went_back, ..report };
        assert_eq!(
            remarks(&report, &time),
            [
                "as of 1970-01-01 00:01:40: not exact, compacted at 1970-01-01 00:02:40; what \
                 was deleted or expunged until 1970-01-01 00:01:00 is gone",
                "as of 1970-01-01 00:01:40: mailboxes and messages that outlived it were added, \
                 with their later names and flags: 5",
                "as of 1970-01-01 00:01:40: what follows the damage in chunk 3 is missing: torn",
                "as of 1970-01-01 00:01:40: the clock had gone back; lines behind a younger one \
                 are left out",
            ]
        );
        let report = Report { moment: 10, ..report };
        let said = remarks(&report, &time);
        assert_eq!(
            said[0],
            "as of 1970-01-01 00:00:10: nothing yet, it begins at 1970-01-01 00:00:50"
        );
    }
}
