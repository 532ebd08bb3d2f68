//! Accesses and denials on record.

use std::{
    num::NonZero,
    time::{Duration, Instant},
};

use lru::LruCache;
use parking_lot::Mutex;

use crate::{
    audit::{Event, EventType, Severity},
    service::{Error, Service},
};

/// So many denials a second are recorded one by one; more would let a stranger fill the disk. Those
/// that are left out are counted in the next record.
const RECORDS_A_SECOND: u32 = 50;

/// How long one record says that somebody reads the trail.
const READING: Duration = Duration::from_secs(60);

/// Readers that are remembered; one that is forgotten is recorded once more.
const READERS: NonZero<usize> = NonZero::new(1024).expect("not zero");

/// How many denials were recorded in this second, and how many were not. Those of callers who are
/// known are counted apart: strangers cannot keep them off the trail.
#[derive(Default)]
pub struct Denials {
    known: Mutex<Window>,
    strangers: Mutex<Window>,
}

#[derive(Default)]
struct Window {
    began: Option<Instant>,
    recorded: u32,
    left_out: u64,
}

impl Denials {
    /// Whether one more is recorded by itself; then with how many were left out before it.
    fn next(&self, is_known: bool, now: Instant) -> Option<u64> {
        let mut window = if is_known { self.known.lock() } else { self.strangers.lock() };
        if window.began.is_none_or(|began| now.duration_since(began) >= Duration::from_secs(1)) {
            window.began = Some(now);
            window.recorded = 0;
        }
        if window.recorded >= RECORDS_A_SECOND {
            window.left_out += 1;
            return None;
        }
        window.recorded += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

/// Who read the trail lately, and when that was recorded.
pub struct Readers(Mutex<LruCache<String, Instant>>);

impl Default for Readers {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(READERS)))
    }
}

impl Readers {
    /// Whether a reading is to be recorded: the first of this reader for a minute.
    fn is_new(&self, reader: &str, now: Instant) -> bool {
        let mut readers = self.0.lock();
        let is_new = readers.peek(reader).is_none_or(|recorded| now.duration_since(*recorded) >= READING);
        if is_new {
            readers.put(reader.to_owned(), now);
        }
        is_new
    }
}

impl Service {
    /// Records that somebody was let through.
    pub async fn record_access(&self, event: Event) -> Result<(), Error> {
        self.audit.record(event).await?;
        Ok(())
    }

    /// Records that somebody reads the trail, once a minute. While nothing can be recorded it is read
    /// all the same: that is when it is needed.
    pub async fn record_reading(&self, event: Event) {
        if self.readers.is_new(event.actor(), Instant::now()) {
            self.record_or_warn(event.detail("recorded", "once a minute"), "a reading of the trail").await;
        }
    }

    /// Records that somebody was denied something. The denial stands whether or not that succeeds.
    pub async fn record_denial(&self, event: Event, reason: String) {
        self.metrics.access_denied.inc();
        let is_known = !event.actor().starts_with("anonymous@");
        let Some(left_out) = self.denials.next(is_known, Instant::now()) else { return };
        // What is not recorded is not logged either: it would fill the disk just so.
        tracing::warn!(reason, client = event.actor(), "denied");
        let mut event = event.detail("reason", reason);
        if left_out > 0 {
            event = event.detail("denials_not_recorded_before", left_out);
        }
        self.record_or_warn(event, "a denial").await;
    }

    /// Records that something was read again while the program runs.
    pub async fn record_reload(&self, what: &str) {
        let event = Event::of_service(EventType::ConfigChanged, "reload", what, self.clock.now());
        self.record_or_warn(event, "a change of files").await;
    }

    /// Passes a permission on; a refusal is recorded as a denial of what `event` would have been.
    pub(super) async fn permit(&self, permission: Result<(), Error>, event: &Event) -> Result<(), Error> {
        if let Err(Error::NotPermitted(what)) = &permission {
            let event = event.clone().of_kind(EventType::AccessDenied).failed(Severity::Warning);
            self.record_denial(event, format!("may not {what}")).await;
        }
        permission
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_denials_is_counted_and_not_written_out() {
        let (denials, begin) = (Denials::default(), Instant::now());
        let recorded = (0..1000).filter(|_| denials.next(false, begin).is_some()).count();
        assert_eq!(denials.next(true, begin), Some(0), "strangers keep nobody who is known off the trail");
        assert_eq!(recorded, 50);
        assert_eq!(denials.next(false, begin + Duration::from_secs(1)), Some(950));
        assert_eq!(denials.next(false, begin + Duration::from_secs(1)), Some(0));
    }

    #[test]
    fn whoever_looks_on_is_recorded_once_a_minute() {
        let (readers, begin) = (Readers::default(), Instant::now());
        let recorded = |seconds: u64| readers.is_new("alice", begin + Duration::from_secs(seconds));
        assert_eq!([0, 1, 59, 60, 61, 119, 120].map(recorded), [true, false, false, true, false, false, true]);
        assert!(readers.is_new("bob", begin));
    }
}
