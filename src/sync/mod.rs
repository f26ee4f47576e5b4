//! sync

pub mod auth;
