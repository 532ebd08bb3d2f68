//! When the connection to the token may be made anew: soon, but never in a storm, and never with a
//! PIN that was refused.

use std::time::{Duration, Instant};

use super::{Error, PinProblem};

/// Between tries to find a token that is away: no PIN is tried until it is found.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

/// Between logins to a token that is there and goes on failing.
const LONGEST_AFTER_LOGIN: Duration = Duration::from_secs(30);

/// A connection that lasts this long was worth making.
const WORTH: Duration = Duration::from_secs(10);

/// A connection that did some good before it failed is made anew about twice a second, and no more rarely.
const USEFUL: u32 = 2;

/// What is remembered of earlier tries.
#[derive(Clone, Debug, Default)]
pub(super) struct Recovery {
    failures: u32,
    /// Connections that were of no use, one after the other.
    futile: u32,
    not_before: Option<Instant>,
    pin: Option<PinProblem>,
    ended: bool,
}

impl Recovery {
    /// Whether a try may be made at `now`.
    pub fn permit(&mut self, now: Instant) -> Result<(), Error> {
        if let Some(problem) = self.pin {
            return Err(Error::Pin(problem));
        }
        if self.ended {
            return Err(Error::lost("the module was finalized"));
        }
        if self.not_before.is_some_and(|time| now < time) {
            return Err(Error::lost("the token is away; it is looked for again in a moment"));
        }
        Ok(())
    }

    /// A try was made, and the token is connected.
    pub fn succeeded(&mut self, now: Instant) {
        // Counted from when the next try was allowed: a long pause is not a long life.
        let lasted = self.not_before.is_none_or(|time| now.saturating_duration_since(time) > WORTH);
        self.futile = if lasted { 0 } else { self.futile.saturating_add(1) };
        self.failures = 0;
        self.not_before = Some(now + jittered(grown(self.futile).min(LONGEST_AFTER_LOGIN)));
    }

    /// The connection did some good before it failed, however soon that was: the next is not put off long.
    pub fn was_useful(&mut self) {
        self.futile = self.futile.min(USEFUL);
    }

    /// A try was made in vain.
    pub fn failed(&mut self, now: Instant, error: Option<&Error>) {
        if let Some(Error::Pin(problem)) = error {
            if *problem != PinProblem::NotInitialised {
                tracing::error!(%problem, "the token's PIN is not tried again: correct it, then restart this process");
                self.pin = Some(*problem);
            }
        } else if let Some(error) = error.filter(|_| self.failures == 0) {
            tracing::error!(%error, "the token is away: it is looked for until it is back");
        }
        self.failures = self.failures.saturating_add(1);
        let pause = match error {
            // Whatever the token says, it may have counted this try.
            Some(Error::Login(_)) => LONGEST,
            Some(_) | None => grown(self.failures).min(LONGEST),
        };
        self.not_before = Some(now + jittered(pause));
    }

    /// How long to wait before the next try; `None` when there is to be none.
    pub fn pause(&self, now: Instant) -> Option<Duration> {
        let never = self.ended || self.pin.is_some();
        (!never).then(|| self.not_before.map_or(Duration::ZERO, |time| time.saturating_duration_since(now)))
    }

    /// What the token said of the PIN, if it refused it.
    pub fn refused_pin(&self) -> Option<PinProblem> {
        self.pin
    }

    /// No more tries: the process ends.
    pub fn end(&mut self) {
        self.ended = true;
    }
}

fn grown(times: u32) -> Duration {
    SHORTEST.saturating_mul(2_u32.saturating_pow(times.min(16)))
}

/// Appliances on one token shall not all come at once.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0];
    // Without random numbers, without jitter.
    let _ = getrandom::fill(&mut random);
    pause * (192 + u32::from(random[0]) / 2) / 256
}

#[cfg(test)]
mod tests {
    use super::{super::CallError, *};

    /// How many tries are made in so many seconds when each ends like this.
    fn tries(seconds: u64, end: impl Fn(&mut Recovery, Instant)) -> usize {
        let (mut recovery, begun) = (Recovery::default(), Instant::now());
        let mut made = 0;
        for step in 0..seconds * 1000 {
            let now = begun + Duration::from_millis(step);
            if recovery.permit(now).is_ok() {
                made += 1;
                end(&mut recovery, now);
            }
        }
        made
    }

    #[test]
    fn a_token_that_is_away_is_looked_for_every_second() {
        let away = |recovery: &mut Recovery, now| recovery.failed(now, Some(&Error::lost("away")));
        assert!((58..90).contains(&tries(60, away)), "{}", tries(60, away));
    }

    #[test]
    fn a_token_that_goes_on_failing_is_not_stormed_with_logins() {
        let useless = |recovery: &mut Recovery, now| recovery.succeeded(now);
        assert!(tries(600, useless) < 40, "{}", tries(600, useless));
    }

    #[test]
    fn a_token_that_does_some_good_between_failures_is_not_put_off_long() {
        let useful = |recovery: &mut Recovery, now| {
            recovery.was_useful();
            recovery.succeeded(now);
        };
        assert!((120..=210).contains(&tries(60, useful)), "{}", tries(60, useful));
    }

    #[test]
    fn a_login_that_fails_for_no_known_reason_is_tried_once_a_second() {
        let fails = |recovery: &mut Recovery, now| {
            recovery.failed(now, Some(&Error::Login(CallError::nonsense("an error"))));
        };
        assert!((40..=80).contains(&tries(60, fails)), "{}", tries(60, fails));
    }

    #[test]
    fn a_refused_pin_is_not_tried_again() {
        let refused = |recovery: &mut Recovery, now| recovery.failed(now, Some(&Error::Pin(PinProblem::Incorrect)));
        assert_eq!(tries(600, refused), 1);
        let mut recovery = Recovery::default();
        recovery.failed(Instant::now(), Some(&Error::Pin(PinProblem::Locked)));
        assert!(matches!(recovery.permit(Instant::now()), Err(Error::Pin(PinProblem::Locked))));
    }

    #[test]
    fn after_the_end_there_are_no_more() {
        let mut recovery = Recovery::default();
        recovery.end();
        assert!(recovery.permit(Instant::now()).is_err());
    }
}
