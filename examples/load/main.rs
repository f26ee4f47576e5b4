//! A load driver for backup servers that speak Cyrus's replication protocol: the real `backupd`
//! or cyrbk.
//!
//! It says what `sync_client` says, in the same order and the same portions, checks every reply,
//! and afterwards asks the server for every mailbox to see that what was sent is there. Messages,
//! their SHA-1s and all commands are made before the clock starts, so that the server alone is
//! measured.
//!
//! ```text
//! cargo run --release --example load -- --server localhost:2005 --user admin --password secret \
//!     ingest --users 8 --messages 500 --connections 2
//! ```
//!
//! The result is one line of `name=value` words on standard output; of `turns` it is many.
#![allow(clippy::print_stdout)]

mod csync;
mod mail;
mod mailbox;
mod modes;
mod process;
mod restore;
mod turns;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::csync::Server;
use crate::mail::Mail;

#[derive(Parser)]
#[command(about = "Protocol load for a Cyrus backup server", version)]
struct Cli {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    mail: MailArgs,
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Args)]
struct ServerArgs {
    /// HOST:PORT of the server, spoken to in plain text.
    #[arg(long, default_value = "localhost:2005")]
    server: String,
    /// An administrator, logged in with PLAIN.
    #[arg(long, default_value = "admin")]
    user: String,
    #[arg(long, default_value = "secret")]
    password: String,
    /// Compress, as sync_client does wherever it is offered.
    #[arg(long)]
    compress: bool,
}

#[derive(Args)]
struct MailArgs {
    /// A folder of messages, one a file; without it the mail of this project's tests.
    #[arg(long)]
    mail: Option<PathBuf>,
    /// Cuts messages to this many octets.
    #[arg(long)]
    max_size: Option<usize>,
    /// Part of every message's header: the same number gives the same messages.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Subcommand)]
enum Mode {
    /// First replication of new users.
    Ingest(modes::Ingest),
    /// New messages one at a time, with RESTART after each, into a user's INBOX.
    Trickle(modes::Trickle),
    /// The same for several servers in turn, message by message: one line of output for each.
    Turns(turns::Turns),
    /// Connections that are logged in and say nothing.
    Idle(modes::Idle),
    /// What a restoring program costs, with this one as the mail server that it restores to.
    Restore(restore::Restore),
    /// No load: what a program costs to run.
    Measure { words: Vec<OsString> },
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let ServerArgs { server, user, password, compress } = cli.server;
    let server = Server { address: server, user, password, compress };
    let MailArgs { mail, max_size, seed } = cli.mail;
    let mail = || Mail::load(mail.as_deref(), max_size, seed);
    let report = match cli.mode {
        Mode::Turns(args) => return turns::turns(&server, &mail()?, &args),
        Mode::Ingest(args) => modes::ingest(&server, &mail()?, &args)?,
        Mode::Trickle(args) => modes::trickle(&server, &mail()?, &args)?,
        Mode::Idle(args) => modes::idle(&server, &args)?,
        Mode::Restore(args) => restore::restore(&args)?,
        Mode::Measure { words } => modes::measure(&words)?,
    };
    println!("{report}");
    Ok(())
}
