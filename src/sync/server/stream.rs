//! Sockets of either kind, and who is at the other end.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::net::sockopt;

/// A connected socket.
#[derive(Debug)]
pub enum Stream {
    /// From a network.
    Tcp(TcpStream),
    /// From this machine.
    Unix(UnixStream),
}

/// A socket that is listening.
#[derive(Debug)]
pub(super) enum ListenSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// TCP's own questions to an idle peer; `None`: as the system has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// How many stay without an answer before the connection is lost.
    pub count: Option<u32>,
    /// Silence before the first one.
    pub idle: Option<Duration>,
    /// Time between two.
    pub interval: Option<Duration>,
}

impl Stream {
    /// Has an idle client asked from time to time if it is still there.
    pub(super) fn keep_alive(&self, how: &KeepAlive) -> io::Result<()> {
        let Stream::Tcp(socket) = self else { return Ok(()) };
        sockopt::set_socket_keepalive(socket, true)?;
        if let Some(count) = how.count {
            sockopt::set_tcp_keepcnt(socket, count)?;
        }
        if let Some(idle) = how.idle {
            sockopt::set_tcp_keepidle(socket, idle)?;
        }
        if let Some(interval) = how.interval {
            sockopt::set_tcp_keepintvl(socket, interval)?;
        }
        Ok(())
    }
}

impl ListenSocket {
    /// The next connection; `WouldBlock` if there is none.
    pub(super) fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            ListenSocket::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Peer::new(address)))
            }
            ListenSocket::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                Ok((Stream::Unix(stream), Peer::local()))
            }
        }
    }
}

/// Does the same with the socket of whichever kind.
macro_rules! either {
    ($kind:ident, $self:expr, $socket:ident => $do:expr) => {
        match $self {
            $kind::Tcp($socket) => $do,
            $kind::Unix($socket) => $do,
        }
    };
}

macro_rules! impl_source {
    ($kind:ident) => {
        impl Source for $kind {
            fn register(&mut self, to: &Registry, id: Token, wanted: Interest) -> Outcome {
                either!($kind, self, socket => socket.register(to, id, wanted))
            }

            fn reregister(&mut self, to: &Registry, id: Token, wanted: Interest) -> Outcome {
                either!($kind, self, socket => socket.reregister(to, id, wanted))
            }

            fn deregister(&mut self, from: &Registry) -> Outcome {
                either!($kind, self, socket => socket.deregister(from))
            }
        }
    };
}

type Outcome = io::Result<()>;

impl_source!(ListenSocket);
impl_source!(Stream);

impl Read for Stream {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        either!(Stream, self, socket => socket.read(octets))
    }
}

impl Write for Stream {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        either!(Stream, self, socket => socket.write(octets))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer(Option<IpAddr>);

impl Peer {
    /// A client on a network.
    pub fn new(address: SocketAddr) -> Peer {
        Peer(Some(address.ip().to_canonical()))
    }

    /// A process on this machine.
    pub fn local() -> Peer {
        Peer(None)
    }

    /// What connections are counted by: the address, or of IPv6 the network of 64 bits,
    /// which is what one host is given; `None` on this machine's own sockets.
    pub(super) fn origin(&self) -> Option<IpAddr> {
        self.0.map(|address| match address {
            IpAddr::V6(address) if !address.is_loopback() => {
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
            }
            address => address,
        })
    }
}

impl fmt::Display for Peer {
    /// As in Cyrus's log lines for a client whose address has no name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => write!(f, "[{address}]"),
            None => f.write_str("[local]"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        Peer::new(SocketAddr::new(address.parse().unwrap(), 1))
    }

    #[test]
    fn keep_alive_reaches_the_socket() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        let stream = Stream::Tcp(TcpStream::from_std(client));
        let Stream::Tcp(socket) = &stream else { panic!() };
        let idle_before = sockopt::tcp_keepidle(socket).unwrap();
        let seconds = Duration::from_secs;
        let none = KeepAlive { count: None, idle: None, interval: None };
        assert!(!sockopt::socket_keepalive(socket).unwrap());
        stream.keep_alive(&none).unwrap();
        assert!(sockopt::socket_keepalive(socket).unwrap());
        assert_eq!(sockopt::tcp_keepidle(socket).unwrap(), idle_before);
        let all =
            KeepAlive { count: Some(4), idle: Some(seconds(70)), interval: Some(seconds(11)) };
        stream.keep_alive(&all).unwrap();
        assert_eq!(sockopt::tcp_keepcnt(socket).unwrap(), 4);
        assert_eq!(sockopt::tcp_keepidle(socket).unwrap(), seconds(70));
        assert_eq!(sockopt::tcp_keepintvl(socket).unwrap(), seconds(11));
        let (ours, _theirs) = UnixStream::pair().unwrap();
        Stream::Unix(ours).keep_alive(&all).unwrap();
    }

    #[test]
    fn clients_are_named_by_their_address() {
        for (address, shown) in [
            ("192.0.2.5", "[192.0.2.5]"),
            ("::ffff:192.0.2.5", "[192.0.2.5]"),
            ("2001:db8::5", "[2001:db8::5]"),
        ] {
            assert_eq!(peer(address).to_string(), shown);
        }
        assert_eq!(Peer::local().to_string(), "[local]");
    }

    #[test]
    fn hosts_are_counted_by_what_they_were_given() {
        let same = |a: &str, b: &str| peer(a).origin() == peer(b).origin();
        assert!(same("2001:db8::1", "2001:db8::ffff:1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(!same("192.0.2.5", "192.0.2.6"));
        assert!(same("192.0.2.5", "::ffff:192.0.2.5"));
        assert_eq!(peer("::1").origin(), Some("::1".parse().unwrap()));
        assert_eq!(Peer::local().origin(), None);
    }
}
