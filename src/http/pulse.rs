//! Whether the threads that serve requests turn. Each beats once a second; one that blocks for good (a
//! deadlock, a call that never returns) stops beating, and nobody feeds the watchdog any more.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

const BEAT: Duration = Duration::from_secs(1);

/// The last beat of every thread that serves.
#[derive(Clone, Default)]
pub struct Pulse(Arc<Mutex<Vec<Weak<Mutex<Instant>>>>>);

impl Pulse {
    /// The calling thread beats from now on, until its runtime ends.
    pub(super) fn begin(&self) {
        let last = Arc::new(Mutex::new(Instant::now()));
        self.0.lock().push(Arc::downgrade(&last));
        actix_web::rt::spawn(async move {
            loop {
                *last.lock() = Instant::now();
                tokio::time::sleep(BEAT).await;
            }
        });
    }

    /// Whether every thread has beaten within this time. Those that ended do not count.
    #[must_use]
    pub fn is_steady(&self, within: Duration) -> bool {
        let mut threads = self.0.lock();
        threads.retain(|thread| thread.strong_count() > 0);
        threads.iter().filter_map(Weak::upgrade).all(|last| last.lock().elapsed() <= within)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Waits for a condition with a deadline that only a broken test reaches.
    fn eventually(mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(Instant::now() < deadline, "never happened");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A thread that serves: blocks when it is told to, ends when it is told again.
    fn thread(pulse: &Pulse) -> (mpsc::Sender<()>, mpsc::Sender<()>, std::thread::JoinHandle<()>) {
        let (block, blocks) = mpsc::channel::<()>();
        let (release, released) = mpsc::channel::<()>();
        let pulse = pulse.clone();
        let thread = std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                pulse.begin();
                while blocks.try_recv().is_err() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                released.recv().unwrap();
            });
        });
        (block, release, thread)
    }

    #[test]
    fn a_thread_that_blocks_is_missed_and_one_that_ended_is_not() {
        let pulse = Pulse::default();
        let (turning, blocked) = (thread(&pulse), thread(&pulse));
        let within = Duration::from_secs(3);
        eventually(|| pulse.0.lock().len() == 2);
        assert!(pulse.is_steady(within));
        blocked.0.send(()).unwrap();
        eventually(|| !pulse.is_steady(within));
        for (block, release, thread) in [blocked, turning] {
            let _ = block.send(());
            release.send(()).unwrap();
            thread.join().unwrap();
        }
        eventually(|| pulse.is_steady(Duration::ZERO));
    }
}
