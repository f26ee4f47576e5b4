//! Backups on disk and every operation on them.

pub mod catalog;
pub mod partition;
pub mod placement;
pub mod twoskip;
