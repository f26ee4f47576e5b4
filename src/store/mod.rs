//! store
pub mod catalog;
pub mod partition;
pub mod placement;
pub mod twoskip;
