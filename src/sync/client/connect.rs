//! From an address to a connection that takes commands.
//!
//! ```text
//! socket [TLS] greeting [STARTTLS] [log-in] [COMPRESS]
//! ```
//!
//! Which dialect is spoken shows in the greeting: an IMAP server's has its capabilities in the
//! `* OK` line, a csync server's in lines before it. If there are none at all, one CAPABILITY
//! tells: csync has no such command, and says so at once.

use std::io;

use super::offer::{Offer, is_csync_greeting};
use super::options::{Compress, Options, Protocol, TlsMode};
use super::stream::Stream;
use super::talk::{Status, Talk, ended, lost, malformed, shown, strange};
use super::{ClientError, Peer, Place, Verify, login, tls};

/// `imap`, `imaps` and `csync` where nothing else is configured.
const IMAP_PORT: u16 = 143;
const IMAPS_PORT: u16 = 993;
const CSYNC_PORT: u16 = 2005;
/// Most lines of a greeting.
const GREETING_MAX: usize = 100;

/// A connection to any IMAP server, logged in, and what it offers.
pub(super) fn connect_imap(options: &Options) -> Result<(Talk, Peer, Offer), ClientError> {
    let port = match &options.destination.place {
        Place::Host { port: Some(port), .. } => Some(port_number(port)?),
        Place::Host { port: None, .. } if options.tls == TlsMode::OnConnect => Some(IMAPS_PORT),
        Place::Host { port: None, .. } => Some(IMAP_PORT),
        Place::Socket(_) => None,
    };
    SetUp::new(options, port)?.run_imap()
}

/// A connection, logged in.
pub(super) fn connect(options: &Options) -> Result<(Talk, Peer), ClientError> {
    let port = match &options.destination.place {
        Place::Socket(_) => return SetUp::new(options, None)?.run(),
        Place::Host { port, .. } => port.as_deref(),
    };
    let imap_port = match options.tls {
        TlsMode::OnConnect => IMAPS_PORT,
        _ => IMAP_PORT,
    };
    match (port, options.protocol) {
        (Some(port), _) => SetUp::new(options, Some(port_number(port)?))?.run(),
        (None, Protocol::Csync) => SetUp::new(options, Some(service("csync", CSYNC_PORT)))?.run(),
        (None, Protocol::Imap) => SetUp::new(options, Some(imap_port))?.run(),
        (None, Protocol::Auto) => {
            let imap = match SetUp::new(options, Some(imap_port)).and_then(SetUp::run) {
                Ok(connected) => return Ok(connected),
                // Somebody who is not who he should be is no reason to ask at the next door.
                Err(error @ (ClientError::Tls(_) | ClientError::NotTheServer { .. })) => {
                    return Err(error);
                }
                Err(error) => Box::new(error),
            };
            let csync = SetUp::new(options, Some(service("csync", CSYNC_PORT)));
            let csync = csync.and_then(SetUp::run).map_err(Box::new);
            csync.map_err(|csync| ClientError::Both { imap, csync })
        }
    }
}

fn port_number(port: &str) -> Result<u16, ClientError> {
    if let Ok(number) = port.parse() {
        return Ok(number);
    }
    let usual = match port {
        "csync" => Some(CSYNC_PORT),
        "imap" | "imap2" => Some(IMAP_PORT),
        "imaps" => Some(IMAPS_PORT),
        _ => None,
    };
    listed_service(port).or(usual).ok_or_else(|| ClientError::Lookup {
        host: port.to_owned(),
        source: io::Error::new(io::ErrorKind::NotFound, "no such service"),
    })
}

fn service(name: &str, usual: u16) -> u16 {
    listed_service(name).unwrap_or(usual)
}

/// What /etc/services says: `name number/tcp alias ...`.
fn listed_service(name: &str) -> Option<u16> {
    let text = std::fs::read_to_string("/etc/services").ok()?;
    text.lines().find_map(|line| service_in(line, name))
}

fn service_in(line: &str, name: &str) -> Option<u16> {
    let mut words = line.split('#').next()?.split_ascii_whitespace();
    let first = words.next()?;
    let port = words.next()?.strip_suffix("/tcp")?.parse().ok()?;
    (first == name || words.any(|alias| alias == name)).then_some(port)
}

struct SetUp<'a> {
    options: &'a Options,
    talk: Talk,
    peer: Peer,
    offer: Offer,
    is_tls_required: bool,
    /// PREAUTH, or a banner without any way to log in.
    is_authenticated: bool,
}

