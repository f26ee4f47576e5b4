//! Where log lines go: standard error in the foreground, syslog as a service.
//!
//! A line is a fixed text, or Cyrus's own words where log watchers look for them. A
//! journal reads both: its `/dev/log`, and standard error with the level in front.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{Settings, SyslogFacility};
use crate::sync::server::NOTICE;

/// Where the system's log takes messages.
const SYSLOG_SOCKET: &str = "/dev/log";
/// How long the log may make everybody wait for one line.
const SYSLOG_PATIENCE: Duration = Duration::from_millis(200);

/// The prefix that Debian's build has until the configuration says something about syslog.
const DEFAULT_PREFIX: &str = "cyrus";
/// The number of `LOG_ERR`.
const ERR: u8 = 3;

/// Where a program logs to.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// Standard error, with levels where a journal reads it.
    Stderr,
    /// syslog under this name, or standard error where there is no syslog.
    Syslog {
        /// The service name.
        ident: String,
    },
    /// syslog under this name, or nowhere: what a tool prints is for whoever runs it.
    Tool {
        /// The tool's name.
        ident: &'static str,
    },
}

/// What tools log: their own lines, and what was mended on the way.
const TOOL_FILTER: &str =
    "off,cyrbk::cmd=info,cyrbk::store::recover=warn,cyrbk::store::backup=warn";

