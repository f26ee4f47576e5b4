//! Where a replication server is: the operand SERVER of Cyrus's tools.
//!
//! ```text
//! server = ( host [ ":" port ] / path ) [ "/tls" ] [ "/noauth" ]
//! host   = name / IPv4 address / "[" IPv6 address "]"
//! port   = number / service name
//! path   = "/" *CHAR                             a Unix socket
//! ```
//!
//! An IPv6 address without brackets is taken as well if nothing follows it.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;

/// A server, as people write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// How it is reached.
    pub place: Place,
    /// `/tls`: TLS is required whatever else is configured.
    pub tls: bool,
    /// `/noauth`: nobody logs in.
    pub no_auth: bool,
}

/// How a server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// By TCP.
    Host {
        /// Name or address, without brackets.
        name: String,
        /// Number or service name; without it the protocol's own.
        port: Option<String>,
    },
    /// A Unix socket, which needs no log-in when csync is spoken.
    Socket(PathBuf),
}

/// A text that names no server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}: {what}")]
pub struct AddressError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub what: &'static str,
}

impl Destination {
    /// Reads what stands on a command line or in `sync_host`.
    pub fn parse(text: &str) -> Result<Destination, AddressError> {
        let refuse = |what| AddressError { text: text.to_owned(), what };
        let (mut tls, mut no_auth) = (false, false);
        let mut rest = text;
        loop {
            if let Some(before) = rest.strip_suffix("/tls") {
                (rest, tls) = (before, true);
            } else if let Some(before) = rest.strip_suffix("/noauth") {
                (rest, no_auth) = (before, true);
            } else {
                break;
            }
        }
        let place = if rest.starts_with('/') {
            Place::Socket(rest.into())
        } else {
            host_and_port(rest).map_err(refuse)?
        };
        Ok(Destination { place, tls, no_auth })
    }

    /// The host's name or address, for the check of its certificate.
    pub fn host(&self) -> Option<&str> {
        match &self.place {
            Place::Host { name, .. } => Some(name),
            Place::Socket(_) => None,
        }
    }
}

fn host_and_port(text: &str) -> Result<Place, &'static str> {
    let (name, port) = if let Some(rest) = text.strip_prefix('[') {
        let (name, rest) = rest.split_once(']').ok_or("no ] behind the address")?;
        name.parse::<Ipv6Addr>().map_err(|_| "no IPv6 address between [ and ]")?;
        match rest.strip_prefix(':') {
            Some(port) => (name, Some(port)),
            None if rest.is_empty() => (name, None),
            None => return Err("unexpected text behind ]"),
        }
    } else if text.parse::<Ipv6Addr>().is_ok() {
        (text, None)
    } else {
        match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        }
    };
    if name.is_empty() {
        return Err("no host name");
    }
    if name.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control()) {
        return Err("no host name can contain that");
    }
    if port.is_some_and(|port| !is_port(port)) {
        return Err("what stands behind the colon is no port");
    }
    Ok(Place::Host { name: name.to_owned(), port: port.map(str::to_owned) })
}

fn is_port(text: &str) -> bool {
    if text.bytes().all(|c| c.is_ascii_digit()) {
        return text.parse::<u16>().is_ok_and(|port| port > 0);
    }
    text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b'+'))
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Host { name, port } => {
                match name.contains(':') {
                    true => write!(f, "[{name}]")?,
                    false => f.write_str(name)?,
                }
                port.as_ref().map_or(Ok(()), |port| write!(f, ":{port}"))?;
            }
            Place::Socket(path) => write!(f, "{}", path.display())?,
        }
        f.write_str(if self.tls { "/tls" } else { "" })?;
        f.write_str(if self.no_auth { "/noauth" } else { "" })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn host(text: &str) -> (String, Option<String>) {
        match Destination::parse(text).unwrap().place {
            Place::Host { name, port } => (name, port),
            Place::Socket(path) => panic!("{}", path.display()),
        }
    }

    #[test]
    fn hosts_ports_and_addresses() {
        let port = |port: &str| Some(port.to_owned());
        for (text, name, expected) in [
            ("mail", "mail", None),
            ("mail.example.com:2005", "mail.example.com", port("2005")),
            ("mail:csync", "mail", port("csync")),
            ("192.0.2.7:143", "192.0.2.7", port("143")),
            ("[2001:db8::1]", "2001:db8::1", None),
            ("[2001:db8::1]:2005", "2001:db8::1", port("2005")),
            ("2001:db8::1", "2001:db8::1", None),
            ("mail:2005/tls", "mail", port("2005")),
            ("mail/noauth/tls", "mail", None),
        ] {
            assert_eq!(host(text), (name.to_owned(), expected), "{text}");
        }
        assert!(Destination::parse("mail:2005/noauth/tls").unwrap().tls);
        assert!(Destination::parse("mail:2005/tls/noauth").unwrap().no_auth);
        assert!(!Destination::parse("mail:2005").unwrap().tls);
        let socket = Destination::parse("/run/cyrus/csync/noauth").unwrap();
        assert_eq!(socket.place, Place::Socket("/run/cyrus/csync".into()));
        assert_eq!(socket.host(), None);
    }

    #[test]
    fn what_names_no_server_is_refused() {
        for text in [
            "",
            ":2005",
            "mail:",
            "mail:0",
            "mail:70000",
            "mail:a b",
            "[::1",
            "[mail]",
            "[::1]x",
            "a b",
            "a/b",
            "[]:1",
            "mail:1:2",
        ] {
            assert!(Destination::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_printed_reads_the_same() {
        for text in ["mail", "mail:csync", "[2001:db8::1]:2005/tls", "/run/csync", "m/tls/noauth"] {
            assert_eq!(Destination::parse(text).unwrap().to_string(), text);
        }
    }
}
