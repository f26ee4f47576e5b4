//! What restore says: plans, progress in Cyrus's words, reports.

use std::io::{self, Write};

use crate::cmd::people::{harmless, octets};
use crate::cmd::report::write_labelled;
use crate::restore::{
    Decision, MailboxReport, Note, Object, Parts, Plan, Report, StateOutcome, Target, View,
};
use crate::sync::client::{ClientError, Options as ClientOptions};
use crate::wire::dlist::lossy;

/// Of a backup without a mailbox that lives, or lived at the moment asked for.
pub(super) const NOTHING_LIVES: &str = "no mailbox is there, or was there then; --with-deleted \
    brings back what was deleted, --at what was there at another moment";

/// Why no connection is of use.
pub(super) fn unreachable(error: &ClientError, options: &ClientOptions) -> String {
    match error {
        ClientError::Connect { address, source } => format!("cannot connect: {address}: {source}"),
        ClientError::LoginRefused { .. } => {
            let name = options.login.as_ref().map_or("", |login| &login.authname);
            format!("cannot connect as {name}: {error}")
        }
        _ => format!("cannot connect: {error}"),
    }
}

/// A decision in Cyrus's words.
pub(super) fn write_note(note: &Note, out: &mut dyn Write) -> io::Result<()> {
    let or_null = |text: &Option<Vec<u8>>| text.clone().unwrap_or_else(|| b"(null)".to_vec());
    let concat = |parts: &[&[u8]]| parts.concat();
    let text = match &note.what {
        Decision::Into(name) => concat(&[b"overriding mboxname with ", name]),
        Decision::Partition { to, was } => {
            concat(&[b"overriding partition with ", to, b" (was ", &or_null(was), b")"])
        }
        Decision::Acl { to, was } => {
            concat(&[b"overriding acl with '", to, b"' (was '", &or_null(was), b"')"])
        }
        Decision::NewIds => b"not trying to keep uidvalidity".to_vec(),
        Decision::KeepIds { uidvalidity, uniqueid, highestmodseq } => format!(
            "trying to keep uidvalidity({uidvalidity}), uniqueid({}), \
             highestmodseq({highestmodseq})",
            lossy(uniqueid)
        )
        .into_bytes(),
        Decision::Undeleted(was) => concat(&[b"removing deletedprefix (was ", was, b")"]),
        Decision::WithoutExpunged(guid) => {
            format!("excluding expunged message: {guid}").into_bytes()
        }
        Decision::WithoutLiving(guid) => {
            format!("excluding unexpunged message: {guid}").into_bytes()
        }
    };
    out.write_all(&concat(&[&or_null(&note.name), b": ", &text, b"\n"]))
}

/// What is going to be done.
pub(super) fn write_plan(
    plan: &Plan,
    view: &View<'_>,
    parts: &Parts,
    out: &mut dyn Write,
) -> io::Result<()> {
    for target in &plan.targets {
        writeln!(out, "{}: {}; {}", shown(&target.name), contents(target), promises(target))?;
    }
    if parts.has_state() {
        write_state(view, parts, out)?;
    }
    let sum = |figure: fn(&Target) -> u64| plan.targets.iter().map(figure).sum::<u64>();
    writeln!(
        out,
        "in all: {}, {}, {}",
        count(plan.targets.len() as u64, "mailbox", "mailboxes"),
        count(sum(|target| target.messages + target.expunged), "message", "messages"),
        octets(sum(|target| target.octets))
    )
}

fn contents(target: &Target) -> String {
    let mut text = count(target.messages, "message", "messages");
    if target.expunged > 0 {
        text += &format!(" and {} expunged", target.expunged);
    }
    text + ", " + &octets(target.octets)
}

fn promises(target: &Target) -> String {
    let first = target.sources.first().filter(|_| target.keep_ids);
    match first {
        Some(source) => {
            let more =
                if target.sources.len() > 1 { ", new UIDs for what is merged in" } else { "" };
            format!("keeps UIDVALIDITY {}, UIDs, modseqs{more}", source.mailbox.uidvalidity)
        }
        None => "new UIDs".into(),
    }
}

fn write_state(view: &View<'_>, parts: &Parts, out: &mut dyn Write) -> io::Result<()> {
    use crate::restore::Part;
    let index = view.index();
    let lengths = [
        (Part::Subscriptions, "subscription", index.subscriptions().map(|rows| rows.len())),
        (Part::Seen, "seen state", index.seen_states().map(|rows| rows.len())),
        (Part::Sieve, "sieve script", index.sieve_scripts().map(|rows| rows.len())),
        (Part::Quota, "quota root", index.quotas().map(|rows| rows.len())),
        (Part::Server, "server annotation", index.annotations(b"").map(|rows| rows.len())),
    ];
    for (part, what, len) in lengths {
        let len = len.unwrap_or(0) as u64;
        if parts.has(part) && len > 0 {
            writeln!(out, "{}", count(len, what, &format!("{what}s")))?;
        }
    }
    if parts.has(Part::Sieve)
        && let Ok(Some(active)) = index.active_script()
    {
        writeln!(out, "active sieve script: {}", shown(&active.filename))?;
    }
    Ok(())
}

