//! The server over real sockets, without Cyrus: what a client may do wrong, and what
//! many clients do at once.
#![allow(clippy::unwrap_used)]

mod client;
mod site;

mod test_bad_input;
mod test_parts;
mod test_sessions;
