//! cmd

pub mod passwd;
pub mod serve;
pub mod site;
