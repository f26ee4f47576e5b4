//! The words of `cyrbk passwd`.

use std::io::IsTerminal;

use anyhow::bail;
use clap::Args;

use super::conclude;
use super::select::ConfigArg;
use crate::cmd::json::Json;
use crate::cmd::service::{self, Misconfigured};
use crate::cmd::{Exit, Stop, Streams, directories, passwd, site, startup};
use crate::config::Settings;
use crate::sync::auth::is_admin;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cyrbk passwd backup                 asks for the password
  cyrbk passwd backup < file          takes the first line of a file
  cyrbk passwd --delete backup")]
pub(super) struct PasswdArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Whose password
    user: String,
    /// Take the user out of the password file
    #[arg(long)]
    delete: bool,
    /// Say in JSON that it was done
    #[arg(long)]
    json: bool,
}

/// As the Cyrus user: the server has to read the file.
pub(super) fn run(args: &PasswdArgs, streams: &mut Streams<'_>) -> Result<Exit, Stop> {
    // What `backupd_admins` and the like say counts: it is the server's users that are meant.
    let settings = startup::start(service::SERVICE, Some(&args.config.config), streams)?;
    let exit = conclude(set_password(args, &settings, streams), streams)?;
    if args.json && exit == Exit::Ok {
        json(args).write(streams.out)?;
    }
    Ok(exit)
}

fn json(args: &PasswdArgs) -> Json {
    let text = |text: &str| Some(Json::Text(text.to_owned()));
    Json::object([
        ("command", text("passwd")),
        ("userid", text(&args.user)),
        ("status", text(if args.delete { "removed" } else { "ok" })),
    ])
}

fn set_password(
    args: &PasswdArgs,
    settings: &Settings,
    streams: &mut Streams<'_>,
) -> anyhow::Result<()> {
    if let Some(missing) = directories::without_configdirectory(settings) {
        bail!(Misconfigured(missing));
    }
    let stdin = std::io::stdin();
    let request = passwd::Request {
        user: &args.user,
        file: &settings.password_file,
        names: &site::name_policy(settings),
        remove: args.delete,
    };
    let is_tty = stdin.is_terminal();
    let user = passwd::run(request, stdin.lock(), is_tty)?;
    if !args.delete && !is_admin(&settings.admins, &user) {
        let config = settings.config_file.display();
        writeln!(streams.err, "{user} may not replicate yet: admins of {config} does not name it")?;
    }
    Ok(())
}
