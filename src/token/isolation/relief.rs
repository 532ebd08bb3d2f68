//! One process takes over from another that still works. Calls that hang in a module wear its process out:
//! at the bound it ends, with whatever else was in progress. So when half as many hang, or the module has no
//! memory left, the next is started beside it, and takes the calls from then on; the other answers those it
//! has, and ends. Nobody waits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    super::Error,
    keeper::{Keeper, Running},
    remote::Stage,
    wire::ToChild,
};

/// What became of the next process.
const AWAITED: u8 = 0;
const UP: u8 = 1;
const FAILED: u8 = 2;

impl Keeper {
    /// Whether another process may be started now.
    pub(super) fn may_relieve(&self) -> bool {
        !self.closing() && self.recovery.pause(Instant::now()) == Some(Duration::ZERO)
    }

    /// Starts the next process, while this one goes on. Where there can be no other beside it, it stays.
    pub(super) fn relieve(&mut self, weary: Running) -> Running {
        self.appreciate(&weary);
        let (keeper, next) = (self.clone(), Arc::new(AtomicU8::new(AWAITED)));
        let seen = Arc::clone(&next);
        // The process ends with the thread that started it: that is this one, not the one that listens to it.
        let listening = thread::spawn(move || keeper.go_on(weary, &seen));
        match self.start() {
            Ok((running, _)) => {
                self.up(&running);
                next.store(UP, Ordering::Release);
                if self.closing() {
                    // Whoever closes may have told the other one.
                    running.line.send(&ToChild::Close);
                }
                tracing::warn!("calls into the module hang, or it has no memory left: another process has taken over");
                running
            }
            Err(error) => {
                next.store(FAILED, Ordering::Release);
                tracing::warn!(%error, "calls into the module hang, or it has no memory left: no other process can take over");
                let refused = matches!(error, Error::Pin(_));
                self.recovery.failed(Instant::now(), refused.then_some(&error));
                listening.join().expect("it does not panic")
            }
        }
    }

    /// Hands out the answers of a process that is relieved, and ends it when it has none left to give.
    fn go_on(self, mut weary: Running, next: &AtomicU8) -> Running {
        // Every call has its deadline: whoever waits for one that hangs goes.
        self.serve(&mut weary, |weary| match next.load(Ordering::Acquire) {
            AWAITED => false,
            UP => weary.line.hang_up_when_idle(),
            _ => true,
        });
        if next.load(Ordering::Acquire) == FAILED {
            return weary;
        }
        // It may have ended before the other was there: then calls wait for that one.
        let is_it = |stage: &Stage| matches!(stage, Stage::Up(line, _) if Arc::ptr_eq(line, &weary.line));
        let lost = self.shared.stage.send_if_modified(|stage| {
            let lost = is_it(stage);
            if lost {
                *stage = Stage::Starting;
            }
            lost
        });
        self.shared.losses.fetch_add(u64::from(lost && !self.closing()), Ordering::Relaxed);
        weary.line.hang_up();
        weary.process.end();
        weary
    }
}
