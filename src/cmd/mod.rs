//! cmd

pub mod passwd;
