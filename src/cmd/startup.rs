//! What every tool does between its words and its work.

use std::fmt::Display;
use std::io;
use std::path::Path;

use nix::sys::stat::{Mode, umask};

use super::identity::become_cyrus;
use super::{Exit, Stop, Streams, log};
use crate::config::Settings;

/// The configuration file where `-C` names none.
pub(super) const DEFAULT_CONFIG: &str = "/etc/imapd.conf";

/// Reads the configuration for the tool `ident`, becomes the Cyrus user, sets the
/// umask, and opens syslog: in this order, so that root can be the only one to read the file.
///
/// What is wrong has been printed when this returns an error.
pub(super) fn start(
    ident: &'static str,
    config: Option<&Path>,
    streams: &mut Streams<'_>,
) -> Result<Settings, Stop> {
    let config = config.unwrap_or(Path::new(DEFAULT_CONFIG));
    let settings = match Settings::load(config, ident) {
        Ok(settings) => settings,
        Err(error) => return Err(fatal(ident, &error, Exit::Config, streams)?),
    };
    if let Err(error) = become_cyrus(&settings) {
        return Err(fatal(ident, &error, Exit::Usage, streams)?);
    }
    umask(Mode::from_bits_truncate(settings.umask));
    log::start(&settings, log::Target::Tool { ident });
    Ok(settings)
}

/// Says it as Cyrus's tools do: `restore` spells it otherwise, and tells syslog too.
pub(super) fn fatal(
    ident: &str,
    error: &dyn Display,
    exit: Exit,
    streams: &mut Streams<'_>,
) -> io::Result<Stop> {
    if ident == "restore" {
        let text = format!("Fatal error: {error}");
        log::send_early(ident, &text);
        writeln!(streams.err, "{text}")?;
    } else {
        writeln!(streams.err, "fatal error: {error}")?;
    }
    Ok(Stop::Exit(exit))
}
