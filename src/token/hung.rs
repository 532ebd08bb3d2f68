//! Calls that do not end. A call into PKCS#11 cannot be cancelled, and under one that hangs the module
//! can be neither finalized nor initialized: only a new process has a working module again.

use std::time::Duration;

use tokio::sync::watch;

/// How many calls hang, and whether they are too many.
#[derive(Debug)]
pub(super) struct Hung {
    bound: usize,
    now: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    count: usize,
    is_worn: bool,
    is_too_much: bool,
}

impl Hung {
    /// None hangs; `bound` of them are too many.
    pub fn new(bound: usize) -> Self {
        Self { bound, now: watch::Sender::default() }
    }

    /// A call has passed its deadline, and nobody waits for it any more.
    pub fn one_more(&self, lane: &str, elapsed: Duration) {
        self.now.send_modify(|state| state.count += 1);
        let (count, elapsed) = (self.now.borrow().count, elapsed.as_millis());
        tracing::error!(lane, elapsed, count, bound = self.bound, "a call to the token does not end: it is given up");
        if count >= self.bound {
            self.too_much("as many calls to the token hang as may");
        }
    }

    /// One of them has ended after all.
    pub fn one_less(&self) {
        self.now.send_modify(|state| state.count = state.count.saturating_sub(1));
    }

    /// From now on only a new process helps.
    pub fn too_much(&self, why: &str) {
        let news = self.now.send_if_modified(|state| !std::mem::replace(&mut state.is_too_much, true));
        if news {
            tracing::error!(why, "the PKCS#11 module can only be used again by a new process");
        }
    }

    /// How many more calls may be made beside those that hang.
    pub fn bound(&self) -> usize {
        self.bound
    }

    pub fn is_one(&self) -> bool {
        self.now.borrow().count > 0
    }

    pub fn is_too_much(&self) -> bool {
        self.now.borrow().is_too_much
    }

    /// The module has run out of something that only a new process has again.
    pub fn wear_out(&self) {
        self.now.send_modify(|state| state.is_worn = true);
    }

    /// Waits until a new process would do better: half as many calls hang as are too many, or the module
    /// has run out of something.
    pub async fn until_weary(&self) {
        let half = self.bound.div_ceil(2);
        // As below.
        let _ = self.now.subscribe().wait_for(|state| state.is_worn || state.count >= half).await;
    }

    /// Waits until they are too many.
    pub async fn until_too_much(&self) {
        // Fails only when the sender is gone, which is a part of this very value.
        let _ = self.now.subscribe().wait_for(|state| state.is_too_much).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_reached_by_calls_that_hang_at_once() {
        let hung = Hung::new(2);
        hung.one_more("test", Duration::ZERO);
        hung.one_less();
        hung.one_more("test", Duration::ZERO);
        assert!(hung.is_one() && !hung.is_too_much());
        hung.one_more("test", Duration::ZERO);
        assert!(hung.is_too_much());
        hung.one_less();
        assert!(hung.is_too_much(), "what was given up is given up");
    }
}
