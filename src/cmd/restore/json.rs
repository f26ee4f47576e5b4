//! What a restore did, or would do, as JSON: an object for each backup.

use std::os::unix::ffi::OsStrExt;

use crate::cmd::json::Json;
use crate::cmd::select::Target as Backup;
use crate::restore::{MailboxReport, Object, Plan, Report, StateOutcome, StateReport, Target};
use crate::wire::dlist::lossy;

/// Of a backup of which nothing could be restored.
pub(super) fn failure(backup: &Backup, why: &str) -> Json {
    object(backup, format!("failed ({why})"))
}

/// Of a dry run.
pub(super) fn plan(backup: &Backup, plan: &Plan) -> Json {
    let mut json = object(backup, "not done".into());
    json.push("mailboxes", list(&plan.targets, planned));
    json.push("not_found", list(&plan.unknown, not_found));
    json
}

/// Of what was done.
pub(super) fn report(backup: &Backup, plan: &Plan, report: &Report, failed: bool) -> Json {
    let mut json = object(backup, if failed { "failed (not whole)" } else { "ok" }.into());
    json.push("mailboxes", list(&report.mailboxes, mailbox));
    json.push("state", list(&report.state, state));
    json.push("not_found", list(&plan.unknown, not_found));
    let reached = |target: &&Target| report.mailboxes.iter().any(|done| done.name == target.name);
    let missed = plan.targets.iter().filter(|target| !reached(target));
    json.push("not_reached", Json::Array(missed.map(|target| text(&target.name)).collect()));
    if let Some(why) = &report.ended {
        json.push("ended", Json::Text(why.clone()));
    }
    json
}

fn object(backup: &Backup, status: String) -> Json {
    Json::object([
        ("command", Some(Json::Text("restore".into()))),
        ("userid", backup.userid.as_deref().and_then(Json::octets)),
        ("fname", Json::octets(backup.path.as_os_str().as_bytes())),
        ("status", Some(Json::Text(status))),
    ])
}

fn planned(target: &Target) -> Json {
    Json::object([
        ("mboxname", Json::octets(&target.name)),
        ("keep_ids", number(target.keep_ids.into())),
        ("messages", number(target.messages)),
        ("expunged", number(target.expunged)),
        ("octets", number(target.octets)),
    ])
}

fn mailbox(mailbox: &MailboxReport) -> Json {
    let refused = |(guid, why): &(crate::wire::Guid, String)| {
        let (guid, why) = (Json::Text(guid.to_string()), Json::Text(why.clone()));
        Json::object([("guid", Some(guid)), ("why", Some(why))])
    };
    Json::object([
        ("mboxname", Json::octets(&mailbox.name)),
        ("created", number(mailbox.created.into())),
        ("kept_ids", number(mailbox.kept_ids.into())),
        ("uniqueid_taken_by", mailbox.uniqueid_taken_by.as_deref().and_then(Json::octets)),
        ("restored", number(mailbox.restored)),
        ("there_before", number(mailbox.already)),
        ("sent", number(mailbox.sent)),
        ("octets_sent", number(mailbox.octets)),
        ("refused", Some(list(&mailbox.refused, refused))),
        ("failed", mailbox.failed.clone().map(Json::Text)),
    ])
}

fn state(part: &StateReport) -> Json {
    let (word, why) = match &part.outcome {
        StateOutcome::Restored => ("restored", None),
        StateOutcome::Already => ("there before", None),
        StateOutcome::Kept => ("another one stays", None),
        StateOutcome::Failed(why) => ("failed", Some(Json::Text(why.clone()))),
    };
    let what = Json::octets(&part.what);
    Json::object([("what", what), ("outcome", Some(Json::Text(word.into()))), ("why", why)])
}

fn not_found(object: &Object) -> Json {
    text(&object.text())
}

fn text(octets: &[u8]) -> Json {
    Json::Text(lossy(octets).to_string())
}

fn number(number: u64) -> Option<Json> {
    Some(Json::Integer(number.try_into().unwrap_or(i64::MAX)))
}

fn list<T>(items: &[T], json: impl Fn(&T) -> Json) -> Json {
    Json::Array(items.iter().map(json).collect())
}
