//! cyrbk: a backup server for Cyrus IMAP.
//!
//! ```text
//! main -> cmd -> sync::server -> store -> { lock, wire }
//!          |      sync::session -> wire; sync::auth -> lock
//!          |      restore -> { sync::client, store, lock, wire }
//!          +----> config
//! ```
//!
//! Arrows point down only; `docs/architecture.md` says what lives where and
//! how a command flows from the socket to the disk and back.

pub mod cmd;
pub mod config;
pub mod lock;
#[cfg(test)]
#[path = "../tests/machine/mod.rs"]
mod machine;
pub mod restore;
pub mod store;
pub mod sync;
pub mod wire;
