//! The power goes while a tool or the server is at work: everything that was promised is there
//! afterwards, and the work goes on.
//!
//! The real program is run under `strace`. What it did to files, SQLite's among them, is done
//! again in a file system that exists on paper, and the power goes around syncs and changes of
//! names. States that may be left (`disk`, `outcomes`) are laid out as real files (`world`), and
//! what comes next in real life is done (`aftermath`).
//!
//! `CYRBK_POWERCUT=all` tries many more states. Without `strace` this is skipped: see
//! `machine`.
#![allow(clippy::unwrap_used)]

mod aftermath;
mod change;
#[path = "../server/client.rs"]
#[allow(dead_code)]
mod client;
mod disk;
#[path = "../machine/mod.rs"]
mod machine;
mod outcomes;
mod scenarios;
mod session;
#[path = "../server/site.rs"]
#[allow(dead_code)]
mod site;
mod trace;
mod world;

/// xorshift64*: comes again with the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % end
    }
}
