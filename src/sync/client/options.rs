//! What a connection is told: plain values, made by whoever reads the configuration.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::Destination;

/// Everything that [`Client::connect`](super::Client::connect) needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server.
    pub destination: Destination,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Whether the channel is encrypted.
    pub tls: TlsMode,
    /// Certificates, ours and those of others.
    pub certificates: Certificates,
    /// Who logs in; `None`: nobody, which suits a Unix socket.
    pub login: Option<Login>,
    /// Whether the channel is compressed. Only csync servers can.
    pub compress: Compress,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// What a server may make us hold.
    pub limits: ReplyLimits,
}

impl Options {
    /// Options with which most servers are reached: what speaks there is found out, TLS
    /// and compression are used if offered, nobody logs in.
    pub fn new(destination: Destination) -> Options {
        Options {
            destination,
            protocol: Protocol::Auto,
            tls: TlsMode::IfOffered,
            certificates: Certificates::default(),
            login: None,
            compress: Compress::IfOffered,
            timeouts: Timeouts::default(),
            limits: ReplyLimits::default(),
        }
    }
}

/// What is spoken on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Whatever the server's greeting shows. Without a port, 143 (`imap`) is tried first,
    /// then 2005 (`csync`), as Cyrus does.
    Auto,
    /// The replication protocol of `sync_server`; port 2005 (`csync`).
    Csync,
    /// IMAP with `X-REPLICATION`; port 143 (`imap`), or 993 with [`TlsMode::OnConnect`].
    Imap,
}

/// Whether the channel is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Never,
    /// By STARTTLS, if the server has it.
    IfOffered,
    /// By STARTTLS; without it there is no connection, and nothing was sent in the clear.
    Required,
    /// From the first octet on.
    OnConnect,
}

/// Certificates, ours and those of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificates {
    /// How the server's is checked.
    pub verify: Verify,
    /// Ours, in PEM, with those that lead to its root; and its private key.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// How the server's certificate is checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// It is not: anybody may be the server. What Cyrus's own clients do.
    #[default]
    Nothing,
    /// It must lead to one of these roots and bear the name of the host.
    Roots {
        /// In PEM.
        file: Option<PathBuf>,
        /// In PEM, one file each.
        dir: Option<PathBuf>,
    },
}

/// Who logs in.
#[derive(Clone, Debug)]
pub struct Login {
    /// Whose password it is.
    pub authname: String,
    /// Who to act as; for almost all purposes `None`: Cyrus denies every command to an
    /// administrator who acts as somebody else.
    pub authzid: Option<String>,
    /// The password.
    pub password: Password,
    /// Mechanisms that may be used, in any order; `None` for all that are known.
    pub mechanisms: Option<Vec<String>>,
}

/// A password: never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Wraps a password.
    pub fn new(text: String) -> Password {
        Password(text)
    }

    /// The password, to be used and not shown.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Whether the channel is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compress {
    /// Never.
    Never,
    /// If the server can.
    IfOffered,
    /// Else there is no connection.
    Required,
}

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the TCP connection, per address; 30 s.
    pub connect: Duration,
    /// `client_timeout`: for each answer until the log-in is over; 10 s. A server that pauses
    /// after a wrong password does so within this time.
    pub login: Duration,
    /// `sync_timeout`: for each piece of an answer, and until the server takes more; 30 min.
    pub reply: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(30),
            login: Duration::from_secs(10),
            reply: Duration::from_secs(1800),
        }
    }
}

/// What a server may make us hold; more ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyLimits {
    /// Octets of one line with its literals; 512 MiB (a mailbox with all its records has about
    /// 300 for each message).
    pub line: usize,
    /// Octets of one literal; 64 MiB.
    pub literal: u64,
    /// Octets of all lines of one reply; 1 GiB.
    pub reply: usize,
}

impl Default for ReplyLimits {
    fn default() -> ReplyLimits {
        ReplyLimits { line: 512 << 20, literal: 64 << 20, reply: 1 << 30 }
    }
}
