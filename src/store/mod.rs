//! Backups on disk, and every operation on them. Knows no sockets, no status
//! lines, prints nothing.

pub mod chunk;
pub mod file_hash;
pub mod log;
