//! Whether records can be written, as everyone may see at once and without asking the writer.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

/// Why the trail takes nothing, or only little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stop {
    /// The disk is full: only what security staff do is still recorded, in the reserve. Ends by
    /// itself when there is room again.
    DiskFull = 1,
    /// The file system has become read-only. Ends by itself.
    ReadOnly = 2,
    /// The file was moved, replaced or removed. Ends with a restart.
    FileLost = 3,
    /// A write or sync failed and the state of the file is unknown. The process ends.
    Failed = 4,
}

impl Stop {
    fn from_code(code: u8) -> Option<Self> {
        [Self::DiskFull, Self::ReadOnly, Self::FileLost, Self::Failed].into_iter().find(|stop| *stop as u8 == code)
    }

    /// What an operator is told.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::DiskFull => {
                "the disk of the audit trail is full: nothing is signed until there is room; revocations are still recorded"
            }
            Self::ReadOnly => {
                "the file system of the audit trail is read-only: nothing is signed until it can be written"
            }
            Self::FileLost => {
                "audit.log was moved, replaced or removed while it was written: nothing is signed; find it, and start again"
            }
            Self::Failed => {
                "the audit trail could not be written: the process ends; start-up finds out what is on disk"
            }
        }
    }
}

/// Shared between the writer and everyone else.
#[derive(Default)]
pub struct Condition {
    stop: AtomicU8,
    /// Records on disk.
    size: AtomicU64,
    free: AtomicU64,
    wake: Notify,
    /// Why no signature may be released although records can be written.
    withheld: ArcSwapOption<String>,
}

impl Condition {
    pub fn stop(&self) -> Option<Stop> {
        Stop::from_code(self.stop.load(Ordering::Acquire))
    }

    pub fn set(&self, stop: Option<Stop>) {
        self.stop.store(stop.map_or(0, |stop| stop as u8), Ordering::Release);
        self.wake.notify_waiters();
    }

    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    pub fn set_size(&self, size: u64) {
        self.size.store(size, Ordering::Release);
    }

    pub fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    pub fn set_free(&self, bytes: u64) {
        self.free.store(bytes, Ordering::Relaxed);
    }

    pub fn withheld(&self) -> Option<String> {
        self.withheld.load().as_deref().cloned()
    }

    pub fn withhold(&self, why: Option<String>) {
        self.withheld.store(why.map(std::sync::Arc::new));
    }

    /// Returns when the process must end.
    pub async fn failed(&self) {
        loop {
            let woken = self.wake.notified();
            if self.stop() == Some(Stop::Failed) {
                return;
            }
            woken.await;
        }
    }
}
