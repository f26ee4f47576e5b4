//! Sockets to listen on, and what a client that comes in by one of them may do.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use mio::net::{TcpListener, UnixListener};
use nix::sys::stat::{Mode, umask};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use super::stream::ListenSocket;
use crate::sync::Door;

/// Clients that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Why a socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// It is not an address.
    #[error("{0}: not an address to listen on: use ADDRESS:PORT, for example 127.0.0.1:2005")]
    Address(String),
    /// There is no address by that name, or nobody knows just now.
    #[error("cannot listen on {name}: {source}")]
    Name {
        /// As it was given.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The operating system refused.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The same, of a Unix socket.
    #[error("cannot listen on {}: {source}", path.display())]
    BindUnix {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A descriptor that was handed over is no socket to accept connections from.
    #[error("descriptor handed over by the service manager: {0}")]
    Inherited(io::Error),
}

/// A socket that is listening.
#[derive(Debug)]
pub struct Listener {
    pub(super) socket: ListenSocket,
    pub(super) tls_first: bool,
    pub(super) is_protected: bool,
}

impl Listener {
    fn new(socket: ListenSocket) -> Listener {
        Listener { socket, tls_first: false, is_protected: false }
    }

    /// A socket that a service manager has bound; TCP or Unix.
    pub fn inherited(fd: OwnedFd) -> Result<Listener, ListenError> {
        let is_unix = matches!(net::getsockname(&fd), Ok(address)
            if address.address_family() == AddressFamily::UNIX);
        if !sockopt::socket_acceptconn(&fd).map_err(|e| ListenError::Inherited(e.into()))? {
            let text = "it is not listening";
            return Err(ListenError::Inherited(io::Error::new(io::ErrorKind::InvalidInput, text)));
        }
        let socket = match is_unix {
            true => {
                let listener = std::os::unix::net::UnixListener::from(fd);
                listener.set_nonblocking(true).map_err(ListenError::Inherited)?;
                ListenSocket::Unix(UnixListener::from_std(listener))
            }
            false => {
                let listener = std::net::TcpListener::from(fd);
                listener.set_nonblocking(true).map_err(ListenError::Inherited)?;
                ListenSocket::Tcp(TcpListener::from_std(listener))
            }
        };
        Ok(Listener::new(socket))
    }

    /// TLS from the first octet on.
    #[must_use]
    pub fn with_tls_first(self, tls_first: bool) -> Listener {
        Listener { tls_first, ..self }
    }

    /// Something outside protects what goes through this socket.
    #[must_use]
    pub fn with_protection(self, is_protected: bool) -> Listener {
        Listener { is_protected, ..self }
    }

    /// What a client that comes in here finds.
    pub(super) fn door(&self, has_tls: bool) -> Door {
        let is_trusted = matches!(self.socket, ListenSocket::Unix(_));
        Door {
            is_trusted,
            offers_tls: has_tls && !is_trusted && !self.tls_first,
            tls_first: self.tls_first,
            is_protected: self.is_protected,
        }
    }

    /// Whether TLS comes first.
    pub fn is_tls_first(&self) -> bool {
        self.tls_first
    }

    /// The address, if it is one of a network.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            ListenSocket::Tcp(listener) => listener.local_addr().ok(),
            ListenSocket::Unix(_) => None,
        }
    }

    /// The address, or the path of the socket.
    pub(super) fn place(&self) -> String {
        match &self.socket {
            ListenSocket::Tcp(listener) => {
                listener.local_addr().map_or_else(|e| e.to_string(), |address| address.to_string())
            }
            ListenSocket::Unix(listener) => {
                let path = listener.local_addr().ok();
                let path = path.as_ref().and_then(|address| address.as_pathname());
                path.map_or_else(|| "a Unix socket".to_owned(), |path| path.display().to_string())
            }
        }
    }
}

