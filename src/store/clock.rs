//! The time as the log writes it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix time, seconds; 0 if the clock stands before 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
