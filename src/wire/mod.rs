//! The words that the replication socket and the backup log share: framing,
//! the dlist value syntax, typed payloads, identities. No I/O and no clock.

pub mod apply;
pub mod body;
pub mod dlist;
pub mod frame;
pub mod guid;
pub mod mboxname;
pub mod own;
pub mod sync_crc;

pub use body::Body;
pub use guid::Guid;
