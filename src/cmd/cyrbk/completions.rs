//! `cyrbk completions`: what a shell needs to complete words.

use clap::Args;
use clap_complete::{Shell, generate};

use crate::cmd::{Exit, Stop, Streams};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cyrbk completions bash > /etc/bash_completion.d/cyrbk
  cyrbk completions zsh > /usr/local/share/zsh/site-functions/_cyrbk
  cyrbk completions fish > /etc/fish/completions/cyrbk.fish")]
pub(super) struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

pub(super) fn run(
    args: &CompletionsArgs,
    mut parser: clap::Command,
    streams: &mut Streams<'_>,
) -> Result<Exit, Stop> {
    // It panics where it cannot write: a pipe may be closed.
    let mut text = Vec::new();
    generate(args.shell, &mut parser, "cyrbk", &mut text);
    streams.out.write_all(&text)?;
    Ok(Exit::Ok)
}