/// Starts logging; `RUST_LOG` overrides how much.
pub(super) fn start(settings: &Settings, target: Target) {
    let default = match target {
        Target::Tool { .. } => &format!("{TOOL_FILTER},{NOTICE}=info"),
        _ if settings.debug => "debug",
        _ => "info",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(false)
        .without_time();
    let _ = match sink(settings, target) {
        Some(Sink::Nothing) => return,
        Some(sink) => builder.with_level(false).with_writer(sink).try_init(),
        None => builder.with_writer(io::stderr).try_init(),
    };
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
}

/// Tells syslog at ERR why a program ends before it has settings, as Cyrus does: under master
/// nobody reads standard error.
pub(super) fn send_early(ident: &str, text: &str) {
    let prefix = prefix().unwrap_or_else(|| DEFAULT_PREFIX.to_owned());
    if let Some(syslog) = Syslog::open(facility(None), tagged(&prefix, ident)) {
        syslog.send(ERR, &one_line(text));
    }
}

/// The environment's part of the tag.
fn prefix() -> Option<String> {
    std::env::var("CYRUS_SYSLOG_PREFIX").ok()
}

/// `None` for a person at a terminal.
fn sink(settings: &Settings, target: Target) -> Option<Sink> {
    let (ident, otherwise) = match target {
        Target::Stderr => (None, None),
        Target::Syslog { ident } => (Some(ident), None),
        Target::Tool { ident } => (Some(ident.to_owned()), Some(Sink::Nothing)),
    };
    if let Some(ident) = ident {
        let tag = tag(settings, prefix().as_deref(), &ident);
        if let Some(syslog) = Syslog::open(facility(settings.syslog_facility), tag) {
            return Some(Sink::Syslog(syslog));
        }
    }
    if otherwise.is_some() {
        return otherwise;
    }
    // inetd leaves the client on standard error as well.
    if is_same_socket(&io::stdin(), &io::stderr()) {
        return Some(Sink::Nothing);
    }
    std::env::var_os("JOURNAL_STREAM").is_some().then_some(Sink::Journal)
}

fn is_same_socket(one: &impl AsFd, other: &impl AsFd) -> bool {
    match (rustix::fs::fstat(one), rustix::fs::fstat(other)) {
        (Ok(one), Ok(other)) => {
            let is_socket = rustix::fs::FileType::from_raw_mode(one.st_mode).is_socket();
            is_socket && (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
        }
        _ => false,
    }
}

/// `prefix/ident`; Debian's prefix `cyrus` stays unless the configuration says something
/// about syslog.
fn tag(settings: &Settings, prefix: Option<&str>, ident: &str) -> String {
    let says_nothing = settings.syslog_facility.is_none();
    let prefix =
        prefix.or(settings.syslog_prefix.as_deref()).or(says_nothing.then_some(DEFAULT_PREFIX));
    tagged(prefix.unwrap_or_default(), ident)
}

fn tagged(prefix: &str, ident: &str) -> String {
    if prefix.is_empty() { ident.to_owned() } else { format!("{prefix}/{ident}") }
}

/// The number of a facility, as in RFC 5424; `mail` unless set.
fn facility(facility: Option<SyslogFacility>) -> u8 {
    match facility {
        None | Some(SyslogFacility::Mail) => 2,
        Some(SyslogFacility::Daemon) => 3,
        Some(SyslogFacility::News) => 7,
        Some(SyslogFacility::User) => 1,
        Some(SyslogFacility::Local(number)) => 16 + number.min(7),
    }
}

/// The number of a level, as in RFC 5424.
fn severity(event: &Metadata<'_>) -> u8 {
    match *event.level() {
        _ if event.target() == NOTICE => 5,
        Level::ERROR => ERR,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

#[derive(Debug)]
enum Sink {
    Journal,
    Nothing,
    Syslog(Syslog),
}

#[derive(Debug)]
struct Syslog {
    socket: UnixDatagram,
    path: PathBuf,
    facility: u8,
    tag: String,
}

impl Syslog {
    /// `None` where there is no syslog.
    fn open(facility: u8, tag: String) -> Option<Syslog> {
        let socket = UnixDatagram::unbound().ok()?;
        std::fs::metadata(SYSLOG_SOCKET).ok()?;
        let _ = socket.set_write_timeout(Some(SYSLOG_PATIENCE));
        Some(Syslog { socket, path: SYSLOG_SOCKET.into(), facility, tag })
    }

    /// One message in the form of RFC 3164 as `/dev/log` takes it. What the log does
    /// not take is lost.
    fn send(&self, severity: u8, text: &str) {
        let priority = self.facility * 8 + severity;
        let time = jiff::Zoned::now().strftime("%b %e %H:%M:%S");
        let (tag, pid) = (&self.tag, std::process::id());
        let message = format!("<{priority}>{time} {tag}[{pid}]: {text}");
        let _ = self.socket.send_to(message.as_bytes(), &self.path);
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { sink: self, severity: 6, text: Vec::new() }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Line<'a> {
        Line { sink: self, severity: severity(event), text: Vec::new() }
    }
}

/// One event, sent when it is complete.
struct Line<'a> {
    sink: &'a Sink,
    severity: u8,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let text = one_line(&String::from_utf8_lossy(&self.text));
        match self.sink {
            Sink::Nothing => {}
            Sink::Journal => {
                let _ = writeln!(io::stderr(), "<{}>{text}", self.severity);
            }
            Sink::Syslog(syslog) => syslog.send(self.severity, &text),
        }
    }
}

/// One event is one line, whatever a client has put into it.
fn one_line(text: &str) -> String {
    text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::ImapdConf;

    fn settings(text: &str) -> Settings {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("configdirectory: /conf\n{text}")).unwrap();
        let conf = ImapdConf::read(file.path(), None).unwrap();
        Settings::from_conf(&conf, "backupd").unwrap()
    }

    #[test]
    fn tags_are_those_of_debian() {
        for (text, prefix, expected) in [
            ("", None, "cyrus/backupd"),
            ("syslog_prefix: mx\n", None, "mx/backupd"),
            ("syslog_prefix: mx\n", Some("env"), "env/backupd"),
            ("syslog_facility: LOCAL6\n", None, "backupd"),
            ("syslog_facility: LOCAL6\nsyslog_prefix: mx\n", None, "mx/backupd"),
        ] {
            assert_eq!(tag(&settings(text), prefix, "backupd"), expected, "{text}");
        }
    }

    #[test]
    fn a_client_on_standard_error_is_noticed() {
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(is_same_socket(&one, &one.try_clone().unwrap()));
        assert!(!is_same_socket(&one, &other));
        let file = tempfile::tempfile().unwrap();
        assert!(!is_same_socket(&file, &file));
    }

    #[test]
    fn lines_arrive_with_facility_level_and_tag() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = UnixDatagram::bind(&path).unwrap();
        let sink = Sink::Syslog(Syslog {
            socket: UnixDatagram::unbound().unwrap(),
            path,
            facility: facility(None),
            tag: "cyrus/backupd".into(),
        });
        let subscriber = tracing_subscriber::fmt()
            .with_target(false)
            .with_ansi(false)
            .without_time()
            .with_level(false)
            .with_writer(sink)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: NOTICE, "login: {}", "a\nb");
            tracing::error!(path = "x", "cannot");
        });
        let mut buffer = [0; 200];
        let mut receive = || {
            let len = log.recv(&mut buffer).unwrap();
            let text = std::str::from_utf8(&buffer[..len]).unwrap();
            let (priority, rest) = text.split_once('>').unwrap();
            // The time stands between: `Nov  9 12:00:00 `.
            format!("{priority}>{}", &rest[16..])
        };
        let pid = std::process::id();
        assert_eq!(receive(), format!("<21>cyrus/backupd[{pid}]: login: a b"));
        assert_eq!(receive(), format!("<19>cyrus/backupd[{pid}]: cannot path=\"x\""));
    }
}
