//! Backups on disk, and every operation on them. Knows no sockets, no status
//! lines, prints nothing.

pub mod append;
mod aside;
pub mod backup;
pub mod catalog;
pub mod chunk;
pub mod clock;
pub mod compact;
#[cfg(test)]
mod crash_tests;
mod data_file;
pub mod delete;
pub mod disk;
pub mod dump;
pub mod error;
pub mod exact;
pub mod export;
pub mod file_hash;
mod glance;
mod helpers;
pub mod index;
pub mod log;
pub mod message;
pub mod moment;
pub mod partition;
pub mod placement;
mod printed;
pub mod reconstruct;
mod recover;
pub mod reindex;
pub mod relocate;
mod replay;
mod restart;
mod salvage;
pub mod script;
pub mod search;
mod similar;
pub mod staging;
pub mod stat;
pub mod survey;
mod torn;
pub mod twoskip;
pub mod verify;
pub mod waiting;

pub use append::{Line, Writer};
pub use backup::Backup;
pub use catalog::Catalog;
pub use error::StoreError;
pub use glance::Glance;
