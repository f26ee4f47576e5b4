//! What restore says: plans, progress in Cyrus's words, reports.

use std::io::{self, Write};

use crate::cmd::people::octets;
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
        out.write_all(&target.name)?;
        writeln!(out, ": {}; {}", contents(target), promises(target))?;
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
        writeln!(out, "active sieve script: {}", lossy(&active.filename))?;
    }
    Ok(())
}

/// What could not be restored, a line each, on standard error; returns whether there was any.
pub(super) fn write_failures(
    label: &[u8],
    plan: &Plan,
    report: &Report,
    err: &mut dyn Write,
) -> io::Result<bool> {
    for object in &plan.unknown {
        let what = match object {
            Object::Message(_) => "Message",
            Object::Mailbox { .. } | Object::Uniqueid(_) => "Mailbox",
        };
        let text = format!("{}: {what} does not exist", lossy(&object.text()));
        write_labelled(err, label, &text)?;
    }
    for mailbox in &report.mailboxes {
        let name = lossy(&mailbox.name);
        for (guid, why) in &mailbox.refused {
            let text = format!("{name}: message {guid} is not restored: {why}");
            write_labelled(err, label, &text)?;
        }
        if let Some(why) = &mailbox.failed {
            write_labelled(err, label, &format!("{name}: not restored: {why}"))?;
        }
    }
    for part in &report.state {
        if let StateOutcome::Failed(why) = &part.outcome {
            let text = format!("{}: not restored: {why}", lossy(&part.what));
            write_labelled(err, label, &text)?;
        }
    }
    if let Some(why) = &report.ended {
        let last = report.mailboxes.last().and_then(|mailbox| mailbox.failed.as_ref());
        if last != Some(why) {
            write_labelled(err, label, why)?;
        }
        if report.mailboxes.is_empty() {
            write_labelled(err, label, "nothing was restored")?;
            return Ok(true);
        }
        let complete = report.mailboxes.iter().filter(|mailbox| mailbox.is_whole()).count();
        let text = format!(
            "restored {}; mailboxes: {complete} complete, {} not, {} not reached. The same \
             command again goes on from there: what has arrived is not sent twice",
            count(report.sum(|mailbox| mailbox.restored), "message", "messages"),
            report.mailboxes.len() - complete,
            plan.targets.len().saturating_sub(report.mailboxes.len())
        );
        write_labelled(err, label, &text)?;
    }
    Ok(!plan.unknown.is_empty() || !report.is_whole())
}

/// What was restored.
pub(super) fn write_report(report: &Report, keep_ids: bool, out: &mut dyn Write) -> io::Result<()> {
    for mailbox in &report.mailboxes {
        out.write_all(&mailbox.name)?;
        writeln!(out, ": {}", outcome(mailbox, keep_ids))?;
    }
    for part in &report.state {
        let word = match part.outcome {
            StateOutcome::Restored => "restored",
            StateOutcome::Already => "was there",
            StateOutcome::Kept => "another one is there, and stays",
            StateOutcome::Failed(_) => "not restored",
        };
        out.write_all(&part.what)?;
        writeln!(out, ": {word}")?;
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
        text += &format!(", another unique id because {} has it", lossy(holder));
    }
    if !mailbox.refused.is_empty() {
        text += &format!(", {} not restored", mailbox.refused.len());
    }
    if mailbox.failed.is_some() {
        text += ", not complete";
    }
    text
}

fn count(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
