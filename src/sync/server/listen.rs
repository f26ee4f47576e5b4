//! Sockets to listen on.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use mio::net::TcpListener;

/// Why a socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// It is not an address.
    #[error("{0}: not an address to listen on: use ADDRESS:PORT, for example 127.0.0.1:2005")]
    Address(String),
    /// The operating system refused.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Binds every address that `spec` (`ADDRESS:PORT`, `[V6]:PORT` or `NAME:PORT`)
/// stands for.
pub fn bind(spec: &str) -> Result<Vec<TcpListener>, ListenError> {
    let addresses: Vec<SocketAddr> =
        spec.to_socket_addrs().map_err(|_| ListenError::Address(spec.to_owned()))?.collect();
    if addresses.is_empty() {
        return Err(ListenError::Address(spec.to_owned()));
    }
    addresses
        .into_iter()
        .map(|address| {
            TcpListener::bind(address).map_err(|source| ListenError::Bind { address, source })
        })
        .collect()
}
