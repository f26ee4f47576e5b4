//! Several servers beside each other, for comparing what they cost while the machine has other
//! things to do as well.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use crate::csync::{Csync, Server};
use crate::mail::Mail;
use crate::mailbox::Mailbox;
use crate::modes::{deliver, verify};
use crate::process::cpu_of;

/// Rounds in front that do not count: what was on disk only is read.
const WARM_UP: u64 = 3;

#[derive(Args)]
pub(crate) struct Turns {
    /// HOST:PORT of each server, in place of `--server`.
    #[arg(long, required = true, value_delimiter = ',')]
    servers: Vec<String>,
    /// Their processes, whose CPU time is looked at.
    #[arg(long, required = true, value_delimiter = ',')]
    pids: Vec<u32>,
    /// Whose INBOX.
    #[arg(long, default_value = "load0")]
    name: String,
    /// Messages for each server.
    #[arg(long, default_value_t = 300)]
    rounds: u64,
    /// Does not ask afterwards for what was sent.
    #[arg(long)]
    unverified: bool,
}

/// One server's side.
struct Place {
    csync: Csync,
    mailbox: Mailbox,
    pid: u32,
    /// CPU time up to the end of its turn before.
    cpu: Duration,
}

/// New messages one at a time for each server in turn. Says after each turn how long it took, and
/// the CPU time of the server since its turn before.
pub(crate) fn turns(server: &Server, mail: &Mail, args: &Turns) -> Result<()> {
    ensure!(args.servers.len() == args.pids.len(), "as many processes as servers");
    let mut places = Vec::new();
    for (address, &pid) in args.servers.iter().zip(&args.pids) {
        let csync = Csync::login(&Server { address: address.clone(), ..server.clone() })?;
        let mailbox = Mailbox::new(&args.name, format!("user.{}", args.name));
        places.push(Place { csync, mailbox, pid, cpu: cpu_of(pid)? });
    }
    let mut out = std::io::stdout();
    let count = places.len();
    for round in 0..WARM_UP + args.rounds {
        for turn in 0..count {
            // Each comes first, second, ... as often as the others.
            let number = (usize::try_from(round)? + turn) % count;
            let place = &mut places[number];
            let message = mail.message(&place.mailbox.name, 2_000_000_000 + round);
            place.csync.waited = Duration::ZERO;
            deliver(&mut place.csync, &mut place.mailbox, message)?;
            let elapsed = place.csync.waited.as_nanos();
            let cpu = cpu_of(place.pid)?;
            let spent = cpu.saturating_sub(place.cpu).as_nanos();
            place.cpu = cpu;
            if let Some(round) = round.checked_sub(WARM_UP) {
                writeln!(out, "round={round} server={number} elapsed_ns={elapsed} cpu_ns={spent}")?;
            }
        }
    }
    for Place { csync, mailbox, .. } in &mut places {
        if !args.unverified {
            verify(csync, mailbox)?;
        }
        csync.ask(b"EXIT\r\n")?;
    }
    Ok(())
}
