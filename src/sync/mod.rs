//! The replication protocol: the dialogue as a state machine without I/O, and
//! the server that runs many of them over sockets and backups.

pub mod auth;
pub mod client;
pub mod server;
mod session;
mod spool;
mod transport;
mod work;

pub use session::{Action, Door, Session, SessionSettings};
pub use work::{AuthReply, Channel, Done, Work};
