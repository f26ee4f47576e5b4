//! What the whole process allocates.

use std::alloc::System;
use std::sync::{Mutex, MutexGuard, PoisonError};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Tests of this program run one at a time: all threads count.
static ALONE: Mutex<()> = Mutex::new(());

pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was asked of the allocator. SQLite has one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Allocations, and growings of what was allocated.
    pub(crate) calls: usize,
    /// Octets of both.
    pub(crate) octets: usize,
}

/// What `act` costs, on whatever threads, until it returns.
pub(crate) fn cost<T>(act: impl FnOnce() -> T) -> (Cost, T) {
    let region = Region::new(ALLOCATOR);
    let value = act();
    let stats = region.change();
    let cost =
        Cost { calls: stats.allocations + stats.reallocations, octets: stats.bytes_allocated };
    (cost, value)
}

/// What it costs at least: something else may happen meanwhile, once in a while.
pub(crate) fn least_cost(rounds: usize, mut act: impl FnMut(usize)) -> Cost {
    let costs: Vec<Cost> = (0..rounds).map(|round| cost(|| act(round)).0).collect();
    let calls = costs.iter().map(|cost| cost.calls).min().unwrap();
    let octets = costs.iter().map(|cost| cost.octets).min().unwrap();
    Cost { calls, octets }
}
