//! What can be asked of a server, and what came of it.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::csync::{Csync, Server};
use crate::mail::{Mail, Message};
use crate::mailbox::{Command, Mailbox, field, upload};
use crate::process::{self, Cost, own_cpu, tree_memory};

#[derive(Args)]
pub(crate) struct Ingest {
    #[arg(long, default_value_t = 4)]
    users: usize,
    /// Users are called NAME0, NAME1, ...
    #[arg(long, default_value = "load")]
    name: String,
    /// Messages of each user.
    #[arg(long, default_value_t = 1000)]
    messages: u64,
    /// In place of `--messages`: about so many octets of messages for each user.
    #[arg(long)]
    octets: Option<u64>,
    /// Folders of each user, among which the messages are divided evenly.
    #[arg(long, default_value_t = 4)]
    folders: u64,
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// In how many portions a user's messages come, with RESTART after each: each becomes a chunk
    /// of its backup.
    #[arg(long, default_value_t = 1)]
    portions: u64,
    /// Does not ask afterwards for what was sent.
    #[arg(long)]
    unverified: bool,
}

#[derive(Args)]
pub(crate) struct Trickle {
    /// Whose INBOX; made if it is not there. Several users, with commas between, take turns: the
    /// time is that of the first one's messages.
    #[arg(long, default_value = "load0", value_delimiter = ',')]
    name: Vec<String>,
    /// Messages of each user.
    #[arg(long, default_value_t = 20)]
    rounds: u64,
}

#[derive(Args)]
pub(crate) struct Idle {
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// The server's process, whose memory is looked at.
    #[arg(long)]
    pid: u32,
}

/// `name=value` words.
pub(crate) struct Report(pub(crate) Vec<(&'static str, u128)>);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            let blank = if index > 0 { " " } else { "" };
            write!(f, "{blank}{name}={value}")?;
        }
        Ok(())
    }
}

/// What one user has, and the commands that bring it to the server.
struct User {
    mailboxes: Vec<Mailbox>,
    commands: Vec<Command>,
}

fn make_user(name: &str, mail: &Mail, messages: u64, args: &Ingest) -> User {
    let mut mailboxes: Vec<Mailbox> = (0..args.folders.max(1))
        .map(|folder| match folder {
            0 => Mailbox::new(name, format!("user.{name}")),
            _ => Mailbox::new(name, format!("user.{name}.Folder{folder}")),
        })
        .collect();
    let mut commands = Vec::new();
    let steps = args.portions.max(1) * mailboxes.len() as u64;
    let mut number = 0;
    for portion in 0..args.portions.max(1) {
        commands.push(Command::plain(format!("GET USER {name}\r\n")));
        for (index, mailbox) in mailboxes.iter_mut().enumerate() {
            let step = portion * (steps / args.portions.max(1)) + index as u64;
            let until = messages * (step + 1) / steps;
            let these: Vec<Message> = (number..until).map(|n| mail.message(name, n)).collect();
            number = until;
            if portion > 0 {
                commands.extend(mailbox.reserve(&these));
            }
            commands.extend(upload(&these));
            commands.push(mailbox.add(&these));
        }
        if portion == 0 {
            commands.push(Command::plain(format!(
                "APPLY QUOTA %(ROOT user.{name} LIMIT 1000 STORAGE 1000 MODSEQ 3)\r\n"
            )));
            commands.push(Command::plain(format!(
                "APPLY SUB %(USERID {name} MBOXNAME user.{name})\r\n"
            )));
        }
        commands.push(Command::plain("RESTART\r\n"));
    }
    User { mailboxes, commands }
}