impl<'a> SetUp<'a> {
    fn new(options: &'a Options, port: Option<u16>) -> Result<SetUp<'a>, ClientError> {
        let (stream, address) = match (&options.destination.place, port) {
            (Place::Socket(path), _) => Stream::connect_unix(path)?,
            (Place::Host { name, .. }, port) => {
                Stream::connect_tcp(name, port.unwrap_or(CSYNC_PORT), options.timeouts.connect)?
            }
        };
        Ok(SetUp {
            options,
            talk: Talk::new(stream),
            peer: Peer { address, ..Peer::default() },
            offer: Offer::default(),
            is_tls_required: options.destination.tls || options.tls == TlsMode::Required,
            is_authenticated: false,
        })
    }

    fn run_imap(mut self) -> Result<(Talk, Peer, Offer), ClientError> {
        self.log_in()?;
        Ok((self.talk, self.peer, self.offer))
    }

    fn log_in(&mut self) -> Result<(), ClientError> {
        self.allow();
        if self.options.tls == TlsMode::OnConnect {
            self.handshake()?;
        }
        self.allow();
        self.greeting()?;
        self.encrypt()?;
        self.authenticate()
    }

    fn run(mut self) -> Result<(Talk, Peer), ClientError> {
        self.log_in()?;
        if self.peer.is_imap && !self.offer.replication {
            return Err(ClientError::NoReplication);
        }
        self.compress()?;
        self.peer.has_sieve_mailbox = self.offer.sieve_mailbox;
        Ok((self.talk, self.peer))
    }

    fn allow(&mut self) {
        self.talk.allow(self.options.timeouts.login);
    }

    /// Reads the greeting, and finds out what is spoken.
    fn greeting(&mut self) -> Result<(), ClientError> {
        const DURING: &str = "greeting";
        let mut csync = Offer::default();
        for count in 0..GREETING_MAX {
            let line = self.talk.read_line().map_err(|error| lost(DURING, error))?;
            let text = String::from_utf8_lossy(&line).into_owned();
            let word = text.split(' ').nth(1).unwrap_or_default().to_ascii_uppercase();
            match (text.starts_with("* "), word.as_str()) {
                (true, "OK") => {
                    self.peer.greeting = shown(&line[4..]);
                    return self.choose(csync, count > 0, &text);
                }
                (true, "PREAUTH") => {
                    self.is_authenticated = true;
                    self.peer.greeting = shown(&line[9..]);
                    return self.choose(csync, false, &text);
                }
                (true, "BYE") => return Err(ended(DURING, &line)),
                (true, _) => csync.add_csync(&text),
                (false, _) if text.starts_with("BYE ") => return Err(ended(DURING, &line)),
                (false, _) => return Err(strange(DURING, &line)),
            }
        }
        Err(malformed(DURING, "too many lines"))
    }

    fn choose(&mut self, csync: Offer, has_lines: bool, ok: &str) -> Result<(), ClientError> {
        let imap = Offer::from_imap(ok);
        let is_imap = match self.options.protocol {
            Protocol::Csync => false,
            Protocol::Imap if has_lines && imap.is_none() => {
                return Err(malformed("greeting", "the server speaks csync, and not IMAP"));
            }
            Protocol::Imap => true,
            Protocol::Auto if has_lines || is_csync_greeting(ok) => false,
            Protocol::Auto if imap.is_some() || self.is_authenticated => true,
            Protocol::Auto => return self.ask_which(csync),
        };
        self.talk.is_imap = is_imap;
        self.peer.is_imap = is_imap;
        match (is_imap, imap) {
            (false, _) => self.offer = csync,
            (true, Some(imap)) => self.offer = imap,
            (true, None) => self.ask_capabilities()?,
        }
        Ok(())
    }

    /// Both dialects have an answer to an IMAP command, and none of them looks like the other's.
    fn ask_which(&mut self, csync: Offer) -> Result<(), ClientError> {
        const QUESTION: &str = "CAPABILITY";
        self.talk.is_imap = true;
        let tag = self.talk.next_tag();
        let io = |error| lost(QUESTION, error);
        self.talk.send(tag.as_deref(), QUESTION).map_err(io)?;
        let mut imap = None;
        for _ in 0..GREETING_MAX {
            let line = self.talk.read_line().map_err(io)?;
            let text = String::from_utf8_lossy(&line).into_owned();
            if text.starts_with("* ") {
                imap = Offer::from_imap(&text).or(imap);
                continue;
            }
            let is_tagged = tag.as_ref().is_some_and(|tag| text.starts_with(&format!("{tag} ")));
            match imap {
                Some(imap) if is_tagged => self.offer = imap,
                _ => {
                    self.talk.is_imap = false;
                    self.offer = csync;
                }
            }
            self.peer.is_imap = self.talk.is_imap;
            return Ok(());
        }
        Err(malformed(QUESTION, "too many lines"))
    }

    fn ask_capabilities(&mut self) -> Result<(), ClientError> {
        let answer = self.talk.ask("CAPABILITY")?;
        let found = answer.data.iter().find_map(|line| Offer::from_imap(line));
        self.offer = found.ok_or_else(|| malformed("CAPABILITY", "no capabilities"))?;
        Ok(())
    }

    /// STARTTLS, if that is wanted and to be had.
    fn encrypt(&mut self) -> Result<(), ClientError> {
        let is_local = self.options.destination.host().is_none();
        let is_wanted = match self.options.tls {
            _ if self.is_tls_required => true,
            TlsMode::IfOffered => self.offer.starttls && !is_local,
            TlsMode::Required => true,
            TlsMode::Never | TlsMode::OnConnect => false,
        };
        if self.peer.tls.is_some() || !is_wanted {
            return Ok(());
        }
        if !self.offer.starttls {
            return Err(ClientError::NoTls(String::new()));
        }
        self.allow();
        let answer = self.talk.ask("STARTTLS")?;
        match answer.status {
            Status::Ok => {}
            // `backupd` announces it and has it not.
            _ if self.is_tls_required => return Err(ClientError::NoTls(answer.text)),
            _ => return Ok(()),
        }
        if !self.talk.stream.is_drained() {
            return Err(malformed("STARTTLS", "something was sent in the clear behind it"));
        }
        self.handshake()?;
        self.allow();
        // Nothing of what was said in the clear counts.
        self.offer = Offer::default();
        if self.peer.is_imap { self.ask_capabilities() } else { self.banner_again() }
    }

    fn banner_again(&mut self) -> Result<(), ClientError> {
        for _ in 0..GREETING_MAX {
            let line = self.talk.read_line().map_err(|error| lost("greeting", error))?;
            let text = String::from_utf8_lossy(&line).into_owned();
            if text.to_ascii_uppercase().starts_with("* OK") {
                return Ok(());
            }
            self.offer.add_csync(&text);
        }
        Err(malformed("greeting", "too many lines"))
    }

    fn handshake(&mut self) -> Result<(), ClientError> {
        let host = self.options.destination.host().unwrap_or("localhost");
        let config = tls::config(&self.options.certificates)?;
        let name = tls::server_name(host)?;
        self.allow();
        let peer = self.talk.stream.start_tls(config, name).map_err(|error| {
            let text = error.to_string();
            match error.kind() {
                io::ErrorKind::InvalidData => {
                    let text = text.strip_prefix("TLS: ").unwrap_or(&text);
                    ClientError::Tls(format!("{host}: {text}"))
                }
                _ => lost("TLS", error),
            }
        })?;
        self.peer.tls = Some(peer.version);
        self.peer.is_verified = self.options.certificates.verify != Verify::Nothing;
        Ok(())
    }

    fn authenticate(&mut self) -> Result<(), ClientError> {
        let has_way = !self.offer.mechanisms.is_empty();
        let is_local_csync = self.options.destination.host().is_none() && !self.peer.is_imap;
        if self.is_authenticated || self.options.destination.no_auth || (is_local_csync && !has_way)
        {
            return Ok(());
        }
        let login = self.options.login.as_ref().ok_or(ClientError::NoCredentials)?;
        let done = login::log_in(&mut self.talk, login, &self.offer, self.options.timeouts.login)?;
        self.peer.mechanism = Some(done.mechanism.to_owned());
        if self.peer.is_imap {
            // What it offers to this user: replication is for administrators.
            match Offer::from_imap(&done.text) {
                Some(offer) => self.offer = offer,
                None => self.ask_capabilities()?,
            }
        }
        Ok(())
    }

    fn compress(&mut self) -> Result<(), ClientError> {
        let is_required = match self.options.compress {
            Compress::Never => return Ok(()),
            Compress::IfOffered if !self.offer.compress => return Ok(()),
            Compress::IfOffered => false,
            // `sync_server` does not announce it behind TLS, and has it all the same.
            Compress::Required => true,
        };
        self.allow();
        let answer = self.talk.ask("COMPRESS DEFLATE")?;
        match answer.status {
            Status::Ok => {
                self.talk.stream.start_deflate().map_err(|error| lost("COMPRESS", error))?;
                self.peer.is_compressed = true;
                Ok(())
            }
            _ if is_required => Err(ClientError::NoCompression(answer.text)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_by_name_and_alias() {
        let line = "imap2\t\t143/tcp\t\timap\t# Interim Mail Access";
        assert_eq!(service_in(line, "imap"), Some(143));
        assert_eq!(service_in(line, "imap2"), Some(143));
        assert_eq!(service_in(line, "Interim"), None);
        assert_eq!(service_in("imap2 143/udp imap", "imap"), None);
        assert_eq!(service_in("# imap 143/tcp", "imap"), None);
        assert_eq!(service_in("", "imap"), None);
    }

    #[test]
    fn ports_are_numbers_or_names() {
        assert!(matches!(port_number("2005"), Ok(2005)));
        assert!(matches!(port_number("csync"), Ok(2005)));
        assert!(port_number("no-such-service-here").is_err());
    }
}
