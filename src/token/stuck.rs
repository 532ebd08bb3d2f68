//! Which calls are inside the module, and for how long: what cannot be cancelled can still be noticed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// The calls in progress in one lane.
pub(super) struct Progress {
    lane: &'static str,
    workers: usize,
    /// When each should have ended.
    ends: Mutex<Vec<Option<Instant>>>,
}

/// A call in progress, until dropped.
pub(super) struct InProgress {
    progress: Arc<Progress>,
    place: usize,
}

/// How far past its deadline a call may be before it is held to hang: a token that is merely slow
/// answers a little late.
const PATIENCE: Duration = Duration::from_millis(500);

impl Progress {
    pub fn of(lane: &'static str, workers: usize) -> Self {
        Self { lane, workers, ends: Mutex::default() }
    }

    /// A call begins that should have ended by `end`.
    pub fn begin(self: &Arc<Self>, end: Instant) -> InProgress {
        let mut ends = self.ends.lock();
        let place = ends.iter().position(Option::is_none).unwrap_or(ends.len());
        if place == ends.len() {
            ends.push(None);
        }
        ends[place] = Some(end);
        InProgress { progress: Arc::clone(self), place }
    }

    /// The lane's name when every one of its workers hangs: nothing asked of it is ever answered.
    pub fn stuck(&self, now: Instant) -> Option<&'static str> {
        let hung = self.ends.lock().iter().flatten().filter(|end| now > **end + PATIENCE).count();
        (hung >= self.workers).then_some(self.lane)
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.progress.ends.lock()[self.place] = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_stuck_when_every_worker_hangs_and_not_before() {
        let (progress, now) = (Arc::new(Progress::of("lane", 2)), Instant::now());
        let late = now + Duration::from_secs(1);
        let first = progress.begin(now);
        assert_eq!(progress.stuck(late), None, "one worker goes on");
        let second = progress.begin(now);
        assert_eq!(progress.stuck(now), None, "neither is late");
        assert_eq!(progress.stuck(late), Some("lane"));
        drop(second);
        assert_eq!(progress.stuck(late), None);
        let third = progress.begin(now);
        assert_eq!(progress.stuck(late), Some("lane"));
        drop((first, third));
        assert_eq!(progress.ends.lock().len(), 2);
    }
}
