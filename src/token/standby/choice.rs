//! Which token signs first. The primary, until it fails three times in a row and a standby can; then that
//! standby, until it fails, or the primary has done well for a while.

use std::time::{Duration, Instant};

/// So many failures in a row, and a token is not asked first any more. One call that hangs is no
/// reason: the others go on.
pub(super) const TOO_MANY: u32 = 3;

/// Tokens by their number: 0 is the primary, standbys are 1, 2, … in order of preference.
#[derive(Debug)]
pub(super) struct Choice {
    current: usize,
    /// Of the primary, in a row.
    failures: u32,
    /// Since when every look at the primary went well.
    well_since: Option<Instant>,
    return_after: Duration,
}

/// From which to which.
type Change = Option<(usize, usize)>;

impl Choice {
    pub fn new(return_after: Duration) -> Self {
        Self { current: 0, failures: 0, well_since: None, return_after }
    }

    pub fn current(&self) -> usize {
        self.current
    }

    /// It has not failed since it last did what it was asked.
    pub fn primary_does_well(&self) -> bool {
        if self.current == 0 { self.failures == 0 } else { self.well_since.is_some() }
    }

    /// The primary has failed.
    pub fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.well_since = None;
    }

    /// `on` has signed; `chosen` was asked first, and if it is another, it could not.
    pub fn signed(&mut self, on: usize, chosen: usize) -> Change {
        if on == 0 && chosen == 0 {
            self.failures = 0;
        }
        let others_have_decided = chosen != self.current;
        let is_bearable = chosen == 0 && self.failures < TOO_MANY;
        if on == chosen || others_have_decided || is_bearable { None } else { Some(self.change(on)) }
    }

    /// Somebody has looked at the primary. `next` is the standby that could sign in its place.
    pub fn looked(&mut self, well: bool, next: Option<usize>, now: Instant) -> Change {
        if well {
            let since = *self.well_since.get_or_insert(now);
            let is_back = self.current != 0 && now.saturating_duration_since(since) >= self.return_after;
            return is_back.then(|| self.change(0));
        }
        self.failed();
        let next = next.filter(|_| self.current == 0 && self.failures >= TOO_MANY)?;
        Some(self.change(next))
    }

    fn change(&mut self, to: usize) -> (usize, usize) {
        let from = std::mem::replace(&mut self.current, to);
        self.failures = 0;
        (from, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETURN: Duration = Duration::from_secs(30);

    fn choice() -> Choice {
        Choice::new(RETURN)
    }

    /// A request that the primary fails and standby 1 answers.
    fn passed_over(choice: &mut Choice) -> Change {
        let chosen = choice.current();
        choice.failed();
        choice.signed(1, chosen)
    }

    #[test]
    fn three_failures_in_a_row_change_over_and_one_among_others_does_not() {
        let mut choice = choice();
        for _ in 0..10 {
            assert_eq!(passed_over(&mut choice), None);
            assert_eq!(passed_over(&mut choice), None);
            assert_eq!(choice.signed(0, 0), None);
        }
        assert_eq!([passed_over(&mut choice), passed_over(&mut choice)], [None, None]);
        assert_eq!(passed_over(&mut choice), Some((0, 1)));
        assert_eq!(choice.current(), 1);
    }

    #[test]
    fn a_call_that_the_primary_answers_late_changes_nothing() {
        let mut choice = choice();
        for _ in 0..3 {
            passed_over(&mut choice);
        }
        assert_eq!((choice.signed(0, 0), choice.current()), (None, 1));
        // Nor does one that began before the change and ended on the same standby.
        assert_eq!((choice.signed(1, 0), choice.current()), (None, 1));
        // However many of them fail late.
        (0..3).for_each(|_| choice.failed());
        assert_eq!((choice.signed(1, 0), choice.current()), (None, 1));
        // Nor one that began on the standby and ends on another, when the primary signs again.
        assert_eq!(choice.signed(0, 1), Some((1, 0)));
        assert_eq!((choice.signed(2, 1), choice.current()), (None, 0));
    }

    #[test]
    fn a_standby_that_fails_is_left_at_once() {
        let mut choice = choice();
        for _ in 0..3 {
            passed_over(&mut choice);
        }
        assert_eq!(choice.signed(2, 1), Some((1, 2)));
        assert_eq!(choice.signed(0, 2), Some((2, 0)));
    }

    #[test]
    fn looks_alone_change_over_where_a_standby_is_ready() {
        let (mut choice, now) = (choice(), Instant::now());
        for _ in 0..10 {
            assert_eq!(choice.looked(false, None, now), None);
        }
        assert_eq!(choice.looked(false, Some(2), now), Some((0, 2)));
    }

    #[test]
    fn the_primary_signs_again_after_it_did_well_for_a_while_and_no_sooner() {
        let (mut choice, begun) = (choice(), Instant::now());
        for _ in 0..3 {
            passed_over(&mut choice);
        }
        let second = |n: u64| begun + Duration::from_secs(n);
        for n in 0..30 {
            assert_eq!(choice.looked(true, Some(1), second(n)), None, "{n}");
        }
        // One failure, and the while begins anew.
        assert_eq!(choice.looked(false, Some(1), second(30)), None);
        for n in 31..61 {
            assert_eq!(choice.looked(true, Some(1), second(n)), None, "{n}");
        }
        assert_eq!(choice.looked(true, Some(1), second(61)), Some((1, 0)));
        assert_eq!(choice.looked(true, Some(1), second(62)), None);
    }
}