/// First replication of users that the server has never seen.
pub(crate) fn ingest(server: &Server, mail: &Mail, args: &Ingest) -> Result<Report> {
    let messages = args.octets.map_or(args.messages, |octets| octets / mail.mean_size());
    let mut shares: Vec<Vec<usize>> = vec![Vec::new(); args.connections.max(1)];
    for user in 0..args.users {
        let share = user % shares.len();
        shares[share].push(user);
    }
    let barrier = Barrier::new(shares.len());
    let results: Vec<Result<Share>> = std::thread::scope(|scope| {
        let threads: Vec<_> = shares
            .iter()
            .map(|users| {
                scope.spawn(|| {
                    let made: Vec<User> = users
                        .iter()
                        .map(|user| {
                            let name = format!("{}{user}", args.name);
                            make_user(&name, mail, messages, args)
                        })
                        .collect();
                    send_share(server, made, &barrier, args.unverified)
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|result| result.unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked"))))
            .collect()
    });
    let shares = results.into_iter().collect::<Result<Vec<_>>>()?;
    let first = shares.iter().map(|share| share.started).min().context("no connection")?;
    let last = shares.iter().map(|share| share.ended).max().context("no connection")?;
    let cpu = shares.iter().map(|share| share.cpu).max().unwrap_or_default();
    Ok(Report(vec![
        ("messages", shares.iter().map(|share| share.messages as u128).sum()),
        ("octets", shares.iter().map(|share| share.octets as u128).sum()),
        ("elapsed_ns", (last - first).as_nanos()),
        ("client_cpu_ns", cpu.as_nanos()),
    ]))
}

/// What one connection did.
struct Share {
    messages: usize,
    octets: usize,
    started: Instant,
    ended: Instant,
    cpu: Duration,
}

fn send_share(
    server: &Server,
    users: Vec<User>,
    barrier: &Barrier,
    unverified: bool,
) -> Result<Share> {
    let login = Csync::login(server).and_then(|mut csync| {
        let mut commands = Vec::new();
        let mut mailboxes = Vec::new();
        for user in users {
            mailboxes.extend(user.mailboxes);
            for Command { octets, messages, message_octets } in user.commands {
                let octets = csync.encode(octets)?;
                commands.push(Command { octets, messages, message_octets });
            }
        }
        Ok((csync, commands, mailboxes))
    });
    // Reached also after a failure: the others wait.
    barrier.wait();
    let (mut csync, commands, mailboxes) = login?;
    let (started, cpu) = (Instant::now(), own_cpu());
    for command in &commands {
        csync.ask_encoded(&command.octets)?;
    }
    let (ended, cpu) = (Instant::now(), own_cpu().saturating_sub(cpu));
    if !unverified {
        for mailbox in &mailboxes {
            verify(&mut csync, mailbox)?;
        }
    }
    csync.ask(b"EXIT\r\n")?;
    let messages = commands.iter().map(|command| command.messages).sum();
    let octets = commands.iter().map(|command| command.message_octets).sum();
    Ok(Share { messages, octets, started, ended, cpu })
}

/// Fails unless the server gives back a record for each message that was sent. It leaves out those
/// whose message it does not have.
pub(crate) fn verify(csync: &mut Csync, mailbox: &Mailbox) -> Result<()> {
    let name = &mailbox.name;
    let lines = csync.ask(format!("GET FULLMAILBOX {name}\r\n").as_bytes())?;
    csync.ask(b"RESTART\r\n")?;
    let text = lines.concat();
    let mut there = HashSet::new();
    for record in text.split("%(UID ").skip(1) {
        there.insert(field(record, "GUID").context("a record without GUID")?.to_owned());
    }
    let missing = mailbox.guids.iter().filter(|guid| !there.contains(&guid.to_string())).count();
    ensure!(missing == 0, "{missing} of {} messages are not in {name}", mailbox.guids.len());
    Ok(())
}

/// New messages one at a time, as rolling replication brings them.
pub(crate) fn trickle(server: &Server, mail: &Mail, args: &Trickle) -> Result<Report> {
    let mut csync = Csync::login(server)?;
    let inbox = |name: &String| Mailbox::new(name, format!("user.{name}"));
    let mut mailboxes: Vec<Mailbox> = args.name.iter().map(inbox).collect();
    let mut rounds = Vec::new();
    let mut octets = 0;
    let cpu = own_cpu();
    for round in 0..args.rounds {
        for (turn, mailbox) in mailboxes.iter_mut().enumerate() {
            let message = mail.message(&mailbox.name, 1_000_000_000 + round);
            octets += message.octets.len();
            csync.waited = Duration::ZERO;
            deliver(&mut csync, mailbox, message)?;
            if turn == 0 {
                rounds.push(csync.waited);
            }
        }
    }
    let cpu = own_cpu().saturating_sub(cpu);
    mailboxes.iter().try_for_each(|mailbox| verify(&mut csync, mailbox))?;
    csync.ask(b"EXIT\r\n")?;
    let total: Duration = rounds.iter().sum();
    rounds.sort();
    Ok(Report(vec![
        ("messages", (rounds.len() * mailboxes.len()) as u128),
        ("octets", octets as u128),
        ("elapsed_ns", total.as_nanos()),
        ("median_ns", rounds.get(rounds.len() / 2).map_or(0, Duration::as_nanos)),
        ("client_cpu_ns", cpu.as_nanos()),
    ]))
}

pub(crate) fn deliver(csync: &mut Csync, mailbox: &mut Mailbox, message: Message) -> Result<()> {
    let messages = [message];
    let lines = csync.ask(format!("GET MAILBOXES ({})\r\n", mailbox.name).as_bytes())?;
    if let Some(line) = lines.first() {
        mailbox.resume(line).context("a MAILBOX line without its fields")?;
        for command in mailbox.reserve(&messages) {
            csync.ask(&command.octets)?;
        }
    }
    for command in upload(&messages) {
        csync.ask(&command.octets)?;
    }
    csync.ask(&mailbox.add(&messages).octets)?;
    csync.ask(b"RESTART\r\n")?;
    Ok(())
}

/// Connections that say nothing; how much more memory the server has with them.
pub(crate) fn idle(server: &Server, args: &Idle) -> Result<Report> {
    // The first ones also pay for what is made once.
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(Csync::login(server)?);
    }
    std::thread::sleep(Duration::from_millis(200));
    let before = tree_memory(args.pid);
    for _ in 0..args.connections {
        open.push(Csync::login(server)?);
    }
    std::thread::sleep(Duration::from_millis(200));
    let after = tree_memory(args.pid);
    for mut csync in open {
        csync.ask(b"NOOP\r\n")?;
    }
    let each = after.saturating_sub(before) / args.connections.max(1) as u64;
    Ok(Report(vec![
        ("connections", args.connections as u128),
        ("before_octets", before.into()),
        ("after_octets", after.into()),
        ("each_octets", each.into()),
    ]))
}

/// What a program costs; fails as it fails.
pub(crate) fn measure(words: &[OsString]) -> Result<Report> {
    let Cost { code, elapsed, cpu, peak } = process::run(words)?;
    ensure!(code == Some(0), "exit code {code:?}");
    Ok(Report(vec![
        ("elapsed_ns", elapsed.as_nanos()),
        ("cpu_ns", cpu.as_nanos()),
        ("peak_octets", peak.into()),
    ]))
}