/// What could not be restored, a line each, on standard error; returns whether there was any.
/// `duplicates`: what has arrived is restored once more by the same command.
pub(super) fn write_failures(
    label: &[u8],
    plan: &Plan,
    report: &Report,
    duplicates: bool,
    err: &mut dyn Write,
) -> io::Result<bool> {
    let mut tell = |text: &str| write_labelled(err, label, &harmless(text));
    for object in &plan.unknown {
        let what = match object {
            Object::Message(_) => "Message",
            Object::Mailbox { .. } | Object::Uniqueid(_) => "Mailbox",
        };
        tell(&format!("{}: {what} does not exist", lossy(&object.text())))?;
    }
    for mailbox in &report.mailboxes {
        let name = lossy(&mailbox.name);
        for (guid, why) in &mailbox.refused {
            tell(&format!("{name}: message {guid} is not restored: {why}"))?;
        }
        if let Some(why) = &mailbox.failed {
            tell(&format!("{name}: not restored: {why}"))?;
        }
    }
    for part in &report.state {
        if let StateOutcome::Failed(why) = &part.outcome {
            tell(&format!("{}: not restored: {why}", lossy(&part.what)))?;
        }
    }
    if let Some(why) = &report.ended {
        let last = report.mailboxes.last().and_then(|mailbox| mailbox.failed.as_ref());
        if last != Some(why) {
            tell(why)?;
        }
        if report.mailboxes.is_empty() {
            tell("nothing was restored")?;
            return Ok(true);
        }
        let complete = report.mailboxes.iter().filter(|mailbox| mailbox.is_whole()).count();
        let again = match duplicates {
            true => "without --duplicates goes on from there, with it restores all of it once more",
            false => "again goes on from there: what has arrived is not sent twice",
        };
        tell(&format!(
            "restored {}; mailboxes: {complete} complete, {} not, {} not reached. The same \
             command {again}",
            count(report.sum(|mailbox| mailbox.restored), "message", "messages"),
            report.mailboxes.len() - complete,
            plan.targets.len().saturating_sub(report.mailboxes.len())
        ))?;
    }
    Ok(!plan.unknown.is_empty() || !report.is_whole())
}

/// What was restored.
pub(super) fn write_report(report: &Report, keep_ids: bool, out: &mut dyn Write) -> io::Result<()> {
    for mailbox in &report.mailboxes {
        writeln!(out, "{}: {}", shown(&mailbox.name), outcome(mailbox, keep_ids))?;
    }
    for part in &report.state {
        let word = match part.outcome {
            StateOutcome::Restored => "restored",
            StateOutcome::Already => "was there",
            StateOutcome::Kept => "another one is there, and stays",
            StateOutcome::Failed(_) => "not restored",
        };
        writeln!(out, "{}: {word}", shown(&part.what))?;
    }
    writeln!(
        out,
        "in all: {}, {} restored ({} sent, {}), {} there before",
        count(report.mailboxes.len() as u64, "mailbox", "mailboxes"),
        count(report.sum(|mailbox| mailbox.restored), "message", "messages"),
        report.sum(|mailbox| mailbox.sent),
        octets(report.sum(|mailbox| mailbox.octets)),
        report.sum(|mailbox| mailbox.already)
    )
}

fn outcome(mailbox: &MailboxReport, keep_ids: bool) -> String {
    let mut text = if mailbox.created { "created, ".to_owned() } else { String::new() };
    text += &count(mailbox.restored, "message", "messages");
    text += " restored";
    if mailbox.already > 0 {
        text += &format!(", {} there before", mailbox.already);
    }
    if mailbox.kept_ids && mailbox.failed.is_none() {
        text += ", with the same UIDs";
    } else if keep_ids && mailbox.restored > 0 {
        text += ", with new UIDs because the mailbox is in use";
    }
    if let Some(holder) = &mailbox.uniqueid_taken_by {
        text += &format!(", another unique id because {} has it", shown(holder));
    }
    if !mailbox.refused.is_empty() {
        text += &format!(", {} not restored", mailbox.refused.len());
    }
    if mailbox.failed.is_some() {
        text += ", not complete";
    }
    text
}

/// A name as it is safe to show: whoever made it may have had other plans.
fn shown(name: &[u8]) -> String {
    harmless(&lossy(name)).into_owned()
}

fn count(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::restore::StateReport;

    #[test]
    fn names_do_not_steer_the_terminal() {
        let name = b"user.tom.\x1b[2J\n".to_vec();
        let failed = Some("no \x1b]0;x\x07".to_owned());
        let mailbox = MailboxReport { name: name.clone(), failed, ..MailboxReport::default() };
        let outcome = StateOutcome::Restored;
        let report = Report {
            mailboxes: vec![mailbox],
            state: vec![StateReport { what: name, outcome }],
            ended: Some("\x1b".into()),
            is_worth_a_retry: false,
        };
        let plan = Plan::default();
        let mut told = Vec::new();
        write_report(&report, false, &mut told).unwrap();
        assert!(write_failures(b"tom", &plan, &report, false, &mut told).unwrap());
        let lines = told.iter().filter(|c| **c == b'\n').count();
        let text = String::from_utf8(told).unwrap();
        assert_eq!(lines, 6, "{text}");
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        assert!(text.contains("tom: user.tom. [2J : not restored: no  ]0;x"), "{text}");
    }

    #[test]
    fn what_the_same_command_does_again_is_told() {
        let report = Report {
            mailboxes: vec![MailboxReport::default()],
            ended: Some("connection lost".into()),
            ..Report::default()
        };
        let told = |duplicates| {
            let mut told = Vec::new();
            write_failures(b"tom", &Plan::default(), &report, duplicates, &mut told).unwrap();
            String::from_utf8(told).unwrap()
        };
        assert!(told(false).ends_with("what has arrived is not sent twice\n"));
        assert!(told(true).ends_with("with it restores all of it once more\n"));
    }
}
