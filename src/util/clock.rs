//! The clocks: wall time for the log, and what relates process starts to file times.

use rustix::time::{ClockId, clock_gettime};

/// Unix time in seconds.
pub(crate) fn unix_time() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn clock(id: ClockId) -> i64 {
    let t = clock_gettime(id);
    t.tv_sec * 1_000_000_000 + t.tv_nsec
}

/// Realtime minus time since boot, in nanoseconds: when this machine booted, by its present clock. It changes only when
/// the clock is set.
pub(crate) fn clock_offset() -> i64 {
    // Realtime first: an interruption in between makes processes look older, which is the safe side.
    let now = clock(ClockId::Realtime);
    now - clock(ClockId::Boottime)
}

/// Realtime now (Unix epoch, nanoseconds).
pub(crate) fn now() -> i64 {
    clock(ClockId::Realtime)
}
