//! cmd

pub mod backupd;
mod inherited;
mod log;
pub mod passwd;
pub mod serve;
mod service;
pub mod site;
