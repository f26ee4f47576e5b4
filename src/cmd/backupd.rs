//! `backupd`: the server as Cyrus's master starts it from cyrus.conf, or, with `-X`,
//! one session on standard input and output.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use nix::sys::stat::{Mode, umask};

use super::exit::in_full;
use super::identity::become_cyrus;
use super::{Exit, hosts_access, inherited, log, service};
use crate::config::Settings;
use crate::sync::Door;
use crate::sync::server::{
    Ended, Listener, Manager, Peer, Program, Retirement, ServerSettings, Stream, TlsFiles,
};

/// Where master's status pipe is.
const STATUS_FD: RawFd = 3;
/// Where the socket is that master listens on.
const LISTEN_FD: RawFd = 4;

/// The words of the command line.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    config: PathBuf,
    /// `-U`: connections after which the process leaves; 0 for never.
    uses: u64,
    /// `-T`: seconds without a connection after which it does; 0 for never.
    timeout: u64,
    /// `-p`: strength in bits of a layer outside that protects the channel.
    ssf: u64,
    /// `-s`: TLS from the first octet on.
    tls_first: bool,
    /// `-X`: one session on standard input and output.
    stdio: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            config: "/etc/imapd.conf".into(),
            uses: 250,
            timeout: 60,
            ssf: 0,
            tls_first: false,
            stdio: false,
        }
    }
}

/// Says why the service cannot start, in Cyrus's words: to syslog, because master leaves no
/// standard error, and there for whoever starts it by hand.
fn fatal(text: &str, exit: Exit) -> Exit {
    log::send_early(&variable("CYRUS_SERVICE").unwrap_or_else(|| service::SERVICE.into()), text);
    eprintln!("backupd: {text}");
    exit
}

/// What master says in the environment.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Runs the service; `args` begin with the program's name.
pub(super) fn run(args: &[OsString]) -> Exit {
    let options = match parse(args) {
        Ok(options) => options,
        Err(text) => return fatal(&text, Exit::Usage),
    };
    let Some(ident) = variable("CYRUS_SERVICE") else {
        return fatal("could not getenv(CYRUS_SERVICE); exiting", Exit::Software);
    };
    if variable("CYRUS_ID").is_none() {
        return fatal("could not getenv(CYRUS_ID); exiting", Exit::Software);
    }
    let settings = match Settings::load(&options.config, &ident) {
        Ok(settings) => settings,
        Err(error) => return fatal(&format!("Fatal error: {error}"), Exit::Config),
    };
    log::start(&settings, log::Target::Syslog { ident: ident.clone() });
    if let Err(error) = service::check(&settings) {
        tracing::error!("{}", in_full(&error));
        return Exit::Config;
    }
    hosts_access::warn_of_rules(&ident);
    service::raise_descriptor_limit();
    let program = Program::own().inspect_err(|error| {
        tracing::warn!(%error, "a new program will not be noticed");
    });
    // Master has done this already; by hand it may be root.
    if let Err(error) = become_cyrus(&settings) {
        return fatal(&format!("Fatal error: {error}"), Exit::Usage);
    }
    umask(Mode::from_bits_truncate(settings.umask));
    service::warn_of_directories(&settings);
    let ended = if options.stdio {
        serve_stdio(&options, &settings, &ident)
    } else {
        serve_master(&options, &settings, &ident, program.ok())
    };
    match ended {
        Ok(Ended::Retired) => Exit::Ok,
        // Cyrus's services end with this on SIGTERM, and master knows it.
        Ok(Ended::Signal) => Exit::TempFail,
        Err(error) => {
            tracing::error!("{}", in_full(&error));
            if error.is::<service::Misconfigured>() { Exit::Config } else { Exit::Failure }
        }
    }
}

/// The settings under the name that master has for this service.
///
/// Cyrus's backupd never opens its certificates: a site whose files cannot be used goes on as it
/// was, without TLS. With `-s` it does not, because clients would be listened to in the clear.
fn server_settings(options: &Options, settings: &Settings, ident: &str) -> ServerSettings {
    let mut server_settings = service::server_settings(settings);
    ident.clone_into(&mut server_settings.telemetry.service);
    if !options.tls_first
        && let Some(Err(error)) = server_settings.tls.as_ref().map(TlsFiles::load)
    {
        tracing::error!("TLS: {error}; STARTTLS is not offered");
        server_settings.tls = None;
    }
    server_settings
}

/// `-s` was never heeded by Cyrus's backupd: a site that has it and no certificate goes on
/// as it was.
fn wants_tls_first(options: &Options, server: &ServerSettings) -> bool {
    if options.tls_first && server.tls.is_none() {
        tracing::warn!("-s needs tls_server_cert and tls_server_key, and is ignored");
    }
    options.tls_first && server.tls.is_some()
}

/// Under master: its socket, its status pipe, its ways to be replaced.
fn serve_master(
    options: &Options,
    settings: &Settings,
    ident: &str,
    program: Option<Program>,
) -> anyhow::Result<Ended> {
    let take = |number| -> anyhow::Result<OwnedFd> {
        let copy = inherited::duplicate(number)
            .map_err(|e| anyhow::anyhow!("descriptor {number}, which master leaves open: {e}"))?;
        inherited::close(number);
        Ok(copy)
    };
    let server_settings = server_settings(options, settings, ident);
    let status = take(STATUS_FD)?;
    let listener = Listener::inherited(take(LISTEN_FD)?)?
        .with_tls_first(wants_tls_first(options, &server_settings))
        .with_protection(options.ssf > 1);
    let retirement = Retirement {
        connections: Some(options.uses).filter(|&uses| uses > 0),
        idle_time: Some(Duration::from_secs(options.timeout)).filter(|time| !time.is_zero()),
        on_hangup: true,
        when_empty: false,
        on_change: program,
    };
    let manager = Manager::Master(status.into());
    let server = service::server(server_settings, vec![listener], manager, retirement)?;
    Ok(server.run()?)
}

