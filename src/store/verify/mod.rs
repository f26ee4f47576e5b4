//! Does a backup still hold what its index says, and does the index say what it holds?
//!
//! | | reads | finds |
//! |---|---|---|
//! | [`structure`] | the chunk table, some octets of each chunk | figures that do not fit |
//! | [`quick`] | the last chunk, the file's octets | whether the file can be appended to |
//! | [`full`] | everything, up to the first fault | what Cyrus's verify finds |
//! | [`deep`] | everything, once | everything, in both directions |
//!
//! [`full`] checks for each chunk that
//!
//! 1. the octets in front of it, its length and its text are those recorded
//!    (SHA-1), and the gzip member is whole (CRC-32);
//! 2. each message that the index places in it is there, and hashes to its GUID;
//! 3. each mailbox and each record that was last seen in it is there, with the
//!    values that the index has.
//!
//! [`deep`] does not end at a fault. It replays the log into an index of its own, by the
//! code that the server enters lines with, and compares the two table by table.
//!
//! What is found goes to a sink, as it is found. The file is hashed once and each chunk
//! inflated once, whatever is wrong with them.

mod beside;
mod compare;
mod cyrus;
mod deep;
mod finding;
mod gap;
mod links;
mod messages;
mod pass;
mod site;
mod structure;

pub use beside::leftovers;
pub(super) use cyrus::{LastChunk, WORTH_NOTING, last_chunk};
pub use cyrus::{full, full_with, quick};
pub use deep::{Deep, deep};
pub use finding::{
    Check, Difference, Event, Fault, Filed, Finding, Leftover, Remedy, Sink, Step, Subject,
};
pub(super) use gap::unindexed_lines;
pub use site::{SiteError, SiteFault, site};
pub use structure::structure;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests_deep;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests_trust;