/// Binds what `spec` stands for: every address of `ADDRESS:PORT`, `[V6]:PORT` or
/// `NAME:PORT`, or the Unix socket `/PATH`.
pub fn bind(spec: &str) -> Result<Vec<Listener>, ListenError> {
    if spec.starts_with('/') {
        return bind_unix(Path::new(spec)).map(|listener| vec![listener]);
    }
    let addresses = spec.to_socket_addrs().map_err(|source| match source.kind() {
        io::ErrorKind::InvalidInput => ListenError::Address(spec.to_owned()),
        _ => ListenError::Name { name: spec.to_owned(), source },
    })?;
    let addresses: Vec<SocketAddr> = addresses.collect();
    if addresses.is_empty() {
        return Err(ListenError::Address(spec.to_owned()));
    }
    addresses
        .into_iter()
        .map(|address| match bind_tcp(address) {
            Ok(listener) => Ok(Listener::new(ListenSocket::Tcp(listener))),
            Err(source) => Err(ListenError::Bind { address, source }),
        })
        .collect()
}

/// An IPv6 socket is for IPv6 alone, so that `0.0.0.0:PORT` and `[::]:PORT` can be listened
/// on together.
fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    if address.is_ipv4() {
        return TcpListener::bind(address);
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::INET6, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_ipv6_v6only(&socket, true)?;
    net::bind(&socket, &address)?;
    net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// A Unix socket that only its owner can connect to: whoever can is an administrator.
/// A socket left behind by a server that is gone is replaced.
fn bind_unix(path: &Path) -> Result<Listener, ListenError> {
    let bind = || -> io::Result<UnixListener> {
        let is_left_behind = std::fs::symlink_metadata(path)
            .is_ok_and(|metadata| metadata.file_type().is_socket())
            && std::os::unix::net::UnixStream::connect(path)
                .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
        if is_left_behind {
            std::fs::remove_file(path)?;
        }
        // Not by chmod afterwards: whoever owns the directory could have put a link there.
        let before = umask(Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(path);
        umask(before);
        listener
    };
    let listener =
        bind().map_err(|source| ListenError::BindUnix { path: path.to_owned(), source })?;
    Ok(Listener::new(ListenSocket::Unix(listener)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::machine;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn doors_differ() {
        let tcp = || bind("127.0.0.1:0").unwrap().pop().unwrap();
        assert_eq!(tcp().door(false), Door::default());
        assert_eq!(tcp().door(true), Door { offers_tls: true, ..Door::default() });
        let first = tcp().with_tls_first(true).door(true);
        assert_eq!(first, Door { tls_first: true, ..Door::default() });
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let unix = bind(path.to_str().unwrap()).unwrap().pop().unwrap();
        assert_eq!(unix.door(true), Door { is_trusted: true, ..Door::default() });
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn both_families_have_one_port() {
        let place = |listener: &Listener| listener.address().unwrap().port();
        let Ok(six) = bind("[::]:0") else { return machine::impossible("no IPv6") };
        let port = place(&six[0]);
        match bind(&format!("0.0.0.0:{port}")) {
            Ok(four) => assert_eq!(place(&four[0]), port),
            // Somebody else may have it for IPv4.
            Err(error) => machine::impossible(&error.to_string()),
        }
        let ListenSocket::Tcp(socket) = &six[0].socket else { panic!("not TCP") };
        assert!(sockopt::ipv6_v6only(socket).unwrap());
        assert_eq!(six[0].place(), format!("[::]:{port}"));
    }

    #[test]
    fn what_is_no_address_is_told_from_names_that_nobody_knows() {
        for spec in ["", "2005", "localhost", "localhost:http", "localhost:65536", "[::1]"] {
            let error = bind(spec).unwrap_err();
            assert!(matches!(error, ListenError::Address(_)), "{spec}: {error}");
        }
        let unknown = bind("name.invalid:2005").unwrap_err();
        assert!(!matches!(unknown, ListenError::Address(_)), "{unknown}");
    }

    #[test]
    fn only_a_socket_nobody_uses_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let name = path.to_str().unwrap();
        let first = bind(name).unwrap();
        bind(name).unwrap_err();
        drop(first);
        drop(bind(name).unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        bind(name).unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn descriptors_are_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(Listener::inherited(tcp.into()).unwrap().address().is_some());
        let unix = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        assert!(Listener::inherited(unix.into()).unwrap().door(true).is_trusted);
        let file = tempfile::tempfile().unwrap();
        Listener::inherited(file.into()).unwrap_err();
        let (end, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        Listener::inherited(end.into()).unwrap_err();
    }
}
