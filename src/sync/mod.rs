//! The replication protocol: the dialogue as a state machine without I/O, and
//! the server that runs many of them over sockets and backups.

pub mod auth;
pub mod server;
mod session;
mod spool;
mod work;

pub use session::{Action, Session, SessionSettings};
pub use work::{AuthReply, Done, Work};
