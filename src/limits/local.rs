//! Buckets in this process: all of them for a single appliance, and for a fleet those that keep one
//! appliance from being flooded. What is remembered is bounded: whoever comes from millions of
//! addresses makes the longest silent ones be forgotten, and nothing else.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    RateLimiter,
    clock::{Clock, MonotonicClock, Reference},
    middleware::StateInformationMiddleware,
    nanos::Nanos,
    state::StateStore,
};
use parking_lot::{Mutex, RwLock};

use super::recent::Recent;
use crate::quota::{Charge, Exceeded, Failure, Principal, Window};

/// Buckets remembered, of all kinds together: some 30 MiB when all are taken.
const REMEMBERED: usize = 200_000;

/// A bucket: whose, and which of their limits.
type Bucket = (Principal, &'static str, Window);

/// The state of all buckets, shared by the limiters of all limits.
#[derive(Clone, Debug)]
struct Buckets(Arc<Mutex<Recent<Bucket, Nanos>>>);

impl StateStore for Buckets {
    type Key = Bucket;

    fn measure_and_replace<T, F, E>(&self, key: &Bucket, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut buckets = self.0.lock();
        let (outcome, state) = f(buckets.get(key).copied())?;
        buckets.put(key.clone(), state);
        Ok(outcome)
    }
}

/// A limiter for each limit and window: their number is that of the limits in the configuration.
type Limiters<C> = HashMap<(&'static str, Window), Arc<Limiter<C>>>;

/// When each cool-down of a principal began, and how long it lasts.
type CoolDowns<I> = Recent<(Principal, &'static str), (I, Duration)>;

type Limiter<C> = RateLimiter<Bucket, Buckets, C, StateInformationMiddleware>;

/// The buckets, by the clock `C`.
pub struct Local<C: Clock = MonotonicClock> {
    clock: C,
    buckets: Buckets,
    limiters: RwLock<Limiters<C>>,
    cooling: Mutex<CoolDowns<C::Instant>>,
}

impl Default for Local {
    fn default() -> Self {
        Self::new(MonotonicClock)
    }
}

impl<C: Clock + Clone> Local<C> {
    fn new(clock: C) -> Self {
        Self {
            clock,
            buckets: Buckets(Arc::new(Mutex::new(Recent::at_most(REMEMBERED)))),
            limiters: RwLock::default(),
            cooling: Mutex::new(Recent::at_most(REMEMBERED)),
        }
    }

    /// Charges all, in order, until one refuses. How many more the last one would take.
    pub fn take(&self, charges: &[Charge]) -> Result<Option<u32>, Exceeded> {
        let mut left = None;
        for charge in charges {
            left = if charge.window == Window::CoolDown { self.rested(charge)? } else { Some(self.charge(charge)?) };
        }
        Ok(left)
    }

    fn charge(&self, charge: &Charge) -> Result<u32, Exceeded> {
        let exceeded = |retry_after| Exceeded { charge: charge.clone(), retry_after };
        let Some(count) = NonZeroU32::new(charge.count) else { return Ok(charge.quota.burst) };
        let bucket = (charge.principal.clone(), charge.limit, charge.window);
        match self.limiter(charge).check_key_n(&bucket, count) {
            Ok(Ok(snapshot)) => Ok(snapshot.remaining_burst_capacity()),
            Ok(Err(refused)) => Err(exceeded(refused.wait_time_from(self.clock.now()))),
            // More than the bucket ever holds.
            Err(_) => Err(exceeded(charge.quota.window())),
        }
    }

    fn limiter(&self, charge: &Charge) -> Arc<Limiter<C>> {
        let key = (charge.limit, charge.window);
        if let Some(limiter) = self.limiters.read().get(&key) {
            return Arc::clone(limiter);
        }
        let burst = NonZeroU32::new(charge.quota.burst).unwrap_or(NonZeroU32::MIN);
        let interval = charge.quota.interval.max(Duration::from_nanos(1));
        let quota = governor::Quota::with_period(interval).expect("not zero").allow_burst(burst);
        let made: Limiter<C> = RateLimiter::new(quota, self.buckets.clone(), self.clock.clone());
        Arc::clone(self.limiters.write().entry(key).or_insert_with(|| Arc::new(made)))
    }

    /// From now on buckets are of the size that each charge names. What is in them stays.
    pub fn forget_quotas(&self) {
        self.limiters.write().clear();
    }

    fn rested(&self, charge: &Charge) -> Result<Option<u32>, Exceeded> {
        let mut cooling = self.cooling.lock();
        let key = (charge.principal.clone(), charge.limit);
        let Some((since, length)) = cooling.get(&key) else { return Ok(None) };
        let passed: Duration = self.clock.now().duration_since(*since).into();
        match length.checked_sub(passed).filter(|left| !left.is_zero()) {
            Some(retry_after) => Err(Exceeded { charge: charge.clone(), retry_after }),
            None => {
                cooling.remove(&key);
                Ok(None)
            }
        }
    }

    /// Counts a failure; true when a cool-down begins with it.
    pub fn fail(&self, failure: &Failure) -> bool {
        let charge = failure.charge();
        if self.charge(&charge).is_ok_and(|left| left > 0) {
            return false;
        }
        // Counting begins anew when the cool-down has passed.
        self.buckets.0.lock().remove(&(charge.principal, charge.limit, charge.window));
        self.cooling.lock().put((failure.principal.clone(), failure.limit), (self.clock.now(), failure.cool_down));
        true
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;
    use crate::quota::Quota;

    fn subject(name: &str) -> Principal {
        Principal::Subject(name.into())
    }

    fn charge(name: &str, count: u32) -> Charge {
        let quota = Quota::per(10, Duration::from_secs(3600));
        Charge { principal: subject(name), limit: "email", window: Window::Hour, quota, count }
    }

    fn failure() -> Failure {
        let quota = Quota::per(3, Duration::from_secs(3600));
        Failure { principal: subject("a"), limit: "email", quota, cool_down: Duration::from_secs(600) }
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_one_each_interval() {
        let clock = FakeRelativeClock::default();
        let local = Local::new(clock.clone());
        for left in (0..10).rev() {
            assert_eq!(local.take(&[charge("a", 1)]), Ok(Some(left)));
        }
        let exceeded = local.take(&[charge("a", 1)]).unwrap_err();
        assert_eq!(exceeded.retry_after_seconds(), 360);
        assert_eq!(local.take(&[charge("b", 10)]), Ok(Some(0)), "another subject has its own");
        clock.advance(Duration::from_secs(359));
        assert_eq!(local.take(&[charge("a", 1)]).unwrap_err().retry_after_seconds(), 1);
        clock.advance(Duration::from_secs(1));
        assert_eq!(local.take(&[charge("a", 1)]), Ok(Some(0)));
    }

    #[test]
    fn more_than_a_bucket_ever_holds_is_refused_and_takes_nothing() {
        let local = Local::new(FakeRelativeClock::default());
        assert_eq!(local.take(&[charge("a", 11)]).unwrap_err().retry_after_seconds(), 3600);
        assert_eq!(local.take(&[charge("a", 10)]), Ok(Some(0)));
    }

    #[test]
    fn too_many_failures_begin_a_cool_down_that_ends() {
        let clock = FakeRelativeClock::default();
        let local = Local::new(clock.clone());
        let rest = [Failure::rest(subject("a"), "email")];
        assert_eq!([local.fail(&failure()), local.fail(&failure())], [false, false]);
        assert_eq!(local.take(&rest), Ok(None));
        assert!(local.fail(&failure()), "the third of three");
        assert_eq!(local.take(&rest).unwrap_err().retry_after_seconds(), 600);
        assert_eq!(local.take(&[Failure::rest(subject("b"), "email")]), Ok(None));
        clock.advance(Duration::from_secs(600));
        assert_eq!(local.take(&rest), Ok(None));
        assert!(!local.fail(&failure()), "counting has begun anew");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let local = Local::new(FakeRelativeClock::default());
        for number in 0..REMEMBERED + 1000 {
            local.take(&[charge(&number.to_string(), 1)]).unwrap();
        }
        assert_eq!(local.buckets.0.lock().iter().count(), REMEMBERED);
    }
}