/// One session. A network socket on standard input is a client like any other; whoever
/// holds anything else may do everything.
fn serve_stdio(options: &Options, settings: &Settings, ident: &str) -> anyhow::Result<Ended> {
    let retirement = Retirement { when_empty: true, ..Retirement::default() };
    let server_settings = server_settings(options, settings, ident);
    let tls_first = wants_tls_first(options, &server_settings);
    let has_tls = server_settings.tls.is_some();
    let mut server = service::server(server_settings, Vec::new(), Manager::None, retirement)?;
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    if let Some(address) = network_peer(&stdin)? {
        let socket = std::net::TcpStream::from(stdin);
        socket.set_nonblocking(true)?;
        let door = Door {
            is_trusted: false,
            offers_tls: has_tls && !tls_first,
            tls_first,
            is_protected: options.ssf > 1,
        };
        let socket = Stream::Tcp(mio::net::TcpStream::from_std(socket));
        server.adopt(socket, Peer::new(address), door)?;
        return Ok(server.run()?);
    }
    let (ours, theirs) = UnixStream::pair()?;
    let printer = bridge(theirs)?;
    ours.set_nonblocking(true)?;
    let socket = Stream::Unix(mio::net::UnixStream::from_std(ours));
    server.adopt(socket, Peer::local(), Door { is_trusted: true, ..Door::default() })?;
    let ended = server.run()?;
    let _ = printer.join();
    Ok(ended)
}

/// The client's address, if `fd` is a connection from a network.
///
/// What kind of socket it is tells the socket's own address: that of the peer is gone
/// once the peer has reset the connection, and its octets may still be read.
fn network_peer(fd: &OwnedFd) -> io::Result<Option<std::net::SocketAddr>> {
    let socket = std::net::TcpStream::from(fd.try_clone()?);
    match socket.local_addr() {
        Ok(_) => socket.peer_addr().map(Some),
        Err(_) => Ok(None),
    }
}

/// Carries octets between standard input and output and a socket: either may be a file,
/// which no event loop can wait for. The thread that writes ends with the session.
fn bridge(socket: UnixStream) -> io::Result<thread::JoinHandle<()>> {
    let mut to_session = socket.try_clone()?;
    // Ends with the process: nothing wakes it from reading.
    thread::Builder::new().name("stdin".into()).spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut to_session);
        let _ = to_session.shutdown(Shutdown::Write);
    })?;
    let mut from_session = socket;
    thread::Builder::new().name("stdout".into()).spawn(move || {
        let mut stdout = io::stdout().lock();
        let _ = io::copy(&mut from_session, &mut Unbuffered(&mut stdout));
    })
}

/// Flushes after each write: the other side waits for the answer.
struct Unbuffered<W>(W);

impl<W: Write> Write for Unbuffered<W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.write_all(octets)?;
        self.0.flush()?;
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Option and value are separate words, as Cyrus's services want it. Unknown options are
/// named on standard error and otherwise passed over, as theirs are.
fn parse(args: &[OsString]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut words = args.iter().skip(1);
    while let Some(word) = words.next() {
        let Some(word) = word.to_str() else { continue };
        let flags = match word.strip_prefix('-') {
            Some("-") => break,
            // As with GNU's getopt, options may stand behind other words.
            Some("") | None => continue,
            Some(flags) => flags,
        };
        let takes_value = |c| "CUTp".contains(c);
        if flags.chars().rev().skip(1).any(takes_value) {
            return Err("options and arguments MUST be separated by whitespace".into());
        }
        for flag in flags.chars() {
            let mut value =
                || words.next().ok_or(format!("option requires an argument -- '{flag}'"));
            match flag {
                'C' => options.config = value()?.into(),
                'U' => options.uses = number(value()?),
                'T' => options.timeout = number(value()?),
                'p' => options.ssf = number(value()?),
                's' => options.tls_first = true,
                'X' => options.stdio = true,
                // No debugger is started, no name is looked up; every client forces.
                'D' | 'N' | 'f' => {}
                _ => eprintln!("backupd: invalid option -- '{flag}'"),
            }
        }
    }
    Ok(options)
}

/// As C's `atoi` reads it, where a negative number is none.
fn number(word: &OsString) -> u64 {
    let text = word.to_string_lossy();
    let digits: String = text.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, String> {
        let args: Vec<OsString> = line.split(' ').map(Into::into).collect();
        parse(&args)
    }

    #[test]
    fn options_are_masters() {
        assert_eq!(parsed("backupd").unwrap(), Options::default());
        let all = parsed("backupd -C /etc/x -U 3 -T 9 -D -s -N -p 2 -X -f").unwrap();
        let expected = Options {
            config: "/etc/x".into(),
            uses: 3,
            timeout: 9,
            ssf: 2,
            tls_first: true,
            stdio: true,
        };
        assert_eq!(all, expected);
        assert_eq!(parsed("backupd -Q -U 3").unwrap().uses, 3);
        assert_eq!(parsed("backupd -U -1 -T x").unwrap().uses, 0);
        assert_eq!(parsed("backupd x - -C /etc/x").unwrap().config, PathBuf::from("/etc/x"));
        assert_eq!(parsed("backupd -- -U 3").unwrap(), Options::default());
    }

    #[test]
    fn values_are_words_of_their_own() {
        for line in ["backupd -U30", "backupd -p2", "backupd -C/etc/x"] {
            let error = parsed(line).unwrap_err();
            assert_eq!(error, "options and arguments MUST be separated by whitespace");
        }
        parsed("backupd -U").unwrap_err();
    }
}
