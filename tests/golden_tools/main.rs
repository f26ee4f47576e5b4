//! The tools beside Cyrus's: the same words on the same files give the same output.
//!
//! `recorded` compares with outputs recorded from Cyrus 3.6.1, `live` runs the real
//! tools where they are installed, `damage` shows what is better than they are,
//! `compact` does all three for compaction.

#![allow(clippy::unwrap_used)]

mod catalogue;
mod compact;
mod damage;
mod killed;
mod live;
mod live_modes;
mod live_more;
mod live_names;
#[path = "../machine/mod.rs"]
mod machine;
mod many;
mod more;
mod own_words;
mod recorded;
mod servers;
mod site;
mod speed;
mod syslog;
