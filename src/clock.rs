//! Where "now" comes from: the wall clock, moved by an offset in tests. Injected, so that rules
//! about deadlines never ask the machine themselves.

use std::sync::Arc;

use time::OffsetDateTime;

use crate::timestamp::Timestamp;

/// A source of the current time, cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> OffsetDateTime + Send + Sync>);

impl Clock {
    /// The machine's wall clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(OffsetDateTime::now_utc))
    }

    /// A clock read from `source`, for tests that move time.
    pub fn from_fn(source: impl Fn() -> OffsetDateTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }

    /// The current instant, in UTC.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::from((self.0)()).to_utc()
    }
}

/// Milliseconds since boot, suspended time included: for leases, which must run out while a
/// machine sleeps, whatever happens to its wall clock.
#[must_use]
pub fn boot_millis() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}
